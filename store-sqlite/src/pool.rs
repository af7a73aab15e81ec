//! The connections that read: a small stack of them, so that a reader never waits for a writer.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;
use store_api::{Error, Result};

use crate::tx::Tx;
use crate::{Options, connection, error, unit};

/// Read-only connections, opened when they are first needed.
pub(crate) struct Pool {
    path: PathBuf,
    options: Options,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Connection>,
    /// How many belong to the stack, idle ones included.
    open: usize,
    /// How many are in use that do not belong to the stack.
    apart: usize,
    closed: bool,
}

impl Pool {
    pub(crate) fn new(path: PathBuf, options: Options) -> Self {
        Pool { path, options, state: Mutex::default(), freed: Condvar::new() }
    }

    /// A connection of the stack, for one snapshot.
    ///
    /// # Errors
    /// `Busy` when all are in use for as long as the timeout.
    pub(crate) fn take(&self) -> Result<Lent<'_>> {
        let mut waiting_since = None;
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return Err(Error::Closed);
            }
            if let Some(connection) = state.idle.pop() {
                return Ok(Lent { pool: self, connection: Some(connection), apart: Cell::new(false) });
            }
            if state.open < self.options.readers {
                state.open += 1;
                drop(state);
                return self.open(false);
            }
            let start = *waiting_since.get_or_insert_with(Instant::now);
            self.wait(&mut state, start, "all connections for reading of this process are in use")?;
        }
    }

    /// A connection apart from the stack, for what takes long.
    pub(crate) fn own(&self) -> Result<Lent<'_>> {
        {
            let mut state = self.state.lock();
            if state.closed {
                return Err(Error::Closed);
            }
            state.apart += 1;
        }
        self.open(true)
    }

    /// Opens a connection that is counted already; its count is given back when that fails.
    fn open(&self, apart: bool) -> Result<Lent<'_>> {
        let mut lent = Lent { pool: self, connection: None, apart: Cell::new(apart) };
        lent.connection = Some(connection::open_reader(&self.path, &self.options)?);
        Ok(lent)
    }

    /// Closes all connections, once nobody uses one.
    ///
    /// # Errors
    /// `Busy` when somebody still does after the timeout; then nothing is closed.
    pub(crate) fn close(&self) -> Result<()> {
        let start = Instant::now();
        let mut state = self.state.lock();
        while state.idle.len() < state.open || state.apart > 0 {
            self.wait(&mut state, start, "a snapshot of this process is still open")?;
        }
        state.closed = true;
        state.open = 0;
        for connection in state.idle.drain(..) {
            connection.close().map_err(|(_, e)| error::sqlite("closing a connection", e))?;
        }
        self.freed.notify_all();
        Ok(())
    }

    /// Waits until a connection is given back, for what is left of the timeout.
    fn wait(
        &self,
        state: &mut parking_lot::MutexGuard<'_, State>,
        start: Instant,
        holder: &'static str,
    ) -> Result<()> {
        let left = self.options.busy_timeout.saturating_sub(start.elapsed());
        if left == Duration::ZERO {
            return Err(error::busy(start.elapsed(), holder));
        }
        self.freed.wait_for(state, left);
        Ok(())
    }
}

/// A connection that is in use, on its way back when dropped.
pub(crate) struct Lent<'p> {
    pool: &'p Pool,
    connection: Option<Connection>,
    apart: Cell<bool>,
}

impl Lent<'_> {
    pub(crate) fn connection(&self) -> Result<&Connection> {
        self.connection.as_ref().ok_or(Error::Closed)
    }

    /// Runs `work` on one moment of the database.
    pub(crate) fn snapshot<R>(&self, work: impl FnOnce(&Tx<'_>) -> Result<R>) -> Result<R> {
        let connection = self.connection()?;
        let start = Instant::now();
        begin_snapshot(connection).map_err(|e| error::waited_since(start, e))?;
        work(&Tx::reading(connection, self))
    }

    /// Takes the connection out of the stack, because its snapshot is going to take long: others may open another
    /// in its place.
    pub(crate) fn leave_stack(&self) {
        if !self.apart.replace(true) {
            let mut state = self.pool.state.lock();
            state.open -= 1;
            state.apart += 1;
            self.pool.freed.notify_all();
        }
    }
}

/// Begins a snapshot. BEGIN alone does not fix the moment; the first read does, so it is made here.
fn begin_snapshot(connection: &Connection) -> Result<()> {
    let failed = |e| error::sqlite("beginning a snapshot", e);
    unit::run(connection, "BEGIN").map_err(failed)?;
    let mut look = connection.prepare_cached("SELECT 1 FROM meta").map_err(failed)?;
    look.exists([]).map(drop).map_err(failed)
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let ended =
            |connection: &Connection| connection.is_autocommit() || unit::run(connection, "ROLLBACK").is_ok();
        // One that is apart, and one whose snapshot does not end, is closed here; the next taker opens another.
        let kept = self.connection.take().filter(|connection| !self.apart.get() && ended(connection));
        let mut state = self.pool.state.lock();
        match kept {
            Some(connection) => state.idle.push(connection),
            None if self.apart.get() => state.apart -= 1,
            None => state.open -= 1,
        }
        self.pool.freed.notify_all();
    }
}
