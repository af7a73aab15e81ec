//! The host: its clock, what it claims at each tick, and how it takes up what a crash cut off.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use store::{
    Agent, Amount, Checkpoint, Claim, Definition, Error, PrincipalId, Result, RunId, Seams, Store, StoreExt,
    WorkerId, page,
};

use crate::flags::Flags;
use crate::markdown::Library;
use crate::runs::{Held, Job, LEASE, Payer, Target};
use crate::schedule;

/// What the owner's own schedules may spend in a week, and an agent whose file says nothing.
pub(crate) const DEFAULT_WEEKLY: &str = "1.00";

/// One host process.
pub(crate) struct Host {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) library: Library,
    /// Whose the definitions are, and who pays for what runs on a schedule.
    pub(crate) owner: PrincipalId,
    /// The name of this host among those that share the store. It keeps its name over a restart.
    pub(crate) worker: WorkerId,
    pub(crate) start: DateTime<Utc>,
    tick: Duration,
    ticks: u64,
    /// After how many more steps the process is killed.
    steps_left: Option<AtomicU64>,
}

impl Host {
    pub(crate) fn new(store: Arc<dyn Store>, library: Library, flags: &Flags) -> Result<Host> {
        Ok(Host {
            store,
            library,
            owner: PrincipalId::new("handbook")?,
            worker: WorkerId::new("host-1")?,
            start: flags.start,
            tick: flags.tick,
            ticks: flags.ticks,
            steps_left: flags.kill_after.map(AtomicU64::new),
        })
    }

    /// The time of a tick.
    pub(crate) fn time(&self, tick: u64) -> Result<DateTime<Utc>> {
        let ticks = u32::try_from(tick).map_err(|e| Error::invalid("ticks", e.to_string()))?;
        let passed = self.tick.checked_mul(ticks).and_then(|passed| TimeDelta::from_std(passed).ok());
        passed
            .and_then(|passed| self.start.checked_add_signed(passed))
            .ok_or_else(|| Error::invalid("ticks", "end after the end of time"))
    }

    /// The end of the week.
    pub(crate) fn end_of_week(&self) -> Result<DateTime<Utc>> {
        self.time(self.ticks)
    }

    /// The id of the run that closes the week. When it is there the week is over.
    pub(crate) fn closing(&self) -> Result<RunId> {
        RunId::new(format!("closing of {}", self.start.to_rfc3339()))
    }

    fn clock(&self) -> Result<RunId> {
        RunId::new(format!("clock of {}", self.start.to_rfc3339()))
    }

    /// Lets the week pass. Does nothing when it is over; goes on where it stopped when it has begun.
    pub(crate) fn live(&self, say: &mut dyn FnMut(String) -> Result<()>, flags: &Flags) -> Result<()> {
        if self.store.audit().run(&self.closing()?)?.is_some() {
            return say("this week is over; here is its report again".to_owned());
        }
        let clock = self.store.checkpoints().load(&self.clock()?)?.map(|checkpoint| checkpoint.iteration);
        match clock {
            Some(tick) => {
                let resumed = self.resume(self.time(tick)?)?;
                say(format!(
                    "resumed on day {} with {resumed} interrupted runs",
                    self.time(tick)?.date_naive()
                ))?;
            }
            None => self.first_day(say, flags)?,
        }
        for tick in clock.unwrap_or(0)..self.ticks {
            let (from, now) = (self.time(tick)?, self.time(tick + 1)?);
            // Once a day is enough: a tick that is lived through again finds its work done.
            if tick == 0 || self.time(tick - 1)?.date_naive() < from.date_naive() {
                self.store.checkpoints().save(&Checkpoint::new(self.clock()?, tick, Value::Null, from))?;
            }
            self.people(from, now)?;
            self.arrivals(from, now)?;
            self.run_due(now)?;
        }
        self.close_week()?;
        self.store.checkpoints().delete(&self.clock()?)
    }

