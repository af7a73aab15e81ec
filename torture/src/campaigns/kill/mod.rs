//! Processes killed with `kill -9` at random moments: what they were told was done is there, what they were told
//! nothing of is there whole or not at all, and nothing that they held is in the next one's way.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use contract_tests::fixture::records;
use store::{Durability, Record, Verification};

use super::{Campaign, Plan};
use crate::engines::Engine;
use crate::lab::names;
use crate::place::{open, scratch, url};
use crate::report::Line;
use check::Found;
use child::{Orders, Task};
use said::{Ack, Said};
use victim::{Victim, pause};

pub(super) use check::Acked;

mod check;
mod child;
mod said;
mod victim;

pub(crate) const CAMPAIGN: Campaign = Campaign {
    name: "kill",
    about: "kill -9 at random moments, also inside open, create, migrate, import, copy and backup",
    run,
    child: Some(child::main),
};

pub(super) type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// An engine with a file, and whether several processes may open it at once.
const ENGINES: [(&str, bool); 2] = [("sqlite", true), ("redb", false)];

/// How often a store is written to and killed before a new one takes its place, so that it stays small.
const LIVES: u64 = 12;

/// How many processes write at once.
const WRITERS: usize = 4;

/// How many records are imported, copied and backed up.
const RECORDS: u64 = 200;

fn run(plan: &Plan, report: &mut dyn FnMut(Line)) {
    for (engine, several) in ENGINES.into_iter().filter(|(engine, _)| plan.wants(engine)) {
        let kills = plan.count(500, 10_000);
        let share = |percent: u64| (kills * percent).div_ceil(100);
        let new = |what: &str| Line::new(CAMPAIGN.name, engine, what);
        let several_write = new("4 processes write");
        if !several {
            report(several_write.clone().skipped("one process at a time has the file open"));
        }
        let mut line = |line: Line, work: &dyn Fn(&mut Killer<'_>) -> Result| {
            report(line.run(plan.seed, "kills", |line| Killer::new(engine, plan.seed, line).attempt(work)));
        };
        let alone = if several { 35 } else { 60 };
        line(new("1 process writes; 1 kill in 4 hits its open"), &|killer| killer.writers(1, share(alone)));
        if several {
            line(several_write, &|killer| killer.writers(WRITERS, share(25)));
        }
        line(new("inside create"), &|killer| killer.opens(share(10), None));
        line(new("inside the opening of a file of schema 1"), &|killer| {
            killer.opens(share(5), Engine::named(engine).map(Engine::of_schema_1))
        });
        line(new("inside import"), &|killer| killer.fills(share(8), |from| Task::Import { from }));
        line(new("inside copy"), &|killer| killer.fills(share(8), |from| Task::Copy { from }));
        line(new("inside backup"), &|killer| killer.backups(share(9)));
        line(new("acknowledged before it is written").control(), &|killer| killer.gatherers(share(5)));
    }
}

/// One configuration under way.
pub(super) struct Killer<'l> {
    engine: &'static str,
    pub(super) random: fastrand::Rng,
    /// How many children were started.
    children: u64,
    pub(super) line: &'l mut Line,
}

impl<'l> Killer<'l> {
    pub(super) fn new(engine: &'static str, seed: u64, line: &'l mut Line) -> Self {
        // Each configuration draws its own numbers from the seed.
        let salt = line.configuration.bytes().fold(seed, |sum, byte| sum.rotate_left(5) ^ u64::from(byte));
        Killer { engine, random: fastrand::Rng::with_seed(salt), children: 0, line }
    }

