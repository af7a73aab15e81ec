//! Skills and agents: one catalog for both kinds.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use store_api::{
    Agent, AgentStore, Catalog, ChannelId, Claim, Definition, DefinitionFilter, Edit, Entity, Error, Expect,
    Kind, Lease, LeaseToken, List, Name, NewVersion, Page, PageRequest, PrincipalId, Published, Result,
    Revision, RunState, SecretDigest, Stored, Version, VersionId, WorkerId, lease, rules, time,
};

use crate::index;
use crate::keys::{self, Facet, Fields, Key, Span};
use crate::kv::Order;
use crate::tables::{DEFINITIONS, DUE, FACETS, LAST_SEQS, NAMES, RUN_STATES, Table, WEBHOOKS};
use crate::tx::{Tx, decode, missing};
use crate::value;

/// What is stored of a definition in its own row. The document stands in it without its run state.
#[derive(Serialize, Deserialize)]
pub(crate) struct DefinitionRow<D> {
    pub(crate) revision: Revision,
    pub(crate) doc: D,
}

/// Where a definition stands in the order of those that are due: its next time, then its id.
type DuePlace<D> = (i64, <D as Definition>::Id);

pub(crate) fn key<D: Definition>(id: &D::Id) -> Key {
    keys::definition(D::KIND, id.as_ref())
}

pub(crate) fn not_found<D: Definition>(id: &D::Id) -> Error {
    Error::not_found(D::KIND.entity(), id.as_ref())
}

/// The places of what is due at a moment.
fn due_until(kind: Kind, now: DateTime<Utc>) -> Result<Span> {
    let key = keys::of_kind(kind);
    Ok(Span::under(&key).through(&key.signed(time::nanos("now", now)?)))
}

fn due_place<D: Definition>(key: &[u8], _: &[u8]) -> Result<DuePlace<D>> {
    let mut fields = Fields::of(key);
    keys::kind(&mut fields)?;
    let place = (fields.signed()?, stored_id(DUE, key, fields.text()?)?);
    fields.end()?;
    Ok(place)
}

/// An id that was read from a table.
fn stored_id<I: TryFrom<String, Error = Error>>(table: Table, key: &[u8], id: String) -> Result<I> {
    I::try_from(id).map_err(|e| Error::corrupt(value::place(table, key), e.to_string()))
}

