//! The catalog: definitions, their versions, their schedules. Written once, for skills and agents.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use store_api::*;

use crate::page::{self, check_times, page};
use crate::state::{State, Tx};
use crate::table::{Grouped, Hashed, Ordered, Table, Undo};

/// The tables of one kind of definition.
///
/// Documents are kept as a host reads them, with their run state. Three tables share each document: one to find it,
/// two to list it without a look-up for each item.
#[derive(Debug)]
pub(crate) struct Definitions<D: Definition> {
    pub(crate) by_id: Hashed<D::Id, Stored<D>>,
    pub(crate) in_order: Ordered<D::Id, Stored<D>>,
    /// By `next_run_at` in nanoseconds, then id: those that have one.
    pub(crate) due: Ordered<(i64, D::Id), Stored<D>>,
    pub(crate) by_name: Grouped<PrincipalId, Name, D::Id>,
    pub(crate) by_owner: Grouped<PrincipalId, D::Id, ()>,
    pub(crate) by_tag: Grouped<Tag, D::Id, ()>,
    pub(crate) by_channel: Grouped<ChannelId, D::Id, ()>,
    /// By the digest's text.
    pub(crate) by_webhook: Hashed<String, D::Id>,
    /// The number of the last version that was appended, whether or not it was pruned since.
    pub(crate) last_seq: Hashed<D::Id, u64>,
    pub(crate) versions: Grouped<D::Id, u64, Arc<Version<D>>>,
    pub(crate) version_ids: Hashed<VersionId, (D::Id, u64)>,
}

// Derived, it would ask for `D: Default`.
impl<D: Definition> Default for Definitions<D> {
    fn default() -> Self {
        Definitions {
            by_id: Table::default(),
            in_order: Table::default(),
            due: Table::default(),
            by_name: Table::default(),
            by_owner: Table::default(),
            by_tag: Table::default(),
            by_channel: Table::default(),
            by_webhook: Table::default(),
            last_seq: Table::default(),
            versions: Table::default(),
            version_ids: Table::default(),
        }
    }
}

/// Where a document stands on the due list, if it does.
fn due_at<D: Definition>(doc: &D) -> Result<Option<(i64, D::Id)>> {
    let next = doc.schedule().and_then(|schedule| schedule.next_run_at);
    next.map(|next| Ok((time::nanos("next_run_at", next)?, doc.id().clone()))).transpose()
}

impl<D: Definition> Definitions<D> {
    pub(crate) fn each_table(&mut self, act: &mut dyn FnMut(&mut dyn Undo)) {
        let Definitions { by_id, in_order, due, by_name, by_owner, by_tag, by_channel, .. } = self;
        act(by_id);
        act(in_order);
        act(due);
        act(by_name);
        act(by_owner);
        act(by_tag);
        act(by_channel);
        let Definitions { by_webhook, last_seq, versions, version_ids, .. } = self;
        act(by_webhook);
        act(last_seq);
        act(versions);
        act(version_ids);
    }

    fn find(&self, id: &D::Id) -> Result<&Stored<D>> {
        self.by_id.get(id).ok_or_else(|| Error::not_found(D::KIND.entity(), id.as_ref()))
    }

    /// The version with this id.
    fn find_version(&self, id: &VersionId) -> Result<&Arc<Version<D>>> {
        let missing = || Error::not_found(Entity::Version, id.as_str());
        let (definition, seq) = self.version_ids.get(id).ok_or_else(missing)?;
        self.versions.group(definition).get(seq).ok_or_else(missing)
    }

    /// The definition and the run state of its schedule.
    fn scheduled(&self, id: &D::Id) -> Result<(&Stored<D>, RunState)> {
        let stored = self.find(id)?;
        let missing = || Error::not_found(Entity::Schedule, id.as_ref());
        Ok((stored, stored.schedule().ok_or_else(missing)?.run_state()))
    }

    /// The checks of a save that look at what is stored.
    fn check_save(&self, doc: &D, expect: Expect) -> Result<()> {
        let revision = self.by_id.get(doc.id()).map(|stored| stored.revision);
        rules::check_expect::<D>(doc.id(), revision, expect)?;
        self.check_unique(doc)
    }

    /// No other definition of the kind has the name of this owner, or the webhook.
    fn check_unique(&self, doc: &D) -> Result<()> {
        let other = |found: Option<&D::Id>| found.is_some_and(|id| id != doc.id());
        if other(self.by_name.group(doc.owner()).get(doc.name())) {
            return Err(Error::already_exists(D::KIND.entity(), "name", doc.name().as_str()));
        }
        if let Some(webhook) = doc.webhook()
            && other(self.by_webhook.get(&webhook.to_string()))
        {
            return Err(Error::already_exists(D::KIND.entity(), "webhook", format!("{webhook:?}")));
        }
        Ok(())
    }

