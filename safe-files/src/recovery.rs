#![doc = include_str!("../docs/recovery.md")]

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use store_api::{Error, Result, describe};

use crate::staged::clear_leftovers;
use crate::{create_private, exists, failed, leads_to, remove, rename, sync, sync_directory_of, with_suffix};

/// What an engine lays beside a database while it works on it, as suffixes of its name.
pub type Logs = &'static [&'static str];

/// Where the marker of a database stands.
pub fn marker(database: &Path) -> PathBuf {
    with_suffix(database, "-flush-failed")
}

/// Where the copy is made. What is there is not to be trusted.
fn unfinished(database: &Path) -> PathBuf {
    with_suffix(database, "-recovering")
}

/// Where the copy stands when it is whole, flushed and verified.
fn finished(database: &Path) -> PathBuf {
    with_suffix(database, "-recovered")
}

/// Whether a flush of the database failed and nobody has recovered it since.
///
/// # Errors
/// `Backend`.
pub fn is_marked(database: &Path) -> Result<bool> {
    exists(&marker(database))
}

/// Looks for the marker of one database again and again, as a store does before each write.
///
/// A marker that is left changes its directory. So the directory, held open, is asked when it last changed, which costs a
/// fraction of asking for a path, and the marker is looked for when that may have been after the last look.
#[derive(Debug)]
pub struct Lookout {
    marker: PathBuf,
    /// None where directories cannot be opened.
    directory: Option<File>,
    unmarked: Mutex<Option<Unmarked>>,
}

/// A directory in which there was no marker.
#[derive(Debug, Clone, Copy)]
struct Unmarked {
    /// When it had last changed, as the file system has it.
    changed: SystemTime,
    /// When that was first seen.
    seen: Instant,
    /// It was looked into when every later change already had a later time.
    settled: bool,
}

impl Lookout {
    /// For the marker of `database`.
    ///
    /// # Errors
    /// `Backend`.
    pub fn of(database: &Path) -> Result<Self> {
        let directory = database.parent().filter(|_| cfg!(unix));
        let directory =
            directory.map(|at| File::open(at).map_err(|e| failed("opening", at, e))).transpose()?;
        Ok(Lookout { marker: marker(database), directory, unmarked: Mutex::default() })
    }

    /// Whether the marker is there.
    ///
    /// # Errors
    /// `Backend`.
    pub fn is_marked(&self) -> Result<bool> {
        let Some(directory) = &self.directory else { return exists(&self.marker) };
        let changed = directory.metadata().and_then(|directory| directory.modified());
        let changed = changed.map_err(|e| failed("looking for", &self.marker, e))?;
        let mut unmarked = self.unmarked.lock();
        let before = unmarked.filter(|before| before.changed == changed);
        if before.is_some_and(|before| before.settled) {
            return Ok(false);
        }
        let now = Instant::now();
        let seen = before.map_or(now, |before| before.seen);
        let found = Unmarked { changed, seen, settled: now - seen > longest_tick(changed) };
        let marked = exists(&self.marker)?;
        *unmarked = (!marked).then_some(found);
        Ok(marked)
    }
}

/// For how long the time that a file system gives to a change is given to later ones too, at the longest: some count in
/// one or two seconds, all others in hundredths or less.
fn longest_tick(at: SystemTime) -> Duration {
    let in_seconds = at.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|since| since.subsec_nanos() == 0);
    if in_seconds { Duration::from_secs(3) } else { Duration::from_millis(100) }
}

/// Leaves the marker, with the reason in it for people. One that is there already stays as it is.
///
/// # Errors
/// `Backend`. The marker may be there all the same, and then it counts.
pub fn mark(database: &Path, reason: &str) -> Result<()> {
    let path = marker(database);
    let mut file = match create_private(&path) {
        Err(Error::AlreadyExists { .. }) => return Ok(()),
        other => other?,
    };
    let written = writeln!(file, "{reason}").map_err(|e| failed("writing", &path, e));
    // An empty marker is one too, so each step is taken whatever became of the one before.
    let flushed = sync(&path, &file);
    let named = sync_directory_of(&path);
    written.and(flushed).and(named)
}

/// The reason for which writes are refused after a flush that failed because of `cause`: leaves the marker, and says
/// so when that fails too.
pub fn mark_because(database: &Path, cause: String) -> String {
    match mark(database, &cause) {
        Ok(()) => cause,
        Err(e) => {
            let marker = marker(database);
            format!(
                "{cause}; and {}, which tells the next open, could not be left: {}",
                marker.display(),
                describe(&e)
            )
        }
    }
}

