//! Definitions in the model: a list of documents, each with the list of its versions.

use std::sync::Arc;

use store_api::{
    Claim, Definition, DefinitionFilter, Entity, Expect, NewVersion, Published, Revision, Schedule, Stored,
    Version, Visibility, WorkerId,
};

use super::world::{
    Answer, Held, Nanos, Refusal, Shelved, Time, World, check_max, check_times, held, lease_end, nanos,
};

/// All definitions of a kind, in no order.
#[derive(Debug, Clone)]
pub(super) struct Shelf<D>(pub(super) Vec<Row<D>>);

impl<D> Default for Shelf<D> {
    fn default() -> Self {
        Shelf(Vec::new())
    }
}

/// A definition. The times in `doc` mean nothing; the run state is beside it.
#[derive(Debug, Clone)]
pub(super) struct Row<D> {
    pub(super) doc: D,
    pub(super) revision: u64,
    pub(super) run: RunState,
    /// All versions that were ever appended, the first first; a pruned one leaves a hole.
    pub(super) versions: Vec<Option<Version<D>>>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct RunState {
    pub(super) next: Option<Time>,
    pub(super) last: Option<Time>,
    pub(super) lease: Option<Held>,
}

impl<D: Shelved> Row<D> {
    /// What a host reads.
    pub(super) fn shown(&self) -> Stored<D> {
        let mut doc = self.doc.clone();
        if let Some(schedule) = doc.schedule_mut() {
            schedule.next_run_at = self.run.next;
            schedule.last_run_at = self.run.last;
            schedule.lease = self.run.lease.as_ref().map(Held::shown);
        }
        Stored { doc: Arc::new(doc), revision: Revision(self.revision) }
    }

    pub(super) fn id(&self) -> &str {
        self.doc.id().as_ref()
    }

    fn due_at(&self, now: Nanos) -> Option<Time> {
        let next = self.doc.schedule().and(self.run.next)?;
        (nanos(next).unwrap() <= now).then_some(next)
    }
}

impl<D: Shelved> Shelf<D> {
    pub(super) fn row(&self, id: &str) -> Option<&Row<D>> {
        self.0.iter().find(|row| row.id() == id)
    }

    pub(super) fn edges(&self, edges: &mut Vec<Nanos>) {
        for row in &self.0 {
            edges.extend([row.run.next, row.run.last].into_iter().flatten().map(|at| nanos(at).unwrap()));
            edges.extend(row.run.lease.iter().map(|lease| lease.until));
        }
    }

    fn version(&self, id: &str) -> Option<&Version<D>> {
        self.0.iter().flat_map(|row| row.versions.iter().flatten()).find(|version| version.id.as_str() == id)
    }
}

fn row_mut<'a, D: Shelved>(world: &'a mut World, id: &str) -> Answer<&'a mut Row<D>> {
    let row = D::shelf_mut(world).0.iter_mut().find(|row| row.doc.id().as_ref() == id);
    row.ok_or_else(|| Refusal::NotFound(D::WHAT, id.to_owned()))
}

/// The run state of a definition with a schedule.
fn run_mut<'a, D: Shelved>(world: &'a mut World, id: &str) -> Answer<&'a mut RunState> {
    let row = row_mut::<D>(world, id)?;
    match row.doc.schedule() {
        Some(_) => Ok(&mut row.run),
        None => Err(Refusal::NotFound(Entity::Schedule, id.to_owned())),
    }
}

pub(super) fn revision<D: Shelved>(world: &World, id: &str) -> Option<u64> {
    D::shelf(world).row(id).map(|row| row.revision)
}

pub(super) fn token<D: Shelved>(world: &World, id: &str) -> Option<u64> {
    Some(D::shelf(world).row(id)?.run.lease.as_ref()?.token)
}

