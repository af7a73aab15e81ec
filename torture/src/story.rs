//! What happens to a store: it is made, or was there; it is opened, written to, closed, opened again. And the host
//! that goes through it, which keeps what it was told, whatever fails.

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use fastrand::Rng;
use safe_files::with_suffix;
use store::transfer::Digests;
use store::{Durability, Error, ErrorKind, Outcome, Result, Store, describe};

use crate::engines::Engine;
use crate::lab::{Honest, Verdict};
use crate::simulation::Machine;
use crate::workload::{Call, Host, digests, states};

/// The name of the store's file.
pub(crate) const STORE: &str = "s";

/// The name of its backup.
pub(crate) const BACKUP: &str = "b";

/// Files of a store, by the suffix of their names.
type Files = Vec<(&'static str, Vec<u8>)>;

/// The size of a log that SQLite's engine is about to copy back: it does so at 1,000 pages, each with its header.
const LONG_LOG: u64 = 995 * (8192 + 24);

/// A call that takes its time, at the end of a story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Import,
    Copy,
    Backup,
    Purge,
    /// An import in as many transactions as there are calls, which no store makes: the control.
    Pieces,
}

/// One story: sittings of calls, and the states that they lead through.
#[derive(Debug)]
pub(crate) struct Story {
    /// The files that are there before it begins, by the suffix of their names.
    before: Files,
    /// The calls, in sittings: the store is opened before each and closed after it.
    sittings: Vec<Vec<Call>>,
    pub(crate) states: Vec<Digests>,
}

impl Story {
    /// A story of one to three sittings of fewer than `longest` calls.
    pub(crate) fn of(rng: &mut Rng, engine: Engine, longest: usize) -> Result<Story> {
        let mut host = Host::new(rng.fork(), "a");
        let mut sittings: Vec<Vec<Call>> =
            (0..rng.usize(1..4)).map(|_| host.calls(rng.usize(1..longest))).collect();
        let is_old = rng.u8(0..6) == 0;
        let before = if is_old { vec![("", engine.of_schema_1().to_vec())] } else { vec![] };
        if !is_old && rng.u8(0..4) == 0 {
            let copied = Host::new(rng.fork(), "copied").calls(rng.usize(1..12));
            sittings.insert(0, vec![Call::Copy(copied)]);
        }
        Story::new(before, sittings, engine)
    }

    /// A story of one sitting, with a large operation at its end; see [`Told::begun`]. The backup is the teller's.
    pub(crate) fn ending_in(operation: Operation, rng: &mut Rng, engine: Engine) -> Result<Story> {
        let mut host = Host::new(rng.fork(), "a");
        let calls = match operation {
            Operation::Import => vec![Call::Import(host.calls(rng.usize(20..80)))],
            Operation::Pieces => vec![Call::Pieces(host.calls(rng.usize(20..80)))],
            Operation::Copy => vec![Call::Copy(host.calls(rng.usize(20..80)))],
            Operation::Backup => host.calls(rng.usize(10..30)),
            Operation::Purge => {
                let runs = rng.u32(10..40);
                let purge = Call::Purge(rng.i64(2..=i64::from(runs) + 1));
                host.runs(runs).into_iter().chain([purge]).collect()
            }
        };
        Story::new(vec![], vec![calls], engine)
    }

    /// A story of SQLite in which the log, which somebody who died has left, becomes so long that it is copied back.
    pub(crate) fn on_a_long_log(rng: &mut Rng) -> Result<Story> {
        let scratch = crate::lab::scratch().map_err(broken)?;
        let path = scratch.empty("before").map_err(broken)?.join(STORE);
        let store = Engine::Sqlite.open(&path, Durability::PowerLoss)?;
        let mut host = Host::new(rng.fork(), "before");
        host.call().make(&*store)?; // which begins the log
        while fs::metadata(with_suffix(&path, "-wal")).map_err(broken)?.len() < LONG_LOG {
            host.call().make(&*store)?;
        }
        let read = |suffix| Ok((suffix, fs::read(with_suffix(&path, suffix))?));
        let before: Files = ["", "-wal"].into_iter().map(read).collect::<io::Result<_>>().map_err(broken)?;
        let mut host = Host::new(rng.fork(), "a");
        Story::new(before, vec![host.calls(6), host.calls(1)], Engine::Sqlite)
    }

