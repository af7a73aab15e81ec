//! One measurement: so many clients in closed loops for so long, every operation timed.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fault_disk::Delay;
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

use crate::subject::Result;

/// What a client does over and over; it is given a number that no other call in this store was given.
pub(crate) type Op<'a> = Box<dyn FnMut(u64) -> Result<()> + 'a>;

/// How a measurement is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) clients: usize,
    pub(crate) length: Duration,
    /// How many operations are timed together: more than one where reading the clock would cost as much as they do.
    pub(crate) batch: u64,
    /// The number before which it ends, when the operations use up what was prepared for them.
    pub(crate) end: u64,
}

/// What came of it. Latencies are in nanoseconds.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    pub(crate) ops: u64,
    pub(crate) elapsed: Duration,
    /// What this process used of the processors meanwhile.
    pub(crate) processor: Duration,
    pub(crate) latency: Histogram<u64>,
}

impl Tally {
    pub(crate) fn new() -> Result<Self> {
        Ok(Tally { ops: 0, elapsed: Duration::ZERO, processor: Duration::ZERO, latency: Histogram::new(3)? })
    }

    /// Of one operation, timed by somebody else.
    pub(crate) fn of_one(took: Duration) -> Result<Self> {
        let mut tally = Tally::new()?;
        tally.latency.record(u64::try_from(took.as_nanos())?.max(1))?;
        Ok(Tally { ops: 1, elapsed: took, ..tally })
    }

    pub(crate) fn add(&mut self, other: &Tally) -> Result<()> {
        self.ops += other.ops;
        self.elapsed += other.elapsed;
        self.processor += other.processor;
        Ok(self.latency.add(&other.latency)?)
    }

    pub(crate) fn ops_per_second(&self) -> f64 {
        self.ops as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency, in microseconds, that this share of the operations kept to.
    pub(crate) fn quantile_us(&self, share: f64) -> f64 {
        self.latency.value_at_quantile(share) as f64 / 1e3
    }

    /// What the processors spent on one operation, in microseconds.
    pub(crate) fn processor_us(&self) -> f64 {
        self.processor.as_secs_f64() * 1e6 / self.ops as f64
    }
}

/// Runs `plan.clients` threads, each with an operation of its own from `make`, numbered from `next` on.
///
/// # Errors
/// The first that an operation gives.
pub(crate) fn run<'a>(
    plan: &Plan,
    next: &AtomicU64,
    make: &(impl Fn(usize) -> Result<Op<'a>> + Sync),
) -> Result<Tally> {
    let barrier = Barrier::new(plan.clients + 1);
    std::thread::scope(|scope| {
        let spawn = |client| {
            let barrier = &barrier;
            scope.spawn(move || {
                let op = make(client);
                barrier.wait();
                client_loop(plan, next, &mut op?)
            })
        };
        let clients: Vec<_> = (0..plan.clients).map(spawn).collect();
        barrier.wait();
        let (start, used) = (Instant::now(), processor_time());
        let mut tally = Tally::new()?;
        for client in clients {
            let of_one = client.join().map_err(|_| "a client panicked")??;
            tally.add(&of_one)?;
        }
        tally.elapsed = start.elapsed();
        tally.processor = processor_time().saturating_sub(used);
        Ok(tally)
    })
}

/// The same, while `readers` threads do something else without a pause.
pub(crate) fn run_beside<'a>(
    plan: &Plan,
    next: &AtomicU64,
    make: &(impl Fn(usize) -> Result<Op<'a>> + Sync),
    readers: usize,
    read: &(impl Fn(usize) -> Result<Op<'a>> + Sync),
) -> Result<Tally> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let spawn = |reader| {
            let stop = &stop;
            scope.spawn(move || {
                let mut op = read(reader)?;
                (0..).take_while(|_| !stop.load(Ordering::Relaxed)).try_for_each(&mut op)
            })
        };
        let readers: Vec<_> = (0..readers).map(spawn).collect();
        let tally = run(plan, next, make);
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().map_err(|_| "a reader panicked")??;
        }
        tally
    })
}

/// What writing 4 KB over and flushing them takes in a directory, each flush delayed, in microseconds.
pub(crate) fn flush_us(directory: &Path, delay: Option<Delay>) -> Result<f64> {
    let file = tempfile::tempfile_in(directory)?;
    let times = (0..200).map(|_| {
        let start = Instant::now();
        file.write_all_at(&[1; 4096], 0)?;
        if let Some(delay) = delay {
            delay.wait();
        }
        file.sync_all()?;
        Ok(start.elapsed().as_secs_f64() * 1e6)
    });
    Ok(median(times.collect::<Result<_>>()?))
}

/// What this process has used of the processors, all threads together.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    // Neither is ever negative.
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

fn client_loop(plan: &Plan, next: &AtomicU64, op: &mut Op<'_>) -> Result<Tally> {
    let mut tally = Tally::new()?;
    let start = Instant::now();
    let mut began = start;
    while began - start < plan.length {
        let first = next.fetch_add(plan.batch, Ordering::Relaxed);
        if first + plan.batch > plan.end {
            break;
        }
        for n in first..first + plan.batch {
            op(n)?;
        }
        let ended = Instant::now();
        let nanos = u64::try_from((ended - began).as_nanos())? / plan.batch;
        tally.latency.record(nanos.max(1))?;
        tally.ops += plan.batch;
        began = ended;
    }
    Ok(tally)
}

/// The median of what a figure is in each round of one subject, over what it is in the same round of another.
pub(crate) fn median_ratio(ours: &[Tally], theirs: &[Tally], figure: impl Fn(&Tally) -> f64) -> f64 {
    median(ours.iter().zip(theirs).map(|(ours, theirs)| figure(ours) / figure(theirs)).collect())
}

/// The middle of some numbers; of an even count the mean of the two in the middle.
pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => numbers[middle],
        _ => f64::midpoint(numbers[middle - 1], numbers[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn every_number_is_given_once_and_none_past_the_end() {
        let plan = Plan { clients: 4, length: Duration::from_secs(5), batch: 3, end: 1_000 };
        let seen = parking_lot::Mutex::new(Vec::new());
        let tally = run(&plan, &AtomicU64::new(10), &|_| {
            Ok(Box::new(|n| {
                seen.lock().push(n);
                Ok(())
            }))
        });
        let mut seen = seen.lock().clone();
        seen.sort_unstable();
        assert_eq!(seen, (10..1_000).collect::<Vec<_>>());
        assert_eq!(tally.unwrap().ops, 990);
    }

    #[test]
    fn a_failing_operation_ends_it_with_its_error() {
        let plan = Plan { clients: 2, length: Duration::from_secs(5), batch: 1, end: u64::MAX };
        let failed = run(&plan, &AtomicU64::new(0), &|_| Ok(Box::new(|_| Err("broken".into()))));
        assert_eq!(failed.unwrap_err().to_string(), "broken");
    }
}
