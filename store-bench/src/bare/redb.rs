//! redb by hand.

use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use store_api::{
    Amount, Charge, Ledger, NewVersion, Record, RunState, Skill, SkillId, Version, budget::Charging, time,
};

use crate::subject::{Result, Subject};

/// The cache that our engine has.
const CACHE_BYTES: usize = 256 << 20;

type Text = &'static str;
type Json = &'static [u8];

const SKILLS: TableDefinition<'_, Text, Json> = TableDefinition::new("skills");
const NAMES: TableDefinition<'_, (Text, Text), Text> = TableDefinition::new("names");
const LAST_SEQS: TableDefinition<'_, Text, u64> = TableDefinition::new("last_seqs");
/// next_run_at, last_run_at.
type Times = (Option<i64>, Option<i64>);
const TIMES: TableDefinition<'_, Text, Times> = TableDefinition::new("times");
const DUE: TableDefinition<'_, (i64, Text), ()> = TableDefinition::new("due");
const VERSIONS: TableDefinition<'_, (Text, u64), Json> = TableDefinition::new("versions");
const VERSION_IDS: TableDefinition<'_, Text, (Text, u64)> = TableDefinition::new("version_ids");
const ACCOUNTS: TableDefinition<'_, (Text, Text, Text), Json> = TableDefinition::new("accounts");

/// One writer at a time behind a mutex; readers each on a snapshot of their own.
pub(crate) struct Redb {
    database: Database,
    turn: Mutex<()>,
}

impl Redb {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(path)?;
        let redb = Redb { database, turn: Mutex::new(()) };
        redb.write(|tx| {
            tx.open_table(SKILLS)?;
            tx.open_table(NAMES)?;
            tx.open_table(LAST_SEQS)?;
            tx.open_table(TIMES)?;
            tx.open_table(DUE)?;
            tx.open_table(VERSIONS)?;
            tx.open_table(VERSION_IDS)?;
            tx.open_table(ACCOUNTS)?;
            Ok(())
        })?;
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

fn skill(doc: &[u8], times: Option<Times>) -> Result<Arc<Skill>> {
    let mut skill: Skill = serde_json::from_slice(doc)?;
    if let (Some(schedule), Some((next, last))) = (&mut skill.schedule, times) {
        schedule.set_run_state(RunState {
            next_run_at: next.map(time::from_nanos),
            last_run_at: last.map(time::from_nanos),
            lease: None,
        });
    }
    Ok(Arc::new(skill))
}

impl Subject for Redb {
    fn load(&self, records: &mut dyn Iterator<Item = Record>) -> Result<()> {
        self.write(|tx| {
            let mut skills = tx.open_table(SKILLS)?;
            let mut names = tx.open_table(NAMES)?;
            let mut last_seqs = tx.open_table(LAST_SEQS)?;
            let mut times = tx.open_table(TIMES)?;
            let mut due = tx.open_table(DUE)?;
            let mut versions = tx.open_table(VERSIONS)?;
            let mut version_ids = tx.open_table(VERSION_IDS)?;
            let mut accounts = tx.open_table(ACCOUNTS)?;
            for record in records {
                match record {
                    Record::Counter(_) => {}
                    Record::Skill(record) => {
                        let id = record.doc.id.as_str();
                        skills.insert(id, &*serde_json::to_vec(&record.doc)?)?;
                        names.insert((record.doc.owner.as_str(), record.doc.name.as_str()), id)?;
                        last_seqs.insert(id, record.last_seq)?;
                        let next = record.doc.schedule.as_ref().and_then(|schedule| schedule.next_run_at);
                        let next = next.map(|at| time::nanos("next_run_at", at)).transpose()?;
                        times.insert(id, (next, None))?;
                        if let Some(next) = next {
                            due.insert((next, id), ())?;
                        }
                    }
                    Record::SkillVersion(version) => {
                        let key = (version.snapshot.id.as_str(), version.seq);
                        versions.insert(key, &*serde_json::to_vec(&version.content)?)?;
                        version_ids.insert(version.id.as_str(), key)?;
                    }
                    Record::Account(record) => {
                        let (caller, meter, window) = record.account.key();
                        let ledger = serde_json::to_vec(&record.ledger)?;
                        accounts.insert((&*caller, &*meter, &*window), &*ledger)?;
                    }
                    other => return Err(format!("no table for a {}", other.type_name()).into()),
                }
            }
            Ok(())
        })
    }

    fn append_version(&self, version: &NewVersion<Skill>) -> Result<u64> {
        let doc = serde_json::to_vec(version)?;
        self.write(|tx| {
            let skill = version.snapshot.id.as_str();
            let mut last_seqs = tx.open_table(LAST_SEQS)?;
            let seq = last_seqs.get(skill)?.ok_or("no such skill")?.value() + 1;
            last_seqs.insert(skill, seq)?;
            if tx.open_table(VERSION_IDS)?.insert(version.id.as_str(), (skill, seq))?.is_some() {
                return Err("the version's id is taken".into());
            }
            tx.open_table(VERSIONS)?.insert((skill, seq), &*doc)?;
            Ok(seq)
        })
    }

    fn mark(&self, id: &SkillId, ran_at: DateTime<Utc>, next: DateTime<Utc>) -> Result<()> {
        let (ran_at, next) = (time::nanos("ran_at", ran_at)?, time::nanos("next", next)?);
        self.write(|tx| {
            let mut times = tx.open_table(TIMES)?;
            let before =
                times.insert(id.as_str(), (Some(next), Some(ran_at)))?.ok_or("no such skill")?.value();
            let mut due = tx.open_table(DUE)?;
            if let (Some(was), _) = before {
                due.remove((was, id.as_str()))?;
            }
            due.insert((next, id.as_str()), ())?;
            Ok(())
        })
    }

    fn add(&self, charge: &Charge, now: DateTime<Utc>) -> Result<Amount> {
        let (caller, meter, window) = charge.account.key();
        let key = (&*caller, &*meter, &*window);
        self.write(|tx| {
            let mut accounts = tx.open_table(ACCOUNTS)?;
            let found = accounts.get(key)?.map(|found| serde_json::from_slice::<Ledger>(found.value()));
            let mut ledger = found.transpose()?.unwrap_or_default();
            let charging = ledger.charge(&charge.account.meter.window, charge.amount, None, None, now)?;
            accounts.insert(key, &*serde_json::to_vec(&ledger)?)?;
            match charging {
                Charging::Made { usage, .. } | Charging::Replayed(usage) => Ok(usage.used),
            }
        })
    }

    fn get(&self, id: &SkillId) -> Result<Arc<Skill>> {
        self.read(|tx| {
            let doc = tx.open_table(SKILLS)?.get(id.as_str())?.ok_or("no such skill")?;
            let times = tx.open_table(TIMES)?.get(id.as_str())?.map(|times| times.value());
            skill(doc.value(), times)
        })
    }

    fn newest(&self, id: &SkillId, limit: usize) -> Result<Vec<Arc<Version<Skill>>>> {
        self.read(|tx| {
            let id = id.as_str();
            let versions = tx.open_table(VERSIONS)?;
            let range = versions.range((id, 0)..=(id, u64::MAX))?;
            range
                .rev()
                .take(limit)
                .map(|entry| {
                    let (key, doc) = entry?;
                    let content = serde_json::from_slice(doc.value())?;
                    Ok(Arc::new(Version { seq: key.value().1, content }))
                })
                .collect()
        })
    }
}
