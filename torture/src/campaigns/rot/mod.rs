//! Bit rot: one bit of a file is flipped, and then everything is read. A record is what was written, or the read says
//! Corrupt; what no read sees, `verify` finds.
//!
//! A flip in a write-ahead log ends it there: the commits behind it are gone, and what is read is the store as it was
//! before them, whole. The same comes of a flip of the one bit by which redb says which of its last two commits counts,
//! in a file that was not closed: a commit whose second phase never came looks like that too.
//!
//! Then the store is opened again, written to and closed. What the writes come to is not judged, but none may panic or
//! end the process. The flips are tried in children, so that one that does is named.

mod child;
mod questions;
mod subject;

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use redb::{ReadableDatabase, ReadableTable, TableDefinition, TableHandle};
use safe_files::with_suffix;
use serde::{Deserialize, Serialize};
use store::{Durability, ErrorKind, Store, describe};

use super::{Campaign, Plan};
use crate::engines::Engine;
use crate::place::scratch;
use crate::report::{Attempt, Broken, Line};
use child::Orders;
use questions::{Answer, export};
use subject::{COMMITS, Subject, go_on};

const NAME: &str = "rot";

pub(super) const CAMPAIGN: Campaign = Campaign {
    name: NAME,
    about: "a flipped bit is told, and never returned as data",
    run,
    child: Some(child::main),
};

/// How many flips over all configurations.
const SHORT: u64 = 4_000;
const FULL: u64 = 100_000;

/// How many of them in a large store, in which every flip takes long.
const SHORT_LARGE: u64 = 60;
const FULL_LARGE: u64 = 5_000;

/// How many bits a redb file begins with that tell what it is, which of its two commits counts, and what they are.
const HEADER_BITS: u64 = 320 * 8;

/// The byte and the bit by which it says which of them counts.
const WHICH_COMMIT: (usize, u8) = (9, 0);

fn run(plan: &Plan, give: &mut dyn FnMut(Line)) {
    let each = plan.count(SHORT, FULL).div_ceil(4);
    for engine in Engine::ALL.into_iter().filter(|engine| plan.wants(engine.name())) {
        let mut series = |what: &str, aim, count| {
            let series = Series { engine: engine.name().to_owned(), aim, seed: plan.seed, count };
            let line = Line::new(NAME, engine.name(), what);
            give(line.attempt(plan.seed, "flips", |line| flips(&series, line)));
        };
        series("closed in order", Aim::Anywhere { closed: true }, each);
        series("not closed", Aim::Anywhere { closed: false }, each);
        if engine == Engine::Redb {
            let bits = plan.count(HEADER_BITS, HEADER_BITS).min(HEADER_BITS);
            series("each bit of the header, closed in order", Aim::Header { closed: true }, bits);
            series("each bit of the header, not closed", Aim::Header { closed: false }, bits);
        }
        series("a large store, above the leaves", Aim::AboveLeaves, plan.count(SHORT_LARGE, FULL_LARGE));
        let control = Line::new(NAME, engine.name(), "read without checksums").control();
        give(control.attempt(plan.seed, "flips", |line| unchecked(engine, each.min(1_000), line)));
    }
}

/// Numbered flips in copies of one store.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Series {
    engine: String,
    aim: Aim,
    seed: u64,
    count: u64,
}

/// Which store is damaged, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Aim {
    /// A small one, anywhere: one time in four among the first bytes, where the headers are.
    Anywhere { closed: bool },
    /// A small one, in each of its first bits in order.
    Header { closed: bool },
    /// A large one, where one page leads to others.
    AboveLeaves,
}

impl Series {
    fn subject(&self) -> std::result::Result<Subject, Broken> {
        let engine = Engine::named(&self.engine).ok_or("no such engine")?;
        match self.aim {
            Aim::Anywhere { closed } | Aim::Header { closed } => Subject::small(engine, closed),
            Aim::AboveLeaves => Subject::large(engine),
        }
    }

    fn flip(&self, subject: &Subject, number: u64) -> Flip {
        let mut random = fastrand::Rng::with_seed(self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ number);
        match self.aim {
            Aim::Anywhere { .. } => {
                let file = random.usize(..subject.files.len());
                let length = subject.files.get(file).map_or(1, |(_, bytes)| bytes.len());
                let within = if random.u8(..4) == 0 { length.min(8_192) } else { length };
                Flip { file, byte: random.usize(..within), bit: random.u8(..8) }
            }
            Aim::Header { .. } => Flip { file: 0, byte: (number / 8) as usize, bit: (number % 8) as u8 },
            Aim::AboveLeaves => {
                let byte = random.choice(&subject.above_leaves).copied().unwrap_or_default();
                Flip { file: 0, byte, bit: random.u8(..8) }
            }
        }
    }
}

