//! The differential test: the model's sequences, run on several engines at once. Every answer of one must be every
//! answer of the others: records and numbers, the order of pages and the text of cursors, errors with their kinds
//! and texts, and all of an export. Only [`Store::info`] and what [`Store::verify`] counts are each engine's own.
//!
//! The engines are put together to one store, which asks all of them and hands the answer of the first on. So the
//! model's driver runs as it is, and what the first engine answers is still compared with the model.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use send_wrapper::SendWrapper;
use store_api::*;

use super::op::Op;
use super::{Check, Driver, agreed, cases, failing, search, seed, spelled};
use crate::fixture::records;
use crate::harness::{Facts, Harness, Instance};

/// How many sequences [`all_seams`] runs, unless the environment variable `CONTRACT_CASES` says otherwise.
pub const CASES: u32 = 64;

/// How many operations a sequence has at most.
pub const OPERATIONS: usize = 60;

/// Runs as many sequences as `CONTRACT_CASES` says, or [`CASES`], from the seed `CONTRACT_SEED`, or a fixed one.
///
/// # Panics
/// When the engines disagree with one another, or with the model.
pub fn all_seams(harnesses: &[&dyn Harness]) {
    run(harnesses, cases(CASES), OPERATIONS, seed());
}

/// Runs `cases` sequences of up to `max_ops` operations each on all engines at once. The seed decides which.
///
/// # Panics
/// When the engines disagree with one another, or with the model: with the shortest sequence that was found, and the
/// seed.
pub fn run(harnesses: &[&dyn Harness], cases: u32, max_ops: usize, seed: u64) {
    agreed(explore(harnesses, cases, max_ops, seed));
}

/// Runs `cases` sequences of up to `max_ops` operations each on all engines at once. The seed decides which.
///
/// # Errors
/// When the engines disagree with one another, or with the model, or one panics: the shortest sequence that was
/// found, and the seed.
pub fn explore(harnesses: &[&dyn Harness], cases: u32, max_ops: usize, seed: u64) -> Check {
    search(cases, max_ops, seed, |ops, page| agree(harnesses, ops, page))
}

/// Runs the sequence of up to `max_ops` operations that some bytes stand for on all engines at once. Any bytes stand
/// for one: for a fuzzer, which finds those that get somewhere new.
///
/// # Errors
/// When the engines disagree with one another, or with the model: the sequence, as it is.
pub fn of_bytes(harnesses: &[&dyn Harness], max_ops: usize, bytes: &[u8]) -> Check {
    let (ops, page) = spelled(bytes, max_ops);
    agree(harnesses, &ops, page).map_err(|reason| failing("", &ops, page, &reason))
}

fn agree(harnesses: &[&dyn Harness], ops: &[Op], page: u8) -> Check {
    let engines = Engines { harnesses, difference: Difference::default() };
    let checked = Driver::new(&engines).sequence(ops, page);
    engines.difference.found().map_or(checked, Err)
}

/// The first difference that was found, if any. A copy is the same place.
#[derive(Debug, Clone, Default)]
struct Difference(Arc<Mutex<Option<String>>>);

impl Difference {
    fn note(&self, what: impl FnOnce() -> String) {
        self.0.lock().get_or_insert_with(what);
    }

    fn found(&self) -> Option<String> {
        self.0.lock().clone()
    }
}

/// The harness of all engines.
struct Engines<'a> {
    harnesses: &'a [&'a dyn Harness],
    difference: Difference,
}

impl Harness for Engines<'_> {
    fn name(&self) -> &str {
        "engines side by side"
    }

    fn facts(&self) -> Facts {
        Facts { durable: self.harnesses.iter().any(|harness| harness.facts().durable), ..Facts::MEMORY }
    }

    fn create_waiting(&self, wait: Duration) -> Box<dyn Instance> {
        let places = self.harnesses.iter().map(|harness| Place {
            engine: harness.name().to_owned(),
            durable: harness.facts().durable,
            instance: harness.create_waiting(wait),
        });
        Box::new(Places { places: places.collect(), difference: self.difference.clone() })
    }
}

/// One engine's store.
struct Place {
    engine: String,
    durable: bool,
    instance: Box<dyn Instance>,
}

