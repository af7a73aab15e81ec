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
use crate::kv::{Entry, Kv, Order};
use crate::tables::{META, Table};
use crate::value;

/// How many entries a walk reads at a time.
const CHUNK: usize = 256;

/// A transaction or a snapshot. It is the same type for both: a snapshot's verbs refuse to write.
pub(crate) struct Tx<'k> {
    kv: &'k dyn Kv,
}

impl<'k> Tx<'k> {
    pub(crate) fn on(kv: &'k dyn Kv) -> Self {
        Tx { kv }
    }

    /// The body of a value, checked.
    pub(crate) fn body(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(stored) = self.kv.get(table, key)? else { return Ok(None) };
        Ok(Some(value::open(table, key, &stored)?.to_vec()))
    }

    /// Whether a key is there, its value sound.
    pub(crate) fn has(&self, table: Table, key: &[u8]) -> Result<bool> {
        Ok(self.body(table, key)?.is_some())
    }

    /// The record of a key, checked.
    pub(crate) fn record<T: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Result<Option<T>> {
        self.body(table, key)?.map(|body| decode(table, key, &body)).transpose()
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

    /// Shows each entry of a span to `see`, its value checked, until it breaks off. At most `chunk` entries are in
    /// memory at a time, and no redb iterator is open while `see` runs, so it may write.
    pub(crate) fn each(
        &self,
        table: Table,
        mut span: Span,
        order: Order,
        chunk: usize,
        mut see: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        loop {
            let entries = self.next_chunk(table, &mut span, order, chunk)?;
            if entries.is_empty() {
                return Ok(());
            }
            for (key, stored) in &entries {
                if see(key, value::open(table, key, stored)?)?.is_break() {
                    return Ok(());
                }
            }
        }
    }

    /// The first entries of a span, which then begins after them.
    ///
    /// In a damaged tree a search can lead back to where it came from; so each key has to lie further on than the one
    /// before, or a walk might never end.
    fn next_chunk(&self, table: Table, span: &mut Span, order: Order, limit: usize) -> Result<Vec<Entry>> {
        let entries = self.kv.scan(table, span, order, limit.clamp(1, CHUNK))?;
        for (key, _) in &entries {
            if !span.contains(key) {
                return Err(Error::corrupt(value::place(table, key), "is out of order"));
            }
            *span = match order {
                Order::Forwards => std::mem::replace(span, Span::all()).after(key),
                Order::Backwards => std::mem::replace(span, Span::all()).before(key),
            };
        }
        Ok(entries)
    }

    /// Shows every entry of a span to `see`, in rising order.
    pub(crate) fn every(
        &self,
        table: Table,
        span: Span,
        mut see: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        self.each(table, span, Order::Forwards, CHUNK, |key, body| {
            see(key, body)?;
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Up to `limit` of what `read` makes of the entries of a span; it may pass over some.
    pub(crate) fn take<T>(
        &self,
        table: Table,
        span: Span,
        order: Order,
        limit: usize,
        mut read: impl FnMut(&[u8], &[u8]) -> Result<Option<T>>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        self.each(table, span, order, limit, |key, body| {
            found.extend(read(key, body)?);
            Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(found)
    }

    /// Every entry of a table as it stands, unchecked: what `verify` and `backup` walk over.
    pub(crate) fn raw(&self, table: Table, mut see: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        let mut span = Span::all();
        loop {
            let entries = self.next_chunk(table, &mut span, Order::Forwards, CHUNK)?;
            if entries.is_empty() {
                return Ok(());
            }
            entries.iter().try_for_each(|(key, stored)| see(key, stored))?;
        }
    }

    /// Whether a table has no entry.
    pub(crate) fn is_table_empty(&self, table: Table) -> Result<bool> {
        Ok(self.kv.scan(table, &Span::all(), Order::Forwards, 1)?.is_empty())
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
