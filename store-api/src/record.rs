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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        AgentId, Amount, IdempotencyKey, LeaseToken, MeterName, Name, NewEvent, NewRun, NewVersion,
        PrincipalId, RunId, Schedule, SkillId, VersionId, Window, WorkerId,
    };

    fn skill(id: &str, revision: u64, last_seq: u64) -> Record {
        let owner = PrincipalId::new("o").unwrap();
        let doc = Skill::new(SkillId::new(id).unwrap(), owner, Name::new(id).unwrap());
        Record::Skill(DefinitionRecord { doc: Arc::new(doc), revision: Revision(revision), last_seq })
    }

    fn version(of: &str, seq: u64) -> Record {
        let owner = PrincipalId::new("o").unwrap();
        let doc = Skill::new(SkillId::new(of).unwrap(), owner.clone(), Name::new(of).unwrap());
        let id = VersionId::new(format!("{of}-{seq}")).unwrap();
        let content = NewVersion::new(id, doc, owner, time::from_nanos(0));
        Record::SkillVersion(Version { seq, content })
    }

    fn agent(id: &str, token: u64) -> Record {
        let mut doc =
            Agent::new(AgentId::new(id).unwrap(), PrincipalId::new("o").unwrap(), Name::new(id).unwrap());
        let worker = WorkerId::new("w").unwrap();
        let lease = Lease { worker, until: time::from_nanos(0), token: LeaseToken(token) };
        doc.schedule = Some(Schedule { lease: Some(lease), ..Schedule::new("@daily", "", None) });
        Record::Agent(DefinitionRecord { doc: Arc::new(doc), revision: Revision(1), last_seq: 0 })
    }

    fn account(caller: &str) -> Account {
        Account::new(PrincipalId::new(caller).unwrap(), MeterName::new("usd").unwrap(), Window::default())
    }

    fn charge(caller: &str, key: &str) -> Record {
        let key = ChargeKey::Key(IdempotencyKey::new(key).unwrap());
        let charged = Charged { amount: Amount::ZERO, expires_at: 1 };
        Record::Charge(ChargeRecord { account: account(caller), key, charged })
    }

    fn run(id: &str) -> Record {
        let caller = PrincipalId::new("c").unwrap();
        Record::Run(Run::started(NewRun::new(RunId::new(id).unwrap(), caller, time::from_nanos(0))))
    }

    fn event(run: &str, seq: u64) -> Record {
        let content =
            NewEvent { kind: "k".into(), at: time::from_nanos(0), payload: serde_json::Value::Null };
        Record::Event(Event { run: RunId::new(run).unwrap(), seq, content })
    }

    fn whole() -> Vec<Record> {
        vec![
            Record::Counter(Counter { last: 9 }),
            skill("a", 1, 3),
            version("a", 1),
            version("a", 3),
            skill("b", 2, 0),
            agent("a", 9),
            Record::Account(AccountRecord { account: account("c"), ledger: Ledger::default() }),
            charge("c", "k1"),
            charge("c", "k2"),
            run("r1"),
            event("r1", 1),
            event("r1", 2),
            run("r2"),
            event("r2", 1),
        ]
    }

    fn check(records: &[Record]) -> Result<ImportReport> {
        let mut check = ImportCheck::default();
        records.iter().try_for_each(|record| check.check(record))?;
        check.finish()
    }

    #[test]
    fn a_whole_stream_passes_and_reads_back_from_json() {
        assert_eq!(check(&whole()).unwrap().total(), 14);
        for record in whole() {
            let text = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record, "{text}");
        }
    }

    #[test]
    fn any_two_records_swapped_or_one_doubled_are_refused() {
        for at in 0..whole().len() {
            let mut doubled = whole();
            doubled.insert(at, doubled[at].clone());
            assert!(check(&doubled).is_err(), "doubled {at}");
            for other in at + 1..whole().len() {
                let mut swapped = whole();
                swapped.swap(at, other);
                assert!(check(&swapped).is_err(), "swapped {at} and {other}");
            }
        }
    }

    #[test]
    fn what_no_store_could_hold_is_refused_with_its_place() {
        let with = |at: usize, record: Record| {
            let mut records = whole();
            records[at] = record;
            check(&records).unwrap_err().to_string()
        };
        assert!(
            with(1, skill("a", 10, 3)).starts_with("invalid record 2 (skill): revision: 10"),
            "counter is 9"
        );
        assert!(with(1, skill("a", 0, 3)).contains("revision: 0 is not between"));
        assert!(with(4, skill("b", 2, u64::MAX)).contains("last_seq: 18446744073709551615 is more than"));
        assert!(with(3, version("a", 4)).starts_with("invalid record 4 (skill_version): seq: 4"));
        assert!(with(3, version("b", 3)).contains("does not follow its parent"));
        assert!(with(5, agent("a", 10)).contains("lease.token: 10"));
        assert!(with(10, event("r1", 2)).contains("seq: 2 after 0"));
        assert!(check(&[]).unwrap_err().to_string().contains("no counter"));
        assert!(check(&whole()[1..]).unwrap_err().to_string().contains("counter comes first"));
        let mut ended = whole();
        let Record::Run(run) = &mut ended[9] else { panic!("a run") };
        run.status = crate::RunStatus::Failed;
        assert!(check(&ended).unwrap_err().to_string().contains("status"));
    }
}
