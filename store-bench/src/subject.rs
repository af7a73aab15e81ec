//! What is measured: one trait over our store and the bare databases, so that a case is written once for both.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use store_api::{
    Amount, Charge, Checkpoint, Cursor, Finish, GroupBy, LeaseToken, Name, NewEvent, NewRun, NewVersion,
    PageRequest, PrincipalId, Record, Run, RunFilter, RunId, Skill, SkillId, Store, StoreExt, SummaryRow,
    Version, WorkerId,
};

/// Anything that went wrong; a benchmark has no better answer than to stop and say it.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Where a list goes on.
#[derive(Debug, Clone)]
pub(crate) enum Position {
    Cursor(Cursor),
    Before(u64),
}

/// Versions, newest first, and where the list goes on; nowhere after its last page.
pub(crate) type Versions = (Vec<Arc<Version<Skill>>>, Option<Position>);

/// What a host does at the end of a scheduled run, as one unit.
#[derive(Debug)]
pub(crate) struct Settlement {
    pub(crate) run: RunId,
    pub(crate) finish: Finish,
    pub(crate) charge: Charge,
    pub(crate) skill: SkillId,
    pub(crate) next: DateTime<Utc>,
}

/// A claimed skill.
pub(crate) struct Claimed {
    pub(crate) skill: Arc<Skill>,
    pub(crate) token: LeaseToken,
}

/// One operation each, durable when it returns (but for the memory engine), its answer decoded.
pub(crate) trait Subject: Send + Sync {
    /// Fills it, which must be empty, in one transaction.
    fn load(&self, records: &mut (dyn Iterator<Item = Record> + Send)) -> Result<()>;
    /// Starts many runs in one transaction, each with a checkpoint: what other operations then use up.
    fn prepare(&self, runs: &[(NewRun, Checkpoint)]) -> Result<()>;

    /// Gives the number of the version.
    fn append_version(&self, version: &NewVersion<Skill>) -> Result<u64>;
    /// Appends all of them in one transaction. Gives the number of the last.
    fn append_versions(&self, versions: &[NewVersion<Skill>]) -> Result<u64>;
    fn mark(&self, id: &SkillId, ran_at: DateTime<Utc>, next: DateTime<Utc>) -> Result<()>;
    /// Gives what is used.
    fn charge(&self, charge: &Charge, limit: Option<Amount>, now: DateTime<Utc>) -> Result<Amount>;
    fn start_run(&self, run: &NewRun) -> Result<()>;
    /// Gives the number of the event.
    fn append_event(&self, run: &RunId, event: &NewEvent) -> Result<u64>;
    fn finish_run(&self, run: &RunId, finish: &Finish) -> Result<()>;
    fn settle(&self, settlement: &Settlement) -> Result<()>;
    fn save_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()>;
    /// Claims the skill that is due first and that nobody holds.
    fn claim(&self, now: DateTime<Utc>, worker: &WorkerId, lease: Duration) -> Result<Option<Claimed>>;
    fn finish_claim(&self, claimed: &Claimed, now: DateTime<Utc>, next: DateTime<Utc>) -> Result<()>;

    fn get(&self, id: &SkillId) -> Result<Arc<Skill>>;
    fn by_name(&self, owner: &PrincipalId, name: &Name) -> Result<Arc<Skill>>;
    fn versions(&self, id: &SkillId, limit: usize, after: Option<&Position>) -> Result<Versions>;
    /// The skills that have been due longest.
    fn due(&self, now: DateTime<Utc>, limit: usize) -> Result<Vec<Arc<Skill>>>;
    /// The same, from rows with as many columns as our engine has there, where rows have columns.
    fn due_wide(&self, now: DateTime<Utc>, limit: usize) -> Result<Vec<Arc<Skill>>> {
        self.due(now, limit)
    }
    fn ancestors(&self, id: &RunId) -> Result<Vec<Arc<Run>>>;
    /// The newest run of each skill that has one.
    fn last_runs(&self, skills: &[SkillId]) -> Result<Vec<Arc<Run>>>;
    /// All runs, summed up by skill: the first page of the groups.
    fn summary(&self) -> Result<Vec<SummaryRow>>;
}

/// Our engine, through the trait object that a host holds.
pub(crate) struct Ours(pub(crate) Arc<dyn Store>);

impl Subject for Ours {
    fn load(&self, records: &mut (dyn Iterator<Item = Record> + Send)) -> Result<()> {
        self.0.import(&mut records.map(Ok))?;
        Ok(())
    }

