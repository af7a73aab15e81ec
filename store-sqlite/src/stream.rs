//! The record stream: everything that the store holds, out and in, one record in memory at a time.

use rusqlite::{Row, params};
use store_api::budget::Ledgers;
use store_api::{
    AccountRecord, Agent, ChargeRecord, CheckpointRecord, Counter, Definition, DefinitionRecord, EngineTx,
    Error, Interrupted, Record, Result, RunId, Skill, Stored, Version,
};

use crate::catalog;
use crate::tx::{Onward, Tx};
use crate::versions::Draft;
use crate::{audit, budget, checkpoint, versions};

type Sink<'s> = dyn FnMut(Record) -> Result<()> + 's;

impl Tx<'_> {
    fn export_definitions<D: Definition>(&self, sink: &mut Sink<'_>) -> Result<()> {
        let sql = concat!("SELECT ", catalog::columns!(), " FROM definitions d WHERE kind = ?1 ORDER BY id");
        let read = |row: &Row<'_>| {
            let found = catalog::read::<D>(row)?;
            Ok((found.doc.id().clone(), found))
        };
        self.walk(sql, [D::KIND.code()], Onward::rising(None), read, |Stored { doc, revision }| {
            let id = doc.id().clone();
            let last_seq = self.last_seq::<D>(&id)?;
            sink(D::record(DefinitionRecord { doc, revision, last_seq }))?;
            self.export_versions::<D>(&id, sink)
        })
    }

    fn export_versions<D: Definition>(&self, id: &D::Id, sink: &mut Sink<'_>) -> Result<()> {
        let columns = versions::COLUMNS;
        let sql = format!("SELECT {columns} FROM versions WHERE kind = ?1 AND definition = ?2 ORDER BY seq");
        let (params, read) =
            (params![D::KIND.code(), id.as_ref()], |row: &Row<'_>| versions::read_of(id, row));
        self.walk(&sql, params, Onward::rising(None), read, |version| sink(D::version_record(version)))
    }

    fn export_accounts(&self, sink: &mut Sink<'_>) -> Result<()> {
        let sql = "SELECT sum, ledger, caller, meter, \"window\" FROM accounts \
                   ORDER BY caller, meter, \"window\"";
        let read = |row: &Row<'_>| {
            let (key, account, ledger) = budget::read_account(row)?;
            Ok((key.clone(), (key, account, ledger)))
        };
        self.walk(sql, [], Onward::rising(None), read, |(key, account, ledger)| {
            sink(Record::Account(AccountRecord { account: account.clone(), ledger }))?;
            self.each_charge(&key, |charge| {
                let (key, charged) = charge?;
                sink(Record::Charge(ChargeRecord { account: account.clone(), key, charged }))
            })
        })
    }

    fn export_runs(&self, sink: &mut Sink<'_>) -> Result<()> {
        let sql = "SELECT id, sum, doc FROM runs ORDER BY id";
        let read = |row: &Row<'_>| {
            let run = audit::read_run(row)?;
            Ok((run.id.clone(), run))
        };
        self.walk(sql, [], Onward::rising(None), read, |run| {
            let id = run.id.clone();
            sink(Record::Run(run))?;
            self.export_events(&id, sink)
        })
    }

    fn export_events(&self, run: &RunId, sink: &mut Sink<'_>) -> Result<()> {
        let sql = "SELECT run, seq, kind, at, sum, payload FROM events WHERE run = ?1 ORDER BY seq";
        let read = |row: &Row<'_>| audit::read_event_of(run, row);
        self.walk(sql, [run.as_str()], Onward::rising(None), read, |event| sink(Record::Event(event)))
    }

    fn export_checkpoints(&self, sink: &mut Sink<'_>) -> Result<()> {
        let sql = concat!("SELECT ", checkpoint::columns!(), " FROM checkpoints ORDER BY run");
        let read = |row: &Row<'_>| {
            let found = checkpoint::read(row)?;
            Ok((found.checkpoint.run.clone(), found))
        };
        self.walk(sql, [], Onward::rising(None), read, |Interrupted { checkpoint, lease }| {
            sink(Record::Checkpoint(CheckpointRecord { checkpoint, lease }))
        })
    }

    fn put_definition_record<D: Definition>(&self, record: &DefinitionRecord<D>) -> Result<()> {
        let doc = &*record.doc;
        self.check_unique(doc)?;
        let state = doc.schedule().map(|schedule| schedule.run_state()).unwrap_or_default();
        self.put_definition(doc, record.revision, &state)?;
        self.set_last_seq::<D>(doc.id(), record.last_seq)?;
        self.put_facets(doc.id(), None, Some(doc))
    }

    fn put_version<D: Definition>(&self, version: &Version<D>) -> Result<()> {
        self.insert_version(version.seq, &Draft::of(&version.content)?)
    }
}

impl EngineTx for Tx<'_> {
    fn export(&self, sink: &mut dyn FnMut(Record) -> Result<()>) -> Result<()> {
        self.takes_long();
        sink(Record::Counter(Counter { last: self.counter()? }))?;
        self.export_definitions::<Skill>(sink)?;
        self.export_definitions::<Agent>(sink)?;
        self.export_accounts(sink)?;
        self.export_runs(sink)?;
        self.export_checkpoints(sink)
    }

    fn is_empty(&self) -> Result<bool> {
        let sql = "SELECT 1 WHERE EXISTS (SELECT 1 FROM definitions) OR EXISTS (SELECT 1 FROM accounts) \
                   OR EXISTS (SELECT 1 FROM runs) OR EXISTS (SELECT 1 FROM checkpoints)";
        Ok(!self.any(sql, [])?)
    }

    fn put(&self, record: Record) -> Result<()> {
        match record {
            Record::Counter(counter) => self.set_counter(counter.last),
            Record::Skill(record) => self.put_definition_record(&record),
            Record::Agent(record) => self.put_definition_record(&record),
            Record::SkillVersion(version) => self.put_version(&version),
            Record::AgentVersion(version) => self.put_version(&version),
            Record::Account(record) => self.put_ledger(&record.account.key(), &record.ledger),
            Record::Charge(record) => self.put_charge(&record.account.key(), &record.key, &record.charged),
            Record::Run(run) => self.insert_run(&run),
            Record::Event(event) => self.insert_event(&event.run, event.seq, &event.content),
            Record::Checkpoint(record) => {
                let draft = checkpoint::Draft::of(&record.checkpoint)?;
                self.insert_checkpoint(&draft, record.lease.as_ref())
            }
            other => Err(Error::Unsupported { operation: format!("storing a {}", other.type_name()).into() }),
        }
    }
}
