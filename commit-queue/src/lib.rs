//! Group commit, for any engine: writers that arrive while a flush is under way share the next one.
//!
//! Who comes first leads: it begins a transaction and does its own work in it, then the work of everybody who has
//! come meanwhile, commits for all, and tells them. Who leads next is the one that has waited longest. All of it
//! happens on the writers' own threads, so a lone writer pays nothing: no hand-off, no wait for company; and a writer in
//! line is woken once for each operation, when it is durable.
//!
//! - An operation that fails or panics fails alone. Most that fail have changed nothing, and nothing needs to be undone.
//!   After one that has, the whole transaction is undone, the operations before it are done again in a new one, and the
//!   batch ends with them. That is dear and rare, where a mark to go back to, set before each operation, was dear and
//!   always paid for. So work may run several times; work that must not runs in a transaction that nobody shares.
//! - One that was refused waits for the flush too when others came before it in the transaction: what it was refused
//!   for may be theirs.
//! - When the flush fails, or the engine loses the transaction, every member of the batch gets that error.
//! - A batch that was larger than one makes the next one linger a little for as many, an eighth of a usual flush at
//!   most: those whom the last flush acknowledged are on their way back.
//! - Nobody is overtaken: work is done, and the lead is handed on, in the order in which the writers came. So nobody
//!   waits for longer than the batch at work and one more, and one for each operation in between that fails half way.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use store_api::{Error, Result};

mod job;
mod sync;
#[cfg(test)]
#[cfg(not(any(shuttle, loom)))]
mod tests;

#[cfg(any(shuttle, loom))]
#[doc(hidden)]
pub use sync::MISSES_WAKE_UPS;

use job::{Job, Lent, Run, StaysPut, never_run};
use sync::{Arc, Mutex, MutexGuard, Parker, lock, now, pause};

/// The most operations in one batch: bounds how long the first waits for the last.
pub const MAX_BATCH: usize = 64;

/// The longest that a batch lingers for others, however slow the flush.
const MAX_LINGER: Duration = Duration::from_micros(300);

/// What an engine does for its queue. The calls come one at a time: `begin`, work and `changes`, then `commit` or
/// `abort`.
pub trait Engine: Send + Sync {
    /// An open write transaction.
    type Open: 'static;

    /// Begins, waiting for writers outside this queue no longer than `patience`.
    ///
    /// # Errors
    /// Whatever is in the way; the operation that asked gets it.
    fn begin(&self, patience: Duration) -> Result<Self::Open>;

    /// A number that every change to the transaction raises; `None` when the engine has undone all of it by itself.
    fn changes(&self, open: &Self::Open) -> Option<u64>;

    /// Makes the whole transaction durable, with what so many writers did in it.
    ///
    /// # Errors
    /// All of them get it; its outcome says whether the writes may have happened.
    fn commit(&self, open: Self::Open, writers: usize) -> Result<()>;

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
}

/// Who waits, and what the last flush was like.
struct Line<O> {
    /// Somebody leads, or has been told to.
    led: bool,
    waiting: VecDeque<Waiter<O>>,
    last_batch: usize,
    usual_flush: Duration,
}

/// A writer in line. One without a job waits to lead.
struct Waiter<O> {
    seat: Arc<Seat>,
    job: Option<Lent<O>>,
}

/// Whether others may share a transaction.
enum Company {
    Welcome,
    Unwanted,
}

/// Where a writer in line sleeps until it is told, once, what has become of it.
struct Seat {
    told: OnceLock<Told>,
    parker: Parker,
}

#[derive(Clone)]
enum Told {
    /// It leads now; its job is its own again.
    Lead,
    /// The transaction that its job was for has ended so.
    Ended(Result<()>),
}

impl Seat {
    /// Only who has taken the waiter out of the line tells it, so nobody was faster.
    fn tell(&self, what: Told) {
        self.told.get_or_init(|| what);
        self.parker.unpark();
    }
}

impl<E: Engine> Queue<E> {
    /// A queue whose writers wait for their turn for `timeout` at the longest.
    pub fn new(engine: E, timeout: Duration) -> Self {
        let line = Line { led: false, waiting: VecDeque::new(), last_batch: 1, usual_flush: Duration::ZERO };
        Queue { engine, timeout, line: Mutex::new(line) }
    }

