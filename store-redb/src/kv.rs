//! The four verbs that everything else is written on, over a read and over a write transaction of redb.
//!
//! No table is held across two calls: a table that is open for writing cannot be opened again.

use std::cell::Cell;

use redb::{AccessGuard, ReadTransaction, ReadableTable, StorageError, WriteTransaction};
use store_api::{Error, Result};

use crate::error::Edge;
use crate::keys::Span;
use crate::tables::Table;

/// How many bytes of keys and values one scan reads before it stops: what keeps long walks in bounded memory.
const SCAN_BYTES: usize = 1 << 20;

/// One entry of a table: key and value.
pub(crate) type Entry = (Vec<u8>, Vec<u8>);

/// Which way a scan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Forwards,
    Backwards,
}

/// What a transaction can do with a table.
pub(crate) trait Kv {
    /// The value of a key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// The first entries of a span, in order: at most `limit`, fewer when they are large, none only at its end.
    fn scan(&self, table: Table, span: &Span, order: Order, limit: usize) -> Result<Vec<Entry>>;

    /// Stores a value.
    fn put(&self, table: Table, key: &[u8], value: &[u8]) -> Result<()>;

    /// Removes a key; says whether it was there.
    fn delete(&self, table: Table, key: &[u8]) -> Result<bool>;
}

/// A snapshot.
pub(crate) struct Reading<'e> {
    pub(crate) tx: ReadTransaction,
    pub(crate) edge: &'e Edge,
}

/// A write transaction.
pub(crate) struct Writing<'e> {
    tx: WriteTransaction,
    edge: &'e Edge,
    changed: Cell<bool>,
}

impl Kv for Reading<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.edge.call("reading", || get(&self.tx.open_table(table.definition())?, key))
    }

    fn scan(&self, table: Table, span: &Span, order: Order, limit: usize) -> Result<Vec<Entry>> {
        self.edge.call("reading", || scan(&self.tx.open_table(table.definition())?, span, order, limit))
    }

    fn put(&self, _: Table, _: &[u8], _: &[u8]) -> Result<()> {
        Err(Error::ReadOnly)
    }

    fn delete(&self, _: Table, _: &[u8]) -> Result<bool> {
        Err(Error::ReadOnly)
    }
}

impl Kv for Writing<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.edge.call("reading", || get(&self.tx.open_table(table.definition())?, key))
    }

    fn scan(&self, table: Table, span: &Span, order: Order, limit: usize) -> Result<Vec<Entry>> {
        self.edge.call("reading", || scan(&self.tx.open_table(table.definition())?, span, order, limit))
    }

    fn put(&self, table: Table, key: &[u8], value: &[u8]) -> Result<()> {
        self.changed.set(true);
        self.edge.call("writing", || -> Fallible<()> {
            self.tx.open_table(table.definition())?.insert(key, value)?;
            Ok(())
        })
    }

    fn delete(&self, table: Table, key: &[u8]) -> Result<bool> {
        self.changed.set(true);
        self.edge.call("writing", || -> Fallible<bool> {
            Ok(self.tx.open_table(table.definition())?.remove(key)?.is_some())
        })
    }
}

impl<'e> Writing<'e> {
    pub(crate) fn new(tx: WriteTransaction, edge: &'e Edge) -> Self {
        Writing { tx, edge, changed: Cell::new(false) }
    }

    /// Creates a table, unless it is there.
    pub(crate) fn create(&self, table: Table) -> Result<()> {
        self.changed.set(true);
        self.edge.call("creating a table", || self.tx.open_table(table.definition()).map(drop))
    }

    /// Commits, if anything was written.
    pub(crate) fn commit(self) -> Result<()> {
        if !self.changed.get() {
            self.abort();
            return Ok(());
        }
        self.edge.commit(|| self.tx.commit())
    }

    /// Undoes everything.
    pub(crate) fn abort(self) {
        self.edge.abort(|| self.tx.abort());
    }
}

type Fallible<T> = std::result::Result<T, redb::Error>;

/// A table of either kind of transaction.
trait Readable: ReadableTable<&'static [u8], &'static [u8]> {}
impl<T: ReadableTable<&'static [u8], &'static [u8]>> Readable for T {}

fn get(table: &impl Readable, key: &[u8]) -> Fallible<Option<Vec<u8>>> {
    Ok(table.get(key)?.map(|value| value.value().to_vec()))
}

fn scan(table: &impl Readable, span: &Span, order: Order, limit: usize) -> Fallible<Vec<Entry>> {
    if span.is_empty() {
        return Ok(Vec::new());
    }
    let range = table.range::<&[u8]>(span.bounds())?;
    match order {
        Order::Forwards => collect(range, limit),
        Order::Backwards => collect(range.rev(), limit),
    }
}

type Guard<'t> = AccessGuard<'t, &'static [u8]>;

fn collect<'t>(
    range: impl Iterator<Item = std::result::Result<(Guard<'t>, Guard<'t>), StorageError>>,
    limit: usize,
) -> Fallible<Vec<Entry>> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    for entry in range.take(limit) {
        let (key, value) = entry?;
        let (key, value) = (key.value().to_vec(), value.value().to_vec());
        bytes += key.len() + value.len();
        found.push((key, value));
        if bytes >= SCAN_BYTES {
            break;
        }
    }
    Ok(found)
}
