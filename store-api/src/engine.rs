//! For engines: implement [`Transactional`] on the store and [`EngineTx`] on its transaction, and the store is a
//! [`Store`].
//!
//! The blanket implementations here run each call as a transaction or a snapshot of its own, refuse nested calls
//! and writes in snapshots, and doom a transaction after any error that is not a refusal, so no engine has to.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::record::ImportCheck;
use crate::*;

/// What an engine's author writes. The seams are implemented once, on the transaction.
pub trait Transactional: Send + Sync + 'static {
    /// The identity of this open store: make one when it is opened.
    fn identity(&self) -> &Identity;

    /// Runs `work` on one consistent view of everything that was committed before.
    ///
    /// # Errors
    /// `Busy`, `Closed`, `Backend`; what `work` gives.
    fn read<R>(&self, work: impl FnOnce(&dyn EngineTx) -> Result<R>) -> Result<R>;

    /// The same for `work` that makes a single call of one seam. Its view may be as late as the first look that the
    /// call takes, because nobody can tell the difference: an engine may find that cheaper.
    ///
    /// # Errors
    /// As [`Transactional::read`].
    fn read_once<R>(&self, work: impl FnOnce(&dyn EngineTx) -> Result<R>) -> Result<R> {
        self.read(work)
    }

    /// Runs `work` alone among writers, once and on the caller's thread, then commits; or undoes all that it did, when it
    /// gives an error or panics or the commit fails.
    ///
    /// # Errors
    /// `Busy` after waiting as long as the store was opened to wait; `Closed`, `Poisoned`, `Backend`; what `work`
    /// gives. A commit that may have happened says so in its [`Outcome`].
    fn write_by_itself<R>(&self, work: impl FnOnce(&dyn EngineTx) -> Result<R>) -> Result<R>;

    /// The same, in a transaction that writers may share. Should all of it have to be undone for the sake of one of them,
    /// the work of the others is run again, and what it gave before is forgotten.
    ///
    /// # Errors
    /// As [`Transactional::write_by_itself`].
    fn write<R: Send>(&self, work: impl FnMut(&dyn EngineTx) -> Result<R> + Send) -> Result<R> {
        self.write_by_itself(work)
    }

    /// [`Catalog::append_version`] by itself. An engine that makes bytes of a document can do so before its writer stands
    /// in line, and what it gives back afterwards: those behind it wait for neither then.
    ///
    /// # Errors
    /// As there.
    fn append_version_alone<D: Definition>(&self, version: &NewVersion<D>) -> Result<Arc<Version<D>>> {
        self.write(|tx| D::catalog(tx).append_version(version))
    }

    /// [`CheckpointStore::save`] by itself, for the same reason.
    ///
    /// # Errors
    /// As there.
    fn save_checkpoint_alone(&self, checkpoint: &Checkpoint) -> Result<()> {
        self.write(|tx| tx.checkpoints().save(checkpoint))
    }

    /// See [`Store::info`].
    fn info(&self) -> EngineInfo;
    /// See [`Store::verify`].
    ///
    /// # Errors
    /// As there.
    fn verify(&self) -> Result<Verification>;
    /// See [`Store::backup`].
    ///
    /// # Errors
    /// As there.
    fn backup(&self, to: &Path) -> Result<()>;
    /// See [`Store::close`].
    ///
    /// # Errors
    /// As there.
    fn close(&self) -> Result<()>;
}

/// A transaction of an engine: the seams, and the record stream.
///
/// A seam's method checks first and writes after, so that a refusal changes nothing; it calls no closure of the
/// host while it holds anything that a second call would need.
pub trait EngineTx: Seams {
    /// Hands every record to `sink`, in the order that [`Record`] documents.
    ///
    /// # Errors
    /// What `sink` gives.
    fn export(&self, sink: &mut dyn FnMut(Record) -> Result<()>) -> Result<()>;

    /// Whether the store holds no record at all (the counter does not count).
    ///
    /// # Errors
    /// None of its own.
    fn is_empty(&self) -> Result<bool>;

    /// Stores one record as it is, with its seq and revision. It was checked, it comes in order, the store was empty.
    ///
    /// # Errors
    /// `AlreadyExists` for a name, webhook or version id that is taken.
    fn put(&self, record: Record) -> Result<()>;
}

