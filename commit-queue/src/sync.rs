//! The primitives of the queue and its clock: the standard ones, or those of a scheduler that tries their
//! interleavings out, with a clock that stands still but for waiting.

#[cfg(not(shuttle))]
pub(crate) use real::*;
#[cfg(shuttle)]
pub use tried::MISSES_WAKE_UPS;
#[cfg(shuttle)]
pub(crate) use tried::*;

use std::sync::PoisonError;

/// Locks. A panic while the lock was held cannot have left the state half changed: nothing that panics runs under it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until told.
pub(crate) fn wait_on<'a, T>(told: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    told.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

#[cfg(not(shuttle))]
mod real {
    use std::sync::PoisonError;
    pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard};
    use std::time::{Duration, Instant};

    pub(crate) fn now() -> Instant {
        Instant::now()
    }

    /// Waits until told, or for that long. May return early.
    pub(crate) fn wait<'a, T>(
        told: &Condvar,
        _of: &'a Mutex<T>,
        guard: MutexGuard<'a, T>,
        time: Duration,
    ) -> MutexGuard<'a, T> {
        told.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits awake until something has happened, or for that long.
    pub(crate) fn watch(time: Duration, happened: impl Fn() -> bool) {
        let until = now() + time;
        while !happened() && now() < until {
            std::hint::spin_loop();
        }
    }
}

#[cfg(shuttle)]
mod tried {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    use shuttle::rand::Rng as _;
    pub(crate) use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard};

    /// A wait that is longer than this never ends by itself, so that a wake-up that is lost shows as a deadlock.
    const FOR_EVER: Duration = Duration::from_secs(1);

    static BEGAN: OnceLock<Instant> = OnceLock::new();
    static PASSED_MICROS: AtomicU64 = AtomicU64::new(0);

    pub(crate) fn now() -> Instant {
        *BEGAN.get_or_init(Instant::now) + Duration::from_micros(PASSED_MICROS.load(Ordering::SeqCst))
    }

    /// The control of the schedules: with it, who waits lets go of the lock before it listens, so that it may miss
    /// its wake-up.
    pub static MISSES_WAKE_UPS: AtomicBool = AtomicBool::new(false);

    /// Waits until told, or lets others run while a little time passes.
    pub(crate) fn wait<'a, T>(
        told: &Condvar,
        of: &'a Mutex<T>,
        guard: MutexGuard<'a, T>,
        time: Duration,
    ) -> MutexGuard<'a, T> {
        if time > FOR_EVER {
            let misses = MISSES_WAKE_UPS.load(Ordering::SeqCst);
            let guard = if misses { let_go(of, guard) } else { guard };
            return super::wait_on(told, guard);
        }
        PASSED_MICROS.fetch_add(shuttle::rand::thread_rng().gen_range(0..200), Ordering::SeqCst);
        let_go(of, guard)
    }

    /// Lets others have the lock for a moment.
    fn let_go<'a, T>(of: &'a Mutex<T>, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        drop(guard);
        shuttle::thread::yield_now();
        super::lock(of)
    }

    /// Waits awake until something has happened, or for a while.
    pub(crate) fn watch(_time: Duration, happened: impl Fn() -> bool) {
        for _ in 0..shuttle::rand::thread_rng().gen_range(0..3) {
            if happened() {
                return;
            }
            shuttle::thread::yield_now();
        }
    }
}
