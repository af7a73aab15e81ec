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
    changes: Cell<u64>,
}

impl Writing {
    pub(crate) fn new(tx: WriteTransaction, edge: Arc<Edge>) -> Self {
        Writing { tx, edge, changes: Cell::new(0) }
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

    /// How often something was written.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.get()
    }

    fn changed(&self) {
        self.changes.set(self.changes.get() + 1);
    }

    /// Creates a table, unless it is there.
    pub(crate) fn create(&self, table: Table) -> Result<()> {
        self.changed();
        self.edge.call("creating a table", || self.tx.open_table(table.definition()).map(drop))
    }

    /// Commits, if anything was written.
    pub(crate) fn commit(self) -> Result<()> {
        if self.changes() == 0 {
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
        self.writing.changed();
        self.on("writing", table, |open| {
            let before = match value {
                Some(value) => open.insert(key, value)?,
                None => open.remove(key)?,
            };
            Ok(before.is_some())
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
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};

    use redb::backends::InMemoryBackend;
    use redb::{Database, ReadableDatabase as _, StorageBackend};
    use store_api::ErrorKind;

    use super::*;
    use crate::open;
    use crate::tables::{EVENTS, META, RUNS};

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

    /// By which the queue tells whether an operation that failed is to be undone.
    #[test]
    fn changes_are_counted_and_looks_are_not() {
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        let writing = open::begin(&Arc::default(), &database).unwrap();
        assert_eq!(writing.changes(), 0);
        writing.create(META).unwrap();
        assert_eq!(writing.changes(), 1);
        let work = |operation: &Operation<'_>| {
            operation.put(META, b"k", b"v")?;
            assert_eq!(writing.changes(), 2);
            operation.get(META, b"k", &mut |_| {})?;
            operation.scan(META, &Span::all(), Order::Forwards, &mut |_, _| ControlFlow::Continue(()))?;
            assert_eq!(writing.changes(), 2);
            operation.delete(META, b"k")
        };
        assert!(writing.operate(work).unwrap());
        assert_eq!(writing.changes(), 3);
    }
}
