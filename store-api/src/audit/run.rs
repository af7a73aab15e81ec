//! Runs: what is recorded when one starts and when it ends.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::json::{self, Extra, Weigh};
use crate::{AgentId, Amount, ChannelId, Entity, Error, PrincipalId, Result, RunId, SkillId, time};

/// A run to record.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct NewRun {
    /// Its id, chosen by the host.
    pub id: RunId,
    /// The run that started it. It need not be known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<RunId>,
    /// The skill that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skill: Option<SkillId>,
    /// The agent that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentId>,
    /// Who pays for it.
    pub caller: PrincipalId,
    /// The channel that it came through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelId>,
    /// When it started, by the host's clock.
    pub started_at: DateTime<Utc>,
    /// What it was given.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub input: Value,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

impl NewRun {
    /// The fields of a [`Run`] as they stand in JSON.
    pub(crate) const FIELDS: &'static [&'static str] =
        &["id", "parent", "skill", "agent", "caller", "channel", "started_at", "input", "status", "finish"];

    /// A run with the least that it needs.
    pub fn new(id: RunId, caller: PrincipalId, started_at: DateTime<Utc>) -> Self {
        NewRun {
            id,
            parent: None,
            skill: None,
            agent: None,
            caller,
            channel: None,
            started_at,
            input: Value::Null,
            extra: Extra::new(),
        }
    }

    /// Checks sizes, depth and times.
    ///
    /// # Errors
    /// `InvalidInput` naming the field.
    pub fn validate(&self) -> Result<()> {
        time::nanos("started_at", self.started_at)?;
        let mut weigh = Weigh::new();
        weigh.value("input", &self.input)?;
        weigh.extra("extra", &self.extra, Self::FIELDS)
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// It did what it should.
    Succeeded,
    /// It did not.
    Failed,
    /// Somebody stopped it.
    Cancelled,
    /// Nobody finished it; [`AuditStore::abandon_stale`](crate::AuditStore::abandon_stale) did.
    Abandoned,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the outcomes are documented in `RunOutcome`
pub enum RunStatus {
    /// Started and not finished.
    Running,
    Succeeded,
    Failed,
    Cancelled,
    Abandoned,
}

impl From<RunOutcome> for RunStatus {
    fn from(outcome: RunOutcome) -> Self {
        match outcome {
            RunOutcome::Succeeded => RunStatus::Succeeded,
            RunOutcome::Failed => RunStatus::Failed,
            RunOutcome::Cancelled => RunStatus::Cancelled,
            RunOutcome::Abandoned => RunStatus::Abandoned,
        }
    }
}

impl RunStatus {
    /// All of them.
    pub const ALL: [RunStatus; 5] = [
        RunStatus::Running,
        RunStatus::Succeeded,
        RunStatus::Failed,
        RunStatus::Cancelled,
        RunStatus::Abandoned,
    ];

    /// The status as JSON and indexes spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            RunStatus::Running => "running",
            RunStatus::Succeeded => "succeeded",
            RunStatus::Failed => "failed",
            RunStatus::Cancelled => "cancelled",
            RunStatus::Abandoned => "abandoned",
        }
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for RunStatus {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        RunStatus::ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(|| {
            let names = RunStatus::ALL.map(RunStatus::as_str).join(", ");
            Error::invalid("status", format!("{text:?} is none of {names}"))
        })
    }
}

/// Tokens of a model, in and out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Tokens {
    /// Read by the model.
    pub input: u64,
    /// Written by the model.
    pub output: u64,
}

/// How a run ended and what it used up.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Finish {
    /// How it ended.
    pub outcome: RunOutcome,
    /// When, by the host's clock.
    pub finished_at: DateTime<Utc>,
    /// What it gave.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub output: Value,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The tokens that it used.
    #[serde(default)]
    pub tokens: Tokens,
    /// What it cost.
    #[serde(default)]
    pub cost: Amount,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Finish {
    pub(crate) const FIELDS: &'static [&'static str] =
        &["outcome", "finished_at", "output", "error", "tokens", "cost"];

    /// A finish with the least that it needs.
    pub fn new(outcome: RunOutcome, finished_at: DateTime<Utc>) -> Self {
        Finish {
            outcome,
            finished_at,
            output: Value::Null,
            error: None,
            tokens: Tokens::default(),
            cost: Amount::ZERO,
            extra: Extra::new(),
        }
    }

    /// Checks sizes, depth and times.
    ///
    /// # Errors
    /// `InvalidInput` naming the field.
    pub fn validate(&self) -> Result<()> {
        time::nanos("finished_at", self.finished_at)?;
        let mut weigh = Weigh::new();
        weigh.value("output", &self.output)?;
        weigh.text("error", self.error.as_deref().unwrap_or_default())?;
        weigh.extra("extra", &self.extra, Self::FIELDS)
    }
}

