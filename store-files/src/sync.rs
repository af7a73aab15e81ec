//! Keeps the definitions of a store in step with the files of a directory.
//!
//! Every definition file below the directory is a definition of one owner, known by its name. A file that says
//! what the store says already writes nothing; one that says something else is saved and appended as a version in
//! one step. A definition whose file is gone stays.
//!
//! | in the file | in the record |
//! |---|---|
//! | `description`, the body | `description`, `body` or `prompt` |
//! | `allowed-tools` (skills), `tools` (agents) | `tools`; no key and an empty list are both no tools |
//! | `tags`, `inputs`, `channels` | `tags`, `inputs`, `channel_filter` |
//! | `cron`, `time-zone`, at the top or in `metadata` | `schedule` |
//! | `skills`, `sub-agents`: names | `skills`, `sub_agents`: ids of the same owner's; a name that nobody has is kept in [`UNRESOLVED_SKILLS`] or [`UNRESOLVED_SUB_AGENTS`], with a warning |
//! | any other key | the same key |
//! | a key that would shadow a field of the record | [`RENAMED`] + the key, with a warning |
//!
//! Fields of the record that the file does not say (visibility, caps, a webhook's digest) stay as they are. What the
//! file said is listed in [`FROM_FILE`], so that a key that is taken out of the file goes from the record too.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use store_api::{
    Agent, AgentId, Catalog, Definition, Error, Expect, Name, NewVersion, PrincipalId, Result, Seams,
    SkillId, Stored, VersionId, describe, rules,
};

pub use crate::document::{FROM_FILE, RENAMED, UNRESOLVED_SKILLS, UNRESOLVED_SUB_AGENTS};
use crate::document::{Links, Source};
use crate::file::{FileError, Warning};
use crate::walk::{Collection, Skipped, read_agents, read_skills};

/// Computes when an expression in a zone is due next, or says what is wrong with it.
pub type Next<'a> = &'a dyn Fn(&str, &str) -> Result<Option<DateTime<Utc>>, String>;

/// On whose behalf, and when.
#[derive(Clone)]
pub struct Options<'a> {
    /// Whose the definitions are.
    pub owner: PrincipalId,
    /// Who saves the versions.
    pub saved_by: PrincipalId,
    /// When, by the host's clock.
    pub now: DateTime<Utc>,
    /// Asked when a schedule is new or says other times. Without it such a schedule is on no due list until the
    /// host puts it there with [`Catalog::reschedule`].
    pub next: Option<Next<'a>>,
}

impl fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { owner, saved_by, now, next } = self;
        f.debug_struct("Options")
            .field("owner", owner)
            .field("saved_by", saved_by)
            .field("now", now)
            .field("next", &next.is_some())
            .finish()
    }
}

/// What became of every file, by path.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Report {
    /// The files.
    pub files: Vec<Entry>,
}

/// What became of one file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// The file.
    pub path: PathBuf,
    /// The name of the definition, where the file could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The id of the definition, where it is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What its author may want to know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Outcome {
    /// A new definition.
    Created {
        /// The number of its version.
        seq: u64,
    },
    /// A definition that says something else now.
    Changed {
        /// The fields of the record that changed.
        fields: Vec<String>,
        /// The number of its version.
        seq: u64,
    },
    /// Nothing was written.
    Unchanged,
    /// The file is no definition.
    Skipped {
        /// Why.
        reason: String,
    },
    /// The file could not be read, or the store did not take it. Nothing was written for it.
    Refused {
        /// The line to blame, from 1.
        #[serde(skip_serializing_if = "Option::is_none")]
        line: Option<usize>,
        /// Why.
        reason: String,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Created { .. } => f.write_str("created"),
            Outcome::Changed { fields, seq } => write!(f, "changed {} (version {seq})", fields.join(", ")),
            Outcome::Unchanged => f.write_str("unchanged"),
            Outcome::Skipped { reason } => write!(f, "skipped: {reason}"),
            Outcome::Refused { line: Some(line), reason } => write!(f, "refused: line {line}: {reason}"),
            Outcome::Refused { line: None, reason } => write!(f, "refused: {reason}"),
        }
    }
}