    /// Runs all that is due, one after the other.
    fn run_due(&self, now: DateTime<Utc>) -> Result<()> {
        while let Some(job) = self.store.transact(|tx| {
            let Some(claim) = tx.skills().claim_due(now, &self.worker, LEASE, 1)?.pop() else {
                return Ok(None);
            };
            let payer = Payer { caller: self.owner.clone(), weekly: DEFAULT_WEEKLY.parse()?, rate: 1 };
            let job = self.scheduled(&claim, Target::Skill(claim.stored.id.clone()), payer, now)?;
            self.begin(tx, &job, now)?;
            Ok(Some(job))
        })? {
            self.drive(&job)?;
        }
        while let Some(job) = self.store.transact(|tx| {
            let Some(claim) = tx.agents().claim_due(now, &self.worker, LEASE, 1)?.pop() else {
                return Ok(None);
            };
            let agent = &claim.stored;
            let target = Target::Agent(agent.id.clone(), agent.skills.clone());
            let job = self.scheduled(&claim, target, payer(agent)?, now)?;
            self.begin(tx, &job, now)?;
            Ok(Some(job))
        })? {
            self.drive(&job)?;
        }
        Ok(())
    }

    /// The job for a claimed occurrence. Occurrences that were missed run once.
    fn scheduled<D: Definition>(
        &self,
        claim: &Claim<D>,
        target: Target,
        payer: Payer,
        now: DateTime<Utc>,
    ) -> Result<Job> {
        let doc = &claim.stored;
        let next = match doc.schedule() {
            // What is stored may come from elsewhere: an expression that nobody understands is due no more.
            Some(times) => schedule::next(&times.cron, &times.time_zone, now).unwrap_or(None),
            None => None,
        };
        Ok(Job {
            run: RunId::new(format!("{} of {}", claim.due_at.to_rfc3339(), doc.id().as_ref()))?,
            target,
            parent: None,
            payer,
            channel: None,
            input: json!({"due": claim.due_at}),
            held: Some(Held { token: claim.lease.token, next }),
        })
    }

    /// Takes up the runs that a crash cut off; gives how many there were.
    fn resume(&self, now: DateTime<Utc>) -> Result<usize> {
        // What this host held in its former life it gives back to itself; other hosts' claims it leaves alone.
        let interrupted: Result<Vec<_>> =
            page::all(100, |page| self.store.checkpoints().interrupted(page)).collect();
        for (run, lease) in interrupted?.iter().filter_map(|i| Some((&i.checkpoint.run, i.lease.as_ref()?))) {
            if lease.worker == self.worker && lease.holds(now) {
                self.store.checkpoints().release_claim(run, lease.token, now)?;
            }
        }
        let mut jobs: Vec<Job> = Vec::new();
        loop {
            let claimed = self.store.checkpoints().claim_interrupted(now, &self.worker, LEASE, 100)?;
            if claimed.is_empty() {
                break;
            }
            // The clock is a checkpoint too, without a job.
            for job in claimed.iter().filter_map(|claimed| claimed.checkpoint.meta.get("job")) {
                jobs.push(parse(job.clone())?);
            }
        }
        let resumed = jobs.len();
        // An agent's run takes its children along.
        for job in jobs.iter().filter(|job| job.parent.is_none()) {
            self.drive(job)?;
        }
        Ok(resumed)
    }

    /// Counts a step, and dies when it was told to.
    pub(crate) fn one_step_done(&self) {
        if let Some(left) = &self.steps_left
            && left.fetch_sub(1, Ordering::Relaxed) <= 1
        {
            std::process::abort();
        }
    }

    /// All definitions of the owner, by name.
    pub(crate) fn definitions<D: Definition>(&self, seams: &dyn Seams) -> Result<Vec<store::Stored<D>>> {
        let filter = store::DefinitionFilter { owner: Some(self.owner.clone()), ..Default::default() };
        let found: Result<Vec<_>> = page::all(100, |page| D::catalog(seams).list(&filter, page)).collect();
        let mut found = found?;
        found.sort_by(|a, b| a.name().cmp(b.name()));
        Ok(found)
    }
}

/// An agent pays for itself, as much in a week as its file says.
pub(crate) fn payer(agent: &Agent) -> Result<Payer> {
    let weekly: Amount = match agent.extra.get("weekly-budget-usd") {
        Some(Value::String(text)) => text.parse()?,
        Some(Value::Number(number)) => number.to_string().parse()?,
        _ => DEFAULT_WEEKLY.parse()?,
    };
    let rate = if agent.extra.get("model").is_some_and(|model| model == "large") { 10 } else { 1 };
    Ok(Payer { caller: PrincipalId::new(agent.name.as_str())?, weekly, rate })
}

/// A record of this host as JSON.
pub(crate) fn value<T: Serialize>(record: &T) -> Result<Value> {
    serde_json::to_value(record).map_err(|e| Error::backend("writing a record of the host", e))
}

/// A record of this host from JSON that it once wrote.
pub(crate) fn parse<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|e| Error::corrupt("a record of the host", e.to_string()))
}
