//! `run`: what ran, for whom, what happened in it, what it used up.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use store::{Entity, Result, RunId};

use super::{Answer, Call, Context, amount, object, optional_json};
use crate::args::PageArgs;
use crate::render::{Cell, Column, Look, column};

/// The verbs of runs.
#[derive(Debug, Subcommand)]
pub(crate) enum RunVerb {
    /// Record that a run started
    Start {
        /// Its id; a new one when left out
        id: Option<String>,
        /// Who pays for it
        #[arg(long)]
        caller: String,
        #[arg(long)]
        skill: Option<String>,
        #[arg(long)]
        agent: Option<String>,
        #[arg(long)]
        channel: Option<String>,
        /// The run that started it
        #[arg(long)]
        parent: Option<String>,
        /// A JSON file with what it was given, or - for standard input
        #[arg(long, value_name = "FILE")]
        input: Option<String>,
    },
    /// Record an event of a run
    Event {
        id: String,
        /// What kind of thing
        kind: String,
        /// A JSON file with what it was, or - for standard input
        #[arg(long, value_name = "FILE")]
        payload: Option<String>,
    },
    /// Record how a run ended
    Finish {
        id: String,
        /// succeeded, failed, cancelled or abandoned
        outcome: String,
        /// A JSON file with what it gave, or - for standard input
        #[arg(long, value_name = "FILE")]
        output: Option<String>,
        /// Why it failed
        #[arg(long)]
        error: Option<String>,
        #[arg(long, default_value_t = 0)]
        tokens_in: u64,
        #[arg(long, default_value_t = 0)]
        tokens_out: u64,
        /// What it cost, in units
        #[arg(long, default_value = "0")]
        cost: String,
    },
    /// Show a run
    Show { id: String },
    /// List runs, newest first
    List {
        #[command(flatten)]
        filter: FilterArgs,
        #[command(flatten)]
        page: PageArgs,
    },
    /// List the events of a run, oldest first
    Events {
        id: String,
        #[command(flatten)]
        page: PageArgs,
    },
    /// List the runs that a run started
    Children {
        id: String,
        #[command(flatten)]
        page: PageArgs,
    },
    /// List the run's parent, its parent, and so on
    Ancestors { id: String },
    /// Show the newest run of each of these skills
    Last {
        #[arg(required = true)]
        skills: Vec<String>,
    },
    /// Count and sum up runs
    Summary {
        /// nothing, skill, agent, caller, channel, status or day
        #[arg(long, default_value = "nothing")]
        by: String,
        #[command(flatten)]
        filter: FilterArgs,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Finish runs that started long ago as abandoned
    Stale {
        /// Those that started before this time (RFC 3339 or -LENGTH)
        #[arg(long, allow_hyphen_values = true)]
        before: String,
        /// How many at most
        #[arg(long, default_value_t = 100)]
        max: u64,
    },
    /// Remove old finished runs and their events
    Purge {
        /// Those that started before this time (RFC 3339 or -LENGTH)
        #[arg(long, allow_hyphen_values = true)]
        before: String,
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
    },
}

/// Which runs.
#[derive(Debug, Args)]
pub(crate) struct FilterArgs {
    #[arg(long)]
    skill: Option<String>,
    #[arg(long)]
    agent: Option<String>,
    #[arg(long)]
    caller: Option<String>,
    #[arg(long)]
    channel: Option<String>,
    /// running, succeeded, failed, cancelled or abandoned
    #[arg(long)]
    status: Option<String>,
    /// Started at or after this time (RFC 3339 or -LENGTH)
    #[arg(long, allow_hyphen_values = true)]
    from: Option<String>,
    /// Started before this time (RFC 3339 or -LENGTH)
    #[arg(long, allow_hyphen_values = true)]
    to: Option<String>,
    /// Only those without a parent
    #[arg(long)]
    top_level: bool,
}

impl FilterArgs {
    fn json(self, context: &Context) -> Result<Value> {
        Ok(object([
            ("skill", json!(self.skill)),
            ("agent", json!(self.agent)),
            ("caller", json!(self.caller)),
            ("channel", json!(self.channel)),
            ("status", json!(self.status)),
            ("from", json!(context.optional("from", self.from.as_deref())?)),
            ("to", json!(context.optional("to", self.to.as_deref())?)),
            ("top_level", json!(self.top_level)),
        ]))
    }
}

const RUNS: &[Column] = &[
    column("ID", "/id", Cell::Text),
    column("STATUS", "/status", Cell::Text),
    column("STARTED", "/started_at", Cell::Time),
    column("CALLER", "/caller", Cell::Text),
    column("SKILL", "/skill", Cell::Text),
    column("AGENT", "/agent", Cell::Text),
    column("COST", "/finish/cost", Cell::Amount),
];

const EVENTS: &[Column] = &[
    column("SEQ", "/seq", Cell::Number),
    column("AT", "/at", Cell::Time),
    column("KIND", "/kind", Cell::Text),
    column("PAYLOAD", "/payload", Cell::Text),
];

const SUMMARY: &[Column] = &[
    column("GROUP", "/group", Cell::Text),
    column("RUNS", "/runs", Cell::Number),
    column("RUNNING", "/by_status/running", Cell::Number),
    column("OK", "/by_status/succeeded", Cell::Number),
    column("FAILED", "/by_status/failed", Cell::Number),
    column("TIME", "/duration_nanos", Cell::Nanos),
    column("TOKENS IN", "/tokens/input", Cell::Number),
    column("TOKENS OUT", "/tokens/output", Cell::Number),
    column("COST", "/cost", Cell::Amount),
];

impl RunVerb {
    pub(crate) fn run(self, context: &Context) -> Result<Answer> {
        let (call, look) = self.call(context)?;
        context.answer(call, look)
    }

