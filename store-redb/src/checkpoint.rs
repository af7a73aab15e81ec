//! Checkpoints: how far each is and its document, and beside it who has claimed it.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use store_api::{
    Checkpoint, CheckpointStore, Entity, Error, Interrupted, Lease, LeaseToken, List, Page, PageRequest,
    Result, RunId, WorkerId, json, lease, rules, time,
};

use crate::keys::{Key, Span};
use crate::kv::Order;
use crate::tables::{CHECKPOINT_CLAIMS, CHECKPOINTS};
use crate::tx::{Tx, decode, missing};
use crate::value;

fn key(run: &RunId) -> Key {
    Key::new().text(run.as_str())
}

fn not_found(run: &RunId) -> Error {
    Error::not_found(Entity::Checkpoint, run.as_str())
}

/// How far a checkpoint is, as it stands before the document: sealed by itself, so that a save checks it and need not
/// read the state.
pub(crate) fn sealed_iteration(key: &[u8], iteration: u64) -> Vec<u8> {
    value::seal(CHECKPOINTS, key, &iteration.to_be_bytes())
}

/// The two parts of a checkpoint's body: how far it is, and the document.
fn parts<'b>(key: &[u8], body: &'b [u8]) -> Result<(u64, &'b [u8])> {
    let short = || Error::corrupt(value::place(CHECKPOINTS, key), "is too short");
    let (sealed, doc) = body.split_first_chunk::<{ value::SEALED_NUMBER }>().ok_or_else(short)?;
    let iteration = value::open(CHECKPOINTS, key, sealed)?.first_chunk().ok_or_else(short)?;
    Ok((u64::from_be_bytes(*iteration), doc))
}

/// The checkpoint in a body that was opened.
pub(crate) fn read(key: &[u8], body: &[u8]) -> Result<Checkpoint> {
    let (iteration, doc) = parts(key, body)?;
    let checkpoint: Checkpoint = decode(CHECKPOINTS, key, doc)?;
    if checkpoint.iteration != iteration {
        return Err(Error::corrupt(value::place(CHECKPOINTS, key), "iteration and document disagree"));
    }
    Ok(checkpoint)
}

/// A claim with its key, which is that of its checkpoint too.
fn keyed_claim(key: &[u8], body: &[u8]) -> Result<(Vec<u8>, Option<Lease>)> {
    Ok((key.to_vec(), decode(CHECKPOINT_CLAIMS, key, body)?))
}

impl Tx<'_> {
    pub(crate) fn put_claim(&self, key: &[u8], lease: Option<&Lease>) -> Result<()> {
        self.put_record(CHECKPOINT_CLAIMS, key, &lease)
    }

    /// Stores a checkpoint, and nothing of the claim on it.
    pub(crate) fn put_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        let key = key(&checkpoint.run);
        self.put_written(CHECKPOINTS, &key, |body| {
            body.extend(sealed_iteration(&key, checkpoint.iteration));
            json::encode_into(body, checkpoint)
        })
    }

    /// Stores a checkpoint of a run that has none.
    pub(crate) fn insert_checkpoint(&self, checkpoint: &Checkpoint, lease: Option<&Lease>) -> Result<()> {
        self.put_checkpoint(checkpoint)?;
        self.put_claim(&key(&checkpoint.run), lease)
    }

    /// The claim on a checkpoint that must be there.
    fn claim_on(&self, run: &RunId) -> Result<Option<Lease>> {
        self.record(CHECKPOINT_CLAIMS, &key(run))?.ok_or_else(|| not_found(run))
    }

    /// The lease of the checkpoint that `token` holds at `now`.
    fn held_claim(&self, run: &RunId, token: LeaseToken, now: DateTime<Utc>) -> Result<Lease> {
        let lease = self.claim_on(run)?;
        lease::held(Entity::Checkpoint, run.as_str(), lease.as_ref(), token, now).cloned()
    }

    /// Gives a new lease on a checkpoint.
    fn grant(&self, run: &RunId, worker: &WorkerId, now: DateTime<Utc>, length: Duration) -> Result<Lease> {
        let lease = Lease::grant(worker, LeaseToken(self.next_number()?), now, length)?;
        self.put_claim(&key(run), Some(&lease))?;
        Ok(lease)
    }

    /// The checkpoint on which there is a claim of this key.
    fn claimed_checkpoint(&self, key: &[u8]) -> Result<Arc<Checkpoint>> {
        let found = self.read(CHECKPOINTS, key, |body| read(key, body))?;
        found.map(Arc::new).ok_or_else(|| missing(CHECKPOINTS, key))
    }
}

