//! The table of methods: names, parameters, results, laws, and what each does. Dispatch, `rpc.discover`, the
//! reference and the verbs of the command line all read this one.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use store::*;

use super::params::{CallError, InnerCall, Length, Now, Param, Params, page};
use crate::transfer;

/// A method.
#[derive(Debug)]
pub(crate) struct Method {
    /// Its name: the seam and the method there.
    pub(crate) name: &'static str,
    /// What it does, in a line.
    pub(crate) doc: &'static str,
    /// The laws that bind it.
    pub(crate) laws: &'static [&'static str],
    /// What it takes.
    pub(crate) params: &'static [ParamSpec],
    /// What it gives, in words.
    pub(crate) result: &'static str,
    /// Whether it changes the store.
    pub(crate) writes: bool,
    /// What it does, in code.
    pub(crate) target: Target,
}

/// A parameter of a method.
#[derive(Debug, serde::Serialize)]
pub(crate) struct ParamSpec {
    pub(crate) name: &'static str,
    #[serde(rename = "type")]
    pub(crate) type_name: &'static str,
    pub(crate) required: bool,
}

impl ParamSpec {
    const fn of<T: Param>(name: &'static str) -> Self {
        ParamSpec { name, type_name: T::TYPE, required: T::REQUIRED }
    }
}

/// What a method is called on.
#[derive(Debug)]
pub(crate) enum Target {
    /// The seams: of a store, or of a transaction or snapshot of it.
    Seams(fn(&dyn Seams, &mut Params) -> Result<Value, CallError>),
    /// The whole store: not inside a transaction.
    Store(fn(&dyn Store, &mut Params) -> Result<Value, CallError>),
    /// Several calls on the seams, in one transaction.
    Transaction,
    /// Several calls on the seams, in one snapshot.
    Snapshot,
    /// This table.
    Discover,
}

/// The method of this name.
pub(crate) fn find(name: &str) -> Option<&'static Method> {
    all().find(|method| method.name == name)
}

/// All methods, in the order of the reference.
pub(crate) fn all() -> impl Iterator<Item = &'static Method> {
    [SKILLS, AGENTS, AGENT_LOOKUPS, BUDGETS, AUDIT, CHECKPOINTS, STORE, UNITS].into_iter().flatten()
}

fn answer<T: Serialize>(value: T) -> Result<Value, CallError> {
    serde_json::to_value(value).map_err(|error| Error::backend("writing an answer", error).into())
}

