//! What must be there after a kill.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use contract_tests::fixture;
use store::page::{self, MAX_PAGE};
use store::{Event, Page, PageRequest, Result, Run, RunFilter, RunStatus, Skill, Store, StoreExt, Version};

use super::child::{DUE, EDITED, EVENTS, SHARED, account, number};
use super::said::Ack;

/// What the writers of one store were told, and how many of them were killed.
#[derive(Debug, Default)]
pub(crate) struct Acked {
    versions: BTreeMap<String, u64>,
    events: BTreeMap<String, u64>,
    units: BTreeSet<String>,
    totals: BTreeSet<u64>,
    edits: BTreeSet<u64>,
    checkpoints: BTreeMap<String, u64>,
    claims: BTreeMap<String, (u64, i64)>,
    finishes: BTreeMap<String, i64>,
    runs: BTreeMap<String, u64>,
    /// The last child that wrote.
    latest: u64,
    /// How many writes may have happened without an acknowledgement: one for each thread that was killed.
    doubts: u64,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(super) lost: Vec<String>,
    pub(super) wrong: Vec<String>,
}

impl Found {
    fn lost(&mut self, is_lost: bool, what: impl FnOnce() -> String) {
        if is_lost {
            self.lost.push(what());
        }
    }

    fn wrong(&mut self, is_wrong: bool, what: impl FnOnce() -> String) {
        if is_wrong {
            self.wrong.push(what());
        }
    }
}

impl Acked {
    pub(crate) fn writers_died(&mut self, writers: u64) {
        self.doubts += writers;
    }

    pub(super) fn child_began(&mut self, process: u64) {
        self.latest = process;
    }

    /// Notes an acknowledgement; gives a number that was given twice.
    pub(super) fn note(&mut self, ack: Ack) -> Option<String> {
        let fresh = match &ack {
            Ack::Charge { total } => self.totals.insert(*total),
            Ack::Edit { number } => self.edits.insert(*number),
            _ => true,
        };
        let twice = (!fresh).then(|| format!("{ack:?} was acknowledged twice: an update is lost"));
        match ack {
            Ack::Version { id, seq } => drop(self.versions.insert(id, seq)),
            Ack::Event { id, seq } => drop(self.events.insert(id, seq)),
            Ack::Unit { id } => drop(self.units.insert(id)),
            Ack::Charge { .. } | Ack::Edit { .. } => {}
            Ack::Checkpoint { run, iteration } => drop(self.checkpoints.insert(run, iteration)),
            Ack::Claim { skill, token, now } => {
                let last = self.claims.entry(skill).or_default();
                *last = (*last).max((token, now));
            }
            Ack::Finish { skill, now } => {
                let last = self.finishes.entry(skill).or_default();
                *last = (*last).max(now);
            }
            Ack::Run { id, process } => drop(self.runs.insert(id, process)),
        }
        twice
    }

    /// Compares a store that was opened again with what its writers were told.
    pub(crate) fn check(&self, store: &dyn Store) -> Result<Found> {
        let mut found = Found::default();
        let verification = store.verify()?;
        found.wrong(!verification.is_sound(), || format!("verify: {:?}", verification.problems));
        self.check_appends(store, &mut found)?;
        self.check_counts(store, &mut found)?;
        self.check_checkpoints(store, &mut found)?;
        self.check_claims(store, &mut found)?;
        self.check_runs(store, &mut found)?;
        Ok(found)
    }

    fn check_appends(&self, store: &dyn Store, found: &mut Found) -> Result<()> {
        let mut versions: Vec<Arc<Version<Skill>>> =
            all(|page| store.skills().versions(&fixture::id(SHARED), page))?;
        versions.reverse();
        let versions: Vec<(String, u64)> =
            versions.iter().map(|version| (version.id.to_string(), version.seq)).collect();
        let events: Vec<Arc<Event>> = all(|page| store.audit().events(&fixture::id(SHARED), page))?;
        let named = |event: &Arc<Event>| event.payload.as_str().unwrap_or_default().to_owned();
        let events: Vec<(String, u64)> = events.iter().map(|event| (named(event), event.seq)).collect();
        check_numbers("versions", &versions, &self.versions, found);
        check_numbers("events", &events, &self.events, found);

        let units = |appended: &[(String, u64)]| -> BTreeSet<String> {
            appended.iter().map(|(id, _)| id.clone()).filter(|id| id.starts_with('u')).collect()
        };
        let (whole, half) = (units(&versions), units(&events));
        found.wrong(whole != half, || {
            format!("half a transaction: {:?}", whole.symmetric_difference(&half).collect::<Vec<_>>())
        });
        for id in self.units.difference(&whole) {
            found.lost(true, || format!("the transaction {id} was acknowledged and is gone"));
        }
        let acknowledged = self.versions.len() + self.units.len();
        let more = (versions.len() as u64).saturating_sub(acknowledged as u64);
        found.wrong(more > self.doubts, || format!("{more} versions more than were acknowledged"));
        Ok(())
    }

