//! The one write path: one transaction at a time, which writers in line share.

use std::sync::Arc;
use std::time::Duration;

use commit_queue::Engine;
use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};
use redb::{Database, ReadableDatabase};
use store_api::{Error, Result};

use crate::error::{Edge, busy};
use crate::kv::{Reading, Writing};
use crate::open;

/// The database of an open store.
pub(crate) struct Held {
    /// `None` once it is closed. A snapshot keeps it locked for reading as long as it runs; a write transaction need
    /// not, because only who has the turn to write closes.
    database: RwLock<Option<Database>>,
    edge: Arc<Edge>,
    timeout: Duration,
}

impl Held {
    pub(crate) fn new(database: Database, timeout: Duration) -> Self {
        Held { database: RwLock::new(Some(database)), edge: Arc::default(), timeout }
    }

    /// The open database, kept open until the guard is dropped.
    pub(crate) fn database(&self) -> Result<MappedRwLockReadGuard<'_, Database>> {
        self.database_within(self.timeout)
    }

    fn database_within(&self, patience: Duration) -> Result<MappedRwLockReadGuard<'_, Database>> {
        let closing = || busy(patience, "the store is being closed");
        let database = self.database.try_read_for(patience).ok_or_else(closing)?;
        RwLockReadGuard::try_map(database, Option::as_ref).map_err(|_| Error::Closed)
    }

    pub(crate) fn snapshot(&self, database: &Database) -> Result<Reading<'_>> {
        let tx = self.edge.call("beginning a snapshot", || database.begin_read())?;
        Ok(Reading::new(tx, &self.edge))
    }

    /// What an operation failed with.
    pub(crate) fn in_doubt(&self, error: Error) -> Error {
        self.edge.in_doubt(error)
    }

    /// Waits for the snapshots that run and closes; closing again does nothing. Nobody may be writing.
    pub(crate) fn close(&self) -> Result<()> {
        let running = || busy(self.timeout, "snapshots that still run");
        let database = self.database.try_write_for(self.timeout).ok_or_else(running)?.take();
        database.map_or(Ok(()), |database| self.edge.call("closing", || database.close()))
    }
}

/// The panic of a host is held by the queue until redb has undone what it did, because redb panicking in its turn would
/// end the process.
impl Engine for Held {
    type Open = Writing;

    fn begin(&self, patience: Duration) -> Result<Writing> {
        let database = self.database_within(patience)?;
        self.edge.check_writable()?;
        open::begin(&self.edge, &database)
    }

    fn changes(&self, writing: &Writing) -> Option<u64> {
        Some(writing.changes())
    }

    fn commit(&self, writing: Writing, _writers: usize) -> Result<()> {
        writing.commit()
    }

    fn abort(&self, writing: Writing) -> Result<()> {
        writing.abort();
        Ok(())
    }
}
