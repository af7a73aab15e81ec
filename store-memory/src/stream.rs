//! The record stream.

use std::sync::Arc;

use store_api::*;

use crate::catalog::Definitions;
use crate::state::Tx;

type Sink<'a> = &'a mut dyn FnMut(Record) -> Result<()>;

impl EngineTx for Tx<'_> {
    fn export(&self, sink: Sink<'_>) -> Result<()> {
        let state = self.look();
        sink(Record::Counter(Counter { last: state.counter.last() }))?;
        export_definitions(&state.skills, sink)?;
        export_definitions(&state.agents, sink)?;
        for account in state.budgets.accounts.values() {
            let ledger = state.budgets.ledgers.get(account).cloned().unwrap_or_default();
            sink(Record::Account(AccountRecord { account: account.clone(), ledger }))?;
            for (key, charged) in state.budgets.charges.group(account) {
                let (account, key) = (account.clone(), key.clone());
                sink(Record::Charge(ChargeRecord { account, key, charged: *charged }))?;
            }
        }
        // Runs are listed by start, never by id, so no index has this order.
        let mut runs: Vec<&Arc<Run>> = state.audit.by_id.values().collect();
        runs.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        for run in runs {
            sink(Record::Run(Run::clone(run)))?;
            let mut events = state.audit.events.group(&run.id).values();
            events.try_for_each(|event| sink(Record::Event(Event::clone(event))))?;
        }
        for Interrupted { checkpoint, lease } in state.checkpoints.values() {
            let (checkpoint, lease) = (Arc::clone(checkpoint), lease.clone());
            sink(Record::Checkpoint(CheckpointRecord { checkpoint, lease }))?;
        }
        Ok(())
    }

    fn is_empty(&self) -> Result<bool> {
        let state = self.look();
        Ok(state.skills.by_id.is_empty()
            && state.agents.by_id.is_empty()
            && state.budgets.ledgers.is_empty()
            && state.audit.by_id.is_empty()
            && state.checkpoints.is_empty())
    }

    fn put(&self, record: Record) -> Result<()> {
        let mut state = self.change()?;
        match record {
            Record::Counter(counter) => state.counter.set(counter.last),
            Record::Skill(record) => state.skills.put(record)?,
            Record::SkillVersion(version) => state.put_version(version)?,
            Record::Agent(record) => state.agents.put(record)?,
            Record::AgentVersion(version) => state.put_version(version)?,
            Record::Account(AccountRecord { account, ledger }) => state.budgets.set_ledger(&account, ledger),
            Record::Charge(ChargeRecord { account, key, charged }) => {
                state.budgets.set_charge(&account, key, charged);
            }
            Record::Run(run) => state.audit.set(&Arc::new(run))?,
            Record::Event(event) => state.audit.events.set((event.run.clone(), event.seq), Arc::new(event)),
            Record::Checkpoint(CheckpointRecord { checkpoint, lease }) => {
                state.checkpoints.set(checkpoint.run.clone(), Interrupted { checkpoint, lease });
            }
            other => {
                let operation = format!("storing a record of type {}", other.type_name());
                return Err(Error::Unsupported { operation: operation.into() });
            }
        }
        Ok(())
    }
}

fn export_definitions<D: Definition>(tables: &Definitions<D>, sink: Sink<'_>) -> Result<()> {
    for (id, Stored { doc, revision }) in tables.in_order.iter() {
        let last_seq = tables.last_seq.get(id).copied().unwrap_or_default();
        sink(D::record(DefinitionRecord { doc: Arc::clone(doc), revision: *revision, last_seq }))?;
        let mut versions = tables.versions.group(id).values();
        versions.try_for_each(|version| sink(D::version_record(Version::clone(version))))?;
    }
    Ok(())
}
