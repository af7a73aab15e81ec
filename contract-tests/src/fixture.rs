//! What the laws are made of: sample documents, times, threads that start together, lists read to their end.

use std::fmt::Debug;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::json;
use store_api::page::{self, MAX_PAGE};
use store_api::*;

/// A time, in seconds after an arbitrary moment that no rule treats in a special way.
pub fn at(seconds: i64) -> DateTime<Utc> {
    at_nanos(seconds * 1_000_000_000)
}

/// A time, in nanoseconds after the moment of [`at`].
pub fn at_nanos(nanos: i64) -> DateTime<Utc> {
    time::from_nanos(1_750_000_000_000_000_000 + nanos)
}

/// That many seconds.
pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An id, a name or a key of any kind.
pub fn id<T: std::str::FromStr<Err = Error>>(text: &str) -> T {
    text.parse().expect("a valid id")
}

/// A kind of definition, with what the laws need to make one.
pub trait Sample: Definition {
    /// The smallest document of this kind: owner `owner`, named like its id.
    fn sample(id: &str) -> Self;
    /// The same document with this schedule.
    fn with_schedule(self, schedule: Option<Schedule>) -> Self;
    /// The text that a person edits.
    fn text_mut(&mut self) -> &mut String;
    /// The same document under another name, of another owner.
    fn named(self, owner: &str, name: &str) -> Self;
    /// Its unknown fields.
    fn extra_mut(&mut self) -> &mut json::Extra;
}

macro_rules! sample {
    ($kind:ident, $text:ident) => {
        impl Sample for $kind {
            fn sample(text: &str) -> Self {
                $kind::new(id(text), id("owner"), id(text))
            }
            fn with_schedule(mut self, schedule: Option<Schedule>) -> Self {
                self.schedule = schedule;
                self
            }
            fn text_mut(&mut self) -> &mut String {
                &mut self.$text
            }
            fn named(mut self, owner: &str, name: &str) -> Self {
                (self.owner, self.name) = (id(owner), id(name));
                self
            }
            fn extra_mut(&mut self) -> &mut json::Extra {
                &mut self.extra
            }
        }
    };
}

sample!(Skill, body);
sample!(Agent, prompt);

/// The smallest skill.
pub fn skill(id: &str) -> Skill {
    Skill::sample(id)
}

/// The smallest agent.
pub fn agent(id: &str) -> Agent {
    Agent::sample(id)
}

/// A schedule that is due at `next`.
pub fn schedule(next: Option<DateTime<Utc>>) -> Schedule {
    Schedule::new("*/5 * * * *", "Europe/Madrid", next)
}

/// A version of a document.
pub fn version<D: Sample>(version: &str, snapshot: D) -> NewVersion<D> {
    NewVersion::new(id(version), snapshot, id("editor"), at(0))
}

/// An account of `caller` over a rollover window of that many seconds.
pub fn account(caller: &str, length: u64) -> Account {
    let window = Window::rollover(seconds(length)).expect("a valid window");
    Account::new(id(caller), id("usd"), window)
}

/// That many micro-units.
pub fn micros(micros: u64) -> Amount {
    Amount::from_micros(micros).expect("a valid amount")
}

/// A charge of that many micro-units.
pub fn charge(account: &Account, amount: u64) -> Charge {
    Charge::new(account.clone(), micros(amount))
}

/// A run of `caller`, started at `started` seconds.
pub fn run(run: &str, started: i64) -> NewRun {
    NewRun::new(id(run), id("caller"), at(started))
}

/// A child of another run.
pub fn child(child: &str, parent: &str, started: i64) -> NewRun {
    NewRun { parent: Some(id(parent)), ..run(child, started) }
}

/// A finish at `finished` seconds.
pub fn finish(finished: i64) -> Finish {
    Finish::new(RunOutcome::Succeeded, at(finished))
}

/// An event with a number in it.
pub fn event(number: u64) -> NewEvent {
    NewEvent { kind: "step".into(), at: at(0), payload: json!({ "number": number }) }
}

/// A checkpoint of a run.
pub fn checkpoint(run: &str, iteration: u64) -> Checkpoint {
    Checkpoint::new(id(run), iteration, json!({ "iteration": iteration }), at(0))
}

/// A worker's id.
pub fn worker(name: &str) -> WorkerId {
    id(name)
}

/// The first page, as long as a page may be.
pub fn whole() -> PageRequest {
    PageRequest::first(MAX_PAGE).expect("a valid limit")
}

/// A whole list, read page after page.
pub fn list<T>(fetch: impl FnMut(&PageRequest) -> Result<Page<T>>) -> Vec<T> {
    page::all(MAX_PAGE, fetch).collect::<Result<_>>().expect("a list that can be read")
}

/// All versions of a definition, newest first.
pub fn versions<D: Sample>(seams: &dyn Seams, id: &D::Id) -> Vec<std::sync::Arc<Version<D>>> {
    list(|page| D::catalog(seams).versions(id, page))
}

/// Everything that a store holds.
///
/// # Errors
/// As [`Store::export`].
pub fn records(store: &dyn Store) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    store.export(&mut |record| {
        records.push(record);
        Ok(())
    })?;
    Ok(records)
}

/// Everything that a store holds that can be read.
pub fn export(store: &dyn Store) -> Vec<Record> {
    records(store).expect("an export")
}

/// Runs `work` on that many threads, which start together; gives the results in the order of the threads.
pub fn race<R: Send>(threads: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let start = Barrier::new(threads);
    thread::scope(|scope| {
        let (start, work) = (&start, &work);
        let spawn = |number| {
            scope.spawn(move || {
                start.wait();
                work(number)
            })
        };
        let running: Vec<_> = (0..threads).map(spawn).collect();
        let join =
            |thread: thread::ScopedJoinHandle<'_, R>| thread.join().expect("a thread that keeps the law");
        running.into_iter().map(join).collect()
    })
}

/// The error of a call that must be refused.
#[track_caller]
pub fn refused<T: Debug>(result: Result<T>, kind: ErrorKind) -> Error {
    match result {
        Err(error) if error.kind() == kind => error,
        Err(error) => panic!("{kind} was expected, not {}: {error}", error.kind()),
        Ok(value) => panic!("{kind} was expected, not success with {value:?}"),
    }
}

/// Asserts that `work` is refused and that the store holds afterwards exactly what it held before.
#[track_caller]
pub fn refused_without_trace<T: Debug>(store: &dyn Store, kind: ErrorKind, work: impl FnOnce() -> Result<T>) {
    let before = export(store);
    refused(work(), kind);
    assert_eq!(export(store), before, "a refusal changed something");
}
