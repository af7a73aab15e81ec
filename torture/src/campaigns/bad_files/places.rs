//! The places: what stands where a store is to be opened, and how that must be answered.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use contract_tests::laws::moves::fill;
use redb::{Database, TableDefinition};
use rusqlite::Connection;
use safe_files::with_suffix;
use store::transfer::{Counts, counts};
use store::{Durability, ErrorKind, Expect, Name, PrincipalId, Skill, SkillId, Store, json};

use super::tree::{give_to_nobody, set_mode};
use crate::engines::Engine;
use crate::report::Broken;

/// How a place must be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// With an error of one of these kinds, and nothing is touched.
    Refused(&'static [ErrorKind]),
    /// With one of these errors, and nothing is touched; or with a store in which `verify` finds what is wrong.
    Damaged(&'static [ErrorKind]),
    /// With a sound store.
    Opens,
}

use Answer::{Damaged, Opens, Refused};
use ErrorKind::{Backend, Corrupt, InvalidInput, NotThisStore, SchemaTooNew};

/// Puts something into an empty directory and gives the path to open.
type Lay = Box<dyn Fn(&Path) -> Result<PathBuf, Broken>>;

pub(super) struct Place {
    pub(super) what: String,
    pub(super) lay: Lay,
    /// The answer when the path is given to the letter.
    pub(super) by_path: Answer,
    /// The answer when it stands in a URL.
    pub(super) by_url: Answer,
}

impl Place {
    fn new(
        what: impl Into<String>,
        answer: Answer,
        lay: impl Fn(&Path) -> Result<PathBuf, Broken> + 'static,
    ) -> Place {
        Place { what: what.into(), lay: Box::new(lay), by_path: answer, by_url: answer }
    }

    fn by_url(self, answer: Answer) -> Place {
        Place { by_url: answer, ..self }
    }

    /// A file with these bytes, and one beside it for each suffix.
    fn files(what: impl Into<String>, answer: Answer, files: Files) -> Place {
        Place::new(what, answer, move |directory| {
            let path = directory.join("s.db");
            for (suffix, bytes) in &files {
                fs::write(with_suffix(&path, suffix), bytes)?;
            }
            Ok(path)
        })
    }

    fn file(what: impl Into<String>, answer: Answer, bytes: impl Into<Arc<[u8]>>) -> Place {
        Place::files(what, answer, vec![("", bytes.into())])
    }
}

/// Writes one thing more to a store.
pub(super) fn write(store: &dyn Store) -> store::Result<()> {
    let skill =
        Skill::new(SkillId::generate(), PrincipalId::new("o")?, Name::new(SkillId::generate().as_str())?);
    store.skills().save(&skill, Expect::Absent).map(drop)
}

/// How many records the sample has.
pub(super) fn everything() -> Counts {
    let sample = || {
        let store = store::open("memory:")?;
        fill(&*store);
        counts(&*store, &mut |_| {})
    };
    sample().unwrap_or_default()
}

/// A store with the sample in it, closed; its bytes.
fn closed(engine: Engine) -> Result<Arc<[u8]>, Broken> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("s");
    let store = engine.open(&path, Durability::Process)?;
    fill(&*store);
    store.close()?;
    Ok(fs::read(&path)?.into())
}

