//! I/O errors: the n-th operation on the disk fails, for every n until a story passes without a failure. What was
//! acknowledged is there, the call that failed is there or not as its error says, and the story goes on from there.

use std::io;

use fastrand::Rng;
use fault_disk::Log;
use store::{Durability, Result, describe};

use crate::campaigns::{Campaign, Plan};
use crate::crew::Crew;
use crate::engines::Engine;
use crate::lab::{self, Honest, Scratch, Verdict};
use crate::report::Line;
use crate::rng::rng;
use crate::simulation::{Fault, Machine};
use crate::story::{BACKUP, Operation, STORE, Stop, Story, Telling};

pub(crate) const CAMPAIGN: Campaign = Campaign {
    name: "io-errors",
    about: "the n-th operation on the disk fails, for every n",
    run,
    child: None,
};

/// The longest sitting, in calls.
const LONGEST: usize = 4;

/// Stories on a long log are long in points of failure too, so there are some among the first of this number only.
const LONG_LOGS: u64 = 24;

fn run(plan: &Plan, report: &mut dyn FnMut(Line)) {
    // How many stories are told with every failure.
    let stories = plan.count(2, 100);
    for engine in Engine::ALL.into_iter().filter(|engine| plan.wants(engine.name())) {
        let line = |text: &str| Line::new(CAMPAIGN.name, engine.name(), text);
        for (fault, text) in [
            (Fault::Once, "one operation fails"),
            (Fault::Sticky, "it fails and all later ones do"),
            (Fault::Full, "the disk is full from there on"),
            (Fault::Short, "one write is cut short"),
        ] {
            let failing = Failing { engine, fault, seed: plan.seed, believes_everything: false };
            report(line(text).run(plan.seed, "failures", |line| failing.run(line, stories)));
        }
        let failing = Failing { engine, fault: Fault::Sticky, seed: plan.seed, believes_everything: true };
        let control = line("errors are swallowed").control();
        report(control.run(plan.seed, "failures", |line| failing.run(line, 1)));
    }
}

/// A disk that fails.
#[derive(Debug, Clone, Copy)]
struct Failing {
    engine: Engine,
    fault: Fault,
    seed: u64,
    believes_everything: bool,
}

impl Failing {
    fn run(&self, line: &mut Line, stories: u64) {
        for number in 0..stories {
            match self.story(number) {
                Ok(story) => Crew::run(line, u64::MAX, |crew, scratch, after| {
                    self.fail(crew, scratch, &story, number, after)
                }),
                Err(e) => {
                    line.wrong += 1;
                    line.fault(|| format!("story {number} is refused: {}", describe(&e)));
                }
            }
        }
    }

    /// Of every eight stories four end in a large call, or in one that copies the log back. The others are short.
    fn story(&self, number: u64) -> Result<Story> {
        let mut rng = rng(self.seed, number);
        let ending_in = |operation, rng: &mut Rng| Story::ending_in(operation, rng, self.engine);
        match number % 8 {
            2 => ending_in(Operation::Import, &mut rng),
            3 => ending_in(Operation::Copy, &mut rng),
            4 => ending_in(Operation::Purge, &mut rng),
            5 => ending_in(Operation::Backup, &mut rng),
            6 if self.engine == Engine::Sqlite && number < LONG_LOGS => Story::on_a_long_log(&mut rng),
            _ => Story::of(&mut rng, self.engine, LONGEST),
        }
    }

    /// Whether the store is backed up at the end of a story: of every eight, in the one with a large backup and in the
    /// two after it.
    fn backs_up(number: u64) -> bool {
        number % 8 >= 5
    }

    /// Tells a story on a disk that fails after so many operations. Says whether it has failed at all.
    fn fail(
        &self,
        crew: &Crew,
        scratch: &Scratch,
        story: &Story,
        number: u64,
        after: u64,
    ) -> io::Result<bool> {
        let directory = scratch.empty("machine")?;
        story.prepare(&directory)?;
        let machine = Machine::new(self.engine, Durability::PowerLoss, &directory, Log::new())?;
        machine.disk().arm(self.fault, after);
        let mut has_failed = false;
        let verdict = lab::caught(|| {
            let mut telling = Telling::new(&machine, story);
            telling.believes_everything = self.believes_everything;
            telling.backs_up = Failing::backs_up(number);
            let mut told = telling.go_on();
            has_failed = machine.disk().disarm();
            if let Err(Stop::Failed(_)) = told {
                told = telling.go_on();
            }
            match told {
                Ok(()) => {}
                Err(Stop::Wrong(verdict)) => return Ok(verdict),
                Err(Stop::Failed(e)) => return Err(format!("does not go on: {}", describe(&e))),
            }
            let honest = Honest { states: &story.states, range: story.last()..=story.last() };
            let kept = lab::look(|| machine.open(STORE), &honest, true);
            Ok(match kept {
                Verdict::Sound(_) if telling.backs_up && !machine.path(BACKUP).exists() => Verdict::Lost(1),
                Verdict::Sound(_) if telling.backs_up => lab::look(|| machine.open(BACKUP), &honest, true),
                kept => kept,
            })
        });
        if has_failed {
            crew.try_one();
        }
        crew.count(&verdict, || format!("story {number}, {:?} after {after} operations", self.fault));
        Ok(has_failed)
    }
}