impl CheckpointStore for Tx<'_> {
    fn save(&self, checkpoint: &Checkpoint) -> Result<()> {
        checkpoint.validate()?;
        let key = key(&checkpoint.run);
        let iteration = |stored: &[u8]| parts(&key, value::split(stored).1).map(|(iteration, _)| iteration);
        match self.look(CHECKPOINTS, &key, iteration)? {
            None if self.has(CHECKPOINT_CLAIMS, &key)? => Err(missing(CHECKPOINTS, &key)),
            None => self.insert_checkpoint(checkpoint, None),
            Some(stored) => {
                checkpoint.may_replace(stored)?;
                self.put_checkpoint(checkpoint)
            }
        }
    }

    fn load(&self, run: &RunId) -> Result<Option<Arc<Checkpoint>>> {
        let key = key(run);
        Ok(self.read(CHECKPOINTS, &key, |body| read(&key, body))?.map(Arc::new))
    }

    fn delete(&self, run: &RunId) -> Result<()> {
        self.claim_on(run)?;
        Tx::delete(self, CHECKPOINTS, &key(run))?;
        Tx::delete(self, CHECKPOINT_CLAIMS, &key(run)).map(drop)
    }

    fn interrupted(&self, page: &PageRequest) -> Result<Page<Interrupted>> {
        let position = page.position::<RunId>(List::Interrupted)?;
        let span = position.map_or(Span::all(), |run| Span::all().after(&key(&run)));
        let (claims, more) =
            self.page(CHECKPOINT_CLAIMS, span, Order::Forwards, page.limit(), keyed_claim)?;
        let list = |(key, lease): (Vec<u8>, Option<Lease>)| {
            Ok(Interrupted { checkpoint: self.claimed_checkpoint(&key)?, lease })
        };
        let found = claims.into_iter().map(list).collect::<Result<_>>()?;
        Page::of(List::Interrupted, found, more, |found: &Interrupted| found.checkpoint.run.clone())
    }

    fn claim(&self, run: &RunId, now: DateTime<Utc>, worker: &WorkerId, lease: Duration) -> Result<Lease> {
        lease::end(now, lease)?;
        lease::check_claimable(Entity::Checkpoint, run.as_str(), self.claim_on(run)?.as_ref(), now)?;
        self.grant(run, worker, now, lease)
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
            self.pick(CHECKPOINT_CLAIMS, Span::all(), Order::Forwards, max, keyed_claim, |(key, held)| {
                let is_free = lease::claimable(held.as_ref(), now);
                is_free.then(|| self.claimed_checkpoint(&key)).transpose()
            })?;
        let claim = |checkpoint: Arc<Checkpoint>| {
            let lease = self.grant(&checkpoint.run, worker, now, lease)?;
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
        let renewed = self.held_claim(run, token, now)?.renewed(now, lease)?;
        self.put_claim(&key(run), Some(&renewed))?;
        Ok(renewed)
    }

    fn release_claim(&self, run: &RunId, token: LeaseToken, now: DateTime<Utc>) -> Result<()> {
        time::nanos("now", now)?;
        self.held_claim(run, token, now)?;
        self.put_claim(&key(run), None)
    }
}