    /// Does the work; what stops it is a fault.
    fn attempt(mut self, work: &dyn Fn(&mut Killer<'_>) -> Result) {
        if let Err(error) = work(&mut self) {
            self.wrong(|| error.to_string());
        }
    }

    pub(super) fn wrong(&mut self, what: impl FnOnce() -> String) {
        self.line.wrong += 1;
        let at = self.line.tried;
        self.line.fault(|| format!("kill {at}: {}", what()));
    }

    fn start(&mut self, task: Task, url: &str) -> io::Result<(u64, Victim)> {
        self.children += 1;
        let orders = Orders { task, url: url.to_owned(), process: self.children, seed: self.random.u64(..) };
        Ok((self.children, Victim::start(&orders)?))
    }

    /// Starts a process that writes on that many threads.
    pub(super) fn start_writer(
        &mut self,
        threads: u64,
        durability: Durability,
        url: &str,
        acked: &mut Acked,
    ) -> io::Result<Victim> {
        let (process, victim) = self.start(Task::Write { threads, durability }, url)?;
        acked.child_began(process);
        Ok(victim)
    }

    /// Up to that long, each time as likely.
    fn moment(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.random.f64())
    }

    /// What a child has said; complaints are faults.
    pub(super) fn heard(&mut self, said: Vec<Said>, acked: &mut Acked) {
        for said in said {
            match said {
                Said::Ack(ack) => self.acknowledged(ack, acked),
                Said::Fault(fault) => self.wrong(|| fault),
                Said::Begins | Said::Opened | Said::Done => {}
            }
        }
    }

    fn acknowledged(&mut self, ack: Ack, acked: &mut Acked) {
        if let Some(twice) = acked.note(ack) {
            self.line.lost += 1;
            self.line.fault(|| twice);
        }
    }

    pub(super) fn note(&mut self, found: Found) {
        let at = self.line.tried;
        self.line.lost += found.lost.len() as u64;
        self.line.wrong += found.wrong.len() as u64;
        if let Some(first) = found.lost.into_iter().chain(found.wrong).next() {
            self.line.fault(|| format!("kill {at}: {first}"));
        }
    }

    /// Processes that write, one of them killed at a time; now and then all, and the store is looked at.
    fn writers(&mut self, processes: usize, kills: u64) -> Result {
        while self.line.tried < kills {
            let directory = scratch()?;
            let url = self.prepared(directory.path())?;
            let (mut acked, mut writers) = (Acked::default(), Vec::new());
            let until = kills.min(self.line.tried + LIVES);
            while self.line.tried < until {
                while writers.len() < processes {
                    let threads = self.random.u64(1..=3);
                    let victim = self.start_writer(threads, Durability::PowerLoss, &url, &mut acked)?;
                    writers.push((threads, victim));
                }
                let (threads, victim) = writers.swap_remove(self.random.usize(..writers.len()));
                self.kill_writer(victim, threads, &mut acked)?;
                if processes == 1 {
                    self.look(&url, &acked)?;
                }
            }
            for (threads, victim) in writers {
                self.kill_writer(victim, threads, &mut acked)?;
            }
            self.look(&url, &acked)?;
        }
        Ok(())
    }

    /// Makes a store with what the writers work on.
    pub(super) fn prepared(&self, directory: &Path) -> Result<String> {
        let url = url(self.engine, &directory.join("store"));
        let store = open(&url, Durability::PowerLoss)?;
        child::prepare(&*store)?;
        store.close()?;
        Ok(url)
    }

    /// Lets a writer go on to some acknowledgements after it has opened its store, or, one in four, into its opening.
    pub(super) fn let_write(&mut self, victim: &mut Victim, acked: &mut Acked) -> Result {
        const MOST_ACKS: u64 = 40;
        const AFTER: Duration = Duration::from_micros(400);
        const OPENING: Duration = Duration::from_millis(2);
        let in_open = self.random.u8(..4) == 0;
        let mut left = if in_open { 0 } else { self.random.u64(..MOST_ACKS) };
        loop {
            match victim.next()? {
                Some(Said::Begins) if in_open => break,
                Some(Said::Begins) => {}
                Some(Said::Opened) if left == 0 => break,
                Some(Said::Opened) => {}
                Some(Said::Ack(ack)) => {
                    self.acknowledged(ack, acked);
                    left = left.saturating_sub(1);
                    if left == 0 {
                        break;
                    }
                }
                Some(Said::Fault(fault)) => {
                    self.wrong(|| fault);
                    break;
                }
                Some(Said::Done) | None => {
                    self.wrong(|| "a writer ended by itself".into());
                    break;
                }
            }
        }
        let wait = self.moment(if in_open { OPENING } else { AFTER });
        pause(wait);
        Ok(())
    }

