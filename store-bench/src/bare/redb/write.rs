//! What is done inside a write transaction. Documents come encoded.

use std::time::Duration;

use chrono::{DateTime, Utc};
use redb::{ReadableTable, Table, WriteTransaction};
use store_api::budget::{AccountKey, Charging};
use store_api::{
    Amount, Charge, Checkpoint, Finish, LeaseToken, Ledger, NewRun, NewVersion, Record, RunId, RunStatus,
    Skill, SkillId, WorkerId, time,
};

use super::read;
use super::tables::{self, *};
use crate::subject::{Claimed, Result};

/// The tables that a bulk load fills many times over, each opened once.
struct Loading<'t> {
    skills: Table<'t, &'static str, &'static [u8]>,
    names: Table<'t, (&'static str, &'static str), &'static str>,
    last_seqs: Table<'t, &'static str, u64>,
    times: Table<'t, &'static str, Times>,
    due: Table<'t, (i64, &'static str), ()>,
    versions: Table<'t, (&'static str, u64), &'static [u8]>,
    version_ids: Table<'t, &'static str, (&'static str, u64)>,
    accounts: Table<'t, (&'static str, &'static str, &'static str), &'static [u8]>,
    runs: Table<'t, &'static str, (i64, &'static [u8])>,
    finishes: Table<'t, &'static str, &'static [u8]>,
    run_lists: Table<'t, Listed, ()>,
    events: Table<'t, (&'static str, u64), &'static [u8]>,
    checkpoints: Table<'t, &'static str, (u64, &'static [u8])>,
}

pub(super) fn load(tx: &WriteTransaction, records: &mut (dyn Iterator<Item = Record> + Send)) -> Result<()> {
    let mut loading = Loading {
        skills: tx.open_table(SKILLS)?,
        names: tx.open_table(NAMES)?,
        last_seqs: tx.open_table(LAST_SEQS)?,
        times: tx.open_table(TIMES)?,
        due: tx.open_table(DUE)?,
        versions: tx.open_table(VERSIONS)?,
        version_ids: tx.open_table(VERSION_IDS)?,
        accounts: tx.open_table(ACCOUNTS)?,
        runs: tx.open_table(RUNS)?,
        finishes: tx.open_table(FINISHES)?,
        run_lists: tx.open_table(RUN_LISTS)?,
        events: tx.open_table(EVENTS)?,
        checkpoints: tx.open_table(CHECKPOINTS)?,
    };
    for record in records {
        match record {
            Record::Counter(counter) => {
                tx.open_table(COUNTER)?.insert((), counter.last)?;
            }
            record => loading.insert(&record)?,
        }
    }
    Ok(())
}

impl Loading<'_> {
    fn insert(&mut self, record: &Record) -> Result<()> {
        match record {
            Record::Skill(record) => self.skill(&record.doc, record.last_seq)?,
            Record::SkillVersion(version) => {
                let key = (version.snapshot.id.as_str(), version.seq);
                self.versions.insert(key, &*serde_json::to_vec(&version.content)?)?;
                self.version_ids.insert(version.id.as_str(), key)?;
            }
            Record::Account(record) => {
                let (caller, meter, window) = record.account.key();
                let ledger = serde_json::to_vec(&record.ledger)?;
                self.accounts.insert((&*caller, &*meter, &*window), &*ledger)?;
            }
            Record::Run(run) => self.run(run)?,
            Record::Event(event) => {
                let doc = serde_json::to_vec(&event.content)?;
                self.events.insert((event.run.as_str(), event.seq), &*doc)?;
            }
            Record::Checkpoint(record) => {
                let checkpoint = &record.checkpoint;
                let doc = serde_json::to_vec(checkpoint)?;
                self.checkpoints.insert(checkpoint.run.as_str(), (checkpoint.iteration, &*doc))?;
            }
            other => return Err(format!("no table for a {}", other.type_name()).into()),
        }
        Ok(())
    }

    fn skill(&mut self, skill: &Skill, last_seq: u64) -> Result<()> {
        let id = skill.id.as_str();
        self.skills.insert(id, &*serde_json::to_vec(skill)?)?;
        self.names.insert((skill.owner.as_str(), skill.name.as_str()), id)?;
        self.last_seqs.insert(id, last_seq)?;
        let next = skill.schedule.as_ref().and_then(|schedule| schedule.next_run_at);
        let next = next.map(|at| time::nanos("next_run_at", at)).transpose()?;
        self.times.insert(id, (next, None))?;
        if let Some(next) = next {
            self.due.insert((next, id), ())?;
        }
        Ok(())
    }

    fn run(&mut self, run: &store_api::Run) -> Result<()> {
        let (id, started_at) = (run.id.as_str(), time::nanos("started_at", run.started_at)?);
        self.runs.insert(id, (started_at, &*serde_json::to_vec(&run.start)?))?;
        for (list, of) in tables::lists(&run.start) {
            self.run_lists.insert((list, of, started_at, id), ())?;
        }
        self.run_lists.insert((BY_STATUS, run.status.as_str(), started_at, id), ())?;
        if let Some(finish) = &run.finish {
            self.finishes.insert(id, &*serde_json::to_vec(finish)?)?;
        }
        Ok(())
    }
}

