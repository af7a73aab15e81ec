//! `skill` and `agent`: one catalog each, with the same verbs.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use store::{Entity, Error, Result, Secret, VersionId};

use super::files::{self, ImportArgs};
use super::{Answer, Call, Context, expect, object, read_json};
use crate::args::{ClaimArgs, PageArgs};
use crate::key;
use crate::render::{Cell, Column, Look, column};

/// The verbs that skills and agents have in common.
#[derive(Debug, Subcommand)]
pub(crate) enum CatalogVerb {
    /// Store a document
    Put {
        /// A JSON file, or - for standard input
        file: String,
        /// What must be stored: any, absent, or a revision
        #[arg(long, default_value = "any")]
        expect: String,
    },
    /// Show a definition, by id or by owner and name
    Get {
        #[arg(required_unless_present = "name")]
        id: Option<String>,
        #[arg(long, requires = "owner", conflicts_with = "id")]
        name: Option<String>,
        #[arg(long, requires = "name")]
        owner: Option<String>,
    },
    /// List definitions
    List {
        /// Only those of this owner
        #[arg(long)]
        owner: Option<String>,
        /// Only those that this principal may see
        #[arg(long)]
        visible_to: Option<String>,
        /// Only those with this tag
        #[arg(long)]
        tag: Option<String>,
        /// Only those that a chat may offer, or only those that it may not
        #[arg(long, num_args = 0..=1, default_missing_value = "true")]
        exposed: Option<bool>,
        /// Only those with a schedule, or only those without
        #[arg(long, num_args = 0..=1, default_missing_value = "true")]
        scheduled: Option<bool>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Remove a definition and its versions
    Rm {
        id: String,
        /// What must be stored: any, or a revision
        #[arg(long, default_value = "any")]
        expect: String,
    },
    /// Append a version: a snapshot of the stored document, or of a file's
    Append {
        id: String,
        /// A JSON file with the whole document, or - for standard input
        #[arg(long)]
        file: Option<String>,
        #[command(flatten)]
        version: VersionArgs,
    },
    /// Store a document and append it as a version, in one step
    Publish {
        /// A JSON file, or - for standard input
        file: String,
        /// What must be stored: any, absent, or a revision
        #[arg(long, default_value = "any")]
        expect: String,
        #[command(flatten)]
        version: VersionArgs,
    },
    /// List the versions of a definition, newest first
    Versions {
        id: String,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show a version
    Version { version: String },
    /// Make a version's snapshot the current document
    Restore {
        version: String,
        /// What must be stored: any, absent, or a revision
        #[arg(long, default_value = "any")]
        expect: String,
    },
    /// Pin a version, so that pruning leaves it alone
    Pin {
        version: String,
        /// Unpin it
        #[arg(long)]
        off: bool,
    },
    /// Remove all versions but the newest and the pinned
    Prune {
        id: String,
        /// How many of the newest to keep
        #[arg(long)]
        keep: u64,
    },
    /// List what is due
    Due {
        #[command(flatten)]
        page: PageArgs,
    },
    /// Claim what is due
    Claim {
        #[command(flatten)]
        claim: ClaimArgs,
    },
    /// Mark a claimed occurrence as run
    Finish {
        id: String,
        #[arg(long)]
        token: u64,
        #[command(flatten)]
        times: MarkArgs,
    },
    /// Hold a claim longer
    Renew {
        id: String,
        #[arg(long)]
        token: u64,
        #[arg(long, value_name = "LENGTH", default_value = "5m")]
        lease: String,
    },
    /// Give a claim back
    Unclaim {
        id: String,
        #[arg(long)]
        token: u64,
    },
    /// Record a run of the schedule
    Mark {
        id: String,
        #[command(flatten)]
        times: MarkArgs,
    },
    /// Move the next run alone
    Reschedule {
        id: String,
        /// When it is due next (RFC 3339, +LENGTH or -LENGTH); never, when left out
        #[arg(long, allow_hyphen_values = true)]
        next: Option<String>,
    },
    /// Keep every definition file below a directory in the store
    Import(ImportArgs),
}

/// What is said about a version.
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Its id; a new one when left out
    #[arg(long)]
    version_id: Option<String>,
    /// Who saves it
    #[arg(long)]
    by: String,
    /// A short name
    #[arg(long, default_value = "")]
    label: String,
    /// What changed
    #[arg(long, default_value = "")]
    summary: String,
    /// Leave it alone when pruning
    #[arg(long)]
    pin: bool,
}

impl VersionArgs {
    fn of(self, snapshot: Value, context: &Context) -> Value {
        let id = self.version_id.unwrap_or_else(|| VersionId::generate().to_string());
        json!({
            "id": id, "snapshot": snapshot, "saved_by": self.by, "saved_at": context.now,
            "label": self.label, "summary": self.summary, "pinned": self.pin,
        })
    }
}

/// When it ran, and when it runs next.
#[derive(Debug, Args)]
pub(crate) struct MarkArgs {
    /// When it ran (RFC 3339, +LENGTH or -LENGTH); now, when left out
    #[arg(long, allow_hyphen_values = true)]
    ran_at: Option<String>,
    /// When it is due next (RFC 3339, +LENGTH or -LENGTH); never, when left out
    #[arg(long, allow_hyphen_values = true)]
    next: Option<String>,
}

impl MarkArgs {
    fn put(self, call: Call, context: &Context) -> Result<Call> {
        let ran_at = context.moment("ran_at", self.ran_at.as_deref())?;
        Ok(call.at("ran_at", Some(ran_at)).at("next", context.optional("next", self.next.as_deref())?))
    }
}

/// The verbs of skills.
#[derive(Debug, Subcommand)]
pub(crate) enum SkillVerb {
    #[command(flatten)]
    Common(CatalogVerb),
}

impl SkillVerb {
    pub(crate) fn run(self, context: &Context) -> Result<Answer> {
        let SkillVerb::Common(verb) = self;
        verb.run(&SKILLS, context)
    }
}

/// The verbs of agents.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentVerb {
    #[command(flatten)]
    Common(CatalogVerb),
    /// Find the agent that a webhook's secret belongs to
    ByWebhook {
        /// A file with the secret, or - for standard input
        #[arg(default_value = "-")]
        secret: String,
        /// A file with the digest key: its id and 64 hex digits (or STORECTL_KEY_FILE names it)
        #[arg(long)]
        key_file: Option<String>,
    },
    /// List the agents that answer on a channel
    ByChannel {
        channel: String,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Give an agent a new webhook secret, show it once, store its digest
    WebhookSet {
        id: String,
        /// A file with the digest key: its id and 64 hex digits (or STORECTL_KEY_FILE names it)
        #[arg(long)]
        key_file: Option<String>,
    },
}

impl AgentVerb {
    pub(crate) fn run(self, context: &Context) -> Result<Answer> {
        match self {
            AgentVerb::Common(verb) => verb.run(&AGENTS, context),
            AgentVerb::ByWebhook { secret, key_file } => {
                let digest = key::digest_key(key_file.as_deref())?.digest(&key::secret(&secret)?);
                let call = Call::new("agents.by_webhook").with("digest", digest.to_string());
                context.answer(call.or_absent(Entity::Agent, "with this webhook"), Look::Record)
            }
            AgentVerb::ByChannel { channel, page } => {
                let call = Call::new("agents.by_channel").with("channel", channel).page(page);
                context.answer(call, Look::Table(DEFINITIONS))
            }
            AgentVerb::WebhookSet { id, key_file } => webhook_set(&id, key_file.as_deref(), context),
        }
    }
}

/// The one verb that no method of the table serves: the table's answers may be logged, and this one is a secret.
fn webhook_set(id: &str, key_file: Option<&str>, context: &Context) -> Result<Answer> {
    let key = key::digest_key(key_file)?;
    let secret = Secret::generate()?;
    let digest = key.digest(&secret);
    let store = context.open(false)?;
    let stored = store.agents().update(&id.parse()?, &mut |agent| {
        agent.webhook = Some(digest.clone());
        Ok(())
    })?;
    store.close()?;
    let answer =
        json!({ "id": id, "secret": secret.reveal(), "key_id": key.id(), "revision": stored.revision });
    Ok(Answer::new(answer, Look::Record))
}

/// A catalog: the names of its methods.
struct Names {
    entity: Entity,
    methods: fn(Verb) -> &'static str,
}

/// The methods of a catalog.
macro_rules! names {
    ($($verb:ident = $name:literal),* $(,)?) => {
        #[derive(Clone, Copy)]
        enum Verb { $($verb),* }

        const SKILLS: Names = Names {
            entity: Entity::Skill,
            methods: |verb| match verb { $(Verb::$verb => concat!("skills.", $name)),* },
        };

        const AGENTS: Names = Names {
            entity: Entity::Agent,
            methods: |verb| match verb { $(Verb::$verb => concat!("agents.", $name)),* },
        };
    };
}

names! {
    Get = "get", ByName = "by_name", List = "list", Save = "save", Delete = "delete", Append = "append_version",
    Publish = "publish", Versions = "versions", Version = "version", Restore = "restore", Pin = "pin_version",
    Prune = "prune_versions", Due = "due", Claim = "claim_due", Finish = "finish_claim", Renew = "renew_claim",
    Release = "release_claim", Mark = "mark_scheduled_run", Reschedule = "reschedule",
}

const DEFINITIONS: &[Column] = &[
    column("ID", "/doc/id", Cell::Text),
    column("OWNER", "/doc/owner", Cell::Text),
    column("NAME", "/doc/name", Cell::Text),
    column("REV", "/revision", Cell::Number),
    column("NEXT RUN", "/doc/schedule/next_run_at", Cell::Time),
    column("DESCRIPTION", "/doc/description", Cell::Text),
];

const VERSIONS: &[Column] = &[
    column("SEQ", "/seq", Cell::Number),
    column("ID", "/id", Cell::Text),
    column("SAVED", "/saved_at", Cell::Time),
    column("BY", "/saved_by", Cell::Text),
    column("PINNED", "/pinned", Cell::Mark),
    column("LABEL", "/label", Cell::Text),
    column("SUMMARY", "/summary", Cell::Text),
];

const DUE: &[Column] = &[
    column("ID", "/doc/id", Cell::Text),
    column("NAME", "/doc/name", Cell::Text),
    column("DUE", "/doc/schedule/next_run_at", Cell::Time),
    column("LAST RUN", "/doc/schedule/last_run_at", Cell::Time),
    column("HELD BY", "/doc/schedule/lease/worker", Cell::Text),
    column("UNTIL", "/doc/schedule/lease/until", Cell::Time),
];

const CLAIMS: &[Column] = &[
    column("ID", "/stored/doc/id", Cell::Text),
    column("NAME", "/stored/doc/name", Cell::Text),
    column("DUE", "/due_at", Cell::Time),
    column("LEASE ENDS", "/lease/until", Cell::Time),
    column("TOKEN", "/lease/token", Cell::Number),
];

impl CatalogVerb {
    fn run(self, names: &Names, context: &Context) -> Result<Answer> {
        let call = |verb| Call::new((names.methods)(verb));
        match self {
            CatalogVerb::Put { file, expect: wanted } => {
                let call = call(Verb::Save).with("doc", read_json("doc", &file)?);
                context.answer(call.with("expect", expect(&wanted)?), Look::Said("saved as revision"))
            }
            CatalogVerb::Get { id, name, owner } => context.answer(get(names, id, name, owner), Look::Record),
            CatalogVerb::List { owner, visible_to, tag, exposed, scheduled, page } => {
                let filter = object([
                    ("owner", json!(owner)),
                    ("visible_to", json!(visible_to)),
                    ("tag", json!(tag)),
                    ("exposed_to_chat", json!(exposed)),
                    ("scheduled", json!(scheduled)),
                ]);
                context.answer(call(Verb::List).with("filter", filter).page(page), Look::Table(DEFINITIONS))
            }
            CatalogVerb::Rm { id, expect: wanted } => {
                let call = call(Verb::Delete).with("id", id).with("expect", expect(&wanted)?);
                context.answer(call, Look::Said("removed"))
            }
            CatalogVerb::Append { id, file, version } => {
                let snapshot = match file {
                    Some(file) => snapshot_of(&id, read_json("doc", &file)?)?,
                    None => context.call(get(names, Some(id), None, None))?["doc"].take(),
                };
                let call = call(Verb::Append).with("version", version.of(snapshot, context));
                context.answer(call, Look::Table(VERSIONS))
            }
            CatalogVerb::Publish { file, expect: wanted, version } => {
                let version = version.of(read_json("doc", &file)?, context);
                let call = call(Verb::Publish).with("version", version).with("expect", expect(&wanted)?);
                context.answer(call, Look::Record)
            }
            CatalogVerb::Versions { id, page } => {
                context.answer(call(Verb::Versions).with("id", id).page(page), Look::Table(VERSIONS))
            }
            CatalogVerb::Version { version } => {
                let call = call(Verb::Version).with("id", version.as_str());
                context.answer(call.or_absent(Entity::Version, version), Look::Record)
            }
            CatalogVerb::Restore { version, expect: wanted } => {
                let call = call(Verb::Restore).with("version", version).with("expect", expect(&wanted)?);
                context.answer(call, Look::Table(DEFINITIONS))
            }
            CatalogVerb::Pin { version, off } => {
                let call = call(Verb::Pin).with("version", version).with("pinned", !off);
                context.answer(call, Look::Said(if off { "unpinned" } else { "pinned" }))
            }
            CatalogVerb::Prune { id, keep } => {
                let call = call(Verb::Prune).with("id", id).with("keep", keep);
                context.answer(call, Look::Said("versions removed:"))
            }
            CatalogVerb::Due { page } => context.answer(call(Verb::Due).page(page), Look::Table(DUE)),
            CatalogVerb::Claim { claim } => context.answer(claim.put(call(Verb::Claim)), Look::Table(CLAIMS)),
            CatalogVerb::Finish { id, token, times } => {
                let call = times.put(call(Verb::Finish).with("id", id).with("token", token), context)?;
                context.answer(call, Look::Said("finished"))
            }
            CatalogVerb::Renew { id, token, lease } => {
                let call = call(Verb::Renew).with("id", id).with("token", token).with("lease", lease);
                context.answer(call, Look::Record)
            }
            CatalogVerb::Unclaim { id, token } => {
                let call = call(Verb::Release).with("id", id).with("token", token);
                context.answer(call, Look::Said("released"))
            }
            CatalogVerb::Mark { id, times } => {
                context.answer(times.put(call(Verb::Mark).with("id", id), context)?, Look::Said("marked"))
            }
            CatalogVerb::Reschedule { id, next } => {
                let next = context.optional("next", next.as_deref())?;
                let call = call(Verb::Reschedule).with("id", id).at("next", next);
                context.answer(call, Look::Said("rescheduled"))
            }
            CatalogVerb::Import(args) => files::import(names.entity, args, context),
        }
    }
}

fn get(names: &Names, id: Option<String>, name: Option<String>, owner: Option<String>) -> Call {
    match id {
        Some(id) => Call::new((names.methods)(Verb::Get)).with("id", id.as_str()).or_absent(names.entity, id),
        None => {
            let shown =
                format!("{}/{}", owner.as_deref().unwrap_or_default(), name.as_deref().unwrap_or_default());
            let call = Call::new((names.methods)(Verb::ByName)).with("owner", owner).with("name", name);
            call.or_absent(names.entity, shown)
        }
    }
}

/// The document, if it is the one of this id.
fn snapshot_of(id: &str, doc: Value) -> Result<Value> {
    if doc["id"] == id {
        return Ok(doc);
    }
    Err(Error::invalid("doc.id", format!("is {}, not {id:?}", doc["id"])))
}
