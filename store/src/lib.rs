//! The facade: pick an engine by cargo feature, open it by URL, and call typed methods on an `Arc<dyn Store>`.
//!
//! A host depends on this one crate. Everything that it needs is here: the seams, the records, the errors and the
//! rules of `store-api`, and [`open`].
//!
//! ```
//! use store::*;
//!
//! # fn main() -> Result<()> {
//! # let directory = tempfile::tempdir().map_err(|e| Error::backend("making a directory", e))?;
//! # let file = directory.path().join("agents.db");
//! # let url = match engines().first() {
//! #     None => return Ok(()),
//! #     Some(&"memory") => "memory:".to_owned(),
//! #     Some(scheme) => format!("{scheme}:{}", file.display()),
//! # };
//! // let url = "sqlite:agents.db";
//! let store = store::open(&url)?;
//!
//! let ana = PrincipalId::new("ana")?;
//! let skill = Skill::new(SkillId::new("report")?, ana.clone(), Name::new("weekly report")?);
//! let revision = store.skills().save(&skill, Expect::Absent)?;
//! assert_eq!(store.skills().get(&skill.id)?.map(|stored| stored.revision), Some(revision));
//!
//! // One atomic unit across seams: the run is recorded and paid for, or neither.
//! let now = time::from_nanos(1_767_225_600_000_000_000);
//! let account = Account::new(ana.clone(), MeterName::new("usd")?, Window::default());
//! let usage = store.transact(|tx| {
//!     tx.audit().start_run(&NewRun::new(RunId::new("run 1")?, ana.clone(), now))?;
//!     tx.budgets().admit(&Charge::new(account.clone(), "0.25".parse()?), "10".parse()?, now)
//! })?;
//! assert_eq!(usage.used.to_string(), "0.25");
//! # Ok(())
//! # }
//! ```
//!
//! # URLs
//!
//! | URL | engine | cargo feature |
//! |---|---|---|
//! | `sqlite:PATH` | one SQLite file | `sqlite` (default) |
//! | `redb:PATH` | one redb file, pure Rust, for one process at a time | `redb` |
//! | `memory:` | none on disk; each open is a store of its own | `memory` |
//! | `PATH` | the one engine that is compiled in | |
//!
//! A *bare path* is for hosts that were built with one engine. With several compiled in it could mean any of them,
//! and with `memory` alone there is no file to open: both are errors that say what to write instead.
//!
//! A path is taken to the letter. There is no `//`, no query string, no percent-encoding: what looks like one is
//! refused, so that no part of a URL is silently taken for a file name. A single letter before a colon is a drive
//! (`C:\agents.db`), not a scheme.
//!
//! # Features
//!
//! Features are additive: each compiles one engine in, and the URL's scheme decides. Without any, everything
//! compiles, and every URL is refused as [`EngineNotCompiled`](Error::EngineNotCompiled).

use std::sync::Arc;
use std::time::Duration;

pub use store_api::*;

mod engines;
mod url;

/// How long a call waits for a store that somebody else holds, when nobody says: five seconds.
pub const DEFAULT_BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How to open a store. All engines take the same options.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenOptions {
    /// How long a call waits for a store that somebody else holds before it is `Busy`.
    pub busy_timeout: Duration,
    /// What an acknowledged write is to survive. An engine without a file gives [`Durability::Memory`], and says so
    /// in [`Store::info`]; an engine with one gives no less than [`Durability::Process`].
    pub durability: Durability,
    /// Whether to make a store where there is none.
    pub create: bool,
    /// How many bytes of its file an engine may keep in memory; its own choice when left out. redb keeps one cache
    /// of this size for each open store. SQLite always keeps 16 MiB for each connection, and `memory` has no file.
    pub cache_size: Option<usize>,
}

impl Default for OpenOptions {
    /// [`DEFAULT_BUSY_TIMEOUT`], [`Durability::PowerLoss`], a store is made where there is none, the engine's cache.
    fn default() -> Self {
        OpenOptions {
            busy_timeout: DEFAULT_BUSY_TIMEOUT,
            durability: Durability::PowerLoss,
            create: true,
            cache_size: None,
        }
    }
}

impl OpenOptions {
    /// The same options with another [`busy_timeout`](OpenOptions::busy_timeout).
    #[must_use]
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// The same options with another [`durability`](OpenOptions::durability).
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The same options with another [`create`](OpenOptions::create).
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// The same options with a [`cache_size`](OpenOptions::cache_size).
    #[must_use]
    pub fn cache_size(mut self, bytes: usize) -> Self {
        self.cache_size = Some(bytes);
        self
    }
}

/// Opens the store at `url`, or makes one there, with the default options.
///
/// # Errors
/// `EngineNotCompiled` for a scheme that this build does not have, naming the cargo feature to enable, and for one
/// that does not exist, naming the schemes that do; `InvalidInput` naming `url` for a URL that is none. Then whatever
/// the engine finds: `NotThisStore`, `SchemaTooNew`, `Corrupt`, `Busy`, `Backend`.
pub fn open(url: &str) -> Result<Arc<dyn Store>> {
    open_with(url, &OpenOptions::default())
}

/// Opens the store at `url`.
///
/// # Errors
/// As [`open`], and `NotFound` when there is no file and [`create`](OpenOptions::create) is off.
pub fn open_with(url: &str, options: &OpenOptions) -> Result<Arc<dyn Store>> {
    let location = url::parse(url)?;
    let (_, open) = engines::find(location)?;
    open(location.rest, options)
}

/// What [`open`] takes a URL for before any file is touched: the scheme of an engine, and a path. For the campaign
/// that fuzzes URLs.
#[doc(hidden)]
pub fn take_apart(url: &str) -> Result<(&'static str, &str)> {
    let location = url::parse(url)?;
    Ok((engines::find(location)?.0, location.rest))
}

/// The schemes of the engines that are compiled in.
pub fn engines() -> Vec<&'static str> {
    engines::ALL.iter().filter(|engine| engine.open.is_some()).map(|engine| engine.scheme).collect()
}