/// Files by the suffix of their names.
type Files = Vec<(&'static str, Arc<[u8]>)>;

/// What the process that has a database open would leave of it if it died now.
fn killed(engine: Engine, path: &Path) -> Result<Files, Broken> {
    let suffixes: &[&str] = if engine == Engine::Sqlite { &["", "-wal", "-shm"] } else { &[""] };
    suffixes.iter().map(|suffix| Ok((*suffix, fs::read(with_suffix(path, suffix))?.into()))).collect()
}

/// Every place but those that need rights.
pub(super) fn places(engine: Engine, seed: u64) -> Result<Vec<Place>, Broken> {
    let ours = closed(engine)?;
    let mut places = no_databases(engine, seed)?;
    places.extend(databases_of_others(engine)?);
    places.extend(newer(engine)?);
    places.extend(cut_off(engine, &ours));
    places.extend(no_files(engine));
    places.extend(names(engine));
    if engine == Engine::Sqlite {
        places.extend(beside_the_file(&ours));
    }
    Ok(places)
}

fn no_databases(engine: Engine, seed: u64) -> Result<Vec<Place>, Broken> {
    let mut random = fastrand::Rng::with_seed(seed);
    let noise: Vec<u8> = (0..20_000).map(|_| random.u8(..)).collect();
    let zip = b"PK\x03\x04\x14\0\0\0\x08\0".repeat(50);
    Ok(vec![
        Place::file("an empty file", Opens, *b""),
        Place::file("one byte", Refused(&[NotThisStore]), *b"x"),
        Place::file("text", Refused(&[NotThisStore]), b"name = \"not a database\"\n".repeat(200)),
        Place::file("random bytes", Refused(&[NotThisStore]), noise),
        Place::file("zeros", Refused(&[NotThisStore]), vec![0; 8192]),
        Place::file("an archive", Refused(&[NotThisStore]), zip),
        Place::file("a store of the other engine", Refused(&[NotThisStore]), closed(engine.other())?),
    ])
}

/// Databases that are sound and not ours, closed in order and not.
fn databases_of_others(engine: Engine) -> Result<Vec<Place>, Broken> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("theirs");
    let refused = Refused(&[NotThisStore]);
    Ok(match engine {
        Engine::Sqlite => {
            let db = Connection::open(&path)?;
            db.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)")?;
            let rollback = fs::read(&path)?;
            db.execute_batch("PRAGMA journal_mode = WAL; INSERT INTO t VALUES (2)")?;
            let open = killed(engine, &path)?;
            drop(db);
            // Half of a transaction of theirs, which their program is to undo.
            let hot = vec![("", rollback.clone().into()), ("-journal", vec![0xd9; 1024].into())];
            vec![
                Place::file("a database of another application", refused, rollback),
                Place::files("a database of another application, in use or not closed", refused, open),
                Place::files("a database of another application with a journal", refused, hot),
            ]
        }
        Engine::Redb => {
            let db = Database::create(&path)?;
            let tx = db.begin_write()?;
            tx.open_table(TableDefinition::<u64, &str>::new("theirs"))?.insert(1, "x")?;
            tx.commit()?;
            let open = killed(engine, &path)?;
            db.close()?;
            vec![
                Place::file("a redb file of another program", refused, fs::read(&path)?),
                Place::files("a redb file of another program, not closed", refused, open),
            ]
        }
    })
}

/// Stores of a version that does not exist yet, closed in order and not.
fn newer(engine: Engine) -> Result<Vec<Place>, Broken> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("newer");
    fs::write(&path, closed(engine)?)?;
    let refused = Refused(&[SchemaTooNew]);
    let (open, shut) = match engine {
        Engine::Sqlite => {
            // The new number stands in the log alone until that is copied back.
            let db = Connection::open(&path)?;
            db.execute_batch("PRAGMA user_version = 1000")?;
            let open = killed(engine, &path)?;
            db.execute_batch("PRAGMA journal_mode = DELETE")?;
            (open, fs::read(&path)?)
        }
        Engine::Redb => {
            let key: &[u8] = b"mark\0\0";
            let mark = r#"{"application":"agst","schema":1000}"#;
            let sum = json::checksum(&[b"meta", key, mark.as_bytes()]).to_be_bytes();
            let db = Database::open(&path)?;
            let tx = db.begin_write()?;
            let value = [&sum, mark.as_bytes()].concat();
            tx.open_table(TableDefinition::<&[u8], &[u8]>::new("meta"))?.insert(key, value.as_slice())?;
            tx.commit()?;
            let open = killed(engine, &path)?;
            db.close()?;
            (open, fs::read(&path)?)
        }
    };
    Ok(vec![
        Place::file("a store of a newer version", refused, shut),
        Place::files("a store of a newer version, in use or not closed", refused, open),
    ])
}

