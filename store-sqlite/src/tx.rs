//! A transaction: every statement goes through here.

use std::cell::Cell;
use std::cmp::Ordering;
use std::fmt::Debug;
use std::ops::ControlFlow;

use rusqlite::types::FromSql;
use rusqlite::{CachedStatement, Connection, Params, Row, Rows, params};
use serde::Serialize;
use store_api::{
    AgentStore, AuditStore, BudgetStore, CheckpointStore, Error, List, Page, Result, Seams, SkillStore, rules,
};

use crate::pool::Lent;
use crate::{error, sums, unit};

/// Where a walk over the rows of a query has come to, by the key that orders them.
///
/// SQLite follows a damaged index wherever it leads, also back to where it came from. A walk that went along would give
/// a record twice, or never end; so each key has to lie further on than the one before.
pub(crate) struct Onward<K> {
    goes: Ordering,
    last: Option<K>,
}

impl<K: Ord + Debug> Onward<K> {
    /// A walk through rising keys, beyond `after`.
    pub(crate) fn rising(after: Option<K>) -> Self {
        Onward { goes: Ordering::Greater, last: after }
    }

    /// A walk through falling keys, beyond `before`.
    pub(crate) fn falling(before: Option<K>) -> Self {
        Onward { goes: Ordering::Less, last: before }
    }

    fn step(&mut self, next: K) -> Result<()> {
        match &self.last {
            Some(last) if next.cmp(last) != self.goes => {
                Err(Error::corrupt("database index", format!("leads from {last:?} back to {next:?}")))
            }
            _ => {
                self.last = Some(next);
                Ok(())
            }
        }
    }
}

/// A transaction or a snapshot on a connection. It is the same type for both: a snapshot's connection cannot write.
pub(crate) struct Tx<'c> {
    connection: &'c Connection,
    lent: Option<&'c Lent<'c>>,
    moment: Cell<Moment>,
}

/// Which moment of the database statements see.
#[derive(Clone, Copy)]
enum Moment {
    /// All of them that of the transaction, which is open.
    OfTransaction,
    /// The next one its own: a statement by itself needs no transaction.
    OfStatement,
    /// One statement has seen its own, and a second one would see another.
    Passed,
}

impl<'c> Tx<'c> {
    /// The write transaction that was begun on `connection`.
    pub(crate) fn writing(connection: &'c Connection) -> Self {
        Tx { connection, lent: None, moment: Cell::new(Moment::OfTransaction) }
    }

    /// The snapshot that was begun on `connection`, which the pool has `lent`.
    pub(crate) fn reading(connection: &'c Connection, lent: &'c Lent<'c>) -> Self {
        Tx { connection, lent: Some(lent), moment: Cell::new(Moment::OfTransaction) }
    }

    /// For a single call that reads. One that takes more than one look asks for [`Tx::one_moment`] first.
    pub(crate) fn looking(connection: &'c Connection, lent: &'c Lent<'c>) -> Self {
        Tx { connection, lent: Some(lent), moment: Cell::new(Moment::OfStatement) }
    }

    /// Makes all looks from here on see the same moment: that of the first.
    pub(crate) fn one_moment(&self) -> Result<()> {
        if let Moment::OfStatement = self.moment.get() {
            unit::run(self.connection, "BEGIN").map_err(|e| error::sqlite("beginning a snapshot", e))?;
            self.moment.set(Moment::OfTransaction);
        }
        Ok(())
    }

    /// Says that this is going to take long, so that nobody waits for its connection.
    pub(crate) fn takes_long(&self) {
        if let Some(lent) = self.lent {
            lent.leave_stack();
        }
    }