/// Tells open stores apart, so that a call from inside a store's own transaction is found out.
#[derive(Debug)]
pub struct Identity(u64);

impl Identity {
    /// A new identity, unlike any other in this process.
    #[allow(clippy::new_without_default)] // each is another, so there is no default one
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Identity(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Marks this thread as inside a call of the store until the guard is dropped.
    fn enter(&self) -> Result<Inside> {
        INSIDE.with_borrow_mut(|inside| {
            if inside.contains(&self.0) {
                return Err(Error::Nested);
            }
            inside.push(self.0);
            Ok(Inside(PhantomData))
        })
    }
}

thread_local! {
    /// The stores whose calls this thread is inside of.
    static INSIDE: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Stays on its thread.
struct Inside(PhantomData<*const ()>);

impl Drop for Inside {
    fn drop(&mut self) {
        // Guards live on the stack of one thread, so the last one made is the first to go.
        INSIDE.with_borrow_mut(Vec::pop);
    }
}

/// Where a seam's calls go: to a transaction of their own (a store), or to the one that is open ([`Guarded`]).
/// Each seam is implemented once, for everything that dispatches.
trait Dispatch {
    fn read<R>(&self, call: impl FnOnce(&dyn Seams) -> Result<R>) -> Result<R>;
    fn write<R: Send>(&self, call: impl FnMut(&dyn Seams) -> Result<R> + Send) -> Result<R>;

    fn append_version<D: Definition>(&self, version: &NewVersion<D>) -> Result<Arc<Version<D>>> {
        self.write(|seams| D::catalog(seams).append_version(version))
    }

    fn save_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        self.write(|seams| seams.checkpoints().save(checkpoint))
    }
}

/// A call by itself needs no guard: it is of the right kind, nothing comes after it that it could doom, and the host
/// has no transaction in hand to call from inside an edit.
impl<T: Transactional> Dispatch for T {
    fn read<R>(&self, call: impl FnOnce(&dyn Seams) -> Result<R>) -> Result<R> {
        let _inside = self.identity().enter()?;
        self.read_once(|tx| call(tx))
    }

    fn write<R: Send>(&self, mut call: impl FnMut(&dyn Seams) -> Result<R> + Send) -> Result<R> {
        let _inside = self.identity().enter()?;
        Transactional::write(self, |tx| call(tx))
    }

    fn append_version<D: Definition>(&self, version: &NewVersion<D>) -> Result<Arc<Version<D>>> {
        let _inside = self.identity().enter()?;
        self.append_version_alone(version)
    }

    fn save_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        let _inside = self.identity().enter()?;
        self.save_checkpoint_alone(checkpoint)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// An open transaction as its work sees it: refuses writes in a snapshot and calls from inside an edit, and stays
/// doomed after the first error that is not a refusal (law TXN-2).
struct Guarded<'a> {
    tx: &'a dyn EngineTx,
    access: Access,
    in_call: Cell<bool>,
    doom: RefCell<Option<Error>>,
}

impl<'a> Guarded<'a> {
    fn run<R>(
        tx: &'a dyn EngineTx,
        access: Access,
        work: impl FnOnce(&Guarded<'a>) -> Result<R>,
    ) -> Result<R> {
        let guarded = Guarded { tx, access, in_call: Cell::new(false), doom: RefCell::new(None) };
        let result = work(&guarded);
        match guarded.doom.take() {
            Some(doom) => Err(doom),
            None => result,
        }
    }

    fn call<R>(&self, call: impl FnOnce(&dyn Seams) -> Result<R>) -> Result<R> {
        if let Some(doom) = &*self.doom.borrow() {
            return Err(doom.clone());
        }
        if self.in_call.replace(true) {
            return Err(Error::Nested);
        }
        let done = InCall { guarded: self, finished: Cell::new(false) };
        let result = call(self.tx);
        done.finished.set(true);
        if let Err(error) = &result
            && !error.is_refusal()
        {
            *self.doom.borrow_mut() = Some(error.clone());
        }
        result
    }
}

/// Ends a call also when it panics; a call that panicked half way dooms the transaction, should its work go on.
struct InCall<'a, 'tx> {
    guarded: &'a Guarded<'tx>,
    finished: Cell<bool>,
}

impl Drop for InCall<'_, '_> {
    fn drop(&mut self) {
        self.guarded.in_call.set(false);
        if !self.finished.get() {
            let doom =
                Error::Unsupported { operation: "going on with a transaction after a panic in it".into() };
            *self.guarded.doom.borrow_mut() = Some(doom);
        }
    }
}

impl Dispatch for Guarded<'_> {
    fn read<R>(&self, call: impl FnOnce(&dyn Seams) -> Result<R>) -> Result<R> {
        self.call(call)
    }

