//! The store as a host sees it: one accessor for each seam, transactions and snapshots across them.

use std::path::{Path, PathBuf};

use crate::{
    AgentStore, AuditStore, BudgetStore, CheckpointStore, Error, ImportReport, Record, Result, SkillStore,
};

/// One accessor for each seam. A store gives them, and so does a transaction or a snapshot of it.
pub trait Seams {
    /// Skills.
    fn skills(&self) -> &dyn SkillStore;
    /// Agents.
    fn agents(&self) -> &dyn AgentStore;
    /// Budgets.
    fn budgets(&self) -> &dyn BudgetStore;
    /// Run audit.
    fn audit(&self) -> &dyn AuditStore;
    /// Checkpoints.
    fn checkpoints(&self) -> &dyn CheckpointStore;
}

/// The work of a transaction: calls on the seams that it is given. Whoever commits for several writers runs their work
/// on its own thread, so it is `Send`, and must not rely on which thread it is on.
pub type Work<'a> = &'a mut (dyn FnMut(&dyn Seams) -> Result<()> + Send);

/// The work of a snapshot, on the caller's thread.
pub type View<'a> = &'a mut dyn FnMut(&dyn Seams) -> Result<()>;

/// The records of an import.
pub type Records<'a> = &'a mut (dyn Iterator<Item = Result<Record>> + Send);

/// A store: the seams, units of work across them, and what an operator needs.
///
/// A single call on a seam is a transaction (or, if it only reads, a snapshot) of its own. Every call may give
/// `Busy`, `Corrupt`, `Closed`, `Poisoned` or `Backend` besides the errors that it documents, and `Nested` when it
/// is made from inside a transaction, a snapshot or an edit of the same store on the same thread.
pub trait Store: Seams + Send + Sync + 'static {
    /// Runs `work` as one atomic unit: when it gives an error or panics, nothing that it did leaves a trace in any
    /// seam; when this returns `Ok`, all of it is there, seen whole by everybody.
    ///
    /// `work` should be short: other writers wait for it. It may be run again: after a retryable failure, or because it
    /// shared its flush with the work of another writer that failed half way. So what it leaves outside of the store
    /// should be what its last run leaves. A refusal of one call ([`Error::is_refusal`]) changes nothing and the work may
    /// go on; any other error dooms the transaction: later calls give that error, and so does this.
    ///
    /// # Guarantees
    /// TXN-1, TXN-2, DUR-1, DUR-2, OPEN-2.
    /// # Errors
    /// What `work` gives; what doomed it; what the commit gives.
    fn transaction(&self, work: Work<'_>) -> Result<()>;

    /// Runs `work` on one consistent view of all seams. Writes in it are refused as `ReadOnly`.
    ///
    /// # Guarantees
    /// TXN-1.
    /// # Errors
    /// What `work` gives; what doomed it.
    fn snapshot(&self, work: View<'_>) -> Result<()>;

    /// What this store is.
    fn info(&self) -> EngineInfo;

    /// Reads everything and checks it: the file's own structure, each record's checksum, indexes against records.
    /// Problems are listed in the answer and are not errors.
    ///
    /// # Guarantees
    /// ROT-1, OPEN-1.
    /// # Errors
    /// None of its own.
    fn verify(&self) -> Result<Verification>;

    /// Writes a consistent copy to `to`, which must not exist, while others go on reading and writing. The copy is
    /// whole when this returns; a backup that was cut off leaves nothing at `to`.
    ///
    /// # Guarantees
    /// TXN-1, SEC-1.
    /// # Errors
    /// `AlreadyExists` when there is something at `to`; `Unsupported` for an engine without a file; `Backend`.
    fn backup(&self, to: &Path) -> Result<()>;

    /// Hands every record to `sink`, in the order that [`Record`] documents, from one consistent snapshot.
    ///
    /// # Guarantees
    /// MOVE-1, TXN-1.
    /// # Errors
    /// What `sink` gives.
    fn export(&self, sink: &mut dyn FnMut(Record) -> Result<()>) -> Result<()>;

    /// Stores every record of an export, with its seq and revision, all or nothing. The store must be empty.
    ///
    /// # Guarantees
    /// MOVE-1, TXN-1.
    /// # Errors
    /// `Conflict` when the store is not empty; `InvalidInput` naming the record that is damaged, out of order or
    /// refers to what is not there; what the iterator gives.
    fn import(&self, records: Records<'_>) -> Result<ImportReport>;

    /// Closes the store: what was acknowledged is on disk, files are released, later calls are `Closed`.
    /// Dropping a store closes it too, but cannot report an error. Closing again does nothing.
    ///
    /// # Guarantees
    /// DUR-1.
    /// # Errors
    /// `Busy` when transactions or snapshots are still running; `Backend`.
    fn close(&self) -> Result<()>;
}

/// What a host calls: [`Store`] with results. Implemented for every store.
pub trait StoreExt: Store {
    /// [`Store::transaction`], giving what `work` gives.
    ///
    /// # Errors
    /// As [`Store::transaction`].
    fn transact<R: Send>(&self, mut work: impl FnMut(&dyn Seams) -> Result<R> + Send) -> Result<R> {
        let mut result = None;
        self.transaction(&mut |seams| {
            result = Some(work(seams)?);
            Ok(())
        })?;
        result.ok_or_else(never_run)
    }

    /// [`Store::snapshot`], giving what `work` gives.
    ///
    /// # Errors
    /// As [`Store::snapshot`].
    fn view<R>(&self, mut work: impl FnMut(&dyn Seams) -> Result<R>) -> Result<R> {
        let mut result = None;
        self.snapshot(&mut |seams| {
            result = Some(work(seams)?);
            Ok(())
        })?;
        result.ok_or_else(never_run)
    }
}

impl<S: Store + ?Sized> StoreExt for S {}

fn never_run() -> Error {
    Error::Unsupported { operation: "an engine that succeeds without running the work".into() }
}

/// What a store is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EngineInfo {
    /// The engine: the scheme of its URLs.
    pub engine: String,
    /// The version of the library underneath (`SQLite 3.54.1`).
    pub version: String,
    /// What an acknowledged write survives.
    pub durability: Durability,
    /// Whether several processes may open it at once.
    pub multi_process: bool,
    /// Where it is, if it is a file.
    pub path: Option<PathBuf>,
    /// The version of its layout.
    pub schema: u32,
}

/// What an acknowledged write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Nothing: it is gone with the process.
    Memory,
    /// The end of the process, not of the machine's power.
    Process,
    /// Power loss, as far as the disk keeps its word.
    PowerLoss,
}

