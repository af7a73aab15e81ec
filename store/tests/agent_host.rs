//! The example host: its parts, and that a week which was cut off again and again ends as one that was not.

#![allow(dead_code)] // of the example's parts: it uses all of them, a test does not
#![allow(clippy::unwrap_used)] // in a test, also in its helpers, each is an assertion

#[path = "../examples/agent_host/flags.rs"]
mod flags;
#[path = "../examples/agent_host/host.rs"]
mod host;
#[path = "../examples/agent_host/markdown.rs"]
mod markdown;
#[path = "../examples/agent_host/report.rs"]
mod report;
#[path = "../examples/agent_host/runs.rs"]
mod runs;
#[path = "../examples/agent_host/schedule.rs"]
mod schedule;
#[path = "../examples/agent_host/table.rs"]
mod table;
#[path = "../examples/agent_host/week.rs"]
mod week;
#[path = "../examples/agent_host/work.rs"]
mod work;
#[path = "../examples/agent_host/world.rs"]
mod world;

use std::path::Path;
use std::process::Command;

use clap::Parser;

/// In the environment of a child process: the flags of the host that it is to be, one on each line.
const CHILD: &str = "AGENT_HOST_FLAGS";
/// In the environment of a child process: the file that its report goes to.
const REPORT: &str = "AGENT_HOST_REPORT";

/// Not a test by itself: what a child process of the tests below does.
#[test]
fn child() {
    let Ok(flags) = std::env::var(CHILD) else { return };
    let flags = flags::Flags::parse_from(std::iter::once("agent_host").chain(flags.lines()));
    let report = week::week(&flags, &mut |_| Ok(())).unwrap();
    std::fs::write(std::env::var_os(REPORT).unwrap(), report).unwrap();
}

/// Runs a host in a process of its own; gives its report, or `None` when it was killed.
fn host(directory: &Path, flags: &[&str]) -> Option<String> {
    let report = directory.join("report");
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child"])
        .env(CHILD, flags.join("\n"))
        .env(REPORT, &report)
        .output()
        .unwrap()
        .status;
    status.success().then(|| std::fs::read_to_string(report).unwrap())
}

/// The engines that keep a store over a restart.
fn engines_with_a_file() -> Vec<&'static str> {
    store::engines().into_iter().filter(|engine| *engine != "memory").collect()
}

#[test]
fn every_engine_tells_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let mut reports = Vec::new();
    for engine in store::engines() {
        let path = directory.path().join(engine);
        let file = if engine == "memory" { String::new() } else { path.display().to_string() };
        reports.push(host(directory.path(), &["--store", &format!("{engine}:{file}")]).unwrap());
    }
    assert!(reports.windows(2).all(|pair| pair[0] == pair[1]), "{reports:#?}");
    for report in &reports {
        assert!(report.contains("Together 113 runs and $4.18."), "{report}");
        assert!(report.lines().count() <= 125, "{}", report.lines().count());
    }
}

#[test]
fn a_week_that_was_cut_off_again_and_again_ends_as_one_that_was_not() {
    if engines_with_a_file().is_empty() {
        println!("skipped: no engine of this build keeps anything over a restart");
    }
    for engine in engines_with_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let url = |name: &str| format!("{engine}:{}", directory.path().join(name).display());
        let whole = host(directory.path(), &["--store", &url("whole")]).unwrap();
        let (cut, mut killed) = (url("cut"), 0);
        let report = loop {
            match host(directory.path(), &["--store", &cut, "--kill-after", "47"]) {
                Some(report) => break report,
                None => killed += 1,
            }
            assert!(killed < 100, "the week does not end");
        };
        assert!(killed >= 5, "{engine}: {killed}");
        assert_eq!(report, whole, "{engine}");
        let again = host(directory.path(), &["--store", &cut]).unwrap();
        assert_eq!(again, whole, "{engine}: once it is over nothing more happens");
    }
}

#[test]
fn the_collections_of_others_are_lived_with() {
    let directory = tempfile::tempdir().unwrap();
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../store-files/tests");
    let mut flags = vec!["--skills", corpus, "--agents", corpus, "--docs", corpus, "--ticks", "24"];
    let Some(engine) = store::engines().into_iter().next() else { return };
    let url = if engine == "memory" {
        "memory:".to_owned()
    } else {
        format!("{engine}:{}", directory.path().join("others").display())
    };
    flags.extend(["--store", &url]);
    let report = host(directory.path(), &flags).unwrap();
    assert!(report.contains("Housekeeping"), "{report}");
}
