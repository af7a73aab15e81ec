//! Definitions: documents, versions, schedules.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use store_api::*;

use super::{DefinitionRow, Kept, State, Time, Tx, check_times, page};

pub(super) fn find_version<'a, D: Kept>(state: &'a State, id: &VersionId) -> Option<&'a Arc<Version<D>>> {
    D::rows(state).values().flat_map(|row| row.versions.values()).find(|version| version.id == *id)
}

fn stored<D: Kept>(state: &State, id: &D::Id) -> Option<Stored<D>> {
    D::rows(state).get(id).map(|row| row.stored.clone())
}

/// The checks of a save that look at what is stored.
fn check_save<D: Kept>(state: &State, doc: &D, expect: Expect) -> Result<()> {
    let revision = D::rows(state).get(doc.id()).map(|row| row.stored.revision);
    rules::check_expect::<D>(doc.id(), revision, expect)?;
    check_unique(state, doc)
}

/// No other definition of the kind has the name of this owner, or the webhook.
pub(super) fn check_unique<D: Kept>(state: &State, doc: &D) -> Result<()> {
    let others = || D::rows(state).values().map(|row| &row.stored).filter(|other| other.id() != doc.id());
    if others().any(|other| (other.owner(), other.name()) == (doc.owner(), doc.name())) {
        return Err(Error::already_exists(D::KIND.entity(), "name", doc.name().as_str()));
    }
    if let Some(webhook) = doc.webhook()
        && others().any(|other| other.webhook() == Some(webhook))
    {
        return Err(Error::already_exists(D::KIND.entity(), "webhook", format!("{webhook:?}")));
    }
    Ok(())
}

/// Stores a document that was checked, under a new revision, with the run state that it comes to.
fn write_doc<D: Kept>(state: &mut State, doc: &D) -> Result<Stored<D>> {
    let revision = Revision(state.next_number()?);
    let rows = D::rows_mut(state);
    let before = rows.get(doc.id()).map(|row| &*row.stored.doc);
    let run_state = rules::run_state_after_save(before, doc).unwrap_or_default();
    let stored = Stored { doc: Arc::new(rules::assemble(doc.clone(), run_state)), revision };
    match rows.get_mut(doc.id()) {
        Some(row) => row.stored = stored.clone(),
        None => {
            let row = DefinitionRow { stored: stored.clone(), last_seq: 0, versions: BTreeMap::new() };
            rows.insert(doc.id().clone(), row);
        }
    }
    Ok(stored)
}

/// Appends a version whose id was checked to a definition that is there.
fn write_version<D: Kept>(state: &mut State, version: &NewVersion<D>) -> Result<Arc<Version<D>>> {
    let id = version.snapshot.id();
    let row = D::rows_mut(state).get_mut(id).ok_or_else(|| D::missing(id))?;
    let seq = rules::next_seq(row.last_seq)?;
    let snapshot = rules::without_run_state(&version.snapshot).into_owned();
    let version = Arc::new(Version { seq, content: NewVersion { snapshot, ..version.clone() } });
    row.last_seq = seq;
    row.versions.insert(seq, Arc::clone(&version));
    Ok(version)
}

/// The run state of a definition that is there and has a schedule.
fn run_state<D: Kept>(state: &State, id: &D::Id) -> Result<RunState> {
    let row = D::rows(state).get(id).ok_or_else(|| D::missing(id))?;
    let schedule = row.stored.schedule().ok_or_else(|| Error::not_found(Entity::Schedule, id.as_ref()))?;
    Ok(schedule.run_state())
}

/// Moves the run state and nothing else (law MARK-2).
fn set_run_state<D: Kept>(state: &mut State, id: &D::Id, new: RunState) -> Result<()> {
    let row = D::rows_mut(state).get_mut(id).ok_or_else(|| D::missing(id))?;
    row.stored.doc = Arc::new(rules::assemble(D::clone(&row.stored.doc), new));
    Ok(())
}

/// What is due at `now`, keyed by the order of due lists.
fn due<D: Kept>(state: &State, now: Time) -> impl Iterator<Item = ((Time, D::Id), &Stored<D>)> {
    D::rows(state).iter().filter_map(move |(id, row)| {
        let next = row.stored.schedule()?.next_run_at.filter(|next| *next <= now)?;
        Some(((next, id.clone()), &row.stored))
    })
}

impl<D: Kept> Catalog<D> for Tx {
    fn get(&self, id: &D::Id) -> Result<Option<Stored<D>>> {
        Ok(stored(&self.look(), id))
    }