pub(super) fn append_version(tx: &WriteTransaction, version: &NewVersion<Skill>, doc: &[u8]) -> Result<u64> {
    let skill = version.snapshot.id.as_str();
    let mut last_seqs = tx.open_table(LAST_SEQS)?;
    let seq = last_seqs.get(skill)?.ok_or("no such skill")?.value() + 1;
    last_seqs.insert(skill, seq)?;
    if tx.open_table(VERSION_IDS)?.insert(version.id.as_str(), (skill, seq))?.is_some() {
        return Err("the version's id is taken".into());
    }
    tx.open_table(VERSIONS)?.insert((skill, seq), doc)?;
    Ok(seq)
}

pub(super) fn mark(
    tx: &WriteTransaction,
    id: &SkillId,
    ran_at: DateTime<Utc>,
    next: DateTime<Utc>,
) -> Result<()> {
    let (ran_at, next) = (time::nanos("ran_at", ran_at)?, time::nanos("next", next)?);
    let mut times = tx.open_table(TIMES)?;
    let (was, _) = times.insert(id.as_str(), (Some(next), Some(ran_at)))?.ok_or("no such skill")?.value();
    let mut due = tx.open_table(DUE)?;
    if let Some(was) = was {
        due.remove((was, id.as_str()))?;
    }
    due.insert((next, id.as_str()), ())?;
    tx.open_table(LEASES)?.remove(id.as_str())?;
    Ok(())
}

pub(super) fn charge(
    tx: &WriteTransaction,
    (caller, meter, window): &AccountKey,
    charge: &Charge,
    limit: Option<Amount>,
    now: DateTime<Utc>,
) -> Result<Amount> {
    let key = (&**caller, &**meter, &**window);
    let mut accounts = tx.open_table(ACCOUNTS)?;
    let found = accounts.get(key)?.map(|found| serde_json::from_slice::<Ledger>(found.value()));
    let mut ledger = found.transpose()?.unwrap_or_default();
    let charging = ledger.charge(&charge.account.meter.window, charge.amount, None, limit, now)?;
    accounts.insert(key, &*serde_json::to_vec(&ledger)?)?;
    match charging {
        Charging::Made { usage, .. } | Charging::Replayed(usage) => Ok(usage.used),
    }
}

pub(super) fn start_run(tx: &WriteTransaction, run: &NewRun, doc: &[u8]) -> Result<()> {
    let (id, started_at) = (run.id.as_str(), time::nanos("started_at", run.started_at)?);
    if tx.open_table(RUNS)?.insert(id, (started_at, doc))?.is_some() {
        return Err("the run's id is taken".into());
    }
    let mut run_lists = tx.open_table(RUN_LISTS)?;
    for (list, of) in tables::lists(run) {
        run_lists.insert((list, of, started_at, id), ())?;
    }
    run_lists.insert((BY_STATUS, RunStatus::Running.as_str(), started_at, id), ())?;
    Ok(())
}