/// How many files of each outcome. Displays as `8 files: 1 created, 2 changed, 5 unchanged`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// New definitions.
    pub created: usize,
    /// Definitions that say something else now.
    pub changed: usize,
    /// Definitions that say what they said.
    pub unchanged: usize,
    /// Files that are no definitions.
    pub skipped: usize,
    /// Files that were not taken.
    pub refused: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { created, changed, unchanged, skipped, refused } = *self;
        let all = created + changed + unchanged + skipped + refused;
        write!(f, "{all} file{}", if all == 1 { "" } else { "s" })?;
        let named = [
            (created, "created"),
            (changed, "changed"),
            (unchanged, "unchanged"),
            (skipped, "skipped"),
            (refused, "refused"),
        ];
        for (at, (count, name)) in named.into_iter().filter(|(count, _)| *count > 0).enumerate() {
            write!(f, "{} {count} {name}", if at == 0 { ":" } else { "," })?;
        }
        Ok(())
    }
}

impl Report {
    /// How many files of each outcome.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for entry in &self.files {
            *match entry.outcome {
                Outcome::Created { .. } => &mut counts.created,
                Outcome::Changed { .. } => &mut counts.changed,
                Outcome::Unchanged => &mut counts.unchanged,
                Outcome::Skipped { .. } => &mut counts.skipped,
                Outcome::Refused { .. } => &mut counts.refused,
            } += 1;
        }
        counts
    }
}

/// The counts, then one line for each file that somebody may want to look at: changed, skipped, refused or with a note.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.counts())?;
        for Entry { path, outcome, warnings, .. } in &self.files {
            let path = path.display();
            match outcome {
                Outcome::Created { .. } | Outcome::Unchanged => {}
                Outcome::Refused { line: Some(line), reason } => {
                    write!(f, "\n{path}:{line}: refused: {reason}")?;
                }
                outcome => write!(f, "\n{path}: {outcome}")?,
            }
            for warning in warnings {
                let line = warning.line.map(|line| format!("{line}:")).unwrap_or_default();
                write!(f, "\n{path}:{line} note: {}", warning.reason)?;
            }
        }
        Ok(())
    }
}

/// Puts every `SKILL.md` below `dir` into the store.
///
/// A file that the store refuses is reported and does not stop the others.
///
/// # Errors
/// Any error of the store that is no answer about one file (`Busy`, `Corrupt`, `Backend` …). What was stored before
/// it stays, and the next sync goes on from there.
pub fn sync_skills(store: &dyn Seams, dir: impl AsRef<Path>, options: &Options<'_>) -> Result<Report> {
    sync(store, read_skills(dir), options, &|_, _, _| Ok(Vec::new()))
}

/// Puts every agent's `*.md` below `dir` into the store. Sync skills first: agents name them.
///
/// # Errors
/// As [`sync_skills`].
pub fn sync_agents(store: &dyn Seams, dir: impl AsRef<Path>, options: &Options<'_>) -> Result<Report> {
    sync(store, read_agents(dir), options, &|agent, links, planned| {
        link(store, options, agent, links, planned)
    })
}

/// Turns the names that a file gives into ids, with what is to be said about it. `planned` are the ids of the
/// definitions of this sync by name, stored or about to be.
type Linker<'a, D> =
    &'a dyn Fn(&mut D, &Links, &BTreeMap<String, <D as Definition>::Id>) -> Result<Vec<Warning>>;

/// A file on its way into the store.
struct Plan<F: Source> {
    file: F,
    stored: Option<Stored<F::Doc>>,
    doc: F::Doc,
    links: Links,
    warnings: Vec<Warning>,
}

fn sync<F: Source>(
    store: &dyn Seams,
    found: Collection<F>,
    options: &Options<'_>,
    linker: Linker<'_, F::Doc>,
) -> Result<Report> {
    let catalog = F::Doc::catalog(store);
    let mut files: Vec<Entry> = found.refused.into_iter().map(|error| refused(None, error)).collect();
    files.extend(found.skipped.into_iter().map(skipped));

    let mut plans = Vec::new();
    for file in found.files {
        let name = file.name().to_owned();
        match plan(catalog, file, options)? {
            Ok(plan) => plans.push(plan),
            Err(error) => files.push(refused(Some(name), error)),
        }
    }
    let planned = plans.iter().map(|plan| (plan.file.name().to_owned(), plan.doc.id().clone())).collect();
    for plan in plans {
        files.push(put(catalog, plan, options, linker, &planned)?);
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Report { files })
}

