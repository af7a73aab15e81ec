//! The record stream: everything that a store holds, as one sequence that any engine can write and read.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::budget::{ChargeKey, Charged};
use crate::{
    Account, Agent, Checkpoint, Definition, Error, Event, Lease, LeaseToken, Ledger, Result, Revision, Run,
    Skill, Version, time,
};

/// One record of an export.
///
/// The order is fixed, so that an import can check references as it goes and two exports of the same data are the
/// same: the counter; skills by id, each followed by its versions by seq; agents likewise; accounts by key, each
/// followed by its charges by key; runs by id, each followed by its events by seq; checkpoints by run.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "type", content = "record", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Record {
    /// The store-wide counter.
    Counter(Counter),
    /// A skill.
    Skill(DefinitionRecord<Skill>),
    /// A version of the skill before it.
    SkillVersion(Version<Skill>),
    /// An agent.
    Agent(DefinitionRecord<Agent>),
    /// A version of the agent before it.
    AgentVersion(Version<Agent>),
    /// An account.
    Account(AccountRecord),
    /// A keyed charge of the account before it.
    Charge(ChargeRecord),
    /// A run.
    Run(Run),
    /// An event of the run before it.
    Event(Event),
    /// A checkpoint.
    Checkpoint(CheckpointRecord),
}

/// The counter that revisions and lease tokens come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counter {
    /// The last number that it gave.
    pub last: u64,
}

/// A definition with what the store keeps beside it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(bound(deserialize = "D: Definition"))]
pub struct DefinitionRecord<D> {
    /// The document, with its run state.
    pub doc: Arc<D>,
    /// Its revision.
    pub revision: Revision,
    /// The seq of the last version that was appended, whether or not it was pruned since.
    pub last_seq: u64,
}

/// An account with its whole state.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AccountRecord {
    /// The account.
    pub account: Account,
    /// Its state.
    pub ledger: Ledger,
}

/// A keyed charge.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChargeRecord {
    /// The account that was charged.
    pub account: Account,
    /// The key.
    pub key: ChargeKey,
    /// What was charged, and until when that is remembered.
    #[serde(flatten)]
    pub charged: Charged,
}

/// A checkpoint with the claim on it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CheckpointRecord {
    /// The checkpoint.
    pub checkpoint: Arc<Checkpoint>,
    /// Who has claimed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
}

impl Record {
    /// The name of its type, as in its JSON.
    pub fn type_name(&self) -> &'static str {
        match self {
            Record::Counter(_) => "counter",
            Record::Skill(_) => "skill",
            Record::SkillVersion(_) => "skill_version",
            Record::Agent(_) => "agent",
            Record::AgentVersion(_) => "agent_version",
            Record::Account(_) => "account",
            Record::Charge(_) => "charge",
            Record::Run(_) => "run",
            Record::Event(_) => "event",
            Record::Checkpoint(_) => "checkpoint",
        }
    }
}

/// What an import stored.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct ImportReport {
    /// How many records of each type.
    pub records: BTreeMap<String, u64>,
}

impl ImportReport {
    /// How many records in all.
    pub fn total(&self) -> u64 {
        self.records.values().sum()
    }
}

/// Checks a stream of records as it passes: each record by itself, the order, and every reference. What remains for
/// an engine is to insert them, and to refuse names, webhooks and version ids that are taken.
#[derive(Debug, Default)]
pub(crate) struct ImportCheck {
    report: ImportReport,
    counter: Option<u64>,
    position: Option<(u8, Vec<String>)>,
    last_seq: u64,
    seq: u64,
}

