//! Checkpoints: the document under one checksum; iteration and lease, which claims move without reading it, under another.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row, params};
use store_api::json;
use store_api::{
    Checkpoint, CheckpointStore, Entity, Error, Interrupted, Lease, LeaseToken, List, Page, PageRequest,
    Result, RunId, WorkerId, lease, rules, time,
};

use crate::sums::{self, LeaseColumns};
use crate::tx::{Onward, Tx, column, document, no_longer_found, optional_text, text};

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

/// The head of `run` from a row whose columns after the first are `iteration, lease_worker, lease_until, lease_token,
/// head_sum`. That of another run has another sum.
fn read_head(run: &str, row: &Row<'_>) -> Result<Head> {
    let iteration = column(row, 1)?;
    let columns =
        LeaseColumns { worker: optional_text(row, 2)?, until: column(row, 3)?, token: column(row, 4)? };
    sums::check(|| key(run), column(row, 5)?, sums::checkpoint_head(run, iteration, &columns))?;
    Ok(Head { iteration, lease: columns.lease(|| key(run))? })
}

/// Reads [`columns`].
pub(crate) fn read(row: &Row<'_>) -> Result<Interrupted> {
    read_as(text(row, 0)?, row)
}

/// The checkpoint of `run` from the same columns. That of another run has other sums.
fn read_as(run: &str, row: &Row<'_>) -> Result<Interrupted> {
    let head = read_head(run, row)?;
    let doc = document(|| key(run), row, 7)?;
    sums::check(|| key(run), column(row, 6)?, sums::checkpoint(run, doc.as_bytes()))?;
    let checkpoint: Checkpoint = json::decode(|| key(run), doc)?;
    if checkpoint.iteration.cast_signed() != head.iteration {
        return Err(Error::corrupt(key(run), "iteration and document disagree"));
    }
    Ok(Interrupted { checkpoint: Arc::new(checkpoint), lease: head.lease })
}

/// The run, and after it the columns of [`read_head`]; then the document.
macro_rules! columns {
    () => {
        "run, iteration, lease_worker, lease_until, lease_token, head_sum, doc_sum, doc"
    };
}
pub(crate) use columns;

/// Gives SQL the checksum of a head of these values: run, iteration, worker, until when, token. Nothing when they are
/// none of a head.
pub(crate) fn define_head_sum(connection: &Connection) -> rusqlite::Result<()> {
    let flags =
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_scalar_function("checkpoint_head_sum", 5, flags, |of| Ok(head_sum(of)))
}

fn head_sum(of: &Context<'_>) -> Option<i64> {
    let text = |index| of.get_raw(index).as_str_or_null().ok();
    let number = |index| of.get_raw(index).as_i64_or_null().ok();
    let lease = LeaseColumns { worker: text(2)?, until: number(3)?, token: number(4)? };
    Some(sums::checkpoint_head(text(0)??, number(1)??, &lease))
}

impl Tx<'_> {
    fn head(&self, run: &RunId) -> Result<Option<Head>> {
        let sql = "SELECT run, iteration, lease_worker, lease_until, lease_token, head_sum FROM checkpoints \
                   WHERE run = ?1";
        self.first(sql, [run.as_str()], |row| read_head(run.as_str(), row))
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

    /// Stores a checkpoint in place of the run's last one, if it has one, whose lease stays.
    ///
    /// The head of that one is checked where it stands, so that most saves are one statement; only one that changes
    /// nothing asks why.
    pub(crate) fn put_checkpoint(&self, draft: &Draft<'_>) -> Result<()> {
        let sql = "UPDATE checkpoints SET iteration = ?2, doc_sum = ?3, doc = ?4, \
                     head_sum = checkpoint_head_sum(?1, ?2, lease_worker, lease_until, lease_token) \
                   WHERE run = ?1 AND iteration <= ?2 AND \
                     head_sum = checkpoint_head_sum(?1, iteration, lease_worker, lease_until, lease_token)";
        let params = params![draft.run(), draft.iteration(), draft.doc_sum, draft.doc()];
        if self.execute(sql, params)? > 0 {
            return Ok(());
        }
        let Some(stored) = self.head(&draft.checkpoint.run)? else {
            return self.insert_checkpoint(draft, None);
        };
        draft.checkpoint.may_replace(stored.iteration.cast_unsigned())?;
        Err(no_longer_found(key(draft.run())))
    }

    /// Stores a checkpoint of a run that has none.
    pub(crate) fn insert_checkpoint(&self, draft: &Draft<'_>, lease: Option<&Lease>) -> Result<()> {
        let (run, iteration, lease) = (draft.run(), draft.iteration(), LeaseColumns::of(lease)?);
        let head_sum = sums::checkpoint_head(run, iteration, &lease);
        let sql = "INSERT INTO checkpoints (run, iteration, lease_worker, lease_until, lease_token, head_sum, \
                     doc_sum, doc) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let (doc_sum, doc) = (draft.doc_sum, draft.doc());
        let params = params![run, iteration, lease.worker, lease.until, lease.token, head_sum, doc_sum, doc];
        self.execute(sql, params).map(drop)
    }
}

