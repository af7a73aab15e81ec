//! The four verbs that everything else is written on, over a snapshot and over one operation of a write transaction.
//!
//! Values are shown where they lie in redb's pages, and a table is opened once for all the calls on it. What is shown
//! a value calls no verb.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use redb::{AccessGuard, ReadOnlyTable, ReadTransaction, ReadableTable, StorageError, WriteTransaction};
use store_api::{Error, Result};

use crate::error::Edge;
use crate::keys::Span;
use crate::tables::Table;

/// Which way a scan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Forwards,
    Backwards,
}

/// Is shown a value.
pub(crate) type SeeValue<'s> = &'s mut dyn FnMut(&[u8]);
/// Is shown a key and its value, and says whether to go on.
pub(crate) type SeeEntry<'s> = &'s mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// What can be done with a table.
pub(crate) trait Kv {
    /// Shows the value of a key, if it is there.
    fn get(&self, table: Table, key: &[u8], see: SeeValue<'_>) -> Result<()>;

    /// Shows the entries of a span, in order, until `see` breaks off.
    fn scan(&self, table: Table, span: &Span, order: Order, see: SeeEntry<'_>) -> Result<()>;

    /// Stores a value.
    fn put(&self, table: Table, key: &[u8], value: &[u8]) -> Result<()>;

    /// Removes a key; says whether it was there.
    fn delete(&self, table: Table, key: &[u8]) -> Result<bool>;
}

type Fallible<T> = std::result::Result<T, redb::Error>;
type Bytes = &'static [u8];

/// Tables that were opened, each once.
type Opened<T> = RefCell<Vec<(Table, T)>>;

fn opened<T>(
    tables: &mut Vec<(Table, T)>,
    table: Table,
    open: impl FnOnce() -> std::result::Result<T, redb::TableError>,
) -> Fallible<&mut T> {
    let at = match tables.iter().position(|(opened, _)| *opened == table) {
        Some(at) => at,
        None => {
            tables.push((table, open()?));
            tables.len() - 1
        }
    };
    Ok(&mut tables[at].1)
}

/// A snapshot.
pub(crate) struct Reading<'e> {
    tx: ReadTransaction,
    edge: &'e Edge,
    tables: Opened<ReadOnlyTable<Bytes, Bytes>>,
}

impl<'e> Reading<'e> {
    pub(crate) fn new(tx: ReadTransaction, edge: &'e Edge) -> Self {
        Reading { tx, edge, tables: RefCell::default() }
    }

    fn on<T>(
        &self,
        table: Table,
        read: impl FnOnce(&ReadOnlyTable<Bytes, Bytes>) -> Fallible<T>,
    ) -> Result<T> {
        self.edge.call("reading", || {
            let mut tables = self.tables.borrow_mut();
            read(opened(&mut tables, table, || self.tx.open_table(table.definition()))?)
        })
    }
}

impl Kv for Reading<'_> {
    fn get(&self, table: Table, key: &[u8], see: SeeValue<'_>) -> Result<()> {
        self.on(table, |open| get(open, key, see))
    }

    fn scan(&self, table: Table, span: &Span, order: Order, see: SeeEntry<'_>) -> Result<()> {
        self.on(table, |open| scan(open, span, order, see))
    }

    fn put(&self, _: Table, _: &[u8], _: &[u8]) -> Result<()> {
        Err(Error::ReadOnly)
    }

    fn delete(&self, _: Table, _: &[u8]) -> Result<bool> {
        Err(Error::ReadOnly)
    }
}

/// A write transaction, which several writers may share.
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

impl Writing {
    pub(crate) fn new(tx: WriteTransaction, edge: Arc<Edge>) -> Self {
        Writing { tx, edge, changed: Cell::new(false), log: RefCell::new(None) }
    }

