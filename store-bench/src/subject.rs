//! What is measured: one trait over our store and the bare databases, so that a case is written once for both.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use store_api::{Amount, Charge, NewVersion, PageRequest, Record, Skill, SkillId, Store, Version};

/// Anything that went wrong; a benchmark has no better answer than to stop and say it.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// One operation each, durable when it returns (but for the memory engine), its answer decoded.
pub(crate) trait Subject: Send + Sync {
    /// Fills it, which must be empty, as fast as it can.
    fn load(&self, records: &mut dyn Iterator<Item = Record>) -> Result<()>;

    /// Gives the number of the version.
    fn append_version(&self, version: &NewVersion<Skill>) -> Result<u64>;
    fn mark(&self, id: &SkillId, ran_at: DateTime<Utc>, next: DateTime<Utc>) -> Result<()>;
    /// Gives what is used.
    fn add(&self, charge: &Charge, now: DateTime<Utc>) -> Result<Amount>;

    fn get(&self, id: &SkillId) -> Result<Arc<Skill>>;
    fn newest(&self, id: &SkillId, limit: usize) -> Result<Vec<Arc<Version<Skill>>>>;
}

/// Our engine, through the trait object that a host holds.
pub(crate) struct Ours(pub(crate) Arc<dyn Store>);

impl Subject for Ours {
    fn load(&self, records: &mut dyn Iterator<Item = Record>) -> Result<()> {
        self.0.import(&mut records.map(Ok))?;
        Ok(())
    }

    fn append_version(&self, version: &NewVersion<Skill>) -> Result<u64> {
        Ok(self.0.skills().append_version(version)?.seq)
    }

    fn mark(&self, id: &SkillId, ran_at: DateTime<Utc>, next: DateTime<Utc>) -> Result<()> {
        Ok(self.0.skills().mark_scheduled_run(id, ran_at, Some(next))?)
    }

    fn add(&self, charge: &Charge, now: DateTime<Utc>) -> Result<Amount> {
        Ok(self.0.budgets().add(charge, now)?.used)
    }

    fn get(&self, id: &SkillId) -> Result<Arc<Skill>> {
        Ok(self.0.skills().get(id)?.ok_or("no such skill")?.doc)
    }

    fn newest(&self, id: &SkillId, limit: usize) -> Result<Vec<Arc<Version<Skill>>>> {
        Ok(self.0.skills().versions(id, &PageRequest::first(limit)?)?.items)
    }
}