    fn write<R: Send>(&self, mut call: impl FnMut(&dyn Seams) -> Result<R> + Send) -> Result<R> {
        self.call(|tx| if self.access == Access::Write { call(tx) } else { Err(Error::ReadOnly) })
    }
}

impl<T: Transactional> Store for T {
    fn transaction(&self, work: Work<'_>) -> Result<()> {
        let _inside = self.identity().enter()?;
        Transactional::write(self, |tx| Guarded::run(tx, Access::Write, |guarded| work(guarded)))
    }

    fn snapshot(&self, work: View<'_>) -> Result<()> {
        let _inside = self.identity().enter()?;
        Transactional::read(self, |tx| Guarded::run(tx, Access::Read, |guarded| work(guarded)))
    }

    fn info(&self) -> EngineInfo {
        Transactional::info(self)
    }

    fn verify(&self) -> Result<Verification> {
        let _inside = self.identity().enter()?;
        Transactional::verify(self)
    }

    fn backup(&self, to: &Path) -> Result<()> {
        let _inside = self.identity().enter()?;
        Transactional::backup(self, to)
    }

    fn export(&self, sink: &mut dyn FnMut(Record) -> Result<()>) -> Result<()> {
        let _inside = self.identity().enter()?;
        Transactional::read(self, |tx| tx.export(sink))
    }

    fn import(&self, records: Records<'_>) -> Result<ImportReport> {
        let _inside = self.identity().enter()?;
        self.write_by_itself(|tx| {
            if !tx.is_empty()? {
                return Err(Error::conflict(Entity::Store, "import", "the store is not empty"));
            }
            let mut check = ImportCheck::default();
            for record in records {
                let record = record?;
                check.check(&record)?;
                tx.put(record)?;
            }
            check.finish()
        })
    }

