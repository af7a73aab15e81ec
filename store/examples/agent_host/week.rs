//! One week: from the URL of a store to the report.

use std::path::Path;

use store::{Error, Result};

use crate::flags::Flags;
use crate::host::Host;
use crate::markdown::Library;
use crate::report::report;

/// Opens the store, lives through the week or what is left of it, and gives the report. `say` is told what is not
/// part of the report.
pub(crate) fn week(flags: &Flags, say: &mut dyn FnMut(String) -> Result<()>) -> Result<String> {
    let directory = tempfile::tempdir().map_err(|e| Error::backend("making a directory for the store", e))?;
    let url = flags.store.clone().unwrap_or_else(|| default_url(directory.path()));
    let store = store::open(&url)?;
    let info = store.info();
    say(format!("engine: {} ({})", info.engine, info.version))?;
    let library = Library::read(&flags.docs)?;
    library.refused.iter().try_for_each(|page| say(format!("not read: {page}")))?;

    let host = Host::new(store, library, flags)?;
    host.live(say, flags)?;
    let report = report(&host)?;
    host.store.close()?;
    Ok(report)
}

/// A store of the first engine that is compiled in, gone when the host ends.
fn default_url(directory: &Path) -> String {
    match store::engines().first() {
        Some(&"memory") | None => "memory:".to_owned(),
        Some(engine) => format!("{engine}:{}", directory.join("agent-host.store").display()),
    }
}