    /// Kills a writer at some moment.
    fn kill_writer(&mut self, mut victim: Victim, threads: u64, acked: &mut Acked) -> Result {
        self.let_write(&mut victim, acked)?;
        let said = victim.kill()?;
        self.line.tried += 1;
        acked.writers_died(threads);
        self.heard(said, acked);
        Ok(())
    }

    /// Opens the store and compares it with what was acknowledged.
    fn look(&mut self, url: &str, acked: &Acked) -> Result {
        let store = open(url, Durability::PowerLoss)?;
        let found = acked.check(&*store)?;
        self.note(found);
        store.close()?;
        Ok(())
    }

    /// The control: acknowledges what it has gathered, then writes it. Must lose.
    fn gatherers(&mut self, kills: u64) -> Result {
        while self.line.tried < kills {
            let directory = scratch()?;
            let url = self.prepared(directory.path())?;
            let mut acked = Acked::default();
            let (process, victim) = self.start(Task::Gather, &url)?;
            acked.child_began(process);
            self.kill_writer(victim, 8, &mut acked)?;
            self.look(&url, &acked)?;
        }
        Ok(())
    }

    /// How long a task takes when nobody kills it: the longest of three.
    fn whole(&mut self, mut task: impl FnMut() -> Result<(Task, String)>) -> Result<Duration> {
        let mut longest = Duration::ZERO;
        for _ in 0..3 {
            let (task, url) = task()?;
            let (_, mut victim) = self.start(task, &url)?;
            until(&mut victim, &Said::Begins)?;
            let start = Instant::now();
            until(&mut victim, &Said::Done)?;
            longest = longest.max(start.elapsed());
        }
        Ok(longest)
    }

    /// Starts a task and kills it at some moment of it; says whether it was done by then.
    fn cut(&mut self, task: Task, url: &str, whole: Duration) -> Result<bool> {
        let (_, mut victim) = self.start(task, url)?;
        until(&mut victim, &Said::Begins)?;
        // A little beyond the end, so that some are done.
        let wait = self.moment(whole.mul_f64(1.1));
        pause(wait);
        let said = victim.kill()?;
        self.line.tried += 1;
        let done = said.contains(&Said::Done);
        self.heard(said, &mut Acked::default());
        Ok(done)
    }

    /// Opening of a file that is not there yet, or that looks like `file`. What is left opens, and holds what it held.
    fn opens(&mut self, kills: u64, file: Option<&[u8]>) -> Result {
        let directory = scratch()?;
        let path = directory.path().join("store");
        let url = url(self.engine, &path);
        let mut lay = || -> Result<(Task, String)> {
            clear(directory.path())?;
            file.map_or(Ok(()), |file| std::fs::write(&path, file))?;
            Ok((Task::Open, url.clone()))
        };
        let whole = self.whole(&mut lay)?;
        lay()?;
        let expected = contents(&url)?;
        while self.line.tried < kills {
            lay()?;
            self.cut(Task::Open, &url, whole)?;
            let found = contents(&url)?;
            if found != expected {
                self.wrong(|| format!("{} records, {} expected", found.len(), expected.len()));
            }
            let left = names(directory.path())?;
            if left != ["store"] {
                self.wrong(|| format!("an open and a close left {left:?}"));
            }
        }
        Ok(())
    }

