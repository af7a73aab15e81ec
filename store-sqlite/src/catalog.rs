//! Skills and agents: one catalog for both kinds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rusqlite::types::Value;
use rusqlite::{Row, params};
use store_api::json;
use store_api::{
    Agent, AgentId, AgentStore, Catalog, ChannelId, Claim, Definition, DefinitionFilter, Edit, Entity, Error,
    Expect, Lease, LeaseToken, List, Name, NewVersion, Page, PageRequest, PrincipalId, Published, Result,
    Revision, RunState, SecretDigest, Stored, Version, VersionId, Visibility, WorkerId, lease, rules, time,
};

use crate::sums::{self, LeaseColumns, RunColumns};
use crate::tx::{Onward, Tx, column, document, optional_text, text};
use crate::versions::{self, Draft};

/// The columns that [`read`] reads, of a table or join that calls them `d`.
macro_rules! columns {
    () => {
        "d.id, d.revision, d.next_run_at, d.last_run_at, d.lease_worker, d.lease_until, \
         d.lease_token, d.run_sum, d.doc_sum, d.doc"
    };
}
pub(crate) use columns;

/// The due definitions of a kind at a moment, in their order.
macro_rules! due {
    ($after:literal) => {
        concat!(
            "SELECT ",
            columns!(),
            " FROM definitions d WHERE kind = ?1 AND next_run_at <= ?2 ",
            $after,
            "ORDER BY next_run_at, id"
        )
    };
}
const DUE: &str = due!("");
/// Those after a place, which SQLite compares with every row.
const DUE_AFTER: &str = due!("AND (next_run_at, id) > (?3, ?4) ");

/// A definition from a row of [`columns`], every part of it checked.
pub(crate) fn read<D: Definition>(row: &Row<'_>) -> Result<Stored<D>> {
    read_as(text(row, 0)?, row)
}

/// The definition `id` from the same row. Another definition has other sums.
fn read_as<D: Definition>(id: &str, row: &Row<'_>) -> Result<Stored<D>> {
    read_with(id, run_state::<D>(id, row, 2)?, row)
}

/// Reads the rest of a row whose id and run state were read before.
fn read_with<D: Definition>(id: &str, state: RunState, row: &Row<'_>) -> Result<Stored<D>> {
    let what = || key::<D>(id);
    let revision: i64 = column(row, 1)?;
    let doc = document(what, row, 9)?;
    sums::check(what, column(row, 8)?, sums::document(D::KIND, id, revision, doc))?;
    let doc = Arc::new(rules::assemble(json::decode(what, doc)?, state));
    Ok(Stored { doc, revision: Revision(revision.cast_unsigned()) })
}

/// The table and key of a definition, as errors name it.
pub(crate) fn key<D: Definition>(id: &str) -> String {
    format!("definitions/{}/{id}", D::KIND.entity())
}

/// Where a definition stands in the order of those that are due: its next time, then its id.
type DuePlace<D> = (i64, <D as Definition>::Id);

fn stored_id<D: Definition>(id: &str) -> Result<D::Id> {
    D::Id::try_from(id.to_owned()).map_err(|e| sums::damaged(|| key::<D>(id), &e))
}

fn not_found<D: Definition>(id: &D::Id) -> Error {
    Error::not_found(D::KIND.entity(), id.as_ref())
}

/// Reads the six columns of the run state from column `at` on.
pub(crate) fn run_state<D: Definition>(id: &str, row: &Row<'_>, at: usize) -> Result<RunState> {
    let columns = RunColumns {
        next_run_at: column(row, at)?,
        last_run_at: column(row, at + 1)?,
        lease: LeaseColumns {
            worker: optional_text(row, at + 2)?,
            until: column(row, at + 3)?,
            token: column(row, at + 4)?,
        },
    };
    sums::check(|| key::<D>(id), column(row, at + 5)?, sums::run_state(D::KIND, id, &columns))?;
    columns.state(|| key::<D>(id))
}

