//! An engine of numbers, and writers that check what became of theirs. Written against an alias of the thread
//! primitives, so that real threads and a scheduler run the same scenario.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use commit_queue::{Engine, Queue};
use store_api::{Entity, Error, Outcome, Result};

#[cfg(loom)]
pub(crate) use loom::{sync, thread};
#[cfg(shuttle)]
pub(crate) use shuttle::{sync, thread};
#[cfg(not(any(shuttle, loom)))]
pub(crate) use std::{sync, thread};

use sync::{Arc, Mutex};

/// A disk that holds numbers. A batch with a multiple of `fails` in it does not reach it.
pub(crate) struct Numbers {
    pub(crate) disk: Mutex<Vec<u64>>,
    pub(crate) commits: Mutex<Vec<usize>>,
    pub(crate) fails: Option<u64>,
}

#[derive(Default)]
pub(crate) struct Open {
    pub(crate) written: RefCell<Vec<u64>>,
}

impl Engine for Numbers {
    type Open = Open;

    fn begin(&self, _patience: Duration) -> Result<Open> {
        Ok(Open::default())
    }
    fn changes(&self, open: &Open) -> Option<u64> {
        Some(open.written.borrow().len() as u64)
    }
    fn commit(&self, mut open: Open, _writers: usize) -> Result<()> {
        let written = open.written.get_mut();
        if self.fails.is_some_and(|fails| written.iter().any(|number| number.is_multiple_of(fails))) {
            let broken = std::io::Error::other("the disk is broken");
            return Err(Error::backend("flushing", broken).with_outcome(Outcome::InDoubt));
        }
        self.commits.lock().unwrap().push(written.len());
        self.disk.lock().unwrap().append(written);
        thread::yield_now();
        Ok(())
    }
    fn abort(&self, _open: Open) -> Result<()> {
        Ok(())
    }
}

/// Each of `writers` writes `each` numbers; every fifth is refused after it was written, every seventh panics.
/// What was acknowledged must be on the disk once and in the writer's order, nothing else may be there.
pub(crate) fn run(writers: u64, each: u64, fails: Option<u64>) -> Arc<Queue<Numbers>> {
    run_within(PATIENT, 0, writers, each, fails)
}

/// The same with the numbers after `first`.
#[cfg(loom)]
pub(crate) fn run_after(first: u64, writers: u64, each: u64) -> Arc<Queue<Numbers>> {
    run_within(PATIENT, first, writers, each, None)
}

/// The timeout of writers that never give up.
const PATIENT: Duration = Duration::from_secs(60);

/// The same with writers that wait for their turn no longer than that. What is given up is never done.
pub(crate) fn run_within(
    timeout: Duration,
    first: u64,
    writers: u64,
    each: u64,
    fails: Option<u64>,
) -> Arc<Queue<Numbers>> {
    let numbers = Numbers { disk: Mutex::default(), commits: Mutex::default(), fails };
    let queue = Arc::new(Queue::new(numbers, timeout));
    let threads: Vec<_> = (0..writers)
        .map(|writer| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || -> Vec<u64> {
                let numbers = (1..=each).map(|n| first + writer * each + n);
                numbers.filter(|number| write(&queue, *number, timeout < PATIENT)).collect()
            })
        })
        .collect();
    let acknowledged: Vec<Vec<u64>> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let disk = queue.engine().disk.lock().unwrap().clone();
    for (writer, own) in (0u64..).zip(&acknowledged) {
        let theirs = |number: &&u64| (*number - first - 1) / each == writer;
        let found: Vec<u64> = disk.iter().filter(theirs).copied().collect();
        assert_eq!(&found, own, "writer {writer}");
    }
    assert_eq!(disk.len(), acknowledged.iter().map(Vec::len).sum::<usize>());
    queue
}

/// Whether the number was acknowledged; checks the answers that are known in advance.
fn write(queue: &Queue<Numbers>, number: u64, may_give_up: bool) -> bool {
    let work = |open: &Open| {
        open.written.borrow_mut().push(number);
        if number.is_multiple_of(7) {
            std::panic::resume_unwind(Box::new(number));
        }
        if number.is_multiple_of(5) {
            return Err(Error::not_found(Entity::Run, number.to_string()));
        }
        Ok(number)
    };
    match catch_unwind(AssertUnwindSafe(|| queue.write(work))) {
        Err(panic) => {
            assert_eq!(panic.downcast_ref::<u64>(), Some(&number), "the writer's own panic");
            false
        }
        Ok(Ok(answer)) => {
            assert_eq!(answer, number);
            true
        }
        Ok(Err(Error::NotFound { id, .. })) => {
            assert_eq!(id, number.to_string(), "the writer's own refusal");
            false
        }
        Ok(Err(Error::Busy { .. })) => {
            assert!(may_give_up, "nobody waits that long");
            false
        }
        Ok(Err(error)) => {
            assert_eq!(error.outcome(), Outcome::InDoubt, "{error}");
            assert!(queue.engine().fails.is_some());
            false
        }
    }
}
