//! The command line. Values stay text here: a store's own rules check them, so that a bad id is the same error
//! whether it comes as a flag or as JSON.

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::commands::Call;
use crate::commands::budget::BudgetVerb;
use crate::commands::catalog::{AgentVerb, SkillVerb};
use crate::commands::checkpoint::CheckpointVerb;
use crate::commands::copy::CopyArgs;
use crate::commands::run::RunVerb;
use crate::exit::{self, Failure};

/// Look into a store, change it, move it, serve it.
#[derive(Debug, Parser)]
#[command(name = "storectl", version, after_help = exit::HELP, after_long_help = exit::HELP)]
pub(crate) struct Cli {
    /// The store: ENGINE:PATH or memory:, or a bare PATH when one engine is compiled in. All but copy need it
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,
    /// Give one JSON document on standard output, and errors as JSON on standard error
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The time it is, in RFC 3339; the clock's when left out
    #[arg(long, value_name = "TIME", global = true)]
    pub(crate) now: Option<String>,
    /// How long to wait for a store that somebody else holds
    #[arg(long, value_name = "LENGTH", default_value = "5s", global = true)]
    pub(crate) busy_timeout: String,
    #[command(subcommand)]
    pub(crate) noun: Noun,
}

impl Cli {
    /// The URL of the store that the command is about: for a copy, the one that it reads.
    pub(crate) fn url(&self) -> Result<String, Failure> {
        let (kind, text) = match (&self.noun, &self.store) {
            (Noun::Copy(args), None) => return Ok(args.from.clone()),
            (Noun::Copy(_), Some(_)) => {
                (ErrorKind::ArgumentConflict, "copy takes its stores from --from and --to, not from --store")
            }
            (_, Some(url)) => return Ok(url.clone()),
            (_, None) => (ErrorKind::MissingRequiredArgument, "--store <URL> is missing"),
        };
        Err(Failure::Usage(Cli::command().error(kind, text).to_string().trim_end().to_owned()))
    }
}

/// What the command is about.
#[derive(Debug, Subcommand)]
pub(crate) enum Noun {
    /// Skills: documents, versions, schedules
    #[command(subcommand)]
    Skill(SkillVerb),
    /// Agents: documents, versions, schedules, webhooks, channels
    #[command(subcommand)]
    Agent(AgentVerb),
    /// Budgets: what callers spend
    #[command(subcommand)]
    Budget(BudgetVerb),
    /// Runs and their events
    #[command(subcommand)]
    Run(RunVerb),
    /// Checkpoints of runs under way
    #[command(subcommand)]
    Checkpoint(CheckpointVerb),
    /// Read everything and check it; problems are exit code 6
    Verify,
    /// Write a consistent copy while others go on
    Backup {
        /// The file to write; it must not exist
        to: String,
    },
    /// Copy everything into another store, of whatever engine, and compare the two
    Copy(CopyArgs),
    /// Write everything as JSON Lines
    Export {
        /// The file to write, which must not exist, compressed if it ends in .gz or .zst; standard output when left
        /// out or -
        to: Option<String>,
    },
    /// Read an export into an empty store, all or nothing
    Import {
        /// The file to read, decompressed if it ends in .gz or .zst; standard input when -
        from: String,
    },
    /// What the store is
    Info,
    /// Serve the store as JSON-RPC 2.0: a request on each line of standard input, an answer on each of standard output
    Rpc,
}

/// Which page of a list.
#[derive(Debug, Args)]
pub(crate) struct PageArgs {
    /// How many items, 1 to 1000
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: u64,
    /// Where to go on: the cursor that came with the page before
    #[arg(long)]
    pub(crate) cursor: Option<String>,
}

/// Who claims, and how much for how long.
#[derive(Debug, Args)]
pub(crate) struct ClaimArgs {
    /// The worker that claims
    #[arg(long)]
    pub(crate) worker: String,
    /// For how long
    #[arg(long, value_name = "LENGTH", default_value = "5m")]
    pub(crate) lease: String,
    /// How many at most
    #[arg(long, default_value_t = 1)]
    pub(crate) max: u64,
}

impl ClaimArgs {
    /// Puts them into a call.
    pub(crate) fn put(self, call: Call) -> Call {
        call.with("worker", self.worker).with("lease", self.lease).with("max", self.max)
    }
}
