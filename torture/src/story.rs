//! What happens to a store: it is made, or was there; it is opened, written to, closed, opened again. And the host
//! that goes through it, which keeps what it was told, whatever fails.

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use fastrand::Rng;
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

/// A store of the oldest schema that there is.
const OLDEST_SQLITE: &[u8] = include_bytes!("../../store-sqlite/tests/fixtures/schema-1.db");

/// One story: sittings of calls, and the states that they lead through.
#[derive(Debug)]
pub(crate) struct Story {
    /// What is there before it begins.
    before: Option<&'static [u8]>,
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
        let before = (engine == Engine::Sqlite && rng.u8(0..6) == 0).then_some(OLDEST_SQLITE);
        if before.is_none() && rng.u8(0..4) == 0 {
            let copied = Host::new(rng.fork(), "copied").calls(rng.usize(1..12));
            sittings.insert(0, vec![Call::Copy(copied)]);
        }
        let calls: Vec<Call> = sittings.iter().flatten().cloned().collect();
        let states = match before {
            None => states(None, &calls)?,
            Some(file) => {
                let scratch = crate::lab::scratch().map_err(broken)?;
                let path = scratch.empty("before").map_err(broken)?.join(STORE);
                fs::write(&path, file).map_err(broken)?;
                states(Some(&*engine.open(&path, Durability::PowerLoss)?), &calls)?
            }
        };
        Ok(Story { before, sittings, states })
    }

    /// The number of the last state.
    pub(crate) fn last(&self) -> usize {
        self.states.len() - 1
    }

    /// Puts what is there before it begins into an empty directory.
    pub(crate) fn prepare(&self, directory: &Path) -> io::Result<()> {
        self.before.map_or(Ok(()), |file| fs::write(directory.join(STORE), file))
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
            if self.acknowledged.len() >= end && self.is_known {
                continue;
            }
            self.open()?;
            while let Some(call) = calls.get(self.acknowledged.len().max(begin) - begin) {
                self.call(call)?;
            }
            if self.backs_up && end == self.story.last() {
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
        let made = store.backup(&self.machine.path(BACKUP));
        made.or_else(|e| self.failed(e))?;
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
        Told { acknowledged: self.acknowledged, backed_up: self.backed_up }
    }
}

/// What was acknowledged when.
#[derive(Debug)]
pub(crate) struct Told {
    /// For each call, how many events there were when it was acknowledged.
    acknowledged: Vec<usize>,
    backed_up: Option<usize>,
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
