//! The write-ahead log, kept short: copied back into the database by the writers themselves, in front of a write.
//!
//! SQLite would do that by itself after a commit, but it tells nobody when it fails, and after a flush that failed a
//! second try can succeed without the data (law DUR-2). It also tries after every single commit while a reader is in
//! the way.
//!
//! A log that is begun anew is written over, which costs a disk less than one that grows; so it is never cut while
//! the store is at work, and longer ones are no faster.

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

/// How many pages the log holds before it is copied back: 8 MB.
const PAGES: u32 = 1000;

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
    /// With how many it is to be copied back.
    due: AtomicU32,
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
        let beside = Mutex::new(Beside { path, options, state: State::Unused });
        Ok(Log { pages, due: AtomicU32::new(PAGES), beside })
    }

    /// Copies the log back when it is due, so that the next writer begins it anew. No transaction is open. While
    /// writers are `many`, most of it is done by a thread beside them, and what is left is less.
    ///
    /// # Errors
    /// `Backend` or `Corrupt`, and not everything is copied. Readers and other processes that are in the way are none.
    pub(crate) fn tend(&self, connection: &Connection, many: bool) -> Result<()> {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.due.load(Ordering::Relaxed) {
            if pages < PAGES {
                self.due.store(PAGES, Ordering::Relaxed);
            }
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
        self.pages.store(0, Ordering::Relaxed);
        self.due.store(if in_the_way { pages + PAGES } else { PAGES }, Ordering::Relaxed);
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
    state: State,
}

enum State {
    Unused,
    Idle(Connection),
    AtWork(JoinHandle<Result<Connection>>),
}

impl Beside {
    /// Whether the thread is at work; it is begun if it is to be. False when it has just ended, so that whoever asks
    /// does the rest, and when it cannot begin, so that whoever asks does all of it.
    ///
    /// # Errors
    /// What it failed with.
    fn is_at_work(&mut self, begin: bool) -> Result<bool> {
        match std::mem::replace(&mut self.state, State::Unused) {
            State::AtWork(thread) if !thread.is_finished() => {
                self.state = State::AtWork(thread);
                Ok(true)
            }
            State::AtWork(thread) => {
                self.state = State::Idle(join(thread)?);
                Ok(false)
            }
            idle if !begin => {
                self.state = idle;
                Ok(false)
            }
            State::Idle(connection) => Ok(self.begin(connection)),
            State::Unused => match open_beside(&self.path, &self.options) {
                Ok(connection) => Ok(self.begin(connection)),
                Err(_) => Ok(false),
            },
        }
    }

    fn begin(&mut self, connection: Connection) -> bool {
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
        let thread = thread::Builder::new().name("store-sqlite log".to_owned()).spawn(copy);
        let begun = thread.map(State::AtWork);
        let is_at_work = begun.is_ok();
        self.state = begun.unwrap_or(State::Unused);
        is_at_work
    }

    fn end(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.state, State::Unused) {
            State::AtWork(thread) => join(thread).map(drop),
            State::Idle(_) | State::Unused => Ok(()),
        }
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