/// The columns and facets that are derived from a document: what `save` writes and `verify` compares.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Derived<'d> {
    pub(crate) owner: &'d str,
    pub(crate) name: &'d str,
    pub(crate) visibility: &'d str,
    pub(crate) exposed: bool,
    pub(crate) scheduled: bool,
    pub(crate) webhook: Option<String>,
}

impl<'d> Derived<'d> {
    pub(crate) fn of<D: Definition>(doc: &'d D) -> Self {
        Derived {
            owner: doc.owner().as_str(),
            name: doc.name().as_str(),
            visibility: match doc.visibility() {
                Visibility::Public => "public",
                Visibility::Shared => "shared",
                Visibility::Private => "private",
            },
            exposed: doc.exposed_to_chat(),
            scheduled: doc.schedule().is_some(),
            webhook: doc.webhook().map(ToString::to_string),
        }
    }
}

/// The sets of a document that lists look in, as (field, term).
pub(crate) fn facets<D: Definition>(doc: &D) -> BTreeSet<(&'static str, &str)> {
    let tags = doc.tags().iter().map(|tag| ("tag", tag.as_str()));
    let shared = doc.shared_with().iter().map(|who| ("shared", who.as_str()));
    let channels = doc.channels().into_iter().flatten().map(|channel| ("channel", channel.as_str()));
    tags.chain(shared).chain(channels).collect()
}

