//! What is in a store before it is measured, as the records of an export.

use std::iter;

use store_api::{
    AccountRecord, Counter, DefinitionRecord, Event, Ledger, NewRun, Record, Revision, Run, RunId, Version,
};

use crate::data::{self, DOCUMENT_BYTES};
use crate::subject::{Result, Subject};

/// A population; how large the large ones are, the command line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Population {
    /// A thousand skills of 2 KB, a few of them with a history, accounts, running runs, a chain of runs.
    Small,
    /// A tenth as many skills as the size says, all due, and as many runs, of the first thousand skills.
    Large(u64),
    /// About as many records as the size says, of all kinds; the first skill has a long history.
    Mixed(u64),
}

/// How many skills the small population has.
pub(crate) const SKILLS: u64 = 1_000;
/// How many of them have a history.
pub(crate) const WITH_VERSIONS: u64 = 32;
/// How long it is.
pub(crate) const VERSIONS: u64 = 60;
/// How many running runs it has.
pub(crate) const RUNS: u64 = 64;
/// How many runs are above the last one of the chain.
pub(crate) const DEPTH: u64 = 100;

/// How large documents are where there are many.
const SMALL_DOCUMENT_BYTES: usize = 500;
/// How many skills have runs, where there are many runs.
const WITH_RUNS: u64 = 1_000;

/// A run of the chain; each has the one before it as its parent.
pub(crate) fn link_id(n: u64) -> Result<RunId> {
    Ok(RunId::new(format!("link-{n:04}"))?)
}

impl Population {
    /// How many skills there are.
    pub(crate) fn skills(self) -> u64 {
        match self {
            Population::Small => SKILLS,
            Population::Large(size) | Population::Mixed(size) => (size / 10).max(1),
        }
    }

    /// How many skills have runs.
    pub(crate) fn with_runs(self) -> u64 {
        self.skills().min(WITH_RUNS)
    }

    fn runs(self) -> u64 {
        match self {
            Population::Small => RUNS,
            Population::Large(size) => size,
            Population::Mixed(size) => size * 3 / 10,
        }
    }

    /// How many versions the skill has.
    pub(crate) fn versions(self, skill: u64) -> u64 {
        match self {
            Population::Small => (skill < WITH_VERSIONS) as u64 * VERSIONS,
            Population::Large(_) => 0,
            Population::Mixed(size) if skill == 0 => size * 2 / 10,
            Population::Mixed(_) => 1,
        }
    }

    fn document_bytes(self) -> usize {
        if self == Population::Small { DOCUMENT_BYTES } else { SMALL_DOCUMENT_BYTES }
    }

    fn accounts(self) -> u64 {
        match self {
            Population::Small | Population::Large(_) => data::ACCOUNTS,
            Population::Mixed(size) => (size / 100).max(1),
        }
    }

    /// All of it, in the order of an export, made as it is asked for.
    pub(crate) fn records(self) -> impl Iterator<Item = Result<Record>> {
        iter::once(Ok(Record::Counter(Counter { last: self.skills() })))
            .chain((0..self.skills()).flat_map(move |n| self.skill(n)))
            .chain((0..self.accounts()).map(account))
            .chain((0..self.links()).map(link))
            .chain((0..self.runs()).flat_map(move |n| self.run(n)))
    }

    /// Fills a subject; says how many records that were.
    pub(crate) fn load_into(self, subject: &dyn Subject) -> Result<u64> {
        let (mut count, mut failed) = (0, None);
        let mut records = self.records().map_while(|record| {
            count += 1;
            record.map_err(|error| failed = Some(error)).ok()
        });
        subject.load(&mut records)?;
        failed.map_or(Ok(count), Err)
    }

    fn links(self) -> u64 {
        if self == Population::Small { DEPTH + 1 } else { 0 }
    }

    fn skill(self, n: u64) -> impl Iterator<Item = Result<Record>> {
        let last_seq = self.versions(n);
        let definition = data::skill(n, self.document_bytes()).map(|doc| {
            Record::Skill(DefinitionRecord { doc: doc.into(), revision: Revision(n + 1), last_seq })
        });
        // The numbers of all versions: the first skill's, then those of the others.
        let before = if n == 0 { 0 } else { self.versions(0) + (n - 1) * self.versions(1) };
        let versions = (1..=last_seq).map(move |seq| {
            let content = data::version(before + seq, n, self.document_bytes())?;
            Ok(Record::SkillVersion(Version { seq, content }))
        });
        iter::once(definition).chain(versions)
    }

    fn run(self, n: u64) -> impl Iterator<Item = Result<Record>> {
        let run = || data::run(data::run_id(n)?, n, n % self.with_runs());
        let record = run().and_then(|run| self.recorded(n, run));
        let event = matches!(self, Population::Mixed(_))
            .then(|| Ok(Record::Event(Event { run: data::run_id(n)?, seq: 1, content: data::event(n) })));
        iter::once(record).chain(event)
    }

    /// A run as it stands: all but a few of many are finished, those of the small population are running.
    fn recorded(self, n: u64, run: NewRun) -> Result<Record> {
        let started = Run::started(run);
        let runs_on = self == Population::Small || n % 100 == 7;
        let finished = if runs_on { None } else { started.finished(&data::finish(n)?)? };
        Ok(Record::Run(finished.unwrap_or(started)))
    }
}

fn account(n: u64) -> Result<Record> {
    Ok(Record::Account(AccountRecord { account: data::charge(n)?.account, ledger: Ledger::default() }))
}

fn link(n: u64) -> Result<Record> {
    let mut run = data::run(link_id(n)?, n, 0)?;
    run.parent = n.checked_sub(1).map(link_id).transpose()?;
    Ok(Record::Run(Run::started(run)))
}
