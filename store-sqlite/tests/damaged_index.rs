//! Indexes that are damaged and lead to other rows than they should, each sound in itself: no call gives, moves or
//! removes what it was not asked for, none gives a thing twice, and every walk ends.

#![allow(clippy::unwrap_used)] // of the helpers: each is an assertion

use std::fs;
use std::path::{Path, PathBuf};

use contract_tests::fixture::{
    account, agent, at, charge, checkpoint, event, export, finish, id, run, schedule, seconds, skill,
    version, whole, worker,
};
use rusqlite::Connection;
use store_api::{
    Error, ErrorKind, Expect, GroupBy, PageRequest, Record, Result, RunFilter, Seams, Store, StoreExt, page,
};
use store_sqlite::SqliteStore;

/// A page of an index as SQLite's file format lays it out, which is documented and does not change: a head, then
/// where each of its cells lies, in the order of their keys.
struct Index {
    file: Vec<u8>,
    page: usize,
}

impl Index {
    fn cell_pointer(&self, cell: usize) -> usize {
        let is_above_leaves = self.file[self.page] == 2;
        self.page + if is_above_leaves { 12 } else { 8 } + 2 * cell
    }

    fn cell(&self, cell: usize) -> usize {
        let at = self.cell_pointer(cell);
        self.page + usize::from(u16::from_be_bytes([self.file[at], self.file[at + 1]]))
    }

    fn cells(&self) -> usize {
        usize::from(u16::from_be_bytes([self.file[self.page + 3], self.file[self.page + 4]]))
    }

    /// Makes a place in the order lead to the entry of another.
    fn lead(&mut self, from: usize, to: usize) {
        let (from, to) = (self.cell_pointer(from), self.cell_pointer(to));
        self.file.copy_within(to..to + 2, from);
    }

    /// Makes an entry name the row of another. A row's number is the last byte of its entry, if it is small.
    fn name_row(&mut self, of: usize, other: usize) {
        let last = |cell: usize| cell + usize::from(self.file[cell]);
        let (of, other) = (last(self.cell(of)), last(self.cell(other)));
        self.file[of] = self.file[other];
    }
}

/// A store that is filled, then damaged in one index.
fn damaged(
    fill: fn(&dyn Seams) -> Result<()>,
    index: &str,
    harm: impl FnOnce(&mut Index),
) -> (tempfile::TempDir, PathBuf, SqliteStore) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    let store = SqliteStore::open(&path).unwrap();
    store.transact(fill).unwrap();
    store.close().unwrap();
    let store = damage(&path, index, harm);
    (directory, path, store)
}

/// Damages a closed store in one index, or in a table that is one, and opens it.
fn damage(path: &Path, index: &str, harm: impl FnOnce(&mut Index)) -> SqliteStore {
    let raw = Connection::open(path).unwrap();
    let number = |sql: &str| raw.query_one(sql, [], |row| row.get::<_, u32>(0)).unwrap() as usize;
    let size = number("PRAGMA page_size");
    let root = number(&format!("SELECT rootpage FROM sqlite_schema WHERE name = '{index}'"));
    drop(raw);
    let mut index = Index { file: fs::read(path).unwrap(), page: (root - 1) * size };
    harm(&mut index);
    fs::write(path, index.file).unwrap();
    SqliteStore::open(path).unwrap()
}

#[track_caller]
fn assert_corrupt<T: std::fmt::Debug>(result: Result<T>, what: &str) {
    let error: Error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().starts_with(&format!("corrupt {what}")), "{error}");
}

/// Two definitions with versions, two runs with events, and two of everything else. What comes first is there so that
/// no row has the number 1, which entries of an index hold in another way.
fn pairs(seams: &dyn Seams) -> Result<()> {
    for (name, hour) in [("0", 0), ("a", 1), ("b", 2)] {
        let mut skill = skill(name);
        skill.schedule = Some(schedule(Some(at(hour))));
        seams.skills().save(&skill, Expect::Absent)?;
        for number in 1..=3 {
            seams.skills().append_version(&version(&format!("{name}{number}"), skill.clone()))?;
        }
        for key in ["k1", "k2"] {
            seams.budgets().add(&charge(&account(name, 100), 1).with_key(id(key)), at(0))?;
        }
        seams.budgets().add(&charge(&account(name, 200), 1), at(0))?;
        seams.audit().start_run(&run(name, hour))?;
        seams.audit().append_event(&id(name), &event(1))?;
        seams.audit().append_event(&id(name), &event(2))?;
        seams.audit().finish_run(&id(name), &finish(10 - hour))?;
        seams.checkpoints().save(&checkpoint(name, 1))?;
    }
    Ok(())
}

