//! How a run begins, goes on and ends. Each of these is one transaction, and between them a checkpoint says how far
//! the run is: wherever the process dies, the next one goes on from there, and nothing is paid for twice.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{
    Account, AgentId, Amount, ChannelId, Checkpoint, Entity, Error, Finish, LeaseToken, MeterName, NewEvent,
    NewRun, PrincipalId, Reservation, ReservationId, Result, RunId, RunOutcome, RunStatus, Seams, Skill,
    SkillId, StoreExt, Tokens, Window,
};

use crate::host::{Host, parse, value};
use crate::work::{Sheet, handler};

/// How long the host holds what it has claimed. Each step renews it.
pub(crate) const LEASE: Duration = Duration::from_secs(3600);

/// Into how many steps the work of a skill is cut.
const STEPS: u64 = 3;

/// What runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Target {
    Skill(SkillId),
    /// An agent, with the skills that it is to run, one after the other.
    Agent(AgentId, Vec<SkillId>),
}

/// The occurrence of a schedule that a run is for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) token: LeaseToken,
    /// When the schedule is due after this.
    pub(crate) next: Option<DateTime<Utc>>,
}

/// All that is known of a run before it begins. Kept in its checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) run: RunId,
    pub(crate) target: Target,
    pub(crate) parent: Option<RunId>,
    pub(crate) payer: Payer,
    pub(crate) channel: Option<ChannelId>,
    pub(crate) input: Value,
    pub(crate) held: Option<Held>,
}

/// Who pays, how much in a week at most, and at which rate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Payer {
    pub(crate) caller: PrincipalId,
    pub(crate) weekly: Amount,
    pub(crate) rate: u64,
}

impl Payer {
    pub(crate) fn account(&self) -> Result<Account> {
        Ok(Account::new(self.caller.clone(), MeterName::new("usd")?, Window::default()))
    }
}

/// How far a run is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Progress {
    /// What time it is for the run.
    clock: DateTime<Utc>,
    sheet: Sheet,
    tokens: Tokens,
}

impl Host {
    /// Records that a run begins and holds its estimate; or records that there is no money for it. Part of the
    /// transaction that claims what the run is for.
    pub(crate) fn begin(&self, tx: &dyn Seams, job: &Job, now: DateTime<Utc>) -> Result<()> {
        let mut run = NewRun::new(job.run.clone(), job.payer.caller.clone(), now);
        run.parent.clone_from(&job.parent);
        run.channel.clone_from(&job.channel);
        run.input = job.input.clone();
        match &job.target {
            Target::Skill(skill) => run.skill = Some(skill.clone()),
            Target::Agent(agent, _) => run.agent = Some(agent.clone()),
        }
        tx.audit().start_run(&run)?;
        if let Target::Skill(skill) = &job.target
            && let Some(skill) = tx.skills().get(skill)?
            && let Err(error) = tx.budgets().reserve(&reservation(job, &skill, now)?, job.payer.weekly, now)
        {
            if !matches!(error, Error::LimitExceeded { .. }) {
                return Err(error);
            }
            event(tx, &job.run, now, "over budget", json!({"why": error.to_string()}))?;
            let mut finish = Finish::new(RunOutcome::Cancelled, now);
            finish.error = Some(error.to_string());
            tx.audit().finish_run(&job.run, &finish)?;
            return finish_claim(tx, job, now);
        }
        let progress = Progress { clock: now, ..Progress::default() };
        tx.checkpoints().save(&checkpoint(job, 0, &progress)?)?;
        tx.checkpoints().claim(&job.run, now, &self.worker, LEASE)?;
        Ok(())
    }

    /// Takes a run that has begun to its end, from wherever it is.
    pub(crate) fn drive(&self, job: &Job) -> Result<RunStatus> {
        let checkpoint = self.store.checkpoints().load(&job.run)?;
        let Some(checkpoint) = checkpoint else { return self.status(&job.run) };
        let progress: Progress = parse(checkpoint.state.clone())?;
        match &job.target {
            Target::Skill(skill) => self.drive_skill(job, skill, checkpoint.iteration, progress)?,
            Target::Agent(_, skills) => self.drive_agent(job, skills, checkpoint.iteration, progress)?,
        }
        self.status(&job.run)
    }

    fn status(&self, run: &RunId) -> Result<RunStatus> {
        let found = self.store.audit().run(run)?;
        found.map(|run| run.status).ok_or_else(|| Error::not_found(Entity::Run, run.as_str()))
    }

    fn drive_skill(&self, job: &Job, id: &SkillId, from: u64, mut progress: Progress) -> Result<()> {
        let Some(skill) = self.store.skills().get(id)? else {
            return self.end(job, RunOutcome::Failed, &progress, Some("the skill is gone".to_owned()));
        };
        let work =
            handler(skill.extra.get("metadata").and_then(|m| m.get("handler")?.as_str()).unwrap_or_default());
        let pages = &self.library.pages;
        let share = pages.len().div_ceil(usize::try_from(STEPS).unwrap_or(1)).max(1);
        for (step, pages) in
            (0..STEPS).zip(pages.chunks(share)).skip(usize::try_from(from).unwrap_or_default())
        {
            let mut sheet = Sheet::default();
            for page in pages {
                sheet.merge(work(page, &self.library, progress.clock.date_naive()));
            }
            let read: usize = pages.iter().map(|page| page.text.len()).sum();
            progress.clock += Duration::from_millis(1000 + (read as u64).min(60_000));
            progress.tokens.input += (read + skill.body.len()) as u64 / 4;
            progress.tokens.output += 20 + 12 * sheet.findings.len() as u64;
            let payload = json!({"pages": pages.len(), "findings": sheet.findings.len()});
            progress.sheet.merge(sheet);
            self.step(job, step + 1, &progress, "read", payload)?;
        }
        self.end(job, RunOutcome::Succeeded, &progress, None)
    }

