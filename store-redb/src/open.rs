//! Opening: from a path to a database that is known to be ours.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadOnlyDatabase, ReadableDatabase, StorageBackend};
use safe_files::recovery::{Claim, Recovery, is_settled};
use safe_files::{Staged, failed, leads_to};
use serde::{Deserialize, Serialize};
use store_api::{Entity, Error, Result};

use crate::error::{Edge, Fault, busy, catch};
use crate::file::{self, Standing};
use crate::keys::Key;
use crate::kv::{Reading, Writing};
use crate::storage::{Overlay, Storage, Unlocked};
use crate::tables::{self, META};
use crate::tx::Tx;
use crate::{Options, SCHEMA, bookkeeping, migrations, recovery};

/// The name under which a file of ours says what it is.
const APPLICATION: &str = "agst";

/// How long an opener sleeps before it looks again whether the file is free.
const POLL: Duration = Duration::from_millis(10);

/// How much memory a look at a file may use for pages.
pub(crate) const PEEK_CACHE: usize = 16 << 20;

/// The mark of a file: whose it is, and the version of its layout.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Mark {
    application: String,
    schema: u32,
}

impl Mark {
    /// That of a file as this version makes it.
    pub(crate) fn current() -> Self {
        Mark { application: APPLICATION.to_owned(), schema: SCHEMA }
    }
}

pub(crate) fn mark_key() -> Key {
    Key::new().text("mark")
}

/// Opens the store at `path`, or creates it; waits while somebody else has it open.
pub(crate) fn open<B: StorageBackend>(
    path: &Path,
    options: &Options,
    over: impl Fn(&Path, FileBackend) -> B,
) -> Result<Database> {
    let start = Instant::now();
    loop {
        let opened = match Recovery::claim(path, recovery::LOGS)? {
            Claim::Unmarked => attempt(path, options, &over)?,
            Claim::Elsewhere => Opened::Held,
            Claim::Here(claimed) => {
                if recovery::run(claimed, path)? {
                    Opened::Again
                } else {
                    Opened::Held
                }
            }
        };
        match opened {
            Opened::Database(database) => return Ok(database),
            Opened::Again => {}
            Opened::Held if start.elapsed() >= options.busy_timeout => {
                let holder = "another process, or another store in this one, has the file open: ";
                return Err(busy(start.elapsed(), format!("{holder}{}", path.display())));
            }
            Opened::Held => std::thread::sleep(POLL.min(options.busy_timeout)),
        }
    }
}

fn attempt<B: StorageBackend>(
    path: &Path,
    options: &Options,
    over: impl Fn(&Path, FileBackend) -> B,
) -> Result<Opened> {
    match file::look(path)? {
        Standing::Nothing if options.create => create(path, over).map(|()| Opened::Again),
        Standing::Nothing => Err(Error::not_found(Entity::File, path.display().to_string())),
        Standing::Empty(empty) => fill(path, &empty, over),
        Standing::Redb(file) => open_file(path, file, options, over),
        Standing::Changing => Ok(Opened::Held),
    }
}

/// What one attempt to open came to.
enum Opened {
    Database(Database),
    /// Somebody has the file locked.
    Held,
    /// The file was made, by this or by another opener: look again.
    Again,
}

/// Makes a new store at a path where nothing is. When another opener was faster, its store stands.
fn create<B: StorageBackend>(path: &Path, over: impl Fn(&Path, FileBackend) -> B) -> Result<()> {
    let staged = Staged::beside(path)?;
    initialise(&staged, over)?;
    match staged.publish() {
        Err(Error::AlreadyExists { .. }) => Ok(()),
        other => other,
    }
}

/// Puts a new store in the place of an empty file. Its lock is what keeps two openers from both doing that: the
/// second one finds that the path leads elsewhere.
fn fill<B: StorageBackend>(
    path: &Path,
    empty: &File,
    over: impl Fn(&Path, FileBackend) -> B,
) -> Result<Opened> {
    match empty.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Opened::Held),
        Err(TryLockError::Error(e)) => return Err(failed("locking", path, e)),
    }
    if leads_to(path, empty)? {
        let staged = Staged::beside(path)?;
        initialise(&staged, over)?;
        staged.replace()?;
    }
    Ok(Opened::Again)
}

/// Opens a redb file, if it is one of ours. Nothing is written to it before that is known.
fn open_file<B: StorageBackend>(
    path: &Path,
    file: File,
    options: &Options,
    over: impl Fn(&Path, FileBackend) -> B,
) -> Result<Opened> {
    if !is_ours(path, &file)? || !bookkeeping::check(&file)? {
        return Ok(Opened::Held);
    }
    let opened = catch(|| {
        let inner = over(path, backend(&file)?);
        let storage = Storage { inner, path: path.to_owned(), flushes: options.flushes() };
        Builder::new()
            .set_cache_size(options.cache_size)
            .set_check_integrity_on_open(options.check_integrity)
            .create_with_backend(storage)
    });
    match opened {
        // Looked at again, because somebody else may have had the file since.
        Ok(_) if !is_settled(path, &file, recovery::LOGS)? => Ok(Opened::Held),
        Ok(database) => {
            let edge = Arc::<Edge>::default();
            let schema = check_mark(&edge, path, || database.begin_read())?;
            migrations::run(&edge, &database, schema)?;
            Ok(Opened::Database(database))
        }
        Err(Fault::Redb(redb::Error::DatabaseAlreadyOpen)) => Ok(Opened::Held),
        Err(fault) => Err(fault.into_error("opening")),
    }
}