    /// Stores a document that was checked in the place of the one with its id, and moves all indexes along.
    fn set(&mut self, stored: &Stored<D>) -> Result<()> {
        if let Some(before) = self.by_id.get(stored.id()).cloned() {
            self.unlink(&before);
        }
        self.link(stored);
        self.place(stored)
    }

    /// Removes a definition with its versions.
    fn remove(&mut self, id: &D::Id) -> Result<()> {
        let before = self.find(id)?.clone();
        self.unlink(&before);
        if let Some(at) = due_at(&*before)? {
            self.due.unset(&at);
        }
        self.in_order.unset(id);
        self.by_id.unset(id);
        for seq in self.versions.group(id).keys().copied().collect::<Vec<_>>() {
            self.remove_version(id, seq);
        }
        self.last_seq.unset(id);
        Ok(())
    }

    /// Puts a document where it is read and listed from. Marks come here alone: they move nothing else.
    fn place(&mut self, stored: &Stored<D>) -> Result<()> {
        let before = self.by_id.get(stored.id()).map(|before| due_at(&*before.doc)).transpose()?.flatten();
        let after = due_at(&*stored.doc)?;
        if let Some(before) = before.filter(|before| Some(before) != after.as_ref()) {
            self.due.unset(&before);
        }
        if let Some(after) = after {
            self.due.set(after, stored.clone());
        }
        self.in_order.set(stored.id().clone(), stored.clone());
        self.by_id.set(stored.id().clone(), stored.clone());
        Ok(())
    }

    /// Writes what a document is found by besides its id.
    fn link(&mut self, doc: &D) {
        let id = doc.id();
        self.by_name.set((doc.owner().clone(), doc.name().clone()), id.clone());
        self.by_owner.set((doc.owner().clone(), id.clone()), ());
        for tag in doc.tags() {
            self.by_tag.set((tag.clone(), id.clone()), ());
        }
        for channel in doc.channels().into_iter().flatten() {
            self.by_channel.set((channel.clone(), id.clone()), ());
        }
        if let Some(webhook) = doc.webhook() {
            self.by_webhook.set(webhook.to_string(), id.clone());
        }
    }

    /// The inverse of [`Self::link`].
    fn unlink(&mut self, doc: &D) {
        let id = doc.id();
        self.by_name.unset(&(doc.owner().clone(), doc.name().clone()));
        self.by_owner.unset(&(doc.owner().clone(), id.clone()));
        for tag in doc.tags() {
            self.by_tag.unset(&(tag.clone(), id.clone()));
        }
        for channel in doc.channels().into_iter().flatten() {
            self.by_channel.unset(&(channel.clone(), id.clone()));
        }
        if let Some(webhook) = doc.webhook() {
            self.by_webhook.unset(&webhook.to_string());
        }
    }

    /// Moves the run state and nothing else (law MARK-2); gives what is stored then.
    fn set_run_state(&mut self, id: &D::Id, run_state: RunState) -> Result<Stored<D>> {
        let Stored { doc, revision } = self.find(id)?;
        let doc = Arc::new(rules::assemble(D::clone(doc), run_state));
        let stored = Stored { doc, revision: *revision };
        self.place(&stored)?;
        Ok(stored)
    }

    /// Stores a version under its number.
    fn set_version(&mut self, version: &Arc<Version<D>>) {
        let place = (version.snapshot.id().clone(), version.seq);
        self.version_ids.set(version.id.clone(), place.clone());
        self.versions.set(place, Arc::clone(version));
    }

    fn remove_version(&mut self, definition: &D::Id, seq: u64) {
        if let Some(id) = self.versions.group(definition).get(&seq).map(|version| version.id.clone()) {
            self.version_ids.unset(&id);
            self.versions.unset(&(definition.clone(), seq));
        }
    }

    /// Appends a version whose id was checked to a definition that is there.
    fn append(&mut self, version: &NewVersion<D>) -> Result<Arc<Version<D>>> {
        let id = version.snapshot.id();
        let seq = rules::next_seq(self.last_seq.get(id).copied().unwrap_or_default())?;
        let mut content = version.clone();
        content.snapshot = rules::assemble(content.snapshot, RunState::default());
        let version = Arc::new(Version { seq, content });
        self.last_seq.set(id.clone(), seq);
        self.set_version(&version);
        Ok(version)
    }

