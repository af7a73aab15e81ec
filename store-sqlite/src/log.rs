//! The write-ahead log, kept short: copied back into the database by the writers themselves, in front of a write.
//!
//! SQLite would do that by itself after a commit, but it tells nobody when it fails, and after a flush that failed a
//! second try can succeed without the data (law DUR-2). It also tries after every single commit while a reader is in
//! the way.
//!
//! A log that is begun anew is written over, which costs a disk less than one that grows; so it is never cut while
//! the store is at work, and longer ones are no faster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use store_api::Result;

use crate::error;

/// How many pages the log holds before it is copied back: 8 MB.
const PAGES: u32 = 1000;

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
}

impl Log {
    /// How many pages it held after the last commit, or 0 after it was copied back.
    #[cfg(test)]
    pub(crate) fn pages(&self) -> u32 {
        self.pages.load(Ordering::Relaxed)
    }

    /// Counts from now on what `connection` commits.
    pub(crate) fn of(connection: &mut Connection) -> Result<Self> {
        let pages = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&pages);
        let count = move |_: &mut rusqlite::hooks::Wal, held: i32| {
            counted.store(held.unsigned_abs(), Ordering::Relaxed);
            Ok(()) // anything else would make a commit that was stored look like one that failed
        };
        connection.wal_hook(Some(count)).map_err(|e| error::sqlite("setting up a connection", e))?;
        Ok(Log { pages, due: AtomicU32::new(PAGES) })
    }

    /// Copies the log back when it is due, so that the next writer begins it anew. No transaction is open.
    ///
    /// # Errors
    /// `Backend` or `Corrupt`, and not everything is copied. Readers and other processes that are in the way are none.
    pub(crate) fn tend(&self, connection: &Connection) -> Result<()> {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.due.load(Ordering::Relaxed) {
            if pages < PAGES {
                self.due.store(PAGES, Ordering::Relaxed);
            }
            return Ok(());
        }
        let copy = || {
            connection.busy_timeout(PATIENCE)?;
            let mut copy = connection.prepare_cached("PRAGMA wal_checkpoint(RESTART)")?;
            copy.query_one([], |row| row.get::<_, bool>(0))
        };
        let in_the_way = copy().map_err(|e| error::sqlite("copying the write-ahead log back", e))?;
        self.pages.store(0, Ordering::Relaxed);
        self.due.store(if in_the_way { pages + PAGES } else { PAGES }, Ordering::Relaxed);
        Ok(())
    }
}
