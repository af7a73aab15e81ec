//! Saboteurs: engines that are right but for one fault each. A law that no saboteur fails has no teeth.
//!
//! Each is the tiny engine behind a wrapper ([`Sabotaged`]) that bends one answer or one write, the way that real
//! engines have got it wrong. The wrapper sees every transaction twice: as it is, and as the store was before the
//! writer had waited for its turn. Faults that are races read from the second and write to the first, which is what
//! an engine does that reads before it locks.

mod bent;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::Write;
#[cfg(unix)]
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use store_api::{
    Durability, EngineInfo, EngineTx, Error, Identity, Kind, NewRun, Outcome, PrincipalId, Record, Result,
    RunId, Store, Transactional, Verification, json,
};

use crate::harness::{Facts, Harness, Instance};
use crate::tiny::TinyStore;
use bent::{Bent, Time};

/// Makes the faults and their table, so that none can be without a law and a story.
macro_rules! faults {
    ($($law:literal $fault:ident = $story:literal;)*) => {
        /// What a saboteur gets wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Fault {
            $(#[doc = $story] $fault,)*
        }

        impl Fault {
            /// All of them, in the order of the laws that they break.
            pub const ALL: &[Fault] = &[$(Fault::$fault,)*];

            /// The law that it breaks, by its id.
            pub fn law(self) -> &'static str {
                match self { $(Fault::$fault => $law,)* }
            }

            /// What the engine does.
            pub fn story(self) -> &'static str {
                match self { $(Fault::$fault => $story,)* }
            }
        }
    };
}

faults! {
    "SEQ-1" SeqFromNewest = "numbers a version one above the newest that is left, so pruning brings a number back";
    "SEQ-1" ReadErrorSwallowed = "takes a failed read of the last number for zero, now and then";
    "SEQ-2" VersionsByTime = "lists versions by their time of saving";
    "SEQ-3" UnguardedMax = "reads the highest number before it locks, and appends one above it";
    "SEQ-4" VersionIdSwallowed = "takes a second append of a version id for a repetition, and says yes";
    "SEQ-5" SnapshotFollowsSave = "keeps a reference to the document in a version, so a save changes it";
    "MARK-1" DueNotMoved = "moves the times in the document and forgets the due list";
    "MARK-1" LastRunForgotten = "moves `next_run_at` and not `last_run_at`";
    "MARK-2" MarkTouchesRevision = "marks by saving the document, under a new revision";
    "MARK-2" MarkDropsUnknown = "marks by writing the document without the fields it does not know";
    "MARK-3" MarkIsGetChangeSave = "reads the document before it locks, changes the times, and writes all of it back";
    "MARK-4" MarkOfNothing = "says yes to a mark of what does not exist";
    "MARK-5" ClaimNotStored = "gives claims out and does not store the lease";
    "MARK-5" LateHolderAccepted = "lets a worker finish whose lease is lost";
    "MARK-5" LeaseEndOffByOne = "lets a lease hold at its end";
    "WIN-1" AddIsGetChangePut = "reads what is used before it locks, adds, and writes the sum";
    "WIN-2" WindowOffByOne = "ends a window one nanosecond late";
    "WIN-3" LastWindowReported = "reports the last window after it ended";
    "WIN-4" OverflowSaturates = "swallows an overflowing add";
    "WIN-5" WindowInThePast = "opens a window at whatever time it is given, also before the one it has";
    "WIN-6" LimitCheckedEarly = "checks the limit before it locks, then adds";
    "WIN-6" KeyChargedTwice = "forgets the keys of charges";
    "WIN-6" HoldNeverLapses = "counts a hold until it is released";
    "WIN-7" BucketDroppedEarly = "drops the oldest bucket of a sliding window one bucket early";
    "DOC-1" UnknownDropped = "drops the fields that it does not know";
    "DOC-1" NanosTruncated = "keeps times to the millisecond";
    "DOC-1" BodyTrimmed = "trims white space off a text";
    "DOC-2" OldNameKept = "finds a definition under its old name after a rename";
    "DOC-3" StaleSaveWins = "saves against an old revision";
    "DOC-3" RevisionReused = "compares with the number of saves instead of the revision, which a delete resets";
    "AUD-1" EventSeqFromOldCount = "counts events before it locks";
    "AUD-2" LastFinishWins = "lets the second finish win";
    "AUD-3" ParentPurged = "purges the parent of a running run";
    "AUD-3" CycleWalked = "walks ancestors without remembering where it was";
    "CKP-1" StaleCheckpointWins = "saves a checkpoint of a lower iteration";
    "CKP-1" DeletedStillInterrupted = "deletes a checkpoint and goes on listing it";
    "PAGE-1" PagesUnsorted = "lists in the order that a hash gave";
    "PAGE-1" BoundaryDropped = "loses the last item of a page that another follows";
    "TXN-1" RunLeaksOnError = "keeps the runs that a failed transaction started";
    "TXN-1" RunLeaksOnPanic = "keeps the runs that a panicking transaction started";
    "TXN-1" SnapshotSeesLater = "reads runs anew inside a snapshot";
    "TXN-2" RefusedEditStored = "stores what an edit left behind when it failed";
    "TXN-2" DoomedCommits = "commits whatever happened";
    "TXN-2" NestedWaits = "waits for itself when it is called from inside its own transaction";
    "DUR-1" LastCommitForgotten = "forgets the last commit when it is reopened";
    "DUR-2" FlushFailureForgotten = "goes on after a failed flush as if nothing had happened";
    "OPEN-1" OpenTakesNumber = "takes a number of the counter each time it is opened";
    "OPEN-2" DoesNotWait = "says Busy at once";
    "ROT-1" DamageReturned = "reads back whatever can be parsed";
    "MOVE-1" LastSeqNotExported = "exports the highest number that is left instead of the last that was given";
    "MOVE-1" ChargesNotExported = "exports accounts without their keys";
    "SEC-1" FileForEverybody = "creates its file as the system likes it, for everybody to read";
}

