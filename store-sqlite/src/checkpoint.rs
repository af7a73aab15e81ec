//! Checkpoints: the document under one checksum; iteration and lease, which claims move without reading it, under another.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rusqlite::{Row, params};
use store_api::json;
use store_api::{
    Checkpoint, CheckpointStore, Entity, Error, Interrupted, Lease, LeaseToken, List, Page, PageRequest,
    Result, RunId, WorkerId, lease, rules, time,
};

use crate::sums::{self, LeaseColumns};
use crate::tx::{Onward, Tx, column, document, optional_text, text};

fn key(run: &str) -> String {
    format!("checkpoints/{run}")
}

fn not_found(run: &RunId) -> Error {
    Error::not_found(Entity::Checkpoint, run.as_str())
}

/// What claims look at: how far the run is and who holds it.
pub(crate) struct Head {
    iteration: i64,
    lease: Option<Lease>,
}

/// Reads `run, iteration, lease_worker, lease_until, lease_token, head_sum`.
fn read_head(row: &Row<'_>) -> Result<Head> {
    let run = text(row, 0)?;
    let iteration = column(row, 1)?;
    let columns =
        LeaseColumns { worker: optional_text(row, 2)?, until: column(row, 3)?, token: column(row, 4)? };
    sums::check(|| key(run), column(row, 5)?, sums::checkpoint_head(run, iteration, &columns))?;
    Ok(Head { iteration, lease: columns.lease(|| key(run))? })
}

/// Reads the columns of [`read_head`], then `doc_sum, doc`.
pub(crate) fn read(row: &Row<'_>) -> Result<Interrupted> {
    let head = read_head(row)?;
    let run = text(row, 0)?;
    let doc = document(|| key(run), row, 7)?;
    sums::check(|| key(run), column(row, 6)?, sums::checkpoint(run, doc))?;
    let checkpoint: Checkpoint = json::decode(|| key(run), doc)?;
    if checkpoint.iteration.cast_signed() != head.iteration {
        return Err(Error::corrupt(key(run), "iteration and document disagree"));
    }
    Ok(Interrupted { checkpoint: Arc::new(checkpoint), lease: head.lease })
}

/// The columns of [`read`].
macro_rules! columns {
    () => {
        "run, iteration, lease_worker, lease_until, lease_token, head_sum, doc_sum, doc"
    };
}
pub(crate) use columns;

impl Tx<'_> {
    fn head(&self, run: &RunId) -> Result<Option<Head>> {
        let sql = "SELECT run, iteration, lease_worker, lease_until, lease_token, head_sum FROM checkpoints \
                   WHERE run = ?1";
        self.find(sql, [run.as_str()], &[run.as_str()], read_head)
    }

    fn set_lease(&self, run: &RunId, iteration: i64, lease: Option<&Lease>) -> Result<()> {
        let columns = LeaseColumns::of(lease)?;
        let sum = sums::checkpoint_head(run.as_str(), iteration, &columns);
        let sql = "UPDATE checkpoints SET lease_worker = ?2, lease_until = ?3, lease_token = ?4, head_sum = ?5 \
                   WHERE run = ?1";
        let params = params![run.as_str(), columns.worker, columns.until, columns.token, sum];
        self.change_one(|| key(run.as_str()), sql, params)
    }

    fn grant(
        &self,
        run: &RunId,
        iteration: i64,
        now: DateTime<Utc>,
        worker: &WorkerId,
        length: Duration,
    ) -> Result<Lease> {
        let lease = Lease::grant(worker, LeaseToken(self.next_number()?), now, length)?;
        self.set_lease(run, iteration, Some(&lease))?;
        Ok(lease)
    }

    /// The checkpoint that `token` holds at `now`, and its lease.
    fn held_checkpoint(&self, run: &RunId, token: LeaseToken, now: DateTime<Utc>) -> Result<(Head, Lease)> {
        let head = self.head(run)?.ok_or_else(|| not_found(run))?;
        let lease = lease::held(Entity::Checkpoint, run.as_str(), head.lease.as_ref(), token, now)?.clone();
        Ok((head, lease))
    }

    pub(crate) fn put_checkpoint(&self, checkpoint: &Checkpoint, lease: Option<&Lease>) -> Result<()> {
        let run = checkpoint.run.as_str();
        let doc = json::encode(checkpoint)?;
        let iteration = checkpoint.iteration.cast_signed();
        let columns = LeaseColumns::of(lease)?;
        let sql = "INSERT INTO checkpoints (run, iteration, lease_worker, lease_until, lease_token, head_sum, \
                     doc_sum, doc) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
                   ON CONFLICT (run) DO UPDATE SET iteration = ?2, head_sum = ?6, doc_sum = ?7, doc = ?8";
        let params = params![
            run,
            iteration,
            columns.worker,
            columns.until,
            columns.token,
            sums::checkpoint_head(run, iteration, &columns),
            sums::checkpoint(run, &doc),
            doc,
        ];
        self.execute(sql, params).map(drop)
    }
}

