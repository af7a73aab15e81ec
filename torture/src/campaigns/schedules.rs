//! The commit queue and the memory engine's lock under schedulers that try interleavings out: shuttle draws them at
//! random, loom goes through all of a few writers. The scenarios are tests of their own crates, built for the scheduler;
//! this runs them.

use std::io;
use std::process::{Command, Output};

use super::{Campaign, Plan};
use crate::report::Line;
use crate::tool;

pub(crate) const CAMPAIGN: Campaign = Campaign {
    name: "schedules",
    about: "the commit queue and the memory engine's lock under schedulers that try interleavings out",
    run,
    child: None,
};

/// Tests of a crate, and the fault that the control among them must find.
struct Scenarios {
    engine: &'static str,
    what: &'static str,
    scheduler: &'static str,
    tests: &'static [&'static str],
    fault: &'static str,
    control: &'static [&'static str],
}

const SCENARIOS: [Scenarios; 3] = [
    Scenarios {
        engine: "sqlite, redb",
        what: "the commit queue",
        scheduler: "shuttle",
        tests: &["-p", "commit-queue", "--test", "schedules"],
        fault: "a writer lets go of the lock before it listens",
        control: &["-p", "commit-queue", "--test", "seeded_fault"],
    },
    Scenarios {
        engine: "sqlite, redb",
        what: "the commit queue, every schedule of two or three writers",
        scheduler: "loom",
        tests: &["--release", "-p", "commit-queue", "--test", "every_schedule", "no_schedule"],
        fault: "a writer lets go of the lock before it listens",
        control: &["--release", "-p", "commit-queue", "--test", "every_schedule", "a_schedule_finds"],
    },
    Scenarios {
        engine: "memory",
        what: "the divided lock",
        scheduler: "shuttle",
        tests: &["-p", "store-memory", "--lib", "lock::schedules::no_schedule"],
        fault: "writers lock in an order of their own",
        control: &["-p", "store-memory", "--lib", "lock::schedules::a_schedule_finds"],
    },
];

fn run(plan: &Plan, report: &mut dyn FnMut(Line)) {
    let missing = tool::missing(&["--version"]);
    for Scenarios { engine, what, scheduler, tests, fault, control } in SCENARIOS {
        let wanted = engine.split(", ").any(|engine| plan.wants(engine));
        let lines = [
            (Line::new(CAMPAIGN.name, engine, what), tests),
            (Line::new(CAMPAIGN.name, engine, format!("{what}: {fault}")).control(), control),
        ];
        for (line, tests) in lines.into_iter().filter(|_| wanted) {
            report(match &missing {
                Ok(Some(reason)) => line.skipped(reason.clone()),
                Ok(None) => try_schedules(plan, line, scheduler, tests),
                Err(error) => line.skipped(error.to_string()),
            });
        }
    }
}

/// Builds the tests, then runs them and counts.
fn try_schedules(plan: &Plan, line: Line, scheduler: &str, tests: &[&str]) -> Line {
    let schedules = plan.count(2_000, 100_000);
    let built = command(scheduler, tests).arg("--no-run").output();
    let mut trying = command(scheduler, tests);
    trying.env("SCHEDULES", schedules.to_string()).envs(plan.full.then_some(("FULL", "1")));
    line.run(plan.seed, "schedules", |line| {
        let tried = built.and_then(|_| trying.output());
        if let Err(error) = tried.and_then(|output| count(line, &output, schedules)) {
            line.wrong += 1;
            line.fault(|| error.to_string());
        }
    })
}

/// Each test of a scenario tries so many schedules, or says how many it has tried. A control is a test that passes when
/// its fault is found.
fn count(line: &mut Line, output: &Output, schedules: u64) -> io::Result<()> {
    let text = tool::text(output);
    let (passed, failed) = results(&text);
    if passed + failed == 0 {
        return Err(io::Error::other(format!("no test was run: {text}")));
    }
    line.tried += match said(&text, "schedules tried: ") {
        0 => schedules * (passed + failed),
        tried => tried,
    };
    line.wrong += if line.control { passed } else { failed };
    if failed > 0 {
        line.fault(|| text);
    }
    Ok(())
}

fn command(scheduler: &str, tests: &[&str]) -> Command {
    let mut command = tool::cargo(&["test", "--locked"]);
    let target = tool::workspace().join("target").join(scheduler);
    command.args(tests).env("RUSTFLAGS", format!("--cfg {scheduler}")).env("CARGO_TARGET_DIR", target);
    command
}

/// The sum of the numbers on the lines that begin so.
fn said(text: &str, beginning: &str) -> u64 {
    text.lines().filter_map(|line| line.strip_prefix(beginning)?.parse::<u64>().ok()).sum()
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
        assert_eq!(super::said("schedules tried: 3\nok\nschedules tried: 4\n", "schedules tried: "), 7);
    }
}