    fn call(self, context: &Context) -> Result<(Call, Look)> {
        let runs = |call| Ok((call, Look::Table(RUNS)));
        match self {
            RunVerb::Start { id, caller, skill, agent, channel, parent, input } => {
                let run = object([
                    ("id", json!(id.unwrap_or_else(|| RunId::generate().to_string()))),
                    ("caller", json!(caller)),
                    ("skill", json!(skill)),
                    ("agent", json!(agent)),
                    ("channel", json!(channel)),
                    ("parent", json!(parent)),
                    ("started_at", json!(context.now)),
                    ("input", optional_json("input", input.as_deref())?),
                ]);
                runs(Call::new("audit.start_run").with("run", run))
            }
            RunVerb::Event { id, kind, payload } => {
                let payload = optional_json("payload", payload.as_deref())?;
                let event = json!({ "kind": kind, "at": context.now, "payload": payload });
                let call = Call::new("audit.append_event").with("run", id).with("event", event);
                Ok((call, Look::Said("recorded as event")))
            }
            RunVerb::Finish { id, outcome, output, error, tokens_in, tokens_out, cost } => {
                let finish = object([
                    ("outcome", json!(outcome)),
                    ("finished_at", json!(context.now)),
                    ("output", optional_json("output", output.as_deref())?),
                    ("error", json!(error)),
                    ("tokens", json!({ "input": tokens_in, "output": tokens_out })),
                    ("cost", amount(&cost)?),
                ]);
                let call = Call::new("audit.finish_run").with("id", id).with("finish", finish);
                Ok((call, Look::Said("recorded")))
            }
            RunVerb::Show { id } => {
                let call = Call::new("audit.run").with("id", id.as_str());
                Ok((call.or_absent(Entity::Run, id), Look::Record))
            }
            RunVerb::List { filter, page } => {
                runs(Call::new("audit.runs").with("filter", filter.json(context)?).page(page))
            }
            RunVerb::Events { id, page } => {
                Ok((Call::new("audit.events").with("run", id).page(page), Look::Table(EVENTS)))
            }
            RunVerb::Children { id, page } => runs(Call::new("audit.children").with("id", id).page(page)),
            RunVerb::Ancestors { id } => runs(Call::new("audit.ancestors").with("id", id)),
            RunVerb::Last { skills } => runs(Call::new("audit.last_run_of").with("skills", skills)),
            RunVerb::Summary { by, filter, page } => {
                let call = Call::new("audit.summary").with("group_by", by);
                Ok((call.with("filter", filter.json(context)?).page(page), Look::Table(SUMMARY)))
            }
            RunVerb::Stale { before, max } => {
                let before = context.moment("before", Some(&before))?;
                let call = Call::new("audit.abandon_stale").at("before", Some(before)).with("max", max);
                Ok((call, Look::Said("abandoned:")))
            }
            RunVerb::Purge { before, dry_run } => {
                let before = context.moment("before", Some(&before))?;
                let call = Call::new("audit.purge_before").at("before", Some(before));
                Ok((call.with("dry_run", dry_run), Look::Record))
            }
        }
    }
}
