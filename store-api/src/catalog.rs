//! The catalog: definitions with revisions, versions and schedules. One trait serves skills and agents.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::json::{Extra, Weigh};
use crate::{
    Agent, ChannelId, Definition, DefinitionFilter, Lease, LeaseToken, Name, Page, PageRequest, PrincipalId,
    Result, Revision, SecretDigest, Skill, VersionId, WorkerId, time,
};

/// The edit of an [`update`](Catalog::update). Whoever commits for several writers runs it on its own thread, and it may
/// be run again, on what is stored then ([`Store::transaction`](crate::Store::transaction) says when).
pub type Edit<'a, D> = &'a mut (dyn FnMut(&mut D) -> Result<()> + Send);

/// What a save expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// Whatever is there, or nothing.
    Any,
    /// Nothing: the definition is new.
    Absent,
    /// Exactly this revision.
    Revision(Revision),
}

/// A definition as it is stored: the document, shared and not copied, and its revision.
///
/// Dereferences to the document.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Stored<D> {
    /// The document, with the run state of its schedule put in.
    pub doc: Arc<D>,
    /// Which saved state this is. Marks and claims do not change it.
    pub revision: Revision,
}

impl<D> Deref for Stored<D> {
    type Target = D;
    fn deref(&self) -> &D {
        &self.doc
    }
}

/// A version to append. It is a version of the definition that the snapshot is of.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(bound(deserialize = "D: Definition"))]
pub struct NewVersion<D> {
    /// Chosen by the host, unique in the store: what makes an append safe to send again.
    pub id: VersionId,
    /// The definition as it is to be kept. The run state of its schedule is left out.
    pub snapshot: D,
    /// A short name (`v2`, `before the rewrite`).
    #[serde(default)]
    pub label: String,
    /// Who saved it.
    pub saved_by: PrincipalId,
    /// When it was saved, by the host's clock. The order of versions does not depend on it.
    pub saved_at: DateTime<Utc>,
    /// What changed.
    #[serde(default)]
    pub summary: String,
    /// Whether pruning leaves it alone.
    #[serde(default)]
    pub pinned: bool,
    /// Fields that this version of the library does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

impl<D: Definition> NewVersion<D> {
    pub(crate) const FIELDS: &'static [&'static str] =
        &["id", "seq", "snapshot", "label", "saved_by", "saved_at", "summary", "pinned"];

    /// A version with the least that it needs.
    pub fn new(id: VersionId, snapshot: D, saved_by: PrincipalId, saved_at: DateTime<Utc>) -> Self {
        NewVersion {
            id,
            snapshot,
            label: String::new(),
            saved_by,
            saved_at,
            summary: String::new(),
            pinned: false,
            extra: Extra::new(),
        }
    }

    /// Checks sizes, depth, times and the snapshot.
    ///
    /// # Errors
    /// `InvalidInput` naming the field.
    pub fn validate(&self) -> Result<()> {
        self.snapshot.validate()?;
        time::nanos("saved_at", self.saved_at)?;
        let mut weigh = Weigh::new();
        weigh.text("label", &self.label)?;
        weigh.text("summary", &self.summary)?;
        weigh.extra("extra", &self.extra, Self::FIELDS)
    }
}

/// A version of a definition: a snapshot that never changes (law SEQ-5).
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Version<D> {
    /// Its number among the versions of its definition: 1, 2, 3 … (law SEQ-1).
    pub seq: u64,
    /// What was appended.
    #[serde(flatten)]
    pub content: NewVersion<D>,
}

/// The number is taken out of the content's unknown fields: flattened as it is written, every other field would be read
/// twice.
impl<'de, D: Definition> Deserialize<'de> for Version<D> {
    fn deserialize<F: Deserializer<'de>>(from: F) -> std::result::Result<Self, F::Error> {
        let mut content = NewVersion::<D>::deserialize(from)?;
        let seq = content.extra.remove("seq").ok_or_else(|| F::Error::missing_field("seq"))?;
        Ok(Version { seq: u64::deserialize(seq).map_err(F::Error::custom)?, content })
    }
}

impl<D> Deref for Version<D> {
    type Target = NewVersion<D>;
    fn deref(&self) -> &NewVersion<D> {
        &self.content
    }
}

/// What [`Catalog::publish`] stored.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Published<D> {
    /// The definition's new revision.
    pub revision: Revision,
    /// The version that was appended.
    pub version: Arc<Version<D>>,
}

/// A due definition that a worker has claimed.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Claim<D> {
    /// The definition; its schedule shows the lease.
    pub stored: Stored<D>,
    /// The occurrence that was due.
    pub due_at: DateTime<Utc>,
    /// What the worker holds: its token finishes, renews or releases the claim.
    pub lease: Lease,
}

/// Definitions of one kind: documents, versions, schedules.
///
/// Object-safe; a store and a transaction on it both give one. Absence is `None` in a read and `NotFound` in a write.
pub trait Catalog<D: Definition> {
    /// The definition with this id.
    ///
    /// # Guarantees
    /// DOC-1, MARK-1, ROT-1.
    /// # Errors
    /// None of its own.
    fn get(&self, id: &D::Id) -> Result<Option<Stored<D>>>;

