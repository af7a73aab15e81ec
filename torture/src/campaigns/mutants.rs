//! Small changes to the code (`cargo mutants`), each of which some test must notice. `.cargo/mutants.toml` says what
//! is changed.

use std::error::Error;
use std::path::Path;

use serde::Deserialize;

use super::{Campaign, Plan};
use crate::place::scratch;
use crate::report::Line;
use crate::tool;

pub(crate) const CAMPAIGN: Campaign = Campaign {
    name: "mutants",
    about: "small changes to the code (cargo-mutants): some test must notice each",
    run,
    child: None,
};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// Packages whose mutants are tried together, and those whose tests decide. What a crate promises by itself its own
/// tests decide; what it promises as an engine, the laws.
const PARTS: [(&str, &str); 5] = [
    ("store-api", "store-api,store-memory,store-redb"),
    ("commit-queue", "commit-queue"),
    ("store-memory", "store-memory"),
    ("store-sqlite", "store-sqlite"),
    ("store-redb", "store-redb"),
];

fn run(plan: &Plan, report: &mut dyn FnMut(Line)) {
    if let Some(reason) = why_not(plan) {
        return report(Line::new(CAMPAIGN.name, "all", "cargo-mutants").skipped(reason));
    }
    for (package, tests) in PARTS {
        let line = Line::new(CAMPAIGN.name, package, format!("decided by the tests of {tests}"));
        report(line.run(plan.seed, "mutants", |line| {
            if let Err(error) = mutate(line, package, tests) {
                line.wrong += 1;
                line.fault(|| error.to_string());
            }
        }));
    }
}

/// Why mutants are not tried, if they are not.
fn why_not(plan: &Plan) -> Option<String> {
    if !plan.full {
        return Some("the full form only: each mutant is a build and a run of tests".into());
    }
    match tool::missing(&["mutants", "--version"]) {
        Ok(None) => None,
        Ok(Some(reason)) => Some(reason),
        Err(error) => Some(error.to_string()),
    }
}

/// What `cargo mutants` writes about a run.
#[derive(Debug, Deserialize)]
struct Outcomes {
    caught: u64,
    missed: u64,
    timeout: u64,
    unviable: u64,
}

/// Tries the mutants of a package, those of the files that `.cargo/mutants.toml` names. One that hangs the tests was
/// noticed; one that does not compile is none.
fn mutate(line: &mut Line, package: &str, tests: &str) -> Result {
    let out = scratch()?;
    let directory = out.path().display().to_string();
    let mut command = tool::cargo(&["mutants", "--no-shuffle", "--colors", "never", "--test-package", tests]);
    command.args(["--output", &directory, "--package", package]);
    // Only verdicts count: nobody reads a shortened sequence, or steps through the tests.
    command.env("CONTRACT_SHRINKS", "0").env("CARGO_PROFILE_DEV_DEBUG", "0");
    let output = command.output()?;
    let results = out.path().join("mutants.out");
    let Some(found) = outcomes(&results)? else {
        return Err(tool::text(&output).into());
    };
    let Outcomes { caught, missed, timeout, unviable } = found;
    line.configuration.push_str(&format!(": {caught} caught, {timeout} hung, {unviable} do not compile"));
    line.tried += caught + missed + timeout;
    line.wrong += missed;
    if missed > 0 {
        let missed = std::fs::read_to_string(results.join("missed.txt"))?;
        line.fault(|| missed.lines().collect::<Vec<_>>().join("; "));
    }
    Ok(())
}

fn outcomes(results: &Path) -> Result<Option<Outcomes>> {
    match std::fs::read(results.join("outcomes.json")) {
        Ok(json) => Ok(Some(serde_json::from_slice(&json)?)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e.into()),
    }
}