/// Rows of the table. `read` and `write` take the seams, `whole` and `change` the store.
macro_rules! methods {
    ($seam:literal => $(
        $(#[doc = $doc:literal])+
        $how:ident $name:ident($($arg:ident: $type:ty),*) -> $result:literal [$($law:literal)*] |$on:ident| $body:expr;
    )*) => {
        &[$(Method {
            name: concat!($seam, ".", stringify!($name)),
            doc: concat!($($doc),+).trim_ascii(),
            laws: &[$($law),*],
            params: &[$(ParamSpec::of::<$type>(stringify!($arg))),*],
            result: $result,
            writes: methods!(@writes $how),
            target: methods!(@target $how |$on, params| {
                $(let $arg: $type = params.take(stringify!($arg))?;)*
                params.finish()?;
                answer($body?)
            }),
        }),*]
    };
    (@writes read) => { false };
    (@writes write) => { true };
    (@writes whole) => { false };
    (@writes change) => { true };
    (@target read $call:expr) => { Target::Seams($call) };
    (@target write $call:expr) => { Target::Seams($call) };
    (@target whole $call:expr) => { Target::Store($call) };
    (@target change $call:expr) => { Target::Store($call) };
}

/// The methods of a catalog, for skills and for agents.
macro_rules! catalog {
    ($seam:literal, $accessor:ident, $doc:ty, $id:ty) => {
        methods! { $seam =>
            /// The definition with this id.
            read get(id: $id) -> "{doc, revision} or null" ["DOC-1" "MARK-1" "ROT-1"]
                |seams| seams.$accessor().get(&id);
            /// The definition with this name of this owner.
            read by_name(owner: PrincipalId, name: Name) -> "{doc, revision} or null" ["DOC-2" "DOC-1"]
                |seams| seams.$accessor().by_name(&owner, &name);
            /// The definitions that match, by id.
            read list(filter: Option<DefinitionFilter>, limit: Option<usize>, cursor: Option<Cursor>)
                -> "{items: [{doc, revision}], next_cursor}" ["PAGE-1" "DOC-1"]
                |seams| seams.$accessor().list(&filter.unwrap_or_default(), &page(limit, cursor)?);
            /// Stores the document, if the stored one is as expected.
            write save(doc: $doc, expect: Expect) -> "the new revision" ["DOC-1" "DOC-2" "DOC-3" "MARK-3"]
                |seams| seams.$accessor().save(&doc, expect);
            /// Removes the definition and its versions. Runs stay.
            write delete(id: $id, expect: Expect) -> "null" ["DOC-2" "DOC-3" "SEQ-1"]
                |seams| seams.$accessor().delete(&id, expect);
            /// Appends a version, numbered by the store.
            write append_version(version: NewVersion<$doc>) -> "the version, with its seq" ["SEQ-1" "SEQ-3" "SEQ-4" "SEQ-5"]
                |seams| seams.$accessor().append_version(&version);
            /// The versions of a definition, newest first.
            read versions(id: $id, limit: Option<usize>, cursor: Option<Cursor>)
                -> "{items: [version], next_cursor}" ["SEQ-2" "SEQ-5" "PAGE-1" "ROT-1"]
                |seams| seams.$accessor().versions(&id, &page(limit, cursor)?);
            /// The version with this id.
            read version(id: VersionId) -> "version or null" ["SEQ-5" "ROT-1"]
                |seams| seams.$accessor().version(&id);
            /// The version with the highest seq.
            read latest(id: $id) -> "version or null" ["SEQ-2" "SEQ-5"]
                |seams| seams.$accessor().latest(&id);
            /// Saves the snapshot of a version as the current document.
            write restore(version: VersionId, expect: Expect) -> "{doc, revision}" ["SEQ-5" "DOC-2" "DOC-3" "MARK-3"]
                |seams| seams.$accessor().restore(&version, expect);
            /// Pins a version, so that pruning leaves it alone, or unpins it.
            write pin_version(version: VersionId, pinned: bool) -> "null" ["SEQ-5"]
                |seams| seams.$accessor().pin_version(&version, pinned);
            /// Removes all but the newest versions and the pinned ones.
            write prune_versions(id: $id, keep: usize) -> "how many were removed" ["SEQ-1"]
                |seams| seams.$accessor().prune_versions(&id, keep);
            /// Saves the snapshot as the current document and appends the version, in one step.
            write publish(version: NewVersion<$doc>, expect: Expect) -> "{revision, version}"
                ["TXN-1" "DOC-1" "DOC-2" "DOC-3" "SEQ-1" "SEQ-3" "SEQ-4"]
                |seams| seams.$accessor().publish(&version, expect);
            /// The definitions that are due, claimed or not, by next_run_at.
            read due(now: Now, limit: Option<usize>, cursor: Option<Cursor>)
                -> "{items: [{doc, revision}], next_cursor}" ["MARK-1" "MARK-4" "PAGE-1"]
                |seams| seams.$accessor().due(now.0, &page(limit, cursor)?);
            /// Records a run: last_run_at and next_run_at move together, a lease ends.
            write mark_scheduled_run(id: $id, ran_at: DateTime<Utc>, next: Option<DateTime<Utc>>) -> "null"
                ["MARK-1" "MARK-2" "MARK-3" "MARK-4"]
                |seams| seams.$accessor().mark_scheduled_run(&id, ran_at, next);
            /// Moves next_run_at alone; a lease ends. Without `next` it is on no due list.
            write reschedule(id: $id, next: Option<DateTime<Utc>>) -> "null" ["MARK-1" "MARK-2" "MARK-3" "MARK-4"]
                |seams| seams.$accessor().reschedule(&id, next);
            /// Claims up to `max` due occurrences that nobody holds.
            write claim_due(now: Now, worker: WorkerId, lease: Length, max: usize)
                -> "[{stored: {doc, revision}, due_at, lease}]" ["MARK-5" "MARK-2"]
                |seams| seams.$accessor().claim_due(now.0, &worker, lease.0, max);
            /// Marks a claimed occurrence as run, if the claim still holds.
            write finish_claim(id: $id, token: LeaseToken, now: Now, ran_at: DateTime<Utc>, next: Option<DateTime<Utc>>)
                -> "null" ["MARK-5" "MARK-1" "MARK-2"]
                |seams| seams.$accessor().finish_claim(&id, token, now.0, ran_at, next);
            /// Holds a claim longer.
            write renew_claim(id: $id, token: LeaseToken, now: Now, lease: Length) -> "the lease" ["MARK-5" "MARK-2"]
                |seams| seams.$accessor().renew_claim(&id, token, now.0, lease.0);
            /// Gives a claim back: the occurrence is claimable again.
            write release_claim(id: $id, token: LeaseToken, now: Now) -> "null" ["MARK-5" "MARK-2"]
                |seams| seams.$accessor().release_claim(&id, token, now.0);
        }
    };
}

const SKILLS: &[Method] = catalog!("skills", skills, Skill, SkillId);
const AGENTS: &[Method] = catalog!("agents", agents, Agent, AgentId);

const AGENT_LOOKUPS: &[Method] = methods! { "agents" =>
    /// The agent whose webhook has this digest. A secret itself never reaches a store.
    read by_webhook(digest: SecretDigest) -> "{doc, revision} or null" ["SEC-1" "DOC-2"]
        |seams| seams.agents().by_webhook(&digest);
    /// The agents whose channel filter names this channel, by id.
    read by_channel(channel: ChannelId, limit: Option<usize>, cursor: Option<Cursor>)
        -> "{items: [{doc, revision}], next_cursor}" ["DOC-2" "PAGE-1"]
        |seams| seams.agents().by_channel(&channel, &page(limit, cursor)?);
};

const BUDGETS: &[Method] = methods! { "budgets" =>
    /// What is used and held.
    read usage(account: Account, now: Now) -> "{used, held, since, until}" ["WIN-2" "WIN-3" "WIN-5" "WIN-7"]
        |seams| seams.budgets().usage(&account, now.0);
    /// Charges without a limit.
    write add(charge: Charge, now: Now) -> "{used, held, since, until}"
        ["WIN-1" "WIN-2" "WIN-4" "WIN-5" "WIN-6" "WIN-7"]
        |seams| seams.budgets().add(&charge, now.0);
    /// Charges if used, held and the amount together stay within the limit.
    write admit(charge: Charge, limit: Amount, now: Now) -> "{used, held, since, until}"
        ["WIN-1" "WIN-2" "WIN-4" "WIN-5" "WIN-6" "WIN-7"]
        |seams| seams.budgets().admit(&charge, limit, now.0);
    /// Holds an estimate, within the limit, until it is settled or released or lapses.
    write reserve(reservation: Reservation, limit: Amount, now: Now) -> "{used, held, since, until}" ["WIN-6"]
        |seams| seams.budgets().reserve(&reservation, limit, now.0);
    /// Ends a hold and charges what was really spent, once.
    write settle(account: Account, id: ReservationId, actual: Amount, now: Now) -> "{used, held, since, until}"
        ["WIN-1" "WIN-4" "WIN-6"]
        |seams| seams.budgets().settle(&account, &id, actual, now.0);
    /// Ends a hold and charges nothing.
    write release(account: Account, id: ReservationId, now: Now) -> "{used, held, since, until}" ["WIN-6"]
        |seams| seams.budgets().release(&account, &id, now.0);
    /// The reservations of an account that hold, by id.
    read reservations(account: Account, now: Now) -> "[reservation]" ["WIN-6"]
        |seams| seams.budgets().reservations(&account, now.0);
    /// All accounts with their usage, by caller, meter and window.
    read accounts(now: Now, limit: Option<usize>, cursor: Option<Cursor>)
        -> "{items: [{account, usage}], next_cursor}" ["PAGE-1" "WIN-3"]
        |seams| seams.budgets().accounts(now.0, &page(limit, cursor)?);
    /// Forgets an account: usage, holds and keys.
    write reset(account: Account) -> "null" ["WIN-5"]
        |seams| seams.budgets().reset(&account);
};

const AUDIT: &[Method] = methods! { "audit" =>
    /// Records that a run started.
    write start_run(run: NewRun) -> "the run" ["DOC-1" "TXN-1"]
        |seams| seams.audit().start_run(&run);
    /// Records how a run ended. The first finish wins.
    write finish_run(id: RunId, finish: Finish) -> "null" ["AUD-2"]
        |seams| seams.audit().finish_run(&id, &finish);
    /// Records an event of a run.
    write append_event(run: RunId, event: NewEvent) -> "the event's seq in the run" ["AUD-1"]
        |seams| seams.audit().append_event(&run, &event);
    /// The run with this id.
    read run(id: RunId) -> "the run or null" ["DOC-1" "ROT-1"]
        |seams| seams.audit().run(&id);
    /// The events of a run, oldest first.
    read events(run: RunId, limit: Option<usize>, cursor: Option<Cursor>)
        -> "{items: [event], next_cursor}" ["AUD-1" "PAGE-1" "ROT-1"]
        |seams| seams.audit().events(&run, &page(limit, cursor)?);
    /// The runs that match, newest first.
    read runs(filter: Option<RunFilter>, limit: Option<usize>, cursor: Option<Cursor>)
        -> "{items: [run], next_cursor}" ["PAGE-1" "ROT-1"]
        |seams| seams.audit().runs(&filter.unwrap_or_default(), &page(limit, cursor)?);
    /// The runs whose parent is this run, newest first.
    read children(id: RunId, limit: Option<usize>, cursor: Option<Cursor>)
        -> "{items: [run], next_cursor}" ["PAGE-1"]
        |seams| seams.audit().children(&id, &page(limit, cursor)?);
    /// The run's parent, its parent, and so on, nearest first.
    read ancestors(id: RunId) -> "[run]" ["AUD-3"]
        |seams| seams.audit().ancestors(&id);
    /// The newest run of each of these skills.
    read last_run_of(skills: Vec<SkillId>) -> "[run]" ["PAGE-1"]
        |seams| seams.audit().last_run_of(&skills);
    /// The runs that match, counted and summed up by group.
    read summary(filter: Option<RunFilter>, group_by: Option<GroupBy>, limit: Option<usize>, cursor: Option<Cursor>)
        -> "{items: [{group, runs, by_status, duration_nanos, tokens, cost}], next_cursor}" ["PAGE-1" "ROT-1"]
        |seams| seams.audit().summary(&filter.unwrap_or_default(), group_by.unwrap_or_default(), &page(limit, cursor)?);
    /// Finishes running runs that started before a time as abandoned, oldest first.
    write abandon_stale(before: DateTime<Utc>, now: Now, max: usize) -> "[run id]" ["AUD-2"]
        |seams| seams.audit().abandon_stale(before, now.0, max);
    /// Removes finished runs that started before a time, with their events, but none that a running one needs.
    write purge_before(before: DateTime<Utc>, dry_run: bool) -> "{runs, events, kept}" ["AUD-3" "TXN-1"]
        |seams| seams.audit().purge_before(before, dry_run);
};

const CHECKPOINTS: &[Method] = methods! { "checkpoints" =>
    /// Saves where a run stands. A claim on it stays as it is.
    write save(checkpoint: Checkpoint) -> "null" ["CKP-1" "DOC-1"]
        |seams| seams.checkpoints().save(&checkpoint);
    /// The checkpoint of a run.
    read load(run: RunId) -> "the checkpoint or null" ["CKP-1" "DOC-1" "ROT-1"]
        |seams| seams.checkpoints().load(&run);
    /// Removes the checkpoint of a run that is finished.
    write delete(run: RunId) -> "null" ["CKP-1"]
        |seams| seams.checkpoints().delete(&run);
    /// All checkpoints, claimed or not, by run.
    read interrupted(limit: Option<usize>, cursor: Option<Cursor>)
        -> "{items: [checkpoint with lease], next_cursor}" ["CKP-1" "PAGE-1"]
        |seams| seams.checkpoints().interrupted(&page(limit, cursor)?);
    /// Claims one checkpoint.
    write claim(run: RunId, now: Now, worker: WorkerId, lease: Length) -> "the lease" ["CKP-1"]
        |seams| seams.checkpoints().claim(&run, now.0, &worker, lease.0);
    /// Claims up to `max` checkpoints that nobody holds, by run.
    write claim_interrupted(now: Now, worker: WorkerId, lease: Length, max: usize)
        -> "[checkpoint with lease]" ["CKP-1"]
        |seams| seams.checkpoints().claim_interrupted(now.0, &worker, lease.0, max);
    /// Holds a claim longer.
    write renew_claim(run: RunId, token: LeaseToken, now: Now, lease: Length) -> "the lease" ["CKP-1"]
        |seams| seams.checkpoints().renew_claim(&run, token, now.0, lease.0);
    /// Gives a claim back.
    write release_claim(run: RunId, token: LeaseToken, now: Now) -> "null" ["CKP-1"]
        |seams| seams.checkpoints().release_claim(&run, token, now.0);
};

const STORE: &[Method] = methods! { "store" =>
    /// What the store is.
    whole info() -> "{engine, version, durability, multi_process, path, schema}" []
        |store| Ok::<_, CallError>(store.info());
    /// Reads everything and checks it.
    whole verify() -> "{records, problems_found, problems: [{what, detail}]}" ["ROT-1" "OPEN-1"]
        |store| store.verify();
    /// Writes a consistent copy to a file that must not exist, while others go on.
    whole backup(to: PathBuf) -> "null" ["TXN-1" "SEC-1"]
        |store| store.backup(&to);
    /// Writes everything to a file of JSON Lines.
    whole export(to: PathBuf) -> "{records, digests}" ["MOVE-1" "TXN-1"]
        |store| transfer::export_to_file(store, &to);
    /// Reads a file that `export` wrote into an empty store, all or nothing.
    change import(from: PathBuf) -> "{records}" ["MOVE-1" "TXN-1"]
        |store| transfer::import_from_file(store, &from);
};

const CALLS: &[ParamSpec] = &[ParamSpec::of::<Vec<InnerCall>>("calls")];

const UNITS: &[Method] = &[
    Method {
        name: "transaction",
        doc: "Several calls on the seams, all or nothing. The first error undoes all and is the answer.",
        laws: &["TXN-1", "TXN-2", "DUR-1"],
        params: CALLS,
        result: "the list of their results",
        writes: true,
        target: Target::Transaction,
    },
    Method {
        name: "snapshot",
        doc: "Several calls on the seams, all at one moment. Writes are refused.",
        laws: &["TXN-1"],
        params: CALLS,
        result: "the list of their results",
        writes: false,
        target: Target::Snapshot,
    },
    Method {
        name: "rpc.discover",
        doc: "The methods, their parameters and types, and the errors.",
        laws: &[],
        params: &[],
        result: "this reference",
        writes: false,
        target: Target::Discover,
    },
];
