//! Checkpoints: the head and the document of each, and beside those that were ever claimed who has them.

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

/// What stands before the document of a checkpoint: sealed by itself, so that who needs no more need not read the state.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    pub(crate) iteration: u64,
    /// Whether it was ever claimed: then, and only then, there is a claim beside it, held or let go.
    pub(crate) claimed: bool,
}

/// How many bytes a head takes.
const SEALED_HEAD: usize = value::HEADER + size_of::<u64>() + 1;

impl Head {
    pub(crate) fn sealed(self, key: &[u8]) -> Vec<u8> {
        let mut fields = self.iteration.to_be_bytes().to_vec();
        fields.push(self.claimed.into());
        value::seal(CHECKPOINTS, key, &fields)
    }
}

/// The two parts of a checkpoint's body: its head and its document.
fn parts<'b>(key: &[u8], body: &'b [u8]) -> Result<(Head, &'b [u8])> {
    let damaged = |detail: &str| Error::corrupt(value::place(CHECKPOINTS, key), detail.to_owned());
    let (sealed, doc) = body.split_first_chunk::<SEALED_HEAD>().ok_or_else(|| damaged("is too short"))?;
    let (iteration, claimed) = match value::open(CHECKPOINTS, key, sealed)?.split_first_chunk() {
        Some((iteration, [0])) => (iteration, false),
        Some((iteration, [1])) => (iteration, true),
        _ => return Err(damaged("has no head")),
    };
    Ok((Head { iteration: u64::from_be_bytes(*iteration), claimed }, doc))
}

/// The head of a checkpoint from its stored value, of which nothing else is checked.
fn head(key: &[u8], stored: &[u8]) -> Result<Head> {
    parts(key, value::split(stored).1).map(|(head, _)| head)
}

/// The checkpoint in a body that was opened, and whether it was ever claimed.
pub(crate) fn read(key: &[u8], body: &[u8]) -> Result<(Checkpoint, bool)> {
    let (head, doc) = parts(key, body)?;
    let checkpoint: Checkpoint = decode(CHECKPOINTS, key, doc)?;
    if checkpoint.iteration != head.iteration {
        return Err(Error::corrupt(value::place(CHECKPOINTS, key), "iteration and document disagree"));
    }
    Ok((checkpoint, head.claimed))
}

impl Tx<'_> {
    /// Stores a checkpoint, and nothing of the claim on it.
    fn put_checkpoint(&self, checkpoint: &Checkpoint, claimed: bool) -> Result<()> {
        let key = key(&checkpoint.run);
        self.put_written(CHECKPOINTS, &key, |body| {
            body.extend(Head { iteration: checkpoint.iteration, claimed }.sealed(&key));
            json::encode_into(body, checkpoint)
        })
    }

    /// Stores a checkpoint of a run that has none.
    pub(crate) fn insert_checkpoint(&self, checkpoint: &Checkpoint, lease: Option<&Lease>) -> Result<()> {
        self.put_checkpoint(checkpoint, lease.is_some())?;
        lease.map_or(Ok(()), |lease| self.put_claim(&key(&checkpoint.run), Some(lease)))
    }

    /// Moves the claim on a checkpoint that was claimed before.
    fn put_claim(&self, key: &[u8], lease: Option<&Lease>) -> Result<()> {
        self.put_record(CHECKPOINT_CLAIMS, key, &lease)
    }

    /// Says in the head of a checkpoint that it was claimed: what a claim costs once.
    fn put_claimed(&self, key: &[u8]) -> Result<()> {
        let claimed = self.read(CHECKPOINTS, key, |body| {
            let (head, doc) = parts(key, body)?;
            Ok([&Head { claimed: true, ..head }.sealed(key), doc].concat())
        })?;
        self.put_body(CHECKPOINTS, key, &claimed.ok_or_else(|| missing(CHECKPOINTS, key))?)
    }

    /// The head of a checkpoint that must be there.
    fn head(&self, run: &RunId) -> Result<Head> {
        let key = key(run);
        self.look(CHECKPOINTS, &key, |stored| head(&key, stored))?.ok_or_else(|| not_found(run))
    }

    /// The claim on a checkpoint, of which its head says whether it was ever claimed.
    pub(crate) fn claim_beside(&self, key: &[u8], claimed: bool) -> Result<Option<Lease>> {
        if claimed { self.expected(CHECKPOINT_CLAIMS, key) } else { Ok(None) }
    }

    fn expected_checkpoint(&self, key: &[u8]) -> Result<(Checkpoint, bool)> {
        self.read(CHECKPOINTS, key, |body| read(key, body))?.ok_or_else(|| missing(CHECKPOINTS, key))
    }

    /// The lease of the checkpoint that `token` holds at `now`.
    fn held_claim(&self, run: &RunId, token: LeaseToken, now: DateTime<Utc>) -> Result<Lease> {
        let lease = self.claim_beside(&key(run), self.head(run)?.claimed)?;
        lease::held(Entity::Checkpoint, run.as_str(), lease.as_ref(), token, now).cloned()
    }

    /// Gives a new lease on a checkpoint.
    fn grant(
        &self,
        run: &RunId,
        claimed: bool,
        worker: &WorkerId,
        now: DateTime<Utc>,
        length: Duration,
    ) -> Result<Lease> {
        let key = key(run);
        let lease = Lease::grant(worker, LeaseToken(self.next_number()?), now, length)?;
        if !claimed {
            self.put_claimed(&key)?;
        }
        self.put_claim(&key, Some(&lease))?;
        Ok(lease)
    }
}

