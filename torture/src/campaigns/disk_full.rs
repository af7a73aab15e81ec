//! A disk that fills up: what there is no room for is refused with an error that says so, what was acknowledged stays,
//! and when there is room again the store goes on, after a reopen where the error says that it needs one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use contract_tests::fixture::agent;
use fastrand::Rng;
use store::{Agent, Durability, Error, ErrorKind, Outcome, Store, describe};
use store_memory::MemoryStore;
use tempfile::TempDir;

use super::{Campaign, Plan};
use crate::engines::Engine;
use crate::lab::{self, Honest, Verdict};
use crate::mount::Mounted;
use crate::place::scratch;
use crate::report::{Attempt, Line};
use crate::rng::rng;
use crate::workload::{Call, Host, digests, states};

pub(crate) const CAMPAIGN: Campaign =
    Campaign { name: "disk-full", about: "a disk of 3 MB fills up, then has room again", run, child: None };

/// How many disks a control fills.
const CONTROL: u64 = 3;

fn run(plan: &Plan, report: &mut dyn FnMut(Line)) {
    let unusable = SmallDisk::new(0).err();
    for engine in Engine::ALL.into_iter().filter(|engine| plan.wants(engine.name())) {
        let line = |text| Line::new(CAMPAIGN.name, engine.name(), text);
        for (line, disks, believes_everything) in [
            (line("filled up, then it goes on"), plan.count(10, 200), false),
            (line("a refusal is taken for a yes").control(), CONTROL, true),
        ] {
            report(match &unusable {
                Some(error) => line.skipped(format!("a small tmpfs, as root: {error}")),
                None => line.attempt(plan.seed, "full disks", |line| {
                    (0..disks)
                        .try_for_each(|number| fill(engine, plan.seed, number, believes_everything, line))
                }),
            });
        }
    }
}

fn fill(engine: Engine, seed: u64, number: u64, believes_everything: bool, line: &mut Line) -> Attempt {
    let mut rng = rng(seed, number);
    let mut filling = Filling {
        engine,
        disk: SmallDisk::new(rng.usize(BALLAST))?,
        host: Host::new(rng.fork(), "a"),
        rng,
        model: MemoryStore::default(),
        made: 0,
        believes_everything,
        is_poisoned: false,
        doubt: None,
    };
    let verdict = lab::caught(|| Ok(filling.run().err().unwrap_or(Verdict::Sound(0))));
    line.tried += 1;
    verdict.count(line, || format!("disk {number}"));
    Ok(())
}

/// What takes up room on a disk until it is removed, in bytes: more than half of the disk, because what SQLite has in
/// its log must find room in the database, too.
const BALLAST: std::ops::Range<usize> = 1_750_000..2_250_000;

/// A disk with little room.
struct SmallDisk {
    // In this order they are dropped.
    mounted: Mounted,
    _directory: TempDir,
}

impl SmallDisk {
    fn new(ballast: usize) -> io::Result<SmallDisk> {
        let directory = scratch()?;
        let options = ["-t", "tmpfs", "-o", "size=3m"];
        let mounted = Mounted::new(&options, Path::new("tmpfs"), directory.path().join("disk"))?;
        let disk = SmallDisk { mounted, _directory: directory };
        fs::write(disk.path("ballast"), vec![1; ballast])?;
        Ok(disk)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.mounted.at().join(name)
    }
}

/// A store on a small disk, and a model of what it acknowledged.
struct Filling {
    engine: Engine,
    disk: SmallDisk,
    rng: Rng,
    host: Host,
    model: MemoryStore,
    /// How many large records were made.
    made: u32,
    /// Whether the first refusal is taken for an acknowledgement: the control.
    believes_everything: bool,
    /// Whether the store has said that it takes no more writes until it is reopened.
    is_poisoned: bool,
    /// The last call, if it may have happened although it was refused.
    doubt: Option<Call>,
}

/// What stops a filling is what was found wrong.
type Step<T = ()> = Result<T, Verdict>;

/// How often a full disk refuses before it is given room.
const REFUSALS: u32 = 30;

/// How many calls a disk is full after, at the latest.
const MOST_CALLS: u32 = 20_000;

/// How many calls are made when there is room again.
const AFTERWARDS: usize = 30;

impl Filling {
    fn run(&mut self) -> Step {
        let mut store = self.open()?;
        self.fill_up(&*store)?;
        if self.is_poisoned || self.doubt.is_some() || self.rng.bool() {
            self.close_full(store)?;
            self.look_when_full()?;
            self.make_room().map_err(broken)?;
            store = self.open()?;
            self.is_poisoned = false;
            self.settle_doubt(&*store)?;
        } else {
            self.compare(&*store)?;
            self.make_room().map_err(broken)?;
        }
        for call in self.host.calls(AFTERWARDS) {
            if !self.call(&*store, &call)? {
                return Err(wrong("a write is refused although there is room again"));
            }
        }
        store.close().map_err(|e| failed("does not close", &e))?;
        drop(store);
        let states = self.states()?;
        let honest = Honest { states: &states, range: 0..=0 };
        match lab::look(|| self.engine.open(&self.disk.path("store"), Durability::PowerLoss), &honest, true) {
            Verdict::Sound(_) => Ok(()),
            verdict => Err(verdict),
        }
    }

