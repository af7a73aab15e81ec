//! Several threads that do the numbered parts of one configuration, until enough was tried.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::lab::{self, Scratch, Verdict};
use crate::report::Line;

/// What the threads share.
pub(crate) struct Crew {
    /// How many are to be tried.
    count: u64,
    tried: AtomicU64,
    line: Mutex<Line>,
    /// It is a control and has failed, as it must: more faults would say no more.
    has_failed: AtomicBool,
}

impl Crew {
    /// Does parts 0, 1, 2 … on all cores, each thread in a directory of its own, until `count` were tried, with what the
    /// line had tried before, or there is no such part: then `part` says no. A control ends when it fails.
    pub(crate) fn run(
        line: &mut Line,
        count: u64,
        part: impl Fn(&Crew, &Scratch, u64) -> io::Result<bool> + Sync,
    ) {
        let crew = Crew {
            count,
            tried: AtomicU64::new(line.tried),
            line: Mutex::new(line.clone()),
            has_failed: AtomicBool::new(false),
        };
        let next = AtomicU64::new(0);
        let work = || -> io::Result<()> {
            let scratch = lab::scratch()?;
            while !crew.is_done() && part(&crew, &scratch, next.fetch_add(1, Ordering::Relaxed))? {}
            Ok(())
        };
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    if let Err(e) = work() {
                        crew.count(&Verdict::Wrong(e.to_string()), || "the campaign broke off".to_owned());
                    }
                });
            }
        });
        *line = Line { tried: crew.tried.load(Ordering::Relaxed), ..crew.line.into_inner() };
    }

    pub(crate) fn is_done(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed) || self.tried.load(Ordering::Relaxed) >= self.count
    }

    /// Counts one more that is tried; gives its number.
    pub(crate) fn try_one(&self) -> u64 {
        self.tried.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts what was found.
    pub(crate) fn count(&self, verdict: &Verdict, context: impl FnOnce() -> String) {
        if !matches!(verdict, Verdict::Sound(_)) {
            let mut line = self.line.lock();
            verdict.count(&mut line, context);
            self.has_failed.store(line.control, Ordering::Relaxed);
        }
    }
}
