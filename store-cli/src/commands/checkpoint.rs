//! `checkpoint`: where runs stand.

use clap::Subcommand;
use serde_json::json;
use store::{Entity, Result};

use super::{Answer, Call, Context, object, optional_json};
use crate::args::{ClaimArgs, PageArgs};
use crate::render::{Cell, Column, Look, column};

/// The verbs of checkpoints.
#[derive(Debug, Subcommand)]
pub(crate) enum CheckpointVerb {
    /// Save where a run stands
    Save {
        run: String,
        /// How far it is: never goes back
        iteration: u64,
        /// A JSON file with what it needs to go on, or - for standard input
        #[arg(long, value_name = "FILE")]
        state: Option<String>,
        /// A JSON file with what a host needs to know before it resumes, or - for standard input
        #[arg(long, value_name = "FILE")]
        meta: Option<String>,
    },
    /// Show the checkpoint of a run
    Load { run: String },
    /// List all checkpoints
    List {
        #[command(flatten)]
        page: PageArgs,
    },
    /// Remove the checkpoint of a run
    Rm { run: String },
    /// Claim checkpoints that nobody holds
    Claim {
        #[command(flatten)]
        claim: ClaimArgs,
    },
    /// Claim the checkpoint of one run
    ClaimOne {
        run: String,
        #[arg(long)]
        worker: String,
        #[arg(long, value_name = "LENGTH", default_value = "5m")]
        lease: String,
    },
    /// Hold a claim longer
    Renew {
        run: String,
        #[arg(long)]
        token: u64,
        #[arg(long, value_name = "LENGTH", default_value = "5m")]
        lease: String,
    },
    /// Give a claim back
    Release {
        run: String,
        #[arg(long)]
        token: u64,
    },
}

const CHECKPOINTS: &[Column] = &[
    column("RUN", "/run", Cell::Text),
    column("ITERATION", "/iteration", Cell::Number),
    column("SAVED", "/updated_at", Cell::Time),
    column("HELD BY", "/lease/worker", Cell::Text),
    column("UNTIL", "/lease/until", Cell::Time),
    column("TOKEN", "/lease/token", Cell::Number),
];

impl CheckpointVerb {
    pub(crate) fn run(self, context: &Context) -> Result<Answer> {
        let (call, look) = self.call(context)?;
        context.answer(call, look)
    }

    fn call(self, context: &Context) -> Result<(Call, Look)> {
        match self {
            CheckpointVerb::Save { run, iteration, state, meta } => {
                let checkpoint = object([
                    ("run", json!(run)),
                    ("iteration", json!(iteration)),
                    ("state", optional_json("state", state.as_deref())?),
                    ("meta", optional_json("meta", meta.as_deref())?),
                    ("updated_at", json!(context.now)),
                ]);
                Ok((Call::new("checkpoints.save").with("checkpoint", checkpoint), Look::Said("saved")))
            }
            CheckpointVerb::Load { run } => {
                let call = Call::new("checkpoints.load").with("run", run.as_str());
                Ok((call.or_absent(Entity::Checkpoint, run), Look::Record))
            }
            CheckpointVerb::List { page } => {
                Ok((Call::new("checkpoints.interrupted").page(page), Look::Table(CHECKPOINTS)))
            }
            CheckpointVerb::Rm { run } => {
                Ok((Call::new("checkpoints.delete").with("run", run), Look::Said("removed")))
            }
            CheckpointVerb::Claim { claim } => {
                Ok((claim.put(Call::new("checkpoints.claim_interrupted")), Look::Table(CHECKPOINTS)))
            }
            CheckpointVerb::ClaimOne { run, worker, lease } => {
                let call = Call::new("checkpoints.claim").with("run", run).with("worker", worker);
                Ok((call.with("lease", lease), Look::Record))
            }
            CheckpointVerb::Renew { run, token, lease } => {
                let call = Call::new("checkpoints.renew_claim").with("run", run).with("token", token);
                Ok((call.with("lease", lease), Look::Record))
            }
            CheckpointVerb::Release { run, token } => {
                let call = Call::new("checkpoints.release_claim").with("run", run).with("token", token);
                Ok((call, Look::Said("released")))
            }
        }
    }
}
