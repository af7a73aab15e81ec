//! The four verbs that everything else is written on, over a read and over a write transaction of redb.
//!
//! No table is held across two calls: a table that is open for writing cannot be opened again.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

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

/// A write transaction. It moves from writer to writer.
pub(crate) struct Writing {
    tx: WriteTransaction,
    edge: Arc<Edge>,
    changed: Cell<bool>,
    /// What the operation at work has changed, since a mark was set; `None` without one. redb's own savepoints are
    /// no help: it gives none once something was written.
    log: RefCell<Option<Vec<Change>>>,
}

/// A key that was changed, and its value before.
struct Change {
    table: Table,
    key: Vec<u8>,
    before: Option<Vec<u8>>,
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

impl Kv for Writing {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.edge.call("reading", || get(&self.tx.open_table(table.definition())?, key))
    }

    fn scan(&self, table: Table, span: &Span, order: Order, limit: usize) -> Result<Vec<Entry>> {
        self.edge.call("reading", || scan(&self.tx.open_table(table.definition())?, span, order, limit))
    }

    fn put(&self, table: Table, key: &[u8], value: &[u8]) -> Result<()> {
        self.set(table, key, Some(value)).map(drop)
    }

    fn delete(&self, table: Table, key: &[u8]) -> Result<bool> {
        self.set(table, key, None)
    }
}

impl Writing {
    pub(crate) fn new(tx: WriteTransaction, edge: Arc<Edge>) -> Self {
        Writing { tx, edge, changed: Cell::new(false), log: RefCell::new(None) }
    }

    /// Stores a value, or removes what is there; says whether something was.
    fn set(&self, table: Table, key: &[u8], value: Option<&[u8]>) -> Result<bool> {
        self.changed.set(true);
        self.edge.call("writing", || -> Fallible<bool> {
            let mut open = self.tx.open_table(table.definition())?;
            let before = match value {
                Some(value) => open.insert(key, value)?,
                None => open.remove(key)?,
            };
            let was_there = before.is_some();
            if let Some(log) = &mut *self.log.borrow_mut() {
                let before = before.map(|before| before.value().to_vec());
                log.push(Change { table, key: key.to_vec(), before });
            }
            Ok(was_there)
        })
    }

    /// Marks the point to which the next operation can be undone.
    pub(crate) fn mark(&self) {
        self.log.replace(Some(Vec::new()));
    }

    /// Keeps the operation since the mark.
    pub(crate) fn keep(&self) {
        self.log.replace(None);
    }

    /// Undoes the operation since the mark, its last change first.
    ///
    /// # Errors
    /// The transaction is lost: what is in it now is neither with the operation nor without.
    pub(crate) fn undo(&self) -> Result<()> {
        self.edge.check_writable()?;
        for Change { table, key, before } in self.log.take().into_iter().flatten().rev() {
            self.set(table, &key, before.as_deref())?;
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use redb::Database;
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::open;
    use crate::tables::{META, RUNS};

    /// A value that is stored in one of two tables, or what removes it.
    type Step = (bool, u8, Option<Vec<u8>>);

    fn table(first: bool) -> Table {
        if first { META } else { RUNS }
    }

    fn contents(writing: &Writing) -> BTreeMap<(bool, Vec<u8>), Vec<u8>> {
        let of = |first| {
            let entries = writing.scan(table(first), &Span::all(), Order::Forwards, usize::MAX).unwrap();
            entries.into_iter().map(move |(key, value)| ((first, key), value))
        };
        of(true).chain(of(false)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Some operations are kept and some undone: what is there is what the kept ones alone would have left.
        #[test]
        fn an_undone_operation_leaves_no_trace(
            operations in proptest::collection::vec(
                (proptest::collection::vec(any::<Step>(), 0..12), any::<bool>()),
                0..8,
            ),
        ) {
            let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
            let writing = open::begin(&Arc::default(), &database).unwrap();
            let mut kept = BTreeMap::new();
            for (steps, keep) in operations {
                let mut after = kept.clone();
                writing.mark();
                for (first, key, value) in steps {
                    let (table, key) = (table(first), [key % 8]);
                    match value {
                        Some(value) => {
                            writing.put(table, &key, &value).unwrap();
                            after.insert((first, key.to_vec()), value);
                        }
                        None => {
                            let was_there = after.remove(&(first, key.to_vec())).is_some();
                            prop_assert_eq!(writing.delete(table, &key).unwrap(), was_there);
                        }
                    }
                }
                prop_assert_eq!(&contents(&writing), &after);
                if keep {
                    writing.keep();
                    kept = after;
                } else {
                    writing.undo().unwrap();
                }
                prop_assert_eq!(&contents(&writing), &kept);
            }
        }
    }
}
