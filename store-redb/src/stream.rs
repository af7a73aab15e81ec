//! The record stream: everything that the store holds, out and in, a chunk of entries in memory at a time.

use store_api::budget::{ChargeKey, Charged, Ledgers};
use store_api::{
    AccountRecord, Agent, ChargeRecord, Checkpoint, CheckpointRecord, Counter, Definition, DefinitionRecord,
    EngineTx, Error, Record, Result, Skill, Version,
};

use crate::budget::account_of;
use crate::catalog::Found;
use crate::checkpoint::Head;
use crate::keys::{self, Fields, Span};
use crate::tables::{
    ACCOUNTS, CHARGES, CHECKPOINT_HEADS, CHECKPOINTS, DEFINITIONS, EVENTS, LAST_SEQS, RUNS, VERSIONS,
};
use crate::tx::{Tx, decode};
use crate::value;

type Sink<'s> = dyn FnMut(Record) -> Result<()> + 's;

/// The key of a charge, from the rest of its row's key.
pub(crate) fn charge_key(key: &[u8], fields: &mut Fields<'_>) -> Result<ChargeKey> {
    ChargeKey::from_text(&fields.text()?)
        .map_err(|e| Error::corrupt(value::place(CHARGES, key), e.to_string()))
}

impl Tx<'_> {
    fn export_definitions<D: Definition>(&self, sink: &mut Sink<'_>) -> Result<()> {
        self.every(DEFINITIONS, Span::under(&keys::of_kind(D::KIND)), |key, body| {
            let Found { doc, revision } = self.assemble::<D>(key, decode(DEFINITIONS, key, body)?)?;
            let last_seq = self.expected(LAST_SEQS, key)?;
            sink(D::record(DefinitionRecord { doc: doc.into(), revision, last_seq }))?;
            self.every(VERSIONS, Span::under(key), |key, body| {
                sink(D::version_record(decode(VERSIONS, key, body)?))
            })
        })
    }

    fn export_accounts(&self, sink: &mut Sink<'_>) -> Result<()> {
        self.every(ACCOUNTS, Span::all(), |key, body| {
            let (_, account) = account_of(ACCOUNTS, key, &mut Fields::of(key))?;
            let ledger = decode(ACCOUNTS, key, body)?;
            sink(Record::Account(AccountRecord { account: account.clone(), ledger }))?;
            self.every(CHARGES, Span::under(key), |key, body| {
                let mut fields = Fields::of(key);
                account_of(CHARGES, key, &mut fields)?;
                let charged: Charged = decode(CHARGES, key, body)?;
                let key = charge_key(key, &mut fields)?;
                sink(Record::Charge(ChargeRecord { account: account.clone(), key, charged }))
            })
        })
    }

    fn export_runs(&self, sink: &mut Sink<'_>) -> Result<()> {
        self.every(RUNS, Span::all(), |key, body| {
            sink(Record::Run(decode(RUNS, key, body)?))?;
            self.every(EVENTS, Span::under(key), |key, body| sink(Record::Event(decode(EVENTS, key, body)?)))
        })
    }

    fn export_checkpoints(&self, sink: &mut Sink<'_>) -> Result<()> {
        self.every(CHECKPOINTS, Span::all(), |key, body| {
            let checkpoint: Checkpoint = decode(CHECKPOINTS, key, body)?;
            let Head { lease, .. } = self.expected(CHECKPOINT_HEADS, key)?;
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
        for table in [DEFINITIONS, ACCOUNTS, RUNS, CHECKPOINTS] {
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
            Record::Run(run) => self.put_run(&run, None),
            Record::Event(event) => self.put_event(&event),
            Record::Checkpoint(record) => self.put_checkpoint(&record.checkpoint, record.lease),
            other => Err(Error::Unsupported {
                operation: format!("a record of the type {}", other.type_name()).into(),
            }),
        }
    }
}
