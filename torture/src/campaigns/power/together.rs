//! Several hosts on one store, whose writes share commits: what each of them was told is on the disk by then, and what
//! is there is what was written up to some moment, in the order in which it was written.
//!
//! The seed says what each host writes, not which writes share a commit.

use std::collections::BTreeSet;
use std::io;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use contract_tests::fixture::{event, id, run};
use fault_disk::Event;
use store::transfer::Digests;
use store::{Durability, NewEvent, Result, Seams, Store, StoreExt};
use store_memory::MemoryStore;

use super::{ENOUGH, Setup, VERIFIED, somewhere};
use crate::crew::Crew;
use crate::cut;
use crate::lab::{self, Honest, Scratch};
use crate::report::Line;
use crate::rng::rng;
use crate::simulation::Machine;
use crate::story::STORE;
use crate::workload::{Call, Host, digests};

pub(super) const WHAT: &str = "4 to 8 threads share commits";

/// What the ids of each host begin with.
const HOSTS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// How many writes a host makes at most.
const WRITES: usize = 10;

/// How long a flush takes: long enough for others to get in line meanwhile.
const FLUSH: Duration = Duration::from_micros(300);

/// The run to which every write appends an event, so that the number of the event is the number of the write.
const ORDER: &str = "order";

/// One write of a host: an event, by itself or in a transaction with a call.
struct Write {
    event: NewEvent,
    call: Option<Call>,
}

impl Write {
    /// Makes the write; gives its number among those of all hosts.
    fn make(&self, store: &dyn Store) -> Result<u64> {
        let Some(call) = &self.call else { return store.audit().append_event(&id(ORDER), &self.event) };
        store.transact(|seams| self.make_with(call, seams))
    }

    fn make_with(&self, call: &Call, seams: &dyn Seams) -> Result<u64> {
        let number = seams.audit().append_event(&id(ORDER), &self.event)?;
        match call.on(seams) {
            // Another host has purged the run: nothing has changed then, and nothing changes in the model.
            Err(e) if e.is_refusal() => Ok(number),
            done => done.map(|()| number),
        }
    }
}

/// A write that was acknowledged.
struct Acked {
    /// Its number among those of all hosts, from 1.
    number: u64,
    write: Write,
    /// How many events there were when it began, and when it was acknowledged.
    began: usize,
    acked: usize,
}

/// How many writes were made, in how many commits.
#[derive(Default)]
pub(super) struct Sharing {
    writes: AtomicU64,
    commits: AtomicU64,
}

impl Sharing {
    /// Counts the writes of one round. Between those of two commits the disk was flushed.
    fn count(&self, acked: &[Acked], events: &[Event]) {
        let flushes = events.iter().enumerate().filter(|(_, event)| matches!(event, Event::Synced(..)));
        let flushes: Vec<usize> = flushes.map(|(at, _)| at).collect();
        let commits: BTreeSet<usize> =
            acked.iter().map(|write| flushes.partition_point(|&flush| flush < write.acked)).collect();
        self.writes.fetch_add(acked.len() as u64, Ordering::Relaxed);
        self.commits.fetch_add(commits.len() as u64, Ordering::Relaxed);
    }

    /// Says so in the line. Hosts that shared nothing prove nothing.
    pub(super) fn tell(self, line: &mut Line) {
        let (writes, commits) = (self.writes.into_inner(), self.commits.into_inner());
        line.configuration.push_str(&format!(", {writes} writes in {commits} commits"));
        if writes < 2 * commits {
            line.tried = 0;
            line.fault(|| "the writers hardly shared a commit".to_owned());
        }
    }
}

/// One round of several hosts, and the power cuts in it.
pub(super) struct Together<'a> {
    pub(super) setup: Setup,
    pub(super) number: u64,
    pub(super) scratch: &'a Scratch,
    pub(super) crew: &'a Crew,
}

