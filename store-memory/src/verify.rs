//! Verification: indexes are derived again from the records, and compared both ways.

use std::fmt::Debug;

use store_api::*;

use crate::audit::Audit;
use crate::budget::Budgets;
use crate::catalog::Definitions;
use crate::checkpoint::Checkpoints;
use crate::state::State;
use crate::table::Map;

/// Checks everything that the store holds. Records are counted as an export counts them, the counter included.
pub(crate) fn verify(state: &State) -> Result<Verification> {
    let mut found = Verification { records: 1, ..Verification::default() };
    definitions(&mut found, &state.skills)?;
    definitions(&mut found, &state.agents)?;
    budgets(&mut found, &state.budgets);
    audit(&mut found, &state.audit)?;
    checkpoints(&mut found, &state.checkpoints);
    Ok(found)
}

/// Compares an index with what it should be.
fn compare<M>(found: &mut Verification, index: &str, kept: &M, derived: &M)
where
    M: Map,
    M::Key: Debug,
    M::Value: PartialEq,
{
    for (key, value) in derived.entries() {
        if kept.look(&key) != Some(value) {
            found.problem(index, format!("{key:?} is missing or is not what the record says"));
        }
    }
    for (key, _) in kept.entries().filter(|(key, _)| derived.look(key).is_none()) {
        found.problem(index, format!("{key:?} belongs to no record"));
    }
}

fn definitions<D: Definition>(found: &mut Verification, tables: &Definitions<D>) -> Result<()> {
    let kind = D::KIND.entity();
    let derived = tables.derived()?;
    let Definitions { by_id, in_order, due, by_name, by_owner, by_tag, by_channel, .. } = tables;
    compare(found, &format!("{kind}s by id"), &**by_id, &*derived.by_id);
    compare(found, &format!("{kind}s in order"), &**in_order, &*derived.in_order);
    compare(found, &format!("due {kind}s"), &**due, &*derived.due);
    compare(found, &format!("{kind}s by name"), &**by_name, &*derived.by_name);
    compare(found, &format!("{kind}s by owner"), &**by_owner, &*derived.by_owner);
    compare(found, &format!("{kind}s by tag"), &**by_tag, &*derived.by_tag);
    compare(found, &format!("{kind}s by channel"), &**by_channel, &*derived.by_channel);
    let Definitions { by_webhook, last_seq, versions, version_ids, .. } = tables;
    compare(found, &format!("{kind}s by webhook"), &**by_webhook, &*derived.by_webhook);
    compare(found, &format!("versions of {kind}s"), &**versions, &*derived.versions);
    compare(found, &format!("versions of {kind}s by id"), &**version_ids, &*derived.version_ids);

    found.records += by_id.len() as u64;
    for (id, versions) in versions.groups() {
        found.records += versions.len() as u64;
        if !by_id.contains_key(id) {
            found.problem(format!("versions of {kind}s"), format!("{id:?} does not exist"));
        }
        if versions.keys().next_back() > Some(last_seq.get(id).unwrap_or(&0)) {
            found.problem(format!("last seq of {kind} {id:?}"), "a version has a higher one");
        }
    }
    for id in last_seq.keys().filter(|id| !by_id.contains_key(*id)) {
        found.problem(format!("last seq of {kind} {id:?}"), "the definition does not exist");
    }
    Ok(())
}

fn budgets(found: &mut Verification, tables: &Budgets) {
    let mut derived = Budgets::default();
    for (account, ledger) in tables.ledgers.iter() {
        derived.set_ledger(account, ledger.clone());
    }
    for ((account, key), charged) in tables.charges.entries() {
        if !tables.ledgers.contains_key(&account) {
            found.problem(format!("charge {} of {account}", key.as_text()), "there is no such account");
        }
        derived.set_charge(&account, key, *charged);
        found.records += 1;
    }
    found.records += tables.ledgers.len() as u64;
    compare(found, "accounts in order", &*tables.accounts, &*derived.accounts);
    compare(found, "charges by expiry", &*tables.expiries, &*derived.expiries);
}

fn audit(found: &mut Verification, tables: &Audit) -> Result<()> {
    let mut derived = Audit::default();
    tables.by_id.values().try_for_each(|run| derived.set(run))?;
    compare(found, "runs by id", &*tables.by_id, &*derived.by_id);
    compare(found, "runs by start", &*tables.by_start, &*derived.by_start);
    compare(found, "running runs", &*tables.running, &*derived.running);
    compare(found, "runs by skill", &*tables.by_skill, &*derived.by_skill);
    compare(found, "runs by parent", &*tables.by_parent, &*derived.by_parent);

    found.records += tables.by_id.len() as u64;
    for (run, events) in tables.events.groups() {
        found.records += events.len() as u64;
        if !tables.by_id.contains_key(run) {
            found.problem(format!("events of run {run:?}"), "there is no such run");
        }
        if events.iter().zip(1..).any(|((seq, event), nth)| *seq != nth || event.seq != nth) {
            found.problem(format!("events of run {run:?}"), "their numbers have a gap");
        }
    }
    Ok(())
}

fn checkpoints(found: &mut Verification, tables: &Checkpoints) {
    found.records += tables.len() as u64;
    for (run, _) in tables.iter().filter(|(run, stored)| **run != stored.checkpoint.run) {
        found.problem(format!("checkpoint {run:?}"), "is of another run");
    }
}