    /// Runs an operation. A panic of its work is held until redb has closed the tables, and these are closed one at a
    /// time, because redb panicking while something unwinds would end the process.
    pub(crate) fn operate<R>(&self, work: impl FnOnce(&Operation<'_>) -> Result<R>) -> Result<R> {
        let operation = Operation { writing: self, tables: RefCell::default() };
        let done = catch_unwind(AssertUnwindSafe(|| work(&operation)));
        let close = |table| {
            self.edge.call("closing a table", || {
                drop(table);
                Fallible::Ok(())
            })
        };
        let closed = operation.tables.into_inner().into_iter().map(close).fold(Ok(()), Result::and);
        match done {
            Ok(result) => closed.and(result),
            Err(panic) => resume_unwind(panic),
        }
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
        let changes = self.log.take().unwrap_or_default();
        self.operate(|operation| {
            let undo = |Change { table, key, before }: Change| operation.set(table, &key, before.as_deref());
            changes.into_iter().rev().try_for_each(|change| undo(change).map(drop))
        })
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

/// One operation in a write transaction, with the tables that it has opened.
pub(crate) struct Operation<'w> {
    writing: &'w Writing,
    tables: Opened<redb::Table<'w, Bytes, Bytes>>,
}

impl<'w> Operation<'w> {
    fn on<T>(
        &self,
        doing: &'static str,
        table: Table,
        call: impl FnOnce(&mut redb::Table<'w, Bytes, Bytes>) -> Fallible<T>,
    ) -> Result<T> {
        self.writing.edge.call(doing, || {
            let mut tables = self.tables.borrow_mut();
            call(opened(&mut tables, table, || self.writing.tx.open_table(table.definition()))?)
        })
    }

    /// Stores a value, or removes what is there; says whether something was.
    fn set(&self, table: Table, key: &[u8], value: Option<&[u8]>) -> Result<bool> {
        self.writing.changed.set(true);
        self.on("writing", table, |open| {
            let before = match value {
                Some(value) => open.insert(key, value)?,
                None => open.remove(key)?,
            };
            let was_there = before.is_some();
            if let Some(log) = &mut *self.writing.log.borrow_mut() {
                let before = before.map(|before| before.value().to_vec());
                log.push(Change { table, key: key.to_vec(), before });
            }
            Ok(was_there)
        })
    }
}

impl Kv for Operation<'_> {
    fn get(&self, table: Table, key: &[u8], see: SeeValue<'_>) -> Result<()> {
        self.on("reading", table, |open| get(open, key, see))
    }

    fn scan(&self, table: Table, span: &Span, order: Order, see: SeeEntry<'_>) -> Result<()> {
        self.on("reading", table, |open| scan(open, span, order, see))
    }

    fn put(&self, table: Table, key: &[u8], value: &[u8]) -> Result<()> {
        self.set(table, key, Some(value)).map(drop)
    }

    fn delete(&self, table: Table, key: &[u8]) -> Result<bool> {
        self.set(table, key, None)
    }
}

fn get(table: &impl ReadableTable<Bytes, Bytes>, key: &[u8], see: SeeValue<'_>) -> Fallible<()> {
    if let Some(value) = table.get(key)? {
        see(value.value());
    }
    Ok(())
}

fn scan(
    table: &impl ReadableTable<Bytes, Bytes>,
    span: &Span,
    order: Order,
    see: SeeEntry<'_>,
) -> Fallible<()> {
    if span.is_empty() {
        return Ok(());
    }
    let range = table.range::<&[u8]>(span.bounds())?;
    match order {
        Order::Forwards => show(range, see),
        Order::Backwards => show(range.rev(), see),
    }
}

type Guard<'t> = AccessGuard<'t, Bytes>;

fn show<'t>(
    range: impl Iterator<Item = std::result::Result<(Guard<'t>, Guard<'t>), StorageError>>,
    see: SeeEntry<'_>,
) -> Fallible<()> {
    for entry in range {
        let (key, value) = entry?;
        if see(key.value(), value.value()).is_break() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};

    use proptest::prelude::*;
    use redb::backends::InMemoryBackend;
    use redb::{Database, ReadableDatabase as _, StorageBackend};
    use store_api::ErrorKind;

    use super::*;
    use crate::open;
    use crate::tables::{EVENTS, META, RUNS};

    /// A value that is stored in one of two tables, or what removes it.
    type Step = (bool, u8, Option<Vec<u8>>);

    fn table(first: bool) -> Table {
        if first { META } else { RUNS }
    }

    fn contents(writing: &Writing) -> BTreeMap<(bool, Vec<u8>), Vec<u8>> {
        let mut contents = BTreeMap::new();
        for first in [true, false] {
            let mut see = |key: &[u8], value: &[u8]| {
                contents.insert((first, key.to_vec()), value.to_vec());
                ControlFlow::Continue(())
            };
            let scan = |operation: &Operation<'_>| {
                operation.scan(table(first), &Span::all(), Order::Forwards, &mut see)
            };
            writing.operate(scan).unwrap();
        }
        contents
    }

    /// A storage that can be told to panic when it is read, as redb does itself over a damaged page.
    #[derive(Debug)]
    struct Mined {
        inner: InMemoryBackend,
        mine: Arc<AtomicBool>,
    }

    impl StorageBackend for Mined {
        fn len(&self) -> io::Result<u64> {
            self.inner.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            assert!(!self.mine.load(Ordering::Relaxed), "damaged");
            self.inner.read(offset, out)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.inner.set_len(len)
        }
        fn sync_data(&self) -> io::Result<()> {
            self.inner.sync_data()
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.inner.write(offset, data)
        }
    }

    /// redb panics while it looks for a table. It is left with a lock that every open table needs to close: two of
    /// them, closed in one go, panicked one after the other, which ends the process.
    #[test]
    fn a_table_that_cannot_be_opened_leaves_others_that_close() {
        let mine = Arc::<AtomicBool>::default();
        let storage = Mined { inner: InMemoryBackend::new(), mine: Arc::clone(&mine) };
        let database = Database::builder().set_cache_size(0).create_with_backend(storage).unwrap();
        let edge = Arc::<Edge>::default();
        let writing = open::begin(&edge, &database).unwrap();
        open::create_tables(&writing).unwrap();
        writing.commit().unwrap();
        let writing = open::begin(&edge, &database).unwrap();
        let done = writing.operate(|operation| {
            operation.put(META, b"k", b"v")?;
            operation.put(RUNS, b"k", b"v")?;
            mine.store(true, Ordering::Relaxed);
            operation.put(EVENTS, b"k", b"v")
        });
        assert_eq!(done.unwrap_err().kind(), ErrorKind::Corrupt);
        writing.abort();
        assert_eq!(edge.check_writable().unwrap_err().kind(), ErrorKind::Poisoned);
    }

    #[test]
    fn a_snapshot_refuses_to_write() {
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        let edge = Edge::default();
        let reading = Reading::new(database.begin_read().unwrap(), &edge);
        assert_eq!(reading.put(META, b"k", b"v").unwrap_err().kind(), ErrorKind::ReadOnly);
        assert_eq!(reading.delete(META, b"k").unwrap_err().kind(), ErrorKind::ReadOnly);
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
                let work = |operation: &Operation<'_>| {
                    for (first, key, value) in steps {
                        let key = [key % 8];
                        let was_there = operation.set(table(first), &key, value.as_deref())?;
                        let before = match value {
                            Some(value) => after.insert((first, key.to_vec()), value),
                            None => after.remove(&(first, key.to_vec())),
                        };
                        assert_eq!(was_there, before.is_some());
                    }
                    Ok(())
                };
                writing.operate(work).unwrap();
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
