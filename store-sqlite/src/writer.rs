//! The one write path: one connection, one writer at a time, writers in line sharing their flushes.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use commit_queue::{Engine, Queue};
use parking_lot::Mutex;
use rusqlite::Connection;
use safe_files::recovery::{Lookout, mark_because};
use store_api::{Error, Outcome, Result, describe};

use crate::connection::keep_log;
use crate::log::Log;
use crate::tx::Tx;
use crate::{Options, error, unit};

/// The writers of this process, in line for the connection that writes.
pub(crate) struct Writer {
    queue: Queue<Slot>,
}

impl Writer {
    pub(crate) fn new(mut connection: Connection, path: PathBuf, options: Options) -> Result<Self> {
        let timeout = options.busy_timeout;
        let slot = Slot {
            log: Log::of(&mut connection, path.clone(), options)?,
            connection: Mutex::new(Some(connection)),
            many: AtomicBool::new(false),
            lookout: Lookout::of(&path)?,
            path,
            poisoned: OnceLock::new(),
        };
        Ok(Writer { queue: Queue::new(slot, timeout) })
    }

    /// Runs `work` in a transaction, which others may share, and returns when it is committed; or undoes it when it
    /// fails or panics. It may be run again.
    pub(crate) fn write<R: Send>(&self, mut work: impl FnMut(&Tx<'_>) -> Result<R> + Send) -> Result<R> {
        self.queue.write(|connection| work(&Tx::writing(connection)))
    }

    /// The same in a transaction that nobody shares: `work` runs once.
    pub(crate) fn write_by_itself<R>(&self, work: impl FnOnce(&Tx<'_>) -> Result<R>) -> Result<R> {
        self.queue.write_by_itself(|connection| work(&Tx::writing(connection)))
    }

    /// Ends writing: waits for the writer at work, then for `readers` to end, copies the WAL back and closes.
    /// Closing again does nothing.
    pub(crate) fn close(&self, readers: impl FnOnce() -> Result<()>) -> Result<()> {
        self.queue.alone(|slot| {
            if slot.connection.lock().is_none() {
                return Ok(());
            }
            readers()?;
            let Some(connection) = slot.connection.lock().take() else { return Ok(()) };
            let copied = slot.copy_back(&connection);
            connection.close().map_err(|(_, e)| error::sqlite("closing the database", e))?;
            copied
        })
    }
}

/// Where the connection that writes lies while nobody writes; empty for good once it is closed.
struct Slot {
    connection: Mutex<Option<Connection>>,
    log: Log,
    /// Writers have shared a transaction since the log was last looked after.
    many: AtomicBool,
    path: PathBuf,
    /// Looks whether another store on this file has left word that a flush of it failed.
    lookout: Lookout,
    /// Why writes are refused, once a commit has ended in doubt (law DUR-2).
    poisoned: OnceLock<String>,
}

impl Slot {
    fn give_back(&self, connection: Connection) {
        *self.connection.lock() = Some(connection);
    }

    /// Whether writes are taken. Those that share a file learn by the marker what happened to the others.
    ///
    /// # Errors
    /// `Poisoned`.
    fn check_writable(&self, connection: &Connection) -> Result<()> {
        if self.poisoned.get().is_none() && self.lookout.is_marked()? {
            self.refuse(connection, "a flush of another store on this file failed".to_owned());
        }
        match self.poisoned.get() {
            Some(reason) => Err(Error::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Refuses writes after a failure. When it may be a flush that failed, the next open is told by a marker.
    fn poison(&self, connection: &Connection, cause: &Error) {
        let reason = describe(cause);
        let failed_flush = error::is_disk_failure(cause);
        self.refuse(connection, if failed_flush { mark_because(&self.path, reason) } else { reason });
    }

    /// Refuses writes from now on, and leaves the WAL as it is: what a later checkpoint would copy into the
    /// database may not be what is on disk.
    fn refuse(&self, connection: &Connection, mut reason: String) {
        if let Err(e) = keep_log(connection, true) {
            reason.push_str(&format!("; the write-ahead log could not be set aside: {}", describe(&e)));
        }
        self.poisoned.get_or_init(|| reason);
    }

    /// Keeps the log short. While that cannot be done nothing is written, and after a failure that a second try would
    /// only hide, nothing is written any more.
    fn tend_log(&self, connection: &Connection) -> Result<()> {
        self.log.tend(connection, self.many.swap(false, Ordering::Relaxed)).inspect_err(|error| {
            if !error.is_retryable() {
                self.poison(connection, error);
            }
        })
    }

    /// Copies the WAL into the database and empties it, as far as other processes let it; the last to close does the
    /// rest.
    fn copy_back(&self, connection: &Connection) -> Result<()> {
        self.log.end().inspect_err(|error| self.poison(connection, error))?;
        match self.check_writable(connection) {
            Err(Error::Poisoned { .. }) => return Ok(()),
            other => other?,
        }
        let copy = || {
            connection.busy_timeout(Duration::ZERO)?;
            connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        };
        match copy().map_err(|e| error::sqlite("copying the write-ahead log back", e)) {
            Err(Error::Busy { .. }) => Ok(()),
            Err(error) => {
                self.poison(connection, &error);
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }
}

impl Drop for Slot {
    /// A store that is dropped without having been closed. SQLite copies the WAL back by itself then, and tells
    /// nobody when that fails.
    fn drop(&mut self) {
        if let Some(connection) = self.connection.lock().take() {
            drop(self.copy_back(&connection));
        }
    }
}

/// The open transaction is the connection itself.
impl Engine for Slot {
    type Open = Connection;

    fn begin(&self, patience: Duration) -> Result<Connection> {
        let start = Instant::now();
        let connection = self.connection.lock().take().ok_or(Error::Closed)?;
        let begin = || {
            self.check_writable(&connection)?;
            self.tend_log(&connection)?;
            unit::begin(&connection, patience)
        };
        match begin() {
            Ok(()) => Ok(connection),
            Err(error) => {
                self.give_back(connection);
                Err(error::waited_since(start, error))
            }
        }
    }

    fn changes(&self, connection: &Connection) -> Option<u64> {
        (!connection.is_autocommit()).then(|| connection.total_changes())
    }

    fn commit(&self, connection: Connection, writers: usize) -> Result<()> {
        if writers > 1 {
            self.many.store(true, Ordering::Relaxed);
        }
        let committed = unit::commit(&connection);
        if let Err(error) = &committed
            && error.outcome() == Outcome::InDoubt
        {
            self.poison(&connection, error);
        }
        self.give_back(connection);
        committed
    }

    fn abort(&self, connection: Connection) -> Result<()> {
        let aborted = unit::abort(&connection);
        self.give_back(connection);
        aborted
    }
}

#[cfg(test)]
mod tests {
    use store_api::{
        Catalog, Checkpoint, EngineTx, ErrorKind, Expect, Name, Outcome, PrincipalId, RunId, Seams, Skill,
        SkillId, Store, StoreExt, Transactional, time,
    };

    use crate::SqliteStore;

    fn skill(id: &str, size: usize) -> Skill {
        let owner = PrincipalId::new("owner").unwrap();
        let body = "x".repeat(size);
        Skill { body, ..Skill::new(SkillId::new(id).unwrap(), owner, Name::new(id).unwrap()) }
    }

    fn save(tx: &dyn EngineTx, doc: &Skill) -> store_api::Result<()> {
        tx.skills().save(doc, Expect::Any).map(drop)
    }

    fn store() -> (tempfile::TempDir, SqliteStore) {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(directory.path().join("s.db")).unwrap();
        (directory, store)
    }

    fn on_writer(store: &SqliteStore, sql: &str) {
        store.writer.queue.engine().connection.lock().as_ref().unwrap().execute_batch(sql).unwrap();
    }

    /// A full disk makes SQLite undo the whole transaction by itself. Work that swallows the error must not go on in
    /// a transaction of its own for each statement, which is what SQLite would do with what comes next.
    #[test]
    fn a_full_disk_dooms_the_transaction_and_leaves_nothing() {
        let (_directory, store) = store();
        store.skills().save(&skill("before", 10), Expect::Any).unwrap();
        on_writer(&store, "PRAGMA max_page_count = 60");
        let done = Transactional::write(&store, |tx| {
            save(tx, &skill("small", 10))?;
            let full = save(tx, &skill("large", 4_000_000)).unwrap_err();
            assert_eq!((full.kind(), full.is_retryable()), (ErrorKind::Backend, true), "{full}");
            // Swallowed: on with the next.
            let after = save(tx, &skill("after", 10)).unwrap_err();
            assert_eq!(after.kind(), ErrorKind::Backend);
            Ok(())
        });
        let error = done.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Backend, Outcome::NotApplied), "{error}");
        let left = store.skills().list(&Default::default(), &Default::default()).unwrap();
        assert_eq!(left.items.len(), 1);

        let doomed = store.transact(|seams| {
            let swallowed = seams.skills().save(&skill("large", 4_000_000), Expect::Any);
            assert!(swallowed.is_err());
            Ok(())
        });
        assert_eq!(doomed.unwrap_err().kind(), ErrorKind::Backend);

        on_writer(&store, "PRAGMA max_page_count = 1000000");
        store.skills().save(&skill("large", 4_000_000), Expect::Any).unwrap();
        assert!(Store::verify(&store).unwrap().is_sound());
    }

    /// What SQLite undoes by itself takes along who shares the commit, unless that is done again.
    #[test]
    fn a_full_disk_is_the_matter_of_who_fills_it() {
        let (_directory, store) = store();
        let (store, run) = (&store, |id: &str| RunId::new(id).unwrap());
        let save = |id: &str, iteration, size: usize| {
            let checkpoint =
                Checkpoint::new(run(id), iteration, "x".repeat(size).into(), time::from_nanos(0));
            store.checkpoints().save(&checkpoint)
        };
        save("full", 0, 10).unwrap();
        on_writer(store, "PRAGMA max_page_count = 60");
        let (entered, inside) = std::sync::mpsc::channel();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let first = scope.spawn(move || {
                let mut hold = Some((entered, wait)); // the first time that it is run
                store.transact(move |seams| {
                    if let Some((entered, wait)) = hold.take() {
                        entered.send(()).unwrap();
                        wait.recv().unwrap();
                    }
                    seams.skills().save(&skill("first", 10), Expect::Absent)
                })
            });
            inside.recv().unwrap();
            let come = |id: &'static str, size| {
                let writer = scope.spawn(move || save(id, 1, size));
                std::thread::sleep(std::time::Duration::from_millis(50));
                writer
            };
            let [before, full, after] = [come("before", 10), come("full", 4_000_000), come("after", 10)];
            go.send(()).unwrap();
            first.join().unwrap().unwrap();
            before.join().unwrap().unwrap();
            after.join().unwrap().unwrap();
            assert_eq!(full.join().unwrap().unwrap_err().outcome(), Outcome::NotApplied);
        });
        assert!(Catalog::<Skill>::get(store, &SkillId::new("first").unwrap()).unwrap().is_some());
        let iterations = ["before", "full", "after"]
            .map(|id| store.checkpoints().load(&run(id)).unwrap().map(|checkpoint| checkpoint.iteration));
        assert_eq!(iterations, [Some(1), Some(0), Some(1)]);
    }

    /// A commit that fails is made by a reference that is only checked at the end.
    #[test]
    fn a_commit_in_doubt_refuses_writes_until_reopened_and_reads_go_on() {
        let (directory, store) = store();
        store.skills().save(&skill("before", 10), Expect::Any).unwrap();
        let failed = store.writer.write(|tx| {
            tx.execute("PRAGMA defer_foreign_keys = ON", [])?;
            tx.execute(
                "INSERT INTO events (run, seq, kind, at, sum, payload) VALUES ('gone', 1, 'k', 0, 0, '1')",
                [],
            )
        });
        let error = failed.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Backend, Outcome::InDoubt), "{error}");
        let refused = store.skills().save(&skill("after", 10), Expect::Any).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Poisoned);
        assert!(Catalog::<Skill>::get(&store, &SkillId::new("before").unwrap()).unwrap().is_some());
        Store::close(&store).unwrap();
        drop(store);
        let store = SqliteStore::open(directory.path().join("s.db")).unwrap();
        store.skills().save(&skill("after", 10), Expect::Any).unwrap();
        assert!(Store::verify(&store).unwrap().is_sound());
    }

    /// The log grew as long as readers overlapped: at no moment was nobody on it, and nobody waited for one.
    #[test]
    fn the_log_is_begun_anew_although_somebody_always_reads() {
        let (_directory, store) = store();
        let log = &store.writer.queue.engine().log;
        // A machine that is busy may let a reader sleep for longer than the writer waits.
        let begun_anew = (0..5).any(|attempt| {
            store.skills().save(&skill(&format!("large {attempt}"), 9_000_000), Expect::Any).unwrap();
            assert!(log.pages() > 1000);
            let (entered, inside) = std::sync::mpsc::channel();
            let (go, wait) = std::sync::mpsc::channel();
            std::thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    store.view(move |_| {
                        entered.send(()).unwrap();
                        wait.recv().unwrap();
                        std::thread::sleep(std::time::Duration::from_millis(5));
                        Ok(())
                    })
                });
                inside.recv().unwrap();
                // So that nothing but the reader is in the way of the next save.
                let other = rusqlite::Connection::open(&store.path).unwrap();
                other.query_one("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
                go.send(()).unwrap();
                store.skills().save(&skill("small", 10), Expect::Any).unwrap();
                reader.join().unwrap().unwrap();
            });
            log.pages() < 1000
        });
        assert!(begun_anew, "{} pages", log.pages());
    }

    #[test]
    fn a_panic_leaves_nothing_and_the_store_works_on() {
        let (_directory, store) = store();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            store.transact(|seams| -> store_api::Result<()> {
                seams.skills().save(&skill("a", 10), Expect::Any)?;
                std::panic::resume_unwind(Box::new("work that panics"))
            })
        }));
        assert!(panicked.is_err());
        assert!(Catalog::<Skill>::get(&store, &SkillId::new("a").unwrap()).unwrap().is_none());
        let revision = store.skills().save(&skill("a", 10), Expect::Absent).unwrap();
        assert_eq!(revision.0, 1, "the number that the panic took is free again");
    }
}