struct Places {
    places: Vec<Place>,
    difference: Difference,
}

impl Instance for Places {
    fn store(&self) -> Arc<dyn Store> {
        let sides = self.places.iter().map(|place| (place.engine.clone(), place.instance.store()));
        Arc::new(Together { sides: sides.collect(), difference: self.difference.clone() })
    }

    /// Opens those again that keep what they have. The others would come back empty, so they stay open.
    fn reopen(&mut self) -> Result<()> {
        let mut durable = self.places.iter_mut().filter(|place| place.durable);
        durable.try_for_each(|place| place.instance.reopen())
    }
}

/// Several stores, or transactions on several stores, that are asked together. Each stands beside its engine's name.
#[derive(Debug)]
struct Together<S> {
    sides: Vec<(String, S)>,
    difference: Difference,
}

/// What stands on one side.
trait Side {
    fn seams(&self) -> &dyn Seams;
}

impl Side for Arc<dyn Store> {
    fn seams(&self) -> &dyn Seams {
        &**self
    }
}

impl Side for &dyn Seams {
    fn seams(&self) -> &dyn Seams {
        *self
    }
}

impl<S> Together<S> {
    /// Makes a call on every side, and gives the answer of the first.
    fn ask<T: PartialEq + Debug>(&self, what: &str, mut call: impl FnMut(&S) -> Result<T>) -> Result<T> {
        let answers = self.sides.iter().map(|(_, side)| call(side)).collect();
        self.compare(what, answers)
    }

    /// Compares the answers of all sides, and gives that of the first.
    fn compare<T: PartialEq + Debug>(&self, what: &str, answers: Vec<Result<T>>) -> Result<T> {
        let mut answers = answers.into_iter();
        let first = answers.next().unwrap();
        for ((engine, _), other) in self.sides[1..].iter().zip(answers) {
            if !is_same(&first, &other) {
                let (before, _) = &self.sides[0];
                self.difference.note(|| {
                    format!("the engines disagree: {what}\n  {before}: {first:?}\n  {engine}: {other:?}")
                });
            }
        }
        first
    }
}

/// Whether two answers are equal. Their texts are compared too, because 0.0 equals -0.0.
fn is_same<T: PartialEq + Debug>(one: &Result<T>, other: &Result<T>) -> bool {
    match (one, other) {
        (Ok(one), Ok(other)) => one == other && format!("{one:?}") == format!("{other:?}"),
        (Err(one), Err(other)) => one.kind() == other.kind() && one.to_string() == other.to_string(),
        _ => false,
    }
}