    /// A statement, from the cache if it was used before.
    ///
    /// SQLite undoes a whole transaction by itself after some failures (disk full, I/O, interrupt); a statement
    /// that came after would commit alone. So each one asks first whether the transaction is still there.
    pub(crate) fn statement(&self, sql: &str) -> Result<CachedStatement<'c>> {
        match self.moment.get() {
            Moment::OfTransaction if self.connection.is_autocommit() => return Err(error::undone_by_sqlite()),
            Moment::OfTransaction => {}
            Moment::OfStatement => self.moment.set(Moment::Passed),
            Moment::Passed => return Err(error::second_moment()),
        }
        self.connection.prepare_cached(sql).map_err(|e| error::sqlite("preparing a statement", e))
    }

    /// Runs a statement that gives no rows; says how many it changed.
    pub(crate) fn execute(&self, sql: &str, params: impl Params) -> Result<usize> {
        self.statement(sql)?.execute(params).map_err(|e| error::sqlite("writing to the database", e))
    }

    /// The first row of a query, if there is one.
    ///
    /// A search for a key in an index that is damaged can end at the row of another: once SQLite has seen the key in an
    /// upper page, it takes the entry at which it arrives for that one. So whoever looks a record up reads it with the
    /// checksum over the key that was asked for.
    pub(crate) fn first<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut statement = self.statement(sql)?;
        let mut rows = start(&mut statement, params)?;
        next(&mut rows)?.map(read).transpose()
    }

    /// Whether a query gives any row.
    pub(crate) fn any(&self, sql: &str, params: impl Params) -> Result<bool> {
        Ok(self.first(sql, params, |_| Ok(()))?.is_some())
    }

    /// Runs a statement that changes one row, which was read before.
    pub(crate) fn change_one(
        &self,
        what: impl FnOnce() -> String,
        sql: &str,
        params: impl Params,
    ) -> Result<()> {
        match self.execute(sql, params)? {
            1 => Ok(()),
            _ => Err(no_longer_found(what())),
        }
    }

    /// Runs a statement that changes rows and gives back of each whether it was meant: the row itself is asked, for
    /// the index that leads to it may be damaged. Says how many there were.
    pub(crate) fn change(
        &self,
        what: impl FnOnce() -> String,
        sql: &str,
        params: impl Params,
    ) -> Result<usize> {
        let (mut changed, mut all_meant) = (0, true);
        self.each(sql, params, |row| {
            changed += 1;
            all_meant &= column::<bool>(row, 0)?;
            Ok(ControlFlow::Continue(()))
        })?;
        if all_meant { Ok(changed) } else { Err(Error::corrupt(what(), "an index leads to another row")) }
    }

    /// Shows each row of a query to `see`, until it breaks off. One row is in memory at a time.
    pub(crate) fn each(
        &self,
        sql: &str,
        params: impl Params,
        mut see: impl FnMut(&Row<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let mut statement = self.statement(sql)?;
        let mut rows = start(&mut statement, params)?;
        while let Some(row) = next(&mut rows)? {
            if see(row)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Shows `see` what `read` makes of each row of a query that has an order; `read` gives the row's key in it too.
    pub(crate) fn walk<K: Ord + Debug, T>(
        &self,
        sql: &str,
        params: impl Params,
        mut onward: Onward<K>,
        mut read: impl FnMut(&Row<'_>) -> Result<(K, T)>,
        mut see: impl FnMut(T) -> Result<()>,
    ) -> Result<()> {
        self.each(sql, params, |row| {
            let (key, item) = read(row)?;
            onward.step(key)?;
            see(item)?;
            Ok(ControlFlow::Continue(()))
        })
    }

    /// The first rows of a query that has an order, up to `limit` of those that `read` does not pass over. It gives
    /// the key of each.
    pub(crate) fn take<K: Ord + Debug, T>(
        &self,
        sql: &str,
        params: impl Params,
        mut onward: Onward<K>,
        limit: usize,
        mut read: impl FnMut(&Row<'_>) -> Result<(K, Option<T>)>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        self.each(sql, params, |row| {
            let (key, item) = read(row)?;
            onward.step(key)?;
            found.extend(item);
            Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(found)
    }

    /// One page of a query that has an order and of which every row is listed: the first `limit` rows. `read` gives the
    /// key of each, after which the next page would start; the row over the limit is not read.
    pub(crate) fn page<K: Ord + Debug + Serialize, T>(
        &self,
        list: List,
        sql: &str,
        params: impl Params,
        mut onward: Onward<K>,
        limit: usize,
        mut read: impl FnMut(&Row<'_>) -> Result<(K, T)>,
    ) -> Result<Page<T>> {
        let (mut found, mut more) = (Vec::new(), false);
        self.each(sql, params, |row| {
            more = found.len() == limit;
            if more {
                return Ok(ControlFlow::Break(()));
            }
            let (key, item) = read(row)?;
            onward.step(key)?;
            found.push(item);
            Ok(ControlFlow::Continue(()))
        })?;
        Page::of(list, found, more, |_| onward.last)
    }

    /// The last number that the store-wide counter gave.
    pub(crate) fn counter(&self) -> Result<u64> {
        let found = self.first("SELECT value, sum FROM meta WHERE key = 'counter'", [], |row| {
            let value: i64 = column(row, 0)?;
            sums::check(|| "meta/counter".to_owned(), column(row, 1)?, sums::counter(value))?;
            Ok(value.cast_unsigned())
        })?;
        found.ok_or_else(|| Error::corrupt("meta/counter", "is gone"))
    }

    pub(crate) fn set_counter(&self, last: u64) -> Result<()> {
        let value = last.cast_signed();
        let sql = "UPDATE meta SET value = ?1, sum = ?2 WHERE key = 'counter'";
        self.change_one(|| "meta/counter".to_owned(), sql, params![value, sums::counter(value)])
    }

    /// A number that was never given before.
    pub(crate) fn next_number(&self) -> Result<u64> {
        let next = rules::next_seq(self.counter()?)?;
        self.set_counter(next)?;
        Ok(next)
    }
}

/// What was read, and what no statement that is to change it finds.
pub(crate) fn no_longer_found(what: String) -> Error {
    Error::corrupt(what, "no index leads to it any more")
}

/// Starts a query.
pub(crate) fn start<'s>(statement: &'s mut CachedStatement<'_>, params: impl Params) -> Result<Rows<'s>> {
    statement.query(params).map_err(|e| error::sqlite("asking the database", e))
}

/// The next row of a query.
pub(crate) fn next<'r>(rows: &'r mut Rows<'_>) -> Result<Option<&'r Row<'r>>> {
    rows.next().map_err(|e| error::sqlite("reading from the database", e))
}

/// A column's value. A value of another type than the schema's is damage.
pub(crate) fn column<T: FromSql>(row: &Row<'_>, index: usize) -> Result<T> {
    row.get(index).map_err(|e| error::sqlite("reading a column", e))
}

/// A column's text, borrowed. Text that is not UTF-8 is damage.
pub(crate) fn text<'r>(row: &'r Row<'_>, index: usize) -> Result<&'r str> {
    optional_text(row, index)?
        .ok_or_else(|| Error::corrupt("database row", format!("column {index} is null")))
}

/// The text of a document, borrowed. What is not UTF-8 is damage of the record, which the error names.
pub(crate) fn document<'r>(what: impl FnOnce() -> String, row: &'r Row<'_>, index: usize) -> Result<&'r str> {
    let value = row.get_ref(index).map_err(|e| error::sqlite("reading a column", e))?;
    value.as_str().map_err(|e| Error::corrupt(what(), e.to_string()))
}

/// A column's text, borrowed, or nothing.
pub(crate) fn optional_text<'r>(row: &'r Row<'_>, index: usize) -> Result<Option<&'r str>> {
    let value = row.get_ref(index).map_err(|e| error::sqlite("reading a column", e))?;
    value.as_str_or_null().map_err(|e| Error::corrupt("database row", format!("column {index}: {e}")))
}

impl Seams for Tx<'_> {
    fn skills(&self) -> &dyn SkillStore {
        self
    }
    fn agents(&self) -> &dyn AgentStore {
        self
    }
    fn budgets(&self) -> &dyn BudgetStore {
        self
    }
    fn audit(&self) -> &dyn AuditStore {
        self
    }
    fn checkpoints(&self) -> &dyn CheckpointStore {
        self
    }
}

#[cfg(test)]
mod tests {
    use store_api::{ErrorKind, Expect, Name, PageRequest, PrincipalId, Skill, SkillId};

    use super::*;
    use crate::SqliteStore;

    fn count(tx: &Tx<'_>) -> Result<Option<i64>> {
        tx.first("SELECT count(*) FROM definitions", [], |row| column(row, 0))
    }

    #[test]
    fn a_page_says_whether_there_are_more_and_does_not_read_them() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(directory.path().join("s.db")).unwrap();
        let lent = store.readers.take().unwrap();
        let tx = Tx::looking(lent.connection().unwrap(), &lent);
        tx.one_moment().unwrap();
        let page = |limit| {
            let sql = "SELECT column1 FROM (VALUES (1), (2), ('damaged'))";
            tx.page(List::Events, sql, [], Onward::rising(None), limit, |row| {
                let number: i64 = column(row, 0)?;
                Ok((number, number))
            })
        };
        for limit in [1, 2] {
            let page = page(limit).unwrap();
            assert_eq!(page.items, [1, 2][..limit]);
            let next = PageRequest::first(1).unwrap().after(page.next.unwrap());
            assert_eq!(next.position(List::Events).unwrap(), Some(limit), "the key of the last item");
        }
        assert_eq!(page(3).unwrap_err().kind(), ErrorKind::Corrupt);
        let (sql, rising) = ("VALUES (1), (2)", Onward::rising(None));
        let all = tx.page(List::Events, sql, [], rising, 2, |row| Ok((column::<i64>(row, 0)?, ()))).unwrap();
        assert_eq!((all.items, all.next), (vec![(), ()], None));
    }

    /// A call that reads twice sees one moment or nothing: what is committed between two looks is in neither.
    #[test]
    fn two_looks_see_one_moment_or_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(directory.path().join("s.db")).unwrap();
        let save = |id: &str| {
            let (id, name) = (SkillId::new(id).unwrap(), Name::new(id).unwrap());
            store
                .skills()
                .save(&Skill::new(id, PrincipalId::new("o").unwrap(), name), Expect::Absent)
                .unwrap()
        };
        let lent = store.readers.take().unwrap();
        let tx = Tx::looking(lent.connection().unwrap(), &lent);
        assert_eq!(count(&tx).unwrap(), Some(0));
        save("a");
        assert!(count(&tx).unwrap_err().to_string().starts_with("reading"));

        let tx = Tx::looking(lent.connection().unwrap(), &lent);
        tx.one_moment().unwrap();
        assert_eq!(count(&tx).unwrap(), Some(1));
        save("b");
        assert_eq!(count(&tx).unwrap(), Some(1));
    }
}