/// Which bit of which byte of which file is flipped.
#[derive(Debug, Clone, Copy)]
struct Flip {
    file: usize,
    byte: usize,
    bit: u8,
}

/// What came of one flip.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Found {
    fault: Option<String>,
    /// Whether the fault is a panic that nobody caught, or the end of the process.
    panicked: bool,
    noticed: bool,
    /// How many panics of the library were caught.
    caught: u64,
}

fn flips(series: &Series, line: &mut Line) -> Attempt {
    let workers = thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let found: Vec<std::result::Result<Vec<(u64, Found)>, String>> = thread::scope(|scope| {
        let work = |first: u64| {
            let orders = Orders { series: series.clone(), first, step: workers };
            orders.carry_out().map_err(|e| e.to_string())
        };
        let threads: Vec<_> = (0..workers).map(|first| scope.spawn(move || work(first))).collect();
        let ended = threads.into_iter().map(|thread| thread.join());
        ended.map(|end| end.unwrap_or_else(|_| Err("a worker of the campaign panicked".into()))).collect()
    });
    let (mut noticed, mut caught) = (0_u64, 0);
    for found in found {
        for (number, found) in found? {
            line.tried += 1;
            line.panicked += u64::from(found.panicked);
            line.wrong += u64::from(found.fault.is_some() && !found.panicked);
            noticed += u64::from(found.noticed);
            caught += found.caught;
            if let Some(fault) = found.fault {
                line.fault(|| format!("flip {number}: {fault}"));
            }
        }
    }
    line.configuration.push_str(&format!(
        "; {noticed} flips mattered and were told, {caught} panics of the library caught"
    ));
    Ok(())
}

/// Flips one bit of a fresh copy, reads everything, and writes.
fn try_flip(subject: &Subject, flip: Flip) -> std::result::Result<Found, Broken> {
    let Flip { file: chosen, byte, bit } = flip;
    let directory = scratch()?;
    let path = directory.path().join("s");
    for (file, (suffix, bytes)) in subject.files.iter().enumerate() {
        let mut bytes = bytes.clone();
        if file == chosen
            && let Some(byte) = bytes.get_mut(byte)
        {
            *byte ^= 1 << bit;
        }
        fs::write(with_suffix(&path, suffix), bytes)?;
    }
    let in_log = subject.files.get(chosen).is_some_and(|(suffix, _)| *suffix == "-wal");
    let may_be_earlier = in_log || subject.engine == Engine::Redb && (byte, bit) == WHICH_COMMIT;
    let mut found = Found::default();
    if catch_unwind(AssertUnwindSafe(|| try_out(subject, &path, may_be_earlier, &mut found))).is_err() {
        found.panicked = true;
        found.fault = Some("a call panicked".into());
    }
    if let Some(fault) = &mut found.fault {
        let suffix = subject.files.get(chosen).map_or("", |(suffix, _)| suffix);
        fault.insert_str(0, &format!("bit {bit} of byte {byte} of s{suffix}: "));
    }
    Ok(found)
}

fn try_out(subject: &Subject, path: &Path, may_be_earlier: bool, found: &mut Found) {
    if let Some(store) = open(subject, path, found) {
        read(subject, &*store, may_be_earlier, found);
    }
    // Opened again, because a store that has met damage takes no writes.
    if let Some(store) = open(subject, path, found) {
        write(&*store);
    }
}

/// Opens the store, if it opens.
fn open(subject: &Subject, path: &Path, found: &mut Found) -> Option<Arc<dyn Store>> {
    match subject.engine.open(path, Durability::Process) {
        Ok(store) => Some(store),
        Err(error) => {
            found.noticed = true;
            let told = [ErrorKind::Corrupt, ErrorKind::NotThisStore, ErrorKind::SchemaTooNew]
                .contains(&error.kind());
            if !told {
                found.fault.get_or_insert_with(|| format!("the open was refused as {}", describe(&error)));
            }
            None
        }
    }
}

/// Writes in every seam, and closes. Whether that succeeds depends on what was hit.
fn write(store: &dyn Store) {
    for commit in COMMITS..COMMITS + 4 {
        drop(go_on(store, commit));
    }
    drop(store.close());
}