fn check_expect<D: Shelved>(world: &World, id: &str, expect: Expect) -> Answer<()> {
    let stored = revision::<D>(world, id);
    match expect {
        Expect::Any => Ok(()),
        Expect::Absent if stored.is_none() => Ok(()),
        Expect::Absent => Err(Refusal::AlreadyExists(D::WHAT, "id")),
        Expect::Revision(wanted) => match stored {
            None => Err(Refusal::NotFound(D::WHAT, id.to_owned())),
            Some(stored) if stored == wanted.0 => Ok(()),
            Some(_) => Err(Refusal::Conflict(D::WHAT, id.to_owned())),
        },
    }
}

fn check_save<D: Shelved>(world: &World, doc: &D, expect: Expect) -> Answer<()> {
    check_expect::<D>(world, doc.id().as_ref(), expect)?;
    for other in D::shelf(world).0.iter().map(|row| &row.doc).filter(|other| other.id() != doc.id()) {
        if other.owner() == doc.owner() && other.name() == doc.name() {
            return Err(Refusal::AlreadyExists(D::WHAT, "name"));
        }
    }
    for other in D::shelf(world).0.iter().map(|row| &row.doc).filter(|other| other.id() != doc.id()) {
        if doc.webhook().is_some() && other.webhook() == doc.webhook() {
            return Err(Refusal::AlreadyExists(D::WHAT, "webhook"));
        }
    }
    Ok(())
}

fn expression(schedule: &Schedule) -> (&str, &str) {
    (&schedule.cron, &schedule.time_zone)
}

/// Puts a document that was checked in its place.
fn put<D: Shelved>(world: &mut World, doc: &D) -> u64 {
    let number = world.number();
    let rows = &mut D::shelf_mut(world).0;
    let old = rows.iter().position(|row| row.doc.id() == doc.id());
    let before = old.map(|at| rows.swap_remove(at));
    let run = match (before.as_ref().and_then(|row| Some((row.doc.schedule()?, &row.run))), doc.schedule()) {
        (_, None) => RunState::default(),
        (None, Some(new)) => RunState { next: new.next_run_at, last: new.last_run_at, lease: None },
        (Some((old, run)), Some(new)) if expression(old) == expression(new) => run.clone(),
        (Some((_, run)), Some(new)) => RunState { next: new.next_run_at, last: run.last, lease: None },
    };
    let versions = before.map(|row| row.versions).unwrap_or_default();
    rows.push(Row { doc: doc.clone(), revision: number, run, versions });
    number
}

fn without_times<D: Definition>(doc: &D) -> D {
    let mut doc = doc.clone();
    if let Some(schedule) = doc.schedule_mut() {
        (schedule.next_run_at, schedule.last_run_at, schedule.lease) = (None, None, None);
    }
    doc
}

fn shown<D: Shelved>(world: &World, id: &str) -> Stored<D> {
    D::shelf(world).row(id).unwrap().shown()
}

fn valid<D: Shelved>(doc: &D) -> Answer<()> {
    if doc.is_flawed() { Err(Refusal::InvalidInput) } else { Ok(()) }
}

fn valid_version<D: Shelved>(version: &NewVersion<D>) -> Answer<()> {
    valid(&version.snapshot)?;
    nanos(version.saved_at).map(drop)
}

fn check_version_id(world: &World, id: &str) -> Answer<()> {
    if world.skills.version(id).is_some() || world.agents.version(id).is_some() {
        return Err(Refusal::AlreadyExists(Entity::Version, "id"));
    }
    Ok(())
}

fn put_version<D: Shelved>(world: &mut World, new: &NewVersion<D>) -> Version<D> {
    let row = row_mut::<D>(world, new.snapshot.id().as_ref()).unwrap();
    let content = NewVersion { snapshot: without_times(&new.snapshot), ..new.clone() };
    let version = Version { seq: row.versions.len() as u64 + 1, content };
    row.versions.push(Some(version.clone()));
    version
}

pub(super) fn get<D: Shelved>(world: &World, id: &str) -> Answer<Option<Stored<D>>> {
    Ok(D::shelf(world).row(id).map(Row::shown))
}

/// The definition that is wanted, if there is one.
pub(super) fn find<D: Shelved>(world: &World, wanted: impl Fn(&D) -> bool) -> Answer<Option<Stored<D>>> {
    Ok(D::shelf(world).0.iter().find(|row| wanted(&row.doc)).map(Row::shown))
}