/// What is stored, whatever the indexes say.
fn rows(path: &PathBuf, table: &str) -> i64 {
    let raw = Connection::open(path).unwrap();
    raw.query_one(&format!("SELECT count(*) FROM {table} NOT INDEXED"), [], |row| row.get(0)).unwrap()
}

#[test]
fn a_mark_moves_no_other_definition() {
    let (_directory, _, store) =
        damaged(pairs, "sqlite_autoindex_definitions_1", |index| index.name_row(2, 1));
    let before = store.skills().get(&id("a")).unwrap();
    assert_corrupt(store.skills().mark_scheduled_run(&id("b"), at(5), Some(at(6))), "definitions/skill/b");
    assert_eq!(store.skills().get(&id("a")).unwrap(), before);
}

#[test]
fn what_is_deleted_takes_nothing_of_others_along() {
    let (_directory, path, store) = damaged(pairs, "sqlite_autoindex_versions_2", |index| index.lead(8, 3));
    assert_corrupt(store.skills().delete(&id("b"), Expect::Any), "definitions/skill/b");
    assert_eq!(rows(&path, "versions"), 9);

    let (_directory, path, store) = damaged(pairs, "sqlite_autoindex_events_1", |index| index.lead(5, 2));
    assert_corrupt(store.audit().purge_before(at(9), false), "runs/b");
    assert_eq!(rows(&path, "events"), 6);

    let (_directory, path, store) = damaged(pairs, "charges_expiry", |index| index.lead(5, 2));
    assert_corrupt(store.budgets().reset(&account("b", 100)), "accounts/b/usd/rollover:100s");
    assert_eq!(rows(&path, "charges"), 6);

    let (_directory, path, store) =
        damaged(pairs, "sqlite_autoindex_accounts_1", |index| index.name_row(5, 3));
    assert_corrupt(store.budgets().reset(&account("b", 200)), "accounts/b/usd/rollover:200s");
    assert_eq!(rows(&path, "accounts"), 6);

    let (_directory, path, store) =
        damaged(pairs, "sqlite_autoindex_checkpoints_1", |index| index.name_row(2, 1));
    assert_corrupt(store.checkpoints().delete(&id("b")), "checkpoints/b");
    assert_eq!(rows(&path, "checkpoints"), 3);
}

#[test]
fn a_prune_counts_no_version_twice() {
    let (_directory, path, store) = damaged(pairs, "sqlite_autoindex_versions_2", |index| index.lead(6, 7));
    assert_corrupt(store.skills().prune_versions(&id("b"), 2), "database index");
    assert_eq!(rows(&path, "versions"), 9);
    assert_corrupt(store.skills().versions(&id("b"), &whole()), "database index");
}

#[test]
fn a_claim_takes_nothing_twice() {
    let (_directory, _, store) = damaged(pairs, "definitions_due", |index| index.lead(2, 1));
    let skills = store.skills();
    assert_corrupt(skills.claim_due(at(9), &worker("w"), seconds(60), 9), "database index");
    assert_corrupt(skills.due(at(9), &whole()), "database index");
    assert_eq!(skills.claim_due(at(9), &worker("w"), seconds(60), 2).unwrap().len(), 2);

    let (_directory, _, store) = damaged(pairs, "sqlite_autoindex_checkpoints_1", |index| index.lead(2, 1));
    let checkpoints = store.checkpoints();
    assert_corrupt(checkpoints.claim_interrupted(at(9), &worker("w"), seconds(60), 9), "database index");
    assert_corrupt(checkpoints.interrupted(&whole()), "database index");
    assert_eq!(checkpoints.claim_interrupted(at(9), &worker("w"), seconds(60), 2).unwrap().len(), 2);
}

#[test]
fn a_list_gives_nothing_twice() {
    let (_directory, _, store) = damaged(pairs, "runs_started", |index| index.lead(0, 1));
    let audit = store.audit();
    assert_corrupt(audit.runs(&RunFilter::default(), &whole()), "database index");
    assert_corrupt(audit.summary(&RunFilter::default(), GroupBy::Status, &whole()), "database index");
    let (_directory, _, store) = damaged(pairs, "sqlite_autoindex_definitions_1", |index| index.lead(2, 1));
    assert_corrupt(store.skills().list(&Default::default(), &whole()), "database index");
    let (_directory, _, store) = damaged(pairs, "sqlite_autoindex_accounts_1", |index| index.lead(2, 1));
    assert_corrupt(store.budgets().accounts(at(9), &whole()), "database index");
}

