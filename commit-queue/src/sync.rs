//! The primitives of the queue and its clock: the standard ones, or those of a scheduler that tries interleavings out:
//! shuttle, which draws them at random, with a clock that stands still but for waiting; and loom, which goes through
//! all of them, with a clock that stands still.

#[cfg(not(any(shuttle, loom)))]
pub(crate) use real::*;
#[cfg(any(shuttle, loom))]
pub use tried::MISSES_WAKE_UPS;
#[cfg(any(shuttle, loom))]
pub(crate) use tried::*;

use std::sync::PoisonError;

/// Locks. A panic while the lock was held cannot have left the state half changed: nothing that panics runs under it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(not(any(shuttle, loom)))]
mod real {
    pub(crate) use std::sync::{Arc, Mutex, MutexGuard};
    use std::thread::{self, Thread};
    use std::time::{Duration, Instant};

    pub(crate) fn now() -> Instant {
        Instant::now()
    }

    /// Lets a thread sleep until another wakes it, also one that does so first. It may wake for no reason.
    pub(crate) struct Parker(Thread);

    impl Parker {
        pub(crate) fn of_this_thread() -> Self {
            Parker(thread::current())
        }

        pub(crate) fn unpark(&self) {
            self.0.unpark();
        }

        #[allow(clippy::unused_self, reason = "it is this thread's")]
        pub(crate) fn park(&self) {
            thread::park();
        }

        #[allow(clippy::unused_self, reason = "it is this thread's")]
        pub(crate) fn park_for(&self, time: Duration) {
            thread::park_timeout(time);
        }
    }

    /// Lets other threads run.
    pub(crate) fn pause() {
        thread::yield_now();
    }
}

#[cfg(any(shuttle, loom))]
mod tried {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    #[cfg(loom)]
    use loom::sync::Condvar;
    #[cfg(loom)]
    pub(crate) use loom::sync::{Arc, Mutex, MutexGuard};
    #[cfg(shuttle)]
    use shuttle::sync::Condvar;
    #[cfg(shuttle)]
    pub(crate) use shuttle::sync::{Arc, Mutex, MutexGuard};

    pub(crate) use clock::{now, pause};

    /// A wait that is longer than this never ends by itself, so that a wake-up that is lost shows as a deadlock.
    const FOR_EVER: Duration = Duration::from_secs(1);

    /// The control of the schedules: with it, who sleeps forgets what woke it before it slept.
    pub static MISSES_WAKE_UPS: AtomicBool = AtomicBool::new(false);

    /// What a thread's own parking is made of.
    pub(crate) struct Parker {
        woken: Mutex<bool>,
        told: Condvar,
    }

    impl Parker {
        pub(crate) fn of_this_thread() -> Self {
            Parker { woken: Mutex::new(false), told: Condvar::new() }
        }

        pub(crate) fn unpark(&self) {
            *super::lock(&self.woken) = true;
            self.told.notify_one();
        }

        pub(crate) fn park(&self) {
            let mut woken = super::lock(&self.woken);
            if MISSES_WAKE_UPS.load(Ordering::SeqCst) {
                *woken = false;
            }
            while !*woken {
                woken = self.told.wait(woken).unwrap();
            }
            *woken = false;
        }

        pub(crate) fn park_for(&self, time: Duration) {
            if time > FOR_EVER { self.park() } else { pause() }
        }
    }

    #[cfg(shuttle)]
    mod clock {
        use std::sync::OnceLock;
        use std::sync::atomic::{AtomicU64, Ordering};
        use std::time::{Duration, Instant};

        use shuttle::rand::Rng as _;

        static BEGAN: OnceLock<Instant> = OnceLock::new();
        static PASSED_MICROS: AtomicU64 = AtomicU64::new(0);

        pub(crate) fn now() -> Instant {
            *BEGAN.get_or_init(Instant::now) + Duration::from_micros(PASSED_MICROS.load(Ordering::SeqCst))
        }

        /// Lets others run while a little time passes.
        pub(crate) fn pause() {
            PASSED_MICROS.fetch_add(shuttle::rand::thread_rng().gen_range(0..200), Ordering::SeqCst);
            shuttle::thread::yield_now();
        }
    }

    #[cfg(loom)]
    mod clock {
        use std::sync::OnceLock;
        use std::time::Instant;

        static BEGAN: OnceLock<Instant> = OnceLock::new();

        pub(crate) fn now() -> Instant {
            *BEGAN.get_or_init(Instant::now)
        }

        /// Lets others run.
        pub(crate) fn pause() {
            loom::thread::yield_now();
        }
    }
}