pub(super) fn save<D: Shelved>(world: &mut World, doc: &D, expect: Expect) -> Answer<Revision> {
    valid(doc)?;
    check_save(world, doc, expect)?;
    Ok(Revision(put(world, doc)))
}

pub(super) fn update<D: Shelved>(
    world: &mut World,
    id: &str,
    edit: impl FnOnce(&mut D) -> Answer<()>,
) -> Answer<Stored<D>> {
    let row = row_mut::<D>(world, id)?;
    let mut doc = D::clone(&row.shown().doc);
    edit(&mut doc)?;
    if doc.id().as_ref() != id {
        return Err(Refusal::InvalidInput);
    }
    save(world, &doc, Expect::Any)?;
    Ok(shown(world, id))
}

pub(super) fn delete<D: Shelved>(world: &mut World, id: &str, expect: Expect) -> Answer<()> {
    if expect == Expect::Absent {
        return Err(Refusal::InvalidInput);
    }
    row_mut::<D>(world, id)?;
    check_expect::<D>(world, id, expect)?;
    D::shelf_mut(world).0.retain(|row| row.doc.id().as_ref() != id);
    Ok(())
}

pub(super) fn append<D: Shelved>(world: &mut World, new: &NewVersion<D>) -> Answer<Version<D>> {
    valid_version(new)?;
    row_mut::<D>(world, new.snapshot.id().as_ref())?;
    check_version_id(world, new.id.as_str())?;
    Ok(put_version(world, new))
}

pub(super) fn publish<D: Shelved>(
    world: &mut World,
    new: &NewVersion<D>,
    expect: Expect,
) -> Answer<Published<D>> {
    valid_version(new)?;
    check_save(world, &new.snapshot, expect)?;
    check_version_id(world, new.id.as_str())?;
    let revision = Revision(put(world, &new.snapshot));
    Ok(Published { revision, version: Arc::new(put_version(world, new)) })
}

pub(super) fn version<D: Shelved>(world: &World, id: &str) -> Answer<Option<Version<D>>> {
    Ok(D::shelf(world).version(id).cloned())
}

/// The versions of a definition, newest first.
pub(super) fn versions<D: Shelved>(world: &World, id: &str) -> Vec<Version<D>> {
    let row = D::shelf(world).row(id);
    row.map(|row| row.versions.iter().rev().flatten().cloned().collect()).unwrap_or_default()
}

pub(super) fn restore<D: Shelved>(world: &mut World, id: &str, expect: Expect) -> Answer<Stored<D>> {
    let missing = Refusal::NotFound(Entity::Version, id.to_owned());
    let snapshot = D::shelf(world).version(id).ok_or(missing)?.snapshot.clone();
    save(world, &snapshot, expect)?;
    Ok(shown(world, snapshot.id().as_ref()))
}

pub(super) fn pin<D: Shelved>(world: &mut World, id: &str, pinned: bool) -> Answer<()> {
    for row in &mut D::shelf_mut(world).0 {
        if let Some(version) = row.versions.iter_mut().flatten().find(|version| version.id.as_str() == id) {
            version.content.pinned = pinned;
            return Ok(());
        }
    }
    Err(Refusal::NotFound(Entity::Version, id.to_owned()))
}

pub(super) fn prune<D: Shelved>(world: &mut World, id: &str, keep: usize) -> Answer<u64> {
    let row = row_mut::<D>(world, id)?;
    let (mut kept, mut gone) = (0, 0);
    for version in row.versions.iter_mut().rev().filter(|version| version.is_some()) {
        if kept < keep {
            kept += 1;
        } else if version.as_ref().is_some_and(|version| !version.pinned) {
            *version = None;
            gone += 1;
        }
    }
    Ok(gone)
}

