//! Maps and vectors behind one lock, by hand.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use parking_lot::RwLock;
use store_api::budget::{AccountKey, Charging};
use store_api::{Amount, Charge, Ledger, Name, NewVersion, PrincipalId, Record, Skill, SkillId, Version};

use crate::subject::{Result, Subject};

#[derive(Default)]
struct State {
    skills: HashMap<SkillId, Arc<Skill>>,
    names: HashMap<(PrincipalId, Name), SkillId>,
    due: BTreeSet<(DateTime<Utc>, SkillId)>,
    versions: HashMap<SkillId, Vec<Arc<Version<Skill>>>>,
    accounts: HashMap<AccountKey, Ledger>,
}

/// A readers-writer lock around it all.
#[derive(Default)]
pub(crate) struct Memory(RwLock<State>);

impl Subject for Memory {
    fn load(&self, records: &mut dyn Iterator<Item = Record>) -> Result<()> {
        let state = &mut *self.0.write();
        for record in records {
            match record {
                Record::Counter(_) => {}
                Record::Skill(record) => {
                    let skill = record.doc;
                    state.names.insert((skill.owner.clone(), skill.name.clone()), skill.id.clone());
                    if let Some(next) = skill.schedule.as_ref().and_then(|schedule| schedule.next_run_at) {
                        state.due.insert((next, skill.id.clone()));
                    }
                    state.versions.insert(skill.id.clone(), Vec::new());
                    state.skills.insert(skill.id.clone(), skill);
                }
                Record::SkillVersion(version) => {
                    let history = state.versions.get_mut(&version.snapshot.id).ok_or("no such skill")?;
                    history.push(Arc::new(version));
                }
                Record::Account(record) => {
                    state.accounts.insert(record.account.key(), record.ledger);
                }
                other => return Err(format!("no map for a {}", other.type_name()).into()),
            }
        }
        Ok(())
    }

    fn append_version(&self, version: &NewVersion<Skill>) -> Result<u64> {
        let content = version.clone();
        let mut state = self.0.write();
        let history = state.versions.get_mut(&version.snapshot.id).ok_or("no such skill")?;
        let seq = history.last().map_or(0, |last| last.seq) + 1;
        history.push(Arc::new(Version { seq, content }));
        Ok(seq)
    }

    fn mark(&self, id: &SkillId, ran_at: DateTime<Utc>, next: DateTime<Utc>) -> Result<()> {
        let state = &mut *self.0.write();
        let skill = Arc::make_mut(state.skills.get_mut(id).ok_or("no such skill")?);
        let schedule = skill.schedule.as_mut().ok_or("no schedule")?;
        if let Some(was) = schedule.next_run_at.replace(next) {
            state.due.remove(&(was, id.clone()));
        }
        state.due.insert((next, id.clone()));
        schedule.last_run_at = Some(ran_at);
        schedule.lease = None;
        Ok(())
    }

    fn add(&self, charge: &Charge, now: DateTime<Utc>) -> Result<Amount> {
        let key = charge.account.key();
        let mut state = self.0.write();
        let ledger = state.accounts.entry(key).or_default();
        match ledger.charge(&charge.account.meter.window, charge.amount, None, None, now)? {
            Charging::Made { usage, .. } | Charging::Replayed(usage) => Ok(usage.used),
        }
    }

    fn get(&self, id: &SkillId) -> Result<Arc<Skill>> {
        Ok(self.0.read().skills.get(id).ok_or("no such skill")?.clone())
    }

    fn newest(&self, id: &SkillId, limit: usize) -> Result<Vec<Arc<Version<Skill>>>> {
        let state = self.0.read();
        let history = state.versions.get(id).ok_or("no such skill")?;
        Ok(history.iter().rev().take(limit).cloned().collect())
    }
}
