//! Group commit, for any engine: writers that arrive while a flush is under way share the next one.
//!
//! An open transaction passes from writer to writer, in the order in which they came. Each does its work in it on
//! its own thread; the last commits for all, and all of them return when the flush has. There is no thread of the
//! queue's own and no request that would have to be sent to one, so a lone writer pays nothing: no hand-off, no
//! savepoint, no wait for company.
//!
//! - An operation that fails or panics is undone alone. One that was refused waits for the flush too when others came
//!   before it in the transaction: what it was refused for may be theirs.
//! - When the flush fails, or the engine loses the transaction, every member of the batch gets that error.
//! - A batch that was larger than one makes the next one linger a little for as many, an eighth of a usual flush at
//!   most: those whom the last flush acknowledged are on their way back.
//! - To wake a thread takes about as long as an operation. So whoever begins an operation wakes the next two in line
//!   beforehand, and they watch for their turn meanwhile, awake, for as long as a few operations take at most.
//! - Nobody is overtaken: the turn is handed to the writer that has waited longest.

use std::collections::VecDeque;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use store_api::{Error, Result};

mod sync;

#[cfg(shuttle)]
#[doc(hidden)]
pub use sync::MISSES_WAKE_UPS;

use sync::{Arc, Condvar, Mutex, MutexGuard, lock, now, wait, wait_on, watch};

/// The most operations in one batch: bounds how long the first waits for the last.
pub const MAX_BATCH: usize = 64;

/// The longest that a batch lingers for others, however slow the flush.
const MAX_LINGER: Duration = Duration::from_micros(300);

/// The longest that a thread watches for what is about to happen before it sleeps: a few operations.
const WATCH: Duration = Duration::from_micros(50);

/// How many of the next in line are woken beforehand: one takes the turn at once, the other is awake when it is next.
const AWAKE: usize = 2;

/// What an engine does for its queue. The calls come one at a time, in the order of the protocol:
/// `begin`, then for each operation but the first `mark` … `keep` or `undo`, then `commit` or `abort`.
pub trait Engine: Send + Sync {
    /// An open write transaction. It moves from thread to thread.
    type Open: Send;

    /// Begins, waiting for writers outside this queue no longer than `patience`.
    ///
    /// # Errors
    /// Whatever is in the way; the operation that asked gets it.
    fn begin(&self, patience: Duration) -> Result<Self::Open>;

    /// Marks the point to which the next operation can be undone.
    ///
    /// # Errors
    /// The transaction is lost.
    fn mark(&self, open: &mut Self::Open) -> Result<()>;

    /// The operation since the mark is good.
    ///
    /// # Errors
    /// The transaction is lost.
    fn keep(&self, open: &mut Self::Open) -> Result<()>;

    /// Undoes the operation since the mark.
    ///
    /// # Errors
    /// The transaction is lost.
    fn undo(&self, open: &mut Self::Open) -> Result<()>;

    /// Makes the whole transaction durable.
    ///
    /// # Errors
    /// All members get it; its outcome says whether the writes may have happened.
    fn commit(&self, open: Self::Open) -> Result<()>;

    /// Undoes the whole transaction.
    ///
    /// # Errors
    /// Not even that worked.
    fn abort(&self, open: Self::Open) -> Result<()>;
}

/// The writers of one store, in line.
pub struct Queue<E: Engine> {
    engine: E,
    timeout: Duration,
    line: Mutex<Line<E::Open>>,
    /// Rung when somebody joins the line while a batch lingers.
    arrived: Bell,
    /// How long a thread watches before it sleeps: not at all where no other core works meanwhile.
    watch: Duration,
}

/// Who waits, who is at work, and what the last flush was like.
struct Line<O> {
    /// Somebody has the turn, or it has been handed to somebody.
    taken: bool,
    waiting: VecDeque<Waiter>,
    /// The turn on its way to the writer with this ticket.
    handed: Option<(u64, Option<Batch<O>>)>,
    next_ticket: u64,
    /// How often the turn was taken: whoever is near watches once each time.
    turns: u64,
    /// Whoever has the turn is at work, so it is going to hand it on soon.
    at_work: bool,
    /// Whoever has the turn lingers for company.
    lingers: bool,
    last_batch: usize,
    usual_flush: Duration,
}

struct Waiter {
    ticket: u64,
    turn: Arc<Bell>,
}

/// Tells one thread that what it waits for has come. Everything but the watching happens under the lock of the line,
/// which is what orders it; the flags are atomic for the thread that watches without the lock.
#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    watched: AtomicBool,
    told: Condvar,
}