    fn open(&self) -> Step<Arc<dyn Store>> {
        let opened = self.engine.open(&self.disk.path("store"), Durability::PowerLoss);
        opened.map_err(|e| failed("does not open", &e))
    }

    /// Makes calls until enough were refused, every other one with a large record.
    fn fill_up(&mut self, store: &dyn Store) -> Step {
        let mut refused = 0;
        for _ in 0..MOST_CALLS {
            let large = self.large();
            for call in self.host.calls(1).into_iter().chain([large]) {
                refused += u32::from(!self.call(store, &call)?);
                if refused == REFUSALS || self.is_poisoned || self.doubt.is_some() {
                    return Ok(());
                }
            }
        }
        Err(wrong("the disk does not fill up"))
    }

    fn large(&mut self) -> Call {
        self.made += 1;
        let prompt = "x".repeat(self.rng.usize(..20_000));
        Call::SaveAgent(Agent { prompt, ..agent(&format!("large {}", self.made)) })
    }

    /// Makes a call; says whether there was room for it.
    fn call(&mut self, store: &dyn Store, call: &Call) -> Step<bool> {
        let answer = call.make(store);
        match &answer {
            // Calls that follow one that was refused may be about what is not there: for the model neither.
            Err(error) if !error.is_refusal() => self.refused(store, call, error).map(|()| false),
            _ => {
                let expected = call.make(&self.model).err().map(|e| e.kind());
                let found = answer.as_ref().err().map(Error::kind);
                if found != expected {
                    return Err(wrong(format!("answered {found:?}, the model {expected:?}")));
                }
                Ok(true)
            }
        }
    }

    /// Looks at the error of a call for which there is no room. Either the same call may be made again and has changed
    /// nothing, or the store refuses all writes from there on.
    fn refused(&mut self, store: &dyn Store, call: &Call, error: &Error) -> Step {
        if error.kind() != ErrorKind::Backend || !says_full(error) {
            return Err(failed("a full disk is reported as", error));
        }
        if self.believes_everything {
            self.doubt = Some(call.clone());
            return Ok(());
        }
        if error.outcome() == Outcome::InDoubt {
            self.doubt = Some(call.clone());
        } else if error.is_retryable() {
            return Ok(());
        }
        self.is_poisoned = true;
        match call.make(store) {
            Err(e) if e.kind() == ErrorKind::Poisoned && says_full(&e) => Ok(()),
            Err(e) => Err(failed(&format!("after {}", describe(error)), &e)),
            Ok(()) => Err(wrong(format!("a write is taken after {}", describe(error)))),
        }
    }

    /// Closes a store that has no room, of which it may complain.
    fn close_full(&self, store: Arc<dyn Store>) -> Step {
        match store.close() {
            Err(e) if !matches!(e.kind(), ErrorKind::Backend | ErrorKind::Poisoned) => {
                Err(failed("closing on a full disk", &e))
            }
            _ => Ok(()),
        }
    }

    /// Opens the store while there is no room. It may say that it cannot be, but it must not be taken for damaged.
    fn look_when_full(&self) -> Step {
        match self.engine.open(&self.disk.path("store"), Durability::PowerLoss) {
            Ok(store) => {
                self.compare(&*store)?;
                self.close_full(store)
            }
            Err(e) if e.kind() == ErrorKind::Backend => Ok(()),
            Err(e) => Err(failed("opening on a full disk", &e)),
        }
    }

    /// Makes room: something else is removed, or the disk grows.
    fn make_room(&mut self) -> io::Result<()> {
        if self.rng.bool() {
            return fs::remove_file(self.disk.path("ballast"));
        }
        self.disk.mounted.remount("size=32m")
    }

    /// The states that the store may be in: what was acknowledged, and the same after the call that is in doubt.
    fn states(&self) -> Step<Vec<store::transfer::Digests>> {
        states(Some(&self.model), self.doubt.as_slice()).map_err(|e| failed("the model", &e))
    }

    /// Compares a store with what was acknowledged; gives the number of the state that it is in.
    fn compare(&self, store: &dyn Store) -> Step<usize> {
        let states = self.states()?;
        let last = states.len() - 1;
        let first = if self.believes_everything { last } else { 0 };
        let found = digests(store).map_err(|e| failed("cannot be read", &e))?;
        match (Honest { states: &states, range: first..=last }).judge(&found) {
            Verdict::Sound(number) => Ok(number),
            verdict => Err(verdict),
        }
    }

    /// Finds out what became of the call that was in doubt.
    fn settle_doubt(&mut self, store: &dyn Store) -> Step {
        let has_happened = self.compare(store)? > 0;
        match self.doubt.take() {
            Some(call) if has_happened => call.make(&self.model).map_err(|e| failed("the model", &e)),
            _ => Ok(()),
        }
    }
}

/// Whether an error tells people that the disk is full.
fn says_full(error: &Error) -> bool {
    let text = describe(error).to_lowercase();
    ["disk is full", "no space", "no storage space"].iter().any(|words| text.contains(words))
}

fn wrong(text: impl Into<String>) -> Verdict {
    Verdict::Wrong(text.into())
}

fn failed(doing: &str, error: &Error) -> Verdict {
    wrong(format!("{doing}: {}", describe(error)))
}

fn broken(error: io::Error) -> Verdict {
    wrong(format!("the campaign broke off: {error}"))
}