    fn new(before: Files, sittings: Vec<Vec<Call>>, engine: Engine) -> Result<Story> {
        let calls: Vec<Call> = sittings.iter().flatten().cloned().collect();
        let mut story = Story { before, sittings, states: vec![] };
        story.states = if story.before.is_empty() {
            states(None, &calls)?
        } else {
            let scratch = crate::lab::scratch().map_err(broken)?;
            let directory = scratch.empty("before").map_err(broken)?;
            story.prepare(&directory).map_err(broken)?;
            states(Some(&*engine.open(&directory.join(STORE), Durability::PowerLoss)?), &calls)?
        };
        Ok(story)
    }

    /// The number of the last state.
    pub(crate) fn last(&self) -> usize {
        self.states.len() - 1
    }

    /// Its calls, of all sittings.
    pub(crate) fn calls(&self) -> impl Iterator<Item = &Call> {
        self.sittings.iter().flatten()
    }

    /// Puts what is there before it begins into an empty directory.
    pub(crate) fn prepare(&self, directory: &Path) -> io::Result<()> {
        let path = directory.join(STORE);
        self.before.iter().try_for_each(|(suffix, content)| fs::write(with_suffix(&path, suffix), content))
    }
}

fn broken(error: io::Error) -> Error {
    Error::backend("preparing a story", error)
}

/// Why a story does not go on.
#[derive(Debug)]
pub(crate) enum Stop {
    /// An error that a failing disk may lead to. The store is not open any more, and may be opened again.
    Failed(Error),
    /// What no honest store does.
    Wrong(Verdict),
}

/// A host that goes through a story on a machine.
pub(crate) struct Telling<'a> {
    machine: &'a Machine,
    story: &'a Story,
    /// Whether every answer is taken for a yes, which makes it the host of an engine that swallows errors.
    pub(crate) believes_everything: bool,
    /// Whether a backup is made before the store is closed for the last time.
    pub(crate) backs_up: bool,
    store: Option<Arc<dyn Store>>,
    /// For each call that was acknowledged, how many events there were then.
    acknowledged: Vec<usize>,
    /// How many events there were when the backup was acknowledged.
    backed_up: Option<usize>,
    /// Whether the backup has failed, and may be there all the same.
    is_backup_in_doubt: bool,
    /// How many events there were when the last call began, or the backup.
    begun: usize,
    /// Whether the call after them has failed, and may have happened all the same.
    in_doubt: bool,
    /// Whether it is known what the store holds.
    is_known: bool,
}

impl<'a> Telling<'a> {
    pub(crate) fn new(machine: &'a Machine, story: &'a Story) -> Self {
        Telling {
            machine,
            story,
            believes_everything: false,
            backs_up: false,
            store: None,
            acknowledged: Vec::new(),
            backed_up: None,
            is_backup_in_doubt: false,
            begun: 0,
            in_doubt: false,
            is_known: true,
        }
    }

    /// Goes on from where it stopped, to the end. After a stop the store is opened again and looked at first.
    pub(crate) fn go_on(&mut self) -> std::result::Result<(), Stop> {
        let mut end = 0;
        for calls in &self.story.sittings {
            let begin = end;
            end += calls.len();
            let backs_up = self.backs_up && end == self.story.last() && self.backed_up.is_none();
            if self.acknowledged.len() >= end && self.is_known && !backs_up {
                continue;
            }
            self.open()?;
            while let Some(call) = calls.get(self.acknowledged.len().max(begin) - begin) {
                self.call(call)?;
            }
            if backs_up {
                self.back_up()?;
            }
            if let Some(store) = self.store.take() {
                store.close().or_else(|e| self.failed(e))?;
            }
        }
        Ok(())
    }

    /// Opens the store; when it is not known what it holds, finds out.
    fn open(&mut self) -> std::result::Result<(), Stop> {
        let store = self.machine.open(STORE).or_else(|e| self.failed(e))?;
        if !self.is_known {
            let found = digests(&*store).or_else(|e| self.failed(e))?;
            let first = self.acknowledged.len();
            let range = first..=first + usize::from(self.in_doubt);
            match (Honest { states: &self.story.states, range }).judge(&found) {
                Verdict::Sound(now) => {
                    let so_far = self.machine.log().len();
                    self.acknowledged.resize(now, so_far);
                    (self.in_doubt, self.is_known) = (false, true);
                }
                verdict => return Err(Stop::Wrong(verdict)),
            }
        }
        self.store = Some(store);
        Ok(())
    }

