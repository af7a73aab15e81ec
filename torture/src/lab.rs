//! Where what is left of a disk is looked at: its files are laid out, opened by the real engine, and compared with
//! the states that a store can honestly be in.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fault_disk::Image;
use store::transfer::Digests;
use store::{Result, Store};

use crate::place;
use crate::report::Line;
use crate::workload::digests;

/// A directory for files that nobody needs to keep, without a symbolic link in its path; removed when it is dropped.
pub(crate) fn scratch() -> io::Result<Scratch> {
    let directory = place::scratch()?;
    Ok(Scratch { path: directory.path().canonicalize()?, _directory: directory })
}

/// See [`scratch`].
pub(crate) struct Scratch {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Scratch {
    /// A directory in it, made when it is not there, with nothing in it.
    pub(crate) fn empty(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path)?;
        for entry in fs::read_dir(&path)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(path)
    }
}

/// Lays the files of an image out in an empty directory.
pub(crate) fn lay_out(image: &Image, directory: &Path) -> io::Result<()> {
    for (path, content) in image {
        fs::write(directory.join(path.file_name().unwrap_or_default()), content)?;
    }
    Ok(())
}

/// The names in a directory, sorted.
pub(crate) fn names(directory: &Path) -> io::Result<Vec<String>> {
    let names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<io::Result<Vec<String>>>()?;
    names.sort();
    Ok(names)
}

/// What a store may hold: the states that its calls lead through, and which of them are honest now.
#[derive(Debug, Clone)]
pub(crate) struct Honest<'s> {
    pub(crate) states: &'s [Digests],
    /// From the last that was acknowledged to the last that was begun.
    pub(crate) range: RangeInclusive<usize>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// One of the honest states, by its number.
    Sound(usize),
    /// A state before what was acknowledged: so many calls are lost.
    Lost(u64),
    /// Anything else.
    Wrong(String),
    Panicked(String),
}

impl Verdict {
    /// Counts what was found into a line.
    pub(crate) fn count(&self, line: &mut Line, context: impl FnOnce() -> String) {
        let text = match self {
            Verdict::Sound(_) => return,
            Verdict::Lost(calls) => {
                line.lost += calls;
                format!("{calls} lost")
            }
            Verdict::Wrong(text) => {
                line.wrong += 1;
                text.clone()
            }
            Verdict::Panicked(text) => {
                line.panicked += 1;
                format!("panicked: {text}")
            }
        };
        line.fault(|| format!("{}: {text}", context()));
    }
}

/// Opens a store, reads all of it, verifies it if asked to, closes it, and says what it held.
pub(crate) fn look(
    open: impl FnOnce() -> Result<std::sync::Arc<dyn Store>>,
    honest: &Honest<'_>,
    verify: bool,
) -> Verdict {
    caught(|| {
        let store = open().map_err(|e| format!("does not open: {}", store::describe(&e)))?;
        let found = digests(&*store).map_err(|e| format!("cannot be read: {}", store::describe(&e)))?;
        if verify {
            let verified =
                store.verify().map_err(|e| format!("cannot be verified: {}", store::describe(&e)))?;
            if !verified.is_sound() {
                return Err(format!("is not sound: {:?}", verified.problems));
            }
        }
        store.close().map_err(|e| format!("does not close: {}", store::describe(&e)))?;
        Ok(honest.judge(&found))
    })
}

/// The verdict of work that may panic.
pub(crate) fn caught(work: impl FnOnce() -> std::result::Result<Verdict, String>) -> Verdict {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(verdict) => verdict.unwrap_or_else(Verdict::Wrong),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message");
            Verdict::Panicked(text.to_owned())
        }
    }
}

impl Honest<'_> {
    /// What a state that was found amounts to.
    pub(crate) fn judge(&self, found: &Digests) -> Verdict {
        let is = |number: &usize| self.states.get(*number) == Some(found);
        if let Some(number) = self.range.clone().find(is) {
            return Verdict::Sound(number);
        }
        let acknowledged = *self.range.start();
        match (0..acknowledged).rfind(is) {
            Some(number) => Verdict::Lost((acknowledged - number) as u64),
            None if (0..self.states.len()).any(|number| is(&number)) => {
                Verdict::Wrong("holds what was not written yet".to_owned())
            }
            None => {
                let records: BTreeMap<_, _> =
                    found.iter().map(|(seam, found)| (seam, found.records)).collect();
                Verdict::Wrong(format!("is in no state that it ever had: {records:?}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::rng;
    use crate::workload::{Host, states};

    #[test]
    fn a_state_is_judged_by_what_was_acknowledged() {
        let calls = Host::new(rng(1, 0), "a").calls(6);
        let states = states(None, &calls).unwrap();
        let judge = |number: usize| Honest { states: &states, range: 3..=4 }.judge(&states[number]);
        assert_eq!((judge(3), judge(4)), (Verdict::Sound(3), Verdict::Sound(4)));
        assert_eq!(judge(1), Verdict::Lost(2));
        assert!(matches!(judge(6), Verdict::Wrong(_)), "from the future");
        let nothing = Honest { states: &states, range: 3..=4 }.judge(&Digests::default());
        assert!(matches!(nothing, Verdict::Wrong(_)));
    }

    /// A host that is refused would leave a campaign with nothing to compare.
    #[test]
    fn no_call_of_a_host_is_refused() {
        for part in 0..200 {
            let calls = Host::new(rng(2, part), "a").calls(40);
            assert_eq!(states(None, &calls).unwrap().len(), 41);
        }
    }
}