impl Bell {
    fn ring(&self) {
        self.rung.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Wakes who sleeps. It looks around and sleeps on, or watches.
    fn wake(&self) {
        if !self.watched.load(Ordering::Relaxed) {
            self.told.notify_one();
        }
    }

    /// Waits awake until the bell rings, or for that long.
    fn watch<'a, T>(&self, of: &'a Mutex<T>, guard: MutexGuard<'a, T>, time: Duration) -> MutexGuard<'a, T> {
        self.watched.store(true, Ordering::Relaxed);
        drop(guard);
        watch(time, || self.rung.load(Ordering::Relaxed));
        let guard = lock(of);
        self.watched.store(false, Ordering::Relaxed);
        guard
    }
}

/// An open transaction and those who have worked in it.
struct Batch<O> {
    open: O,
    size: usize,
    outcome: Arc<Outcome>,
}

/// How a batch ended, once it has.
struct Outcome {
    result: Mutex<Option<Result<()>>>,
    known: Condvar,
}

impl Outcome {
    fn publish(&self, result: Result<()>) {
        *lock(&self.result) = Some(result);
        self.known.notify_all();
    }

    fn wait(&self) -> Result<()> {
        let mut result = lock(&self.result);
        loop {
            match &*result {
                Some(result) => return result.clone(),
                None => result = wait_on(&self.known, result),
            }
        }
    }
}

impl<E: Engine> Queue<E> {
    /// A queue whose writers wait for their turn for `timeout` at the longest.
    pub fn new(engine: E, timeout: Duration) -> Self {
        let line = Line {
            taken: false,
            waiting: VecDeque::new(),
            handed: None,
            next_ticket: 0,
            turns: 0,
            at_work: false,
            lingers: false,
            last_batch: 1,
            usual_flush: Duration::ZERO,
        };
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let watch = if cores > 1 { WATCH } else { Duration::ZERO };
        Queue { engine, timeout, line: Mutex::new(line), arrived: Bell::default(), watch }
    }

    /// The engine.
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// Runs `work` in a transaction that others may share, and returns once it is durable, or undone.
    ///
    /// # Errors
    /// `Busy` when the turn did not come in time; what `work` gives; what `begin` or the flush gives.
    ///
    /// # Panics
    /// When `work` does: what it did is undone, and the panic goes on.
    pub fn write<R>(&self, work: impl FnOnce(&E::Open) -> Result<R>) -> Result<R> {
        let start = now();
        let (turn, batch) = self.take_turn(start)?;
        match batch {
            None => self.lead(turn, self.timeout.saturating_sub(now() - start), work),
            Some(batch) => self.join(turn, batch, work),
        }
    }

    /// Runs `work` while nobody writes.
    ///
    /// # Errors
    /// `Busy` when the turn did not come in time; what `work` gives.
    pub fn alone<R>(&self, work: impl FnOnce(&E) -> Result<R>) -> Result<R> {
        let (turn, batch) = self.take_turn(now())?;
        if let Some(batch) = batch {
            // The batch was handed on with the duty to commit it.
            let (outcome, result) = self.flush(batch);
            outcome.publish(result);
        }
        let result = work(&self.engine);
        drop(turn);
        result
    }

    /// The first operation of a batch: to undo it is to abort, so it needs no mark.
    fn lead<R>(
        &self,
        turn: Turn<'_, E>,
        patience: Duration,
        work: impl FnOnce(&E::Open) -> Result<R>,
    ) -> Result<R> {
        let open = self.engine.begin(patience)?;
        let done = catch_unwind(AssertUnwindSafe(|| work(&open)));
        match done {
            Ok(Ok(value)) => {
                let outcome = Arc::new(Outcome { result: Mutex::new(None), known: Condvar::new() });
                self.end(turn, Batch { open, size: 1, outcome })?;
                Ok(value)
            }
            Ok(Err(error)) => {
                self.engine.abort(open)?;
                Err(error)
            }
            Err(panic) => {
                // The panic is the worse news; an engine that cannot abort refuses the next `begin`.
                drop(self.engine.abort(open));
                drop(turn);
                resume_unwind(panic)
            }
        }
    }

