//! What happens in a run.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::json::Weigh;
use crate::{Error, Result, RunId, time};

/// Something that happened in a run, to record.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct NewEvent {
    /// What kind of thing, in the host's own words.
    pub kind: String,
    /// When, by the host's clock. The order of events does not depend on it.
    pub at: DateTime<Utc>,
    /// What it was.
    #[serde(default)]
    pub payload: Value,
}

impl NewEvent {
    /// Checks sizes, depth and times.
    ///
    /// # Errors
    /// `InvalidInput` naming the field.
    pub fn validate(&self) -> Result<()> {
        time::nanos("at", self.at)?;
        let mut weigh = Weigh::new();
        if self.kind.is_empty() || self.kind.len() > crate::MAX_ID_BYTES {
            return Err(Error::invalid("kind", format!("is not 1 to {} bytes long", crate::MAX_ID_BYTES)));
        }
        weigh.text("kind", &self.kind)?;
        weigh.value("payload", &self.payload)
    }
}

/// A recorded event.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(from = "FlatEvent")]
pub struct Event {
    /// The run that it happened in.
    pub run: RunId,
    /// Its number in the run: 1, 2, 3 … (law AUD-1).
    pub seq: u64,
    /// What was recorded.
    #[serde(flatten)]
    pub content: NewEvent,
}

/// An event as it stands in JSON: what is read into a flattened part, serde reads twice.
#[derive(serde::Deserialize)]
struct FlatEvent {
    run: RunId,
    seq: u64,
    kind: String,
    at: DateTime<Utc>,
    #[serde(default)]
    payload: Value,
}

impl From<FlatEvent> for Event {
    fn from(FlatEvent { run, seq, kind, at, payload }: FlatEvent) -> Event {
        Event { run, seq, content: NewEvent { kind, at, payload } }
    }
}

impl std::ops::Deref for Event {
    type Target = NewEvent;
    fn deref(&self) -> &NewEvent {
        &self.content
    }
}
