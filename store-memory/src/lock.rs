//! The lock around the state: many readers or one writer, each waiting only so long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use store_api::{Error, Result};

use crate::sync::{RwLock, RwLockWriteGuard, number_of_this_thread};

#[cfg(all(test, shuttle))]
mod schedules;

/// Into how many locks it is divided: enough that few threads share one, few enough that a writer takes them all
/// in a fraction of a microsecond.
const SHARDS: usize = 8;

/// A read-write lock that is divided, so that readers on different threads do not write to the same memory: one
/// counter that all readers touch makes two threads slower than one.
///
/// Each shard is a lock of its own with a reference to the value. A reader locks the shard of its thread. A writer
/// locks all shards, in order, and takes the references out of them; the one that is left is the only one, so it
/// may write. `None` in the shards means that the lock is closed.
#[derive(Debug)]
pub(crate) struct DividedLock<T> {
    shards: [Shard<T>; SHARDS],
    wait: Duration,
}

/// Alone on its cache lines (pairs of them, because processors fetch two).
#[derive(Debug)]
#[repr(align(128))]
struct Shard<T>(RwLock<Option<Arc<T>>>);

impl<T> DividedLock<T> {
    /// A lock that waits up to `wait` before it is Busy.
    pub(crate) fn new(value: T, wait: Duration) -> Self {
        let value = Arc::new(value);
        let shard = |_| Shard(RwLock::new(Some(Arc::clone(&value))));
        DividedLock { shards: std::array::from_fn(shard), wait }
    }

    /// Runs `work` on the value, beside other readers.
    pub(crate) fn read<R>(&self, work: impl FnOnce(&T) -> Result<R>) -> Result<R> {
        let Shard(shard) = &self.shards[number_of_this_thread() % SHARDS];
        let value = shard.try_read_for(self.wait).ok_or_else(|| self.busy())?;
        work(value.as_deref().ok_or(Error::Closed)?)
    }

    /// Runs `work` on the value, alone. The lock is released also when `work` panics.
    pub(crate) fn write<R>(&self, work: impl FnOnce(&mut T) -> Result<R>) -> Result<R> {
        let mut alone = Alone::among(self.lock_all()?)?;
        // Nobody else has a reference: readers borrow from the shards, which are locked and empty.
        work(Arc::get_mut(&mut alone.value).ok_or_else(|| self.busy())?)
    }

    /// Drops the value: from now on the lock is closed.
    pub(crate) fn close(&self) -> Result<()> {
        self.lock_all()?.0.iter_mut().for_each(|shard| **shard = None);
        Ok(())
    }

    /// Locks all shards, always in the same order, so that two writers cannot hold each other up for ever.
    fn lock_all(&self) -> Result<AllLocked<'_, T>> {
        // The clock is asked only by who has to wait: asking costs as much as a lock.
        let mut start = None;
        let mut locked = AllLocked(ArrayVec::new());
        for Shard(shard) in &self.shards {
            let guard = shard.try_write().or_else(|| {
                let waited = start.get_or_insert_with(Instant::now).elapsed();
                shard.try_write_for(self.wait.saturating_sub(waited))
            });
            locked.0.push(guard.ok_or_else(|| self.busy())?);
        }
        Ok(locked)
    }

    fn busy(&self) -> Error {
        Error::Busy { waited: self.wait, holder: "another transaction, snapshot or export is running".into() }
    }
}

/// The shards, locked. They are unlocked in the reverse order: who waits for all of them waits at the first, and is woken
/// when it finds the others free.
struct AllLocked<'a, T>(ArrayVec<RwLockWriteGuard<'a, Option<Arc<T>>>, SHARDS>);

impl<T> Drop for AllLocked<'_, T> {
    fn drop(&mut self) {
        while self.0.pop().is_some() {}
    }
}

/// The only reference to the value, while all shards are locked and empty. Gives it back to them when it is dropped.
///
/// The value stands first, so that this reference is gone before a shard is unlocked: the next writer would find that
/// its own is not the only one, and be Busy for no reason. The campaign `histories` met that once in many runs.
struct Alone<'a, T> {
    value: Arc<T>,
    shards: AllLocked<'a, T>,
}

impl<'a, T> Alone<'a, T> {
    fn among(mut shards: AllLocked<'a, T>) -> Result<Self> {
        let last = shards.0.iter_mut().filter_map(|shard| shard.take()).last();
        let value = last.ok_or(Error::Closed)?;
        Ok(Alone { value, shards })
    }
}

impl<T> Drop for Alone<'_, T> {
    fn drop(&mut self) {
        for shard in &mut self.shards.0 {
            **shard = Some(Arc::clone(&self.value));
        }
    }
}
