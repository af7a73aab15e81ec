//! The commit queue and the memory engine's lock under a scheduler that tries interleavings out. Their scenarios are
//! tests of their own crates, built with `--cfg shuttle`; this runs them.

use std::io;
use std::process::Command;

use super::{Campaign, Plan};
use crate::report::Line;
use crate::tool;

pub(crate) const CAMPAIGN: Campaign = Campaign {
    name: "schedules",
    about: "the commit queue and the memory engine's lock under a random scheduler",
    run,
    child: None,
};

/// Tests of a crate, and the fault that the control among them must find.
struct Scenarios {
    engine: &'static str,
    what: &'static str,
    tests: &'static [&'static str],
    fault: &'static str,
    control: &'static [&'static str],
}

const SCENARIOS: [Scenarios; 2] = [
    Scenarios {
        engine: "sqlite, redb",
        what: "the commit queue",
        tests: &["-p", "commit-queue", "--test", "schedules"],
        fault: "a writer lets go of the lock before it listens",
        control: &["-p", "commit-queue", "--test", "seeded_fault"],
    },
    Scenarios {
        engine: "memory",
        what: "the divided lock",
        tests: &["-p", "store-memory", "--lib", "lock::schedules::no_schedule"],
        fault: "writers lock in an order of their own",
        control: &["-p", "store-memory", "--lib", "lock::schedules::a_schedule_finds"],
    },
];

fn run(plan: &Plan, report: &mut dyn FnMut(Line)) {
    let missing = tool::missing(&["--version"]);
    for Scenarios { engine, what, tests, fault, control } in SCENARIOS {
        let wanted = engine.split(", ").any(|engine| plan.wants(engine));
        let lines = [
            (Line::new(CAMPAIGN.name, engine, what), tests),
            (Line::new(CAMPAIGN.name, engine, format!("{what}: {fault}")).control(), control),
        ];
        for (line, tests) in lines.into_iter().filter(|_| wanted) {
            report(match &missing {
                Ok(Some(reason)) => line.skipped(reason.clone()),
                Ok(None) => try_schedules(plan, line, tests),
                Err(error) => line.skipped(error.to_string()),
            });
        }
    }
}

/// Builds the tests, then runs them and counts.
fn try_schedules(plan: &Plan, line: Line, tests: &[&str]) -> Line {
    let schedules = plan.count(2_000, 100_000);
    let built = test(tests, schedules).arg("--no-run").output();
    line.run(plan.seed, "schedules", |line| {
        if let Err(error) = built.and_then(|_| count(line, tests, schedules)) {
            line.wrong += 1;
            line.fault(|| error.to_string());
        }
    })
}

/// Each test of a scenario tries so many schedules. A control is a test that passes when its fault is found.
fn count(line: &mut Line, tests: &[&str], schedules: u64) -> io::Result<()> {
    let output = test(tests, schedules).output()?;
    let text = tool::text(&output);
    let (passed, failed) = results(&text);
    if passed + failed == 0 {
        return Err(io::Error::other(format!("no test was run: {text}")));
    }
    line.tried += schedules * (passed + failed);
    line.wrong += if line.control { passed } else { failed };
    if failed > 0 {
        line.fault(|| text);
    }
    Ok(())
}

fn test(tests: &[&str], schedules: u64) -> Command {
    let mut command = tool::cargo(&["test", "--locked"]);
    command.args(tests).env("SCHEDULES", schedules.to_string());
    command
        .env("RUSTFLAGS", "--cfg shuttle")
        .env("CARGO_TARGET_DIR", tool::workspace().join("target/shuttle"));
    command
}

/// How many tests passed and failed, by what the test runner says.
fn results(text: &str) -> (u64, u64) {
    let number = |of: &str| -> u64 {
        let parts = text
            .lines()
            .filter(|line| line.starts_with("test result:"))
            .flat_map(|line| line.split([';', '.']));
        let numbers = parts.filter_map(|part| part.trim().strip_suffix(of)?.trim().parse::<u64>().ok());
        numbers.sum()
    };
    (number("passed"), number("failed"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_are_read() {
        let text = "running 4 tests\ntest result: ok. 3 passed; 0 failed; 0 ignored\n\
                    test result: FAILED. 1 passed; 12 failed; 0 ignored; finished in 0.01s\n";
        assert_eq!(super::results(text), (4, 12));
        assert_eq!(super::results("error: could not compile"), (0, 0));
    }
}