impl Tx<'_> {
    fn stored<D: Definition>(&self, id: &D::Id) -> Result<Option<Stored<D>>> {
        let sql = concat!("SELECT ", columns!(), " FROM definitions d WHERE kind = ?1 AND id = ?2");
        self.first(sql, params![D::KIND.code(), id.as_ref()], |row| read_as(id.as_ref(), row))
    }

    fn exists<D: Definition>(&self, id: &D::Id) -> Result<bool> {
        let sql = "SELECT 1 FROM definitions WHERE kind = ?1 AND id = ?2";
        self.any(sql, params![D::KIND.code(), id.as_ref()])
    }

    /// The number of the last version of a definition, 0 before the first.
    pub(crate) fn last_seq<D: Definition>(&self, id: &D::Id) -> Result<u64> {
        let what = || key::<D>(id.as_ref());
        let sql = "SELECT last_seq, sum FROM last_seqs WHERE kind = ?1 AND definition = ?2";
        let found = self.first(sql, params![D::KIND.code(), id.as_ref()], |row| {
            let last: i64 = column(row, 0)?;
            sums::check(what, column(row, 1)?, sums::last_seq(D::KIND, id.as_ref(), last))?;
            Ok(last.cast_unsigned())
        })?;
        match found {
            Some(last) => Ok(last),
            None if self.exists::<D>(id)? => Err(Error::corrupt(what(), "has no number of its last version")),
            None => Err(not_found::<D>(id)),
        }
    }

    pub(crate) fn set_last_seq<D: Definition>(&self, id: &D::Id, seq: u64) -> Result<()> {
        let seq = seq.cast_signed();
        let sum = sums::last_seq(D::KIND, id.as_ref(), seq);
        let sql = "INSERT INTO last_seqs (kind, definition, last_seq, sum) VALUES (?1, ?2, ?3, ?4) \
                   ON CONFLICT (kind, definition) DO UPDATE SET last_seq = ?3, sum = ?4";
        self.execute(sql, params![D::KIND.code(), id.as_ref(), seq, sum]).map(drop)
    }

    /// The run state of a definition that must have a schedule.
    fn run_state<D: Definition>(&self, id: &D::Id) -> Result<RunState> {
        let sql = "SELECT scheduled, next_run_at, last_run_at, lease_worker, lease_until, lease_token, run_sum \
                   FROM definitions WHERE kind = ?1 AND id = ?2";
        let found = self.first(sql, params![D::KIND.code(), id.as_ref()], |row| {
            Ok((column::<bool>(row, 0)?, run_state::<D>(id.as_ref(), row, 1)?))
        })?;
        match found {
            None => Err(not_found::<D>(id)),
            Some((false, _)) => Err(Error::not_found(Entity::Schedule, id.as_ref())),
            Some((true, state)) => Ok(state),
        }
    }

    /// Moves the run state, all of it, in one statement that reads nothing: what makes marks and edits commute. An
    /// index finds the row, and the row itself says whether it is the right one.
    fn set_run_state<D: Definition>(&self, id: &D::Id, state: &RunState) -> Result<()> {
        let columns = RunColumns::of(state)?;
        let sql = "UPDATE definitions SET next_run_at = ?3, last_run_at = ?4, lease_worker = ?5, \
                   lease_until = ?6, lease_token = ?7, run_sum = ?8 \
                   WHERE rowid = (SELECT rowid FROM definitions WHERE kind = ?1 AND id = ?2) \
                     AND +kind = ?1 AND +id = ?2 AND scheduled";
        let changed = self.execute(
            sql,
            params![
                D::KIND.code(),
                id.as_ref(),
                columns.next_run_at,
                columns.last_run_at,
                columns.lease.worker,
                columns.lease.until,
                columns.lease.token,
                sums::run_state(D::KIND, id.as_ref(), &columns),
            ],
        )?;
        match changed {
            1 => Ok(()),
            _ => {
                self.run_state::<D>(id)?;
                Err(Error::corrupt(key::<D>(id.as_ref()), "an index leads to another row"))
            }
        }
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
        let sql = "SELECT 1 FROM definitions WHERE kind = ?1 AND owner = ?2 AND name = ?3 AND id <> ?4";
        let (owner, name, id) = (doc.owner().as_str(), doc.name().as_str(), doc.id().as_ref());
        if self.any(sql, params![D::KIND.code(), owner, name, id])? {
            return Err(Error::already_exists(D::KIND.entity(), "name", name));
        }
        let Some(webhook) = doc.webhook() else { return Ok(()) };
        let sql = "SELECT 1 FROM definitions WHERE webhook = ?1 AND id <> ?2";
        if self.any(sql, params![webhook.to_string(), id])? {
            return Err(Error::already_exists(D::KIND.entity(), "webhook", format!("{webhook:?}")));
        }
        Ok(())
    }

    /// Stores a document that was checked, under a new revision.
    fn write<D: Definition>(&self, doc: &D, stored: Option<&Stored<D>>) -> Result<(Revision, RunState)> {
        let revision = Revision(self.next_number()?);
        let before = stored.map(|stored| &*stored.doc);
        let state = rules::run_state_after_save(before, doc).unwrap_or_default();
        self.put_definition(doc, revision, &state)?;
        if stored.is_none() {
            self.set_last_seq::<D>(doc.id(), 0)?;
        }
        self.put_facets(doc.id(), before, Some(doc))?;
        Ok((revision, state))
    }

    /// The same, giving what a read would.
    fn write_and_read<D: Definition>(&self, doc: &D, stored: Option<&Stored<D>>) -> Result<Stored<D>> {
        let (revision, state) = self.write(doc, stored)?;
        Ok(Stored { doc: Arc::new(rules::assemble(doc.clone(), state)), revision })
    }

    /// Writes a definition's row.
    pub(crate) fn put_definition<D: Definition>(
        &self,
        doc: &D,
        revision: Revision,
        state: &RunState,
    ) -> Result<()> {
        let id = doc.id().as_ref();
        let derived = Derived::of(doc);
        let text = json::encode(&*rules::without_run_state(doc))?;
        let revision = revision.0.cast_signed();
        let run = RunColumns::of(state)?;
        let sql = "INSERT INTO definitions (kind, id, owner, name, visibility, exposed, scheduled, webhook, \
                     revision, next_run_at, last_run_at, lease_worker, lease_until, lease_token, run_sum, \
                     doc_sum, doc) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17) \
                   ON CONFLICT (kind, id) DO UPDATE SET owner = ?3, name = ?4, visibility = ?5, exposed = ?6, \
                     scheduled = ?7, webhook = ?8, revision = ?9, next_run_at = ?10, last_run_at = ?11, \
                     lease_worker = ?12, lease_until = ?13, lease_token = ?14, run_sum = ?15, doc_sum = ?16, \
                     doc = ?17";
        let params = params![
            D::KIND.code(),
            id,
            derived.owner,
            derived.name,
            derived.visibility,
            derived.exposed,
            derived.scheduled,
            derived.webhook,
            revision,
            run.next_run_at,
            run.last_run_at,
            run.lease.worker,
            run.lease.until,
            run.lease.token,
            sums::run_state(D::KIND, id, &run),
            sums::document(D::KIND, id, revision, &text),
            text,
        ];
        self.execute(sql, params).map(drop)
    }

    /// Brings the facets of a definition from one document to another.
    pub(crate) fn put_facets<D: Definition>(
        &self,
        id: &D::Id,
        before: Option<&D>,
        after: Option<&D>,
    ) -> Result<()> {
        let before = before.map(facets).unwrap_or_default();
        let after = after.map(facets).unwrap_or_default();
        let sql = "DELETE FROM facets WHERE kind = ?1 AND field = ?2 AND term = ?3 AND id = ?4 \
                   RETURNING kind = ?1 AND field = ?2 AND term = ?3 AND id = ?4";
        for (field, term) in before.difference(&after) {
            self.change(|| key::<D>(id.as_ref()), sql, params![D::KIND.code(), field, term, id.as_ref()])?;
        }
        let sql = "INSERT OR IGNORE INTO facets (kind, field, term, id) VALUES (?1, ?2, ?3, ?4)";
        for (field, term) in after.difference(&before) {
            self.execute(sql, params![D::KIND.code(), field, term, id.as_ref()])?;
        }
        Ok(())
    }

    /// The first due definitions that nobody holds at `now`, each with the time at which it is due.
    fn claimable<D: Definition>(&self, now: DateTime<Utc>, max: usize) -> Result<Vec<(i64, Stored<D>)>> {
        let params = params![D::KIND.code(), time::nanos("now", now)?];
        self.take(DUE, params, Onward::<DuePlace<D>>::rising(None), max, |row| {
            let (at, id) = (column(row, 2)?, text(row, 0)?);
            let state = run_state::<D>(id, row, 2)?;
            let place = (at, stored_id::<D>(id)?);
            let is_free = lease::claimable(state.lease.as_ref(), now);
            let found = is_free.then(|| read_with::<D>(id, state, row)).transpose()?;
            Ok((place, found.map(|found| (at, found))))
        })
    }
}