/// Whether `file`, which was opened from the database's name, is the database and to be used as it is: no flush of it
/// has failed, and no recovery has put another in its place. The caller holds the engine's lock on it, so this stays
/// true until it lets go.
///
/// Makes its name survive a loss of power: whoever named it may have died, or failed, just before it did so.
///
/// Removes what nobody works on any more: copies that belong to no marker, because somebody took the marker away while
/// a recovery was cut off; and what a process left that died while it made the database (see [`Staged`](crate::Staged)).
///
/// # Errors
/// `Backend`.
pub fn is_settled(database: &Path, file: &File, logs: Logs) -> Result<bool> {
    if is_marked(database)? || !leads_to(database, file)? {
        return Ok(false);
    }
    sync_directory_of(database)?;
    for copy in [finished(database), unfinished(database)] {
        if exists(&copy)? {
            discard(&copy, logs)?;
        }
    }
    clear_leftovers(database)?;
    Ok(true)
}

fn discard(copy: &Path, logs: Logs) -> Result<()> {
    remove_logs(copy, logs)?;
    remove(copy)
}

fn remove_logs(database: &Path, logs: Logs) -> Result<()> {
    logs.iter().try_for_each(|suffix| remove(&with_suffix(database, suffix)))
}

/// What an opener finds.
#[derive(Debug)]
pub enum Claim {
    /// No marker: the database can be opened.
    Unmarked,
    /// Another opener recovers it.
    Elsewhere,
    /// The caller is to recover it.
    Here(Recovery),
}

/// A recovery under way, which nobody else can begin as long as this is there.
#[derive(Debug)]
pub struct Recovery {
    database: PathBuf,
    logs: Logs,
    /// Locked until it is dropped.
    _marker: File,
}

impl Recovery {
    /// Looks for the marker, and takes the recovery on if nobody else has.
    ///
    /// # Errors
    /// `Backend`, also for a marker in a place where this process cannot write.
    pub fn claim(database: &Path, logs: Logs) -> Result<Claim> {
        let path = marker(database);
        let marker = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Claim::Unmarked),
            other => other.map_err(|e| failed(RECOVERING, &path, e))?,
        };
        match marker.try_lock() {
            // Removed before it was locked: its recovery is over.
            Ok(()) if !leads_to(&path, &marker)? => Ok(Claim::Elsewhere),
            Ok(()) => Ok(Claim::Here(Recovery { database: database.to_owned(), logs, _marker: marker })),
            Err(TryLockError::WouldBlock) => Ok(Claim::Elsewhere),
            Err(TryLockError::Error(e)) => Err(failed("locking", &path, e)),
        }
    }

    /// Whether a recovery that was cut off has left the whole copy. Then the database is not to be looked at any
    /// more: its log may be gone.
    ///
    /// # Errors
    /// `Backend`.
    pub fn is_copied(&self) -> Result<bool> {
        exists(&finished(&self.database))
    }

    /// Makes the copy. `fill` is given an empty file of its owner alone; it copies and verifies, and closes what it
    /// has opened. Nobody else may use the database from before this until the [`swap`](Recovery::swap) is over.
    ///
    /// # Errors
    /// Those of `fill`, and `Backend`; the database and the marker stay as they are, and the copy is gone.
    pub fn copy(&self, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let copy = unfinished(&self.database);
        if let Err(error) = self.make(&copy, fill) {
            // What is left of the copy is removed here if that is possible, and else by the next attempt.
            drop(discard(&copy, self.logs));
            return Err(error);
        }
        rename(&copy, &finished(&self.database))?;
        sync_directory_of(&self.database)
    }

    fn make(&self, copy: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        discard(copy, self.logs)?;
        drop(create_private(copy)?);
        fill(copy)?;
        remove_logs(copy, self.logs)?;
        let file = File::open(copy).map_err(|e| failed("opening", copy, e))?;
        sync(copy, &file)
    }

    /// Puts the copy in the place of the database and what lies beside it, and removes the marker.
    ///
    /// # Errors
    /// `Backend`; the next opener goes on where this one was cut off.
    pub fn swap(self) -> Result<()> {
        // The copy must never stand beside a log that is not its own.
        remove_logs(&self.database, self.logs)?;
        sync_directory_of(&self.database)?;
        rename(&finished(&self.database), &self.database)?;
        sync_directory_of(&self.database)?;
        self.forget()
    }

    /// Removes the marker of a database that is not there any more.
    ///
    /// # Errors
    /// `Backend`.
    pub fn forget(self) -> Result<()> {
        remove(&marker(&self.database))?;
        sync_directory_of(&self.database)
    }
}

/// How much of a file is in memory while it is copied.
const PIECE: usize = 1 << 20;

/// Copies what can be read of `from` to the empty file at `to`.
///
/// Every byte passes through here. A copy by the system may share with the original what lies on the disk, and that is
/// what cannot be trusted.
///
/// # Errors
/// `Backend`.
pub fn copy_file(mut from: &File, to: &Path) -> Result<()> {
    let mut target = OpenOptions::new().write(true).open(to).map_err(|e| failed("opening", to, e))?;
    let mut piece = vec![0; PIECE];
    let mut copy = || {
        from.seek(SeekFrom::Start(0))?;
        loop {
            match from.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(read) => target.write_all(piece.get(..read).unwrap_or_default())?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    };
    copy().map_err(|e| failed("copying to", to, e))
}

const RECOVERING: &str = "recovering the database after a flush that failed, as told by";
