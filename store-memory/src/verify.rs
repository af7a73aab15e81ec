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

#[cfg(test)]
mod tests {
    use store_api::budget::{ChargeKey, Charged};

    use super::*;
    use crate::state::Tx;

    /// A state with something in every table.
    fn full() -> State {
        let (now, owner) = (time::from_nanos(10), PrincipalId::new("o").unwrap());
        let (id, name) = (AgentId::new("a").unwrap(), Name::new("n").unwrap());
        let mut agent = Agent::new(id, owner.clone(), name);
        agent.tags.insert(Tag::new("t").unwrap());
        agent.channel_filter.insert(ChannelId::new("c").unwrap());
        agent.webhook = Some(format!("hmac-sha256:k:{}", "0".repeat(64)).parse().unwrap());
        agent.schedule = Some(Schedule::new("daily", "", Some(now)));
        let mut run = NewRun::new(RunId::new("r").unwrap(), owner.clone(), now);
        run.skill = Some(SkillId::new("s").unwrap());
        run.parent = Some(RunId::new("p").unwrap());
        let event = NewEvent { kind: "k".into(), at: now, payload: serde_json::Value::Null };
        let account = Account::new(owner.clone(), MeterName::new("m").unwrap(), Window::default());
        let charge = Charge::new(account, Amount::ZERO).with_key(IdempotencyKey::new("k").unwrap());

        let mut state = State::default();
        let tx = Tx::transaction(&mut state);
        tx.agents().save(&agent, Expect::Any).unwrap();
        let version = NewVersion::new(VersionId::new("v").unwrap(), agent, owner, now);
        tx.agents().append_version(&version).unwrap();
        tx.audit().start_run(&run).unwrap();
        tx.audit().append_event(&run.id, &event).unwrap();
        tx.budgets().add(&charge, now).unwrap();
        tx.checkpoints().save(&Checkpoint::new(run.id, 0, serde_json::Value::Null, now)).unwrap();
        tx.commit();
        state
    }

    /// Removes everything from a table, as a fault in this engine might remove something.
    fn clear<M: Map>(table: &mut crate::table::Table<M>) {
        for key in table.entries().map(|(key, _)| key).collect::<Vec<_>>() {
            assert!(table.unset(&key));
        }
    }

    #[test]
    fn what_is_missing_or_too_much_in_any_table_is_found() {
        assert_eq!(verify(&full()).unwrap(), Verification { records: 8, ..Verification::default() });
        let faults: &[fn(&mut State)] = &[
            |state| clear(&mut state.agents.by_id),
            |state| clear(&mut state.agents.in_order),
            |state| clear(&mut state.agents.due),
            |state| clear(&mut state.agents.by_name),
            |state| clear(&mut state.agents.by_owner),
            |state| clear(&mut state.agents.by_tag),
            |state| clear(&mut state.agents.by_channel),
            |state| clear(&mut state.agents.by_webhook),
            |state| clear(&mut state.agents.last_seq),
            |state| clear(&mut state.agents.versions),
            |state| clear(&mut state.agents.version_ids),
            |state| clear(&mut state.audit.by_id),
            |state| clear(&mut state.audit.by_start),
            |state| clear(&mut state.audit.running),
            |state| clear(&mut state.audit.by_skill),
            |state| clear(&mut state.audit.by_parent),
            |state| clear(&mut state.budgets.ledgers),
            |state| clear(&mut state.budgets.accounts),
            |state| clear(&mut state.budgets.charges),
            |state| clear(&mut state.budgets.expiries),
            |state| {
                let event = state.audit.events.entries().map(|(_, event)| event.clone()).next().unwrap();
                state.audit.events.set((event.run.clone(), 3), event);
            },
            |state| {
                let of = Account::new(
                    PrincipalId::new("x").unwrap(),
                    MeterName::new("m").unwrap(),
                    Window::default(),
                );
                let key = ChargeKey::Reservation(ReservationId::new("x").unwrap());
                state.budgets.set_charge(&of, key, Charged { amount: Amount::ZERO, expires_at: 1 });
            },
            |state| {
                let (_, stored) = state.checkpoints.entries().next().unwrap();
                let stored = stored.clone();
                state.checkpoints.set(RunId::new("another").unwrap(), stored);
            },
        ];
        for (nth, fault) in faults.iter().enumerate() {
            let mut state = full();
            fault(&mut state);
            assert!(!verify(&state).unwrap().is_sound(), "fault {nth}");
        }
    }
}