    /// Import or copy of another store into an empty one. What is left is empty or whole, and takes it then.
    fn fills(&mut self, kills: u64, task: fn(String) -> Task) -> Result {
        let directory = scratch()?;
        let [source, target] =
            ["source", "target"].map(|name| url(self.engine, &directory.path().join(name)));
        let expected = filled(&source)?;
        let lay = || -> Result<(Task, String)> {
            for name in names(directory.path())?.into_iter().filter(|name| name != "source") {
                std::fs::remove_file(directory.path().join(name))?;
            }
            open(&target, Durability::PowerLoss)?.close()?;
            Ok((task(source.clone()), target.clone()))
        };
        let whole = self.whole(lay)?;
        while self.line.tried < kills {
            lay()?;
            let done = self.cut(task(source.clone()), &target, whole)?;
            let found = contents(&target)?;
            if found.len() == 1 && !done {
                let store = open(&target, Durability::PowerLoss)?;
                store.import(&mut expected.iter().cloned().map(Ok))?;
                store.close()?;
            } else if found.len() == 1 {
                self.line.lost += 1;
                self.line.fault(|| "an import was acknowledged and is gone".into());
            }
            if found.len() > 1 && found != expected {
                self.wrong(|| format!("{} of {} records are there", found.len(), expected.len()));
            }
        }
        Ok(())
    }

    /// Backups: nothing is at the path, or a whole copy; and what a cut off one left is in nobody's way.
    fn backups(&mut self, kills: u64) -> Result {
        let directory = scratch()?;
        let (path, copy) = (directory.path().join("store"), directory.path().join("copy"));
        let [store, backup] = [&path, &copy].map(|path| url(self.engine, path));
        let expected = filled(&store)?;
        let task = || Task::Backup { to: copy.display().to_string() };
        let whole = self.whole(|| {
            remove(&copy)?;
            Ok((task(), store.clone()))
        })?;
        remove(&copy)?;
        while self.line.tried < kills {
            let done = self.cut(task(), &store, whole)?;
            if done && !copy.exists() {
                self.line.lost += 1;
                self.line.fault(|| "a backup was acknowledged and is gone".into());
            }
            if copy.exists() {
                let found = contents(&backup)?;
                if found != expected {
                    self.wrong(|| format!("{} of {} records are in a backup", found.len(), expected.len()));
                }
                remove(&copy)?;
            }
            let source = open(&store, Durability::PowerLoss)?;
            source.backup(&copy)?;
            source.close()?;
            let left = names(directory.path())?;
            if left != ["copy", "store"] {
                self.wrong(|| format!("a backup and those that were killed left {left:?}"));
                clear_but(directory.path(), &path)?;
            }
            remove(&copy)?;
        }
        if contents(&store)? != expected {
            self.wrong(|| "the store that was backed up has changed".into());
        }
        Ok(())
    }
}

/// Reads what a child says up to that.
fn until(victim: &mut Victim, wanted: &Said) -> Result {
    loop {
        match victim.next()? {
            Some(said) if said == *wanted => return Ok(()),
            Some(Said::Fault(fault)) => return Err(fault.into()),
            Some(_) => {}
            None => return Err("a child ended by itself".into()),
        }
    }
}

/// Makes a store with records of all kinds; gives them.
fn filled(url: &str) -> Result<Vec<Record>> {
    let store = open(url, Durability::PowerLoss)?;
    child::prepare(&*store)?;
    child::fill(&*store, RECORDS)?;
    let records = records(&*store)?;
    store.close()?;
    Ok(records)
}

/// Opens a store that must be sound, and gives what it holds.
fn contents(url: &str) -> Result<Vec<Record>> {
    let store = open(url, Durability::PowerLoss)?;
    let verification: Verification = store.verify()?;
    if !verification.is_sound() {
        return Err(format!("verify: {:?}", verification.problems).into());
    }
    let records = records(&*store)?;
    store.close()?;
    Ok(records)
}

fn clear(directory: &Path) -> io::Result<()> {
    clear_but(directory, &PathBuf::new())
}

/// Removes all files of a directory but one.
fn clear_but(directory: &Path, spared: &Path) -> io::Result<()> {
    let paths = names(directory)?.into_iter().map(|name| directory.join(name));
    paths.filter(|path| path != spared).try_for_each(std::fs::remove_file)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
