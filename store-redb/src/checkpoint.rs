//! Checkpoints: the document of each, and beside it how far it is and who has claimed it.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use store_api::{
    Checkpoint, CheckpointStore, Entity, Error, Interrupted, Lease, LeaseToken, List, Page, PageRequest,
    Result, RunId, WorkerId, lease, rules, time,
};

use crate::keys::{Key, Span};
use crate::kv::Order;
use crate::tables::{CHECKPOINT_HEADS, CHECKPOINTS};
use crate::tx::{Tx, decode};

/// What changes without the document: kept beside it, so that a claim does not write a large state again.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) iteration: u64,
    pub(crate) lease: Option<Lease>,
}

fn key(run: &RunId) -> Key {
    Key::new().text(run.as_str())
}

/// A head with its key, which is that of its checkpoint too.
fn keyed_head(key: &[u8], body: &[u8]) -> Result<(Vec<u8>, Head)> {
    Ok((key.to_vec(), decode(CHECKPOINT_HEADS, key, body)?))
}

impl Tx<'_> {
    fn head(&self, run: &RunId) -> Result<Option<Head>> {
        self.record(CHECKPOINT_HEADS, &key(run))
    }

    fn put_head(&self, run: &RunId, head: &Head) -> Result<()> {
        self.put_record(CHECKPOINT_HEADS, &key(run), head)
    }

    pub(crate) fn put_checkpoint(&self, checkpoint: &Checkpoint, lease: Option<Lease>) -> Result<()> {
        self.put_record(CHECKPOINTS, &key(&checkpoint.run), checkpoint)?;
        self.put_head(&checkpoint.run, &Head { iteration: checkpoint.iteration, lease })
    }

    /// The head of a checkpoint that must be there.
    fn existing_head(&self, run: &RunId) -> Result<Head> {
        self.head(run)?.ok_or_else(|| Error::not_found(Entity::Checkpoint, run.as_str()))
    }

    /// The head of a checkpoint that `token` holds at `now`, and its lease.
    fn held_head(&self, run: &RunId, token: LeaseToken, now: DateTime<Utc>) -> Result<(Head, Lease)> {
        let head = self.existing_head(run)?;
        let held = lease::held(Entity::Checkpoint, run.as_str(), head.lease.as_ref(), token, now)?.clone();
        Ok((head, held))
    }

    /// Gives a new lease on a checkpoint.
    fn grant(
        &self,
        run: &RunId,
        head: &Head,
        worker: &WorkerId,
        now: DateTime<Utc>,
        length: Duration,
    ) -> Result<Lease> {
        let lease = Lease::grant(worker, LeaseToken(self.next_number()?), now, length)?;
        self.put_head(run, &Head { lease: Some(lease.clone()), ..*head })?;
        Ok(lease)
    }

    /// The checkpoint whose head has this key.
    fn checkpoint_of_head(&self, key: &[u8]) -> Result<Arc<Checkpoint>> {
        self.expected(CHECKPOINTS, key).map(Arc::new)
    }
}

impl CheckpointStore for Tx<'_> {
    fn save(&self, checkpoint: &Checkpoint) -> Result<()> {
        checkpoint.validate()?;
        let stored = self.head(&checkpoint.run)?;
        stored.as_ref().map_or(Ok(()), |head| checkpoint.may_replace(head.iteration))?;
        self.put_checkpoint(checkpoint, stored.and_then(|head| head.lease))
    }

    fn load(&self, run: &RunId) -> Result<Option<Arc<Checkpoint>>> {
        self.record(CHECKPOINTS, &key(run))
    }

    fn delete(&self, run: &RunId) -> Result<()> {
        self.existing_head(run)?;
        Tx::delete(self, CHECKPOINTS, &key(run))?;
        Tx::delete(self, CHECKPOINT_HEADS, &key(run)).map(drop)
    }

    fn interrupted(&self, page: &PageRequest) -> Result<Page<Interrupted>> {
        let position = page.position::<RunId>(List::Interrupted)?;
        let span = position.map_or(Span::all(), |run| Span::all().after(&key(&run)));
        let (heads, more) = self.page(CHECKPOINT_HEADS, span, Order::Forwards, page.limit(), keyed_head)?;
        let list = |(key, head): (Vec<u8>, Head)| {
            Ok(Interrupted { checkpoint: self.checkpoint_of_head(&key)?, lease: head.lease })
        };
        let found = heads.into_iter().map(list).collect::<Result<_>>()?;
        Page::of(List::Interrupted, found, more, |found: &Interrupted| found.checkpoint.run.clone())
    }

    fn claim(&self, run: &RunId, now: DateTime<Utc>, worker: &WorkerId, lease: Duration) -> Result<Lease> {
        lease::end(now, lease)?;
        let head = self.existing_head(run)?;
        lease::check_claimable(Entity::Checkpoint, run.as_str(), head.lease.as_ref(), now)?;
        self.grant(run, &head, worker, now, lease)
    }

    fn claim_interrupted(
        &self,
        now: DateTime<Utc>,
        worker: &WorkerId,
        lease: Duration,
        max: usize,
    ) -> Result<Vec<Interrupted>> {
        rules::check_max(max)?;
        lease::end(now, lease)?;
        let found =
            self.pick(CHECKPOINT_HEADS, Span::all(), Order::Forwards, max, keyed_head, |(key, head)| {
                let is_free = lease::claimable(head.lease.as_ref(), now);
                is_free.then(|| Ok((head, self.checkpoint_of_head(&key)?))).transpose()
            })?;
        let claim = |(head, checkpoint): (Head, Arc<Checkpoint>)| {
            let lease = self.grant(&checkpoint.run, &head, worker, now, lease)?;
            Ok(Interrupted { checkpoint, lease: Some(lease) })
        };
        found.into_iter().map(claim).collect()
    }

    fn renew_claim(
        &self,
        run: &RunId,
        token: LeaseToken,
        now: DateTime<Utc>,
        lease: Duration,
    ) -> Result<Lease> {
        lease::end(now, lease)?;
        let (head, held) = self.held_head(run, token, now)?;
        let renewed = held.renewed(now, lease)?;
        self.put_head(run, &Head { lease: Some(renewed.clone()), ..head })?;
        Ok(renewed)
    }

    fn release_claim(&self, run: &RunId, token: LeaseToken, now: DateTime<Utc>) -> Result<()> {
        time::nanos("now", now)?;
        let (head, _) = self.held_head(run, token, now)?;
        self.put_head(run, &Head { lease: None, ..head })
    }
}