impl Tx<'_> {
    fn stored<D: Definition>(&self, id: &D::Id) -> Result<Option<Stored<D>>> {
        let key = key::<D>(id);
        let row = self.record::<DefinitionRow<D>>(DEFINITIONS, &key)?;
        row.map(|row| self.assemble(&key, row)).transpose()
    }

    /// Puts the run state into a row that was read.
    pub(crate) fn assemble<D: Definition>(&self, key: &[u8], row: DefinitionRow<D>) -> Result<Stored<D>> {
        let state = match row.doc.schedule() {
            Some(_) => self.run_state_of(key)?.ok_or_else(|| missing(RUN_STATES, key))?,
            None => RunState::default(),
        };
        Ok(Stored { doc: Arc::new(rules::assemble(row.doc, state)), revision: row.revision })
    }

    /// A definition that an index entry leads to.
    fn led_to<D: Definition>(&self, id: &D::Id) -> Result<Stored<D>> {
        self.stored(id)?.ok_or_else(|| missing(DEFINITIONS, &key::<D>(id)))
    }

    /// The id that an index entry leads to.
    fn lookup<D: Definition>(&self, table: Table, key: &[u8]) -> Result<Option<D::Id>> {
        self.read(table, key, |body| stored_id(table, key, value::text(table, key, body)?.to_owned()))
    }

    pub(crate) fn last_seq<D: Definition>(&self, id: &D::Id) -> Result<Option<u64>> {
        self.record(LAST_SEQS, &key::<D>(id))
    }

    pub(crate) fn set_last_seq<D: Definition>(&self, id: &D::Id, seq: u64) -> Result<()> {
        self.put_record(LAST_SEQS, &key::<D>(id), &seq)
    }

    /// The run state of a definition that must have a schedule.
    fn run_state<D: Definition>(&self, id: &D::Id) -> Result<RunState> {
        let key = key::<D>(id);
        match self.run_state_of(&key)? {
            Some(state) => Ok(state),
            None if self.has(LAST_SEQS, &key)? => Err(Error::not_found(Entity::Schedule, id.as_ref())),
            None => Err(not_found::<D>(id)),
        }
    }

    /// Moves the run state from one to another, or takes it away.
    fn set_run_state<D: Definition>(
        &self,
        id: &D::Id,
        before: &RunState,
        after: Option<&RunState>,
    ) -> Result<()> {
        let due = |state| index::of_run_state(D::KIND, id.as_ref(), state);
        let (was_due, is_due) = (due(before)?, after.map(due).transpose()?.unwrap_or_default());
        match after {
            Some(state) => self.put_run_state(&key::<D>(id), state)?,
            None => self.delete(RUN_STATES, &key::<D>(id)).map(drop)?,
        }
        self.reindex(&was_due, &is_due)
    }

    /// The run state of a claim that `token` holds at `now`, and its lease.
    fn held<D: Definition>(
        &self,
        id: &D::Id,
        token: LeaseToken,
        now: DateTime<Utc>,
    ) -> Result<(RunState, Lease)> {
        let state = self.run_state::<D>(id)?;
        let lease = lease::held(D::KIND.entity(), id.as_ref(), state.lease.as_ref(), token, now)?.clone();
        Ok((state, lease))
    }

    /// Whether `doc` may be saved over what is stored.
    fn check_save<D: Definition>(&self, doc: &D, stored: Option<&Stored<D>>, expect: Expect) -> Result<()> {
        rules::check_expect::<D>(doc.id(), stored.map(|stored| stored.revision), expect)?;
        self.check_unique(doc)
    }

    /// Whether the name and the webhook of `doc` are free, or its own.
    pub(crate) fn check_unique<D: Definition>(&self, doc: &D) -> Result<()> {
        let name = keys::name(D::KIND, doc.owner().as_str(), doc.name().as_str());
        if self.lookup::<D>(NAMES, &name)?.is_some_and(|holder| holder != *doc.id()) {
            return Err(Error::already_exists(D::KIND.entity(), "name", doc.name().as_str()));
        }
        let Some(webhook) = doc.webhook() else { return Ok(()) };
        let digest = Key::new().text(&webhook.to_string());
        if self.lookup::<D>(WEBHOOKS, &digest)?.is_some_and(|holder| holder != *doc.id()) {
            return Err(Error::already_exists(D::KIND.entity(), "webhook", format!("{webhook:?}")));
        }
        Ok(())
    }

    /// Stores a document that was checked, under a new revision; gives what a read would.
    fn write<D: Definition>(&self, doc: &D, stored: Option<&Stored<D>>) -> Result<Stored<D>> {
        let before = stored.map(|stored| &*stored.doc);
        let state = rules::run_state_after_save(before, doc);
        let revision = Revision(self.next_number()?);
        self.put_definition(doc, revision, state.as_ref(), before)?;
        if stored.is_none() {
            self.set_last_seq::<D>(doc.id(), 0)?;
        }
        let doc = rules::assemble(doc.clone(), state.unwrap_or_default());
        Ok(Stored { doc: Arc::new(doc), revision })
    }

    /// Writes a definition's row, its run state, and their index entries.
    pub(crate) fn put_definition<D: Definition>(
        &self,
        doc: &D,
        revision: Revision,
        state: Option<&RunState>,
        before: Option<&D>,
    ) -> Result<()> {
        let row = DefinitionRow { revision, doc: &*rules::without_run_state(doc) };
        self.put_record(DEFINITIONS, &key::<D>(doc.id()), &row)?;
        self.reindex(&before.map(index::of_definition).unwrap_or_default(), &index::of_definition(doc))?;
        let was = before.and_then(Definition::schedule).map(|schedule| schedule.run_state());
        if was.as_ref() == state {
            return Ok(());
        }
        self.set_run_state::<D>(doc.id(), &was.unwrap_or_default(), state)
    }

    /// The definitions of a facet after `position`, up to `limit` of those that match.
    fn with_facet<D: Definition>(
        &self,
        facet: &Key,
        position: Option<&D::Id>,
        limit: usize,
        matches: impl Fn(&D) -> bool,
    ) -> Result<Vec<Stored<D>>> {
        let mut span = Span::under(facet);
        if let Some(id) = position {
            span = span.after(&facet.clone().text(id.as_ref()));
        }
        let read = |key: &[u8], _: &[u8]| -> Result<D::Id> {
            let mut fields = Fields::of(key);
            keys::kind(&mut fields)?;
            fields.code()?;
            fields.text()?;
            let id = stored_id(FACETS, key, fields.text()?)?;
            fields.end()?;
            Ok(id)
        };
        self.pick(FACETS, span, Order::Forwards, limit, read, |id| {
            let found = self.led_to::<D>(&id)?;
            Ok(matches(&found.doc).then_some(found))
        })
    }

    /// The definitions after `position`, up to `limit` of those that match.
    fn matching<D: Definition>(
        &self,
        filter: &DefinitionFilter,
        position: Option<&D::Id>,
        limit: usize,
    ) -> Result<Vec<Stored<D>>> {
        let matches = |doc: &D| filter.matches(doc);
        if let Some(tag) = &filter.tag {
            let facet = keys::facet(D::KIND, Facet::Tag, tag.as_str());
            return self.with_facet(&facet, position, limit, matches);
        }
        if let Some(owner) = &filter.owner {
            let facet = keys::facet(D::KIND, Facet::Owner, owner.as_str());
            return self.with_facet(&facet, position, limit, matches);
        }
        let mut span = Span::under(&keys::of_kind(D::KIND));
        if let Some(id) = position {
            span = span.after(&key::<D>(id));
        }
        let read = |key: &[u8], body: &[u8]| Ok((key.to_vec(), decode(DEFINITIONS, key, body)?));
        self.pick(DEFINITIONS, span, Order::Forwards, limit, read, |(key, row)| {
            let found = self.assemble::<D>(&key, row)?;
            Ok(matches(&found.doc).then_some(found))
        })
    }

    /// The definition that is due at a place.
    fn due_at<D: Definition>(&self, (at, id): &DuePlace<D>) -> Result<(RunState, Stored<D>)> {
        let found = self.led_to::<D>(id)?;
        let state = found.doc.schedule().map(|schedule| schedule.run_state()).unwrap_or_default();
        if state.next_run_at != Some(time::from_nanos(*at)) {
            let place = value::place(DUE, &keys::due(D::KIND, *at, id.as_ref()));
            return Err(Error::corrupt(place, "is due at another time"));
        }
        Ok((state, found))
    }

    fn mark<D: Definition>(&self, id: &D::Id, before: &RunState, after: &RunState) -> Result<()> {
        self.set_run_state::<D>(id, before, Some(after))
    }
}

