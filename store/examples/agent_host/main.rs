//! A small but real host: it loads skills and agents from files, runs them by schedule, message and webhook for a
//! simulated week, meters what they spend, and tells about it.
//!
//! ```text
//! cargo run --release --example agent_host
//! cargo run --release --example agent_host -- --skills ~/skills --docs ~/notes
//! cargo run --release --example agent_host -- --store sqlite:week.db --kill-after 100   # dies half way
//! cargo run --release --example agent_host -- --store sqlite:week.db                    # goes on
//! ```
//!
//! The report on stdout is the same on every engine, and after any number of crashes; what differs (the engine, what
//! a sync found) goes to stderr.
//!
//! | file | what is in it |
//! |---|---|
//! | `week.rs` | from the store's URL to the report |
//! | `host.rs` | the clock, what is claimed at each tick, how a restart resumes |
//! | `runs.rs` | how a run begins, goes on and ends: one transaction each |
//! | `world.rs` | messages, webhooks, people who edit |
//! | `work.rs`, `markdown.rs` | what the skills do |
//! | `schedule.rs` | cron expressions and time zones |
//! | `report.rs`, `table.rs` | what is told at the end |

mod flags;
mod host;
mod markdown;
mod report;
mod runs;
mod schedule;
mod table;
mod week;
mod work;
mod world;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use store::{Error, Result, describe};

use crate::flags::Flags;

fn main() -> ExitCode {
    let flags = Flags::parse();
    let report = week::week(&flags, &mut tell);
    let written = report.and_then(|report| {
        std::io::stdout().write_all(report.as_bytes()).map_err(|e| Error::backend("writing the report", e))
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // When stderr is closed too there is nobody left to tell.
            drop(tell(format!("error: {}", describe(&error))));
            ExitCode::FAILURE
        }
    }
}

/// Says something that is not part of the report.
fn tell(text: String) -> Result<()> {
    writeln!(std::io::stderr(), "{text}").map_err(|e| Error::backend("writing to stderr", e))
}