impl Together<'_> {
    pub(super) fn run(&self, sharing: &Sharing) -> io::Result<()> {
        let mut rng = rng(self.setup.seed, self.number);
        let directory = self.scratch.empty("machine")?;
        let machine = self.setup.machine(&directory, self.setup.log().with_flushes_of(FLUSH))?;
        let hosts = &HOSTS[..rng.usize(4..=HOSTS.len())];
        let plans: Vec<Vec<Write>> = hosts.iter().map(|name| plan(name, &mut rng)).collect();
        let store = machine.open(STORE).and_then(|store| prepare(&*store).map(|()| store));
        let store = store.map_err(io::Error::other)?;
        let first = machine.log().len();
        let acked = write_all(&machine, &*store, plans)?;
        store.close().map_err(io::Error::other)?;
        let events = machine.log().take();
        drop((store, machine));
        sharing.count(&acked, &events);
        let states = states(&acked).map_err(io::Error::other)?;
        let mut looked = 0;
        let begin = somewhere(first..events.len(), &mut rng);
        cut::each(
            &events,
            begin,
            &mut rng,
            |position| honest(&acked, position),
            |position, image, range, _| {
                let directory = self.scratch.empty("image")?;
                lab::lay_out(image, &directory)?;
                let tried = self.crew.try_one();
                let honest = Honest { states: &states, range };
                let open = || self.setup.engine.open(&directory.join(STORE), Durability::PowerLoss);
                let verdict = lab::look(open, &honest, tried.is_multiple_of(VERIFIED));
                self.crew.count(&verdict, || format!("round {}, after event {position}", self.number));
                looked += 1;
                Ok(!self.crew.is_done() && looked < ENOUGH)
            },
        )
    }
}

/// What a host is going to write.
fn plan(name: &'static str, rng: &mut fastrand::Rng) -> Vec<Write> {
    let mut host = Host::new(rng.fork(), name);
    let writes = rng.usize(1..=WRITES);
    let mut write = |number| {
        let call = (rng.u8(0..3) > 0).then(|| host.call());
        Write { event: NewEvent { kind: name.to_owned(), ..event(number) }, call }
    };
    (0..writes as u64).map(&mut write).collect()
}

fn prepare(store: &dyn Store) -> Result<()> {
    store.audit().start_run(&run(ORDER, 0)).map(drop)
}

/// Lets every host write on a thread of its own; gives what was written in the order in which that was done.
fn write_all(machine: &Machine, store: &dyn Store, plans: Vec<Vec<Write>>) -> io::Result<Vec<Acked>> {
    let log = machine.log();
    let write = |write: Write| {
        let began = log.len();
        let number = write.make(store)?;
        Ok(Acked { number, write, began, acked: log.len() })
    };
    let write = &write;
    let mut acked = thread::scope(|scope| {
        let hosts: Vec<_> = plans
            .into_iter()
            .map(|plan| scope.spawn(move || plan.into_iter().map(write).collect::<Result<Vec<_>>>()))
            .collect();
        let mut acked = Vec::new();
        for host in hosts {
            let written = host.join().map_err(|_| io::Error::other("a host panicked"))?;
            acked.extend(written.map_err(io::Error::other)?);
        }
        io::Result::Ok(acked)
    })?;
    acked.sort_unstable_by_key(|acked| acked.number);
    if acked.iter().map(|acked| acked.number).eq(1..=acked.len() as u64) {
        Ok(acked)
    } else {
        Err(io::Error::other("a number is missing, or was given twice"))
    }
}

/// The states that the writes lead through, in their order, after that of an empty store.
fn states(acked: &[Acked]) -> Result<Vec<Digests>> {
    let model = MemoryStore::default();
    let mut states = vec![digests(&model)?];
    prepare(&model)?;
    states.push(digests(&model)?);
    for acked in acked {
        acked.write.make(&model)?;
        states.push(digests(&model)?);
    }
    Ok(states)
}

/// The states that are honest when the power goes after so many events. What was acknowledged by then is there, with
/// all that was written before it; and what had not begun is not.
fn honest(acked: &[Acked], position: usize) -> RangeInclusive<usize> {
    let least = acked.iter().rposition(|write| write.acked <= position).map_or(0, |last| last + 1);
    let most = acked.iter().take_while(|write| write.began <= position).count();
    // Before the first of them the store was prepared.
    least + 1..=most.max(least) + 1
}
