//! Where campaigns put their stores, and how they open them.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use store::{Durability, OpenOptions, Result, Store};
use tempfile::TempDir;

/// How long a store of a campaign waits for whoever is in its way: far longer than any of them should take.
pub(crate) const PATIENT: Duration = Duration::from_secs(30);

/// Memory that looks like a disk, where there is such a thing.
const IN_MEMORY: &str = "/dev/shm";

/// A directory that is removed when it is dropped: in memory where the system has a file system there, so that
/// nothing waits for a disk. What a process leaves there when it dies is what it would leave on a disk.
pub(crate) fn scratch() -> io::Result<TempDir> {
    let named = || tempfile::Builder::new();
    match named().prefix("torture-").tempdir_in(IN_MEMORY) {
        Err(_) => named().prefix("torture-").tempdir(),
        made => made,
    }
}

/// The URL of a file of an engine.
pub(crate) fn url(engine: &str, path: &Path) -> String {
    format!("{engine}:{}", path.display())
}

/// Opens a store, or makes it.
pub(crate) fn open(url: &str, durability: Durability) -> Result<Arc<dyn Store>> {
    store::open_with(url, &OpenOptions::default().busy_timeout(PATIENT).durability(durability))
}