/// A checkpoint that is to be stored, as the document that it will be. It is made before its writer stands in line: a
/// large one takes long, which is nobody else's business.
pub(crate) struct Draft<'a> {
    checkpoint: &'a Checkpoint,
    doc: Vec<u8>,
    doc_sum: i64,
}

impl<'a> Draft<'a> {
    /// Of a checkpoint from outside.
    ///
    /// # Errors
    /// `InvalidInput` naming the field.
    pub(crate) fn check(checkpoint: &'a Checkpoint) -> Result<Self> {
        Ok(Draft::new(checkpoint, checkpoint.validated_document()?))
    }

    /// Of a checkpoint that was checked.
    pub(crate) fn of(checkpoint: &'a Checkpoint) -> Result<Self> {
        Ok(Draft::new(checkpoint, json::encode(checkpoint)?.into_bytes()))
    }

    fn new(checkpoint: &'a Checkpoint, doc: Vec<u8>) -> Self {
        Draft { checkpoint, doc_sum: sums::checkpoint(checkpoint.run.as_str(), &doc), doc }
    }

    fn run(&self) -> &str {
        self.checkpoint.run.as_str()
    }

    /// As SQL text: JSON is UTF-8.
    fn doc(&self) -> ToSqlOutput<'_> {
        ToSqlOutput::Borrowed(ValueRef::Text(&self.doc))
    }

    fn iteration(&self) -> i64 {
        self.checkpoint.iteration.cast_signed()
    }
}

impl CheckpointStore for Tx<'_> {
    fn save(&self, checkpoint: &Checkpoint) -> Result<()> {
        self.put_checkpoint(&Draft::check(checkpoint)?)
    }

    fn load(&self, run: &RunId) -> Result<Option<Arc<Checkpoint>>> {
        let sql = concat!("SELECT ", columns!(), " FROM checkpoints WHERE run = ?1");
        let found = self.first(sql, [run.as_str()], |row| read_as(run.as_str(), row))?;
        Ok(found.map(|found| found.checkpoint))
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
        self.page(List::Interrupted, sql, params, Onward::rising(after), page.limit(), |row| {
            let found = read(row)?;
            Ok((found.checkpoint.run.clone(), found))
        })
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
            let run = text(row, 0)?;
            let is_free = lease::claimable(read_head(run, row)?.lease.as_ref(), now);
            Ok((run.to_owned(), is_free.then(|| read(row)).transpose()?))
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

#[cfg(test)]
mod tests {
    use store_api::{ErrorKind, Seams, Store};

    use super::*;
    use crate::SqliteStore;

    /// What a save replaces without having read it is checked all the same: how far the run was, and who held it.
    #[test]
    fn a_save_checks_the_head_that_it_replaces() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.db");
        let store = SqliteStore::open(&path).unwrap();
        let run = |id: &str| RunId::new(id).unwrap();
        let save = |id: &str, iteration| {
            let checkpoint = Checkpoint::new(run(id), iteration, "state".into(), time::from_nanos(0));
            store.checkpoints().save(&checkpoint)
        };
        let set = |id: &str, to: &str| {
            let raw = Connection::open(&path).unwrap();
            raw.execute_batch(&format!("UPDATE checkpoints SET {to} WHERE run = '{id}'")).unwrap();
        };
        for id in ["far", "held"] {
            save(id, 5).unwrap();
        }
        let worker = WorkerId::new("w").unwrap();
        store
            .checkpoints()
            .claim(&run("held"), time::from_nanos(0), &worker, Duration::from_secs(1))
            .unwrap();
        for (id, damaged, sound) in [
            ("far", "iteration = 3", "iteration = 5"),
            ("far", "head_sum = head_sum + 1", "head_sum = head_sum - 1"),
            ("far", "lease_token = 0", "lease_token = NULL"),
            ("held", "iteration = 3", "iteration = 5"),
            ("held", "lease_token = NULL", "lease_token = 1"),
            ("held", "lease_until = lease_until + 1", "lease_until = lease_until - 1"),
        ] {
            set(id, damaged);
            assert_eq!(save(id, 4).unwrap_err().kind(), ErrorKind::Corrupt, "{damaged}");
            assert_eq!(save(id, 6).unwrap_err().kind(), ErrorKind::Corrupt, "{damaged}");
            set(id, sound);
            assert_eq!(save(id, 4).unwrap_err().kind(), ErrorKind::Conflict, "{damaged}");
        }
        save("far", 6).unwrap();
        save("held", 6).unwrap();
        let held = store.checkpoints().interrupted(&PageRequest::default()).unwrap();
        assert_eq!(held.items.iter().map(|one| one.lease.is_some()).collect::<Vec<_>>(), [false, true]);
        assert!(Store::verify(&store).unwrap().is_sound());
    }
}
