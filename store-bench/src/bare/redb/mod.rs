//! redb by hand.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use redb::backends::FileBackend;
use redb::{Database, ReadTransaction, ReadableDatabase, StorageBackend, WriteTransaction};
use store_api::{
    Amount, Charge, Checkpoint, Finish, Name, NewEvent, NewRun, NewVersion, PrincipalId, Record, Run, RunId,
    Skill, SkillId, SummaryRow, WorkerId,
};

use crate::subject::{Claimed, Position, Result, Settlement, Subject, Versions};

mod read;
mod tables;
mod write;

/// One writer at a time behind a mutex; readers each on a snapshot of their own.
pub(crate) struct Redb {
    database: Database,
    turn: Mutex<()>,
}

impl Redb {
    /// Opens the file at `path` with `over` between redb and it.
    pub(crate) fn open<B: StorageBackend>(
        path: &Path,
        cache_bytes: usize,
        over: impl FnOnce(FileBackend) -> B,
    ) -> Result<Self> {
        let file =
            std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let backend = over(FileBackend::new(file)?);
        let database = Database::builder().set_cache_size(cache_bytes).create_with_backend(backend)?;
        let redb = Redb { database, turn: Mutex::new(()) };
        redb.write(tables::create)?;
        Ok(redb)
    }

    fn write<T>(&self, work: impl FnOnce(&WriteTransaction) -> Result<T>) -> Result<T> {
        let _turn = self.turn.lock();
        let mut tx = self.database.begin_write()?;
        tx.set_two_phase_commit(true);
        let done = work(&tx)?;
        tx.commit()?;
        Ok(done)
    }

    fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T>) -> Result<T> {
        work(&self.database.begin_read()?)
    }
}

impl Subject for Redb {
    fn load(&self, records: &mut (dyn Iterator<Item = Record> + Send)) -> Result<()> {
        self.write(|tx| write::load(tx, records))
    }

    fn prepare(&self, runs: &[(NewRun, Checkpoint)]) -> Result<()> {
        self.write(|tx| {
            runs.iter().try_for_each(|(run, checkpoint)| {
                write::start_run(tx, run, &serde_json::to_vec(run)?)?;
                write::checkpoint(tx, checkpoint, &serde_json::to_vec(checkpoint)?)
            })
        })
    }

    fn append_version(&self, version: &NewVersion<Skill>) -> Result<u64> {
        let doc = serde_json::to_vec(version)?;
        self.write(|tx| write::append_version(tx, version, &doc))
    }

    fn append_versions(&self, versions: &[NewVersion<Skill>]) -> Result<u64> {
        let docs = versions.iter().map(serde_json::to_vec).collect::<serde_json::Result<Vec<_>>>()?;
        self.write(|tx| {
            let append = |_, (version, doc): (_, &Vec<u8>)| write::append_version(tx, version, doc);
            versions.iter().zip(&docs).try_fold(0, append)
        })
    }

    fn mark(&self, id: &SkillId, ran_at: DateTime<Utc>, next: DateTime<Utc>) -> Result<()> {
        self.write(|tx| write::mark(tx, id, ran_at, next))
    }

    fn charge(&self, charge: &Charge, limit: Option<Amount>, now: DateTime<Utc>) -> Result<Amount> {
        let key = charge.account.key();
        self.write(|tx| write::charge(tx, &key, charge, limit, now))
    }

    fn start_run(&self, run: &NewRun) -> Result<()> {
        let doc = serde_json::to_vec(run)?;
        self.write(|tx| write::start_run(tx, run, &doc))
    }

    fn append_event(&self, run: &RunId, event: &NewEvent) -> Result<u64> {
        let doc = serde_json::to_vec(event)?;
        self.write(|tx| write::append_event(tx, run, &doc))
    }

    fn finish_run(&self, run: &RunId, finish: &Finish) -> Result<()> {
        let doc = serde_json::to_vec(finish)?;
        self.write(|tx| write::finish_run(tx, run, finish, &doc))
    }

    fn settle(&self, of: &Settlement) -> Result<()> {
        let (doc, key) = (serde_json::to_vec(&of.finish)?, of.charge.account.key());
        let now = of.finish.finished_at;
        self.write(|tx| {
            write::finish_run(tx, &of.run, &of.finish, &doc)?;
            write::charge(tx, &key, &of.charge, None, now)?;
            write::mark(tx, &of.skill, now, of.next)?;
            write::delete_checkpoint(tx, &of.run)
        })
    }

    fn save_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        let doc = serde_json::to_vec(checkpoint)?;
        self.write(|tx| write::checkpoint(tx, checkpoint, &doc))
    }

    fn claim(&self, now: DateTime<Utc>, worker: &WorkerId, lease: Duration) -> Result<Option<Claimed>> {
        self.write(|tx| write::claim(tx, now, worker, lease))
    }

    fn finish_claim(&self, claimed: &Claimed, now: DateTime<Utc>, next: DateTime<Utc>) -> Result<()> {
        self.write(|tx| write::finish_claim(tx, claimed, now, next))
    }

    fn get(&self, id: &SkillId) -> Result<Arc<Skill>> {
        self.read(|tx| read::skill_by_id(tx, id.as_str()))
    }

    fn by_name(&self, owner: &PrincipalId, name: &Name) -> Result<Arc<Skill>> {
        self.read(|tx| read::skill_by_name(tx, owner, name))
    }

    fn versions(&self, id: &SkillId, limit: usize, after: Option<&Position>) -> Result<Versions> {
        self.read(|tx| read::versions(tx, id, limit, after))
    }

    fn due(&self, now: DateTime<Utc>, limit: usize) -> Result<Vec<Arc<Skill>>> {
        self.read(|tx| read::due(tx, now, limit))
    }

    fn ancestors(&self, id: &RunId) -> Result<Vec<Arc<Run>>> {
        self.read(|tx| read::ancestors(tx, id))
    }

    fn last_runs(&self, skills: &[SkillId]) -> Result<Vec<Arc<Run>>> {
        self.read(|tx| read::last_runs(tx, skills))
    }

    fn summary(&self) -> Result<Vec<SummaryRow>> {
        self.read(read::summary)
    }
}