/// The query behind a list: every part of a filter narrows it, and [`DefinitionFilter::matches`] decides.
fn list_query<D: Definition>(filter: &DefinitionFilter, after: &str) -> (String, Vec<Value>) {
    let from = match filter.tag {
        Some(_) => {
            " FROM facets f CROSS JOIN definitions d ON d.kind = f.kind AND d.id = f.id \
             WHERE f.kind = ?1 AND f.id > ?2 AND f.field = 'tag' AND f.term = ?"
        }
        None => " FROM definitions d WHERE d.kind = ?1 AND d.id > ?2",
    };
    let mut sql = format!("SELECT {}{from}", columns!());
    let mut params = vec![Value::from(i64::from(D::KIND.code())), Value::from(after.to_owned())];
    if let Some(tag) = &filter.tag {
        params.push(tag.to_string().into());
    }
    if let Some(owner) = &filter.owner {
        sql.push_str(" AND d.owner = ?");
        params.push(owner.to_string().into());
    }
    if let Some(exposed) = filter.exposed_to_chat {
        sql.push_str(" AND d.exposed = ?");
        params.push(exposed.into());
    }
    if let Some(scheduled) = filter.scheduled {
        sql.push_str(" AND d.scheduled = ?");
        params.push(scheduled.into());
    }
    if let Some(who) = &filter.visible_to {
        sql.push_str(
            " AND (d.visibility = 'public' OR d.owner = ? OR d.visibility = 'shared' AND EXISTS \
             (SELECT 1 FROM facets s WHERE s.kind = d.kind AND s.field = 'shared' AND s.term = ? AND s.id = d.id))",
        );
        params.extend([who.to_string().into(), who.to_string().into()]);
    }
    sql.push_str(if filter.tag.is_some() { " ORDER BY f.id" } else { " ORDER BY d.id" });
    (sql, params)
}