#[test]
fn an_export_gives_nothing_twice() {
    for (index, last) in [
        ("sqlite_autoindex_definitions_1", 2),
        ("sqlite_autoindex_versions_2", 8),
        ("sqlite_autoindex_accounts_1", 2),
        ("sqlite_autoindex_runs_1", 2),
        ("sqlite_autoindex_events_1", 5),
        ("sqlite_autoindex_checkpoints_1", 2),
    ] {
        let (_directory, _, store) = damaged(pairs, index, |index| index.lead(last, last - 1));
        let mut given: Vec<Record> = Vec::new();
        let exported = store.export(&mut |record| {
            assert!(!given.contains(&record), "{index}: {record:?} is given twice");
            given.push(record);
            Ok(())
        });
        assert_corrupt(exported, "database index");
    }
    let (_directory, _, sound) = damaged(pairs, "runs_started", |_| ());
    assert_eq!(export(&sound).len(), 1 + 3 * (1 + 3 + 2 + 2 + 1 + 2 + 1));
}

/// The time by which an index has a run is another than the run's: pages that went on after it began anew.
#[test]
fn pages_end_when_a_run_stands_in_the_wrong_place() {
    let (_directory, path, store) = damaged(pairs, "runs_started", |_| ());
    let raw = Connection::open(path).unwrap();
    let between =
        "UPDATE runs SET started_at = (SELECT started_at FROM runs WHERE id = '0') + 1 WHERE id = 'b'";
    assert_eq!(raw.execute(between, []).unwrap(), 1);
    let runs = page::all(1, |page| store.audit().runs(&RunFilter::default(), page));
    let found: Vec<_> = runs.take(9).collect();
    assert!(found.len() < 9 && found.last().unwrap().is_err(), "{found:?}");
}

#[test]
fn what_an_index_calls_stale_is_asked_again() {
    let start = |seams: &dyn Seams| seams.audit().start_run(&run("r", 50)).map(drop);
    let (_directory, path, store) = damaged(start, "runs_started", |_| ());
    Connection::open(path).unwrap().execute("UPDATE runs SET started_at = 0", []).unwrap();
    assert_eq!(store.audit().abandon_stale(at(10), at(60), 9).unwrap(), []);
    assert_eq!(store.audit().abandon_stale(at(51), at(60), 9).unwrap(), [id("r")]);
}

/// One bit where the index of versions holds the kind puts a version of one agent before those of another.
#[test]
fn versions_of_another_definition_are_not_given() {
    let fill = |seams: &dyn Seams| {
        for (name, versions) in [("a", 1), ("b", 3)] {
            seams.agents().save(&agent(name), Expect::Absent)?;
            for number in 1..=versions {
                seams.agents().append_version(&version(&format!("{name}{number}"), agent(name)))?;
            }
        }
        Ok(())
    };
    // An entry: its length, the length of its head, the types of kind, definition, seq and row, and then the kind.
    let (_directory, _, store) = damaged(fill, "sqlite_autoindex_versions_2", |index| {
        let kind = index.cell(0) + 6;
        assert_eq!(index.file[kind], 2);
        index.file[kind] ^= 1;
    });
    assert_corrupt(store.agents().versions(&id("b"), &PageRequest::default()), "versions/a1");
    assert_corrupt(store.agents().prune_versions(&id("b"), 3), "versions/a1");
    assert_eq!(store.agents().latest(&id("b")).unwrap().unwrap().seq, 3);
    assert!(!store.verify().unwrap().is_sound());
}

/// A page of the index of events that leads to a page of another run's: none of that run's events is given.
#[test]
fn events_of_another_run_are_not_given() {
    let fill = |seams: &dyn Seams| {
        for name in ["x1", "x2"] {
            seams.audit().start_run(&run(name, 0))?;
            (0..3000)
                .try_for_each(|number| seams.audit().append_event(&id(name), &event(number)).map(drop))?;
        }
        Ok(())
    };
    // An entry of a page above leaves begins with the number of the page that it leads to.
    let (_directory, _, store) = damaged(fill, "sqlite_autoindex_events_1", |index| {
        let (first, last) = (index.cell(1), index.cell(index.cells() - 1));
        index.file.copy_within(first..first + 4, last);
    });
    let found: Result<Vec<_>> = page::all(500, |page| store.audit().events(&id("x2"), page)).collect();
    assert_corrupt(found, "events/x1/");
    assert!(!store.verify().unwrap().is_sound());
}