/// The faults that only show when threads meet.
pub const RACES: [Fault; 6] = [
    Fault::UnguardedMax,
    Fault::MarkIsGetChangeSave,
    Fault::EventSeqFromOldCount,
    Fault::AddIsGetChangePut,
    Fault::LimitCheckedEarly,
    Fault::ClaimNotStored,
];

/// The laws that have no saboteur, and why. A law that cannot be broken here would be listed with its reason.
pub const WITHOUT_SABOTEUR: &[(&str, &str)] = &[];

/// How long a saboteur of races leaves the door open.
const GAP: Duration = Duration::from_millis(1);

/// The tiny engine with a fault, or behind the same wrapper without one.
#[derive(Debug)]
pub struct Sabotaged {
    inner: TinyStore,
    fault: Option<Fault>,
    memory: Mutex<Memory>,
}

/// What some faults need to remember.
#[derive(Debug, Default)]
struct Memory {
    /// Where the due list still has what was marked.
    due: Vec<(Kind, String, Time)>,
    names: BTreeMap<(Kind, PrincipalId, String), String>,
    hidden: BTreeSet<RunId>,
    /// The runs that the transaction under way has started.
    started: Vec<NewRun>,
    appends: u64,
    /// Everything as it was before the last commit.
    before_last: Vec<Record>,
    /// Everything as it was when the store was closed.
    at_close: Option<Vec<Record>>,
    flushes_fail: bool,
    poisoned: bool,
}

