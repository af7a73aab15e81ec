//! What runs the peers: pinned versions from their registries, kept in folders that git ignores.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::subject::Result;

/// What a peer runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Runtime {
    /// A virtual environment with what `requirements.txt` names.
    Python,
    /// The packages of `package-lock.json`, which bring their Node along.
    Node,
    /// A workspace of its own, because its crates bring another SQLite.
    Cargo,
}

impl Runtime {
    /// Installs what is not there yet; gives the program to call.
    pub(super) fn install(self) -> Result<PathBuf> {
        let folder = folder();
        match self {
            Runtime::Python => {
                let program = folder.join("venv/bin/python");
                once(&folder.join("requirements.txt"), &folder.join("venv/installed"), || {
                    run("python3", &["-m", "venv", "venv"])?;
                    run("venv/bin/python", &["-m", "pip", "install", "-q", "-r", "requirements.txt"])
                })?;
                Ok(program)
            }
            Runtime::Node => {
                once(&folder.join("package-lock.json"), &folder.join("node_modules/installed"), || {
                    run("npm", &["ci", "--no-audit", "--no-fund"])
                })?;
                Ok(folder.join("node_modules/.bin/node"))
            }
            Runtime::Cargo => {
                run(
                    "cargo",
                    &["build", "--quiet", "--release", "--locked", "--manifest-path", "rust/Cargo.toml"],
                )?;
                Ok(folder.join("rust/target/release/peers"))
            }
        }
    }
}

/// Where the peers are.
pub(super) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

/// Installs unless the mark says that it was done for just these pins.
fn once(pins: &Path, mark: &Path, install: impl FnOnce() -> Result<()>) -> Result<()> {
    let pins = fs::read(pins)?;
    if mark.exists() && fs::read(mark)? == pins {
        return Ok(());
    }
    install()?;
    Ok(fs::write(mark, pins)?)
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    output(Command::new(program).current_dir(folder()).args(arguments)).map(drop)
}

/// What a command prints.
///
/// # Errors
/// What it says when it fails, or that it is not there.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last: Vec<_> = said.lines().rev().filter(|line| !line.trim().is_empty()).take(3).collect();
        return Err(format!("{program}: {}: {}", output.status, last.join(" / ")).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