/// A store of ours that ends too early: within its magic, its header, and around each page.
fn cut_off(engine: Engine, ours: &Arc<[u8]>) -> Vec<Place> {
    let page = if engine == Engine::Sqlite { 8192 } else { 4096 };
    let head = [1, 8, 9, 10, 15, 16, 17, 60, 64, 99, 100, 101, 320, 512, 1024];
    let around =
        (1..=ours.len().div_ceil(page)).flat_map(|pages| [page * pages - 1, page * pages, page * pages + 1]);
    let lengths = head.into_iter().chain(around).filter(|length| *length < ours.len());
    lengths
        .map(|length| {
            let answer = Damaged(&[Corrupt, NotThisStore]);
            Place::file(
                format!("a store cut off after {length} of {} bytes", ours.len()),
                answer,
                &ours[..length],
            )
        })
        .collect()
}

/// What is there and is no ordinary file.
fn no_files(engine: Engine) -> Vec<Place> {
    let refused = Refused(&[NotThisStore]);
    let link = move |what: &str, target: &'static str| {
        Place::new(what, refused, move |directory| {
            let real = directory.join("real.db");
            engine.open(&real, Durability::Process)?.close()?;
            fs::create_dir(directory.join("inside"))?;
            symlink(directory.join(target), directory.join("link"))?;
            Ok(directory.join("link"))
        })
    };
    let made_by = |what: &str, program: &'static str, arguments: &'static [&'static str]| {
        Place::new(what, refused, move |directory| {
            let path = directory.join("special");
            let made = Command::new(program).arg(&path).args(arguments).status()?;
            if made.success() { Ok(path) } else { Err("was not made".into()) }
        })
    };
    let mut places = vec![
        link("a link to a store", "real.db"),
        link("a link to nothing", "nowhere.db"),
        link("a link to a directory", "inside"),
        Place::new("a directory", refused, |directory| {
            fs::create_dir(directory.join("d"))?;
            Ok(directory.join("d"))
        }),
        Place::new("a socket", refused, |directory| {
            drop(UnixListener::bind(directory.join("socket"))?);
            Ok(directory.join("socket"))
        }),
        Place::new("a device", refused, |_| Ok("/dev/null".into())),
        Place::new("an endless device", refused, |_| Ok("/dev/zero".into())),
        made_by("a pipe", "mkfifo", &[]),
        Place::new("a directory that is not there", Refused(&[Backend]), |directory| {
            Ok(directory.join("no/s.db"))
        }),
        Place::new("a directory that is a file", Refused(&[Backend]), |directory| {
            File::create(directory.join("f"))?;
            Ok(directory.join("f/s.db"))
        }),
        Place::new("a loop of links in the way", Refused(&[Backend]), |directory| {
            symlink(directory.join("loop"), directory.join("loop"))?;
            Ok(directory.join("loop/s.db"))
        }),
    ];
    if super::tree::is_root().unwrap_or(false) {
        places.push(made_by("a device of its own", "mknod", &["c", "1", "3"]));
    }
    places
}

/// Names that somebody could take for something else.
fn names(engine: Engine) -> Vec<Place> {
    let named = |name: String, by_path: Answer, by_url: Answer| {
        let what = if name.len() > 60 {
            format!("a name of {} bytes", name.len())
        } else {
            format!("the name {name:?}")
        };
        Place::new(what, by_path, move |directory| Ok(directory.join(&name))).by_url(by_url)
    };
    // Taken as a URI, none of these would make a file of that name.
    let uris =
        ["file:x?mode=memory", "file:x?mode=ro", ":memory:", "file::memory:?cache=shared", "x?immutable=1"];
    let literal = ["%2e%2e%2fx", "a b", "ü", "'; DROP TABLE meta; --", "-wal", "sqlite:x", "\\x", "\n", "*"];
    let refused = Refused(&[InvalidInput]);
    let too_long = Refused(&[InvalidInput, Backend]);
    // SQLite opens no path of more than 512 bytes.
    let deep = if engine == Engine::Sqlite { refused } else { Opens };
    let long = |length: usize| "n".repeat(length);
    let mut places = vec![
        named("a\0b".into(), refused, refused),
        Place::new("no name", refused, |directory| Ok(directory.join(".."))),
        named(long(200), Opens, Opens),
        named(long(250), too_long, too_long),
        named(long(255), too_long, too_long),
        named(long(256), too_long, too_long),
        named(long(5000), too_long, too_long),
        Place::new("a path of many directories", deep, |directory| {
            let deep = directory.join(format!("{}/", "d".repeat(100)).repeat(6));
            fs::create_dir_all(&deep)?;
            Ok(deep.join("s.db"))
        }),
    ];
    places
        .extend(uris.map(|name| named(name.into(), Opens, if name.contains('?') { refused } else { Opens })));
    places.extend(literal.map(|name| named(name.into(), Opens, Opens)));
    places
}