    fn check_counts(&self, store: &dyn Store, found: &mut Found) -> Result<()> {
        let used = store.budgets().usage(&account(), fixture::at(0))?.used.micros();
        let edited = store.skills().get(&fixture::id(EDITED))?;
        let edits = edited.map_or(Ok(0), |edited| number(&edited.doc.body))?;
        let charges = (self.totals.len() + self.units.len()) as u64;
        for (what, there, acknowledged, highest) in [
            ("charges", used, charges, self.totals.last()),
            ("edits", edits, self.edits.len() as u64, self.edits.last()),
        ] {
            let least = acknowledged.max(highest.copied().unwrap_or(0));
            found.lost(there < least, || format!("{there} {what}, at least {least} were acknowledged"));
            let more = there.saturating_sub(acknowledged);
            found.wrong(more > self.doubts, || format!("{more} {what} more than were acknowledged"));
        }
        Ok(())
    }

    fn check_checkpoints(&self, store: &dyn Store, found: &mut Found) -> Result<()> {
        for (run, iteration) in &self.checkpoints {
            let there = store.checkpoints().load(&fixture::id(run))?.map(|checkpoint| checkpoint.iteration);
            found.lost(there.is_none_or(|there| there < *iteration), || {
                format!("the checkpoint {run} is at {there:?} and was acknowledged at {iteration}")
            });
        }
        Ok(())
    }

    /// A claim that was given is there, or was taken over, or its work is done.
    fn check_claims(&self, store: &dyn Store, found: &mut Found) -> Result<()> {
        for id in DUE {
            let stored = store.skills().get(&fixture::id(id))?;
            let Some(schedule) = stored.as_ref().and_then(|stored| stored.doc.schedule.as_ref()) else {
                found.lost(true, || format!("the skill {id:?} has lost its schedule"));
                continue;
            };
            let held = schedule.lease.as_ref().map_or(0, |lease| lease.token.0);
            let ran = schedule.last_run_at;
            if let Some((token, now)) = self.claims.get(id) {
                let is_lost = held < *token && ran.is_none_or(|ran| ran < fixture::at(*now));
                found.lost(is_lost, || format!("the claim {token} of {id:?} at {now} is gone: {schedule:?}"));
            }
            if let Some(now) = self.finishes.get(id) {
                let is_lost = ran.is_none_or(|ran| ran < fixture::at(*now));
                found.lost(is_lost, || format!("{id:?} finished at {now}: {schedule:?}"));
            }
        }
        Ok(())
    }

    /// Runs were written whole, and purged whole by a later child, if at all.
    fn check_runs(&self, store: &dyn Store, found: &mut Found) -> Result<()> {
        let runs: Vec<Arc<Run>> =
            store.view(|seams| all(|page| seams.audit().runs(&RunFilter::default(), page)))?;
        let mut there = BTreeSet::new();
        for run in runs.iter().filter(|run| run.id.as_str() != SHARED) {
            let events: Vec<Arc<Event>> = all(|page| store.audit().events(&run.id, page))?;
            let is_whole = run.status != RunStatus::Running && events.len() as u64 == EVENTS;
            found.wrong(!is_whole, || format!("half a run: {run:?} with {} events", events.len()));
            there.insert(run.id.to_string());
        }
        for (id, process) in &self.runs {
            let is_lost = *process == self.latest && !there.contains(id);
            found.lost(is_lost, || format!("the run {id} was acknowledged and is gone"));
        }
        Ok(())
    }
}

/// Appends are numbered 1, 2, 3 …, and each that was acknowledged is there under its number.
fn check_numbers(
    what: &str,
    there: &[(String, u64)],
    acknowledged: &BTreeMap<String, u64>,
    found: &mut Found,
) {
    let numbers: Vec<u64> = there.iter().map(|(_, seq)| *seq).collect();
    let expected: Vec<u64> = (1..=there.len() as u64).collect();
    found.wrong(numbers != expected, || format!("the {what} have a gap: {numbers:?}"));
    let there: BTreeMap<&str, u64> = there.iter().map(|(id, seq)| (id.as_str(), *seq)).collect();
    for (id, seq) in acknowledged {
        match there.get(id.as_str()) {
            Some(found) if found == seq => {}
            Some(number) => found.wrong(true, || format!("{id} was acknowledged as {seq} and is {number}")),
            None => found.lost(true, || format!("{id} was acknowledged as {seq} of the {what} and is gone")),
        }
    }
}

fn all<T>(fetch: impl FnMut(&PageRequest) -> Result<Page<T>>) -> Result<Vec<T>> {
    page::all(MAX_PAGE, fetch).collect()
}
