//! Work that one thread lends to another: the only place of this crate with `unsafe`.
//!
//! A [`Job`] stands on the stack of the writer that waits for it, and may borrow from that writer; who leads runs it
//! through a [`Lent`], which has forgotten those lifetimes. It is sound because the writer stays where it is until
//! nobody holds a `Lent` any more: [`Queue::wait_in_line`](crate::Queue) ends when the queue has told it what became
//! of the job, or when it has taken the job back out of the line, and should anything unwind before that, the
//! process ends.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::thread;

use store_api::{Error, Result};

/// What a writer wants done, and what came of it when it was last done: the answer, or its panic.
pub(crate) struct Job<F, R> {
    work: F,
    done: Option<thread::Result<Result<R>>>,
}

impl<F, R> Job<F, R> {
    pub(crate) fn new(work: F) -> Self {
        Job { work, done: None }
    }

    /// What its writer is answered, when the transaction that it was for ended so.
    ///
    /// # Panics
    /// When the work did.
    pub(crate) fn answer(self, ended: Result<()>) -> Result<R> {
        match self.done {
            Some(Err(panic)) => resume_unwind(panic),
            // A failure of its own explains more than what became of the batch.
            Some(Ok(Err(own))) if !own.is_refusal() => Err(own),
            Some(Ok(answer)) => ended.and(answer),
            None => ended.and(Err(never_run())),
        }
    }
}

/// The transaction was lost before it was this job's turn, and then there is an error to give.
pub(crate) fn never_run() -> Error {
    Error::backend("writing", std::io::Error::other("the transaction ended before this operation began"))
}

/// A job with its types forgotten, for an open transaction of type `O`.
pub(crate) trait Run<O> {
    /// Runs the job, which may have been run before; whether what it did is to be kept. One that panicked stays so: what
    /// it left behind in itself is not to be relied on.
    fn run(&mut self, open: &O) -> bool;
}

impl<O, R, F: FnMut(&O) -> Result<R>> Run<O> for Job<F, R> {
    fn run(&mut self, open: &O) -> bool {
        if !matches!(self.done, Some(Err(_))) {
            self.done = Some(catch_unwind(AssertUnwindSafe(|| (self.work)(open))));
        }
        matches!(self.done, Some(Ok(Ok(_))))
    }
}

/// A job in the hands of another thread than the one on whose stack it stands.
pub(crate) struct Lent<O>(NonNull<dyn Run<O>>);

// SAFETY: `Lent::new` makes them of jobs whose work and whose answer are `Send`, and exclusively borrowed.
unsafe impl<O> Send for Lent<O> {}

impl<O: 'static> Lent<O> {
    /// Lends `job` out.
    ///
    /// # Safety
    /// Until the `Lent` is dropped, `job` stays where it is, and nobody else touches it.
    pub(crate) unsafe fn new<R, F>(job: &mut Job<F, R>) -> Self
    where
        R: Send,
        F: FnMut(&O) -> Result<R> + Send,
    {
        let job: NonNull<dyn Run<O> + '_> = NonNull::from(job);
        // SAFETY: only the lifetime changes, and the caller sees to it that nothing is used after its end.
        Lent(unsafe { std::mem::transmute::<NonNull<dyn Run<O> + '_>, NonNull<dyn Run<O>>>(job) })
    }
}

impl<O> Run<O> for Lent<O> {
    fn run(&mut self, open: &O) -> bool {
        // SAFETY: whoever lent it keeps it alive and leaves it alone for as long as this exists.
        unsafe { self.0.as_mut() }.run(open)
    }
}

/// Ends the process when it is dropped, which only something that unwinds does: the stack that a lent job stands on
/// must not go away.
pub(crate) struct StaysPut(());

impl StaysPut {
    pub(crate) fn begin() -> Self {
        StaysPut(())
    }

    /// The job has come back.
    pub(crate) fn end(self) {
        std::mem::forget(self);
    }
}

impl Drop for StaysPut {
    fn drop(&mut self) {
        std::process::abort();
    }
}