pub(super) fn finish_run(tx: &WriteTransaction, run: &RunId, finish: &Finish, doc: &[u8]) -> Result<()> {
    let id = run.as_str();
    let started_at = tx.open_table(RUNS)?.get(id)?.ok_or("no such run")?.value().0;
    if tx.open_table(FINISHES)?.insert(id, doc)?.is_some() {
        return Err("the run was finished before".into());
    }
    let mut run_lists = tx.open_table(RUN_LISTS)?;
    run_lists.remove((BY_STATUS, RunStatus::Running.as_str(), started_at, id))?;
    run_lists.insert((BY_STATUS, RunStatus::from(finish.outcome).as_str(), started_at, id), ())?;
    Ok(())
}

pub(super) fn append_event(tx: &WriteTransaction, run: &RunId, doc: &[u8]) -> Result<u64> {
    let run = run.as_str();
    if tx.open_table(RUNS)?.get(run)?.is_none() {
        return Err("no such run".into());
    }
    let mut events = tx.open_table(EVENTS)?;
    let last = events.range((run, 0)..=(run, u64::MAX))?.next_back().transpose()?;
    let seq = last.map_or(0, |(key, _)| key.value().1) + 1;
    events.insert((run, seq), doc)?;
    Ok(seq)
}

pub(super) fn checkpoint(tx: &WriteTransaction, checkpoint: &Checkpoint, doc: &[u8]) -> Result<()> {
    let run = checkpoint.run.as_str();
    let mut checkpoints = tx.open_table(CHECKPOINTS)?;
    if checkpoints.get(run)?.is_some_and(|stored| stored.value().0 > checkpoint.iteration) {
        return Err("a newer checkpoint is stored".into());
    }
    checkpoints.insert(run, (checkpoint.iteration, doc))?;
    Ok(())
}

pub(super) fn delete_checkpoint(tx: &WriteTransaction, run: &RunId) -> Result<()> {
    let was = tx.open_table(CHECKPOINTS)?.remove(run.as_str())?.is_some();
    if was { Ok(()) } else { Err("no such checkpoint".into()) }
}

pub(super) fn claim(
    tx: &WriteTransaction,
    now: DateTime<Utc>,
    worker: &WorkerId,
    lease: Duration,
) -> Result<Option<Claimed>> {
    let until = time::nanos("until", time::after("until", now, lease)?)?;
    let now = time::nanos("now", now)?;
    let mut leases = tx.open_table(LEASES)?;
    let due = tx.open_table(DUE)?;
    for entry in due.range(..(now + 1, ""))? {
        let (key, _) = entry?;
        let (_, id) = key.value();
        if leases.get(id)?.is_some_and(|lease| lease.value().1 > now) {
            continue;
        }
        let mut counter = tx.open_table(COUNTER)?;
        let token = counter.get(())?.map_or(0, |last| last.value()) + 1;
        counter.insert((), token)?;
        leases.insert(id, (worker.as_str(), until, token))?;
        let skill = read::skill(&tx.open_table(SKILLS)?, &tx.open_table(TIMES)?, id)?;
        return Ok(Some(Claimed { skill, token: LeaseToken(token) }));
    }
    Ok(None)
}

pub(super) fn finish_claim(
    tx: &WriteTransaction,
    claimed: &Claimed,
    now: DateTime<Utc>,
    next: DateTime<Utc>,
) -> Result<()> {
    let (id, at) = (&claimed.skill.id, time::nanos("now", now)?);
    let held = tx.open_table(LEASES)?.get(id.as_str())?.is_some_and(|lease| {
        let (_, until, token) = lease.value();
        token == claimed.token.0 && until > at
    });
    if held { mark(tx, id, now, next) } else { Err("the lease is lost".into()) }
}
