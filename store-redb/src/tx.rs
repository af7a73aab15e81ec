//! A transaction: records and index entries over the four verbs of [`Kv`], and the seams on top of them.

use std::ops::ControlFlow;

use serde::Serialize;
use serde::de::DeserializeOwned;
use store_api::json;
use store_api::{
    AgentStore, AuditStore, BudgetStore, CheckpointStore, Counter, Error, Result, Seams, SkillStore, rules,
};

use crate::index::IndexEntry;
use crate::keys::{Key, Span};
use crate::kv::{Kv, Order};
use crate::tables::{META, Table};
use crate::value;

/// How many entries a walk reads at a time, at most.
const CHUNK: usize = 256;

/// How many bytes of keys and values a walk reads at a time before it stops: what keeps it in bounded memory.
const CHUNK_BYTES: usize = 1 << 20;

/// One entry of a table: key and stored value.
pub(crate) type Entry = (Vec<u8>, Vec<u8>);

/// Neighbouring entries, and whether they are the last ones of their span.
struct Chunk<T> {
    found: Vec<T>,
    is_last: bool,
}

/// A transaction or a snapshot. It is the same type for both: a snapshot's verbs refuse to write.
pub(crate) struct Tx<'k> {
    kv: &'k dyn Kv,
}

impl<'k> Tx<'k> {
    pub(crate) fn on(kv: &'k dyn Kv) -> Self {
        Tx { kv }
    }

    /// What `read` makes of the body of a value, which was checked.
    pub(crate) fn read<T>(
        &self,
        table: Table,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> Result<T>,
    ) -> Result<Option<T>> {
        self.look(table, key, |stored| value::open(table, key, stored).and_then(read))
    }

    /// What `read` makes of a value as it stands, unchecked.
    pub(crate) fn look<T>(
        &self,
        table: Table,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> Result<T>,
    ) -> Result<Option<T>> {
        let (mut read, mut found) = (Some(read), None);
        self.kv.get(table, key, &mut |stored| found = read.take().map(|read| read(stored)))?;
        found.transpose()
    }

    /// Whether a key is there, whatever its value.
    pub(crate) fn is_there(&self, table: Table, key: &[u8]) -> Result<bool> {
        Ok(self.look(table, key, |_| Ok(()))?.is_some())
    }

    /// Whether a key is there, its value sound.
    pub(crate) fn has(&self, table: Table, key: &[u8]) -> Result<bool> {
        Ok(self.read(table, key, |_| Ok(()))?.is_some())
    }

    /// The record of a key, checked.
    pub(crate) fn record<T: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Result<Option<T>> {
        self.read(table, key, |body| decode(table, key, body))
    }

    /// A record that another one says is there.
    pub(crate) fn expected<T: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Result<T> {
        self.record(table, key)?.ok_or_else(|| missing(table, key))
    }

    pub(crate) fn put_body(&self, table: Table, key: &[u8], body: &[u8]) -> Result<()> {
        self.kv.put(table, key, &value::seal(table, key, body))
    }

    /// Stores the body that `write` appends.
    pub(crate) fn put_written(
        &self,
        table: Table,
        key: &[u8],
        write: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        self.kv.put(table, key, &value::seal_written(table, key, write)?)
    }

    pub(crate) fn put_record<T: Serialize>(&self, table: Table, key: &[u8], record: &T) -> Result<()> {
        self.put_written(table, key, |body| json::encode_into(body, record))
    }

    pub(crate) fn delete(&self, table: Table, key: &[u8]) -> Result<bool> {
        self.kv.delete(table, key)
    }

    /// Brings the index entries of a record from what they were to what they are to be.
    pub(crate) fn reindex(&self, before: &[IndexEntry], after: &[IndexEntry]) -> Result<()> {
        for entry in before.iter().filter(|entry| !after.contains(entry)) {
            self.delete(entry.table, &entry.key)?;
        }
        for entry in after.iter().filter(|entry| !before.contains(entry)) {
            self.put_body(entry.table, &entry.key, &entry.body)?;
        }
        Ok(())
    }