impl<D: Definition> Catalog<D> for Tx<'_> {
    fn get(&self, id: &D::Id) -> Result<Option<Stored<D>>> {
        self.stored(id)
    }

    fn by_name(&self, owner: &PrincipalId, name: &Name) -> Result<Option<Stored<D>>> {
        let key = keys::name(D::KIND, owner.as_str(), name.as_str());
        let Some(id) = self.lookup::<D>(NAMES, &key)? else { return Ok(None) };
        self.led_to::<D>(&id).map(Some)
    }

    fn list(&self, filter: &DefinitionFilter, page: &PageRequest) -> Result<Page<Stored<D>>> {
        let list = D::KIND.list();
        let position = page.position::<D::Id>(list)?;
        let found = self.matching::<D>(filter, position.as_ref(), page.limit() + 1)?;
        Page::cut(list, page, found, |found| found.doc.id().clone())
    }

    fn save(&self, doc: &D, expect: Expect) -> Result<Revision> {
        doc.validate()?;
        let stored = self.stored::<D>(doc.id())?;
        self.check_save(doc, stored.as_ref(), expect)?;
        Ok(self.write(doc, stored.as_ref())?.revision)
    }

    fn update(&self, id: &D::Id, edit: Edit<'_, D>) -> Result<Stored<D>> {
        let stored = self.stored::<D>(id)?.ok_or_else(|| not_found::<D>(id))?;
        let mut doc = D::clone(&stored.doc);
        edit(&mut doc)?;
        rules::check_edit(id, &doc)?;
        doc.validate()?;
        self.check_save(&doc, Some(&stored), Expect::Revision(stored.revision))?;
        self.write(&doc, Some(&stored))
    }

    fn delete(&self, id: &D::Id, expect: Expect) -> Result<()> {
        let stored = self.stored::<D>(id)?;
        rules::check_delete::<D>(id, stored.as_ref().map(|found| found.revision), expect)?;
        let Some(Stored { doc, .. }) = stored else { return Err(not_found::<D>(id)) };
        if let Some(schedule) = doc.schedule() {
            self.set_run_state::<D>(id, &schedule.run_state(), None)?;
        }
        self.reindex(&index::of_definition(&*doc), &[])?;
        self.delete_versions::<D>(id)?;
        Tx::delete(self, LAST_SEQS, &key::<D>(id))?;
        Tx::delete(self, DEFINITIONS, &key::<D>(id)).map(drop)
    }

    fn append_version(&self, version: &NewVersion<D>) -> Result<Arc<Version<D>>> {
        version.validate()?;
        let id = version.snapshot.id();
        let last_seq = self.last_seq::<D>(id)?.ok_or_else(|| not_found::<D>(id))?;
        self.check_version_id(&version.id)?;
        self.append(version, last_seq)
    }

    fn versions(&self, id: &D::Id, page: &PageRequest) -> Result<Page<Arc<Version<D>>>> {
        self.versions_page::<D>(id, page)
    }

    fn version(&self, id: &VersionId) -> Result<Option<Arc<Version<D>>>> {
        Ok(self.find_version(id)?.map(Arc::new))
    }

    fn latest(&self, id: &D::Id) -> Result<Option<Arc<Version<D>>>> {
        self.latest_version(id)
    }

    fn restore(&self, version: &VersionId, expect: Expect) -> Result<Stored<D>> {
        let found = self.find_version::<D>(version)?;
        let snapshot =
            found.ok_or_else(|| Error::not_found(Entity::Version, version.as_str()))?.content.snapshot;
        snapshot.validate()?;
        let stored = self.stored::<D>(snapshot.id())?;
        self.check_save(&snapshot, stored.as_ref(), expect)?;
        self.write(&snapshot, stored.as_ref())
    }

    fn pin_version(&self, version: &VersionId, pinned: bool) -> Result<()> {
        self.set_pinned::<D>(version, pinned)
    }

    fn prune_versions(&self, id: &D::Id, keep: usize) -> Result<u64> {
        self.last_seq::<D>(id)?.ok_or_else(|| not_found::<D>(id))?;
        self.prune::<D>(id, keep)
    }

    fn publish(&self, version: &NewVersion<D>, expect: Expect) -> Result<Published<D>> {
        version.validate()?;
        let doc = &version.snapshot;
        let stored = self.stored::<D>(doc.id())?;
        self.check_save(doc, stored.as_ref(), expect)?;
        self.check_version_id(&version.id)?;
        let last_seq = self.last_seq::<D>(doc.id())?.unwrap_or_default();
        let revision = self.write(doc, stored.as_ref())?.revision;
        Ok(Published { revision, version: self.append(version, last_seq)? })
    }

    fn due(&self, now: DateTime<Utc>, page: &PageRequest) -> Result<Page<Stored<D>>> {
        let list = D::KIND.due();
        let position: Option<DuePlace<D>> = page.position(list)?;
        let mut span = due_until(D::KIND, now)?;
        if let Some((at, id)) = position {
            span = span.after(&keys::due(D::KIND, at, id.as_ref()));
        }
        let (places, more) = self.page(DUE, span, Order::Forwards, page.limit(), due_place::<D>)?;
        Page::of(list, places, more, DuePlace::<D>::clone)?.try_map(|place| Ok(self.due_at::<D>(&place)?.1))
    }

    fn mark_scheduled_run(
        &self,
        id: &D::Id,
        ran_at: DateTime<Utc>,
        next: Option<DateTime<Utc>>,
    ) -> Result<()> {
        time::nanos("ran_at", ran_at)?;
        check_next(next)?;
        self.mark::<D>(id, &self.run_state::<D>(id)?, &RunState::marked(ran_at, next))
    }

    fn reschedule(&self, id: &D::Id, next: Option<DateTime<Utc>>) -> Result<()> {
        check_next(next)?;
        let state = self.run_state::<D>(id)?;
        self.mark::<D>(id, &state, &state.rescheduled(next))
    }

    fn claim_due(
        &self,
        now: DateTime<Utc>,
        worker: &WorkerId,
        lease: Duration,
        max: usize,
    ) -> Result<Vec<Claim<D>>> {
        rules::check_max(max)?;
        lease::end(now, lease)?;
        let span = due_until(D::KIND, now)?;
        let found = self.pick(DUE, span, Order::Forwards, max, due_place::<D>, |place| {
            let (state, found) = self.due_at::<D>(&place)?;
            Ok(lease::claimable(state.lease.as_ref(), now).then_some((place, state, found)))
        })?;
        let claim = |((due_at, id), before, found): (DuePlace<D>, RunState, Stored<D>)| {
            let lease = Lease::grant(worker, LeaseToken(self.next_number()?), now, lease)?;
            let after = RunState { lease: Some(lease.clone()), ..before.clone() };
            self.mark::<D>(&id, &before, &after)?;
            let doc = Arc::new(rules::assemble(Arc::unwrap_or_clone(found.doc), after));
            let stored = Stored { doc, revision: found.revision };
            Ok(Claim { stored, due_at: time::from_nanos(due_at), lease })
        };
        found.into_iter().map(claim).collect()
    }

    fn finish_claim(
        &self,
        id: &D::Id,
        token: LeaseToken,
        now: DateTime<Utc>,
        ran_at: DateTime<Utc>,
        next: Option<DateTime<Utc>>,
    ) -> Result<()> {
        time::nanos("now", now)?;
        time::nanos("ran_at", ran_at)?;
        check_next(next)?;
        let (state, _) = self.held::<D>(id, token, now)?;
        self.mark::<D>(id, &state, &RunState::marked(ran_at, next))
    }

    fn renew_claim(
        &self,
        id: &D::Id,
        token: LeaseToken,
        now: DateTime<Utc>,
        lease: Duration,
    ) -> Result<Lease> {
        lease::end(now, lease)?;
        let (state, held) = self.held::<D>(id, token, now)?;
        let renewed = held.renewed(now, lease)?;
        let after = RunState { lease: Some(renewed.clone()), ..state.clone() };
        self.mark::<D>(id, &state, &after)?;
        Ok(renewed)
    }

    fn release_claim(&self, id: &D::Id, token: LeaseToken, now: DateTime<Utc>) -> Result<()> {
        time::nanos("now", now)?;
        let (state, _) = self.held::<D>(id, token, now)?;
        self.mark::<D>(id, &state, &RunState { lease: None, ..state.clone() })
    }
}