impl<D: Definition> Catalog<D> for Tx<'_> {
    fn get(&self, id: &D::Id) -> Result<Option<Stored<D>>> {
        self.stored(id)
    }

    fn by_name(&self, owner: &PrincipalId, name: &Name) -> Result<Option<Stored<D>>> {
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM definitions d WHERE kind = ?1 AND owner = ?2 AND name = ?3"
        );
        let params = params![D::KIND.code(), owner.as_str(), name.as_str()];
        let found = self.first(sql, params, read::<D>)?;
        // The look-up went through an index; the document has the last word.
        Ok(found.filter(|found| found.doc.owner() == owner && found.doc.name() == name))
    }

    fn list(&self, filter: &DefinitionFilter, page: &PageRequest) -> Result<Page<Stored<D>>> {
        let after: Option<D::Id> = page.position(D::KIND.list())?;
        let (sql, params) = list_query::<D>(filter, after.as_ref().map_or("", D::Id::as_ref));
        let (params, onward) = (rusqlite::params_from_iter(params), Onward::rising(after));
        let found = self.take(&sql, params, onward, page.limit() + 1, |row| {
            let found = read::<D>(row)?;
            Ok((found.doc.id().clone(), filter.matches(&*found).then_some(found)))
        })?;
        Page::cut(D::KIND.list(), page, found, |found| found.doc.id().clone())
    }

    fn save(&self, doc: &D, expect: Expect) -> Result<Revision> {
        doc.validate()?;
        let stored = self.stored(doc.id())?;
        self.check_save(doc, stored.as_ref(), expect)?;
        Ok(self.write(doc, stored.as_ref())?.0)
    }

    fn update(&self, id: &D::Id, edit: Edit<'_, D>) -> Result<Stored<D>> {
        let stored = self.stored::<D>(id)?.ok_or_else(|| not_found::<D>(id))?;
        let mut doc = D::clone(&stored.doc);
        edit(&mut doc)?;
        rules::check_edit(id, &doc)?;
        doc.validate()?;
        self.check_save(&doc, Some(&stored), Expect::Revision(stored.revision))?;
        self.write_and_read(&doc, Some(&stored))
    }

    fn delete(&self, id: &D::Id, expect: Expect) -> Result<()> {
        let stored = self.stored::<D>(id)?;
        rules::check_delete::<D>(id, stored.as_ref().map(|stored| stored.revision), expect)?;
        self.put_facets(id, stored.as_ref().map(|stored| &*stored.doc), None)?;
        self.delete_versions::<D>(id)?;
        for sql in [
            "DELETE FROM last_seqs WHERE kind = ?1 AND definition = ?2 RETURNING kind = ?1 AND definition = ?2",
            "DELETE FROM definitions WHERE kind = ?1 AND id = ?2 RETURNING kind = ?1 AND id = ?2",
        ] {
            self.change(|| key::<D>(id.as_ref()), sql, params![D::KIND.code(), id.as_ref()])?;
        }
        Ok(())
    }

    fn append_version(&self, version: &NewVersion<D>) -> Result<Arc<Version<D>>> {
        let draft = Draft::check(version)?;
        let seq = self.append(&draft)?;
        Ok(draft.stored(seq))
    }

    fn versions(&self, id: &D::Id, page: &PageRequest) -> Result<Page<Arc<Version<D>>>> {
        let before: Option<i64> = page.position(D::KIND.versions())?;
        self.versions_before(id, before.unwrap_or(i64::MAX), page.limit())
    }

    fn version(&self, id: &VersionId) -> Result<Option<Arc<Version<D>>>> {
        Ok(self.find_version(id)?.map(Arc::new))
    }

    fn latest(&self, id: &D::Id) -> Result<Option<Arc<Version<D>>>> {
        self.latest_version(id)
    }

    fn restore(&self, version: &VersionId, expect: Expect) -> Result<Stored<D>> {
        let found: Version<D> = self.find_version(version)?.ok_or_else(|| versions::not_found(version))?;
        let doc = &found.snapshot;
        doc.validate()?;
        let stored = self.stored(doc.id())?;
        self.check_save(doc, stored.as_ref(), expect)?;
        self.write_and_read(doc, stored.as_ref())
    }

    fn pin_version(&self, version: &VersionId, pinned: bool) -> Result<()> {
        self.set_pinned::<D>(version, pinned)
    }

    fn prune_versions(&self, id: &D::Id, keep: usize) -> Result<u64> {
        if !self.exists::<D>(id)? {
            return Err(not_found::<D>(id));
        }
        self.prune::<D>(id, keep)
    }

    fn publish(&self, version: &NewVersion<D>, expect: Expect) -> Result<Published<D>> {
        let (doc, draft) = (&version.snapshot, Draft::check(version)?);
        let stored = self.stored(doc.id())?;
        self.check_save(doc, stored.as_ref(), expect)?;
        self.check_version_id(&version.id)?;
        let last = stored.as_ref().map_or(Ok(0), |_| self.last_seq::<D>(doc.id()))?;
        let seq = rules::next_seq(last)?;
        let (revision, _) = self.write(doc, stored.as_ref())?;
        self.set_last_seq::<D>(doc.id(), seq)?;
        self.insert_version(seq, &draft)?;
        Ok(Published { revision, version: draft.stored(seq) })
    }

    fn due(&self, now: DateTime<Utc>, page: &PageRequest) -> Result<Page<Stored<D>>> {
        let position: Option<DuePlace<D>> = page.position(D::KIND.due())?;
        let (kind, now) = (D::KIND.code(), time::nanos("now", now)?);
        let (list, limit, onward) = (D::KIND.due(), page.limit(), Onward::rising(position.clone()));
        let read = |row: &Row<'_>| {
            let found = read::<D>(row)?;
            Ok(((column(row, 2)?, found.doc.id().clone()), found))
        };
        match position {
            None => self.page(list, DUE, params![kind, now], onward, limit, read),
            Some((at, id)) => {
                self.page(list, DUE_AFTER, params![kind, now, at, id.as_ref()], onward, limit, read)
            }
        }
    }

    fn mark_scheduled_run(
        &self,
        id: &D::Id,
        ran_at: DateTime<Utc>,
        next: Option<DateTime<Utc>>,
    ) -> Result<()> {
        check_times(ran_at, next)?;
        self.set_run_state::<D>(id, &RunState::marked(ran_at, next))
    }

    fn reschedule(&self, id: &D::Id, next: Option<DateTime<Utc>>) -> Result<()> {
        next.map(|next| time::nanos("next_run_at", next)).transpose()?;
        let state = self.run_state::<D>(id)?;
        self.set_run_state::<D>(id, &state.rescheduled(next))
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
        let claim = |(due_at, found): (i64, Stored<D>)| {
            let lease = Lease::grant(worker, LeaseToken(self.next_number()?), now, length)?;
            let state = found.doc.schedule().map(|schedule| schedule.run_state()).unwrap_or_default();
            let state = RunState { lease: Some(lease.clone()), ..state };
            self.set_run_state::<D>(found.doc.id(), &state)?;
            let doc = Arc::new(rules::assemble(Arc::unwrap_or_clone(found.doc), state));
            let stored = Stored { doc, revision: found.revision };
            Ok(Claim { stored, due_at: time::from_nanos(due_at), lease })
        };
        self.claimable::<D>(now, max)?.into_iter().map(claim).collect()
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
        check_times(ran_at, next)?;
        self.held::<D>(id, token, now)?;
        self.set_run_state::<D>(id, &RunState::marked(ran_at, next))
    }

    fn renew_claim(
        &self,
        id: &D::Id,
        token: LeaseToken,
        now: DateTime<Utc>,
        length: Duration,
    ) -> Result<Lease> {
        lease::end(now, length)?;
        let (state, lease) = self.held::<D>(id, token, now)?;
        let lease = lease.renewed(now, length)?;
        self.set_run_state::<D>(id, &RunState { lease: Some(lease.clone()), ..state })?;
        Ok(lease)
    }

    fn release_claim(&self, id: &D::Id, token: LeaseToken, now: DateTime<Utc>) -> Result<()> {
        time::nanos("now", now)?;
        let (state, _) = self.held::<D>(id, token, now)?;
        self.set_run_state::<D>(id, &RunState { lease: None, ..state })
    }
}

