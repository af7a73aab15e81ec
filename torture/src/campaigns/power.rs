//! Power loss: what an engine does to its files is written down, and the disk is put together as it may be when the
//! power goes, after every prefix of that. The real engine opens it, and has to hold what was acknowledged.

use std::io;

use fastrand::Rng;
use fault_disk::{Image, Log};
use store::Durability;

use crate::campaigns::{Campaign, Plan};
use crate::crew::Crew;
use crate::cut;
use crate::engines::Engine;
use crate::lab::{self, Honest, Scratch, Verdict};
use crate::report::Line;
use crate::rng::rng;
use crate::simulation::Machine;
use crate::story::{BACKUP, STORE, Stop, Story, Telling, Told};

pub(crate) const SQLITE: Campaign = Campaign {
    name: "power-sqlite",
    about: "SQLite: what was acknowledged is there, wherever the power goes",
    run: |plan, report| run(SQLITE.name, Engine::Sqlite, plan, report),
    child: None,
};

pub(crate) const REDB: Campaign = Campaign {
    name: "power-redb",
    about: "redb: what was acknowledged is there, wherever the power goes",
    run: |plan, report| run(REDB.name, Engine::Redb, plan, report),
    child: None,
};

/// A machine whose power goes.
#[derive(Debug, Clone, Copy)]
struct Setup {
    engine: Engine,
    durability: Durability,
    /// Whether the disk flushes when it is told to.
    honest_disk: bool,
    seed: u64,
}

/// How many images a control looks at.
const CONTROL: u64 = 500;

fn run(campaign: &'static str, engine: Engine, plan: &Plan, report: &mut dyn FnMut(Line)) {
    if !plan.wants(engine.name()) {
        return;
    }
    let real = Setup { engine, durability: Durability::PowerLoss, honest_disk: true, seed: plan.seed };
    let line = |text| Line::new(campaign, engine.name(), text);
    for (line, count, setup) in [
        (line("an acknowledged write survives"), plan.count(10_000, 1_000_000), real),
        (line("durability Process").control(), CONTROL, Setup { durability: Durability::Process, ..real }),
        (line("a disk that drops flushes").control(), CONTROL, Setup { honest_disk: false, ..real }),
    ] {
        report(line.run(plan.seed, "images", |line| {
            Crew::run(line, count, |crew, scratch, number| {
                Cutting { setup, number, scratch, crew }.run()?;
                Ok(true)
            });
        }));
    }
}

/// One story, and the power cuts in it.
struct Cutting<'a> {
    setup: Setup,
    number: u64,
    scratch: &'a Scratch,
    crew: &'a Crew,
}

/// The longest sitting, in calls.
const LONGEST: usize = 8;

/// One in so many images is also opened on a simulated disk, and the power goes again while that is done.
const AGAIN: u64 = 40;

/// One in so many images is verified record by record, too.
const VERIFIED: u64 = 8;

impl Cutting<'_> {
    fn run(&self) -> io::Result<()> {
        let Setup { engine, durability, honest_disk, seed } = self.setup;
        let mut rng = rng(seed, self.number);
        let story = Story::of(&mut rng, engine, LONGEST).map_err(io::Error::other)?;
        let directory = self.scratch.empty("machine")?;
        story.prepare(&directory)?;
        let log = if honest_disk { Log::new() } else { Log::without_syncs() };
        let machine = Machine::new(engine, durability, &directory, log)?;
        let mut telling = Telling::new(&machine, &story);
        telling.backs_up = rng.u8(0..3) == 0;
        telling.go_on().map_err(|stop| match stop {
            Stop::Failed(e) => io::Error::other(e),
            Stop::Wrong(verdict) => io::Error::other(format!("story {}: {verdict:?}", self.number)),
        })?;
        let told = telling.told();
        let events = machine.log().take();
        drop(machine);
        cut::each(
            &events,
            0,
            &mut rng,
            |position| told.honest(position),
            |position, image, range, rng| {
                let honest = Honest { states: &story.states, range };
                let cut = Cut { position, honest, story: &story, told: &told };
                let tried = self.look(image, &cut)?;
                if tried.is_multiple_of(AGAIN) {
                    self.cut_again(image, &cut, rng)?;
                }
                Ok(!self.crew.is_done())
            },
        )
    }

    fn look(&self, image: &Image, cut: &Cut<'_>) -> io::Result<u64> {
        let directory = self.scratch.empty("image")?;
        lab::lay_out(image, &directory)?;
        let tried = self.crew.try_one();
        let open = |name: &str| self.setup.engine.open(&directory.join(name), Durability::PowerLoss);
        let context = |what: &str| format!("story {}, {what} after event {}", self.number, cut.position);
        let verdict = lab::look(|| open(STORE), &cut.honest, tried.is_multiple_of(VERIFIED));
        self.crew.count(&verdict, || context("store"));
        if directory.join(BACKUP).exists() {
            let verdict = lab::look(|| open(BACKUP), &cut.whole_backup(), true);
            self.crew.count(&verdict, || context("backup"));
        } else if cut.told.is_backed_up(cut.position) {
            self.crew.count(&Verdict::Lost(1), || context("backup"));
        }
        Ok(tried)
    }

    /// Opens an image on a simulated disk, and cuts the power again meanwhile.
    fn cut_again(&self, image: &Image, cut: &Cut<'_>, rng: &mut Rng) -> io::Result<()> {
        let directory = self.scratch.empty("machine")?;
        lab::lay_out(image, &directory)?;
        let machine = Machine::new(self.setup.engine, Durability::PowerLoss, &directory, Log::new())?;
        // What it comes to without a second cut was looked at before.
        lab::look(|| machine.open(STORE), &cut.honest, false);
        let events = machine.log().take();
        drop(machine);
        cut::each(
            &events,
            0,
            rng,
            |_| cut.honest.range.clone(),
            |_, image, _, _| {
                self.look(image, cut)?;
                Ok(!self.crew.is_done())
            },
        )
    }
}

/// A power cut in a story.
struct Cut<'c> {
    /// After how many events.
    position: usize,
    honest: Honest<'c>,
    story: &'c Story,
    told: &'c Told,
}

impl Cut<'_> {
    /// What a backup has to hold, if it is there.
    fn whole_backup(&self) -> Honest<'_> {
        Honest { states: &self.story.states, range: self.story.last()..=self.story.last() }
    }
}
