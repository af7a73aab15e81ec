//! What the divided lock is made of: the lock of every day, or that of a scheduler that tries its interleavings out.

#[cfg(not(shuttle))]
pub(crate) use real::*;
#[cfg(shuttle)]
pub(crate) use tried::*;

#[cfg(not(shuttle))]
mod real {
    use std::sync::atomic::{AtomicUsize, Ordering};

    pub(crate) use parking_lot::{RwLock, RwLockWriteGuard};

    /// A number of this thread. Threads are counted as they come.
    pub(crate) fn number_of_this_thread() -> usize {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed);
        }
        MINE.with(|mine| *mine)
    }
}

#[cfg(shuttle)]
mod tried {
    use std::sync::{PoisonError, TryLockError};
    use std::time::Duration;

    use shuttle::sync::RwLockReadGuard;
    pub(crate) use shuttle::sync::RwLockWriteGuard;

    /// A lock whose waits never end by themselves, so that one that waits for ever shows as a deadlock.
    #[derive(Debug)]
    pub(crate) struct RwLock<T>(shuttle::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            RwLock(shuttle::sync::RwLock::new(value))
        }

        pub(crate) fn try_read_for(&self, _wait: Duration) -> Option<RwLockReadGuard<'_, T>> {
            Some(self.0.read().unwrap_or_else(PoisonError::into_inner))
        }

        pub(crate) fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
            match self.0.try_write() {
                Ok(guard) => Some(guard),
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            }
        }

        pub(crate) fn try_write_for(&self, _wait: Duration) -> Option<RwLockWriteGuard<'_, T>> {
            Some(self.0.write().unwrap_or_else(PoisonError::into_inner))
        }
    }

    /// A number of this thread.
    pub(crate) fn number_of_this_thread() -> usize {
        shuttle::current::me().into()
    }
}