    fn prepare(&self, runs: &[(NewRun, Checkpoint)]) -> Result<()> {
        Ok(self.0.transact(|tx| {
            runs.iter().try_for_each(|(run, checkpoint)| {
                tx.audit().start_run(run)?;
                tx.checkpoints().save(checkpoint)
            })
        })?)
    }

    fn append_version(&self, version: &NewVersion<Skill>) -> Result<u64> {
        Ok(self.0.skills().append_version(version)?.seq)
    }

    fn append_versions(&self, versions: &[NewVersion<Skill>]) -> Result<u64> {
        Ok(self.0.transact(|tx| {
            let append = |_, version| Ok(tx.skills().append_version(version)?.seq);
            versions.iter().try_fold(0, append)
        })?)
    }

    fn mark(&self, id: &SkillId, ran_at: DateTime<Utc>, next: DateTime<Utc>) -> Result<()> {
        Ok(self.0.skills().mark_scheduled_run(id, ran_at, Some(next))?)
    }

    fn charge(&self, charge: &Charge, limit: Option<Amount>, now: DateTime<Utc>) -> Result<Amount> {
        let usage = match limit {
            None => self.0.budgets().add(charge, now)?,
            Some(limit) => self.0.budgets().admit(charge, limit, now)?,
        };
        Ok(usage.used)
    }

    fn start_run(&self, run: &NewRun) -> Result<()> {
        self.0.audit().start_run(run)?;
        Ok(())
    }

    fn append_event(&self, run: &RunId, event: &NewEvent) -> Result<u64> {
        Ok(self.0.audit().append_event(run, event)?)
    }

    fn finish_run(&self, run: &RunId, finish: &Finish) -> Result<()> {
        Ok(self.0.audit().finish_run(run, finish)?)
    }

    fn settle(&self, of: &Settlement) -> Result<()> {
        let now = of.finish.finished_at;
        Ok(self.0.transact(|tx| {
            tx.audit().finish_run(&of.run, &of.finish)?;
            tx.budgets().add(&of.charge, now)?;
            tx.skills().mark_scheduled_run(&of.skill, now, Some(of.next))?;
            tx.checkpoints().delete(&of.run)
        })?)
    }

    fn save_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        Ok(self.0.checkpoints().save(checkpoint)?)
    }

    fn claim(&self, now: DateTime<Utc>, worker: &WorkerId, lease: Duration) -> Result<Option<Claimed>> {
        let claim = self.0.skills().claim_due(now, worker, lease, 1)?.pop();
        Ok(claim.map(|claim| Claimed { skill: claim.stored.doc, token: claim.lease.token }))
    }

    fn finish_claim(&self, claimed: &Claimed, now: DateTime<Utc>, next: DateTime<Utc>) -> Result<()> {
        Ok(self.0.skills().finish_claim(&claimed.skill.id, claimed.token, now, now, Some(next))?)
    }

    fn get(&self, id: &SkillId) -> Result<Arc<Skill>> {
        Ok(self.0.skills().get(id)?.ok_or("no such skill")?.doc)
    }

    fn by_name(&self, owner: &PrincipalId, name: &Name) -> Result<Arc<Skill>> {
        Ok(self.0.skills().by_name(owner, name)?.ok_or("no skill of that name")?.doc)
    }

    fn versions(&self, id: &SkillId, limit: usize, after: Option<&Position>) -> Result<Versions> {
        let first = PageRequest::first(limit)?;
        let request = match after {
            None => first,
            Some(Position::Cursor(cursor)) => first.after(cursor.clone()),
            Some(Position::Before(_)) => return Err("a position of another list".into()),
        };
        let page = self.0.skills().versions(id, &request)?;
        Ok((page.items, page.next.map(Position::Cursor)))
    }

    fn due(&self, now: DateTime<Utc>, limit: usize) -> Result<Vec<Arc<Skill>>> {
        let page = self.0.skills().due(now, &PageRequest::first(limit)?)?;
        Ok(page.items.into_iter().map(|stored| stored.doc).collect())
    }

    fn ancestors(&self, id: &RunId) -> Result<Vec<Arc<Run>>> {
        Ok(self.0.audit().ancestors(id)?)
    }

    fn last_runs(&self, skills: &[SkillId]) -> Result<Vec<Arc<Run>>> {
        Ok(self.0.audit().last_run_of(skills)?)
    }

    fn summary(&self) -> Result<Vec<SummaryRow>> {
        let page = PageRequest::first(store_api::page::MAX_PAGE)?;
        Ok(self.0.audit().summary(&RunFilter::default(), GroupBy::Skill, &page)?.items)
    }
}