    /// The engine.
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// Runs `work` in a transaction that others may share, and returns once it is durable, or undone. It may run on
    /// the thread of another writer, and again when the operation of another one made all be undone.
    ///
    /// # Errors
    /// `Busy` when the turn did not come in time; what `work` gives; what `begin` or the flush gives.
    ///
    /// # Panics
    /// When `work` does: what it did is undone, and the panic goes on here.
    pub fn write<R: Send>(&self, work: impl FnMut(&E::Open) -> Result<R> + Send) -> Result<R> {
        let mut job = Job::new(work);
        let mut line = lock(&self.line);
        if !line.led {
            line.led = true;
            drop(line);
            return self.lead(Lead { queue: self }, self.timeout, job, Company::Welcome);
        }
        let start = now();
        // SAFETY: `wait_in_line` comes back when the `Lent` is gone, and the job is not touched before that.
        let lent = unsafe { Lent::new(&mut job) };
        match self.wait_in_line(line, Some(lent), start)? {
            Told::Lead => self.lead(Lead { queue: self }, self.patience_since(start), job, Company::Welcome),
            Told::Ended(ended) => job.answer(ended),
        }
    }

    /// The same in a transaction that nobody shares: `work` runs once, on this thread.
    ///
    /// # Errors
    /// As [`Queue::write`].
    ///
    /// # Panics
    /// As [`Queue::write`].
    pub fn write_by_itself<R>(&self, work: impl FnOnce(&E::Open) -> Result<R>) -> Result<R> {
        let start = now();
        let lead = self.wait_to_lead(start)?;
        let mut work = Some(work);
        let once = |open: &E::Open| work.take().map_or_else(|| Err(never_run()), |work| work(open));
        self.lead(lead, self.patience_since(start), Job::new(once), Company::Unwanted)
    }

    /// Runs `work` while nobody writes.
    ///
    /// # Errors
    /// `Busy` when the turn did not come in time; what `work` gives.
    pub fn alone<R>(&self, work: impl FnOnce(&E) -> Result<R>) -> Result<R> {
        let lead = self.wait_to_lead(now())?;
        let result = work(&self.engine);
        drop(lead);
        result
    }

    /// What is left of the time that a writer waits which came at `start`.
    fn patience_since(&self, start: Instant) -> Duration {
        self.timeout.saturating_sub(now() - start)
    }

    fn wait_to_lead(&self, start: Instant) -> Result<Lead<'_, E>> {
        let mut line = lock(&self.line);
        if line.led {
            self.wait_in_line(line, None, start)?;
        } else {
            line.led = true;
            drop(line);
        }
        Ok(Lead { queue: self })
    }

    /// Waits until somebody tells. When it comes back, the job is in nobody's hands.
    fn wait_in_line(
        &self,
        mut line: MutexGuard<'_, Line<E::Open>>,
        job: Option<Lent<E::Open>>,
        start: Instant,
    ) -> Result<Told> {
        let stays_put = StaysPut::begin();
        let seat = Arc::new(Seat { told: OnceLock::new(), parker: Parker::of_this_thread() });
        line.waiting.push_back(Waiter { seat: Arc::clone(&seat), job });
        drop(line);
        let told = loop {
            if let Some(told) = seat.told.get() {
                break Ok(told.clone());
            }
            let waited = now() - start;
            if waited < self.timeout {
                seat.parker.park_for(self.timeout - waited);
            } else if lock(&self.line).leave(&seat) {
                break Err(Error::Busy { waited, holder: "other writers in this process".into() });
            } else {
                seat.parker.park(); // its job is at work
            }
        };
        stays_put.end();
        told
    }

    /// Begins a batch with a job of one's own, and ends it.
    fn lead<R, F>(
        &self,
        lead: Lead<'_, E>,
        patience: Duration,
        mut job: Job<F, R>,
        company: Company,
    ) -> Result<R>
    where
        F: FnMut(&E::Open) -> Result<R>,
    {
        let open = self.engine.begin(patience)?;
        if !job.run(&open) {
            // To undo the first is to undo all.
            let aborted = self.engine.abort(open);
            drop(lead);
            return job.answer(aborted);
        }
        let mut members = Vec::new();
        let worked = match company {
            Company::Welcome => self.run_jobs_of_others(open, &mut job, &mut members),
            Company::Unwanted => Ok(open),
        };
        let ended = worked.and_then(|open| self.flush(open, 1 + members.len()));
        // The next batch begins before the members of this one wake.
        drop(lead);
        members.iter().for_each(|member| member.tell(Told::Ended(ended.clone())));
        job.answer(ended)
    }

    /// Does the work of all who come while it is done, in a transaction that has the leader's `own` in it.
    ///
    /// # Errors
    /// The transaction is lost, and nothing is open: nobody in the batch has written anything.
    fn run_jobs_of_others(
        &self,
        open: E::Open,
        own: &mut dyn Run<E::Open>,
        members: &mut Vec<Arc<Seat>>,
    ) -> Result<E::Open> {
        let (mut done, mut until) = (Vec::new(), None);
        loop {
            let mut jobs = self.take_jobs(1 + members.len(), &mut until).into_iter();
            if jobs.len() == 0 {
                return Ok(open);
            }
            while let Some((seat, mut job)) = jobs.next() {
                members.push(seat);
                if !self.run_cleanly(&open, &mut job) {
                    lock(&self.line).put_back(jobs);
                    return self.do_again(open, own, &mut done);
                }
                done.push(job);
            }
        }
    }

    /// Runs a job; whether what is to be undone of it is nothing.
    fn run_cleanly(&self, open: &E::Open, job: &mut dyn Run<E::Open>) -> bool {
        let before = self.engine.changes(open);
        job.run(open) || self.engine.changes(open) == before
    }

    /// Undoes the transaction and does in a new one what had been done in it before it had to be undone. Another process
    /// may have written in between, so that what went well does not any more: that is left out then.
    ///
    /// # Errors
    /// As [`Queue::run_jobs_of_others`].
    fn do_again(
        &self,
        mut open: E::Open,
        own: &mut dyn Run<E::Open>,
        others: &mut [Lent<E::Open>],
    ) -> Result<E::Open> {
        let mut jobs = vec![own];
        jobs.extend(others.iter_mut().map(|job| job as &mut dyn Run<E::Open>));
        loop {
            self.engine.abort(open)?;
            open = self.engine.begin(self.timeout)?;
            let unclean = jobs.iter_mut().position(|job| !self.run_cleanly(&open, *job));
            match unclean {
                None => return Ok(open),
                Some(at) => drop(jobs.remove(at)),
            }
        }
    }

    /// The jobs in line, as many as there is room for in a batch of so many. Lingers for some when there are none and
    /// more are to be expected.
    fn take_jobs(&self, size: usize, until: &mut Option<Instant>) -> Vec<(Arc<Seat>, Lent<E::Open>)> {
        loop {
            let mut line = lock(&self.line);
            let jobs = line.take_jobs(size);
            let linger = line.linger(size);
            drop(line);
            let Some(linger) = linger.filter(|_| jobs.is_empty()) else { return jobs };
            let now = now();
            if now >= *until.get_or_insert(now + linger) {
                return jobs;
            }
            pause();
        }
    }

    fn flush(&self, open: E::Open, size: usize) -> Result<()> {
        // Only a batch after one that was shared lingers.
        let start = (size > 1).then(now);
        let result = self.engine.commit(open, size);
        lock(&self.line).flushed(size, start.map(|start| now() - start));
        result
    }
}