    fn by_name(&self, owner: &PrincipalId, name: &Name) -> Result<Option<Stored<D>>> {
        let state = self.look();
        let mut all = D::rows(&state).values().map(|row| &row.stored);
        Ok(all.find(|doc| (doc.owner(), doc.name()) == (owner, name)).cloned())
    }

    fn list(&self, filter: &DefinitionFilter, request: &PageRequest) -> Result<Page<Stored<D>>> {
        let list = D::KIND.list();
        let after = request.position(list)?;
        let state = self.look();
        let found = D::rows(&state).iter().filter(|(_, row)| filter.matches(&*row.stored.doc));
        page(list, request, after, found.map(|(id, row)| (id.clone(), row.stored.clone())))
    }

    fn save(&self, doc: &D, expect: Expect) -> Result<Revision> {
        doc.validate()?;
        let mut state = self.change();
        check_save(&state, doc, expect)?;
        Ok(write_doc(&mut state, doc)?.revision)
    }

    fn update(&self, id: &D::Id, edit: Edit<'_, D>) -> Result<Stored<D>> {
        // The borrow of the state ends before the host's closure runs.
        let before = stored::<D>(&self.look(), id).ok_or_else(|| D::missing(id))?;
        let mut doc = D::clone(&before.doc);
        edit(&mut doc)?;
        rules::check_edit(id, &doc)?;
        doc.validate()?;
        let mut state = self.change();
        check_save(&state, &doc, Expect::Revision(before.revision))?;
        write_doc(&mut state, &doc)
    }

    fn delete(&self, id: &D::Id, expect: Expect) -> Result<()> {
        let mut state = self.change();
        let revision = D::rows(&state).get(id).map(|row| row.stored.revision);
        rules::check_delete::<D>(id, revision, expect)?;
        D::rows_mut(&mut state).remove(id);
        Ok(())
    }

    fn append_version(&self, version: &NewVersion<D>) -> Result<Arc<Version<D>>> {
        version.validate()?;
        let mut state = self.change();
        let id = version.snapshot.id();
        D::rows(&state).get(id).ok_or_else(|| D::missing(id))?;
        state.check_version_id(&version.id)?;
        write_version(&mut state, version)
    }

    fn versions(&self, id: &D::Id, request: &PageRequest) -> Result<Page<Arc<Version<D>>>> {
        let list = D::KIND.versions();
        let after = request.position(list)?;
        let state = self.look();
        let versions = D::rows(&state).get(id).map(|row| &row.versions).into_iter().flatten();
        page(list, request, after, versions.map(|(seq, version)| (Reverse(*seq), Arc::clone(version))))
    }

    fn version(&self, id: &VersionId) -> Result<Option<Arc<Version<D>>>> {
        Ok(find_version(&self.look(), id).cloned())
    }

    fn latest(&self, id: &D::Id) -> Result<Option<Arc<Version<D>>>> {
        let state = self.look();
        let newest = D::rows(&state).get(id).and_then(|row| row.versions.values().next_back());
        Ok(newest.cloned())
    }

    fn restore(&self, version: &VersionId, expect: Expect) -> Result<Stored<D>> {
        let mut state = self.change();
        let missing = || Error::not_found(Entity::Version, version.as_str());
        let version = find_version::<D>(&state, version).cloned().ok_or_else(missing)?;
        check_save(&state, &version.snapshot, expect)?;
        write_doc(&mut state, &version.snapshot)
    }

    fn pin_version(&self, id: &VersionId, pinned: bool) -> Result<()> {
        let mut state = self.change();
        let missing = || Error::not_found(Entity::Version, id.as_str());
        let mut all = D::rows_mut(&mut state).values_mut().flat_map(|row| row.versions.values_mut());
        let version = all.find(|version| version.id == *id).ok_or_else(missing)?;
        Arc::make_mut(version).content.pinned = pinned;
        Ok(())
    }

    fn prune_versions(&self, id: &D::Id, keep: usize) -> Result<u64> {
        let mut state = self.change();
        let row = D::rows_mut(&mut state).get_mut(id).ok_or_else(|| D::missing(id))?;
        let newest_first = row.versions.iter().rev().map(|(seq, version)| (*seq, version.pinned));
        let gone = rules::prunable(newest_first, keep);
        row.versions.retain(|seq, _| !gone.contains(seq));
        Ok(gone.len() as u64)
    }

    fn publish(&self, version: &NewVersion<D>, expect: Expect) -> Result<Published<D>> {
        version.validate()?;
        let mut state = self.change();
        check_save(&state, &version.snapshot, expect)?;
        state.check_version_id(&version.id)?;
        let revision = write_doc(&mut state, &version.snapshot)?.revision;
        Ok(Published { revision, version: write_version(&mut state, version)? })
    }