fn check_next(next: Option<DateTime<Utc>>) -> Result<()> {
    next.map_or(Ok(()), |next| time::nanos("next_run_at", next).map(drop))
}

impl AgentStore for Tx<'_> {
    fn by_webhook(&self, digest: &SecretDigest) -> Result<Option<Stored<Agent>>> {
        let key = Key::new().text(&digest.to_string());
        let Some(id) = self.lookup::<Agent>(WEBHOOKS, &key)? else { return Ok(None) };
        let found = self.led_to::<Agent>(&id)?;
        // The tree was walked by bytes; the digest itself is compared in constant time.
        if found.doc.webhook.as_ref() != Some(digest) {
            return Err(Error::corrupt(value::place(WEBHOOKS, &key), "leads to another agent"));
        }
        Ok(Some(found))
    }

    fn by_channel(&self, channel: &ChannelId, page: &PageRequest) -> Result<Page<Stored<Agent>>> {
        let position = page.position(List::ChannelAgents)?;
        let facet = keys::facet(Agent::KIND, Facet::Channel, channel.as_str());
        let found = self.with_facet::<Agent>(&facet, position.as_ref(), page.limit() + 1, |_| true)?;
        Page::cut(List::ChannelAgents, page, found, |found| found.doc.id.clone())
    }
}
