//! Checkpoints.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use store_api::*;

use crate::page::{self, check_times, page};
use crate::state::Tx;
use crate::table::Ordered;

/// Checkpoints with the claims on them, by run.
pub(crate) type Checkpoints = Ordered<RunId, Interrupted>;

fn find<'a>(checkpoints: &'a Checkpoints, run: &RunId) -> Result<&'a Interrupted> {
    checkpoints.get(run).ok_or_else(|| Error::not_found(Entity::Checkpoint, run.as_str()))
}

/// The lease that `token` holds.
fn held(stored: &Interrupted, token: LeaseToken, now: DateTime<Utc>) -> Result<&Lease> {
    let run = stored.checkpoint.run.as_str();
    lease::held(Entity::Checkpoint, run, stored.lease.as_ref(), token, now)
}

/// Puts another lease, or none, on a checkpoint; gives what is stored then.
fn set_lease(checkpoints: &mut Checkpoints, run: &RunId, lease: Option<Lease>) -> Result<Interrupted> {
    let checkpoint = Arc::clone(&find(checkpoints, run)?.checkpoint);
    let stored = Interrupted { checkpoint, lease };
    checkpoints.set(run.clone(), stored.clone());
    Ok(stored)
}

impl CheckpointStore for Tx<'_> {
    fn save(&self, checkpoint: &Checkpoint) -> Result<()> {
        checkpoint.validate()?;
        let mut state = self.change()?;
        let stored = state.checkpoints.get(&checkpoint.run);
        if let Some(stored) = stored {
            checkpoint.may_replace(stored.checkpoint.iteration)?;
        }
        let lease = stored.and_then(|stored| stored.lease.clone());
        let saved = Interrupted { checkpoint: Arc::new(checkpoint.clone()), lease };
        state.checkpoints.set(checkpoint.run.clone(), saved);
        Ok(())
    }

    fn load(&self, run: &RunId) -> Result<Option<Arc<Checkpoint>>> {
        Ok(self.look().checkpoints.get(run).map(|stored| Arc::clone(&stored.checkpoint)))
    }

    fn delete(&self, run: &RunId) -> Result<()> {
        if self.change()?.checkpoints.unset(run) {
            return Ok(());
        }
        Err(Error::not_found(Entity::Checkpoint, run.as_str()))
    }

    fn interrupted(&self, request: &PageRequest) -> Result<Page<Interrupted>> {
        let position = request.position(List::Interrupted)?;
        page(List::Interrupted, request, page::after(&self.look().checkpoints, position))
    }

    fn claim(&self, run: &RunId, now: DateTime<Utc>, worker: &WorkerId, length: Duration) -> Result<Lease> {
        lease::end(now, length)?;
        let state = &mut *self.change()?;
        let held = find(&state.checkpoints, run)?.lease.as_ref();
        lease::check_claimable(Entity::Checkpoint, run.as_str(), held, now)?;
        let lease = Lease::grant(worker, LeaseToken(state.counter.next()?), now, length)?;
        set_lease(&mut state.checkpoints, run, Some(lease.clone()))?;
        Ok(lease)
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
        let state = &mut *self.change()?;
        let free = state.checkpoints.iter().filter(|(_, at)| lease::claimable(at.lease.as_ref(), now));
        let free: Vec<RunId> = free.take(max).map(|(run, _)| run.clone()).collect();
        let claim = |run: &RunId| {
            let lease = Lease::grant(worker, LeaseToken(state.counter.next()?), now, length)?;
            set_lease(&mut state.checkpoints, run, Some(lease))
        };
        free.iter().map(claim).collect()
    }

    fn renew_claim(
        &self,
        run: &RunId,
        token: LeaseToken,
        now: DateTime<Utc>,
        length: Duration,
    ) -> Result<Lease> {
        lease::end(now, length)?;
        let mut state = self.change()?;
        let lease = held(find(&state.checkpoints, run)?, token, now)?.renewed(now, length)?;
        set_lease(&mut state.checkpoints, run, Some(lease.clone()))?;
        Ok(lease)
    }

    fn release_claim(&self, run: &RunId, token: LeaseToken, now: DateTime<Utc>) -> Result<()> {
        check_times([("now", Some(now))])?;
        let mut state = self.change()?;
        held(find(&state.checkpoints, run)?, token, now)?;
        set_lease(&mut state.checkpoints, run, None).map(drop)
    }
}