    /// The definition with this name of this owner.
    ///
    /// # Guarantees
    /// DOC-2, DOC-1.
    /// # Errors
    /// None of its own.
    fn by_name(&self, owner: &PrincipalId, name: &Name) -> Result<Option<Stored<D>>>;

    /// The definitions that match.
    ///
    /// # Order
    /// By id, by bytes.
    /// # Guarantees
    /// PAGE-1, DOC-1.
    /// # Errors
    /// `InvalidInput` for a cursor of another list.
    fn list(&self, filter: &DefinitionFilter, page: &PageRequest) -> Result<Page<Stored<D>>>;

    /// Stores the document, if the stored one is as expected, and gives its new revision.
    ///
    /// The stored run state stays when the saved schedule has the same expression and zone, whatever the saved
    /// copy says of it. Otherwise the document's `next_run_at` is taken (and for a definition or schedule that is
    /// new its `last_run_at`), and a lease ends. A definition without a schedule has no run state.
    ///
    /// # Guarantees
    /// DOC-1, DOC-2, DOC-3, MARK-3.
    /// # Errors
    /// `InvalidInput` naming the field; `AlreadyExists` when it was to be absent, or another definition has the
    /// name or the webhook; `NotFound` when a revision was expected and nothing is there; `Conflict` when another
    /// revision is.
    fn save(&self, doc: &D, expect: Expect) -> Result<Revision>;