    fn close(&self) -> Result<()> {
        let _inside = self.identity().enter()?;
        Transactional::close(self)
    }
}

impl<T: Dispatch> Seams for T {
    fn skills(&self) -> &dyn SkillStore {
        self
    }
    fn agents(&self) -> &dyn AgentStore {
        self
    }
    fn budgets(&self) -> &dyn BudgetStore {
        self
    }
    fn audit(&self) -> &dyn AuditStore {
        self
    }
    fn checkpoints(&self) -> &dyn CheckpointStore {
        self
    }
}

/// Implements a seam for everything that dispatches: `read` and `write` name the kind of each call.
macro_rules! dispatch {
    ($seam:ident => $($how:ident $method:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        $(fn $method(&self, $($arg: $type),*) -> Result<$out> {
            Dispatch::$how(self, |seams| seams.$seam().$method($($arg),*))
        })*
    };
    (catalog of $d:ident => $($how:ident $method:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        $(fn $method(&self, $($arg: $type),*) -> Result<$out> {
            Dispatch::$how(self, |seams| $d::catalog(seams).$method($($arg),*))
        })*
    };
}

type Time = DateTime<Utc>;

impl<T: Dispatch, D: Definition> Catalog<D> for T {
    dispatch! { catalog of D =>
        read get(id: &D::Id) -> Option<Stored<D>>;
        read by_name(owner: &PrincipalId, name: &Name) -> Option<Stored<D>>;
        read list(filter: &DefinitionFilter, page: &PageRequest) -> Page<Stored<D>>;
        write save(doc: &D, expect: Expect) -> Revision;
        write update(id: &D::Id, edit: Edit<'_, D>) -> Stored<D>;
        write delete(id: &D::Id, expect: Expect) -> ();
        read versions(id: &D::Id, page: &PageRequest) -> Page<Arc<Version<D>>>;
        read version(id: &VersionId) -> Option<Arc<Version<D>>>;
        read latest(id: &D::Id) -> Option<Arc<Version<D>>>;
        write restore(version: &VersionId, expect: Expect) -> Stored<D>;
        write pin_version(version: &VersionId, pinned: bool) -> ();
        write prune_versions(id: &D::Id, keep: usize) -> u64;
        write publish(version: &NewVersion<D>, expect: Expect) -> Published<D>;
        read due(now: Time, page: &PageRequest) -> Page<Stored<D>>;
        write mark_scheduled_run(id: &D::Id, ran_at: Time, next: Option<Time>) -> ();
        write reschedule(id: &D::Id, next: Option<Time>) -> ();
        write claim_due(now: Time, worker: &WorkerId, lease: Duration, max: usize) -> Vec<Claim<D>>;
        write finish_claim(id: &D::Id, token: LeaseToken, now: Time, ran_at: Time, next: Option<Time>) -> ();
        write renew_claim(id: &D::Id, token: LeaseToken, now: Time, lease: Duration) -> Lease;
        write release_claim(id: &D::Id, token: LeaseToken, now: Time) -> ();
    }

    fn append_version(&self, version: &NewVersion<D>) -> Result<Arc<Version<D>>> {
        Dispatch::append_version(self, version)
    }
}

impl<T: Dispatch> AgentStore for T {
    dispatch! { agents =>
        read by_webhook(digest: &SecretDigest) -> Option<Stored<Agent>>;
        read by_channel(channel: &ChannelId, page: &PageRequest) -> Page<Stored<Agent>>;
    }
}

impl<T: Dispatch> BudgetStore for T {
    dispatch! { budgets =>
        read usage(account: &Account, now: Time) -> Usage;
        write add(charge: &Charge, now: Time) -> Usage;
        write admit(charge: &Charge, limit: Amount, now: Time) -> Usage;
        write reserve(reservation: &Reservation, limit: Amount, now: Time) -> Usage;
        write settle(account: &Account, id: &ReservationId, actual: Amount, now: Time) -> Usage;
        write release(account: &Account, id: &ReservationId, now: Time) -> Usage;
        read reservations(account: &Account, now: Time) -> Vec<Reservation>;
        read accounts(now: Time, page: &PageRequest) -> Page<AccountUsage>;
        write reset(account: &Account) -> ();
    }
}

impl<T: Dispatch> AuditStore for T {
    dispatch! { audit =>
        write start_run(run: &NewRun) -> Arc<Run>;
        write finish_run(id: &RunId, finish: &Finish) -> ();
        write append_event(run: &RunId, event: &NewEvent) -> u64;
        read run(id: &RunId) -> Option<Arc<Run>>;
        read events(run: &RunId, page: &PageRequest) -> Page<Arc<Event>>;
        read runs(filter: &RunFilter, page: &PageRequest) -> Page<Arc<Run>>;
        read children(id: &RunId, page: &PageRequest) -> Page<Arc<Run>>;
        read ancestors(id: &RunId) -> Vec<Arc<Run>>;
        read last_run_of(skills: &[SkillId]) -> Vec<Arc<Run>>;
        read summary(filter: &RunFilter, group_by: GroupBy, page: &PageRequest) -> Page<SummaryRow>;
        write abandon_stale(before: Time, now: Time, max: usize) -> Vec<RunId>;
        write purge_before(before: Time, dry_run: bool) -> PurgeReport;
    }
}

impl<T: Dispatch> CheckpointStore for T {
    dispatch! { checkpoints =>
        read load(run: &RunId) -> Option<Arc<Checkpoint>>;
        write delete(run: &RunId) -> ();
        read interrupted(page: &PageRequest) -> Page<Interrupted>;
        write claim(run: &RunId, now: Time, worker: &WorkerId, lease: Duration) -> Lease;
        write claim_interrupted(now: Time, worker: &WorkerId, lease: Duration, max: usize) -> Vec<Interrupted>;
        write renew_claim(run: &RunId, token: LeaseToken, now: Time, lease: Duration) -> Lease;
        write release_claim(run: &RunId, token: LeaseToken, now: Time) -> ();
    }

    fn save(&self, checkpoint: &Checkpoint) -> Result<()> {
        Dispatch::save_checkpoint(self, checkpoint)
    }
}
