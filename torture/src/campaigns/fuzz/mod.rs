//! Everything that is read from outside, as bytes: a kept corpus as it is, then mutated, in front of the functions
//! that read it. Sequences of operations, each of them well formed, are the campaign `model`.
//!
//! The corpus lies in `corpus/`: a folder for each target, a file for each input. An input that finds a fault goes
//! there too, and guards the repair. Input on which a target does not panic but ends the process, as a stack that
//! overflows does, ends the whole campaign. The fuzzer in `fuzz/` starts from the same corpus and runs the same checks.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use store::json::checksum;

use self::mutator::Mutator;
use self::targets::{TARGETS, Target};
use super::{Campaign, Plan};
use crate::crew::Crew;
use crate::lab::{self, Verdict};
use crate::report::Line;
use crate::rng::rng;

mod mutator;
pub(crate) mod targets;

pub(crate) const CAMPAIGN: Campaign = Campaign {
    name: "fuzz",
    about: "mutated documents, cursors, ids, URLs, JSON-RPC, exports and files: no panic, nothing changed on the way",
    run,
    child: None,
};

/// How many mutated inputs come from one generator.
const OF_ONE_GENERATOR: usize = 256;

/// How many inputs the control gets at most: some thousands are enough.
const OF_THE_CONTROL: u64 = 200_000;

/// The longest input that a report shows. A longer one becomes a file of the corpus.
const SHOWN_BYTES: usize = 200;

fn run(plan: &Plan, report: &mut dyn FnMut(Line)) {
    let count = plan.count(1_000_000, 50_000_000);
    for target in TARGETS.iter().filter(|target| plan.engine.is_none() || plan.wants(target.engine)) {
        let line = Line::new(CAMPAIGN.name, target.engine, target.about);
        report(line.attempt(plan.seed, "inputs", |line| {
            fuzz(line, target, corpus(target)?, count * target.percent / 100);
            Ok(())
        }));
    }
    let line = Line::new(CAMPAIGN.name, "none", "a panic behind bytes that no kept input has").control();
    report(line.run(plan.seed, "inputs", |line| {
        // Only the panics of real targets are for people to see.
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        fuzz(line, &PLANTED, vec![br#"{"id":"a","owner":"o"}"#.to_vec()], OF_THE_CONTROL);
        std::panic::set_hook(told);
    }));
}

/// A target with a fault in it.
const PLANTED: Target = Target {
    name: "planted",
    about: "",
    engine: "none",
    corpus: &[],
    percent: 0,
    check: |input| {
        let found = input.windows(8).any(|bytes| bytes == br#":"\u0000"#);
        assert!(!found, "planted");
        Ok(())
    },
};

/// Tries the kept inputs, then mutated ones, on all cores, until one of them finds a fault.
fn fuzz(line: &mut Line, target: &Target, corpus: Vec<Vec<u8>>, count: u64) {
    // Each target has random numbers of its own.
    let seed = line.seed ^ checksum(&[target.name.as_bytes()]);
    let mutator = Mutator::new(corpus);
    let found = AtomicBool::new(false);
    Crew::run(line, count, |crew, _, part| {
        let inputs = match part {
            0 => mutator.corpus().to_vec(),
            part => mutator.inputs(&mut rng(seed, part), OF_ONE_GENERATOR),
        };
        for input in inputs {
            if crew.is_done() || found.load(Ordering::Relaxed) {
                return Ok(false);
            }
            crew.try_one();
            let verdict = lab::caught(|| (target.check)(&input).map(|()| Verdict::Sound(0)));
            if !matches!(verdict, Verdict::Sound(_)) {
                found.store(true, Ordering::Relaxed);
                crew.count(&verdict, || kept(&input, target));
            }
        }
        Ok(true)
    });
}

/// The inputs that are kept for a target, by the names of their files.
fn corpus(target: &Target) -> io::Result<Vec<Vec<u8>>> {
    let mut files = Vec::new();
    for folder in target.corpus {
        for entry in fs::read_dir(root().join(folder))? {
            let entry = entry?;
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    files.iter().map(fs::read).collect()
}

/// Shows an input, or puts it into the corpus of its target and names the file.
fn kept(input: &[u8], target: &Target) -> String {
    match target.corpus.first() {
        Some(folder) if input.len() > SHOWN_BYTES => {
            let file = root().join(folder).join(format!("found-{:016x}", checksum(&[input])));
            match fs::write(&file, input) {
                Ok(()) => file.display().to_string(),
                Err(error) => format!("input that could not be kept ({error}) {}", input.escape_ascii()),
            }
        }
        _ => format!("input {}", input.escape_ascii()),
    }
}

/// Where this crate lies: what finds a fault goes where its sources are.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a debug build, where arithmetic that overflows panics.
    #[test]
    fn what_is_kept_and_some_more_finds_nothing() {
        for target in TARGETS {
            let corpus = corpus(target).unwrap();
            let count = corpus.len() as u64 + 1_000;
            let mut line = Line::new(CAMPAIGN.name, target.engine, target.about);
            fuzz(&mut line, target, corpus, count);
            assert!(line.is_as_it_must_be(), "{}: {:?}", target.name, line.first_fault);
        }
    }

    #[test]
    fn the_shares_are_the_whole() {
        assert_eq!(TARGETS.iter().map(|target| target.percent).sum::<u64>(), 100);
    }
}