impl CheckpointStore for Tx<'_> {
    fn save(&self, checkpoint: &Checkpoint) -> Result<()> {
        checkpoint.validate()?;
        let key = key(&checkpoint.run);
        match self.look(CHECKPOINTS, &key, |stored| head(&key, stored))? {
            None if self.has(CHECKPOINT_CLAIMS, &key)? => Err(missing(CHECKPOINTS, &key)),
            None => self.insert_checkpoint(checkpoint, None),
            Some(Head { iteration, claimed }) => {
                checkpoint.may_replace(iteration)?;
                self.put_checkpoint(checkpoint, claimed)
            }
        }
    }

    fn load(&self, run: &RunId) -> Result<Option<Arc<Checkpoint>>> {
        let key = key(run);
        let found = self.read(CHECKPOINTS, &key, |body| read(&key, body))?;
        Ok(found.map(|(checkpoint, _)| Arc::new(checkpoint)))
    }

    fn delete(&self, run: &RunId) -> Result<()> {
        let key = key(run);
        if self.head(run)?.claimed {
            Tx::delete(self, CHECKPOINT_CLAIMS, &key)?;
        }
        Tx::delete(self, CHECKPOINTS, &key).map(drop)
    }

    fn interrupted(&self, page: &PageRequest) -> Result<Page<Interrupted>> {
        let position = page.position::<RunId>(List::Interrupted)?;
        let span = position.map_or(Span::all(), |run| Span::all().after(&key(&run)));
        let (found, more) = self.page(CHECKPOINTS, span, Order::Forwards, page.limit(), read)?;
        let list = |(checkpoint, claimed): (Checkpoint, bool)| {
            let lease = self.claim_beside(&key(&checkpoint.run), claimed)?;
            Ok(Interrupted { checkpoint: Arc::new(checkpoint), lease })
        };
        let found = found.into_iter().map(list).collect::<Result<_>>()?;
        Page::of(List::Interrupted, found, more, |found: &Interrupted| found.checkpoint.run.clone())
    }

    fn claim(&self, run: &RunId, now: DateTime<Utc>, worker: &WorkerId, lease: Duration) -> Result<Lease> {
        lease::end(now, lease)?;
        let claimed = self.head(run)?.claimed;
        let held = self.claim_beside(&key(run), claimed)?;
        lease::check_claimable(Entity::Checkpoint, run.as_str(), held.as_ref(), now)?;
        self.grant(run, claimed, worker, now, lease)
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
        // Of those that are held, no more than the head.
        let heads = |key: &[u8], stored: &[u8]| Ok((key.to_vec(), head(key, stored)?.claimed));
        let found =
            self.pick_stored(CHECKPOINTS, Span::all(), Order::Forwards, max, heads, |(key, claimed)| {
                let is_free = lease::claimable(self.claim_beside(&key, claimed)?.as_ref(), now);
                is_free.then(|| self.expected_checkpoint(&key)).transpose()
            })?;
        let claim = |(checkpoint, claimed): (Checkpoint, bool)| {
            let lease = self.grant(&checkpoint.run, claimed, worker, now, lease)?;
            Ok(Interrupted { checkpoint: Arc::new(checkpoint), lease: Some(lease) })
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
