//! The model-based test: random sequences of operations over all seams, run on a store and on a model of one in
//! plain Rust. Every answer is compared, errors with their kinds, and at the end everything that can be seen.
//!
//! A sequence that fails is shrunk to a small one and printed, with the seed that finds it again.

mod audit;
mod budget;
mod calls;
mod catalog;
mod checkpoint;
pub mod differential;
mod lists;
mod op;
mod pool;
mod world;

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use store_api::{DefinitionRecord, Error, Record, Result, Seams, Store};

use crate::harness::{Harness, Instance};
use lists::{Kept, Listing};
use op::{Call, End, Op};
use world::{Shelved, World};

/// How many sequences [`all_seams`] runs, unless the environment variable `CONTRACT_CASES` says otherwise.
pub const CASES: u32 = 256;

/// How many operations a sequence has at most.
pub const OPERATIONS: usize = 120;

/// Runs as many sequences as `CONTRACT_CASES` says, or [`CASES`], from the seed `CONTRACT_SEED`, or a fixed one.
///
/// # Panics
/// When the store and the model disagree.
pub fn all_seams(harness: &dyn Harness) {
    run(harness, cases(CASES), OPERATIONS, seed());
}

/// Runs `cases` sequences of up to `max_ops` operations each. The seed decides which.
///
/// # Panics
/// When the store and the model disagree: with the shortest sequence that was found, and the seed.
pub fn run(harness: &dyn Harness, cases: u32, max_ops: usize, seed: u64) {
    agreed(explore(harness, cases, max_ops, seed));
}

/// Runs `cases` sequences of up to `max_ops` operations each. The seed decides which.
///
/// # Errors
/// When the store and the model disagree, or the store panics: the shortest sequence that was found, and the seed.
pub fn explore(harness: &dyn Harness, cases: u32, max_ops: usize, seed: u64) -> Check {
    search(cases, max_ops, seed, |ops, page| Driver::new(harness).sequence(ops, page))
}

/// Panics with the text of a sequence that fails.
fn agreed(explored: Check) {
    explored.unwrap_or_else(|failure| panic!("{failure}"));
}

/// How many sequences to run: what `CONTRACT_CASES` says, or else `default`.
fn cases(default: u32) -> u32 {
    number("CONTRACT_CASES").map_or(default, |cases| u32::try_from(cases).unwrap())
}

/// How often to try to shorten a sequence that fails: what `CONTRACT_SHRINKS` says, or else enough for a person to read
/// what is left. Where only the verdict counts, 0 gives it at once.
fn shrinks() -> u32 {
    number("CONTRACT_SHRINKS").map_or(4_000, |shrinks| u32::try_from(shrinks).unwrap())
}

