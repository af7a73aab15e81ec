//! The record stream. A stream that comes in was checked already; what is left is what only an engine can know.

use std::collections::BTreeMap;
use std::sync::Arc;

use store_api::*;

use super::budgets::account_row;
use super::definitions::check_unique;
use super::{AccountRow, DefinitionRow, Kept, RunRow, State, Tx};

impl EngineTx for Tx {
    fn export(&self, sink: &mut dyn FnMut(Record) -> Result<()>) -> Result<()> {
        let state = self.look();
        sink(Record::Counter(Counter { last: state.counter }))?;
        export_definitions::<Skill>(&state, sink)?;
        export_definitions::<Agent>(&state, sink)?;
        for AccountRow { account, ledger, charges } in state.accounts.values() {
            sink(Record::Account(AccountRecord { account: account.clone(), ledger: ledger.clone() }))?;
            for (key, charged) in charges {
                let (account, key) = (account.clone(), key.clone());
                sink(Record::Charge(ChargeRecord { account, key, charged: *charged }))?;
            }
        }
        for row in state.runs.values() {
            sink(Record::Run(Run::clone(&row.run)))?;
            row.events.iter().try_for_each(|event| sink(Record::Event(Event::clone(event))))?;
        }
        for Interrupted { checkpoint, lease } in state.checkpoints.values() {
            let (checkpoint, lease) = (Arc::clone(checkpoint), lease.clone());
            sink(Record::Checkpoint(CheckpointRecord { checkpoint, lease }))?;
        }
        Ok(())
    }

    fn is_empty(&self) -> Result<bool> {
        let State { counter: _, skills, agents, accounts, runs, checkpoints } = &*self.look();
        let definitions = skills.len() + agents.len();
        Ok(definitions + accounts.len() + runs.len() + checkpoints.len() == 0)
    }

    fn put(&self, record: Record) -> Result<()> {
        let mut state = self.change();
        match record {
            Record::Counter(counter) => state.counter = counter.last,
            Record::Skill(record) => put_definition(&mut state, record)?,
            Record::SkillVersion(version) => put_version(&mut state, version)?,
            Record::Agent(record) => put_definition(&mut state, record)?,
            Record::AgentVersion(version) => put_version(&mut state, version)?,
            Record::Account(AccountRecord { account, ledger }) => {
                account_row(&mut state, &account).ledger = ledger;
            }
            Record::Charge(ChargeRecord { account, key, charged }) => {
                account_row(&mut state, &account).charges.insert(key, charged);
            }
            Record::Run(run) => {
                let row = RunRow { run: Arc::new(run), events: Vec::new() };
                state.runs.insert(row.run.id.clone(), row);
            }
            Record::Event(event) => state.run_row(&event.run)?.events.push(Arc::new(event)),
            Record::Checkpoint(CheckpointRecord { checkpoint, lease }) => {
                state.checkpoints.insert(checkpoint.run.clone(), Interrupted { checkpoint, lease });
            }
            other => {
                let operation = format!("a record of type {}", other.type_name());
                return Err(Error::Unsupported { operation: operation.into() });
            }
        }
        Ok(())
    }
}

fn export_definitions<D: Kept>(state: &State, sink: &mut dyn FnMut(Record) -> Result<()>) -> Result<()> {
    for DefinitionRow { stored: Stored { doc, revision }, last_seq, versions } in D::rows(state).values() {
        let record = DefinitionRecord { doc: Arc::clone(doc), revision: *revision, last_seq: *last_seq };
        sink(D::record(record))?;
        versions.values().try_for_each(|version| sink(D::version_record(Version::clone(version))))?;
    }
    Ok(())
}

fn put_definition<D: Kept>(state: &mut State, record: DefinitionRecord<D>) -> Result<()> {
    let DefinitionRecord { doc, revision, last_seq } = record;
    check_unique(state, &*doc)?;
    let id = doc.id().clone();
    let row = DefinitionRow { stored: Stored { doc, revision }, last_seq, versions: BTreeMap::new() };
    D::rows_mut(state).insert(id, row);
    Ok(())
}

fn put_version<D: Kept>(state: &mut State, version: Version<D>) -> Result<()> {
    state.check_version_id(&version.id)?;
    let id = version.snapshot.id().clone();
    let row = D::rows_mut(state).get_mut(&id).ok_or_else(|| D::missing(&id))?;
    row.versions.insert(version.seq, Arc::new(version));
    Ok(())
}
