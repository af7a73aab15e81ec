//! SQLite by hand.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Row, named_params, params};
use store_api::{
    Amount, Charge, Ledger, NewVersion, Record, RunState, Skill, SkillId, Version, budget::Charging, time,
};

use crate::subject::{Result, Subject};

/// As our engine has them, as far as they decide about speed.
const SETTINGS: &str = "
    PRAGMA page_size = 8192;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA cache_size = -16384;
    PRAGMA temp_store = MEMORY;
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
        let exists =
            writer.query_one("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))? > 0;
        if !exists {
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
    connection.execute_batch(SETTINGS)?;
    Ok(connection)
}

fn one(changed: usize) -> Result<()> {
    if changed == 1 { Ok(()) } else { Err("no such row".into()) }
}

/// A skill from `doc, next_run_at, last_run_at`.
fn skill(row: &Row<'_>) -> Result<Arc<Skill>> {
    let mut skill: Skill = serde_json::from_str(row.get_ref(0)?.as_str()?)?;
    if let Some(schedule) = &mut skill.schedule {
        let next_run_at = row.get::<_, Option<i64>>(1)?.map(time::from_nanos);
        let last_run_at = row.get::<_, Option<i64>>(2)?.map(time::from_nanos);
        schedule.set_run_state(RunState { next_run_at, last_run_at, lease: None });
    }
    Ok(Arc::new(skill))
}

fn insert_version(connection: &Connection, id: &str, skill: &str, seq: u64, doc: &str) -> Result<()> {
    let sql = "INSERT INTO versions (id, skill, seq, doc) VALUES (?1, ?2, ?3, ?4)";
    connection.prepare_cached(sql)?.execute(params![id, skill, seq.cast_signed(), doc])?;
    Ok(())
}

fn load_one(connection: &Connection, record: &Record) -> Result<()> {
    match record {
        Record::Counter(_) => Ok(()),
        Record::Skill(record) => {
            let skill = &record.doc;
            let next = skill.schedule.as_ref().and_then(|schedule| schedule.next_run_at);
            let sql = "INSERT INTO skills (id, owner, name, last_seq, next_run_at, doc) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            connection.prepare_cached(sql)?.execute(params![
                skill.id.as_str(),
                skill.owner.as_str(),
                skill.name.as_str(),
                record.last_seq.cast_signed(),
                next.map(|at| time::nanos("next_run_at", at)).transpose()?,
                serde_json::to_string(skill)?,
            ])?;
            Ok(())
        }
        Record::SkillVersion(version) => {
            let doc = serde_json::to_string(&version.content)?;
            insert_version(connection, version.id.as_str(), version.snapshot.id.as_str(), version.seq, &doc)
        }
        Record::Account(record) => {
            let (caller, meter, window) = record.account.key();
            let sql = "INSERT INTO accounts (caller, meter, \"window\", ledger) VALUES (?1, ?2, ?3, ?4)";
            let ledger = serde_json::to_string(&record.ledger)?;
            connection.prepare_cached(sql)?.execute(params![caller, meter, window, ledger])?;
            Ok(())
        }
        other => Err(format!("no table for a {}", other.type_name()).into()),
    }
}

impl Subject for Sqlite {
    fn load(&self, records: &mut dyn Iterator<Item = Record>) -> Result<()> {
        self.write(|connection| {
            for record in records {
                load_one(connection, &record)?;
            }
            Ok(())
        })
    }

    fn append_version(&self, version: &NewVersion<Skill>) -> Result<u64> {
        let doc = serde_json::to_string(version)?;
        self.write(|connection| {
            let skill = version.snapshot.id.as_str();
            let sql = "UPDATE skills SET last_seq = last_seq + 1 WHERE id = ?1 RETURNING last_seq";
            let seq: i64 = connection.prepare_cached(sql)?.query_one([skill], |row| row.get(0))?;
            insert_version(connection, version.id.as_str(), skill, seq.cast_unsigned(), &doc)?;
            Ok(seq.cast_unsigned())
        })
    }

    fn mark(&self, id: &SkillId, ran_at: DateTime<Utc>, next: DateTime<Utc>) -> Result<()> {
        let (ran_at, next) = (time::nanos("ran_at", ran_at)?, time::nanos("next", next)?);
        self.write(|connection| {
            let sql = "UPDATE skills SET last_run_at = ?2, next_run_at = ?3, \
                       lease_worker = NULL, lease_until = NULL, lease_token = NULL WHERE id = ?1";
            one(connection.prepare_cached(sql)?.execute(params![id.as_str(), ran_at, next])?)
        })
    }

    fn add(&self, charge: &Charge, now: DateTime<Utc>) -> Result<Amount> {
        let (caller, meter, window) = charge.account.key();
        self.write(|connection| {
            let sql = "SELECT ledger FROM accounts WHERE caller = ?1 AND meter = ?2 AND \"window\" = ?3";
            let found = connection
                .prepare_cached(sql)?
                .query_one(params![caller, meter, window], |row| Ok(parse_ledger(row)))
                .optional()?;
            let mut ledger = found.transpose()?.unwrap_or_default();
            let charging = ledger.charge(&charge.account.meter.window, charge.amount, None, None, now)?;
            let sql = "INSERT INTO accounts (caller, meter, \"window\", ledger) \
                       VALUES (:caller, :meter, :window, :ledger) \
                       ON CONFLICT (caller, meter, \"window\") DO UPDATE SET ledger = :ledger";
            let doc = serde_json::to_string(&ledger)?;
            connection.prepare_cached(sql)?.execute(named_params! {
                ":caller": caller, ":meter": meter, ":window": window, ":ledger": doc,
            })?;
            match charging {
                Charging::Made { usage, .. } | Charging::Replayed(usage) => Ok(usage.used),
            }
        })
    }

    fn get(&self, id: &SkillId) -> Result<Arc<Skill>> {
        self.read(|connection| {
            let sql = "SELECT doc, next_run_at, last_run_at FROM skills WHERE id = ?1";
            connection.prepare_cached(sql)?.query_one([id.as_str()], |row| Ok(skill(row)))?
        })
    }

    fn newest(&self, id: &SkillId, limit: usize) -> Result<Vec<Arc<Version<Skill>>>> {
        self.read(|connection| {
            let sql = "SELECT seq, doc FROM versions WHERE skill = ?1 ORDER BY seq DESC LIMIT ?2";
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query(params![id.as_str(), i64::try_from(limit)?])?;
            let mut found = Vec::with_capacity(limit);
            while let Some(row) = rows.next()? {
                let content = serde_json::from_str(row.get_ref(1)?.as_str()?)?;
                found.push(Arc::new(Version { seq: row.get::<_, i64>(0)?.cast_unsigned(), content }));
            }
            Ok(found)
        })
    }
}

fn parse_ledger(row: &Row<'_>) -> Result<Ledger> {
    Ok(serde_json::from_str(row.get_ref(0)?.as_str()?)?)
}
