//! Indexes: which entries a record has in them, derived from the record in one place. Every change writes the
//! difference between what this says before and after; `verify` compares it with what is there.

use chrono::{DateTime, Utc};
use store_api::budget::{AccountKey, Charged};
use store_api::{Definition, Kind, Result, Run, RunId, RunState, RunStatus, VersionId, time};

use crate::keys::{self, Facet, Key, RunList};
use crate::tables::{CHARGE_EXPIRIES, DUE, FACETS, NAMES, RUN_LISTS, Table, VERSION_IDS, WEBHOOKS};

/// One entry of an index table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) table: Table,
    pub(crate) key: Key,
    /// What the entry leads to, where its key does not say it.
    pub(crate) body: Vec<u8>,
}

impl IndexEntry {
    /// An entry whose key says everything.
    fn plain(table: Table, key: Key) -> Self {
        IndexEntry { table, key, body: Vec::new() }
    }

    /// An entry that leads to an id.
    fn leading_to(table: Table, key: Key, id: &str) -> Self {
        IndexEntry { table, key, body: id.into() }
    }
}

/// The entries of a definition's document.
pub(crate) fn of_definition<D: Definition>(doc: &D) -> Vec<IndexEntry> {
    let id = doc.id().as_ref();
    let facet = |facet, term: &str| IndexEntry::plain(FACETS, keys::facet(D::KIND, facet, term).text(id));
    let name = keys::name(D::KIND, doc.owner().as_str(), doc.name().as_str());
    let mut entries =
        vec![IndexEntry::leading_to(NAMES, name, id), facet(Facet::Owner, doc.owner().as_str())];
    entries.extend(doc.tags().iter().map(|tag| facet(Facet::Tag, tag.as_str())));
    entries
        .extend(doc.channels().into_iter().flatten().map(|channel| facet(Facet::Channel, channel.as_str())));
    let webhook = doc.webhook().map(|digest| Key::new().text(&digest.to_string()));
    entries.extend(webhook.map(|key| IndexEntry::leading_to(WEBHOOKS, key, id)));
    entries
}

/// The entry of a run state: it is on the due list exactly while it has a next time.
///
/// # Errors
/// `InvalidInput` for a time outside the range, which no stored state has.
pub(crate) fn of_run_state(kind: Kind, id: &str, state: &RunState) -> Result<Vec<IndexEntry>> {
    let Some(next) = state.next_run_at else { return Ok(Vec::new()) };
    let key = keys::due(kind, time::nanos("next_run_at", next)?, id);
    Ok(vec![IndexEntry::plain(DUE, key)])
}

/// The entry of a version: from its id to its place.
pub(crate) fn of_version(id: &VersionId, place: &Key) -> Vec<IndexEntry> {
    vec![IndexEntry { table: VERSION_IDS, key: Key::new().text(id.as_str()), body: place.to_vec() }]
}

/// The entry of a charge.
pub(crate) fn of_charge(account: &AccountKey, key: &str, charged: &Charged) -> Vec<IndexEntry> {
    let key = keys::account(account).signed(charged.expires_at).text(key);
    vec![IndexEntry::plain(CHARGE_EXPIRIES, key)]
}

/// The entry of a run in one list.
fn of_list(list: RunList, term: Option<&str>, started_at: i64, id: &RunId) -> IndexEntry {
    IndexEntry::plain(RUN_LISTS, keys::run_list(list, term).signed(started_at).text(id.as_str()))
}

/// The entry of a run that changes when it ends.
///
/// # Errors
/// As [`of_run`].
pub(crate) fn of_status(id: &RunId, started_at: DateTime<Utc>, status: RunStatus) -> Result<IndexEntry> {
    let started_at = time::nanos("started_at", started_at)?;
    Ok(of_list(RunList::Status, Some(status.as_str()), started_at, id))
}

/// The entries of a run: one in each list that it belongs to.
///
/// # Errors
/// `InvalidInput` for a time outside the range, which no stored run has.
pub(crate) fn of_run(run: &Run) -> Result<Vec<IndexEntry>> {
    let started_at = time::nanos("started_at", run.started_at)?;
    let entry = |list, term| of_list(list, term, started_at, &run.id);
    let mut entries = vec![
        entry(RunList::All, None),
        entry(RunList::Parent, run.parent.as_ref().map(|parent| parent.as_str())),
        entry(RunList::Caller, Some(run.caller.as_str())),
        entry(RunList::Status, Some(run.status.as_str())),
    ];
    entries.extend(run.skill.as_ref().map(|skill| entry(RunList::Skill, Some(skill.as_str()))));
    entries.extend(run.agent.as_ref().map(|agent| entry(RunList::Agent, Some(agent.as_str()))));
    entries.extend(run.channel.as_ref().map(|channel| entry(RunList::Channel, Some(channel.as_str()))));
    Ok(entries)
}
