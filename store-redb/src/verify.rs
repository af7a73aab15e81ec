//! Verification: the file's structure, every record, and the indexes against the records in both directions.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use redb::Builder;
use redb::backends::FileBackend;
use safe_files::failed;
use store_api::budget::Charged;
use store_api::{
    Agent, Counter, Definition, Error, Event, Kind, Lease, Ledger, Result, Run, Skill, Verification, Version,
};

use crate::budget::account_of;
use crate::catalog::DefinitionRow;
use crate::checkpoint;
use crate::error::catch;
use crate::index::{self, IndexEntry};
use crate::keys::{self, Fields, Key};
use crate::open::{Mark, mark_key};
use crate::storage::{Overlay, Unlocked};
use crate::stream::charge_key;
use crate::tables::{
    ACCOUNTS, CHARGES, CHECKPOINT_CLAIMS, CHECKPOINTS, DEFINITIONS, EVENTS, INDEXES, LAST_SEQS, META,
    RUN_STATES, RUNS, Table, VERSIONS,
};
use crate::tx::{Tx, counter_key, decode};
use crate::value;

/// How much memory the check of the file may use for pages.
pub(crate) const CHECK_CACHE: usize = 16 << 20;

/// Has redb check its pages and trees, as it would after a crash, in a copy that is kept in memory where it differs.
/// No writer may be at work meanwhile; readers may.
pub(crate) fn check_file(path: &Path, found: &mut Verification) -> Result<()> {
    let file = File::open(path).map_err(|e| failed("opening", path, e))?;
    let checked = catch(|| {
        let overlay = Overlay::over(Unlocked(FileBackend::new(file)?)).map_err(redb::StorageError::Io)?;
        Builder::new()
            .set_cache_size(CHECK_CACHE)
            .set_check_integrity_on_open(true)
            .create_with_backend(overlay)
            .map(drop)
    });
    found.check(checked.map_err(|fault| fault.into_error("checking the file"))).map(drop)
}

/// Reads every entry of every table and checks it.
pub(crate) fn check_records(tx: &Tx<'_>, found: &mut Verification) -> Result<()> {
    let mut check = Check { tx, found, entries: HashMap::new(), last_number: u64::MAX, last_event: None };
    check.meta()?;
    check.table(DEFINITIONS, |check, key, body| match keys::kind(&mut Fields::of(key))? {
        Kind::Skill => check.definition::<Skill>(key, body),
        Kind::Agent => check.definition::<Agent>(key, body),
    })?;
    check.table(VERSIONS, |check, key, body| match keys::kind(&mut Fields::of(key))? {
        Kind::Skill => check.version::<Skill>(key, body),
        Kind::Agent => check.version::<Agent>(key, body),
    })?;
    check.table(ACCOUNTS, |_, key, body| {
        let (_, account) = account_of(ACCOUNTS, key, &mut Fields::of(key))?;
        let ledger: Ledger = decode(ACCOUNTS, key, body)?;
        sound(ACCOUNTS, key, ledger.validate(&account.meter.window))
    })?;
    check.table(CHARGES, Check::charge)?;
    check.table(RUNS, Check::run)?;
    check.table(EVENTS, Check::event)?;
    check.table(CHECKPOINTS, Check::checkpoint)?;
    [RUN_STATES, LAST_SEQS, CHECKPOINT_CLAIMS]
        .into_iter()
        .chain(INDEXES)
        .try_for_each(|table| check.count(table))
}

struct Check<'a, 'k> {
    tx: &'a Tx<'k>,
    found: &'a mut Verification,
    /// How many entries the records have in each table that only stands beside them.
    entries: HashMap<Table, u64>,
    /// What the counter gave last: no revision and no token is above it.
    last_number: u64,
    /// The event before, with its run.
    last_event: Option<(store_api::RunId, u64)>,
}