/// Looks whether a file bears our mark, and leaves it as it is; `false` while somebody has it open.
pub(crate) fn is_ours(path: &Path, file: &File) -> Result<bool> {
    let edge = Edge::default();
    let peeked =
        catch(|| Builder::new().set_cache_size(PEEK_CACHE).open_read_only_with_backend(backend(file)?));
    match peeked {
        Ok(peeked) => {
            let checked = check_mark(&edge, path, || peeked.begin_read());
            let closed = edge.call("closing", || ReadOnlyDatabase::close(peeked));
            checked.and(closed).map(|()| true)
        }
        Err(Fault::Redb(redb::Error::DatabaseAlreadyOpen)) => Ok(false),
        // Its last writer died. redb reads such a file only once it is repaired, so it is repaired in memory.
        Err(Fault::Redb(redb::Error::RepairAborted)) => is_ours_repaired(&edge, path, file),
        Err(fault) => Err(fault.into_error("opening")),
    }
}

fn is_ours_repaired(edge: &Edge, path: &Path, file: &File) -> Result<bool> {
    let repaired = catch(|| {
        let overlay = Overlay::over(backend(file)?).map_err(redb::StorageError::Io)?;
        Builder::new().set_cache_size(PEEK_CACHE).create_with_backend(overlay)
    });
    match repaired {
        Ok(repaired) => {
            let checked = check_mark(edge, path, || repaired.begin_read());
            let closed = edge.call("closing", || repaired.close());
            checked.and(closed).map(|()| true)
        }
        Err(Fault::Redb(redb::Error::DatabaseAlreadyOpen)) => Ok(false),
        Err(fault) => Err(fault.into_error("opening")),
    }
}

pub(crate) fn backend(file: &File) -> std::result::Result<FileBackend, redb::DatabaseError> {
    FileBackend::new(file.try_clone().map_err(redb::StorageError::Io)?)
}

/// Checks that a database bears our mark, and one that this version reads. Gives its schema.
pub(crate) fn check_mark(
    edge: &Edge,
    path: &Path,
    begin: impl FnOnce() -> std::result::Result<redb::ReadTransaction, redb::TransactionError>,
) -> Result<u32> {
    let foreign = || file::not_this_store(path, "is a redb file of another program");
    let tx = edge.call("reading", begin)?;
    match catch(|| tx.open_table(META.definition()).map(drop)) {
        Ok(()) => {}
        Err(Fault::Redb(
            redb::Error::TableDoesNotExist(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_),
        )) => return Err(foreign()),
        Err(fault) => return Err(fault.into_error("reading")),
    }
    let mark: Option<Mark> = Tx::on(&Reading::new(tx, edge)).record(META, &mark_key())?;
    match mark {
        Some(mark) if mark.application != APPLICATION => Err(foreign()),
        Some(mark) if mark.schema > SCHEMA => {
            Err(Error::SchemaTooNew { found: mark.schema, supported: SCHEMA })
        }
        Some(mark) => Ok(mark.schema),
        None => Err(foreign()),
    }
}

/// Makes an empty store in an empty file.
fn initialise<B: StorageBackend>(staged: &Staged, over: impl Fn(&Path, FileBackend) -> B) -> Result<()> {
    let edge = Arc::<Edge>::default();
    let database = new_database(&edge, staged, over)?;
    let writing = begin(&edge, &database)?;
    create_tables(&writing)?;
    writing.operate(|operation| {
        let tx = Tx::on(operation);
        tx.put_record(META, &mark_key(), &Mark::current())?;
        tx.set_counter(0)
    })?;
    writing.commit()?;
    edge.call("closing", || database.close())
}

/// A database in an empty file that its owner has locked.
pub(crate) fn new_database<B: StorageBackend>(
    edge: &Edge,
    staged: &Staged,
    over: impl Fn(&Path, FileBackend) -> B,
) -> Result<Database> {
    let file = staged.file()?;
    edge.call("creating", || {
        let storage = over(staged.path(), FileBackend::new(file)?);
        Builder::new().create_with_backend(Unlocked(storage))
    })
}

/// Begins a write transaction.
///
/// Every commit has two phases: a file whose last flush failed opens again only so.
pub(crate) fn begin(edge: &Arc<Edge>, database: &Database) -> Result<Writing> {
    let tx = edge.call("beginning a transaction", || {
        let mut tx = database.begin_write()?;
        tx.set_two_phase_commit(true);
        Ok::<_, redb::TransactionError>(tx)
    })?;
    Ok(Writing::new(tx, Arc::clone(edge)))
}

/// Creates every table, so that no reader ever finds one missing.
pub(crate) fn create_tables(writing: &Writing) -> Result<()> {
    tables::ALL.into_iter().try_for_each(|table| writing.create(table))
}