    /// Reads, edits and saves in one atomic step; gives what was stored. An error of `edit` changes nothing.
    ///
    /// `edit` must not call the store. It may not change the id.
    ///
    /// # Guarantees
    /// DOC-1, DOC-3 (no edit is lost), MARK-3, TXN-2.
    /// # Errors
    /// `NotFound`; as [`save`](Catalog::save); whatever `edit` gives.
    fn update(&self, id: &D::Id, edit: Edit<'_, D>) -> Result<Stored<D>>;

    /// Removes the definition and its versions. Runs stay.
    ///
    /// # Guarantees
    /// DOC-2 (its name is free at once), DOC-3, SEQ-1 (the same id starts at version 1 again).
    /// # Errors
    /// `NotFound`; `Conflict` when another revision is stored; `InvalidInput` for [`Expect::Absent`].
    fn delete(&self, id: &D::Id, expect: Expect) -> Result<()>;

    /// Appends a version, numbered by the store, in one atomic step.
    ///
    /// # Guarantees
    /// SEQ-1, SEQ-3, SEQ-4, SEQ-5.
    /// # Errors
    /// `NotFound` when the definition does not exist; `AlreadyExists` when the version id does; `InvalidInput`
    /// naming the field.
    fn append_version(&self, version: &NewVersion<D>) -> Result<Arc<Version<D>>>;

    /// The versions of a definition; none when it does not exist.
    ///
    /// # Order
    /// Newest first, by seq.
    /// # Guarantees
    /// SEQ-2, SEQ-5, PAGE-1, ROT-1.
    /// # Errors
    /// `InvalidInput` for a cursor of another list.
    fn versions(&self, id: &D::Id, page: &PageRequest) -> Result<Page<Arc<Version<D>>>>;

    /// The version with this id.
    ///
    /// # Guarantees
    /// SEQ-5, ROT-1.
    /// # Errors
    /// None of its own.
    fn version(&self, id: &VersionId) -> Result<Option<Arc<Version<D>>>>;

    /// The version with the highest seq.
    ///
    /// # Guarantees
    /// SEQ-2, SEQ-5.
    /// # Errors
    /// None of its own.
    fn latest(&self, id: &D::Id) -> Result<Option<Arc<Version<D>>>>;

    /// Saves the snapshot of a version as the current document, and gives what was stored. The run state stays as
    /// in [`save`](Catalog::save); when the snapshot's schedule says other times it is on no due list until
    /// [`reschedule`](Catalog::reschedule) puts it there. No version is appended.
    ///
    /// # Guarantees
    /// SEQ-5, DOC-2, DOC-3, MARK-3.
    /// # Errors
    /// `NotFound` when the version or its definition does not exist; as [`save`](Catalog::save).
    fn restore(&self, version: &VersionId, expect: Expect) -> Result<Stored<D>>;

    /// Pins a version, so that pruning leaves it alone, or unpins it.
    ///
    /// # Guarantees
    /// SEQ-5 (nothing else of it changes).
    /// # Errors
    /// `NotFound`.
    fn pin_version(&self, version: &VersionId, pinned: bool) -> Result<()>;

    /// Removes all but the `keep` newest versions and the pinned ones; gives how many it removed.
    ///
    /// # Guarantees
    /// SEQ-1 (no number comes back).
    /// # Errors
    /// `NotFound` when the definition does not exist.
    fn prune_versions(&self, id: &D::Id, keep: usize) -> Result<u64>;

    /// Saves the snapshot of `version` as the current document and appends the version, in one atomic step.
    ///
    /// # Guarantees
    /// TXN-1, DOC-1, DOC-2, DOC-3, SEQ-1, SEQ-3, SEQ-4.
    /// # Errors
    /// As [`save`](Catalog::save) and [`append_version`](Catalog::append_version).
    fn publish(&self, version: &NewVersion<D>, expect: Expect) -> Result<Published<D>>;

    /// The definitions whose `next_run_at` is at or before `now`, claimed or not.
    ///
    /// # Order
    /// By `next_run_at`, then id.
    /// # Guarantees
    /// MARK-1, MARK-4, PAGE-1.
    /// # Errors
    /// `InvalidInput` for a cursor of another list or a time outside the range.
    fn due(&self, now: DateTime<Utc>, page: &PageRequest) -> Result<Page<Stored<D>>>;

    /// Records a run: `last_run_at` becomes `ran_at` and `next_run_at` becomes `next`, together; a lease on the
    /// occurrence ends. Nothing else changes, also not the revision.
    ///
    /// # Guarantees
    /// MARK-1, MARK-2, MARK-3, MARK-4.
    /// # Errors
    /// `NotFound` when the definition does not exist or has no schedule; `InvalidInput` for a time outside the range.
    fn mark_scheduled_run(
        &self,
        id: &D::Id,
        ran_at: DateTime<Utc>,
        next: Option<DateTime<Utc>>,
    ) -> Result<()>;

    /// Moves `next_run_at` alone; a lease on the occurrence that was due ends.
    ///
    /// # Guarantees
    /// MARK-1, MARK-2, MARK-3, MARK-4.
    /// # Errors
    /// As [`mark_scheduled_run`](Catalog::mark_scheduled_run).
    fn reschedule(&self, id: &D::Id, next: Option<DateTime<Utc>>) -> Result<()>;

    /// Claims up to `max` due occurrences that nobody holds, for `lease` from `now`.
    ///
    /// # Order
    /// By `next_run_at`, then id.
    /// # Guarantees
    /// MARK-5, MARK-2.
    /// # Errors
    /// `InvalidInput` for a lease of zero or above [`MAX_LEASE`](crate::lease::MAX_LEASE), a `max` of zero or above
    /// [`MAX_PAGE`](crate::page::MAX_PAGE), a time outside the range.
    fn claim_due(
        &self,
        now: DateTime<Utc>,
        worker: &WorkerId,
        lease: Duration,
        max: usize,
    ) -> Result<Vec<Claim<D>>>;

    /// Marks a claimed occurrence as run, as [`mark_scheduled_run`](Catalog::mark_scheduled_run) does, if the
    /// claim still holds at `now`.
    ///
    /// # Guarantees
    /// MARK-5, MARK-1, MARK-2.
    /// # Errors
    /// `LeaseLost`; `NotFound` when the definition does not exist or has no schedule; `InvalidInput`.
    fn finish_claim(
        &self,
        id: &D::Id,
        token: LeaseToken,
        now: DateTime<Utc>,
        ran_at: DateTime<Utc>,
        next: Option<DateTime<Utc>>,
    ) -> Result<()>;

    /// Holds a claim for `lease` from `now`, never shorter than before.
    ///
    /// # Guarantees
    /// MARK-5, MARK-2.
    /// # Errors
    /// As [`finish_claim`](Catalog::finish_claim).
    fn renew_claim(
        &self,
        id: &D::Id,
        token: LeaseToken,
        now: DateTime<Utc>,
        lease: Duration,
    ) -> Result<Lease>;

    /// Gives a claim back: the occurrence is due and claimable again.
    ///
    /// # Guarantees
    /// MARK-5, MARK-2.
    /// # Errors
    /// As [`finish_claim`](Catalog::finish_claim).
    fn release_claim(&self, id: &D::Id, token: LeaseToken, now: DateTime<Utc>) -> Result<()>;
}

/// The catalog of skills.
pub trait SkillStore: Catalog<Skill> {}
impl<T: ?Sized + Catalog<Skill>> SkillStore for T {}

/// The catalog of agents, with the two look-ups that only agents have.
pub trait AgentStore: Catalog<Agent> {
    /// The agent whose webhook has this digest. Make it with the key that the agent's digest was made with
    /// ([`DigestKey::digest`](crate::DigestKey::digest)); a secret itself never reaches a store.
    ///
    /// # Guarantees
    /// SEC-1, DOC-2.
    /// # Errors
    /// None of its own.
    fn by_webhook(&self, digest: &SecretDigest) -> Result<Option<Stored<Agent>>>;

    /// The agents whose channel filter names this channel.
    ///
    /// # Order
    /// By id.
    /// # Guarantees
    /// DOC-2, PAGE-1.
    /// # Errors
    /// `InvalidInput` for a cursor of another list.
    fn by_channel(&self, channel: &ChannelId, page: &PageRequest) -> Result<Page<Stored<Agent>>>;
}