/// What SQLite would read or write beside its file, led elsewhere by somebody.
fn beside_the_file(ours: &Arc<[u8]>) -> Vec<Place> {
    ["-wal", "-shm", "-journal"]
        .into_iter()
        .map(|suffix| {
            let ours = ours.clone();
            Place::new(
                format!("a link in the place of the {suffix}"),
                Refused(&[NotThisStore]),
                move |directory| {
                    let path = directory.join("s.db");
                    fs::write(&path, &ours)?;
                    File::create(directory.join("victim"))?.write_all(b"keep me")?;
                    symlink(directory.join("victim"), with_suffix(&path, suffix))?;
                    Ok(path)
                },
            )
        })
        .chain([log_alone(ours, None), log_alone(ours, Some(b""))])
        .collect()
}

/// A log with commits in it whose database is gone, or was emptied.
fn log_alone(ours: &Arc<[u8]>, database: Option<&'static [u8]>) -> Place {
    let ours = ours.clone();
    let what = if database.is_some() { "a log beside an empty file" } else { "a log without its file" };
    Place::new(what, Refused(&[Corrupt]), move |directory| {
        let elsewhere = tempfile::tempdir()?;
        let from = elsewhere.path().join("s.db");
        fs::write(&from, &ours)?;
        let store = Engine::Sqlite.open(&from, Durability::Process)?;
        write(&*store)?;
        let path = directory.join("s.db");
        fs::copy(with_suffix(&from, "-wal"), with_suffix(&path, "-wal"))?;
        database.map_or(Ok(()), |bytes| fs::write(&path, bytes))?;
        Ok(path)
    })
}

/// What the rights of a file or of its directory forbid to everybody but root.
pub(super) fn without_rights(engine: Engine) -> Vec<Place> {
    let with_mode = move |what: &str, answer: Answer, file: u32, of_directory: u32| {
        Place::new(what, answer, move |directory| {
            let path = directory.join("s.db");
            fs::write(&path, closed(engine)?)?;
            give_to_nobody(directory)?;
            set_mode(&path, file)?;
            set_mode(directory, of_directory)?;
            Ok(path)
        })
    };
    let refused = Refused(&[Backend]);
    // redb needs no right to its directory once the file is there; SQLite lays its log there.
    let in_place = if engine == Engine::Redb { Opens } else { refused };
    vec![
        with_mode("a store of one's own", Opens, 0o600, 0o700),
        with_mode("a file that may not be written", refused, 0o400, 0o700),
        with_mode("a file that may not be read", refused, 0o200, 0o700),
        with_mode("a file without any right", refused, 0o000, 0o700),
        with_mode("a directory that may not be written", in_place, 0o600, 0o500),
        with_mode("neither may be written", refused, 0o400, 0o500),
        with_mode("a directory that may not be entered", refused, 0o600, 0o600),
        Place::new("a new file in a directory that may not be written", refused, |directory| {
            give_to_nobody(directory)?;
            set_mode(directory, 0o500)?;
            Ok(directory.join("new.db"))
        }),
        Place::new("a file of somebody else", refused, move |directory| {
            let path = directory.join("s.db");
            fs::write(&path, closed(engine)?)?;
            set_mode(&path, 0o600)?;
            set_mode(directory, 0o755)?;
            Ok(path)
        }),
    ]
}