/// How many problems a [`Verification`] lists; the rest are counted.
pub const MAX_PROBLEMS: usize = 100;

/// What [`Store::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Verification {
    /// How many records were read and checked.
    pub records: u64,
    /// How many problems there are.
    pub problems_found: u64,
    /// The first [`MAX_PROBLEMS`] of them.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Problem {
    /// The record, index or file part.
    pub what: String,
    /// What is wrong with it.
    pub detail: String,
}

impl Verification {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problems_found == 0
    }

    /// Nothing, or the problems as one error about `what`.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn require_sound(&self, what: &str) -> Result<()> {
        if self.is_sound() {
            return Ok(());
        }
        let problems = self.problems.iter().map(|problem| format!("{}: {}", problem.what, problem.detail));
        Err(Error::corrupt(what, problems.collect::<Vec<_>>().join("; ")))
    }

    /// Notes a problem.
    pub fn problem(&mut self, what: impl Into<String>, detail: impl Into<String>) {
        self.problems_found += 1;
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem { what: what.into(), detail: detail.into() });
        }
    }

    /// Counts a record that was read, and notes a problem when it is corrupt.
    ///
    /// # Errors
    /// Any error but `Corrupt`.
    pub fn check<T>(&mut self, read: Result<T>) -> Result<Option<T>> {
        self.records += 1;
        match read {
            Ok(value) => Ok(Some(value)),
            Err(Error::Corrupt { what, detail }) => {
                self.problem(what, detail);
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_counted_and_the_first_of_it_listed() {
        let mut found = Verification::default();
        assert_eq!(found.check(Ok(7)).unwrap(), Some(7));
        assert!(found.is_sound() && found.require_sound("s.db").is_ok());
        assert_eq!(found.check(Err::<(), _>(Error::corrupt("runs/r", "rotten"))).unwrap(), None);
        assert_eq!(found.check(Err::<(), _>(Error::Closed)).unwrap_err().kind(), crate::ErrorKind::Closed);
        assert_eq!((found.records, found.problems_found), (3, 1));
        assert!(!found.is_sound());
        let error = found.require_sound("s.db").unwrap_err();
        assert_eq!(error.to_string(), Error::corrupt("s.db", "runs/r: rotten").to_string());
        (1..=MAX_PROBLEMS).for_each(|_| found.problem("runs/x", "rotten"));
        assert_eq!((found.problems_found, found.problems.len()), (1 + MAX_PROBLEMS as u64, MAX_PROBLEMS));
        assert_eq!(found.problems[0].what, "runs/r");
    }
}