impl<'k> Check<'_, 'k> {
    fn meta(&mut self) -> Result<()> {
        self.found.check(self.tx.expected::<Mark>(META, &mark_key()))?;
        if let Some(counter) = self.found.check(self.tx.expected::<Counter>(META, &counter_key()))? {
            self.last_number = counter.last;
        }
        Ok(())
    }

    /// Checks each record of a table; what is wrong with one is noted and does not end the check.
    fn table(
        &mut self,
        table: Table,
        mut check: impl FnMut(&mut Self, &[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        let tx = self.tx;
        let walked = tx.raw(table, |entries| {
            entries.iter().try_for_each(|(key, stored)| {
                let checked = value::open(table, key, stored).and_then(|body| check(self, key, body));
                self.found.check(checked).map(drop)
            })
        });
        self.note(walked)
    }

    /// Notes a table that cannot be walked to its end, and goes on with the next.
    fn note(&mut self, walked: Result<()>) -> Result<()> {
        match walked {
            Err(Error::Corrupt { what, detail }) => {
                self.found.problem(what, detail);
                Ok(())
            }
            other => other,
        }
    }

    /// Notes that a record has an entry in a table beside it.
    fn counted(&mut self, table: Table) {
        *self.entries.entry(table).or_default() += 1;
    }

    /// Checks that each index entry of a record is there.
    fn indexed(&mut self, entries: &[IndexEntry]) -> Result<()> {
        entries.iter().for_each(|entry| self.counted(entry.table));
        for entry in entries {
            let is_its_own = self.tx.read(entry.table, &entry.key, |body| Ok(body == entry.body))?;
            if is_its_own != Some(true) {
                return Err(Error::corrupt(
                    value::place(entry.table, &entry.key),
                    "is missing or leads elsewhere",
                ));
            }
        }
        Ok(())
    }

    /// Checks that a table has no entry but those that the records have: each of theirs was found, so counting is
    /// enough.
    fn count(&mut self, table: Table) -> Result<()> {
        let mut there = 0;
        let tx = self.tx;
        let walked = tx.raw(table, |entries| {
            there += entries.len() as u64;
            entries.iter().try_for_each(|(key, stored)| self.note(value::open(table, key, stored).map(drop)))
        });
        self.note(walked)?;
        let of_records = self.entries.get(&table).copied().unwrap_or_default();
        if there != of_records {
            self.found.problem(table.name(), format!("has {there} entries, the records have {of_records}"));
        }
        Ok(())
    }

    fn given(&self, table: Table, key: &[u8], number: u64) -> Result<()> {
        let reason = || format!("{number} was never given, the counter stands at {}", self.last_number);
        agree(table, key, (1..=self.last_number).contains(&number), reason)
    }

    fn lease(&self, table: Table, key: &[u8], lease: Option<&Lease>) -> Result<()> {
        lease.map_or(Ok(()), |lease| self.given(table, key, lease.token.0))
    }

    fn definition<D: Definition>(&mut self, key: &[u8], body: &[u8]) -> Result<()> {
        let found = self.tx.assemble::<D>(key, decode::<DefinitionRow<D>>(DEFINITIONS, key, body)?)?;
        let id = found.doc.id().as_ref();
        is_key_of(DEFINITIONS, key, &keys::definition(D::KIND, id))?;
        self.given(DEFINITIONS, key, found.revision.0)?;
        self.counted(LAST_SEQS);
        self.tx.expected::<u64>(LAST_SEQS, key)?;
        if let Some(schedule) = found.doc.schedule() {
            self.counted(RUN_STATES);
            self.lease(RUN_STATES, key, schedule.lease.as_ref())?;
            self.indexed(&index::of_run_state(D::KIND, id, &schedule.run_state())?)?;
        }
        self.indexed(&index::of_definition(&*found))
    }

    fn version<D: Definition>(&mut self, key: &[u8], body: &[u8]) -> Result<()> {
        let version: Version<D> = decode(VERSIONS, key, body)?;
        let definition = keys::definition(D::KIND, version.snapshot.id().as_ref());
        let place = definition.clone().unsigned(version.seq);
        is_key_of(VERSIONS, key, &place)?;
        let last_seq: u64 = self.tx.expected(LAST_SEQS, &definition)?;
        let reason = || format!("the last version of its definition is {last_seq}");
        agree(VERSIONS, key, (1..=last_seq).contains(&version.seq), reason)?;
        self.indexed(&index::of_version(&version.id, &place))
    }

    fn charge(&mut self, key: &[u8], body: &[u8]) -> Result<()> {
        let charged: Charged = decode(CHARGES, key, body)?;
        let mut fields = Fields::of(key);
        let (account, _) = account_of(CHARGES, key, &mut fields)?;
        let charge = charge_key(key, &mut fields)?;
        self.tx.expected::<Ledger>(ACCOUNTS, &keys::account(&account))?;
        self.indexed(&index::of_charge(&account, &charge.as_text(), &charged))
    }

    fn run(&mut self, key: &[u8], body: &[u8]) -> Result<()> {
        let run: Run = decode(RUNS, key, body)?;
        is_key_of(RUNS, key, &Key::new().text(run.id.as_str()))?;
        self.indexed(&index::of_run(&run)?)
    }

    fn event(&mut self, key: &[u8], body: &[u8]) -> Result<()> {
        let event: Event = decode(EVENTS, key, body)?;
        is_key_of(EVENTS, key, &keys::event(event.run.as_str(), event.seq))?;
        let before = self.last_event.replace((event.run.clone(), event.seq));
        let before = before.filter(|(run, _)| *run == event.run).map_or(0, |(_, seq)| seq);
        agree(EVENTS, key, event.seq == before + 1, || format!("comes after {before}"))?;
        if before == 0 {
            self.tx.expected::<Run>(RUNS, &Key::new().text(event.run.as_str()))?;
        }
        Ok(())
    }

    fn checkpoint(&mut self, key: &[u8], body: &[u8]) -> Result<()> {
        let (checkpoint, claimed) = checkpoint::read(key, body)?;
        is_key_of(CHECKPOINTS, key, &Key::new().text(checkpoint.run.as_str()))?;
        if claimed {
            self.counted(CHECKPOINT_CLAIMS);
        }
        let lease = self.tx.claim_beside(key, claimed)?;
        self.lease(CHECKPOINT_CLAIMS, key, lease.as_ref())
    }
}

/// Turns a rule that a stored record breaks into damage.
fn sound(table: Table, key: &[u8], rule: Result<()>) -> Result<()> {
    rule.map_err(|e| Error::corrupt(value::place(table, key), e.to_string()))
}

fn agree(table: Table, key: &[u8], good: bool, reason: impl FnOnce() -> String) -> Result<()> {
    if good { Ok(()) } else { Err(Error::corrupt(value::place(table, key), reason())) }
}

fn is_key_of(table: Table, key: &[u8], own: &Key) -> Result<()> {
    agree(table, key, *key == **own, || format!("holds the record of {}", own.escape_ascii()))
}
