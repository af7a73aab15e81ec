//! The write-ahead log, kept short: copied back into the database by us, in front of a write or, while there are many
//! writers, beside them.
//!
//! SQLite would do that by itself after a commit, but it tells nobody when it fails, and after a flush that failed a
//! second try can succeed without the data (law DUR-2). It also tries after every single commit while a reader is in
//! the way. A thread beside a lone writer would only cost it time.
//!
//! A log that is begun anew is written over, which costs a disk less than one that grows; so it is never cut while
//! the store is at work. Only a writer can see to it that the next one begins it anew, so the thread leaves that, and
//! what was written meanwhile, to the next writer that comes. Leaves it the flush of the database too, because SQLite
//! flushes it when all of the log was copied: many writers, who all wait for that, have it done more often, and less of
//! it at a time; not too often, because to begin a log anew costs flushes of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;
use safe_files::recovery::mark_because;
use store_api::{Result, describe};

use crate::connection::open_beside;
use crate::{Options, error};

/// How many pages the log holds before a lone writer copies it back: 8 MB.
const PAGES: u32 = 1000;

/// How many it holds before that is done for many writers: 4 MB. To begin a log anew is three flushes, which a slow disk
/// takes as long over as over any other, so half of this costs sixteen writers a twentieth of their speed or more.
const PAGES_OF_MANY: u32 = 500;

/// How many more than that it may hold while a thread copies it back beside the writers.
const MOST_PAGES: u32 = 8 * PAGES;

/// How long readers that are still on the log are waited for. A read takes less, and new ones find all they need in
/// the database; only a snapshot that stays open takes longer, and then the log grows by as many pages again before
/// the next try.
const PATIENCE: Duration = Duration::from_millis(20);

/// The log of one database, as its writer sees it.
pub(crate) struct Log {
    /// How many pages it held after the last commit.
    pages: Arc<AtomicU32>,
    /// How many it held when readers were in the way of beginning it anew; 0 when none were.
    held_up: AtomicU32,
    beside: Mutex<Beside>,
}

impl Log {
    /// How many pages it held after the last commit, or 0 after it was copied back.
    #[cfg(test)]
    pub(crate) fn pages(&self) -> u32 {
        self.pages.load(Ordering::Relaxed)
    }

    /// Counts from now on what `connection` commits.
    pub(crate) fn of(connection: &mut Connection, path: PathBuf, options: Options) -> Result<Self> {
        let pages = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&pages);
        let count = move |_: &mut rusqlite::hooks::Wal, held: i32| {
            counted.store(held.unsigned_abs(), Ordering::Relaxed);
            Ok(()) // anything else would make a commit that was stored look like one that failed
        };
        connection.wal_hook(Some(count)).map_err(|e| error::sqlite("setting up a connection", e))?;
        let beside = Mutex::new(Beside { path, options, connection: None, thread: None });
        Ok(Log { pages, held_up: AtomicU32::new(0), beside })
    }

    /// Copies the log back when it is due, so that the next writer begins it anew. No transaction is open. While
    /// writers are `many`, most of it is done by a thread beside them, and what is left is less.
    ///
    /// # Errors
    /// `Backend` or `Corrupt`, and not everything is copied. Readers and other processes that are in the way are none.
    pub(crate) fn tend(&self, connection: &Connection, many: bool) -> Result<()> {
        let (pages, held_up) = (self.pages.load(Ordering::Relaxed), self.held_up.load(Ordering::Relaxed));
        if pages < held_up {
            self.held_up.store(0, Ordering::Relaxed);
        }
        if pages < held_up + if many { PAGES_OF_MANY } else { PAGES } {
            return Ok(());
        }
        if self.beside.lock().is_at_work(many)? && pages < MOST_PAGES {
            return Ok(());
        }
        let copy = || {
            connection.busy_timeout(PATIENCE)?;
            let mut copy = connection.prepare_cached("PRAGMA wal_checkpoint(RESTART)")?;
            copy.query_one([], |row| row.get::<_, bool>(0))
        };
        let in_the_way = copy().map_err(failed)?;
        let left = if in_the_way { pages } else { 0 };
        self.pages.store(left, Ordering::Relaxed);
        self.held_up.store(left, Ordering::Relaxed);
        Ok(())
    }

    /// Ends what is done beside the writers, before the last of them closes.
    ///
    /// # Errors
    /// As [`Log::tend`].
    pub(crate) fn end(&self) -> Result<()> {
        self.beside.lock().end()
    }
}

fn failed(error: rusqlite::Error) -> store_api::Error {
    error::sqlite("copying the write-ahead log back", error)
}

/// Copies the log back on a thread of its own, as far as it was written when it began.
struct Beside {
    path: PathBuf,
    options: Options,
    /// Opened when it is first needed; with the thread while that is at work.
    connection: Option<Connection>,
    thread: Option<JoinHandle<Result<Connection>>>,
}

impl Beside {
    /// Whether the thread is at work; it is begun if it is to be. False when it has just ended, so that whoever asks
    /// does the rest, and when it cannot begin, so that whoever asks does all of it.
    ///
    /// # Errors
    /// What it failed with.
    fn is_at_work(&mut self, begin: bool) -> Result<bool> {
        if let Some(ended) = self.thread.take_if(|thread| thread.is_finished()) {
            self.connection = Some(join(ended)?);
            return Ok(false);
        }
        if begin && self.thread.is_none() {
            self.begin();
        }
        Ok(self.thread.is_some())
    }

    fn begin(&mut self) {
        let idle = self.connection.take();
        let Ok(connection) = idle.map_or_else(|| open_beside(&self.path, &self.options), Ok) else { return };
        let path = self.path.clone();
        let copy = move || {
            let copied = connection.query_one("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
            let copied = copied.map_err(failed).inspect_err(|error| {
                // The writers hear of it when they next look; should there be no next time, the marker tells.
                if error::is_disk_failure(error) {
                    mark_because(&path, describe(error));
                }
            });
            copied.map(|()| connection)
        };
        self.thread = thread::Builder::new().name("store-sqlite log".to_owned()).spawn(copy).ok();
    }

    fn end(&mut self) -> Result<()> {
        self.connection = None;
        self.thread.take().map_or(Ok(()), |thread| join(thread).map(drop))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // A store that was not closed. Its marker, if it left one, tells.
        drop(self.end());
    }
}

fn join(thread: JoinHandle<Result<Connection>>) -> Result<Connection> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
