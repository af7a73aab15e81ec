//! A disk whose flushes fail while they are told to.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fault_disk::sqlite::{Mount, mount};
use fault_disk::{Disk as Layer, Handle};

/// The disk below all files that are opened in a directory.
pub(crate) struct Disk {
    flushes: Arc<Flushes>,
    _mount: Mount,
}

impl Disk {
    pub(crate) fn below(directory: &Path) -> Self {
        let flushes = Arc::<Flushes>::default();
        let layer = Arc::clone(&flushes);
        Disk { flushes, _mount: mount(directory, layer).unwrap() }
    }

    pub(crate) fn fail_flushes(&self, fail: bool) {
        self.flushes.fail.store(fail, Ordering::SeqCst);
    }
}

#[derive(Debug, Default)]
struct Flushes {
    fail: AtomicBool,
}

impl Layer for Flushes {
    fn sync(&self, file: &dyn Handle) -> io::Result<()> {
        if self.fail.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk does not answer"));
        }
        file.sync()
    }
}
