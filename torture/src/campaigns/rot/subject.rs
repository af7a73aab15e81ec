//! The store whose bits are flipped, and what it answers while none is.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use contract_tests::fixture::{
    account, at, charge, checkpoint, event, finish, id, records, run, schedule, skill, version,
};
use contract_tests::laws::moves::fill;
use safe_files::with_suffix;
use store::{Account, Durability, Expect, NewRun, Result, Seams, Skill, Store, Tag};

use super::questions::{Answer, Question, export, questions};
use crate::engines::Engine;
use crate::place::scratch;
use crate::report::Broken;

/// How many commits come after the sample.
pub(super) const COMMITS: u64 = 8;

/// How many records of each type a large store has, at least: enough for its indexes to have pages above the leaves.
const MANY: i64 = 700;

/// How many bytes a redb page has.
const REDB_PAGE: usize = 4_096;

/// A store before any flip.
pub(super) struct Subject {
    pub(super) engine: Engine,
    /// Its files, by the suffix of their names.
    pub(super) files: Vec<(&'static str, Vec<u8>)>,
    pub(super) questions: Vec<Question>,
    /// What it answered after each of its last commits, oldest first: the export, then each question.
    pub(super) states: Vec<Vec<Answer>>,
    /// By question, the export first: every record that was ever part of the answer.
    pub(super) known: Vec<BTreeSet<String>>,
    /// Which bytes of the first file lie in pages above the leaves, of tables and indexes, and lead to other pages.
    pub(super) above_leaves: Vec<usize>,
}

impl Subject {
    /// A small store, with some commits that are still in the log when it was not closed.
    pub(super) fn small(engine: Engine, closed: bool) -> std::result::Result<Subject, Broken> {
        let directory = scratch()?;
        let path = directory.path().join("s");
        let store = engine.open(&path, Durability::Process)?;
        fill(&*store);
        store.close()?;
        let store = engine.open(&path, Durability::Process)?;
        (0..COMMITS).try_for_each(|commit| go_on(&*store, commit))?;
        let questions = questions(&records(&*store)?);
        let mut states = Subject::replay(engine, &questions)?;
        if closed {
            store.close()?;
            states.drain(..states.len() - 1);
        }
        let files = read_files(engine, &path)?;
        Ok(Subject::of(engine, files, questions, states))
    }

    /// A large store, closed.
    pub(super) fn large(engine: Engine) -> std::result::Result<Subject, Broken> {
        let directory = scratch()?;
        let path = directory.path().join("s");
        let store = engine.open(&path, Durability::Process)?;
        store.transaction(&mut fill_much)?;
        let questions = questions(&records(&*store)?);
        let states = vec![ask_all(&*store, &questions)?];
        store.close()?;
        let files = read_files(engine, &path)?;
        Ok(Subject::of(engine, files, questions, states))
    }