impl<S: Side> Seams for Together<S> {
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

/// Methods that make the same call on every side, on the object that `$seam` gives.
macro_rules! on_every_side {
    ($seam:expr; $(fn $method:ident(&self $(, $name:ident: $type:ty)*) -> $answer:ty;)*) => {
        $(fn $method(&self $(, $name: $type)*) -> $answer {
            self.ask(stringify!($method), |side| $seam(side.seams()).$method($($name),*))
        })*
    };
}

impl<S: Side, D: Definition> Catalog<D> for Together<S> {
    on_every_side! { D::catalog;
        fn get(&self, id: &D::Id) -> Result<Option<Stored<D>>>;
        fn by_name(&self, owner: &PrincipalId, name: &Name) -> Result<Option<Stored<D>>>;
        fn list(&self, filter: &DefinitionFilter, page: &PageRequest) -> Result<Page<Stored<D>>>;
        fn save(&self, doc: &D, expect: Expect) -> Result<Revision>;
        fn update(&self, id: &D::Id, edit: Edit<'_, D>) -> Result<Stored<D>>;
        fn delete(&self, id: &D::Id, expect: Expect) -> Result<()>;
        fn append_version(&self, version: &NewVersion<D>) -> Result<Arc<Version<D>>>;
        fn versions(&self, id: &D::Id, page: &PageRequest) -> Result<Page<Arc<Version<D>>>>;
        fn version(&self, id: &VersionId) -> Result<Option<Arc<Version<D>>>>;
        fn latest(&self, id: &D::Id) -> Result<Option<Arc<Version<D>>>>;
        fn restore(&self, version: &VersionId, expect: Expect) -> Result<Stored<D>>;
        fn pin_version(&self, version: &VersionId, pinned: bool) -> Result<()>;
        fn prune_versions(&self, id: &D::Id, keep: usize) -> Result<u64>;
        fn publish(&self, version: &NewVersion<D>, expect: Expect) -> Result<Published<D>>;
        fn due(&self, now: DateTime<Utc>, page: &PageRequest) -> Result<Page<Stored<D>>>;
        fn mark_scheduled_run(&self, id: &D::Id, ran_at: DateTime<Utc>, next: Option<DateTime<Utc>>) -> Result<()>;
        fn reschedule(&self, id: &D::Id, next: Option<DateTime<Utc>>) -> Result<()>;
        fn claim_due(&self, now: DateTime<Utc>, worker: &WorkerId, lease: Duration, max: usize) -> Result<Vec<Claim<D>>>;
        fn finish_claim(&self, id: &D::Id, token: LeaseToken, now: DateTime<Utc>, ran_at: DateTime<Utc>, next: Option<DateTime<Utc>>) -> Result<()>;
        fn renew_claim(&self, id: &D::Id, token: LeaseToken, now: DateTime<Utc>, lease: Duration) -> Result<Lease>;
        fn release_claim(&self, id: &D::Id, token: LeaseToken, now: DateTime<Utc>) -> Result<()>;
    }
}

impl<S: Side> AgentStore for Together<S> {
    on_every_side! { Seams::agents;
        fn by_webhook(&self, digest: &SecretDigest) -> Result<Option<Stored<Agent>>>;
        fn by_channel(&self, channel: &ChannelId, page: &PageRequest) -> Result<Page<Stored<Agent>>>;
    }
}

impl<S: Side> BudgetStore for Together<S> {
    on_every_side! { Seams::budgets;
        fn usage(&self, account: &Account, now: DateTime<Utc>) -> Result<Usage>;
        fn add(&self, charge: &Charge, now: DateTime<Utc>) -> Result<Usage>;
        fn admit(&self, charge: &Charge, limit: Amount, now: DateTime<Utc>) -> Result<Usage>;
        fn reserve(&self, reservation: &Reservation, limit: Amount, now: DateTime<Utc>) -> Result<Usage>;
        fn settle(&self, account: &Account, id: &ReservationId, actual: Amount, now: DateTime<Utc>) -> Result<Usage>;
        fn release(&self, account: &Account, id: &ReservationId, now: DateTime<Utc>) -> Result<Usage>;
        fn reservations(&self, account: &Account, now: DateTime<Utc>) -> Result<Vec<Reservation>>;
        fn accounts(&self, now: DateTime<Utc>, page: &PageRequest) -> Result<Page<AccountUsage>>;
        fn reset(&self, account: &Account) -> Result<()>;
    }
}

impl<S: Side> AuditStore for Together<S> {
    on_every_side! { Seams::audit;
        fn start_run(&self, run: &NewRun) -> Result<Arc<Run>>;
        fn finish_run(&self, id: &RunId, finish: &Finish) -> Result<()>;
        fn append_event(&self, run: &RunId, event: &NewEvent) -> Result<u64>;
        fn run(&self, id: &RunId) -> Result<Option<Arc<Run>>>;
        fn events(&self, run: &RunId, page: &PageRequest) -> Result<Page<Arc<Event>>>;
        fn runs(&self, filter: &RunFilter, page: &PageRequest) -> Result<Page<Arc<Run>>>;
        fn children(&self, id: &RunId, page: &PageRequest) -> Result<Page<Arc<Run>>>;
        fn ancestors(&self, id: &RunId) -> Result<Vec<Arc<Run>>>;
        fn last_run_of(&self, skills: &[SkillId]) -> Result<Vec<Arc<Run>>>;
        fn summary(&self, filter: &RunFilter, group_by: GroupBy, page: &PageRequest) -> Result<Page<SummaryRow>>;
        fn abandon_stale(&self, before: DateTime<Utc>, now: DateTime<Utc>, max: usize) -> Result<Vec<RunId>>;
        fn purge_before(&self, before: DateTime<Utc>, dry_run: bool) -> Result<PurgeReport>;
    }
}

impl<S: Side> CheckpointStore for Together<S> {
    on_every_side! { Seams::checkpoints;
        fn save(&self, checkpoint: &Checkpoint) -> Result<()>;
        fn load(&self, run: &RunId) -> Result<Option<Arc<Checkpoint>>>;
        fn delete(&self, run: &RunId) -> Result<()>;
        fn interrupted(&self, page: &PageRequest) -> Result<Page<Interrupted>>;
        fn claim(&self, run: &RunId, now: DateTime<Utc>, worker: &WorkerId, lease: Duration) -> Result<Lease>;
        fn claim_interrupted(&self, now: DateTime<Utc>, worker: &WorkerId, lease: Duration, max: usize) -> Result<Vec<Interrupted>>;
        fn renew_claim(&self, run: &RunId, token: LeaseToken, now: DateTime<Utc>, lease: Duration) -> Result<Lease>;
        fn release_claim(&self, run: &RunId, token: LeaseToken, now: DateTime<Utc>) -> Result<()>;
    }
}

type Stores = Together<Arc<dyn Store>>;

/// Begins a unit of work: a transaction or a snapshot.
type Begin = fn(&dyn Store, Work<'_>) -> Result<()>;

impl Stores {
    /// Runs `work` in a unit of work of every store at once, and compares how they end.
    fn unit(&self, what: &str, begin: Begin, work: Work<'_>) -> Result<()> {
        let (_, ends) = self.inside(begin, &[], work);
        self.compare(what, ends)
    }

    /// Begins a unit of each store inside that of the one before, and `work` in the last. Each store is given what
    /// the work gave, and not what the stores inside made of that. Gives that, and how the units ended.
    fn inside(&self, begin: Begin, begun: &[&dyn Seams], work: Work<'_>) -> (Result<()>, Vec<Result<()>>) {
        let Some((_, store)) = self.sides.get(begun.len()) else {
            let engines = self.sides.iter().map(|(engine, _)| engine.clone());
            let sides = engines.zip(begun.iter().copied()).collect();
            return (work(&Together { sides, difference: self.difference.clone() }), Vec::new());
        };
        let (mut given, mut ends) = (Ok(()), Vec::new());
        // Nobody else writes to these stores, so all of it stays on this thread.
        let outer = SendWrapper::new(begun);
        let end = begin(&**store, &mut |seams| {
            let begun: Vec<&dyn Seams> = outer.iter().copied().chain([seams]).collect();
            (given, ends) = self.inside(begin, &begun, work);
            given.clone()
        });
        ends.insert(0, end);
        (given, ends)
    }
}

impl Store for Stores {
    fn transaction(&self, work: Work<'_>) -> Result<()> {
        self.unit("transaction", |store, work| store.transaction(work), work)
    }

    fn snapshot(&self, work: View<'_>) -> Result<()> {
        // What is compared needs one shape for both; see `inside` for the thread.
        let mut work = SendWrapper::new(work);
        self.unit("snapshot", |store, work| store.snapshot(work), &mut |seams| work(seams))
    }

    fn info(&self) -> EngineInfo {
        self.sides[0].1.info()
    }

    fn verify(&self) -> Result<Verification> {
        let found = self.sides.iter().map(|(_, store)| store.verify()).collect::<Result<Vec<_>>>()?;
        Ok(found.into_iter().find(|found| !found.is_sound()).unwrap_or_default())
    }

    fn backup(&self, _: &Path) -> Result<()> {
        Err(Error::Unsupported { operation: "a backup of several stores in one file".into() })
    }

    fn export(&self, sink: &mut dyn FnMut(Record) -> Result<()>) -> Result<()> {
        let records = self.ask("export", |store| records(&**store))?;
        records.into_iter().try_for_each(sink)
    }

    fn import(&self, records: Records<'_>) -> Result<ImportReport> {
        let records = records.collect::<Vec<_>>();
        self.ask("import", |store| store.import(&mut records.iter().cloned()))
    }

    fn close(&self) -> Result<()> {
        self.ask("close", |store| store.close())
    }
}
