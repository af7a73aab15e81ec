//! Moving everything from one store to another, and proving that it arrived.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sha2::{Digest as _, Sha256};

use crate::{Error, ImportReport, Record, Result, Store, json};

/// How many records may be on their way between two stores: enough to keep both busy, little memory.
const IN_FLIGHT: usize = 256;

/// The seams of a store, as digests name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seam {
    /// The store-wide counter.
    Counter,
    /// Skills and their versions.
    Skills,
    /// Agents and their versions.
    Agents,
    /// Accounts and their keyed charges.
    Budgets,
    /// Runs and their events.
    Audit,
    /// Checkpoints and the claims on them.
    Checkpoints,
}

impl Seam {
    /// The seam that a record belongs to.
    pub fn of(record: &Record) -> Seam {
        match record {
            Record::Counter(_) => Seam::Counter,
            Record::Skill(_) | Record::SkillVersion(_) => Seam::Skills,
            Record::Agent(_) | Record::AgentVersion(_) => Seam::Agents,
            Record::Account(_) | Record::Charge(_) => Seam::Budgets,
            Record::Run(_) | Record::Event(_) => Seam::Audit,
            Record::Checkpoint(_) => Seam::Checkpoints,
        }
    }
}

impl fmt::Display for Seam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Seam::Counter => "counter",
            Seam::Skills => "skills",
            Seam::Agents => "agents",
            Seam::Budgets => "budgets",
            Seam::Audit => "audit",
            Seam::Checkpoints => "checkpoints",
        })
    }
}

/// How many records a seam holds, and a digest over all of them in order.
///
/// Two stores hold the same, to the last number and unknown field, exactly when their digests are equal.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SeamDigest {
    /// How many records.
    pub records: u64,
    /// SHA-256, in hex, over each record's JSON and a line feed.
    pub sha256: String,
}

/// The digests of all seams that hold anything.
pub type Digests = BTreeMap<Seam, SeamDigest>;

/// Takes digests of a stream of records as it passes.
#[derive(Debug, Default)]
pub struct Digesting {
    seams: BTreeMap<Seam, (u64, Sha256)>,
}

impl Digesting {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next record in.
    ///
    /// # Errors
    /// `Backend` when a record cannot be written as JSON, which no stored one causes.
    pub fn add(&mut self, record: &Record) -> Result<()> {
        let (records, hash) = self.seams.entry(Seam::of(record)).or_default();
        *records += 1;
        hash.update(json::encode(record)?);
        hash.update(b"\n");
        Ok(())
    }

    /// How many records were taken in.
    pub fn records(&self) -> u64 {
        self.seams.values().map(|(records, _)| records).sum()
    }

    /// The digests of all that was taken in.
    pub fn finish(self) -> Digests {
        let hex = |hash: Sha256| hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        self.seams
            .into_iter()
            .map(|(seam, (records, hash))| (seam, SeamDigest { records, sha256: hex(hash) }))
            .collect()
    }
}

/// The digests of everything that a store holds, from one snapshot.
///
/// # Errors
/// As [`Store::export`].
pub fn digests(store: &dyn Store) -> Result<Digests> {
    let mut digesting = Digesting::new();
    store.export(&mut |record| digesting.add(&record))?;
    Ok(digesting.finish())
}

/// What a copy did.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Copied {
    /// What arrived.
    pub report: ImportReport,
    /// The digests of what was sent: compare them with [`digests`] of the target.
    pub sent: Digests,
}

/// Copies one consistent snapshot of `from` into `to`, which must be empty, all or nothing, in bounded memory.
/// `progress` is told after each record how many have passed.
///
/// # Errors
/// As [`Store::export`] and [`Store::import`]; the target is as it was.
pub fn copy(from: &dyn Store, to: &dyn Store, progress: &mut dyn FnMut(u64)) -> Result<Copied> {
    let (sender, receiver) = sync_channel(IN_FLIGHT);
    std::thread::scope(|scope| {
        scope.spawn(move || send(from, &sender));
        let mut arriving = Arriving { receiver, digesting: Digesting::new(), ended: false, progress };
        let report = to.import(&mut arriving)?;
        Ok(Copied { report, sent: arriving.digesting.finish() })
    })
}

/// What passes between the exporting and the importing thread.
enum Message {
    Record(Box<Record>),
    /// The export is over; without this word, the stream was cut off.
    End(Result<()>),
}

fn send(from: &dyn Store, sender: &SyncSender<Message>) {
    let result = from.export(&mut |record| {
        let hung_up = |_| Error::Unsupported { operation: "sending to an import that has ended".into() };
        sender.send(Message::Record(Box::new(record))).map_err(hung_up)
    });
    // When nobody listens any more, the import failed and has its own error to report.
    if let Err(unheard) = sender.send(Message::End(result)) {
        drop(unheard);
    }
}

/// The receiving end, as the iterator that an import reads.
struct Arriving<'a> {
    receiver: Receiver<Message>,
    digesting: Digesting,
    ended: bool,
    progress: &'a mut dyn FnMut(u64),
}

impl Iterator for Arriving<'_> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Result<Record>> {
        if self.ended {
            return None;
        }
        match self.receiver.recv() {
            Ok(Message::Record(record)) => {
                if let Err(error) = self.digesting.add(&record) {
                    self.ended = true;
                    return Some(Err(error));
                }
                (self.progress)(self.digesting.records());
                Some(Ok(*record))
            }
            Ok(Message::End(result)) => {
                self.ended = true;
                result.err().map(Err)
            }
            Err(_) => {
                self.ended = true;
                Some(Err(Error::Unsupported { operation: "importing a stream that was cut off".into() }))
            }
        }
    }
}
