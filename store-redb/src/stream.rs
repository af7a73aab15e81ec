//! The record stream: everything that the store holds, out and in, a chunk of entries in memory at a time.

use serde::de::DeserializeOwned;
use store_api::budget::{ChargeKey, Charged, Ledgers};
use store_api::{
    AccountRecord, Agent, ChargeRecord, CheckpointRecord, Counter, Definition, DefinitionRecord, EngineTx,
    Error, Record, Result, Skill, Stored, Version,
};

use crate::budget::account_of;
use crate::checkpoint;
use crate::keys::{self, Fields, Span};
use crate::tables::{
    ACCOUNTS, CHARGES, CHECKPOINT_CLAIMS, CHECKPOINTS, DEFINITIONS, EVENTS, LAST_SEQS, RUNS, Table, VERSIONS,
};
use crate::tx::{Tx, decode};
use crate::value;

type Sink<'s> = dyn FnMut(Record) -> Result<()> + 's;

/// The key of a charge, from the rest of its row's key.
pub(crate) fn charge_key(key: &[u8], fields: &mut Fields<'_>) -> Result<ChargeKey> {
    ChargeKey::from_text(&fields.text()?)
        .map_err(|e| Error::corrupt(value::place(CHARGES, key), e.to_string()))
}

/// Reads a record and keeps its key.
fn keyed<T: DeserializeOwned>(table: Table) -> impl Fn(&[u8], &[u8]) -> Result<(Vec<u8>, T)> {
    move |key, body| Ok((key.to_vec(), decode(table, key, body)?))
}

impl Tx<'_> {
    fn export_definitions<D: Definition>(&self, sink: &mut Sink<'_>) -> Result<()> {
        let span = Span::under(&keys::of_kind(D::KIND));
        self.every(DEFINITIONS, span, keyed(DEFINITIONS), |(key, row)| {
            let Stored { doc, revision } = self.assemble::<D>(&key, row)?;
            let last_seq = self.expected(LAST_SEQS, &key)?;
            sink(D::record(DefinitionRecord { doc, revision, last_seq }))?;
            let read = |key: &[u8], body: &[u8]| decode(VERSIONS, key, body);
            self.every(VERSIONS, Span::under(&key), read, |version| sink(D::version_record(version)))
        })
    }

    fn export_accounts(&self, sink: &mut Sink<'_>) -> Result<()> {
        self.every(ACCOUNTS, Span::all(), keyed(ACCOUNTS), |(key, ledger)| {
            let (_, account) = account_of(ACCOUNTS, &key, &mut Fields::of(&key))?;
            sink(Record::Account(AccountRecord { account: account.clone(), ledger }))?;
            let read = |key: &[u8], body: &[u8]| {
                let mut fields = Fields::of(key);
                account_of(CHARGES, key, &mut fields)?;
                let charged: Charged = decode(CHARGES, key, body)?;
                Ok((charge_key(key, &mut fields)?, charged))
            };
            self.every(CHARGES, Span::under(&key), read, |(key, charged)| {
                sink(Record::Charge(ChargeRecord { account: account.clone(), key, charged }))
            })
        })
    }

    fn export_runs(&self, sink: &mut Sink<'_>) -> Result<()> {
        self.every(RUNS, Span::all(), keyed(RUNS), |(key, run)| {
            sink(Record::Run(run))?;
            let read = |key: &[u8], body: &[u8]| decode(EVENTS, key, body);
            self.every(EVENTS, Span::under(&key), read, |event| sink(Record::Event(event)))
        })
    }

    fn export_checkpoints(&self, sink: &mut Sink<'_>) -> Result<()> {
        let read = |key: &[u8], body: &[u8]| Ok((key.to_vec(), checkpoint::read(key, body)?));
        self.every(CHECKPOINTS, Span::all(), read, |(key, (checkpoint, claimed))| {
            let lease = self.claim_beside(&key, claimed)?;
            sink(Record::Checkpoint(CheckpointRecord { checkpoint: checkpoint.into(), lease }))
        })
    }

    fn import_definition<D: Definition>(&self, record: &DefinitionRecord<D>) -> Result<()> {
        let doc = &*record.doc;
        self.check_unique(doc)?;
        let state = doc.schedule().map(|schedule| schedule.run_state());
        self.put_definition(doc, record.revision, state.as_ref(), None)?;
        self.set_last_seq::<D>(doc.id(), record.last_seq)
    }

    fn import_version<D: Definition>(&self, version: &Version<D>) -> Result<()> {
        self.check_version_id(&version.id)?;
        self.put_version(version)
    }
}

impl EngineTx for Tx<'_> {
    fn export(&self, sink: &mut dyn FnMut(Record) -> Result<()>) -> Result<()> {
        sink(Record::Counter(Counter { last: self.counter()? }))?;
        self.export_definitions::<Skill>(sink)?;
        self.export_definitions::<Agent>(sink)?;
        self.export_accounts(sink)?;
        self.export_runs(sink)?;
        self.export_checkpoints(sink)
    }

    fn is_empty(&self) -> Result<bool> {
        for table in [DEFINITIONS, ACCOUNTS, RUNS, CHECKPOINTS, CHECKPOINT_CLAIMS] {
            if !self.is_table_empty(table)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn put(&self, record: Record) -> Result<()> {
        match record {
            Record::Counter(counter) => self.set_counter(counter.last),
            Record::Skill(record) => self.import_definition(&record),
            Record::Agent(record) => self.import_definition(&record),
            Record::SkillVersion(version) => self.import_version(&version),
            Record::AgentVersion(version) => self.import_version(&version),
            Record::Account(record) => self.put_ledger(&record.account.key(), &record.ledger),
            Record::Charge(record) => self.put_charge(&record.account.key(), &record.key, &record.charged),
            Record::Run(run) => self.insert_run(&run),
            Record::Event(event) => self.put_event(&event),
            Record::Checkpoint(record) => self.insert_checkpoint(&record.checkpoint, record.lease.as_ref()),
            other => Err(Error::Unsupported {
                operation: format!("a record of the type {}", other.type_name()).into(),
            }),
        }
    }
}
