//! File systems that campaigns mount for themselves, as root.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::tool;

/// A mounted file system, unmounted when it is dropped. Who holds one drops it before the directory that it lies in.
pub(crate) struct Mounted {
    at: PathBuf,
}

/// How often an unmount is tried, and what lies between: the kernel may still be letting go of a loop device.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

impl Mounted {
    /// Makes the directory `at` and mounts `what` there.
    pub(crate) fn new(options: &[&str], what: &Path, at: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&at)?;
        tool::run("mount", options, &[what, &at])?;
        Ok(Mounted { at })
    }

    pub(crate) fn at(&self) -> &Path {
        &self.at
    }

    /// Mounts it again with other options.
    pub(crate) fn remount(&self, options: &str) -> io::Result<()> {
        tool::run("mount", &["-o", &format!("remount,{options}")], &[&self.at])
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for _ in 0..TRIES {
            if tool::run("umount", &[], &[&self.at]).is_ok() {
                return;
            }
            std::thread::sleep(PAUSE);
        }
        // Somebody is still in it, and nobody is there to be told: it goes when they do.
        drop(tool::run("umount", &["--lazy"], &[&self.at]));
    }
}