/// Reads what the store has and makes of it what the file says. The outer error is the store's, the inner one is
/// about the file.
fn plan<F: Source>(
    catalog: &dyn Catalog<F::Doc>,
    file: F,
    options: &Options<'_>,
) -> Result<Result<Plan<F>, FileError>> {
    let name = match Name::new(file.name()) {
        Ok(name) => name,
        Err(error) => return Ok(Err(refusal(&file, &error))),
    };
    let stored = catalog.by_name(&options.owner, &name)?;
    let mut doc = match &stored {
        Some(stored) => F::Doc::clone(&stored.doc),
        None => F::blank(generate::<F::Doc>()?, options.owner.clone(), name),
    };
    let written = file.write(&mut doc).and_then(|written| {
        time(&mut doc, stored.as_deref(), options)
            .and_then(|()| doc.validate())
            .map_err(|error| refusal(&file, &error))?;
        Ok(written)
    });
    Ok(written.map(|(links, noted)| {
        let warnings = file.warnings().iter().cloned().chain(noted).collect();
        Plan { file, stored, doc, links, warnings }
    }))
}

/// The store's refusal of a file, with the line of the key that it names, where it names one.
fn refusal<F: Source>(file: &F, error: &Error) -> FileError {
    let line = match error {
        Error::InvalidInput { field, .. } => field.split('.').find_map(|key| file.lines().get(key).copied()),
        _ => None,
    };
    FileError { path: file.path().to_owned(), line, reason: describe(error) }
}

/// A new id. Ids of every kind are UUIDs; this makes one of the kind that is wanted.
fn generate<D: Definition>() -> Result<D::Id> {
    D::Id::try_from(SkillId::generate().into())
}

/// Asks the host when a schedule that is new, or says other times, is due.
fn time<D: Definition>(doc: &mut D, stored: Option<&D>, options: &Options<'_>) -> Result<()> {
    let Some(schedule) = doc.schedule_mut() else { return Ok(()) };
    let same = stored.and_then(Definition::schedule).is_some_and(|stored| stored.same_times(schedule));
    if !same {
        schedule.next_run_at = match options.next {
            Some(next) => next(&schedule.cron, &schedule.time_zone)
                .map_err(|reason| Error::invalid("schedule.cron", reason))?,
            None => None,
        };
    }
    Ok(())
}

/// Links the document and stores it, if it says something new.
fn put<F: Source>(
    catalog: &dyn Catalog<F::Doc>,
    mut plan: Plan<F>,
    options: &Options<'_>,
    linker: Linker<'_, F::Doc>,
    planned: &BTreeMap<String, <F::Doc as Definition>::Id>,
) -> Result<Entry> {
    let mut again = true;
    loop {
        plan.warnings.extend(linker(&mut plan.doc, &plan.links, planned)?);
        match publish(catalog, &plan, options) {
            Ok(outcome) => {
                let (name, id) = (plan.file.name().to_owned(), plan.doc.id().as_ref().to_owned());
                let path = plan.file.path().to_owned();
                return Ok(Entry { path, name: Some(name), id: Some(id), outcome, warnings: plan.warnings });
            }
            // Somebody saved it since it was read: what the file says goes into what they saved.
            Err(Error::Conflict { .. } | Error::AlreadyExists { .. } | Error::NotFound { .. }) if again => {
                again = false;
                let name = plan.file.name().to_owned();
                plan = match self::plan(catalog, plan.file, options)? {
                    Ok(plan) => plan,
                    Err(error) => return Ok(refused(Some(name), error)),
                };
            }
            Err(error) if error.is_refusal() => {
                return Ok(refused(Some(plan.file.name().to_owned()), refusal(&plan.file, &error)));
            }
            Err(error) => return Err(error),
        }
    }
}