impl Sabotaged {
    fn new(fault: Option<Fault>, wait: Duration) -> Self {
        let wait = match fault {
            Some(Fault::DoesNotWait) => Duration::ZERO,
            Some(Fault::NestedWaits) => Duration::from_millis(100),
            _ => wait,
        };
        Sabotaged { inner: TinyStore::new(wait), fault, memory: Mutex::default() }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// What is left when the store is opened again. A right engine loses nothing by that.
    fn left_behind(&self) -> Result<Vec<Record>> {
        if self.is(Fault::LastCommitForgotten) {
            return Ok(self.memory.lock().before_last.clone());
        }
        let at_close = self.memory.lock().at_close.clone();
        at_close.map_or_else(|| self.inner.read(everything), Ok)
    }

    /// What a commit ends with. When it fails, nobody knows what is on disk, so nothing more may be written.
    fn flush(&self) -> Result<()> {
        let mut memory = self.memory.lock();
        if !memory.flushes_fail {
            return Ok(());
        }
        memory.poisoned = !self.is(Fault::FlushFailureForgotten);
        let source = std::io::Error::other("the disk of a saboteur fails");
        Err(Error::backend("flushing", source).with_outcome(Outcome::InDoubt))
    }

    fn leak_started_runs(&self) -> Result<()> {
        let started = std::mem::take(&mut self.memory.lock().started);
        self.inner.write(|tx| {
            started.iter().try_for_each(|run| match tx.audit().start_run(run) {
                Err(error) if !error.is_refusal() => Err(error),
                _ => Ok(()),
            })
        })
    }
}

fn everything(tx: &dyn EngineTx) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    tx.export(&mut |record| {
        records.push(record);
        Ok(())
    })?;
    Ok(records)
}

impl Transactional for Sabotaged {
    fn identity(&self) -> &Identity {
        if self.is(Fault::NestedWaits) {
            return Box::leak(Box::new(Identity::new()));
        }
        self.inner.identity()
    }

    fn read<R>(&self, work: impl FnOnce(&dyn EngineTx) -> Result<R>) -> Result<R> {
        self.inner.read(|tx| work(&Bent { store: self, tx, old: tx, touched: Cell::new(true) }))
    }

    fn write_by_itself<R>(&self, work: impl FnOnce(&dyn EngineTx) -> Result<R>) -> Result<R> {
        use Fault::{
            AddIsGetChangePut, EventSeqFromOldCount, LimitCheckedEarly, MarkIsGetChangeSave, UnguardedMax,
        };
        let races =
            [UnguardedMax, MarkIsGetChangeSave, AddIsGetChangePut, LimitCheckedEarly, EventSeqFromOldCount];
        {
            let mut memory = self.memory.lock();
            if memory.poisoned {
                return Err(Error::Poisoned { reason: "a flush failed".into() });
            }
            memory.started.clear();
        }
        let committed = self.inner.read(|old| {
            if self.is(Fault::LastCommitForgotten) {
                self.memory.lock().before_last = everything(old)?;
            }
            if self.fault.is_some_and(|fault| races.contains(&fault)) {
                std::thread::sleep(GAP);
            }
            catch_unwind(AssertUnwindSafe(|| {
                self.inner.write_by_itself(|tx| {
                    let result = work(&Bent { store: self, tx, old, touched: Cell::new(false) });
                    // A commit of the failed transaction's work, and then its error.
                    if self.is(Fault::DoomedCommits) { Ok(result) } else { result.map(Ok) }
                })
            }))
            .map_or_else(|panic| Ok(Err(panic)), |result| result.map(Ok))
        });
        match committed {
            Ok(Ok(result)) => result.and_then(|value| self.flush().map(|()| value)),
            Ok(Err(panic)) => {
                if self.is(Fault::RunLeaksOnPanic) {
                    self.leak_started_runs()?;
                }
                resume_unwind(panic)
            }
            Err(error) => {
                if self.is(Fault::RunLeaksOnError) {
                    self.leak_started_runs()?;
                }
                Err(error)
            }
        }
    }

    fn info(&self) -> EngineInfo {
        let durability = Durability::Process;
        EngineInfo { engine: "saboteur".into(), durability, ..Transactional::info(&self.inner) }
    }

    fn verify(&self) -> Result<Verification> {
        Transactional::verify(&self.inner)
    }

    fn backup(&self, to: &Path) -> Result<()> {
        Transactional::backup(&self.inner, to)
    }

    fn close(&self) -> Result<()> {
        let records = self.inner.read(everything);
        Transactional::close(&self.inner)?;
        if let Ok(records) = records {
            self.memory.lock().at_close = Some(records);
        }
        Ok(())
    }
}

/// Makes stores with a fault, or without one: the wrapper itself must keep every law.
///
/// Reopening moves everything into another store, so these stores count as durable.
#[derive(Debug, Clone, Copy)]
pub struct Saboteur(pub Option<Fault>);