fn read(subject: &Subject, store: &dyn Store, may_be_earlier: bool, found: &mut Found) {
    let mut faults = Vec::new();
    let mut corrupt = false;
    let (records, end) = export(store);
    let exported = [(None, end.map(|()| records.clone()))];
    let asked = subject.questions.iter().map(|question| (Some(question), question.ask(store)));
    // What an export gave before it broke off counts too.
    let mut answers = Vec::new();
    faults.extend(stranger(subject, 0, &records).map(|record| format!("the export gave {record}")));
    faults.extend(twice(&records).map(|record| format!("the export gave twice {record}")));
    for (number, (question, answer)) in exported.into_iter().chain(asked).enumerate() {
        let what = question.map_or("an export", |question| &question.what);
        match answer {
            Ok(answer) => {
                let known = question.is_some_and(|question| question.is_sum) || number == 0;
                if !known && let Some(record) = stranger(subject, number, &answer) {
                    faults.push(format!("{what}: gave {record}"));
                }
                if let Some(record) = twice(&answer) {
                    faults.push(format!("{what}: gave twice {record}"));
                }
                answers.push(answer);
            }
            Err(error) => {
                corrupt = true;
                answers.push(Vec::new());
                if error.kind() != ErrorKind::Corrupt {
                    faults.push(format!("{what}: failed as {}", describe(&error)));
                }
            }
        }
    }
    let verified = match store.verify() {
        Ok(verification) => !verification.is_sound(),
        Err(error) => {
            if error.kind() != ErrorKind::Corrupt {
                faults.push(format!("verify failed as {}", describe(&error)));
            }
            true
        }
    };
    found.noticed = verified;
    if !verified {
        let whole = subject.states.iter().position(|state| *state == answers);
        match whole {
            _ if corrupt => faults.push("a read found what verify did not".into()),
            None => faults.push("the answers are those of no moment, and verify finds nothing".into()),
            Some(state) if state + 1 < subject.states.len() && !may_be_earlier => {
                faults.push(format!("an earlier state is read, {state}, and verify finds nothing"));
            }
            Some(_) => {}
        }
    }
    found.fault = faults.into_iter().next();
}

/// A record in an answer that no state of the store ever had there.
fn stranger(subject: &Subject, number: usize, answer: &Answer) -> Option<String> {
    let known = subject.known.get(number)?;
    answer.iter().find(|record| !known.contains(*record)).cloned()
}

/// A record that is in an answer a second time.
fn twice(answer: &Answer) -> Option<&String> {
    let mut seen = HashSet::new();
    answer.iter().find(|record| !seen.insert(*record))
}

/// The control: documents read as the bare libraries give them, without a look at the checksum.
fn unchecked(engine: Engine, count: u64, line: &mut Line) -> Attempt {
    let subject = Subject::small(engine, true)?;
    let directory = scratch()?;
    let path = directory.path().join("s");
    let write = |bytes: &[u8]| fs::write(&path, bytes);
    let (_, whole) = subject.files.first().ok_or("the store has no file")?;
    write(whole)?;
    let loud = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let truth = catch_unwind(|| documents(engine, &path)).map_err(|_| "the bare read panicked")??;
    for number in 0..count {
        let mut random = fastrand::Rng::with_seed(line.seed ^ number);
        let mut bytes = whole.clone();
        let at = random.usize(..bytes.len());
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << random.u8(..8);
        }
        write(&bytes)?;
        line.tried += 1;
        let read = panic::catch_unwind(AssertUnwindSafe(|| documents(engine, &path)));
        if let Ok(Ok(read)) = read
            && let Some(document) = read.iter().find(|document| !truth.contains(*document))
        {
            line.wrong += 1;
            line.fault(|| format!("flip of byte {at}: {}", document.escape_ascii()));
        }
    }
    panic::set_hook(loud);
    Ok(())
}

/// Every document in the file.
fn documents(engine: Engine, path: &Path) -> std::result::Result<BTreeSet<Vec<u8>>, String> {
    match engine {
        Engine::Sqlite => sqlite_documents(path).map_err(|e| e.to_string()),
        Engine::Redb => redb_documents(path).map_err(|e| e.to_string()),
    }
}

fn sqlite_documents(path: &Path) -> rusqlite::Result<BTreeSet<Vec<u8>>> {
    let db = rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut documents = BTreeSet::new();
    for (table, column) in [
        ("definitions", "doc"),
        ("versions", "doc"),
        ("runs", "doc"),
        ("events", "payload"),
        ("checkpoints", "doc"),
    ] {
        let mut statement = db.prepare(&format!("SELECT CAST({column} AS BLOB) FROM {table}"))?;
        for document in statement.query_map([], |row| row.get::<_, Vec<u8>>(0))? {
            documents.insert(document?);
        }
    }
    Ok(documents)
}

fn redb_documents(path: &Path) -> std::result::Result<BTreeSet<Vec<u8>>, redb::Error> {
    let db = redb::Database::open(path)?;
    let tx = db.begin_read()?;
    let mut documents = BTreeSet::new();
    for table in tx.list_tables()? {
        let definition: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(table.name());
        for entry in tx.open_table(definition)?.iter()? {
            let (_, value) = entry?;
            // The checksum comes first, and is not looked at.
            documents.extend(value.value().get(8..).map(<[u8]>::to_vec));
        }
    }
    Ok(documents)
}