/// What is due, in order.
pub(super) fn due<D: Shelved>(world: &World, now: Time) -> Answer<Vec<(Time, Stored<D>)>> {
    let now = nanos(now)?;
    let rows = D::shelf(world).0.iter();
    let mut due: Vec<_> = rows.filter_map(|row| Some((row.due_at(now)?, row.shown()))).collect();
    due.sort_by(|(one_at, one), (other_at, other)| (one_at, one.id()).cmp(&(other_at, other.id())));
    Ok(due)
}

pub(super) fn mark<D: Shelved>(world: &mut World, id: &str, ran: Time, next: Option<Time>) -> Answer<()> {
    check_times(&[Some(ran), next])?;
    *run_mut::<D>(world, id)? = RunState { next, last: Some(ran), lease: None };
    Ok(())
}

pub(super) fn reschedule<D: Shelved>(world: &mut World, id: &str, next: Option<Time>) -> Answer<()> {
    check_times(&[next])?;
    let run = run_mut::<D>(world, id)?;
    (run.next, run.lease) = (next, None);
    Ok(())
}

pub(super) fn claim_due<D: Shelved>(
    world: &mut World,
    now: Time,
    worker: &WorkerId,
    length: std::time::Duration,
    max: usize,
) -> Answer<Vec<Claim<D>>> {
    check_max(max)?;
    let until = lease_end(now, length)?;
    let mut claims = Vec::new();
    for (due_at, stored) in due::<D>(world, now)? {
        let id = stored.id().as_ref();
        let free =
            run_mut::<D>(world, id)?.lease.as_ref().is_none_or(|lease| lease.over(nanos(now).unwrap()));
        if free && claims.len() < max {
            let lease = Held { worker: worker.clone(), until, token: world.number() };
            run_mut::<D>(world, id)?.lease = Some(lease.clone());
            claims.push(Claim { stored: shown(world, id), due_at, lease: lease.shown() });
        }
    }
    Ok(claims)
}

/// The lease that `token` holds on a definition at `now`.
fn holder<D: Shelved>(world: &mut World, id: &str, token: u64, now: Time) -> Answer<Held> {
    let now = nanos(now)?;
    held(run_mut::<D>(world, id)?.lease.as_ref(), token, now, D::WHAT, id)
}

pub(super) fn finish_claim<D: Shelved>(
    world: &mut World,
    id: &str,
    token: u64,
    now: Time,
    ran: Time,
    next: Option<Time>,
) -> Answer<()> {
    check_times(&[Some(now), Some(ran), next])?;
    holder::<D>(world, id, token, now)?;
    mark::<D>(world, id, ran, next)
}

pub(super) fn renew_claim<D: Shelved>(
    world: &mut World,
    id: &str,
    token: u64,
    now: Time,
    length: std::time::Duration,
) -> Answer<store_api::Lease> {
    let until = lease_end(now, length)?;
    let mut lease = holder::<D>(world, id, token, now)?;
    lease.until = lease.until.max(until);
    run_mut::<D>(world, id)?.lease = Some(lease.clone());
    Ok(lease.shown())
}

pub(super) fn release_claim<D: Shelved>(world: &mut World, id: &str, token: u64, now: Time) -> Answer<()> {
    holder::<D>(world, id, token, now)?;
    run_mut::<D>(world, id)?.lease = None;
    Ok(())
}

/// Whether a definition is on the list that the filter describes.
pub(super) fn matches<D: Definition>(filter: &DefinitionFilter, doc: &D) -> bool {
    if filter.owner.as_ref().is_some_and(|owner| owner != doc.owner()) {
        return false;
    }
    if let Some(viewer) = &filter.visible_to {
        let invited = doc.visibility() == Visibility::Shared && doc.shared_with().iter().any(|p| p == viewer);
        if viewer != doc.owner() && doc.visibility() != Visibility::Public && !invited {
            return false;
        }
    }
    if filter.exposed_to_chat.is_some_and(|exposed| exposed != doc.exposed_to_chat()) {
        return false;
    }
    if filter.tag.as_ref().is_some_and(|tag| !doc.tags().iter().any(|other| other == tag)) {
        return false;
    }
    filter.scheduled.is_none_or(|scheduled| scheduled == doc.schedule().is_some())
}