    fn call(&mut self, call: &Call) -> std::result::Result<(), Stop> {
        let Some(store) = self.store.clone() else { return self.failed(Error::Closed) };
        self.begun = self.machine.log().len();
        let answer = match call.make(&*store) {
            // It did not happen, so it may be tried again at once.
            Err(e) if e.outcome() == Outcome::NotApplied => call.make(&*store),
            Err(e) => {
                if call.make(&*store).is_ok() && !self.believes_everything {
                    let text = format!("a write is taken after {}", describe(&e));
                    return Err(Stop::Wrong(Verdict::Wrong(text)));
                }
                Err(e)
            }
            done => done,
        };
        match answer {
            Err(e) if !self.believes_everything => {
                self.in_doubt = e.outcome() == Outcome::InDoubt;
                self.failed(e)
            }
            _ => {
                self.acknowledged.push(self.machine.log().len());
                Ok(())
            }
        }
    }

    fn back_up(&mut self) -> std::result::Result<(), Stop> {
        let Some(store) = &self.store else { return self.failed(Error::Closed) };
        self.begun = self.machine.log().len();
        let path = self.machine.path(BACKUP);
        // Whether one that was in doubt is whole is asked at the end.
        if !(self.is_backup_in_doubt && path.exists())
            && let Err(error) = store.backup(&path)
        {
            self.is_backup_in_doubt = error.outcome() == Outcome::InDoubt;
            if path.exists() && !self.is_backup_in_doubt {
                let text = format!("a backup is there after {}", describe(&error));
                return Err(Stop::Wrong(Verdict::Wrong(text)));
            }
            return self.failed(error);
        }
        self.backed_up = Some(self.machine.log().len());
        Ok(())
    }

    fn failed<T>(&mut self, error: Error) -> std::result::Result<T, Stop> {
        (self.store, self.is_known) = (None, false);
        match error.kind() {
            ErrorKind::Backend | ErrorKind::Poisoned => Err(Stop::Failed(error)),
            kind => {
                let text = format!("a failing disk is reported as {kind}: {}", describe(&error));
                Err(Stop::Wrong(Verdict::Wrong(text)))
            }
        }
    }

    /// What was acknowledged when.
    pub(crate) fn told(self) -> Told {
        Told { acknowledged: self.acknowledged, backed_up: self.backed_up, begun: self.begun }
    }
}

/// What was acknowledged when.
#[derive(Debug)]
pub(crate) struct Told {
    /// For each call, how many events there were when it was acknowledged.
    acknowledged: Vec<usize>,
    backed_up: Option<usize>,
    /// How many events there were when the last call began, or the backup after it.
    pub(crate) begun: usize,
}

impl Told {
    /// Whether the backup has to be there when the power goes after so many events.
    pub(crate) fn is_backed_up(&self, position: usize) -> bool {
        self.backed_up.is_some_and(|at| at <= position)
    }

    /// The states that are honest when the power goes after so many events: what was acknowledged by then, and the
    /// call after it, which may have been under way.
    pub(crate) fn honest(&self, position: usize) -> RangeInclusive<usize> {
        let acknowledged = self.acknowledged.partition_point(|&at| at <= position);
        acknowledged..=(acknowledged + 1).min(self.acknowledged.len())
    }
}

#[cfg(test)]
mod tests {
    use fault_disk::{Event, Log};

    use super::*;
    use crate::lab;
    use crate::rng::rng;

    /// Otherwise no campaign would see a log that is copied back while the store is at work.
    #[test]
    fn a_long_log_is_copied_back_before_the_store_is_closed() {
        let story = Story::on_a_long_log(&mut rng(1, 0)).unwrap();
        let scratch = lab::scratch().unwrap();
        let directory = scratch.empty("machine").unwrap();
        story.prepare(&directory).unwrap();
        let machine = Machine::new(Engine::Sqlite, Durability::PowerLoss, &directory, Log::new()).unwrap();
        let store = machine.open(STORE).unwrap();
        story.sittings[0].iter().for_each(|call| call.make(&*store).unwrap());
        let events = machine.log().take();
        let database = events.iter().find_map(|event| match event {
            Event::Found(path, file, _) if path.ends_with(STORE) => Some(*file),
            _ => None,
        });
        let is_flush = |event: &Event| matches!(event, Event::Synced(file, _) if Some(*file) == database);
        assert!(events.iter().any(is_flush));
    }
}
