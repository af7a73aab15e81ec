//! Checkpoints.

use std::sync::Arc;
use std::time::Duration;

use store_api::*;

use super::{State, Time, Tx, check_times, page};

impl State {
    fn checkpoint(&mut self, run: &RunId) -> Result<&mut Interrupted> {
        self.checkpoints.get_mut(run).ok_or_else(|| Error::not_found(Entity::Checkpoint, run.as_str()))
    }
}

impl CheckpointStore for Tx {
    fn save(&self, checkpoint: &Checkpoint) -> Result<()> {
        checkpoint.validate()?;
        let mut state = self.change();
        let stored = state.checkpoints.get(&checkpoint.run);
        if let Some(stored) = stored {
            checkpoint.may_replace(stored.checkpoint.iteration)?;
        }
        let lease = stored.and_then(|stored| stored.lease.clone());
        let saved = Interrupted { checkpoint: Arc::new(checkpoint.clone()), lease };
        state.checkpoints.insert(checkpoint.run.clone(), saved);
        Ok(())
    }

    fn load(&self, run: &RunId) -> Result<Option<Arc<Checkpoint>>> {
        Ok(self.look().checkpoints.get(run).map(|stored| Arc::clone(&stored.checkpoint)))
    }

    fn delete(&self, run: &RunId) -> Result<()> {
        let gone = self.change().checkpoints.remove(run);
        gone.map(drop).ok_or_else(|| Error::not_found(Entity::Checkpoint, run.as_str()))
    }

    fn interrupted(&self, request: &PageRequest) -> Result<Page<Interrupted>> {
        let after = request.position(List::Interrupted)?;
        let state = self.look();
        let all = state.checkpoints.iter().map(|(run, stored)| (run.clone(), stored.clone()));
        page(List::Interrupted, request, after, all)
    }

    fn claim(&self, run: &RunId, now: Time, worker: &WorkerId, length: Duration) -> Result<Lease> {
        lease::end(now, length)?;
        let mut state = self.change();
        let stored = state.checkpoint(run)?;
        lease::check_claimable(Entity::Checkpoint, run.as_str(), stored.lease.as_ref(), now)?;
        let lease = Lease::grant(worker, LeaseToken(state.next_number()?), now, length)?;
        state.checkpoint(run)?.lease = Some(lease.clone());
        Ok(lease)
    }

    fn claim_interrupted(
        &self,
        now: Time,
        worker: &WorkerId,
        length: Duration,
        max: usize,
    ) -> Result<Vec<Interrupted>> {
        rules::check_max(max)?;
        lease::end(now, length)?;
        let mut state = self.change();
        let free = state.checkpoints.iter().filter(|(_, at)| lease::claimable(at.lease.as_ref(), now));
        let free: Vec<RunId> = free.take(max).map(|(run, _)| run.clone()).collect();
        let claim = |run: RunId| {
            let lease = Lease::grant(worker, LeaseToken(state.next_number()?), now, length)?;
            let stored = state.checkpoint(&run)?;
            stored.lease = Some(lease);
            Ok(stored.clone())
        };
        free.into_iter().map(claim).collect()
    }

    fn renew_claim(&self, run: &RunId, token: LeaseToken, now: Time, length: Duration) -> Result<Lease> {
        lease::end(now, length)?;
        let mut state = self.change();
        let stored = state.checkpoint(run)?;
        let held = lease::held(Entity::Checkpoint, run.as_str(), stored.lease.as_ref(), token, now)?;
        let lease = held.renewed(now, length)?;
        stored.lease = Some(lease.clone());
        Ok(lease)
    }

    fn release_claim(&self, run: &RunId, token: LeaseToken, now: Time) -> Result<()> {
        check_times(&[("now", Some(now))])?;
        let mut state = self.change();
        let stored = state.checkpoint(run)?;
        lease::held(Entity::Checkpoint, run.as_str(), stored.lease.as_ref(), token, now)?;
        stored.lease = None;
        Ok(())
    }
}
