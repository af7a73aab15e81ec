//! What the command line says.

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Parser;
use store::window::parse_length;

/// A host that runs agents and skills on real files for a week of simulated time.
#[derive(Debug, Clone, Parser)]
pub(crate) struct Flags {
    /// The directory with the skills (SKILL.md).
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/sample/skills"))]
    pub(crate) skills: PathBuf,
    /// The directory with the agents (Markdown with front matter).
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/sample/agents"))]
    pub(crate) agents: PathBuf,
    /// The directory with the pages that the skills work on.
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/sample/docs"))]
    pub(crate) docs: PathBuf,
    /// The store; without it one that is gone when the host ends.
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,
    /// When the simulated time starts.
    #[arg(long, value_name = "RFC3339", default_value = "2026-10-24T00:00:00Z")]
    pub(crate) start: DateTime<Utc>,
    /// How much simulated time passes between two looks at what is due.
    #[arg(long, value_name = "LENGTH", default_value = "1h", value_parser = length)]
    pub(crate) tick: Duration,
    /// How many times the host looks.
    #[arg(long, value_name = "N", default_value_t = 168)]
    pub(crate) ticks: u64,
    /// Kills the process after so many steps of work, as a crash would. Start it again to see it resume.
    #[arg(long, value_name = "N")]
    pub(crate) kill_after: Option<u64>,
}

fn length(text: &str) -> Result<Duration, String> {
    let length = parse_length("tick", text).map_err(|error| error.to_string())?;
    if length.is_zero() {
        return Err("a tick must take some time".to_owned());
    }
    Ok(length)
}
