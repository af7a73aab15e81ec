//! The connections that read: a small stack of them, so that a reader never waits for a writer.

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
    /// How many there are, idle ones included.
    open: usize,
    /// How many are used that do not belong to the stack.
    extra: usize,
    closed: bool,
}

impl Pool {
    pub(crate) fn new(path: PathBuf, options: Options) -> Self {
        Pool { path, options, state: Mutex::default(), freed: Condvar::new() }
    }

    /// Runs `work` on one moment of the database, on a connection of the stack.
    pub(crate) fn snapshot<R>(&self, work: impl FnOnce(&Tx<'_>) -> Result<R>) -> Result<R> {
        self.take()?.snapshot(work)
    }

    /// Gives `work` a connection of its own, beside the stack, for what takes long.
    pub(crate) fn own<R>(&self, work: impl FnOnce(&Connection) -> Result<R>) -> Result<R> {
        {
            let mut state = self.state.lock();
            if state.closed {
                return Err(Error::Closed);
            }
            state.extra += 1;
        }
        let _counted = Extra(self);
        work(&connection::open_reader(&self.path, &self.options)?)
    }

    /// Closes all connections, once nobody uses one.
    ///
    /// # Errors
    /// `Busy` when somebody still does after the timeout; then nothing is closed.
    pub(crate) fn close(&self) -> Result<()> {
        let start = Instant::now();
        let mut state = self.state.lock();
        while state.idle.len() < state.open || state.extra > 0 {
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

    fn take(&self) -> Result<Lent<'_>> {
        let start = Instant::now();
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return Err(Error::Closed);
            }
            if let Some(connection) = state.idle.pop() {
                return Ok(Lent { pool: self, connection: Some(connection) });
            }
            if state.open < self.options.readers {
                state.open += 1;
                drop(state);
                // Lent first, so that the place is free again when opening fails.
                let mut lent = Lent { pool: self, connection: None };
                lent.connection = Some(connection::open_reader(&self.path, &self.options)?);
                return Ok(lent);
            }
            self.wait(&mut state, start, "all connections for reading of this process are in use")?;
        }
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

/// A connection of the stack, on its way back when dropped.
struct Lent<'p> {
    pool: &'p Pool,
    connection: Option<Connection>,
}

impl Lent<'_> {
    fn snapshot<R>(&self, work: impl FnOnce(&Tx<'_>) -> Result<R>) -> Result<R> {
        let connection = self.connection.as_ref().ok_or(Error::Closed)?;
        let start = Instant::now();
        begin_snapshot(connection).map_err(|e| error::waited_since(start, e))?;
        work(&Tx::on(connection))
    }
}

/// Begins a snapshot. BEGIN alone does not fix the moment; the first read does, so it is made here.
fn begin_snapshot(connection: &Connection) -> Result<()> {
    unit::run(connection, "BEGIN").map_err(|e| error::sqlite("beginning a snapshot", e))?;
    Tx::on(connection).any("SELECT 1 FROM meta", []).map(drop)
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let ended =
            |connection: &Connection| connection.is_autocommit() || unit::run(connection, "ROLLBACK").is_ok();
        // A connection whose snapshot does not end is closed; the next taker opens another.
        let connection = self.connection.take().filter(ended);
        let mut state = self.pool.state.lock();
        match connection {
            Some(connection) => state.idle.push(connection),
            None => state.open -= 1,
        }
        self.pool.freed.notify_all();
    }
}

/// Counts a connection beside the stack.
struct Extra<'p>(&'p Pool);

impl Drop for Extra<'_> {
    fn drop(&mut self) {
        self.0.state.lock().extra -= 1;
        self.0.freed.notify_all();
    }
}