/// Checks the times of a mark before anything is asked of the database.
fn check_times(ran_at: DateTime<Utc>, next: Option<DateTime<Utc>>) -> Result<()> {
    time::nanos("ran_at", ran_at)?;
    next.map_or(Ok(()), |next| time::nanos("next_run_at", next).map(drop))
}

impl AgentStore for Tx<'_> {
    fn by_webhook(&self, digest: &SecretDigest) -> Result<Option<Stored<Agent>>> {
        let sql = concat!("SELECT ", columns!(), " FROM definitions d WHERE webhook = ?1");
        let found = self.first(sql, [digest.to_string()], read::<Agent>)?;
        // Found by an index, confirmed in constant time.
        Ok(found.filter(|found| found.doc.webhook.as_ref() == Some(digest)))
    }

    fn by_channel(&self, channel: &ChannelId, page: &PageRequest) -> Result<Page<Stored<Agent>>> {
        let after: Option<AgentId> = page.position(List::ChannelAgents)?;
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM facets f CROSS JOIN definitions d ON d.kind = f.kind AND d.id = f.id \
             WHERE f.kind = ?1 AND f.field = 'channel' AND f.term = ?2 AND f.id > ?3 ORDER BY f.id"
        );
        let params =
            params![Agent::KIND.code(), channel.as_str(), after.as_ref().map_or("", AgentId::as_str)];
        let found = self.take(sql, params, Onward::rising(after.clone()), page.limit() + 1, |row| {
            let found = read::<Agent>(row)?;
            Ok((found.doc.id.clone(), found.doc.channel_filter.contains(channel).then_some(found)))
        })?;
        Page::cut(List::ChannelAgents, page, found, |found| found.doc.id.clone())
    }
}

#[cfg(test)]
mod tests {
    use store_api::{Skill, Tag};

    use super::*;
    use crate::connection::plan;

    /// Lists page by an index in their order and sort nothing.
    #[test]
    fn lists_page_by_an_index() {
        let owner = PrincipalId::new("o").ok();
        for (filter, index) in [
            (DefinitionFilter::default(), "sqlite_autoindex_definitions_1"),
            (DefinitionFilter { owner: owner.clone(), ..Default::default() }, "definitions_owner"),
            (
                DefinitionFilter { tag: Tag::new("t").ok(), ..Default::default() },
                "SEARCH f USING PRIMARY KEY",
            ),
            (DefinitionFilter { visible_to: owner, ..Default::default() }, "sqlite_autoindex_definitions_1"),
        ] {
            let plan = plan(&list_query::<Skill>(&filter, "").0);
            assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{filter:?}: {plan}");
        }
        for due in [DUE, DUE_AFTER] {
            let plan = plan(due);
            assert!(plan.contains("definitions_due") && !plan.contains("TEMP B-TREE"), "{plan}");
        }
    }
}