impl ImportCheck {
    /// Checks the next record.
    ///
    /// # Errors
    /// `InvalidInput` naming the record by its number in the stream.
    pub(crate) fn check(&mut self, record: &Record) -> Result<()> {
        let number = self.report.total() + 1;
        self.admit(record).map_err(|error| match error {
            Error::InvalidInput { field, reason } => {
                Error::invalid(format!("record {number} ({}): {field}", record.type_name()), reason)
            }
            other => other,
        })?;
        *self.report.records.entry(record.type_name().to_owned()).or_default() += 1;
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<ImportReport> {
        match self.counter {
            Some(_) => Ok(self.report),
            None => Err(Error::invalid("records", "the stream has no counter: it is not a whole export")),
        }
    }

    fn admit(&mut self, record: &Record) -> Result<()> {
        if self.counter.is_none() && !matches!(record, Record::Counter(_)) {
            return Err(Error::invalid("order", "the counter comes first"));
        }
        match record {
            Record::Counter(counter) => {
                fits("last", counter.last)?;
                if self.counter.replace(counter.last).is_some() {
                    return Err(Error::invalid("order", "a second counter"));
                }
                Ok(())
            }
            Record::Skill(skill) => self.definition(1, skill),
            Record::SkillVersion(version) => self.version(1, version),
            Record::Agent(agent) => self.definition(2, agent),
            Record::AgentVersion(version) => self.version(2, version),
            Record::Account(AccountRecord { account, ledger }) => {
                self.parent(3, key(account))?;
                ledger.validate(&account.meter.window)
            }
            Record::Charge(charge) => self.child(3, key(&charge.account), vec![charge.key.as_text()]),
            Record::Run(run) => {
                self.parent(4, vec![run.id.to_string()])?;
                run.start.validate()?;
                let status =
                    run.finish.as_ref().map_or(crate::RunStatus::Running, |finish| finish.outcome.into());
                if run.status != status {
                    return Err(Error::invalid(
                        "status",
                        format!("{} goes with the finish, not {}", status, run.status),
                    ));
                }
                run.finish.as_ref().map_or(Ok(()), |finish| finish.validate())
            }
            Record::Event(event) => {
                event.content.validate()?;
                if event.seq != self.seq + 1 {
                    return Err(Error::invalid("seq", format!("{} after {}", event.seq, self.seq)));
                }
                let at = format!("{:020}", event.seq);
                self.child(4, vec![event.run.to_string()], vec![at])?;
                self.seq = event.seq;
                Ok(())
            }
            Record::Checkpoint(CheckpointRecord { checkpoint, lease }) => {
                self.parent(5, vec![checkpoint.run.to_string()])?;
                checkpoint.validate()?;
                self.lease(lease.as_ref())
            }
        }
    }

    fn definition<D: Definition>(&mut self, rank: u8, record: &DefinitionRecord<D>) -> Result<()> {
        self.parent(rank, vec![record.doc.id().as_ref().to_owned()])?;
        record.doc.validate()?;
        self.lease(record.doc.schedule().and_then(|schedule| schedule.lease.as_ref()))?;
        self.counted("revision", record.revision.0)?;
        fits("last_seq", record.last_seq)?;
        self.last_seq = record.last_seq;
        Ok(())
    }

    fn version<D: Definition>(&mut self, rank: u8, version: &Version<D>) -> Result<()> {
        version.content.validate()?;
        if version.seq == 0 || version.seq > self.last_seq {
            return Err(Error::invalid(
                "seq",
                format!("{} is not between 1 and last_seq {}", version.seq, self.last_seq),
            ));
        }
        let at = format!("{:020}", version.seq);
        self.child(rank, vec![version.snapshot.id().as_ref().to_owned()], vec![at])
    }

    fn lease(&self, lease: Option<&Lease>) -> Result<()> {
        let Some(Lease { until, token: LeaseToken(token), .. }) = lease else { return Ok(()) };
        time::nanos("lease.until", *until)?;
        self.counted("lease.token", *token)
    }

    /// Checks that the counter has given this number.
    fn counted(&self, field: &'static str, number: u64) -> Result<()> {
        let last = self.counter.unwrap_or_default();
        if (1..=last).contains(&number) {
            return Ok(());
        }
        Err(Error::invalid(field, format!("{number} is not between 1 and the counter {last}")))
    }

    /// A record that others may follow: keys rise within a rank, and ranks rise.
    fn parent(&mut self, rank: u8, key: Vec<String>) -> Result<()> {
        let position = (rank, key);
        if self.position.as_ref().is_some_and(|(last_rank, last)| {
            let parent = &last[..last.len().min(position.1.len())];
            (*last_rank, parent) >= (position.0, position.1.as_slice())
        }) {
            return Err(Error::invalid("order", format!("{:?} is out of order or there twice", position.1)));
        }
        self.position = Some(position);
        (self.last_seq, self.seq) = (0, 0);
        Ok(())
    }

    /// A record that belongs to the parent before it, in rising order of `own`.
    fn child(&mut self, rank: u8, parent: Vec<String>, own: Vec<String>) -> Result<()> {
        let belongs = self.position.as_ref().is_some_and(|(last_rank, last)| {
            *last_rank == rank && last.starts_with(&parent) && last[parent.len()..] < own[..]
        });
        if !belongs {
            return Err(Error::invalid(
                "order",
                format!("{own:?} does not follow its parent {parent:?} in order"),
            ));
        }
        self.position = Some((rank, [parent, own].concat()));
        Ok(())
    }
}

fn key(account: &Account) -> Vec<String> {
    let (caller, meter, window) = account.key();
    vec![caller, meter, window]
}

fn fits(field: &'static str, number: u64) -> Result<()> {
    i64::try_from(number)
        .map(drop)
        .map_err(|_| Error::invalid(field, format!("{number} is more than {}", i64::MAX)))
}
