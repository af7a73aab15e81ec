//! Runs `storectl` on a store in a directory of its own.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The time that all commands are told it is.
pub(crate) const NOW: &str = "2026-01-31T09:00:00Z";

/// A directory, and the store in it.
pub(crate) struct Bench {
    pub(crate) directory: TempDir,
}

/// What a command gave.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Bench { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name).display().to_string()
    }

    pub(crate) fn url(&self) -> String {
        format!("sqlite:{}", self.path("store.db").display())
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_storectl"));
        command.args(["--store", &self.url()]).args(args).env_remove("STORECTL_KEY_FILE");
        if !args.contains(&"--now") {
            command.args(["--now", NOW]);
        }
        command
    }

    /// Runs a command on the store.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args), "")
    }

    /// Runs a command with something on standard input.
    pub(crate) fn run_with(&self, args: &[&str], input: &str) -> Ran {
        finish(self.command(args), input)
    }

    /// Runs a command that must succeed, and gives its one JSON document.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let ran = self.run(&[&["--json"], args].concat());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{args:?}");
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{args:?}: {error}: {}", ran.out))
    }

    /// Runs a command that must succeed, and gives what people see.
    pub(crate) fn text(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{args:?}");
        ran.out
    }

    /// Runs a command that must fail with this exit code, and gives the error on standard error.
    pub(crate) fn fails(&self, code: i32, args: &[&str]) -> Value {
        let ran = self.run(&[&["--json"], args].concat());
        assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{args:?}: {}", ran.err);
        let error: Value = serde_json::from_str(&ran.err).unwrap();
        let error = error["error"].clone();
        for member in ["kind", "message", "retryable", "outcome"] {
            assert!(!error[member].is_null(), "{args:?}: no {member} in {error}");
        }
        error
    }

    /// A skill in a file, and saved.
    pub(crate) fn skill(&self, id: &str) -> String {
        let doc = format!(
            r#"{{"id":"{id}","owner":"ana","name":"{id}","description":"does {id}","body":"line 1\nline 2\n",
                "tags":["t"],"schedule":{{"cron":"@hourly","next_run_at":"2026-01-31T08:00:00Z"}},"x-new":{{"kept":1.5}}}}"#
        );
        let file = self.file(&format!("{id}.json"), &doc);
        self.json(&["skill", "put", &file, "--expect", "absent"]);
        file
    }
}

pub(crate) fn finish(mut command: Command, input: &str) -> Ran {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that does not read its input may have closed it.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    Ran {
        code: status.code().unwrap_or(-1),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}
