//! Checkpoints: where a run stands, so that a crash does not cost the whole of it.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::json::{self, Extra, Weigh};
use crate::{Entity, Error, Lease, LeaseToken, Page, PageRequest, Result, RunId, WorkerId, time};

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Checkpoint {
    /// The run that it is of. It need not be in the audit.
    pub run: RunId,
    /// What a host needs to know before it resumes (which skill, which caller).
    #[serde(default)]
    pub meta: Extra,
    /// How far the run is: never goes back.
    pub iteration: u64,
    /// What the run needs to go on.
    #[serde(default)]
    pub state: Value,
    /// When it was saved, by the host's clock.
    pub updated_at: DateTime<Utc>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Checkpoint {
    pub(crate) const FIELDS: &'static [&'static str] =
        &["run", "meta", "iteration", "state", "updated_at", "lease"];

    /// A checkpoint with the least that it needs.
    pub fn new(run: RunId, iteration: u64, state: Value, updated_at: DateTime<Utc>) -> Self {
        Checkpoint { run, meta: Extra::new(), iteration, state, updated_at, extra: Extra::new() }
    }

    /// Checks sizes, depth and times, and that the iteration fits an `i64`.
    ///
    /// # Errors
    /// `InvalidInput` naming the field.
    pub fn validate(&self) -> Result<()> {
        self.validate_numbers()?;
        let mut weigh = Weigh::new();
        weigh.map("meta", &self.meta)?;
        weigh.value("state", &self.state)?;
        weigh.extra("extra", &self.extra, Self::FIELDS)
    }

    fn validate_numbers(&self) -> Result<()> {
        time::nanos("updated_at", self.updated_at)?;
        if i64::try_from(self.iteration).is_err() {
            return Err(Error::invalid("iteration", format!("{} is more than {}", self.iteration, i64::MAX)));
        }
        Ok(())
    }

    /// For engines: the JSON text, as UTF-8, of a checkpoint that is validated on the way.
    ///
    /// # Errors
    /// As [`Checkpoint::validate`].
    pub fn validated_document(&self) -> Result<Vec<u8>> {
        self.validate_numbers()?;
        if self.extra.is_empty()
            && let Some(document) = json::encode_if_plain(self)?
        {
            return Ok(document);
        }
        self.validate()?;
        json::encode(self).map(String::into_bytes)
    }

    /// Checks that this checkpoint may replace one of iteration `stored`: it is at least as far (law CKP-1).
    ///
    /// # Errors
    /// `Conflict` when it is staler.
    pub fn may_replace(&self, stored: u64) -> Result<()> {
        if self.iteration >= stored {
            return Ok(());
        }
        let reason = format!("iteration {stored} is stored, {} is older", self.iteration);
        Err(Error::conflict(Entity::Checkpoint, self.run.as_str(), reason))
    }
}

/// A checkpoint that was saved and not deleted, and who resumes it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Interrupted {
    /// Where the run stands.
    #[serde(flatten)]
    pub checkpoint: Arc<Checkpoint>,
    /// Who has claimed it, if anybody has. It may have lapsed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
}

/// Checkpoints of runs under way.
///
/// Every checkpoint that is there counts as interrupted: a host deletes it when the run is finished, and claims it
/// while it works on it.
///
/// Object-safe; a store and a transaction on it both give one.
pub trait CheckpointStore {
    /// Saves where a run stands. A claim on it stays as it is.
    ///
    /// # Guarantees
    /// CKP-1, DOC-1.
    /// # Errors
    /// `Conflict` when the stored iteration is higher; `InvalidInput` naming the field.
    fn save(&self, checkpoint: &Checkpoint) -> Result<()>;

    /// The checkpoint of a run.
    ///
    /// # Guarantees
    /// CKP-1, DOC-1, ROT-1.
    /// # Errors
    /// None of its own.
    fn load(&self, run: &RunId) -> Result<Option<Arc<Checkpoint>>>;

    /// Removes the checkpoint of a run that is finished, with the claim on it.
    ///
    /// # Guarantees
    /// CKP-1.
    /// # Errors
    /// `NotFound` when there is none.
    fn delete(&self, run: &RunId) -> Result<()>;

    /// All checkpoints, claimed or not.
    ///
    /// # Order
    /// By run id.
    /// # Guarantees
    /// CKP-1, PAGE-1.
    /// # Errors
    /// `InvalidInput` for a cursor of another list.
    fn interrupted(&self, page: &PageRequest) -> Result<Page<Interrupted>>;

