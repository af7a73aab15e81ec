//! Checkpoints in the model.

use std::sync::Arc;
use std::time::Duration;

use store_api::{Checkpoint, Entity, Interrupted, Lease, WorkerId};

use super::world::{Answer, Held, Nanos, Refusal, Time, World, check_max, held, lease_end, nanos};

#[derive(Debug, Clone)]
pub(super) struct CheckpointModel {
    pub(super) saved: Checkpoint,
    lease: Option<Held>,
}

impl CheckpointModel {
    pub(super) fn shown(&self) -> Interrupted {
        let lease = self.lease.as_ref().map(Held::shown);
        Interrupted { checkpoint: Arc::new(self.saved.clone()), lease }
    }

    fn free(&self, now: Nanos) -> bool {
        self.lease.as_ref().is_none_or(|lease| lease.over(now))
    }

    pub(super) fn edges(&self, edges: &mut Vec<Nanos>) {
        edges.extend(self.lease.iter().map(|lease| lease.until));
    }
}

fn checkpoint<'a>(world: &'a mut World, run: &str) -> Answer<&'a mut CheckpointModel> {
    world.checkpoints.get_mut(run).ok_or_else(|| Refusal::NotFound(Entity::Checkpoint, run.to_owned()))
}

pub(super) fn token(world: &World, run: &str) -> Option<u64> {
    Some(world.checkpoints.get(run)?.lease.as_ref()?.token)
}

pub(super) fn save(world: &mut World, new: &Checkpoint) -> Answer<()> {
    nanos(new.updated_at)?;
    if new.iteration > 9_223_372_036_854_775_807 {
        return Err(Refusal::InvalidInput);
    }
    let run = new.run.to_string();
    let before = world.checkpoints.get(&run);
    if before.is_some_and(|before| before.saved.iteration > new.iteration) {
        return Err(Refusal::Conflict(Entity::Checkpoint, run));
    }
    let lease = before.and_then(|before| before.lease.clone());
    world.checkpoints.insert(run, CheckpointModel { saved: new.clone(), lease });
    Ok(())
}

pub(super) fn delete(world: &mut World, run: &str) -> Answer<()> {
    checkpoint(world, run)?;
    world.checkpoints.remove(run);
    Ok(())
}

pub(super) fn claim(
    world: &mut World,
    run: &str,
    now: Time,
    worker: &WorkerId,
    length: Duration,
) -> Answer<Lease> {
    let until = lease_end(now, length)?;
    if !checkpoint(world, run)?.free(nanos(now)?) {
        return Err(Refusal::Conflict(Entity::Checkpoint, run.to_owned()));
    }
    let lease = Held { worker: worker.clone(), until, token: world.number() };
    checkpoint(world, run)?.lease = Some(lease.clone());
    Ok(lease.shown())
}

pub(super) fn claim_interrupted(
    world: &mut World,
    now: Time,
    worker: &WorkerId,
    length: Duration,
    max: usize,
) -> Answer<Vec<Interrupted>> {
    check_max(max)?;
    lease_end(now, length)?;
    let runs: Vec<String> = world.checkpoints.keys().cloned().collect();
    let mut claimed = Vec::new();
    for run in runs {
        if claimed.len() < max && checkpoint(world, &run)?.free(nanos(now)?) {
            claim(world, &run, now, worker, length)?;
            claimed.push(checkpoint(world, &run)?.shown());
        }
    }
    Ok(claimed)
}

/// The lease that `token` holds at `now`.
fn holder(world: &mut World, run: &str, token: u64, now: Time) -> Answer<Held> {
    let now = nanos(now)?;
    held(checkpoint(world, run)?.lease.as_ref(), token, now, Entity::Checkpoint, run)
}

pub(super) fn renew(world: &mut World, run: &str, token: u64, now: Time, length: Duration) -> Answer<Lease> {
    let until = lease_end(now, length)?;
    let mut lease = holder(world, run, token, now)?;
    lease.until = lease.until.max(until);
    checkpoint(world, run)?.lease = Some(lease.clone());
    Ok(lease.shown())
}

pub(super) fn release(world: &mut World, run: &str, token: u64, now: Time) -> Answer<()> {
    holder(world, run, token, now)?;
    checkpoint(world, run)?.lease = None;
    Ok(())
}
