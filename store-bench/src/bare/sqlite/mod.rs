//! SQLite by hand.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use store_api::{
    Amount, Charge, Checkpoint, Finish, Name, NewEvent, NewRun, NewVersion, PrincipalId, Record, Run, RunId,
    Skill, SkillId, SummaryRow, WorkerId,
};

use crate::subject::{Claimed, Position, Result, Settlement, Subject, Versions};

mod read;
mod write;

/// As our engine has them, as far as they decide about speed.
const SETTINGS: &str = "
    PRAGMA page_size = 8192;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA cache_size = -16384;
    PRAGMA temp_store = MEMORY;
    PRAGMA foreign_keys = ON;
";

/// One connection that writes, behind a mutex; readers on a stack of connections that grows as they come.
pub(crate) struct Sqlite {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

impl Sqlite {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let writer = connect(path)?;
        let objects = "SELECT count(*) FROM sqlite_schema";
        if writer.query_one(objects, [], |row| row.get::<_, i64>(0))? == 0 {
            writer.execute_batch(include_str!("schema.sql"))?;
        }
        Ok(Sqlite { path: path.to_owned(), writer: Mutex::new(writer), readers: Mutex::default() })
    }

    fn write<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let writer = self.writer.lock();
        writer.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let done = work(&writer);
        let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
        writer.prepare_cached(end)?.execute([])?;
        done
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let idle = self.readers.lock().pop();
        let reader = idle.map_or_else(|| connect(&self.path), Ok)?;
        let done = work(&reader);
        self.readers.lock().push(reader);
        done
    }
}

fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.set_prepared_statement_cache_capacity(64);
    // Or SQLite plans a cached statement anew each time that another value is bound to it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch(SETTINGS)?;
    Ok(connection)
}

impl Subject for Sqlite {
    fn load(&self, records: &mut (dyn Iterator<Item = Record> + Send)) -> Result<()> {
        self.write(|connection| {
            for record in records {
                write::record(connection, &record)?;
            }
            Ok(())
        })
    }

    fn prepare(&self, runs: &[(NewRun, Checkpoint)]) -> Result<()> {
        self.write(|connection| {
            runs.iter().try_for_each(|(run, checkpoint)| {
                write::start_run(connection, run, &serde_json::to_string(run)?)?;
                write::checkpoint(connection, checkpoint, &serde_json::to_string(checkpoint)?)
            })
        })
    }

    fn append_version(&self, version: &NewVersion<Skill>) -> Result<u64> {
        let doc = serde_json::to_string(version)?;
        self.write(|connection| write::append_version(connection, version, &doc))
    }

    fn append_versions(&self, versions: &[NewVersion<Skill>]) -> Result<u64> {
        let docs = versions.iter().map(serde_json::to_string).collect::<serde_json::Result<Vec<_>>>()?;
        self.write(|connection| {
            let append = |_, (version, doc): (_, &String)| write::append_version(connection, version, doc);
            versions.iter().zip(&docs).try_fold(0, append)
        })
    }

    fn mark(&self, id: &SkillId, ran_at: DateTime<Utc>, next: DateTime<Utc>) -> Result<()> {
        self.write(|connection| write::mark(connection, id, ran_at, next))
    }

    fn charge(&self, charge: &Charge, limit: Option<Amount>, now: DateTime<Utc>) -> Result<Amount> {
        let key = charge.account.key();
        self.write(|connection| write::charge(connection, &key, charge, limit, now))
    }

    fn start_run(&self, run: &NewRun) -> Result<()> {
        let doc = serde_json::to_string(run)?;
        self.write(|connection| write::start_run(connection, run, &doc))
    }

    fn append_event(&self, run: &RunId, event: &NewEvent) -> Result<u64> {
        let payload = serde_json::to_string(&event.payload)?;
        self.write(|connection| write::append_event(connection, run, event, &payload))
    }

    fn finish_run(&self, run: &RunId, finish: &Finish) -> Result<()> {
        let doc = serde_json::to_string(finish)?;
        self.write(|connection| write::finish_run(connection, run, finish, &doc))
    }

    fn settle(&self, of: &Settlement) -> Result<()> {
        let (doc, key) = (serde_json::to_string(&of.finish)?, of.charge.account.key());
        let now = of.finish.finished_at;
        self.write(|connection| {
            write::finish_run(connection, &of.run, &of.finish, &doc)?;
            write::charge(connection, &key, &of.charge, None, now)?;
            write::mark(connection, &of.skill, now, of.next)?;
            write::delete_checkpoint(connection, &of.run)
        })
    }

    fn save_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        let doc = serde_json::to_string(checkpoint)?;
        self.write(|connection| write::checkpoint(connection, checkpoint, &doc))
    }

    fn claim(&self, now: DateTime<Utc>, worker: &WorkerId, lease: Duration) -> Result<Option<Claimed>> {
        self.write(|connection| write::claim(connection, now, worker, lease))
    }

    fn finish_claim(&self, claimed: &Claimed, now: DateTime<Utc>, next: DateTime<Utc>) -> Result<()> {
        self.write(|connection| write::finish_claim(connection, claimed, now, next))
    }

    fn get(&self, id: &SkillId) -> Result<Arc<Skill>> {
        self.read(|connection| read::skill_by_id(connection, id))
    }

    fn by_name(&self, owner: &PrincipalId, name: &Name) -> Result<Arc<Skill>> {
        self.read(|connection| read::skill_by_name(connection, owner, name))
    }

    fn versions(&self, id: &SkillId, limit: usize, after: Option<&Position>) -> Result<Versions> {
        self.read(|connection| read::versions(connection, id, limit, after))
    }

    fn due(&self, now: DateTime<Utc>, limit: usize) -> Result<Vec<Arc<Skill>>> {
        self.read(|connection| read::due(connection, now, limit))
    }

    fn due_wide(&self, now: DateTime<Utc>, limit: usize) -> Result<Vec<Arc<Skill>>> {
        self.read(|connection| read::due_wide(connection, now, limit))
    }

    fn ancestors(&self, id: &RunId) -> Result<Vec<Arc<Run>>> {
        self.read(|connection| read::snapshot(connection, |connection| read::ancestors(connection, id)))
    }

    fn last_runs(&self, skills: &[SkillId]) -> Result<Vec<Arc<Run>>> {
        self.read(|connection| read::snapshot(connection, |connection| read::last_runs(connection, skills)))
    }

    fn summary(&self) -> Result<Vec<SummaryRow>> {
        self.read(read::summary)
    }
}