fn publish<F: Source>(
    catalog: &dyn Catalog<F::Doc>,
    plan: &Plan<F>,
    options: &Options<'_>,
) -> Result<Outcome> {
    let Options { saved_by, now, .. } = options;
    let mut version = NewVersion::new(VersionId::generate(), plan.doc.clone(), saved_by.clone(), *now);
    "import".clone_into(&mut version.label);
    let Some(stored) = &plan.stored else {
        version.summary = "created from a file".to_owned();
        let seq = catalog.publish(&version, Expect::Absent)?.version.seq;
        return Ok(Outcome::Created { seq });
    };
    let fields = changed_fields(&*stored.doc, &plan.doc)?;
    if fields.is_empty() {
        return Ok(Outcome::Unchanged);
    }
    version.summary = format!("changed {}", fields.join(", "));
    let seq = catalog.publish(&version, Expect::Revision(stored.revision))?.version.seq;
    Ok(Outcome::Changed { fields, seq })
}

/// The fields in which two documents differ, by name, run state apart.
fn changed_fields<D: Definition>(old: &D, new: &D) -> Result<Vec<String>> {
    let (old, new) = (fields(old)?, fields(new)?);
    let mut changed: Vec<String> =
        old.keys().chain(new.keys()).filter(|key| old.get(*key) != new.get(*key)).cloned().collect();
    changed.sort();
    changed.dedup();
    // The list of what a file says changes along with what it says.
    if changed.len() > 1 {
        changed.retain(|key| key != FROM_FILE);
    }
    Ok(changed)
}

fn fields<D: Definition>(doc: &D) -> Result<serde_json::Map<String, Value>> {
    match serde_json::to_value(rules::without_run_state(doc)) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Ok(serde_json::Map::new()),
        Err(error) => Err(Error::backend("comparing a definition with its file", error)),
    }
}

fn link(
    store: &dyn Seams,
    options: &Options<'_>,
    agent: &mut Agent,
    links: &Links,
    planned: &BTreeMap<String, AgentId>,
) -> Result<Vec<Warning>> {
    let mut warnings = Vec::new();
    let (skills, unresolved) = resolve(store.skills(), options, &links.skills, &BTreeMap::new())?;
    agent.skills = skills;
    keep_unresolved(agent, UNRESOLVED_SKILLS, "skill", unresolved, &mut warnings);
    let (sub_agents, unresolved) = resolve(store.agents(), options, &links.sub_agents, planned)?;
    agent.sub_agents = sub_agents;
    keep_unresolved(agent, UNRESOLVED_SUB_AGENTS, "agent", unresolved, &mut warnings);
    Ok(warnings)
}

/// The ids of those that are there, and the names of those that are not.
fn resolve<D: Definition, C: Catalog<D> + ?Sized>(
    catalog: &C,
    options: &Options<'_>,
    names: &[String],
    planned: &BTreeMap<String, D::Id>,
) -> Result<(Vec<D::Id>, Vec<String>)> {
    let (mut ids, mut unresolved) = (Vec::new(), Vec::new());
    for text in names {
        let id = match (planned.get(text), Name::new(text)) {
            (Some(id), _) => Some(id.clone()),
            (None, Ok(name)) => catalog.by_name(&options.owner, &name)?.map(|stored| stored.id().clone()),
            (None, Err(_)) => None,
        };
        match id {
            Some(id) if !ids.contains(&id) => ids.push(id),
            Some(_) => {}
            None => unresolved.push(text.clone()),
        }
    }
    Ok((ids, unresolved))
}

fn keep_unresolved(
    agent: &mut Agent,
    key: &str,
    noun: &str,
    names: Vec<String>,
    warnings: &mut Vec<Warning>,
) {
    agent.extra.remove(key);
    if names.is_empty() {
        return;
    }
    for name in &names {
        let reason = format!("there is no {noun} `{name}`; the name is kept in `{key}`");
        warnings.push(Warning { line: None, reason });
    }
    agent.extra.insert(key.to_owned(), names.into());
}

fn refused(name: Option<String>, FileError { path, line, reason }: FileError) -> Entry {
    Entry { path, name, id: None, outcome: Outcome::Refused { line, reason }, warnings: Vec::new() }
}

fn skipped(Skipped { path, reason }: Skipped) -> Entry {
    Entry { path, name: None, id: None, outcome: Outcome::Skipped { reason }, warnings: Vec::new() }
}