impl CheckpointStore for Tx<'_> {
    fn save(&self, checkpoint: &Checkpoint) -> Result<()> {
        checkpoint.validate()?;
        let stored = self.head(&checkpoint.run)?;
        if let Some(stored) = &stored {
            checkpoint.may_replace(stored.iteration.cast_unsigned())?;
        }
        self.put_checkpoint(checkpoint, stored.and_then(|head| head.lease).as_ref())
    }

    fn load(&self, run: &RunId) -> Result<Option<Arc<Checkpoint>>> {
        let sql = concat!("SELECT ", columns!(), " FROM checkpoints WHERE run = ?1");
        Ok(self.find(sql, [run.as_str()], &[run.as_str()], read)?.map(|found| found.checkpoint))
    }

    fn delete(&self, run: &RunId) -> Result<()> {
        // An index finds the row, and the row itself says whether it is the right one.
        let sql = "DELETE FROM checkpoints WHERE rowid = (SELECT rowid FROM checkpoints WHERE run = ?1) AND +run = ?1";
        match self.execute(sql, [run.as_str()])? {
            1 => Ok(()),
            _ if self.head(run)?.is_none() => Err(not_found(run)),
            _ => Err(Error::corrupt(key(run.as_str()), "an index leads to another row")),
        }
    }

    fn interrupted(&self, page: &PageRequest) -> Result<Page<Interrupted>> {
        let after: Option<RunId> = page.position(List::Interrupted)?;
        let sql = concat!("SELECT ", columns!(), " FROM checkpoints WHERE run > ?1 ORDER BY run");
        let params = [after.as_ref().map_or("", RunId::as_str).to_owned()];
        let (found, more) = self.page(sql, params, Onward::rising(after), page.limit(), |row| {
            let found = read(row)?;
            Ok((found.checkpoint.run.clone(), found))
        })?;
        Page::of(List::Interrupted, found, more, |found| found.checkpoint.run.clone())
    }

    fn claim(&self, run: &RunId, now: DateTime<Utc>, worker: &WorkerId, length: Duration) -> Result<Lease> {
        lease::end(now, length)?;
        let head = self.head(run)?.ok_or_else(|| not_found(run))?;
        lease::check_claimable(Entity::Checkpoint, run.as_str(), head.lease.as_ref(), now)?;
        self.grant(run, head.iteration, now, worker, length)
    }

    fn claim_interrupted(
        &self,
        now: DateTime<Utc>,
        worker: &WorkerId,
        length: Duration,
        max: usize,
    ) -> Result<Vec<Interrupted>> {
        rules::check_max(max)?;
        lease::end(now, length)?;
        let sql = concat!("SELECT ", columns!(), " FROM checkpoints ORDER BY run");
        let mut free = self.take(sql, [], Onward::rising(None), max, |row| {
            let is_free = lease::claimable(read_head(row)?.lease.as_ref(), now);
            Ok((text(row, 0)?.to_owned(), is_free.then(|| read(row)).transpose()?))
        })?;
        for found in &mut free {
            let checkpoint = &found.checkpoint;
            let iteration = checkpoint.iteration.cast_signed();
            found.lease = Some(self.grant(&checkpoint.run, iteration, now, worker, length)?);
        }
        Ok(free)
    }

    fn renew_claim(
        &self,
        run: &RunId,
        token: LeaseToken,
        now: DateTime<Utc>,
        length: Duration,
    ) -> Result<Lease> {
        lease::end(now, length)?;
        let (head, lease) = self.held_checkpoint(run, token, now)?;
        let lease = lease.renewed(now, length)?;
        self.set_lease(run, head.iteration, Some(&lease))?;
        Ok(lease)
    }

    fn release_claim(&self, run: &RunId, token: LeaseToken, now: DateTime<Utc>) -> Result<()> {
        time::nanos("now", now)?;
        let (head, _) = self.held_checkpoint(run, token, now)?;
        self.set_lease(run, head.iteration, None)
    }
}
