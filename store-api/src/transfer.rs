//! Moving everything from one store to another, and proving that it arrived.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sha2::{Digest as _, Sha256};

use crate::{Error, ImportReport, Record, Result, Store, json};

/// How many bytes of JSON are gathered before they are handed over, unless the last record makes it more.
const BATCH_BYTES: usize = 256 * 1024;

/// How many batches may lie between two stores: enough to keep both busy, little memory.
const BATCHES: usize = 2;

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

    /// Takes the next record in, and gives its JSON.
    ///
    /// # Errors
    /// `Backend` when a record cannot be written as JSON, which no stored one causes.
    pub fn add(&mut self, record: &Record) -> Result<String> {
        let text = json::encode(record)?;
        let (records, hash) = self.seams.entry(Seam::of(record)).or_default();
        *records += 1;
        hash.update(&text);
        hash.update(b"\n");
        Ok(text)
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

/// How many records each seam holds that holds any.
pub type Counts = BTreeMap<Seam, u64>;

/// Is told how many records have passed, after each one.
pub type Progress<'a> = &'a mut (dyn FnMut(u64) + Send);

/// Counts the records of a store, in one snapshot.
///
/// # Errors
/// As [`Store::export`].
pub fn counts(store: &dyn Store, progress: Progress<'_>) -> Result<Counts> {
    let mut counts = Counts::new();
    let mut passed = 0;
    store.export(&mut |record| {
        *counts.entry(Seam::of(&record)).or_default() += 1;
        passed += 1;
        progress(passed);
        Ok(())
    })?;
    Ok(counts)
}

/// The digests of everything that a store holds, from one snapshot.
///
/// # Errors
/// As [`Store::export`].
pub fn digests(store: &dyn Store, progress: Progress<'_>) -> Result<Digests> {
    let mut digesting = Digesting::new();
    store.export(&mut |record| {
        digesting.add(&record)?;
        progress(digesting.records());
        Ok(())
    })?;
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

/// Copies one consistent snapshot of `from` into `to`, which must be empty, all or nothing, in bounded memory: of
/// the records on their way, about a megabyte is kept beside the largest ones.
///
/// # Errors
/// As [`Store::export`] and [`Store::import`]; the target is as it was.
pub fn copy(from: &dyn Store, to: &dyn Store, progress: Progress<'_>) -> Result<Copied> {
    let (sender, receiver) = sync_channel(BATCHES);
    std::thread::scope(|scope| {
        scope.spawn(move || Sending::new(sender).run(from));
        let mut arriving =
            Arriving { receiver, batch: Vec::new().into_iter(), passed: 0, end: None, progress };
        let report = to.import(&mut arriving)?;
        let sent = arriving.end.ok_or_else(cut_off)?;
        Ok(Copied { report, sent })
    })
}

/// What passes between the exporting and the importing thread.
enum Message {
    Records(Vec<Record>),
    /// The export is over; without this word, the stream was cut off.
    End(Result<Digests>),
}

/// The sending end.
struct Sending {
    batch: Vec<Record>,
    bytes: usize,
    digesting: Digesting,
    sender: SyncSender<Message>,
}

impl Sending {
    fn new(sender: SyncSender<Message>) -> Self {
        Sending { batch: Vec::new(), bytes: 0, digesting: Digesting::new(), sender }
    }

    fn run(mut self, from: &dyn Store) {
        let exported = from.export(&mut |record| self.take(record)).and_then(|()| self.hand_over());
        let end = exported.map(|()| self.digesting.finish());
        // When nobody listens any more, the import failed and has its own error to report.
        drop(self.sender.send(Message::End(end)));
    }

    fn take(&mut self, record: Record) -> Result<()> {
        self.bytes += self.digesting.add(&record)?.len();
        self.batch.push(record);
        if self.bytes >= BATCH_BYTES { self.hand_over() } else { Ok(()) }
    }

    fn hand_over(&mut self) -> Result<()> {
        self.bytes = 0;
        let hung_up = |_| Error::Unsupported { operation: "sending to an import that has ended".into() };
        self.sender.send(Message::Records(std::mem::take(&mut self.batch))).map_err(hung_up)
    }
}

/// The receiving end, as the iterator that an import reads.
struct Arriving<'a> {
    receiver: Receiver<Message>,
    batch: std::vec::IntoIter<Record>,
    passed: u64,
    /// What was sent, once all of it has arrived.
    end: Option<Digests>,
    progress: Progress<'a>,
}

impl Iterator for Arriving<'_> {
    type Item = Result<Record>;

    /// An import stops at the first error, so nothing has to be remembered of one.
    fn next(&mut self) -> Option<Result<Record>> {
        loop {
            if let Some(record) = self.batch.next() {
                self.passed += 1;
                (self.progress)(self.passed);
                return Some(Ok(record));
            }
            if self.end.is_some() {
                return None;
            }
            match self.receiver.recv() {
                Ok(Message::Records(batch)) => self.batch = batch.into_iter(),
                Ok(Message::End(Ok(digests))) => self.end = Some(digests),
                Ok(Message::End(Err(error))) => return Some(Err(error)),
                Err(_) => return Some(Err(cut_off())),
            }
        }
    }
}

fn cut_off() -> Error {
    Error::Unsupported { operation: "importing a stream that was cut off".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Counter;
    use crate::{Event, NewEvent, RunId, time};

    /// What makes the memory that a copy needs independent of how much it copies.
    #[test]
    fn records_are_handed_over_when_there_are_enough_of_them() {
        let (sender, receiver) = sync_channel(1);
        let mut sending = Sending::new(sender);
        let payload = serde_json::Value::from("x".repeat(100 * 1024));
        for seq in 1..=3 {
            assert!(receiver.try_recv().is_err(), "not before the third");
            let content = NewEvent { kind: "k".into(), at: time::from_nanos(0), payload: payload.clone() };
            sending.take(Record::Event(Event { run: RunId::new("r").unwrap(), seq, content })).unwrap();
        }
        let Ok(Message::Records(batch)) = receiver.try_recv() else { panic!("a batch") };
        assert_eq!((batch.len(), sending.batch.len(), sending.bytes), (3, 0, 0));
    }

    #[test]
    fn digests_count_and_tell_records_apart() {
        let digests = |last: &[u64]| {
            let mut digesting = Digesting::new();
            for &last in last {
                let record = Record::Counter(Counter { last });
                assert_eq!(digesting.add(&record).unwrap(), json::encode(&record).unwrap());
            }
            assert_eq!(digesting.records(), last.len() as u64);
            digesting.finish()
        };
        let found = &digests(&[1, 2])[&Seam::Counter];
        assert_eq!((found.records, found.sha256.len()), (2, 64));
        assert_ne!(*found, digests(&[2, 1])[&Seam::Counter]);
        assert!(digests(&[]).is_empty());
        assert_eq!(format!("{:>8}|{:<8}", Seam::Counter, Seam::Audit), " counter|audit   ");
    }
}
