//! Failed flushes: one fails, and what was not flushed can still be read but will never be on the disk. The engine
//! recovers, goes on, and the power goes later. The control goes on without the recovery, by removing its marker.

use std::fs;
use std::io;

use fault_disk::Log;
use safe_files::recovery::marker;
use store::Durability;

use crate::campaigns::{Campaign, Plan};
use crate::crew::Crew;
use crate::cut;
use crate::engines::Engine;
use crate::lab::{self, Honest, Scratch, Verdict};
use crate::report::Line;
use crate::rng::rng;
use crate::simulation::{Fault, Machine};
use crate::story::{STORE, Stop, Story, Telling};

pub(crate) const CAMPAIGN: Campaign = Campaign {
    name: "failed-fsync",
    about: "a flush fails, the store recovers, and the power goes later",
    run,
    child: None,
};

/// The longest sitting, in calls.
const LONGEST: usize = 8;

/// How many images a control looks at until it fails: a story of redb in which it does is one in hundreds, and 20,000 can
/// miss them all.
const CONTROL: u64 = 40_000;

/// How many flushes there are in a story, about.
const FLUSHES: u64 = 60;

fn run(plan: &Plan, report: &mut dyn FnMut(Line)) {
    for engine in Engine::ALL.into_iter().filter(|engine| plan.wants(engine.name())) {
        let line = |text| Line::new(CAMPAIGN.name, engine.name(), text);
        let count = plan.count(10_000, 100_000);
        for (line, count, recovers) in [
            (line("copied before it goes on"), count, true),
            (line("goes on without a copy").control(), CONTROL, false),
        ] {
            report(line.run(plan.seed, "images", |line| {
                Crew::run(line, count, |crew, scratch, number| {
                    Failing { engine, recovers, seed: plan.seed, number, crew, scratch }.run()?;
                    Ok(true)
                });
            }));
        }
    }
}

/// One story in which a flush fails.
struct Failing<'a> {
    engine: Engine,
    recovers: bool,
    seed: u64,
    number: u64,
    crew: &'a Crew,
    scratch: &'a Scratch,
}

impl Failing<'_> {
    fn run(&self) -> io::Result<()> {
        let mut rng = rng(self.seed, self.number);
        let story = Story::of(&mut rng, self.engine, LONGEST).map_err(io::Error::other)?;
        let directory = self.scratch.empty("machine")?;
        story.prepare(&directory)?;
        let machine = Machine::new(self.engine, Durability::PowerLoss, &directory, Log::new())?;
        machine.disk().arm(Fault::Flush, rng.u64(0..FLUSHES));
        let mut telling = Telling::new(&machine, &story);
        let mut first = None;
        let mut told = telling.go_on();
        if machine.disk().disarm() {
            first = Some(machine.log().len());
            if let Err(Stop::Failed(_)) = told {
                if !self.recovers {
                    forget_the_marker(&machine)?;
                }
                told = telling.go_on();
            }
        }
        let context = |text: &str| format!("story {}, {text}", self.number);
        match told {
            Ok(()) => {}
            Err(Stop::Wrong(verdict)) => self.crew.count(&verdict, || context("after a failed flush")),
            Err(Stop::Failed(e)) => {
                let verdict = Verdict::Wrong(format!("does not go on: {}", store::describe(&e)));
                self.crew.count(&verdict, || context("after a failed flush"));
            }
        }
        let (told, Some(first)) = (telling.told(), first) else { return Ok(()) };
        let events = machine.log().take();
        drop(machine);
        cut::each(
            &events,
            first,
            &mut rng,
            |position| told.honest(position),
            |position, image, range, _| {
                let directory = self.scratch.empty("image")?;
                lab::lay_out(image, &directory)?;
                self.crew.try_one();
                let honest = Honest { states: &story.states, range };
                let verdict = lab::look(
                    || self.engine.open(&directory.join(STORE), Durability::PowerLoss),
                    &honest,
                    true,
                );
                self.crew.count(&verdict, || context(&format!("power cut after event {position}")));
                Ok(!self.crew.is_done())
            },
        )
    }
}

fn forget_the_marker(machine: &Machine) -> io::Result<()> {
    match fs::remove_file(marker(&machine.path(STORE))) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