impl<O> Line<O> {
    /// Takes jobs out of the line for a batch of so many, up to where it is full or somebody wants to lead.
    fn take_jobs(&mut self, size: usize) -> Vec<(Arc<Seat>, Lent<O>)> {
        let mut jobs = Vec::new();
        while size + jobs.len() < MAX_BATCH
            && let Some(Waiter { seat, job }) = self.waiting.pop_front_if(|next| next.job.is_some())
        {
            jobs.extend(job.map(|job| (seat, job)));
        }
        jobs
    }

    /// Puts jobs back to where they were taken from.
    fn put_back(&mut self, jobs: impl DoubleEndedIterator<Item = (Arc<Seat>, Lent<O>)>) {
        jobs.rev().for_each(|(seat, job)| self.waiting.push_front(Waiter { seat, job: Some(job) }));
    }

    /// How long a batch of so many lingers for others, if it does: while it is smaller than the last one, and nobody
    /// is in line, who then wants to lead.
    fn linger(&self, size: usize) -> Option<Duration> {
        let expected = self.waiting.is_empty() && size < self.last_batch;
        expected.then(|| (self.usual_flush / 8).min(MAX_LINGER))
    }

    /// Keeps in mind how large a batch was and, if it was shared, how long its flush took; of the times, an average that
    /// forgets.
    fn flushed(&mut self, size: usize, took: Option<Duration>) {
        self.last_batch = size;
        let Some(took) = took else { return };
        self.usual_flush = if self.usual_flush.is_zero() { took } else { (self.usual_flush * 7 + took) / 8 };
    }

    /// Takes a writer that waits no longer out of the line; false when somebody has already done so.
    fn leave(&mut self, seat: &Arc<Seat>) -> bool {
        let position = self.waiting.iter().position(|waiter| Arc::ptr_eq(&waiter.seat, seat));
        position.is_some_and(|position| self.waiting.remove(position).is_some())
    }
}

/// The lead. Dropped, it goes to who has waited longest.
struct Lead<'q, E: Engine> {
    queue: &'q Queue<E>,
}

impl<E: Engine> Drop for Lead<'_, E> {
    fn drop(&mut self) {
        let mut line = lock(&self.queue.line);
        let next = line.waiting.pop_front();
        line.led = next.is_some();
        drop(line);
        if let Some(Waiter { seat, .. }) = next {
            seat.tell(Told::Lead);
        }
    }
}
