//! Operations that write, each durable by itself.

use std::time::Duration;

use store_api::{Amount, RunId};

use super::{Case, Clients, Loop, Make, Method, Needs, Seat, check};
use crate::measure::Op;
use crate::population::{self, Population};
use crate::subject::{Result, Settlement};
use crate::{data, population::WITH_VERSIONS};

const fn case(name: &'static str, about: &'static str, needs: Needs, make: Make) -> Case {
    let method = Loop { on: |_| Population::Small, needs, clients: Clients::Writers, make };
    Case { name, about, method: Method::Loop(method) }
}

pub(super) const APPEND_VERSION: Case =
    case("append-version", "a version of 2 KB is appended", Needs::Nothing, append_version);

/// Above all numbers of the population.
const FRESH: u64 = 1_000_000_000;

pub(super) fn append_version(Seat { subject, .. }: Seat<'_>) -> Result<Op<'_>> {
    let mut version = data::version(0, 0, data::DOCUMENT_BYTES)?;
    Ok(Box::new(move |n| {
        version.id = data::version_id(FRESH + n)?;
        version.snapshot.id = data::skill_id(n % WITH_VERSIONS)?;
        check(subject.append_version(&version)? > population::VERSIONS, "the number of the version")
    }))
}

pub(super) const APPEND_16: Case =
    at_once("append-version-16", "16 versions are appended in one transaction", append_at_once::<16>);
pub(super) const APPEND_64: Case =
    at_once("append-version-64", "64 versions are appended in one transaction", append_at_once::<64>);

/// What as many clients could reach at most by sharing commits.
const fn at_once(name: &'static str, about: &'static str, make: Make) -> Case {
    let clients = Clients::Exactly(1);
    let method = Loop { on: |_| Population::Small, needs: Needs::Nothing, clients, make };
    Case { name, about, method: Method::Loop(method) }
}

fn append_at_once<const N: u64>(Seat { subject, .. }: Seat<'_>) -> Result<Op<'_>> {
    let mut versions = vec![data::version(0, 0, data::DOCUMENT_BYTES)?; usize::try_from(N)?];
    Ok(Box::new(move |n| {
        for (version, n) in versions.iter_mut().zip(n * N..) {
            version.id = data::version_id(FRESH + n)?;
            version.snapshot.id = data::skill_id(n % WITH_VERSIONS)?;
        }
        check(subject.append_versions(&versions)? > population::VERSIONS, "the number of the version")
    }))
}

pub(super) const MARK: Case = case("mark", "a schedule is marked as run", Needs::Nothing, |seat| {
    let Seat { subject, population, .. } = seat;
    Ok(Box::new(move |n| {
        let id = data::skill_id(data::scatter(n, population.skills()))?;
        subject.mark(&id, data::at(n), data::at(n + 3_600))
    }))
});

pub(super) const BUDGET_ADD: Case = case("budget-add", "an account is charged", Needs::Nothing, |seat| {
    let charges = data::charges()?;
    Ok(Box::new(move |n| {
        let charge = &charges[usize::try_from(n % data::ACCOUNTS)?];
        check(seat.subject.charge(charge, None, data::at(1))? > Amount::ZERO, "what is used")
    }))
});

pub(super) const ADMIT: Case =
    case("admit", "an account is charged within its limit", Needs::Nothing, |seat| {
        let charges = data::charges()?;
        Ok(Box::new(move |n| {
            let charge = &charges[usize::try_from(n % data::ACCOUNTS)?];
            check(seat.subject.charge(charge, Some(Amount::MAX), data::at(1))? > Amount::ZERO, "what is used")
        }))
    });

pub(super) const START_RUN: Case = case("start-run", "a run is started", Needs::Nothing, |seat| {
    let mut run = data::run(data::run_id(0)?, 0, 0)?;
    Ok(Box::new(move |n| {
        run.id = RunId::new(format!("started-{n:010}"))?;
        run.skill = Some(data::skill_id(data::scatter(n, seat.population.skills()))?);
        run.started_at = data::at(FRESH + n);
        seat.subject.start_run(&run)
    }))
});

pub(super) const APPEND_EVENT: Case =
    case("append-event", "an event of 300 bytes is appended to a run", Needs::Nothing, |seat| {
        let event = data::event(0);
        Ok(Box::new(move |n| {
            let run = data::run_id(n % population::RUNS)?;
            check(seat.subject.append_event(&run, &event)? > 0, "the number of the event")
        }))
    });

pub(super) const FINISH_RUN: Case = case("finish-run", "a run is finished", Needs::ARun, |seat| {
    Ok(Box::new(move |n| seat.subject.finish_run(&data::run_id(FRESH + n)?, &data::finish(n)?)))
});

pub(super) const SETTLE: Case = case(
    "settle",
    "a run is finished, an account charged, a schedule marked, a checkpoint deleted, as one unit",
    Needs::ARun,
    |seat| {
        let charges = data::charges()?;
        Ok(Box::new(move |n| {
            seat.subject.settle(&Settlement {
                run: data::run_id(FRESH + n)?,
                finish: data::finish(n)?,
                charge: charges[usize::try_from(n % data::ACCOUNTS)?].clone(),
                skill: data::skill_id(data::scatter(n, seat.population.skills()))?,
                next: data::at(n + 3_600),
            })
        }))
    },
);

/// The run and the checkpoint that the `n`-th operation uses up.
pub(crate) fn prepared(n: u64) -> Result<(store_api::NewRun, store_api::Checkpoint)> {
    let run = data::run(data::run_id(FRESH + n)?, n, data::scatter(n, population::SKILLS))?;
    let checkpoint = data::checkpoint(run.id.clone(), 1, 512);
    Ok((run, checkpoint))
}

pub(super) const CHECKPOINT_1: Case =
    case("checkpoint-1k", "a checkpoint of 1 KB is saved", Needs::Nothing, |seat| checkpoint(seat, 1 << 10));
pub(super) const CHECKPOINT_16: Case =
    case("checkpoint-16k", "a checkpoint of 16 KB is saved", Needs::Nothing, |seat| {
        checkpoint(seat, 16 << 10)
    });
pub(super) const CHECKPOINT_256: Case =
    case("checkpoint-256k", "a checkpoint of 256 KB is saved", Needs::Nothing, |seat| {
        checkpoint(seat, 256 << 10)
    });

fn checkpoint(Seat { subject, client, .. }: Seat<'_>, bytes: usize) -> Result<Op<'_>> {
    let mut checkpoint = data::checkpoint(data::run_id(client as u64)?, 0, bytes);
    Ok(Box::new(move |n| {
        checkpoint.iteration = n;
        subject.save_checkpoint(&checkpoint)
    }))
}

pub(super) const CLAIM: Case = Case {
    name: "claim",
    about: "8 workers each claim the skill that is due first, and finish it",
    method: Method::Loop(Loop {
        on: |_| Population::Small,
        needs: Needs::Nothing,
        clients: Clients::Exactly(8),
        make: |Seat { subject, client, .. }| {
            let worker = data::worker(client)?;
            Ok(Box::new(move |n| {
                let now = data::at(FRESH);
                let claimed =
                    subject.claim(now, &worker, Duration::from_secs(60))?.ok_or("nothing is due")?;
                // Still due, after all others.
                subject.finish_claim(&claimed, now, data::at(10_000 + n))
            }))
        },
    }),
};