    /// A lease that `token` holds, and the run state that it is part of.
    fn held(&self, id: &D::Id, token: LeaseToken, now: DateTime<Utc>) -> Result<(Lease, RunState)> {
        let (_, run_state) = self.scheduled(id)?;
        let held = lease::held(D::KIND.entity(), id.as_ref(), run_state.lease.as_ref(), token, now)?;
        Ok((held.clone(), run_state))
    }

    /// The definitions with these ids, which an index keeps in order.
    fn of_index<'a>(
        &'a self,
        index: &'a BTreeMap<D::Id, ()>,
        position: Option<D::Id>,
    ) -> impl Iterator<Item = (&'a D::Id, &'a Stored<D>)> {
        page::after(index, position).filter_map(|(id, ())| Some((id, self.by_id.get(id)?)))
    }

    /// The definitions that match, in order, after a position. Owner or tag narrow what is looked at; the rest of the
    /// filter skips.
    fn matching<'a>(
        &'a self,
        filter: &'a DefinitionFilter,
        position: Option<D::Id>,
    ) -> impl Iterator<Item = (&'a D::Id, &'a Stored<D>)> {
        let candidates: Box<dyn Iterator<Item = (&D::Id, &Stored<D>)>> = match (&filter.owner, &filter.tag) {
            (Some(owner), _) => Box::new(self.of_index(self.by_owner.group(owner), position)),
            (None, Some(tag)) => Box::new(self.of_index(self.by_tag.group(tag), position)),
            (None, None) => Box::new(page::after(&self.in_order, position)),
        };
        candidates.filter(|(_, stored)| filter.matches(&*stored.doc))
    }

    /// What is due at `now`, in the order of due lists.
    fn due_by(
        &self,
        now: i64,
        position: Option<(i64, D::Id)>,
    ) -> impl Iterator<Item = (&(i64, D::Id), &Stored<D>)> {
        page::after(&self.due, position).take_while(move |((at, _), _)| *at <= now)
    }

    /// Stores a definition of an import.
    pub(crate) fn put(&mut self, record: DefinitionRecord<D>) -> Result<()> {
        let DefinitionRecord { doc, revision, last_seq } = record;
        self.check_unique(&*doc)?;
        self.last_seq.set(doc.id().clone(), last_seq);
        self.set(&Stored { doc, revision })
    }

    /// The indexes that belong to these documents and versions: what a verification compares with.
    pub(crate) fn derived(&self) -> Result<Self> {
        let mut derived = Definitions::<D>::default();
        for stored in self.by_id.values() {
            derived.link(stored);
            derived.place(stored)?;
        }
        for version in self.versions.groups().flat_map(|(_, versions)| versions.values()) {
            derived.set_version(version);
        }
        Ok(derived)
    }
}

/// A kind of definition, and where the state keeps it.
pub(crate) trait Kept: Definition {
    fn tables(state: &State) -> &Definitions<Self>;
    fn tables_mut(state: &mut State) -> &mut Definitions<Self>;
}

impl Kept for Skill {
    fn tables(state: &State) -> &Definitions<Skill> {
        &state.skills
    }
    fn tables_mut(state: &mut State) -> &mut Definitions<Skill> {
        &mut state.skills
    }
}

impl Kept for Agent {
    fn tables(state: &State) -> &Definitions<Agent> {
        &state.agents
    }
    fn tables_mut(state: &mut State) -> &mut Definitions<Agent> {
        &mut state.agents
    }
}

impl State {
    /// Version ids are unique in the whole store, over skills and agents.
    fn check_version_id(&self, id: &VersionId) -> Result<()> {
        if self.skills.version_ids.contains_key(id) || self.agents.version_ids.contains_key(id) {
            return Err(Error::already_exists(Entity::Version, "id", id.as_str()));
        }
        Ok(())
    }

    /// Stores a document that was checked, under a new revision, with the run state that it comes to.
    fn save<D: Kept>(&mut self, doc: D) -> Result<Stored<D>> {
        let revision = Revision(self.counter.next()?);
        let tables = D::tables_mut(self);
        let before = tables.by_id.get(doc.id()).map(|stored| &*stored.doc);
        let run_state = rules::run_state_after_save(before, &doc).unwrap_or_default();
        let stored = Stored { doc: Arc::new(rules::assemble(doc, run_state)), revision };
        tables.set(&stored)?;
        Ok(stored)
    }

    /// Stores a version of an import.
    pub(crate) fn put_version<D: Kept>(&mut self, version: Version<D>) -> Result<()> {
        self.check_version_id(&version.id)?;
        D::tables_mut(self).set_version(&Arc::new(version));
        Ok(())
    }
}

