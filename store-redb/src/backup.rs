//! Backup: every table of one snapshot, copied into a new file.

use std::path::Path;
use std::sync::Arc;

use redb::Database;
use safe_files::Staged;
use store_api::Result;

use crate::error::Edge;
use crate::kv::{Kv, Writing};
use crate::open;
use crate::tables::{self, Table};
use crate::tx::{Entry, Tx};

/// How many entries are copied before the copy is committed: what bounds the memory that it takes.
const BATCH: usize = 10_000;

/// Makes a database in an empty file.
pub(crate) type NewDatabase = dyn Fn(&Edge, &Staged) -> Result<Database> + Send + Sync;

/// Copies what `from` sees to a file that appears at `to` when it is whole. Values are copied as they stand, with
/// their checksums, so that damage stays damage.
pub(crate) fn copy(from: &Tx<'_>, to: &Path, new_database: &NewDatabase) -> Result<()> {
    let staged = Staged::beside(to)?;
    let edge = Arc::<Edge>::default();
    let database = new_database(&edge, &staged)?;
    let writing = open::begin(&edge, &database)?;
    open::create_tables(&writing)?;
    writing.commit()?;
    let mut batch = Batch { begin: || open::begin(&edge, &database), writing: None, entries: 0 };
    for table in tables::ALL {
        from.raw(table, |entries| batch.put(table, entries))?;
    }
    batch.commit()?;
    edge.call("closing the copy", || database.close())?;
    staged.publish()
}

/// Writes entries, a commit for many of them.
struct Batch<F> {
    begin: F,
    writing: Option<Writing>,
    /// How many entries were written since the last commit.
    entries: usize,
}

impl<F: Fn() -> Result<Writing>> Batch<F> {
    fn put(&mut self, table: Table, entries: &[Entry]) -> Result<()> {
        let writing = match self.writing.take() {
            Some(writing) => writing,
            None => (self.begin)()?,
        };
        self.writing.insert(writing).operate(|operation| {
            entries.iter().try_for_each(|(key, stored)| operation.put(table, key, stored))
        })?;
        self.entries += entries.len();
        if self.entries >= BATCH { self.commit() } else { Ok(()) }
    }

    fn commit(&mut self) -> Result<()> {
        self.entries = 0;
        self.writing.take().map_or(Ok(()), Writing::commit)
    }
}