/// A call that goes by the id of something.
type Call = fn(&SqliteStore, &str) -> Result<()>;

/// Many records with the same ids in every seam.
fn many(seams: &dyn Seams) -> Result<()> {
    for number in 0..1500 {
        let name = format!("n{number:04}");
        let mut skill = skill(&name);
        skill.schedule = Some(schedule(Some(at(number))));
        seams.skills().save(&skill, Expect::Absent)?;
        seams.skills().append_version(&version(&name, skill))?;
        seams.budgets().add(&charge(&account(&name, 100), 1).with_key(id("k")), at(0))?;
        seams.audit().start_run(&run(&name, number))?;
        seams.audit().append_event(&id(&name), &event(1))?;
        seams.checkpoints().save(&checkpoint(&name, 1))?;
    }
    Ok(())
}

/// A page above the leaves holds a key itself, and leads for what is before it to a page of what comes after it, or the
/// other way round. SQLite has seen the key that is asked for, and takes the entry at which it arrives for that one.
#[test]
fn a_search_by_key_ends_at_that_key_or_is_corrupt() {
    const EVENTS: &str = "sqlite_autoindex_events_1";
    let cases: [(&str, Call); 17] = [
        ("sqlite_autoindex_definitions_1", |s, name| s.skills().get(&id(name)).map(drop)),
        ("sqlite_autoindex_definitions_1", |s, name| s.skills().delete(&id(name), Expect::Any)),
        ("sqlite_autoindex_definitions_1", |s, name| s.skills().mark_scheduled_run(&id(name), at(1), None)),
        ("sqlite_autoindex_definitions_1", |s, name| s.skills().reschedule(&id(name), None)),
        ("last_seqs", |s, name| s.skills().append_version(&version("new", skill(name))).map(drop)),
        ("last_seqs", |s, name| s.skills().delete(&id(name), Expect::Any)),
        ("sqlite_autoindex_versions_1", |s, name| s.skills().version(&id(name)).map(drop)),
        ("sqlite_autoindex_versions_1", |s, name| s.skills().pin_version(&id(name), true)),
        ("sqlite_autoindex_accounts_1", |s, name| s.budgets().usage(&account(name, 100), at(0)).map(drop)),
        ("sqlite_autoindex_accounts_1", |s, name| s.budgets().reset(&account(name, 100))),
        ("charges", |s, name| {
            s.budgets().add(&charge(&account(name, 100), 1).with_key(id("k")), at(0)).map(drop)
        }),
        ("sqlite_autoindex_runs_1", |s, name| s.audit().run(&id(name)).map(drop)),
        ("sqlite_autoindex_runs_1", |s, name| s.audit().finish_run(&id(name), &finish(9000))),
        (EVENTS, |s, name| s.audit().append_event(&id(name), &event(2)).map(drop)),
        ("sqlite_autoindex_checkpoints_1", |s, name| s.checkpoints().load(&id(name)).map(drop)),
        ("sqlite_autoindex_checkpoints_1", |s, name| s.checkpoints().save(&checkpoint(name, 2))),
        ("sqlite_autoindex_checkpoints_1", |s, name| s.checkpoints().delete(&id(name))),
    ];
    let directory = tempfile::tempdir().unwrap();
    let filled = directory.path().join("filled.db");
    let store = SqliteStore::open(&filled).unwrap();
    store.transact(many).unwrap();
    store.close().unwrap();
    for (index, call) in cases {
        let path = directory.path().join("s.db");
        fs::copy(&filled, &path).unwrap();
        let mut asked = String::new();
        let store = damage(&path, index, |page| {
            let (cell, next, last) = (page.cell(0), page.cell(1), page.cell(page.cells() - 1));
            let name = page.file[cell..]
                .windows(5)
                .find(|text| text[0] == b'n' && text[1..].iter().all(u8::is_ascii_digit));
            asked = String::from_utf8(name.unwrap().to_vec()).unwrap();
            // Of events the last one is looked for, from above.
            let (from, to) = if index == EVENTS { (cell, next) } else { (last, cell) };
            page.file.copy_within(from..from + 4, to);
        });
        let error = call(&store, &asked).expect_err(index);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{index}: {error}");
        store.close().unwrap();
    }
}
