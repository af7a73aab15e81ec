//! What an engine's author writes to run the laws: how to make a store, what the engine is, and hooks for what a
//! store cannot do to itself (damage, strange files, failing flushes).
//!
//! Only [`Harness::name`], [`Harness::facts`], [`Harness::create_waiting`], [`Instance::store`] and
//! [`Instance::reopen`] must be written. Every other method is a hook: an engine that leaves it out is *exempt* from
//! the part of a law that needs it, and the suite says so on the standard error of the passing test. An exemption is
//! not a proof: what was not tested is not promised, unless the fact that exempts says that it cannot happen.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use store_api::{ErrorKind, Result, Store};

/// How long the suite's stores wait for a lock: far above the default of 5 s, so that a slow machine breaks no law
/// that is not about waiting.
pub const PATIENT: Duration = Duration::from_secs(60);

/// What an engine is. The suite holds [`EngineInfo`](store_api::EngineInfo) to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// What was acknowledged is there after the store was reopened, also by another process. An engine that says no
    /// is exempt from DUR-1 and DUR-2 and from what can only happen to data that outlives its process.
    pub durable: bool,
    /// Several processes may have it open at once. An engine that says no runs SEQ-3 with threads only, and refuses
    /// a second opener as Busy (law OPEN-2).
    pub multi_process: bool,
    /// It lives in local files. An engine that says no is exempt from what is about files: OPEN-1, ROT-1 and the
    /// half of SEC-1 that reads them.
    pub file: bool,
}

impl Facts {
    /// An engine that keeps everything in the memory of its process.
    pub const MEMORY: Facts = Facts { durable: false, multi_process: false, file: false };
}

/// How to make the stores of one engine, in one configuration.
pub trait Harness: Sync {
    /// The engine's name, for reports.
    fn name(&self) -> &str;

    /// What the engine is.
    fn facts(&self) -> Facts;

    /// A fresh, empty store in a fresh place, whose calls wait for a lock as long as `wait`.
    fn create_waiting(&self, wait: Duration) -> Box<dyn Instance>;

    /// A fresh, empty store in a fresh place.
    fn create(&self) -> Box<dyn Instance> {
        self.create_waiting(PATIENT)
    }

    /// Opens a place (see [`Instance::place`]) beside whoever has it open already: from another process, or as a
    /// second opener in this one.
    ///
    /// `None` exempts from what other processes do: the kills of DUR-1, the processes of SEQ-3, OPEN-2 beyond one
    /// store, and OPEN-1.
    fn open(&self, place: &Path, wait: Duration) -> Option<Result<Arc<dyn Store>>> {
        let _ = (place, wait);
        None
    }

    /// Makes, inside the empty directory `dir`, places that an open must refuse and leave untouched: a newer schema,
    /// another program's file in the same format, a damaged file (law OPEN-1). The suite adds files of text and of
    /// random bytes by itself.
    fn strangers(&self, dir: &Path) -> Vec<Stranger> {
        let _ = dir;
        Vec::new()
    }
}

/// A place that an open must refuse.
#[derive(Debug, Clone)]
pub struct Stranger {
    /// What it is, for the report (`a newer schema`).
    pub what: String,
    /// Where it is.
    pub place: PathBuf,
    /// How the open must refuse it.
    pub refused_as: ErrorKind,
}

/// One store of an engine, and the place where it is. Dropping it removes the place.
pub trait Instance: Send {
    /// The open store.
    fn store(&self) -> Arc<dyn Store>;

    /// Drops the store, without closing it first, and opens its place again. A store that is not durable comes back
    /// empty. The law that calls this has dropped every other handle.
    ///
    /// # Errors
    /// What the open gives.
    fn reopen(&mut self) -> Result<()>;

    /// What [`Harness::open`] takes.
    fn place(&self) -> Option<&Path> {
        None
    }

    /// The files that the store consists of at this moment, its logs included (law SEC-1).
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Closes the store, flips one bit among the bytes that hold its records (values, keys or indexes), chosen by
    /// `seed` so that seeds reach all of them, and opens it again: `Some(Err(..))` when the open refuses. `None`
    /// exempts from ROT-1.
    fn rot(&mut self, seed: u64) -> Option<Result<()>> {
        let _ = seed;
        None
    }

    /// Makes every flush of the open store fail from now on, or work again. `false` says that it cannot, and exempts
    /// from DUR-2.
    fn fail_flushes(&mut self, fail: bool) -> bool {
        let _ = fail;
        false
    }
}
