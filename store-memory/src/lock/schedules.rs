//! The divided lock under every interleaving that a random scheduler finds in so many tries:
//! `RUSTFLAGS="--cfg shuttle" cargo test -p store-memory --lib schedules`. `SCHEDULES` sets how many.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use shuttle::thread;
use store_api::ErrorKind;

use super::{DividedLock, Shard};
use crate::sync::{RwLock, number_of_this_thread};

const PATIENT: Duration = Duration::from_secs(60);

fn schedules() -> usize {
    std::env::var("SCHEDULES").map_or(5_000, |text| text.parse().unwrap())
}

/// Two numbers that are equal whenever nobody is at work on them.
type Pair = (u64, u64);

fn count_up(pair: &mut Pair) {
    pair.0 += 1;
    thread::yield_now();
    pair.1 += 1;
}

fn spawn<R: Send + 'static>(
    lock: &Arc<DividedLock<Pair>>,
    work: impl FnOnce(&DividedLock<Pair>) -> R + Send + 'static,
) -> thread::JoinHandle<R> {
    let lock = Arc::clone(lock);
    thread::spawn(move || work(&lock))
}

/// Writers, one of which panics after its work, and readers, who see no work half done.
fn writers_and_readers() {
    let lock = Arc::new(DividedLock::new((0, 0), PATIENT));
    let write = |lock: &DividedLock<Pair>| lock.write(|pair| Ok(count_up(pair))).unwrap();
    let panic = |lock: &DividedLock<Pair>| {
        let work = |pair: &mut Pair| {
            count_up(pair);
            resume_unwind(Box::new("work that panics"))
        };
        assert!(catch_unwind(AssertUnwindSafe(|| lock.write::<()>(work))).is_err());
    };
    let read = |lock: &DividedLock<Pair>| {
        lock.read(|pair| {
            thread::yield_now();
            assert_eq!(pair.0, pair.1, "half a write");
            Ok(pair.0)
        })
    };
    let threads = [spawn(&lock, write), spawn(&lock, panic), spawn(&lock, write)];
    let readers = [
        spawn(&lock, move |lock| (read(lock).unwrap(), read(lock).unwrap())),
        spawn(&lock, move |lock| (read(lock).unwrap(), read(lock).unwrap())),
    ];
    for (first, second) in readers.map(|reader| reader.join().unwrap()) {
        assert!(first <= second, "a reader saw the past");
    }
    threads.map(|writer| writer.join().unwrap());
    assert_eq!(read(&lock).unwrap(), 3);
}

/// A close beside writers and a second close: what was written was written before it, and nothing after it.
fn a_close() {
    let lock = Arc::new(DividedLock::new((0, 0), PATIENT));
    let write = |lock: &DividedLock<Pair>| match lock.write(|pair| Ok(count_up(pair))) {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Closed);
            assert_eq!(lock.read(|_| Ok(())).unwrap_err().kind(), ErrorKind::Closed, "it opened again");
            false
        }
    };
    let writers = [spawn(&lock, write), spawn(&lock, write)];
    let closers = [spawn(&lock, |lock| lock.close().unwrap()), spawn(&lock, |lock| lock.close().unwrap())];
    writers.map(|writer| writer.join().unwrap());
    closers.map(|closer| closer.join().unwrap());
    assert!(!write(&lock));
}

#[test]
fn no_schedule_shows_half_a_write_or_loses_one() {
    shuttle::check_random(writers_and_readers, schedules());
}

#[test]
fn no_schedule_with_preemptions_at_the_worst_points_either() {
    shuttle::check_pct(writers_and_readers, schedules(), 3);
}

#[test]
fn no_schedule_writes_after_a_close() {
    shuttle::check_random(a_close, schedules());
}

/// The control: a writer that begins with its own shard, as a reader does, waits for one that began with another.
#[test]
#[should_panic(expected = "deadlock")]
fn a_schedule_finds_writers_that_lock_in_an_order_of_their_own() {
    let writers = || {
        let shards: Arc<[Shard<()>; 3]> = Arc::new(std::array::from_fn(|_| Shard(RwLock::new(None))));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let shards = Arc::clone(&shards);
                thread::spawn(move || {
                    let mine = number_of_this_thread();
                    let order = (0..shards.len()).map(|n| &shards[(mine + n) % shards.len()]);
                    drop(order.map(|Shard(shard)| shard.try_write_for(PATIENT)).collect::<Vec<_>>());
                })
            })
            .collect();
        threads.into_iter().for_each(|writer| writer.join().unwrap());
    };
    shuttle::check_random(writers, schedules());
}