struct SabotagedInstance {
    store: Arc<Sabotaged>,
    /// Where [`Instance::files`] puts what is stored.
    file: PathBuf,
}

impl Drop for SabotagedInstance {
    fn drop(&mut self) {
        // Most stores were never asked for their files, so there is nothing to remove.
        drop(fs::remove_file(&self.file));
    }
}

impl Harness for Saboteur {
    fn name(&self) -> &str {
        self.0.map_or("a saboteur on leave", Fault::story)
    }

    fn facts(&self) -> Facts {
        Facts { durable: true, file: true, ..Facts::MEMORY }
    }

    fn create_waiting(&self, wait: Duration) -> Box<dyn Instance> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file = std::env::temp_dir().join(format!("saboteur-{}-{number}", std::process::id()));
        Box::new(SabotagedInstance { store: Arc::new(Sabotaged::new(self.0, wait)), file })
    }
}

impl Instance for SabotagedInstance {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as Arc<dyn Store>
    }

    fn reopen(&mut self) -> Result<()> {
        let records = self.store.left_behind()?;
        self.reopen_with(records)
    }

    fn rot(&mut self, seed: u64) -> Option<Result<()>> {
        let read = |instance: &Self| instance.store.left_behind().and_then(|records| Disk::write(&records));
        let rotten = read(self).and_then(|disk| disk.rot(seed).read(!self.store.is(Fault::DamageReturned)));
        Some(rotten.and_then(|records| self.reopen_with(records)))
    }

    fn files(&self) -> Vec<PathBuf> {
        let disk = self.store.left_behind().and_then(|records| Disk::write(&records)).unwrap();
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        if !self.store.is(Fault::FileForEverybody) {
            options.mode(0o600);
        }
        options.open(&self.file).and_then(|mut file| file.write_all(&disk.bytes)).unwrap();
        vec![self.file.clone()]
    }

    fn fail_flushes(&mut self, fail: bool) -> bool {
        self.store.memory.lock().flushes_fail = fail;
        true
    }
}

impl SabotagedInstance {
    fn reopen_with(&mut self, mut records: Vec<Record>) -> Result<()> {
        let reopened = Sabotaged::new(self.store.fault, crate::harness::PATIENT);
        if self.store.is(Fault::OpenTakesNumber)
            && let Some(Record::Counter(counter)) = records.first_mut()
        {
            counter.last += 1;
        }
        if !records.is_empty() {
            let imported = reopened.inner.import(&mut records.into_iter().map(Ok));
            imported.map_err(|error| Error::corrupt("the disk of a saboteur", error.to_string()))?;
        }
        self.store = Arc::new(reopened);
        Ok(())
    }
}

/// What a store leaves behind, as bytes: a record a line, and a checksum over all of them.
struct Disk {
    bytes: Vec<u8>,
    sum: u64,
}

impl Disk {
    fn write(records: &[Record]) -> Result<Disk> {
        let lines = records.iter().map(json::encode).collect::<Result<Vec<String>>>()?;
        let bytes = lines.join("\n").into_bytes();
        Ok(Disk { sum: json::checksum(&[&bytes]), bytes })
    }

    fn rot(mut self, seed: u64) -> Disk {
        // A multiplier that spreads consecutive seeds over all bits.
        let bits = self.bytes.len() as u64 * 8;
        let bit = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) % bits;
        self.bytes[usize::try_from(bit / 8).unwrap()] ^= 1 << (bit % 8);
        self
    }

    fn read(&self, check: bool) -> Result<Vec<Record>> {
        let what = || "the disk of a saboteur".to_owned();
        if check {
            json::verify_checksum(what, self.sum, &[&self.bytes])?;
        }
        let text = std::str::from_utf8(&self.bytes).map_err(|e| Error::corrupt(what(), e.to_string()))?;
        text.lines().map(|line| json::decode(what, line)).collect()
    }
}

/// Makes an error that a law must not expect into nothing.
fn swallow<T>(
    result: Result<T>,
    is_it: fn(&Error) -> bool,
    instead: impl FnOnce() -> Result<T>,
) -> Result<T> {
    match result {
        Err(error) if is_it(&error) => instead(),
        other => other,
    }
}