/// A recorded run.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(from = "FlatRun")]
pub struct Run {
    /// Where it stands; `running` exactly while there is no `finish`.
    pub status: RunStatus,
    /// How it ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish: Option<Finish>,
    /// What was recorded when it started.
    #[serde(flatten)]
    pub start: NewRun,
}

/// A run as it stands in JSON: what is read into a flattened part, serde reads twice.
#[derive(serde::Deserialize)]
struct FlatRun {
    status: RunStatus,
    #[serde(default)]
    finish: Option<Finish>,
    id: RunId,
    #[serde(default)]
    parent: Option<RunId>,
    #[serde(default)]
    skill: Option<SkillId>,
    #[serde(default)]
    agent: Option<AgentId>,
    caller: PrincipalId,
    #[serde(default)]
    channel: Option<ChannelId>,
    started_at: DateTime<Utc>,
    #[serde(default)]
    input: Value,
    #[serde(flatten)]
    extra: Extra,
}

impl From<FlatRun> for Run {
    fn from(flat: FlatRun) -> Run {
        let FlatRun { status, finish, id, parent, skill, agent, caller, channel, started_at, input, extra } =
            flat;
        let start = NewRun { id, parent, skill, agent, caller, channel, started_at, input, extra };
        Run { status, finish, start }
    }
}

impl std::ops::Deref for Run {
    type Target = NewRun;
    fn deref(&self) -> &NewRun {
        &self.start
    }
}

/// How the document of a run begins that has not ended: with the first field of a [`Run`].
const RUNNING: &str = r#"{"status":"running","#;

impl Run {
    /// A run that has just started.
    pub fn started(start: NewRun) -> Run {
        Run { status: RunStatus::Running, finish: None, start }
    }

    /// This run, finished; or `None` when it was finished so before.
    ///
    /// # Errors
    /// `Conflict` when it was finished otherwise (law AUD-2).
    pub fn finished(&self, finish: &Finish) -> Result<Option<Run>> {
        match &self.finish {
            None => Ok(Some(Run {
                status: finish.outcome.into(),
                finish: Some(finish.clone()),
                start: self.start.clone(),
            })),
            Some(first) if first == finish => Ok(None),
            Some(first) => {
                let status = RunStatus::from(first.outcome);
                Err(Error::conflict(
                    Entity::Run,
                    self.start.id.as_str(),
                    format!("finished as {status} at {}", first.finished_at),
                ))
            }
        }
    }

    /// The document of this run, finished, made from its document `doc`: what was recorded at its start stays as it is,
    /// byte for byte, and is not read. `None` when it was finished so before.
    ///
    /// # Errors
    /// As [`Run::finished`]; `Corrupt` naming `what` when `doc` has to be read, because the run has ended or because it
    /// is spelled otherwise than here, and is none of a run.
    pub fn finished_document(
        what: impl FnOnce() -> String,
        doc: &str,
        finish: &Finish,
    ) -> Result<Option<String>> {
        let Some(start) = doc.strip_prefix(RUNNING) else {
            let run: Run = json::decode(what, doc)?;
            return run.finished(finish)?.map(|run| json::encode(&run)).transpose();
        };
        let (status, end) = (RunStatus::from(finish.outcome), json::encode(finish)?);
        Ok(Some([r#"{"status":""#, status.as_str(), r#"","finish":"#, &end, ",", start].concat()))
    }

    /// How long it took, once it has finished; zero when the clock stepped back meanwhile.
    pub fn duration(&self) -> Option<std::time::Duration> {
        let finish = self.finish.as_ref()?;
        Some((finish.finished_at - self.start.started_at).to_std().unwrap_or_default())
    }
}