    fn of(
        engine: Engine,
        files: Vec<(&'static str, Vec<u8>)>,
        questions: Vec<Question>,
        states: Vec<Vec<Answer>>,
    ) -> Subject {
        let answered = |number: usize| states.iter().filter_map(move |state| state.get(number)).flatten();
        let known = (0..=questions.len())
            .map(|number| {
                let question = number.checked_sub(1).and_then(|number| questions.get(number));
                let width = if question.is_some_and(|question| question.is_first_of_next) { 2 } else { 1 };
                (number..number + width).flat_map(answered).cloned().collect()
            })
            .collect();
        let above_leaves = match (engine, files.first()) {
            (_, None) => vec![],
            (Engine::Sqlite, Some((_, file))) => sqlite_above_leaves(file),
            (Engine::Redb, Some((_, file))) => redb_above_leaves(file),
        };
        Subject { engine, files, questions, states, known, above_leaves }
    }

    /// The same commits once more, with every question after each of them.
    fn replay(engine: Engine, questions: &[Question]) -> std::result::Result<Vec<Vec<Answer>>, Broken> {
        let directory = scratch()?;
        let store = engine.open(&directory.path().join("s"), Durability::Process)?;
        fill(&*store);
        let mut states = vec![ask_all(&*store, questions)?];
        for commit in 0..COMMITS {
            go_on(&*store, commit)?;
            states.push(ask_all(&*store, questions)?);
        }
        Ok(states)
    }
}

fn read_files(engine: Engine, path: &Path) -> std::io::Result<Vec<(&'static str, Vec<u8>)>> {
    let suffixes: &[&str] = if engine == Engine::Sqlite { &["", "-wal"] } else { &[""] };
    let there = suffixes.iter().filter(|suffix| with_suffix(path, suffix).exists());
    there.map(|suffix| Ok((*suffix, fs::read(with_suffix(path, suffix))?))).collect()
}

fn ask_all(store: &dyn Store, questions: &[Question]) -> Result<Vec<Answer>> {
    let (records, end) = export(store);
    end?;
    std::iter::once(Ok(records)).chain(questions.iter().map(|question| question.ask(store))).collect()
}

/// One commit more, in the seam whose turn it is.
pub(super) fn go_on(store: &dyn Store, commit: u64) -> Result<()> {
    let account = Account::new(id("caller"), id("usd"), "rollover:7d".parse()?);
    store.transaction(&mut |seams: &dyn Seams| match commit % 4 {
        0 => seams.skills().publish(&version(&format!("late-{commit}"), skill("a")), Expect::Any).map(drop),
        1 => seams
            .budgets()
            .add(&charge(&account, 7).with_key(id(&format!("late-{commit}"))), at(40))
            .map(drop),
        2 => seams.audit().append_event(&id("r1"), &event(commit)).map(drop),
        _ => seams.checkpoints().save(&checkpoint("r1", 100 + commit)),
    })
}

/// Many records of each type, and one definition with many versions, one run with many events and children.
fn fill_much(seams: &dyn Seams) -> Result<()> {
    for number in 0..MANY {
        let name = format!("n{number:04}");
        let schedule = Some(schedule(Some(at(number))));
        let tags = [id::<Tag>("tag")].into();
        seams.skills().save(&Skill { schedule, tags, ..skill(&name) }, Expect::Absent)?;
        seams.skills().append_version(&version(&format!("v{number:04}"), skill("n0000")))?;
        let account = account(&name, 100);
        seams.budgets().add(&charge(&account, 1 + number.unsigned_abs()).with_key(id("k")), at(0))?;
        let parent = (number > 0).then(|| id("n0000"));
        let run = NewRun { parent, skill: Some(id("n0000")), ..run(&name, number) };
        seams.audit().start_run(&run)?;
        seams.audit().append_event(&id("n0000"), &event(0))?;
        seams.audit().append_event(&run.id, &event(1))?;
        if number % 2 == 0 {
            seams.audit().finish_run(&run.id, &finish(number + 1))?;
        }
        seams.checkpoints().save(&checkpoint(&name, 1))?;
    }
    Ok(())
}

/// Of the pages of a tree that SQLite calls interior, the head with its pointers, and the cells.
fn sqlite_above_leaves(file: &[u8]) -> Vec<usize> {
    let number = |at: usize| match file.get(at..at + 2) {
        Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
        _ => 0,
    };
    let size = number(16).max(512);
    let pages = (0..file.len()).step_by(size).filter(|page| matches!(file.get(*page), Some(2 | 5)));
    let head = |page: usize| page..page + 12 + 2 * number(page + 3);
    let cells = |page: usize| page + number(page + 5)..page + size;
    pages.flat_map(|page| head(page).chain(cells(page))).collect()
}

/// Of the pages of a tree that redb calls branches, all up to the first key: the numbers of the pages below, what
/// those are to sum up to, and where the keys end.
fn redb_above_leaves(file: &[u8]) -> Vec<usize> {
    let heads = (0..file.len()).step_by(REDB_PAGE).filter_map(|page| match file.get(page..page + 4) {
        Some(&[2, _, low, high]) => {
            let keys = usize::from(u16::from_le_bytes([low, high]));
            Some(page..page + 8 + 24 * (keys + 1) + 4 * keys)
        }
        _ => None,
    });
    heads.filter(|head| head.len() < REDB_PAGE).flatten().collect()
}
