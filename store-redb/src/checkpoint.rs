//! Checkpoints: the head and the document of each, and beside those that were claimed who has them.

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
    /// Whether there is a claim beside it, held or let go: from its first claim on.
    pub(crate) claimed: bool,
}

/// How many bytes the fields of a head take, and how many the head.
const FIELDS: usize = size_of::<u64>() + 1;
const SEALED_HEAD: usize = value::HEADER + FIELDS;

impl Head {
    pub(crate) fn sealed(self, key: &[u8]) -> Vec<u8> {
        let mut fields = [self.claimed.into(); FIELDS];
        fields[..size_of::<u64>()].copy_from_slice(&self.iteration.to_be_bytes());
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

/// The checkpoint in a body that was opened, and whether there is a claim beside it.
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

    /// Says in the head of a checkpoint that there is a claim beside it: what its first claim costs.
    fn put_claimed(&self, key: &[u8]) -> Result<()> {
        if self.is_there(CHECKPOINT_CLAIMS, key)? {
            return Err(Error::corrupt(
                value::place(CHECKPOINT_CLAIMS, key),
                "is not known to its checkpoint",
            ));
        }
        let claimed = self.read(CHECKPOINTS, key, |body| {
            let (head, doc) = parts(key, body)?;
            Ok([&Head { claimed: true, ..head }.sealed(key), doc].concat())
        })?;
        self.put_body(CHECKPOINTS, key, &claimed.ok_or_else(|| missing(CHECKPOINTS, key))?)
    }

    /// The head of the checkpoint of a run, if it has one. A claim does not stand alone.
    fn head(&self, run: &RunId) -> Result<Option<Head>> {
        let key = key(run);
        match self.look(CHECKPOINTS, &key, |stored| head(&key, stored))? {
            None if self.is_there(CHECKPOINT_CLAIMS, &key)? => Err(missing(CHECKPOINTS, &key)),
            found => Ok(found),
        }
    }

    /// Whether there is a claim beside the checkpoint of a run, which must be there.
    fn is_claimed(&self, run: &RunId) -> Result<bool> {
        Ok(self.head(run)?.ok_or_else(|| not_found(run))?.claimed)
    }

    /// The claim beside a checkpoint, of which its head says whether there is one.
    pub(crate) fn claim_beside(&self, key: &[u8], claimed: bool) -> Result<Option<Lease>> {
        if claimed { self.expected(CHECKPOINT_CLAIMS, key) } else { Ok(None) }
    }

    fn expected_checkpoint(&self, key: &[u8]) -> Result<(Checkpoint, bool)> {
        self.read(CHECKPOINTS, key, |body| read(key, body))?.ok_or_else(|| missing(CHECKPOINTS, key))
    }

    /// The lease of the checkpoint that `token` holds at `now`.
    fn held_claim(&self, run: &RunId, token: LeaseToken, now: DateTime<Utc>) -> Result<Lease> {
        let lease = self.claim_beside(&key(run), self.is_claimed(run)?)?;
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
        match self.head(&checkpoint.run)? {
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

    /// Removes what there is of it, sound or not. It looks first: a refusal is to have changed nothing, and to remove what
    /// is not there counts as a change.
    fn delete(&self, run: &RunId) -> Result<()> {
        let key = key(run);
        let mut found = false;
        for table in [CHECKPOINTS, CHECKPOINT_CLAIMS] {
            if self.is_there(table, &key)? {
                found |= Tx::delete(self, table, &key)?;
            }
        }
        if found { Ok(()) } else { Err(not_found(run)) }
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
        let claimed = self.is_claimed(run)?;
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
