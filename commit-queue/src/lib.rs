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
//! - Nobody is overtaken: the turn is handed to the writer that has waited longest.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use store_api::{Error, Result};

mod sync;

use sync::{Arc, Condvar, Mutex, lock, now, wait, wait_on};

/// The most operations in one batch: bounds how long the first waits for the last.
pub const MAX_BATCH: usize = 64;

/// The longest that a batch lingers for others, however slow the flush.
const MAX_LINGER: Duration = Duration::from_micros(300);

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
    /// Told when somebody joins the line, for a batch that lingers.
    arrived: Condvar,
}

/// Who waits, who is at work, and what the last flush was like.
struct Line<O> {
    /// Somebody has the turn, or it has been handed to somebody.
    taken: bool,
    waiting: VecDeque<Waiter>,
    /// The turn on its way to the writer with this ticket.
    handed: Option<(u64, Option<Batch<O>>)>,
    next_ticket: u64,
    last_batch: usize,
    usual_flush: Duration,
}

struct Waiter {
    ticket: u64,
    called: Arc<Condvar>,
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
            last_batch: 1,
            usual_flush: Duration::ZERO,
        };
        Queue { engine, timeout, line: Mutex::new(line), arrived: Condvar::new() }
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
            self.flush(batch);
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
                self.flush(batch);
                drop(turn);
                outcome.wait()
            }
        }
    }

    fn flush(&self, batch: Batch<E::Open>) {
        let start = now();
        let result = self.engine.commit(batch.open);
        let took = now() - start;
        let mut line = lock(&self.line);
        line.last_batch = batch.size;
        line.usual_flush = if line.usual_flush.is_zero() { took } else { (line.usual_flush * 7 + took) / 8 };
        drop(line);
        batch.outcome.publish(result);
    }

    /// Takes the turn, and the open batch that comes with it, or waits in line.
    fn take_turn(&self, start: Instant) -> Result<Taken<'_, E>> {
        let mut line = lock(&self.line);
        if !line.taken {
            line.taken = true;
            return Ok((Turn { queue: self }, None));
        }
        let ticket = line.next_ticket;
        line.next_ticket += 1;
        let called = Arc::new(Condvar::new());
        line.waiting.push_back(Waiter { ticket, called: Arc::clone(&called) });
        self.arrived.notify_one();
        loop {
            if let Some((_, batch)) = line.handed.take_if(|(to, _)| *to == ticket) {
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
            line = wait(&called, &self.line, line, left);
        }
    }
}

impl<O> Line<O> {
    /// Hands the turn, with the batch if there is one, to who has waited longest; false when nobody waits.
    fn hand_on(&mut self, batch: &mut Option<Batch<O>>) -> bool {
        let Some(next) = self.waiting.pop_front() else { return false };
        self.handed = Some((next.ticket, batch.take()));
        next.called.notify_one();
        true
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
        if batch.size >= MAX_BATCH {
            return Some((self, batch));
        }
        let mut line = lock(&self.queue.line);
        let until = now() + line.linger(batch.size);
        let mut batch = Some(batch);
        while !line.hand_on(&mut batch) {
            let left = until.saturating_duration_since(now());
            if left.is_zero() {
                drop(line);
                return batch.map(|batch| (self, batch));
            }
            line = wait(&self.queue.arrived, &self.queue.line, line, left);
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