    fn drive_agent(&self, job: &Job, skills: &[SkillId], from: u64, mut progress: Progress) -> Result<()> {
        for (step, skill) in (0..).zip(skills).skip(usize::try_from(from).unwrap_or_default()) {
            let child = Job {
                run: RunId::new(format!("{} / {}", job.run, step + 1))?,
                target: Target::Skill(skill.clone()),
                parent: Some(job.run.clone()),
                held: None,
                ..job.clone()
            };
            if self.store.audit().run(&child.run)?.is_none() {
                self.store.transact(|tx| self.begin(tx, &child, progress.clock))?;
            }
            let status = self.drive(&child)?;
            let finish = self.store.audit().run(&child.run)?.and_then(|run| run.finish.clone());
            if let Some(finish) = finish {
                progress.clock = progress.clock.max(finish.finished_at);
            }
            if status == RunStatus::Cancelled {
                let why = format!("stopped before skill {} of {}: no budget left", step + 1, skills.len());
                return self.end(job, RunOutcome::Failed, &progress, Some(why));
            }
            let payload = json!({"skill": step + 1, "of": skills.len(), "status": status});
            self.step(job, step + 1, &progress, "skill done", payload)?;
        }
        self.end(job, RunOutcome::Succeeded, &progress, None)
    }

    /// One step is done: its event, its checkpoint and a longer claim, or none of them.
    fn step(&self, job: &Job, iteration: u64, progress: &Progress, kind: &str, payload: Value) -> Result<()> {
        self.store.transact(|tx| {
            event(tx, &job.run, progress.clock, kind, payload.clone())?;
            if let Some(held) = &job.held {
                match &job.target {
                    Target::Skill(id) => tx.skills().renew_claim(id, held.token, progress.clock, LEASE)?,
                    Target::Agent(id, _) => tx.agents().renew_claim(id, held.token, progress.clock, LEASE)?,
                };
            }
            tx.checkpoints().save(&checkpoint(job, iteration, progress)?)
        })?;
        self.one_step_done();
        Ok(())
    }

    /// The end of a run: finished, paid for, marked on its schedule, its checkpoint gone. All or nothing.
    fn end(&self, job: &Job, outcome: RunOutcome, progress: &Progress, error: Option<String>) -> Result<()> {
        let mut finish = Finish::new(outcome, progress.clock);
        finish.error = error;
        finish.tokens = progress.tokens;
        finish.cost = price(progress.tokens, job.payer.rate)?;
        if let Target::Skill(_) = job.target {
            finish.output = value(&progress.sheet)?;
        }
        self.store.transact(|tx| {
            tx.audit().finish_run(&job.run, &finish)?;
            if let Target::Skill(_) = job.target {
                let reservation = ReservationId::new(job.run.as_str())?;
                tx.budgets().settle(&job.payer.account()?, &reservation, finish.cost, progress.clock)?;
            }
            finish_claim(tx, job, progress.clock)?;
            tx.checkpoints().delete(&job.run)
        })
    }
}

/// The schedule has run and is due again when the job says.
fn finish_claim(tx: &dyn Seams, job: &Job, now: DateTime<Utc>) -> Result<()> {
    let Some(Held { token, next }) = job.held else { return Ok(()) };
    match &job.target {
        Target::Skill(id) => tx.skills().finish_claim(id, token, now, now, next),
        Target::Agent(id, _) => tx.agents().finish_claim(id, token, now, now, next),
    }
}

pub(crate) fn event(
    tx: &dyn Seams,
    run: &RunId,
    at: DateTime<Utc>,
    kind: &str,
    payload: Value,
) -> Result<()> {
    tx.audit().append_event(run, &NewEvent { kind: kind.to_owned(), at, payload }).map(drop)
}

fn checkpoint(job: &Job, iteration: u64, progress: &Progress) -> Result<Checkpoint> {
    let mut checkpoint = Checkpoint::new(job.run.clone(), iteration, value(progress)?, progress.clock);
    checkpoint.meta.insert("job".to_owned(), value(job)?);
    Ok(checkpoint)
}

/// What a run will cost, as the skill's own metadata guesses it, held until the run ends or the lease would.
fn reservation(job: &Job, skill: &Skill, now: DateTime<Utc>) -> Result<Reservation> {
    let guess = skill.extra.get("metadata").and_then(|m| m.get("estimate-usd")?.as_str()).unwrap_or("0.01");
    let micros = guess.parse::<Amount>()?.micros().saturating_mul(job.payer.rate);
    Ok(Reservation {
        id: ReservationId::new(job.run.as_str())?,
        account: job.payer.account()?,
        estimate: Amount::from_micros(micros)?,
        expires_at: now + LEASE,
    })
}

/// What a model of ours would cost: 4 dollars for a million tokens in, 20 for a million out, times the rate.
fn price(tokens: Tokens, rate: u64) -> Result<Amount> {
    Amount::from_micros(
        tokens.input.saturating_mul(4).saturating_add(tokens.output.saturating_mul(20)).saturating_mul(rate),
    )
}
