//! One host, whose power goes anywhere in its story, or in a large call at the end of it.

use std::io;
use std::path::Path;

use fastrand::Rng;
use fault_disk::{Image, Log};
use store::{Durability, describe};

use super::{ENOUGH, Setup, VERIFIED, somewhere};
use crate::crew::Crew;
use crate::cut;
use crate::lab::{self, Honest, Scratch, Verdict};
use crate::rng::rng;
use crate::simulation::Machine;
use crate::story::{BACKUP, Operation, STORE, Stop, Story, Telling, Told};

/// One story, and the power cuts in it.
pub(super) struct Cutting<'a> {
    pub(super) setup: Setup,
    /// The call in which the power goes; without one it goes anywhere.
    pub(super) operation: Option<Operation>,
    pub(super) number: u64,
    pub(super) scratch: &'a Scratch,
    pub(super) crew: &'a Crew,
}

/// The longest sitting, in calls.
const LONGEST: usize = 8;

/// One in so many images is also opened on a simulated disk, and the power goes again while that is done.
const AGAIN: u64 = 40;

/// In one of so many images in which the power went inside a large call, the host goes on from there.
const GOES_ON: u64 = 4;

impl Cutting<'_> {
    pub(super) fn run(&self) -> io::Result<()> {
        let Setup { engine, seed, .. } = self.setup;
        let mut rng = rng(seed, self.number);
        let story = match self.operation {
            None => Story::of(&mut rng, engine, LONGEST),
            Some(operation) => Story::ending_in(operation, &mut rng, engine),
        };
        let story = story.map_err(io::Error::other)?;
        let directory = self.scratch.empty("machine")?;
        story.prepare(&directory)?;
        let machine = self.setup.machine(&directory, self.setup.log())?;
        let mut telling = Telling::new(&machine, &story);
        telling.backs_up = match self.operation {
            None => rng.u8(0..3) == 0,
            Some(operation) => operation == Operation::Backup,
        };
        telling.go_on().map_err(|stop| match stop {
            Stop::Failed(e) => io::Error::other(e),
            Stop::Wrong(verdict) => io::Error::other(format!("story {}: {verdict:?}", self.number)),
        })?;
        let told = telling.told();
        let events = machine.log().take();
        drop(machine);
        let (first, most) = match self.operation {
            None => (0, u64::MAX),
            Some(_) => (somewhere(told.begun..events.len(), &mut rng), ENOUGH),
        };
        let mut looked = 0;
        cut::each(
            &events,
            first,
            &mut rng,
            |position| told.honest(position),
            |position, image, range, rng| {
                let honest = Honest { states: &story.states, range };
                let cut = Cut { position, honest, story: &story, told: &told };
                let tried = self.look(image, &cut)?;
                if tried.is_multiple_of(AGAIN) {
                    self.cut_again(image, &cut, rng)?;
                }
                looked += 1;
                Ok(!self.crew.is_done() && looked < most)
            },
        )
    }

    fn look(&self, image: &Image, cut: &Cut<'_>) -> io::Result<u64> {
        let directory = self.scratch.empty("image")?;
        lab::lay_out(image, &directory)?;
        let tried = self.crew.try_one();
        let context = |what: &str| format!("story {}, {what} after event {}", self.number, cut.position);
        let found = self.look_at(&directory, STORE, &cut.honest, tried.is_multiple_of(VERIFIED));
        self.crew.count(&found, || context("store"));
        if directory.join(BACKUP).exists() {
            let verdict = self.look_at(&directory, BACKUP, &cut.whole(), true);
            self.crew.count(&verdict, || context("backup"));
        } else if cut.told.is_backed_up(cut.position) {
            self.crew.count(&Verdict::Lost(1), || context("backup"));
        }
        if let (Verdict::Sound(state), Some(operation)) = (found, self.operation)
            && tried.is_multiple_of(GOES_ON)
        {
            let verdict = self.go_on(&directory, state, operation, cut);
            self.crew.count(&verdict, || context("going on"));
        }
        Ok(tried)
    }

    fn look_at(&self, directory: &Path, name: &str, honest: &Honest<'_>, verify: bool) -> Verdict {
        let open = || self.setup.engine.open(&directory.join(name), Durability::PowerLoss);
        lab::look(open, honest, verify)
    }

    /// What is left undone is done, and nothing is in the way of it. So the story ends as it would have.
    fn go_on(&self, directory: &Path, state: usize, operation: Operation, cut: &Cut<'_>) -> Verdict {
        lab::caught(|| {
            let backup = directory.join(BACKUP);
            let go_on = || {
                let store = self.setup.engine.open(&directory.join(STORE), Durability::PowerLoss)?;
                cut.story.calls().skip(state).try_for_each(|call| call.make(&*store))?;
                if operation == Operation::Backup && !backup.exists() {
                    store.backup(&backup)?;
                }
                store.close()
            };
            let was_backed_up = backup.exists();
            go_on().map_err(|e| describe(&e))?;
            if operation == Operation::Backup && !was_backed_up {
                let left = lab::names(directory).map_err(|e| e.to_string())?;
                if left != [BACKUP, STORE] {
                    return Err(format!("the next backup left {left:?}"));
                }
                let verdict = self.look_at(directory, BACKUP, &cut.whole(), true);
                if !matches!(verdict, Verdict::Sound(_)) {
                    return Ok(verdict);
                }
            }
            Ok(self.look_at(directory, STORE, &cut.whole(), true))
        })
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
    /// What there is at the end of the story; and in a backup, if it is there.
    fn whole(&self) -> Honest<'_> {
        Honest { states: &self.story.states, range: self.story.last()..=self.story.last() }
    }
}
