//! The engines there are, and which of them this build has. A new engine is one more row.

use std::sync::Arc;

use store_api::{Error, Result, Store};

use crate::OpenOptions;
use crate::url::{Location, check_path};

/// Opens what follows the scheme.
pub(crate) type Open = fn(&str, &OpenOptions) -> Result<Arc<dyn Store>>;

/// An engine of this project.
pub(crate) struct Engine {
    /// The scheme of its URLs, and the name of its cargo feature.
    pub(crate) scheme: &'static str,
    /// Whether a path follows the scheme.
    has_file: bool,
    /// How to open it, if it is compiled in.
    pub(crate) open: Option<Open>,
}

/// All engines, compiled in or not.
pub(crate) const ALL: &[Engine] = &[
    Engine {
        scheme: "sqlite",
        has_file: true,
        #[cfg(feature = "sqlite")]
        open: Some(open_sqlite),
        #[cfg(not(feature = "sqlite"))]
        open: None,
    },
    Engine {
        scheme: "redb",
        has_file: true,
        #[cfg(feature = "redb")]
        open: Some(open_redb),
        #[cfg(not(feature = "redb"))]
        open: None,
    },
    Engine {
        scheme: "memory",
        has_file: false,
        #[cfg(feature = "memory")]
        open: Some(open_memory),
        #[cfg(not(feature = "memory"))]
        open: None,
    },
];

/// The scheme of the engine that `location` names, or of the one there is, and how that opens what follows it.
pub(crate) fn find(location: Location<'_>) -> Result<(&'static str, Open)> {
    let engine = match location.scheme {
        Some(scheme) => named(scheme)?,
        None => only(location.rest)?,
    };
    let Some(open) = engine.open else {
        let remedy = format!("enable the cargo feature {:?} of the crate `store`", engine.scheme);
        return Err(not_compiled(engine.scheme, remedy));
    };
    if engine.has_file {
        check_path(location.rest)?;
    } else if !location.rest.is_empty() {
        let reason = format!("nothing may follow \"{}:\", found {:?}", engine.scheme, location.rest);
        return Err(Error::invalid("url", reason));
    }
    Ok((engine.scheme, open))
}

/// The engine with this scheme.
fn named(scheme: &str) -> Result<&'static Engine> {
    ALL.iter()
        .find(|engine| engine.scheme == scheme)
        .ok_or_else(|| not_compiled(scheme, format!("the schemes are {}", schemes(ALL.iter()))))
}

/// The engine that a bare path means: the only one compiled in.
fn only(path: &str) -> Result<&'static Engine> {
    let mut compiled = ALL.iter().filter(|engine| engine.open.is_some());
    match (compiled.next(), compiled.next()) {
        (None, _) => {
            let features = ALL.iter().map(|engine| engine.scheme).collect::<Vec<_>>().join(", ");
            Err(not_compiled("", format!("enable one of the cargo features {features} of the crate `store`")))
        }
        (Some(engine), None) if engine.has_file => Ok(engine),
        (Some(engine), None) => {
            let reason = format!(
                "{path:?} is a path, and the one engine in this build has no file: {}:",
                engine.scheme
            );
            Err(Error::invalid("url", reason))
        }
        (Some(_), Some(_)) => {
            let all = schemes(ALL.iter().filter(|engine| engine.open.is_some()));
            let reason = format!(
                "{path:?} names no scheme, and this build has several engines: begin it with one of {all}"
            );
            Err(Error::invalid("url", reason))
        }
    }
}

/// Schemes as a URL begins with them, for people.
fn schemes<'a>(engines: impl Iterator<Item = &'a Engine>) -> String {
    engines.map(|engine| format!("{}:", engine.scheme)).collect::<Vec<_>>().join(", ")
}

fn not_compiled(scheme: &str, remedy: String) -> Error {
    Error::EngineNotCompiled { scheme: scheme.to_owned(), remedy }
}

/// A file outlives its process in any case, so who asks for less gets that.
#[cfg(any(feature = "sqlite", feature = "redb"))]
fn of_a_file(asked: store_api::Durability) -> store_api::Durability {
    asked.max(store_api::Durability::Process)
}

#[cfg(feature = "sqlite")]
fn open_sqlite(path: &str, options: &OpenOptions) -> Result<Arc<dyn Store>> {
    let engine_options = store_sqlite::Options {
        busy_timeout: options.busy_timeout,
        durability: of_a_file(options.durability),
        create: options.create,
        ..store_sqlite::Options::default()
    };
    Ok(Arc::new(store_sqlite::SqliteStore::open_with(path, engine_options)?))
}

#[cfg(feature = "redb")]
fn open_redb(path: &str, options: &OpenOptions) -> Result<Arc<dyn Store>> {
    let engine_options = store_redb::Options {
        busy_timeout: options.busy_timeout,
        durability: of_a_file(options.durability),
        create: options.create,
        cache_size: options.cache_size.unwrap_or(store_redb::Options::default().cache_size),
        ..store_redb::Options::default()
    };
    Ok(Arc::new(store_redb::RedbStore::open_with(path, engine_options)?))
}

#[cfg(feature = "memory")]
fn open_memory(_: &str, options: &OpenOptions) -> Result<Arc<dyn Store>> {
    Ok(Arc::new(store_memory::MemoryStore::new(store_memory::Options { busy_timeout: options.busy_timeout })))
}
