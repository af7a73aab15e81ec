//! The tools that some campaigns run: cargo, on this workspace, and those of the system.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The workspace that this program was built from.
pub(crate) fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// A command of cargo on the workspace, without the environment of the cargo that may have started this program.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(workspace()).stdin(Stdio::null());
    command.env("CARGO_TERM_COLOR", "never").env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    command
}

/// Why cargo cannot be run here, if it cannot.
///
/// # Errors
/// When not even that can be found out.
pub(crate) fn missing(arguments: &[&str]) -> io::Result<Option<String>> {
    if !workspace().join("Cargo.toml").exists() {
        return Ok(Some(format!("the workspace is not at {}", workspace().display())));
    }
    match cargo(arguments).output() {
        Ok(output) if output.status.success() => Ok(None),
        Ok(_) => Ok(Some(format!("`cargo {}` does not run here", arguments.join(" ")))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Some("there is no cargo here".into())),
        Err(e) => Err(e),
    }
}

/// What a command said, its output and its complaints.
pub(crate) fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

/// Runs a tool of the system with some options on some paths.
///
/// # Errors
/// When it is not there or fails: the first line of its complaint.
pub(crate) fn run(name: &str, options: &[&str], paths: &[&Path]) -> io::Result<()> {
    let output = Command::new(name).args(options).args(paths).stdin(Stdio::null()).output();
    let output = output.map_err(|e| io::Error::new(e.kind(), format!("{name}: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = text(&output);
    Err(io::Error::other(complaint.lines().next().unwrap_or(name).to_owned()))
}
