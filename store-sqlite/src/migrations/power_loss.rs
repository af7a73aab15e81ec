//! Steps from one schema to the next, and the power that goes while they are taken: all of them were, or none, and the
//! next open takes the rest. The steps of every schema so far touch small tables, so more are made up here.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use contract_tests::fixture::export;
use contract_tests::laws::moves::fill;
use fault_disk::{Event, Fate, Image, Log, Replay};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, Row};
use store_api::{Error, Record, Result, Store};

use super::{MIGRATIONS, take};
use crate::{Options, SqliteStore, connection};

/// Two more steps, which touch old tables and new ones, on many pages.
const STEPS: [&str; 4] = [
    MIGRATIONS[0],
    MIGRATIONS[1],
    "ALTER TABLE versions ADD COLUMN bytes INTEGER;
     UPDATE versions SET bytes = length(doc);
     CREATE TABLE texts (id TEXT NOT NULL PRIMARY KEY, text TEXT NOT NULL) STRICT;
     INSERT INTO texts SELECT id, doc || doc || doc || doc FROM versions;
     PRAGMA user_version = 3;",
    "CREATE INDEX texts_text ON texts (text);
     DELETE FROM texts WHERE id IN (SELECT id FROM versions WHERE seq % 2 = 0);
     PRAGMA user_version = 4;",
];

/// How steps are taken in a database that the connection has open.
type Take = fn(&Connection) -> Result<()>;

fn in_one_transaction(connection: &Connection) -> Result<()> {
    take(&STEPS, connection, Options::default().busy_timeout)
}

/// The control: each statement is a transaction of its own.
fn one_by_one(connection: &Connection) -> Result<()> {
    let taken = STEPS[MIGRATIONS.len()..].iter().try_for_each(|step| connection.execute_batch(step));
    taken.map_err(|e| Error::backend("taking a step", e))
}

fn migrate(path: &Path, take: Take) -> Result<()> {
    let connection = connection::open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, &Options::default())?;
    take(&connection)
}

/// Every row of every table as text, and what the tables are.
type Rows = Vec<(String, Vec<String>)>;

fn rows(path: &Path) -> Rows {
    let connection = Connection::open(path).unwrap();
    let read = |sql: &str| {
        let mut statement = connection.prepare(sql).unwrap();
        let columns = statement.column_count();
        let row = |row: &Row<'_>| (0..columns).map(|column| row.get(column)).collect();
        let rows = statement.query_map([], row).unwrap();
        let mut rows: Vec<String> =
            rows.map(|row: rusqlite::Result<Vec<Value>>| format!("{:?}", row.unwrap())).collect();
        rows.sort();
        rows
    };
    let mut statement = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").unwrap();
    let names = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let mut tables = vec![("schema".to_owned(), read("SELECT type, name, sql FROM sqlite_schema"))];
    for name in names.map(std::result::Result::unwrap) {
        let rows = read(&format!("SELECT * FROM {name}"));
        tables.push((name, rows));
    }
    tables
}

/// A store before its migration.
struct Old {
    file: Vec<u8>,
    records: Vec<Record>,
}

impl Old {
    fn new(directory: &Path) -> Old {
        let path = directory.join("old.db");
        let store = SqliteStore::open(&path).unwrap();
        fill(&store);
        let records = export(&store);
        Store::close(&store).unwrap();
        Old { file: fs::read(path).unwrap(), records }
    }

    /// What a disk that is written down is told while the store is migrated, and how much of it until that has returned.
    fn migrated(&self, directory: &Path, take: Take) -> (Vec<Event>, usize) {
        let directory = empty(directory, "machine");
        let path = directory.join("s.db");
        fs::write(&path, &self.file).unwrap();
        let log = Arc::new(Log::new());
        log.find_all(&directory).unwrap();
        let _mount = fault_disk::sqlite::mount(&directory, log.clone()).unwrap();
        let connection = connection::open(&path, OpenFlags::SQLITE_OPEN_READ_WRITE, &Options::default());
        let connection = connection.unwrap();
        take(&connection).unwrap();
        let acknowledged = log.len();
        connection.close().unwrap();
        (log.take(), acknowledged)
    }
}

fn empty(directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    if path.exists() {
        fs::remove_dir_all(&path).unwrap();
    }
    fs::create_dir(&path).unwrap();
    path
}

/// What is wrong with what the power left, if anything is.
fn fault(directory: &Path, image: &Image, old: &Old, new: &Rows, must: bool) -> Option<String> {
    let directory = empty(directory, "image");
    for (path, content) in image {
        fs::write(directory.join(path.file_name().unwrap()), content).unwrap();
    }
    let path = directory.join("s.db");
    match SqliteStore::open(&path) {
        Ok(_) if must => return Some("the migration was acknowledged and is gone".to_owned()),
        Ok(store) if export(&store) != old.records => return Some("some of it is done".to_owned()),
        Ok(store) => Store::close(&store).unwrap(),
        Err(Error::SchemaTooNew { found: 4, .. }) => {}
        Err(error) => return Some(error.to_string()),
    }
    if let Err(error) = migrate(&path, in_one_transaction) {
        return Some(format!("is not finished: {error}"));
    }
    (rows(&path) != *new).then(|| "ends in something else".to_owned())
}

/// How many images are in neither state, of how many; and what is wrong with the first.
fn torn(take: Take) -> (usize, usize, Option<String>) {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().canonicalize().unwrap();
    let old = Old::new(&directory);
    let whole = directory.join("whole.db");
    fs::write(&whole, &old.file).unwrap();
    migrate(&whole, in_one_transaction).unwrap();
    let new = rows(&whole);

    let (events, acknowledged) = old.migrated(&directory, take);
    let (mut replay, mut rng) = (Replay::new(), fastrand::Rng::with_seed(1));
    let (mut torn, mut seen, mut first) = (0, HashSet::new(), None);
    for (position, event) in (1..).zip(&events) {
        replay.advance(event);
        for mut fate in [Fate::Kept, Fate::Dropped, Fate::Mixed(&mut rng)] {
            let image = replay.image(&mut fate);
            let must = position >= acknowledged;
            if image.is_empty() || !seen.insert((image.clone(), must)) {
                continue;
            }
            if let Some(fault) = fault(&directory, &image, &old, &new, must) {
                torn += 1;
                first.get_or_insert(format!("after event {position}: {fault}"));
            }
        }
    }
    (torn, seen.len(), first)
}

#[test]
fn a_migration_that_the_power_cuts_short_is_done_or_not_and_the_next_open_finishes_it() {
    let (torn, images, first) = torn(in_one_transaction);
    assert!(images > 100, "{images} images");
    assert_eq!((torn, first), (0, None), "of {images}");
}

/// The control: it looks in the right places.
#[test]
fn a_migration_without_a_transaction_is_seen_half_done() {
    let (torn, images, _) = torn(one_by_one);
    assert!(torn > 0, "of {images}");
}