    fn due(&self, now: Time, request: &PageRequest) -> Result<Page<Stored<D>>> {
        let list = D::KIND.due();
        let after = request.position(list)?;
        time::nanos("now", now)?;
        page(list, request, after, due::<D>(&self.look(), now).map(|(at, stored)| (at, stored.clone())))
    }

    fn mark_scheduled_run(&self, id: &D::Id, ran_at: Time, next: Option<Time>) -> Result<()> {
        check_times(&[("ran_at", Some(ran_at)), ("next_run_at", next)])?;
        let mut state = self.change();
        run_state::<D>(&state, id)?;
        set_run_state::<D>(&mut state, id, RunState::marked(ran_at, next))
    }

    fn reschedule(&self, id: &D::Id, next: Option<Time>) -> Result<()> {
        check_times(&[("next_run_at", next)])?;
        let mut state = self.change();
        let before = run_state::<D>(&state, id)?;
        set_run_state::<D>(&mut state, id, before.rescheduled(next))
    }

    fn claim_due(&self, now: Time, worker: &WorkerId, length: Duration, max: usize) -> Result<Vec<Claim<D>>> {
        rules::check_max(max)?;
        lease::end(now, length)?;
        let mut state = self.change();
        let free = |stored: &Stored<D>| {
            lease::claimable(stored.schedule().and_then(|schedule| schedule.lease.as_ref()), now)
        };
        let mut ids: Vec<(Time, D::Id)> =
            due::<D>(&state, now).filter(|(_, stored)| free(stored)).map(|(at, _)| at).collect();
        ids.sort();
        ids.truncate(max);
        let claim = |(due_at, id): (Time, D::Id)| {
            let lease = Lease::grant(worker, LeaseToken(state.next_number()?), now, length)?;
            let before = run_state::<D>(&state, &id)?;
            set_run_state::<D>(&mut state, &id, RunState { lease: Some(lease.clone()), ..before })?;
            let stored = stored::<D>(&state, &id).ok_or_else(|| D::missing(&id))?;
            Ok(Claim { stored, due_at, lease })
        };
        ids.into_iter().map(claim).collect()
    }

    fn finish_claim(
        &self,
        id: &D::Id,
        token: LeaseToken,
        now: Time,
        ran_at: Time,
        next: Option<Time>,
    ) -> Result<()> {
        check_times(&[("now", Some(now)), ("ran_at", Some(ran_at)), ("next_run_at", next)])?;
        let mut state = self.change();
        let before = run_state::<D>(&state, id)?;
        lease::held(D::KIND.entity(), id.as_ref(), before.lease.as_ref(), token, now)?;
        set_run_state::<D>(&mut state, id, RunState::marked(ran_at, next))
    }

    fn renew_claim(&self, id: &D::Id, token: LeaseToken, now: Time, length: Duration) -> Result<Lease> {
        lease::end(now, length)?;
        let mut state = self.change();
        let before = run_state::<D>(&state, id)?;
        let lease = lease::held(D::KIND.entity(), id.as_ref(), before.lease.as_ref(), token, now)?
            .renewed(now, length)?;
        set_run_state::<D>(&mut state, id, RunState { lease: Some(lease.clone()), ..before })?;
        Ok(lease)
    }

    fn release_claim(&self, id: &D::Id, token: LeaseToken, now: Time) -> Result<()> {
        check_times(&[("now", Some(now))])?;
        let mut state = self.change();
        let before = run_state::<D>(&state, id)?;
        lease::held(D::KIND.entity(), id.as_ref(), before.lease.as_ref(), token, now)?;
        set_run_state::<D>(&mut state, id, RunState { lease: None, ..before })
    }
}

impl AgentStore for Tx {
    fn by_webhook(&self, digest: &SecretDigest) -> Result<Option<Stored<Agent>>> {
        let state = self.look();
        let mut all = state.agents.values().map(|row| &row.stored);
        Ok(all.find(|agent| agent.webhook.as_ref() == Some(digest)).cloned())
    }

    fn by_channel(&self, channel: &ChannelId, request: &PageRequest) -> Result<Page<Stored<Agent>>> {
        let after = request.position(List::ChannelAgents)?;
        let state = self.look();
        let found = state.agents.iter().filter(|(_, row)| row.stored.channel_filter.contains(channel));
        page(List::ChannelAgents, request, after, found.map(|(id, row)| (id.clone(), row.stored.clone())))
    }
}