/// Which sequences to run: what `CONTRACT_SEED` says, or else a fixed choice.
fn seed() -> u64 {
    number("CONTRACT_SEED").unwrap_or(1)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// Looks for a sequence that fails the check, and gives the shortest that it finds.
fn search(cases: u32, max_ops: usize, seed: u64, check: impl Fn(&[Op], u8) -> Check) -> Check {
    let config =
        Config { cases, failure_persistence: None, max_shrink_iters: shrinks(), ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let sequence = (op::sequence(max_ops), proptest::num::u8::ANY);
    match runner.run(&sequence, |(ops, page)| check(&ops, page).map_err(TestCaseError::fail)) {
        Ok(()) => Ok(()),
        Err(TestError::Fail(reason, (ops, page))) => {
            Err(failing(&format!("CONTRACT_SEED={seed}, "), &ops, page, reason.message()))
        }
        Err(TestError::Abort(reason)) => Err(format!("the test gave up: {reason}")),
    }
}

/// How many bytes stand for an operation.
const BYTES_OF_AN_OPERATION: usize = 4;

/// The sequence that some bytes stand for: the first says the page size, each next four are the seed of an operation.
/// So what a fuzzer cuts out, doubles or splices is operations.
fn spelled(bytes: &[u8], max_ops: usize) -> (Vec<Op>, u8) {
    let (page, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let any = op::any_op();
    let operation = |seed: &[u8]| {
        let mut bytes = [0; 32];
        bytes[..BYTES_OF_AN_OPERATION].copy_from_slice(seed);
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        any.new_tree(&mut TestRunner::new_with_rng(Config::default(), rng)).unwrap().current()
    };
    (bytes.chunks_exact(BYTES_OF_AN_OPERATION).take(max_ops).map(operation).collect(), *page)
}

/// Tells of a sequence that fails.
fn failing(found: &str, ops: &[Op], page: u8, reason: &str) -> String {
    let listed: Vec<String> = ops.iter().map(|op| format!("  {op:?}")).collect();
    format!("a sequence fails ({found}page size from {page}):\n{}\n{reason}", listed.join("\n"))
}

/// What a comparison comes to: nothing to say, or where store and model differ.
pub type Check<T = ()> = std::result::Result<T, String>;

fn differs(what: &str, store: &dyn Debug, model: &dyn Debug) -> String {
    format!("{what}\n  store: {store:?}\n  model: {model:?}")
}

/// A store and its model, side by side.
struct Driver<'a> {
    harness: &'a dyn Harness,
    instance: Box<dyn Instance>,
    world: World,
    kept: Option<Kept>,
}

impl<'a> Driver<'a> {
    fn new(harness: &'a dyn Harness) -> Self {
        Driver { harness, instance: harness.create(), world: World::new(), kept: None }
    }

    fn sequence(&mut self, ops: &[Op], page: u8) -> Check {
        ops.iter().enumerate().try_for_each(|(at, op)| {
            self.step(op).map_err(|difference| format!("operation {}: {difference}", at + 1))
        })?;
        let store = self.instance.store();
        for (listing, more) in Listing::everything(&self.world).iter().zip(0..) {
            listing.whole(&*store, &self.world, 1 + page.wrapping_add(more) % 5)?;
        }
        calls::look_up_everything(&*store, &mut self.world)?;
        let found = store.verify().map_err(|error| format!("verify: {error}"))?;
        if !found.is_sound() {
            return Err(format!("verify: {found:?}"));
        }
        self.move_on(&*store)
    }

    fn step(&mut self, op: &Op) -> Check {
        let store = self.instance.store();
        match op {
            Op::Call(call) => calls::call(&*store, &mut self.world, &mut self.kept, call),
            Op::Tick(when) => {
                self.world.clock = self.world.when(*when).timestamp_nanos_opt().unwrap();
                Ok(())
            }
            Op::Transaction(calls, end) => self.transaction(&*store, calls, *end),
            Op::Snapshot(calls, write) => self.snapshot(&*store, calls, *write),
            // What is not durable comes back empty: nothing to compare.
            Op::Reopen if !self.harness.facts().durable => Ok(()),
            Op::Reopen => {
                drop(store);
                self.instance.reopen().map_err(|error| format!("reopen: {error}"))
            }
            Op::Move => self.move_on(&*store),
        }
    }

    /// The world moves on only if the transaction commits.
    fn transaction(&mut self, store: &dyn Store, calls: &[Call], end: End) -> Check {
        let mut check = Ok(());
        let mut after = self.world.clone();
        let kept = &mut self.kept;
        let result = catch_unwind(AssertUnwindSafe(|| {
            store.transaction(&mut |seams| {
                after = self.world.clone();
                check = calls.iter().try_for_each(|call| calls::call(seams, &mut after, kept, call));
                check = check.clone().and_then(|()| is_nested(store));
                check.as_ref().map_err(|_| given_up())?;
                match end {
                    End::Commit => Ok(()),
                    End::Fail => Err(given_up()),
                    // Unlike `panic!`, this prints nothing.
                    End::Panic => resume_unwind(Box::new("the work of a transaction panics")),
                    End::Doom => {
                        check = doom(seams, &after);
                        Ok(())
                    }
                }
            })
        }));
        check?;
        match (end, result) {
            (End::Commit, Ok(Ok(()))) => {
                self.world = after;
                Ok(())
            }
            (End::Panic, Err(_)) => Ok(()),
            (End::Fail | End::Doom, Ok(Err(Error::Unsupported { .. }))) => Ok(()),
            (end, Ok(result)) => Err(format!("a transaction that ends with {end:?} gave {result:?}")),
            (end, Err(_)) => Err(format!("a transaction that ends with {end:?} panicked")),
        }
    }

    fn snapshot(&mut self, store: &dyn Store, calls: &[Call], write: bool) -> Check {
        let mut check = Ok(());
        let reads: Vec<&Call> = calls.iter().filter(|call| calls::is_read(call)).collect();
        let result = store.snapshot(&mut |seams| {
            let mut reads = reads.iter();
            check = reads.try_for_each(|call| calls::call(seams, &mut self.world, &mut self.kept, call));
            if write && check.is_ok() {
                let refused = seams.checkpoints().delete(&pool::run_id(0));
                check = expect("a write in a snapshot", &refused, |error| matches!(error, Error::ReadOnly));
            }
            Ok(())
        });
        check?;
        match (write, result) {
            (false, Ok(())) | (true, Err(Error::ReadOnly)) => Ok(()),
            (_, result) => Err(format!("a snapshot gave {result:?}")),
        }
    }

    /// Exports, imports into a new store, and goes on there. Cursors do not move along.
    fn move_on(&mut self, store: &dyn Store) -> Check {
        let export = |store: &dyn Store| {
            let mut records = Vec::new();
            let result = store.export(&mut |record| {
                records.push(record);
                Ok(())
            });
            result.map(|()| records).map_err(|error| format!("export: {error}"))
        };
        let records = export(store)?;
        match records.first() {
            Some(Record::Counter(counter)) if counter.last == self.world.counter => {}
            first => return Err(format!("the export begins with {first:?}, not {}", self.world.counter)),
        }
        records.iter().try_for_each(|record| match record {
            Record::Skill(skill) => self.same_last_seq(skill),
            Record::Agent(agent) => self.same_last_seq(agent),
            _ => Ok(()),
        })?;
        let instance = self.harness.create();
        let copy = instance.store();
        let report = copy.import(&mut records.iter().cloned().map(Ok));
        let report = report.map_err(|error| format!("import: {error}"))?;
        if report.total() != records.len() as u64 {
            return Err(format!("{} records imported, {} exported", report.total(), records.len()));
        }
        if export(&*copy)? != records {
            return Err("an export of the import differs".into());
        }
        drop(copy);
        self.instance = instance;
        self.kept = None;
        Ok(())
    }

    /// The last number that a definition's versions were given is in no list, only in an export.
    fn same_last_seq<D: Shelved>(&self, record: &DefinitionRecord<D>) -> Check {
        let row = D::shelf(&self.world).row(record.doc.id().as_ref());
        let last = row.map(|row| row.versions.len() as u64);
        if last == Some(record.last_seq) {
            return Ok(());
        }
        Err(differs(&format!("last_seq of {:?}", record.doc.id()), &record.last_seq, &last))
    }
}

/// The error that a transaction's work gives up with: no refusal, and none that an engine gives.
fn given_up() -> Error {
    Error::Unsupported { operation: "going on".into() }
}

fn expect<T: Debug>(what: &str, result: &Result<T>, is_it: impl Fn(&Error) -> bool) -> Check {
    match result {
        Err(error) if is_it(error) => Ok(()),
        other => Err(format!("{what} gave {other:?}")),
    }
}

/// A call of the store from inside its own transaction.
fn is_nested(store: &dyn Store) -> Check {
    let call = store.audit().run(&pool::run_id(0));
    expect("a call from inside a transaction", &call, |error| matches!(error, Error::Nested))
}

/// Makes a call that gives an error which is no refusal, swallows it, and checks that the transaction is doomed.
fn doom(seams: &dyn Seams, world: &World) -> Check {
    let is_ours = |error: &Error| matches!(error, Error::Unsupported { .. });
    let id = pool::skill_id(0);
    if world.skills.row(id.as_str()).is_none() {
        let skill = store_api::Skill::new(id.clone(), pool::principal(2), pool::name(0));
        let saved = seams.skills().save(&skill, store_api::Expect::Any);
        saved.map_err(|error| format!("a save before the doom gave {error}"))?;
    }
    let update = seams.skills().update(&id, &mut |_| Err(given_up()));
    expect("an edit that gives up", &update, is_ours)?;
    expect("a call in a doomed transaction", &seams.audit().run(&pool::run_id(0)), is_ours)
}