    /// A later operation of a batch: undone alone when it fails, and answered with the others.
    fn join<R>(
        &self,
        turn: Turn<'_, E>,
        mut batch: Batch<E::Open>,
        work: impl FnOnce(&E::Open) -> Result<R>,
    ) -> Result<R> {
        if let Err(lost) = self.engine.mark(&mut batch.open) {
            return Err(self.lose(batch, lost));
        }
        let done = catch_unwind(AssertUnwindSafe(|| work(&batch.open)));
        let settled = match &done {
            Ok(Ok(_)) => self.engine.keep(&mut batch.open),
            Ok(Err(_)) | Err(_) => self.engine.undo(&mut batch.open),
        };
        let flushed = match settled {
            Err(lost) => Err(self.lose(batch, lost)),
            Ok(()) => {
                batch.size += 1;
                self.end(turn, batch)
            }
        };
        match done {
            // A failure of its own explains more than what became of the batch.
            Ok(Err(own)) if !own.is_refusal() => Err(own),
            Ok(answer) => flushed.and(answer),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// The transaction is gone: nobody in the batch has written anything.
    fn lose(&self, batch: Batch<E::Open>, lost: Error) -> Error {
        let lost = self.engine.abort(batch.open).err().unwrap_or(lost);
        batch.outcome.publish(Err(lost.clone()));
        lost
    }

    /// Hands the batch to the next in line, or flushes it when there is none; returns when it is flushed.
    fn end(&self, turn: Turn<'_, E>, batch: Batch<E::Open>) -> Result<()> {
        let outcome = Arc::clone(&batch.outcome);
        match turn.pass_on(batch) {
            None => outcome.wait(),
            Some((turn, batch)) => {
                let (_, result) = self.flush(batch);
                // The next batch begins before the members of this one wake.
                drop(turn);
                outcome.publish(result.clone());
                result
            }
        }
    }

    /// Commits; gives what came of it, and whom to tell.
    fn flush(&self, batch: Batch<E::Open>) -> (Arc<Outcome>, Result<()>) {
        let start = now();
        let result = self.engine.commit(batch.open);
        let took = now() - start;
        let mut line = lock(&self.line);
        line.last_batch = batch.size;
        line.usual_flush = if line.usual_flush.is_zero() { took } else { (line.usual_flush * 7 + took) / 8 };
        (batch.outcome, result)
    }

    /// Takes the turn, and the open batch that comes with it, or waits in line.
    fn take_turn(&self, start: Instant) -> Result<Taken<'_, E>> {
        let mut line = lock(&self.line);
        if !line.taken {
            line.taken = true;
            line.begin_work();
            return Ok((Turn { queue: self }, None));
        }
        let ticket = line.next_ticket;
        line.next_ticket += 1;
        let bell = Arc::new(Bell::default());
        line.waiting.push_back(Waiter { ticket, turn: Arc::clone(&bell) });
        if line.lingers {
            self.arrived.ring();
        }
        let mut watched = None;
        loop {
            if let Some((_, batch)) = line.handed.take_if(|(to, _)| *to == ticket) {
                line.begin_work();
                return Ok((Turn { queue: self }, batch));
            }
            let left = self.timeout.saturating_sub(now() - start);
            if left.is_zero() {
                line.waiting.retain(|waiter| waiter.ticket != ticket);
                return Err(Error::Busy {
                    waited: now() - start,
                    holder: "other writers in this process".into(),
                });
            }
            let turn = line.turns;
            line = if line.at_work && line.is_near(ticket) && watched.replace(turn) != Some(turn) {
                bell.watch(&self.line, line, self.watch.min(left))
            } else {
                wait(&bell.told, &self.line, line, left)
            };
        }
    }
}

impl<O> Line<O> {
    /// Hands the turn, with the batch if there is one, to who has waited longest; false when nobody waits.
    fn hand_on(&mut self, batch: &mut Option<Batch<O>>) -> bool {
        let Some(next) = self.waiting.pop_front() else { return false };
        self.handed = Some((next.ticket, batch.take()));
        next.turn.ring();
        true
    }

    /// Whoever has just got the turn goes to work: time for the next to watch.
    fn begin_work(&mut self) {
        self.turns += 1;
        self.at_work = true;
        self.waiting.iter().take(AWAKE).for_each(|next| next.turn.wake());
    }

    /// Whether the writer with this ticket is one of those that are woken beforehand.
    fn is_near(&self, ticket: u64) -> bool {
        self.waiting.iter().take(AWAKE).any(|next| next.ticket == ticket)
    }

    /// How long a batch of this size should linger for others.
    fn linger(&self, size: usize) -> Duration {
        if size < self.last_batch { (self.usual_flush / 8).min(MAX_LINGER) } else { Duration::ZERO }
    }
}

/// The turn, and the open batch that came with it, if one did.
type Taken<'q, E> = (Turn<'q, E>, Option<Batch<<E as Engine>::Open>>);

/// The turn to write. Dropped, it goes to the next in line, who begins a new batch.
struct Turn<'q, E: Engine> {
    queue: &'q Queue<E>,
}

impl<'q, E: Engine> Turn<'q, E> {
    /// Hands the batch on with the duty to commit it, lingering if others are to be expected; gives both back when
    /// nobody comes, or the batch is full.
    fn pass_on(self, batch: Batch<E::Open>) -> Option<(Self, Batch<E::Open>)> {
        let Queue { line: mutex, arrived, watch, .. } = self.queue;
        let mut line = lock(mutex);
        let until = now() + line.linger(batch.size);
        let full = batch.size >= MAX_BATCH;
        let mut batch = Some(batch);
        let mut watched = false;
        while full || !line.hand_on(&mut batch) {
            let left = until.saturating_duration_since(now());
            if full || left.is_zero() {
                line.at_work = false;
                drop(line);
                return batch.map(|batch| (self, batch));
            }
            line.lingers = true;
            arrived.rung.store(false, Ordering::Relaxed);
            line = if watched {
                wait(&arrived.told, mutex, line, left)
            } else {
                watched = true;
                arrived.watch(mutex, line, left.min(*watch))
            };
            line.lingers = false;
        }
        drop(line);
        std::mem::forget(self); // it is the next one's now
        None
    }
}

impl<E: Engine> Drop for Turn<'_, E> {
    fn drop(&mut self) {
        let mut line = lock(&self.queue.line);
        if !line.hand_on(&mut None) {
            line.taken = false;
        }
    }
}