    /// Claims one checkpoint for `lease` from `now`: what a host does with the run that it has just started.
    ///
    /// # Guarantees
    /// CKP-1 (two hosts never hold one run).
    /// # Errors
    /// `NotFound`; `Conflict` when somebody holds it at `now`; `InvalidInput` for a bad lease or time.
    fn claim(&self, run: &RunId, now: DateTime<Utc>, worker: &WorkerId, lease: Duration) -> Result<Lease>;

    /// Claims up to `max` checkpoints that nobody holds, for `lease` from `now`; each comes with its lease.
    ///
    /// # Order
    /// By run id.
    /// # Guarantees
    /// CKP-1 (two hosts never hold one run).
    /// # Errors
    /// `InvalidInput` for a bad lease or time, or a `max` of zero or above [`MAX_PAGE`](crate::page::MAX_PAGE).
    fn claim_interrupted(
        &self,
        now: DateTime<Utc>,
        worker: &WorkerId,
        lease: Duration,
        max: usize,
    ) -> Result<Vec<Interrupted>>;

    /// Holds a claim for `lease` from `now`, never shorter than before.
    ///
    /// # Guarantees
    /// CKP-1.
    /// # Errors
    /// `LeaseLost`; `NotFound` when there is no such checkpoint; `InvalidInput`.
    fn renew_claim(
        &self,
        run: &RunId,
        token: LeaseToken,
        now: DateTime<Utc>,
        lease: Duration,
    ) -> Result<Lease>;

    /// Gives a claim back.
    ///
    /// # Guarantees
    /// CKP-1.
    /// # Errors
    /// `LeaseLost`; `NotFound` when there is no such checkpoint.
    fn release_claim(&self, run: &RunId, token: LeaseToken, now: DateTime<Utc>) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checkpoint(state: Value) -> Checkpoint {
        let meta = Extra::from_iter([("caller".to_owned(), json!("\u{1}\n\"ä"))]);
        Checkpoint { meta, ..Checkpoint::new(RunId::new("r").unwrap(), 7, state, time::from_nanos(0)) }
    }

    fn nested(depth: usize) -> Value {
        (0..depth).fold(json!(1), |inner, level| match level % 2 {
            0 => Value::Array(vec![inner]),
            _ => Value::Object(Extra::from_iter([("in".to_owned(), inner)])),
        })
    }

    /// A document made while it is validated is the one that would have been made afterwards, and what is refused is
    /// refused in the same words.
    #[test]
    fn to_validate_on_the_way_is_to_validate() {
        let with = |change: fn(&mut Checkpoint)| {
            let mut changed = checkpoint(json!({ "plan": [1, "two", null] }));
            change(&mut changed);
            changed
        };
        let numbers = |count| checkpoint(Value::Array(vec![json!(1); count]));
        let refused = [
            checkpoint(json!({ "say": ["\u{0}"] })),
            checkpoint(json!({ "\u{0}": 1 })),
            checkpoint(nested(crate::json::MAX_JSON_DEPTH + 1)),
            checkpoint(nested(10_000)),
            numbers(2_100_000),
            with(|c| c.meta["caller"] = json!("a\u{0}")),
            with(|c| c.extra = Extra::from_iter([("more".to_owned(), json!("\u{0}"))])),
            with(|c| c.extra = Extra::from_iter([("iteration".to_owned(), json!(1))])),
            with(|c| c.iteration = u64::MAX),
            with(|c| c.updated_at = DateTime::<Utc>::MAX_UTC),
        ];
        for checkpoint in refused {
            let refusal = checkpoint.validate().unwrap_err();
            let on_the_way = checkpoint.validated_document().unwrap_err();
            assert_eq!(on_the_way.to_string(), refusal.to_string());
            std::mem::forget(checkpoint); // to drop what is nested deep would need as deep a stack
        }
        let deep = (90..=crate::json::MAX_JSON_DEPTH).map(|depth| checkpoint(nested(depth)));
        let others = [
            checkpoint(json!({ "say": "\\u0000 \u{7f}\u{1f}/\u{2028}" })),
            checkpoint("x".repeat(5_000_000).into()),
            numbers(2_000_000),
            with(|c| c.extra = Extra::from_iter([("more".to_owned(), json!({ "a": [1] }))])),
        ];
        for checkpoint in deep.chain(others) {
            checkpoint.validate().unwrap();
            let document = String::from_utf8(checkpoint.validated_document().unwrap()).unwrap();
            assert!(document == json::encode(&checkpoint).unwrap());
        }
    }
}