impl<D: Kept> Catalog<D> for Tx<'_> {
    fn get(&self, id: &D::Id) -> Result<Option<Stored<D>>> {
        Ok(D::tables(&self.look()).by_id.get(id).cloned())
    }

    fn by_name(&self, owner: &PrincipalId, name: &Name) -> Result<Option<Stored<D>>> {
        let state = self.look();
        let tables = D::tables(&state);
        let id = tables.by_name.group(owner).get(name);
        Ok(id.and_then(|id| tables.by_id.get(id)).cloned())
    }

    fn list(&self, filter: &DefinitionFilter, request: &PageRequest) -> Result<Page<Stored<D>>> {
        let position = request.position(D::KIND.list())?;
        page(D::KIND.list(), request, D::tables(&self.look()).matching(filter, position))
    }

    fn save(&self, doc: &D, expect: Expect) -> Result<Revision> {
        doc.validate()?;
        let mut state = self.change()?;
        D::tables(&state).check_save(doc, expect)?;
        Ok(state.save(doc.clone())?.revision)
    }

    fn update(&self, id: &D::Id, edit: Edit<'_, D>) -> Result<Stored<D>> {
        // The look at the state ends here, before the host's closure runs.
        let Stored { doc, revision } = D::tables(&self.look()).find(id)?.clone();
        let mut doc = D::clone(&doc);
        edit(&mut doc)?;
        rules::check_edit(id, &doc)?;
        doc.validate()?;
        let mut state = self.change()?;
        D::tables(&state).check_save(&doc, Expect::Revision(revision))?;
        state.save(doc)
    }

    fn delete(&self, id: &D::Id, expect: Expect) -> Result<()> {
        let mut state = self.change()?;
        let tables = D::tables_mut(&mut state);
        let revision = tables.by_id.get(id).map(|stored| stored.revision);
        rules::check_delete::<D>(id, revision, expect)?;
        tables.remove(id)
    }

    fn append_version(&self, version: &NewVersion<D>) -> Result<Arc<Version<D>>> {
        version.validate()?;
        let mut state = self.change()?;
        D::tables(&state).find(version.snapshot.id())?;
        state.check_version_id(&version.id)?;
        D::tables_mut(&mut state).append(version)
    }

    fn versions(&self, id: &D::Id, request: &PageRequest) -> Result<Page<Arc<Version<D>>>> {
        let position = request.position(D::KIND.versions())?;
        let state = self.look();
        page(D::KIND.versions(), request, page::before(D::tables(&state).versions.group(id), position))
    }

    fn version(&self, id: &VersionId) -> Result<Option<Arc<Version<D>>>> {
        let state = self.look();
        let tables = D::tables(&state);
        let place = tables.version_ids.get(id);
        Ok(place.and_then(|(definition, seq)| tables.versions.group(definition).get(seq)).cloned())
    }

    fn latest(&self, id: &D::Id) -> Result<Option<Arc<Version<D>>>> {
        let state = self.look();
        let newest = D::tables(&state).versions.group(id).values().next_back();
        Ok(newest.cloned())
    }

    fn restore(&self, version: &VersionId, expect: Expect) -> Result<Stored<D>> {
        let mut state = self.change()?;
        let tables = D::tables(&state);
        let version = Arc::clone(tables.find_version(version)?);
        tables.check_save(&version.snapshot, expect)?;
        state.save(version.snapshot.clone())
    }

    fn pin_version(&self, id: &VersionId, pinned: bool) -> Result<()> {
        let mut state = self.change()?;
        let tables = D::tables_mut(&mut state);
        let mut version = Version::clone(tables.find_version(id)?);
        version.content.pinned = pinned;
        tables.set_version(&Arc::new(version));
        Ok(())
    }

    fn prune_versions(&self, id: &D::Id, keep: usize) -> Result<u64> {
        let mut state = self.change()?;
        let tables = D::tables_mut(&mut state);
        tables.find(id)?;
        let newest_first = tables.versions.group(id).iter().rev();
        let gone = rules::prunable(newest_first.map(|(seq, version)| (*seq, version.pinned)), keep);
        gone.iter().for_each(|seq| tables.remove_version(id, *seq));
        Ok(gone.len() as u64)
    }

    fn publish(&self, version: &NewVersion<D>, expect: Expect) -> Result<Published<D>> {
        version.validate()?;
        let mut state = self.change()?;
        D::tables(&state).check_save(&version.snapshot, expect)?;
        state.check_version_id(&version.id)?;
        let Stored { revision, .. } = state.save(version.snapshot.clone())?;
        Ok(Published { revision, version: D::tables_mut(&mut state).append(version)? })
    }

    fn due(&self, now: DateTime<Utc>, request: &PageRequest) -> Result<Page<Stored<D>>> {
        let position = request.position(D::KIND.due())?;
        let now = time::nanos("now", now)?;
        page(D::KIND.due(), request, D::tables(&self.look()).due_by(now, position))
    }

    fn mark_scheduled_run(
        &self,
        id: &D::Id,
        ran_at: DateTime<Utc>,
        next: Option<DateTime<Utc>>,
    ) -> Result<()> {
        check_times([("ran_at", Some(ran_at)), ("next_run_at", next)])?;
        let mut state = self.change()?;
        let tables = D::tables_mut(&mut state);
        tables.scheduled(id)?;
        tables.set_run_state(id, RunState::marked(ran_at, next)).map(drop)
    }

    fn reschedule(&self, id: &D::Id, next: Option<DateTime<Utc>>) -> Result<()> {
        check_times([("next_run_at", next)])?;
        let mut state = self.change()?;
        let tables = D::tables_mut(&mut state);
        let (_, before) = tables.scheduled(id)?;
        tables.set_run_state(id, before.rescheduled(next)).map(drop)
    }

    fn claim_due(
        &self,
        now: DateTime<Utc>,
        worker: &WorkerId,
        length: Duration,
        max: usize,
    ) -> Result<Vec<Claim<D>>> {
        rules::check_max(max)?;
        lease::end(now, length)?;
        let nanos = time::nanos("now", now)?;
        let state = &mut *self.change()?;
        let lease_of = |stored: &Stored<D>| stored.schedule().and_then(|schedule| schedule.lease.clone());
        let free = D::tables(state)
            .due_by(nanos, None)
            .filter(|(_, stored)| lease::claimable(lease_of(stored).as_ref(), now));
        let free: Vec<(i64, D::Id)> = free.take(max).map(|(at, _)| at.clone()).collect();
        let claim = |(due_at, id): &(i64, D::Id)| {
            let lease = Lease::grant(worker, LeaseToken(state.counter.next()?), now, length)?;
            let tables = D::tables_mut(state);
            let (_, before) = tables.scheduled(id)?;
            let stored = tables.set_run_state(id, RunState { lease: Some(lease.clone()), ..before })?;
            Ok(Claim { stored, due_at: time::from_nanos(*due_at), lease })
        };
        free.iter().map(claim).collect()
    }

    fn finish_claim(
        &self,
        id: &D::Id,
        token: LeaseToken,
        now: DateTime<Utc>,
        ran_at: DateTime<Utc>,
        next: Option<DateTime<Utc>>,
    ) -> Result<()> {
        check_times([("now", Some(now)), ("ran_at", Some(ran_at)), ("next_run_at", next)])?;
        let mut state = self.change()?;
        let tables = D::tables_mut(&mut state);
        tables.held(id, token, now)?;
        tables.set_run_state(id, RunState::marked(ran_at, next)).map(drop)
    }

    fn renew_claim(
        &self,
        id: &D::Id,
        token: LeaseToken,
        now: DateTime<Utc>,
        length: Duration,
    ) -> Result<Lease> {
        lease::end(now, length)?;
        let mut state = self.change()?;
        let tables = D::tables_mut(&mut state);
        let (held, before) = tables.held(id, token, now)?;
        let lease = held.renewed(now, length)?;
        tables.set_run_state(id, RunState { lease: Some(lease.clone()), ..before })?;
        Ok(lease)
    }

    fn release_claim(&self, id: &D::Id, token: LeaseToken, now: DateTime<Utc>) -> Result<()> {
        check_times([("now", Some(now))])?;
        let mut state = self.change()?;
        let tables = D::tables_mut(&mut state);
        let (_, before) = tables.held(id, token, now)?;
        tables.set_run_state(id, RunState { lease: None, ..before }).map(drop)
    }
}

impl AgentStore for Tx<'_> {
    fn by_webhook(&self, digest: &SecretDigest) -> Result<Option<Stored<Agent>>> {
        let tables = &self.look().agents;
        let found = tables.by_webhook.get(&digest.to_string()).and_then(|id| tables.by_id.get(id));
        // Digests compare in constant time; the index has only found the candidate.
        Ok(found.filter(|agent| agent.webhook.as_ref() == Some(digest)).cloned())
    }

    fn by_channel(&self, channel: &ChannelId, request: &PageRequest) -> Result<Page<Stored<Agent>>> {
        let position = request.position(List::ChannelAgents)?;
        let tables = &self.look().agents;
        page(List::ChannelAgents, request, tables.of_index(tables.by_channel.group(channel), position))
    }
}
