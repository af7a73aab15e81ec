//! Power cuts of a real file system: ext4 on a loop device, copied at random moments while a process writes. What the
//! kernel had not brought to the device yet is not in the copy, which is mounted and opened by the real engine.
//!
//! The image lies on a file system of its own, and that one is frozen for the copy: so the copy is the disk as it
//! was at one moment, in the middle of a flush too. Who waits for the disk then waits on, so nothing is acknowledged
//! between the moment and the end of the copy that the copy may lack.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use store::{Durability, describe};
use tempfile::TempDir;

use super::kill::{Acked, Killer, Result};
use super::{Campaign, Plan};
use crate::engines::Engine;
use crate::mount::Mounted;
use crate::place::{open, scratch, url};
use crate::report::Line;
use crate::tool;

pub(crate) const CAMPAIGN: Campaign = Campaign {
    name: "power-cut",
    about: "ext4 on a loop device, copied at random moments while a process writes",
    run,
    child: None,
};

/// How often the power of one disk is cut before a new one takes its place, so that the stores stay small.
const CUTS: u64 = 10;

/// How many cuts a control goes through.
const CONTROL: u64 = 3;

fn run(plan: &Plan, report: &mut dyn FnMut(Line)) {
    let unusable = Disk::new().err();
    for engine in Engine::ALL.into_iter().filter(|engine| plan.wants(engine.name())) {
        let line = |text| Line::new(CAMPAIGN.name, engine.name(), text);
        for (line, cuts, durability) in [
            (line("an acknowledged write survives"), plan.count(10, 500), Durability::PowerLoss),
            (line("durability Process").control(), CONTROL, Durability::Process),
        ] {
            report(match &unusable {
                Some(error) => line.skipped(format!("ext4 on a loop device, as root: {error}")),
                None => line.attempt(plan.seed, "cuts", |line| {
                    cut_all(engine, durability, cuts, &mut Killer::new(engine.name(), plan.seed, line))
                }),
            });
        }
    }
}

fn cut_all(engine: Engine, durability: Durability, cuts: u64, killer: &mut Killer<'_>) -> Result {
    while killer.line.tried < cuts {
        let disk = Disk::new()?;
        let mut acked = Acked::default();
        let url = killer.prepared(disk.guest.at())?;
        for _ in 0..CUTS.min(cuts - killer.line.tried) {
            let threads = killer.random.u64(1..=3);
            let mut writer = killer.start_writer(threads, durability, &url, &mut acked)?;
            killer.let_write(&mut writer, &mut acked)?;
            let before = disk.cut(|| writer.so_far())?;
            let after = writer.kill()?;
            killer.line.tried += 1;
            killer.heard(before, &mut acked);
            // What was acknowledged after the moment may or may not be in the copy.
            acked.writers_died(threads + after.len() as u64);
            look(engine, &disk, &acked, killer)?;
            killer.heard(after, &mut acked);
        }
    }
    Ok(())
}

/// Mounts the copy and compares the store on it with what was acknowledged before the moment.
fn look(engine: Engine, disk: &Disk, acked: &Acked, killer: &mut Killer<'_>) -> Result {
    let copy = disk.mount_copy()?;
    let found = || {
        let store = open(&url(engine.name(), &copy.at().join("store")), Durability::PowerLoss)?;
        let found = acked.check(&*store)?;
        store.close()?;
        Ok::<_, store::Error>(found)
    };
    match found() {
        Ok(found) => killer.note(found),
        Err(error) => killer.wrong(|| describe(&error)),
    }
    Ok(())
}

/// A disk whose power can be cut: ext4 on the image of a disk, which lies on another file system.
struct Disk {
    // In this order they are dropped.
    guest: Mounted,
    host: Mounted,
    directory: TempDir,
}

/// How large the disk is, and the file system below it.
const GUEST: u64 = 24 << 20;
const HOST: u64 = 48 << 20;

impl Disk {
    fn new() -> io::Result<Disk> {
        let directory = scratch()?;
        let path = |name| directory.path().join(name);
        let host = mount(&make(path("host.img"), HOST)?, path("host"))?;
        let guest = mount(&make(image(&host), GUEST)?, path("guest"))?;
        Ok(Disk { guest, host, directory })
    }

    /// Copies the disk as it is at one moment. `meanwhile` is done while nothing reaches the disk any more.
    fn cut<T>(&self, meanwhile: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        tool::run("fsfreeze", &["--freeze"], &[self.host.at()])?;
        let done = fs::copy(image(&self.host), self.copy()).and_then(|_| meanwhile());
        tool::run("fsfreeze", &["--unfreeze"], &[self.host.at()])?;
        done
    }

    /// Mounts the copy, as the system does when the power is back.
    fn mount_copy(&self) -> io::Result<Mounted> {
        mount(&self.copy(), self.directory.path().join("again"))
    }

    fn copy(&self) -> PathBuf {
        self.directory.path().join("copy.img")
    }
}

/// The image of the disk.
fn image(host: &Mounted) -> PathBuf {
    host.at().join("disk.img")
}

/// Makes an image with an empty file system.
fn make(image: PathBuf, size: u64) -> io::Result<PathBuf> {
    File::create(&image)?.set_len(size)?;
    tool::run("mkfs.ext4", &["-q", "-F"], &[&image])?;
    Ok(image)
}

fn mount(image: &Path, at: PathBuf) -> io::Result<Mounted> {
    Mounted::new(&["-o", "loop"], image, at)
}
