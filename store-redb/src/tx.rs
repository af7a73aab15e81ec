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
        let (mut read, mut found) = (Some(read), None);
        self.kv.get(table, key, &mut |stored| {
            found = read.take().map(|read| value::open(table, key, stored).and_then(read));
        })?;
        found.transpose()
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

    pub(crate) fn put_record<T: Serialize>(&self, table: Table, key: &[u8], record: &T) -> Result<()> {
        self.put_body(table, key, json::encode(record)?.as_bytes())
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

    /// What `read` makes of the first entries of a span, `limit` at most.
    pub(crate) fn take<T>(
        &self,
        table: Table,
        mut span: Span,
        order: Order,
        limit: usize,
        mut read: impl FnMut(&[u8], &[u8]) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        loop {
            let chunk = self.next_chunk(table, &mut span, order, limit - found.len(), |key, stored| {
                read(key, value::open(table, key, stored)?)
            })?;
            found.extend(chunk.found);
            if chunk.is_last || found.len() >= limit {
                return Ok(found);
            }
        }
    }

    /// Up to `limit` of what `pick` makes of what `read` made of the entries of a span. `pick` may pass over some, and
    /// it may read elsewhere.
    pub(crate) fn pick<E, T>(
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
            let chunk = self.next_chunk(table, &mut span, order, limit, |key, stored| {
                read(key, value::open(table, key, stored)?)
            })?;
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

    /// Every entry of a table as it stands, unchecked, a chunk of them at a time: what `verify` and `backup` walk over.
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