    /// The first entries of a span, as `read` makes them of key and stored value; the span then begins after them.
    /// At most `limit`, fewer when they are large.
    ///
    /// In a damaged tree a search can lead back to where it came from; so each key has to lie further on than the one
    /// before, or a walk might never end.
    fn next_chunk<T>(
        &self,
        table: Table,
        span: &mut Span,
        order: Order,
        limit: usize,
        mut read: impl FnMut(&[u8], &[u8]) -> Result<T>,
    ) -> Result<Chunk<T>> {
        let limit = limit.clamp(1, CHUNK);
        let mut chunk = Chunk { found: Vec::new(), is_last: true };
        let (mut bytes, mut last, mut failed) = (0, Vec::new(), None);
        self.kv.scan(table, span, order, &mut |key, stored| {
            let goes_on = match order {
                _ if chunk.found.is_empty() => true,
                Order::Forwards => *key > *last,
                Order::Backwards => *key < *last,
            };
            let made = if goes_on && span.contains(key) {
                read(key, stored)
            } else {
                Err(Error::corrupt(value::place(table, key), "is out of order"))
            };
            match made {
                Ok(made) => chunk.found.push(made),
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            }
            key.clone_into(&mut last);
            bytes += key.len() + stored.len();
            chunk.is_last = chunk.found.len() < limit && bytes < CHUNK_BYTES;
            if chunk.is_last { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        if !chunk.is_last {
            let rest = std::mem::replace(span, Span::all());
            *span = match order {
                Order::Forwards => rest.after(&last),
                Order::Backwards => rest.before(&last),
            };
        }
        Ok(chunk)
    }

    /// Shows `see` what `read` makes of each entry of a span, in rising order, its value checked. While `see` runs
    /// nothing of redb is open, so it may read and write.
    pub(crate) fn every<T>(
        &self,
        table: Table,
        mut span: Span,
        mut read: impl FnMut(&[u8], &[u8]) -> Result<T>,
        mut see: impl FnMut(T) -> Result<()>,
    ) -> Result<()> {
        loop {
            let chunk = self.next_chunk(table, &mut span, Order::Forwards, CHUNK, |key, stored| {
                read(key, value::open(table, key, stored)?)
            })?;
            chunk.found.into_iter().try_for_each(&mut see)?;
            if chunk.is_last {
                return Ok(());
            }
        }
    }

    /// What `read` makes of the first entries of a span, `limit` at most, of key and stored value.
    fn first<T>(
        &self,
        table: Table,
        mut span: Span,
        order: Order,
        limit: usize,
        mut read: impl FnMut(&[u8], &[u8]) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        loop {
            let chunk = self.next_chunk(table, &mut span, order, limit - found.len(), &mut read)?;
            found.extend(chunk.found);
            if chunk.is_last || found.len() >= limit {
                return Ok(found);
            }
        }
    }

    /// What `read` makes of the first entries of a span, `limit` at most, their values checked.
    pub(crate) fn take<T>(
        &self,
        table: Table,
        span: Span,
        order: Order,
        limit: usize,
        mut read: impl FnMut(&[u8], &[u8]) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.first(table, span, order, limit, |key, stored| read(key, value::open(table, key, stored)?))
    }

    /// One page of a span: what `read` makes of its first `limit` entries, and whether there are more. The entry over
    /// the limit is not read.
    pub(crate) fn page<T>(
        &self,
        table: Table,
        span: Span,
        order: Order,
        limit: usize,
        mut read: impl FnMut(&[u8], &[u8]) -> Result<T>,
    ) -> Result<(Vec<T>, bool)> {
        let mut found = Vec::new();
        let seen = self.first(table, span, order, limit + 1, |key, stored| {
            if found.len() < limit {
                found.push(read(key, value::open(table, key, stored)?)?);
            }
            Ok(())
        })?;
        Ok((found, seen.len() > limit))
    }

    /// Up to `limit` of what `pick` makes of what `read` made of the entries of a span, their values checked. `pick` may
    /// pass over some, and it may read elsewhere.
    pub(crate) fn pick<E, T>(
        &self,
        table: Table,
        span: Span,
        order: Order,
        limit: usize,
        mut read: impl FnMut(&[u8], &[u8]) -> Result<E>,
        pick: impl FnMut(E) -> Result<Option<T>>,
    ) -> Result<Vec<T>> {
        let read = |key: &[u8], stored: &[u8]| read(key, value::open(table, key, stored)?);
        self.pick_stored(table, span, order, limit, read, pick)
    }

    /// The same of values as they stand, unchecked.
    pub(crate) fn pick_stored<E, T>(
        &self,
        table: Table,
        mut span: Span,
        order: Order,
        limit: usize,
        mut read: impl FnMut(&[u8], &[u8]) -> Result<E>,
        mut pick: impl FnMut(E) -> Result<Option<T>>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        loop {
            let chunk = self.next_chunk(table, &mut span, order, limit, &mut read)?;
            for entry in chunk.found {
                found.extend(pick(entry)?);
                if found.len() >= limit {
                    return Ok(found);
                }
            }
            if chunk.is_last {
                return Ok(found);
            }
        }
    }

    /// Every entry of a table as it stands, unchecked, a chunk of them at a time: for who looks at all of them.
    pub(crate) fn raw(&self, table: Table, mut see: impl FnMut(&[Entry]) -> Result<()>) -> Result<()> {
        let mut span = Span::all();
        loop {
            let chunk = self.next_chunk(table, &mut span, Order::Forwards, CHUNK, |key, stored| {
                Ok((key.to_vec(), stored.to_vec()))
            })?;
            see(&chunk.found)?;
            if chunk.is_last {
                return Ok(());
            }
        }
    }

    /// Whether a table has no entry.
    pub(crate) fn is_table_empty(&self, table: Table) -> Result<bool> {
        let mut is_empty = true;
        self.kv.scan(table, &Span::all(), Order::Forwards, &mut |_, _| {
            is_empty = false;
            ControlFlow::Break(())
        })?;
        Ok(is_empty)
    }

    /// The last number that the store-wide counter gave.
    pub(crate) fn counter(&self) -> Result<u64> {
        let counter: Counter = self.expected(META, &counter_key())?;
        Ok(counter.last)
    }

    pub(crate) fn set_counter(&self, last: u64) -> Result<()> {
        self.put_record(META, &counter_key(), &Counter { last })
    }

    /// A number that was never given before.
    pub(crate) fn next_number(&self) -> Result<u64> {
        let next = rules::next_seq(self.counter()?)?;
        self.set_counter(next)?;
        Ok(next)
    }
}

pub(crate) fn counter_key() -> Key {
    Key::new().text("counter")
}

/// The record in a body that was opened.
pub(crate) fn decode<T: DeserializeOwned>(table: Table, key: &[u8], body: &[u8]) -> Result<T> {
    json::decode(|| value::place(table, key), value::text(table, key, body)?)
}

/// What another record says is there is not.
pub(crate) fn missing(table: Table, key: &[u8]) -> Error {
    Error::corrupt(value::place(table, key), "is gone")
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
    use std::cell::RefCell;

    use store_api::ErrorKind;

    use super::*;
    use crate::keys::Key;
    use crate::kv::{SeeEntry, SeeValue};
    use crate::tables::RUNS;

    /// A tree that shows what it was told to, in that order, whatever it is asked for.
    struct Damaged {
        entries: Vec<Entry>,
        /// How many entries each scan has shown.
        shown: RefCell<Vec<usize>>,
    }

    impl Damaged {
        fn new(keys: impl IntoIterator<Item = Vec<u8>>, body: &[u8]) -> Damaged {
            let entry = |key: Vec<u8>| {
                let stored = value::seal(RUNS, &key, body);
                (key, stored)
            };
            Damaged { entries: keys.into_iter().map(entry).collect(), shown: RefCell::default() }
        }

        fn take(&self, span: Span, order: Order, limit: usize) -> Result<Vec<Vec<u8>>> {
            Tx::on(self).take(RUNS, span, order, limit, |key, _| Ok(key.to_vec()))
        }
    }

    impl Kv for Damaged {
        fn get(&self, _: Table, _: &[u8], _: SeeValue<'_>) -> Result<()> {
            Err(Error::ReadOnly)
        }
        fn scan(&self, _: Table, _: &Span, _: Order, see: SeeEntry<'_>) -> Result<()> {
            let gone: usize = self.shown.borrow().iter().sum();
            let mut shown = 0;
            for (key, stored) in &self.entries[gone..] {
                shown += 1;
                if see(key, stored).is_break() {
                    break;
                }
            }
            self.shown.borrow_mut().push(shown);
            Ok(())
        }
        fn put(&self, _: Table, _: &[u8], _: &[u8]) -> Result<()> {
            Err(Error::ReadOnly)
        }
        fn delete(&self, _: Table, _: &[u8]) -> Result<bool> {
            Err(Error::ReadOnly)
        }
    }

    fn numbered(count: u16) -> impl Iterator<Item = Vec<u8>> {
        (0..count).map(|number| number.to_be_bytes().to_vec())
    }

    #[test]
    fn a_walk_goes_on_or_is_corrupt() {
        let walks = [
            (Order::Forwards, ["a", "c", "b"]),
            (Order::Forwards, ["a", "b", "b"]),
            (Order::Backwards, ["c", "a", "b"]),
            (Order::Backwards, ["c", "b", "b"]),
        ];
        for (order, keys) in walks {
            let tree = Damaged::new(keys.map(|key| key.as_bytes().to_vec()), b"{}");
            assert_eq!(tree.take(Span::all(), order, 2).unwrap().len(), 2);
            tree.shown.take();
            assert_eq!(tree.take(Span::all(), order, 9).unwrap_err().kind(), ErrorKind::Corrupt, "{keys:?}");
        }
    }

    #[test]
    fn a_page_says_whether_there_are_more_and_does_not_read_them() {
        let mut tree = Damaged::new(numbered(3), b"{}");
        tree.entries[2].1.clear();
        let page = |limit| {
            tree.shown.take();
            Tx::on(&tree).page(RUNS, Span::all(), Order::Forwards, limit, |key, _| Ok(key[1]))
        };
        assert_eq!(page(1).unwrap(), (vec![0], true));
        assert_eq!(page(2).unwrap(), (vec![0, 1], true));
        assert_eq!(page(3).unwrap_err().kind(), ErrorKind::Corrupt);
        tree.entries.pop();
        tree.shown.take();
        let all = Tx::on(&tree).page(RUNS, Span::all(), Order::Forwards, 2, |key, _| Ok(key[1]));
        assert_eq!(all.unwrap(), (vec![0, 1], false));
    }

    #[test]
    fn what_lies_outside_of_a_span_is_corrupt() {
        let tree = Damaged::new([Key::new().text("a").to_vec(), Key::new().text("b").to_vec()], b"{}");
        let found = tree.take(Span::under(&Key::new().text("a")), Order::Forwards, 9);
        assert_eq!(found.unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_walk_reads_no_more_entries_at_a_time_than_a_chunk_and_than_are_wanted() {
        let tree = Damaged::new(numbered(1000), b"{}");
        assert_eq!(tree.take(Span::all(), Order::Forwards, 600).unwrap().len(), 600);
        assert_eq!(*tree.shown.borrow(), [CHUNK, CHUNK, 600 - 2 * CHUNK]);
    }

    #[test]
    fn a_walk_reads_no_more_bytes_at_a_time_than_a_chunk() {
        assert_eq!(CHUNK_BYTES, 1_048_576);
        let overhead = value::seal(RUNS, &[0, 0], b"").len() + 2;
        for (body, at_a_time) in [(CHUNK_BYTES / 4 - overhead, 4), (CHUNK_BYTES / 4 - overhead - 1, 5)] {
            let tree = Damaged::new(numbered(10), &vec![b' '; body]);
            assert_eq!(tree.take(Span::all(), Order::Forwards, 10).unwrap().len(), 10);
            assert_eq!(tree.shown.borrow()[0], at_a_time);
        }
    }
}
