//! The edge to redb: every call of it goes through [`Edge`], which catches its panics and translates its errors.
//!
//! redb verifies no page that it reads, so on a damaged file its own assertions may fail. Such a panic becomes
//! `Corrupt`, and the store takes no more writes until it is reopened. No closure of the host ever runs inside.

use std::any::Any;
use std::borrow::Cow;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::time::Duration;

use store_api::{Error, Outcome, Result, describe};

/// What redb gave instead of an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Redb(redb::Error),
    #[error("redb panicked: {0}")]
    Panicked(String),
}

impl Fault {
    /// Whether redb, or the file below it, can no longer be trusted with a write.
    fn is_lasting(&self) -> bool {
        use redb::Error as E;
        match self {
            Fault::Panicked(_) => true,
            Fault::Redb(error) => {
                matches!(error, E::Io(_) | E::Backend(_) | E::PreviousIo | E::LockPoisoned(_))
            }
        }
    }

    /// What is damaged, if that is what it says.
    fn damage(&self) -> Option<String> {
        use redb::Error as E;
        match self {
            Fault::Panicked(_) => Some(self.to_string()),
            Fault::Redb(error) => match error {
                E::Corrupted(detail) => Some(detail.clone()),
                E::Io(io) if io.kind() == io::ErrorKind::UnexpectedEof => Some("ends too early".into()),
                E::Io(io) if io.kind() == io::ErrorKind::InvalidData => Some(io.to_string()),
                E::TableTypeMismatch { .. }
                | E::TableIsMultimap(_)
                | E::TypeDefinitionChanged { .. }
                | E::TableDoesNotExist(_) => Some(error.to_string()),
                _ => None,
            },
        }
    }

    /// The same fault as the contract names it.
    pub(crate) fn into_error(self, doing: &'static str) -> Error {
        use redb::Error as E;
        if let Some(detail) = self.damage() {
            return damaged(detail);
        }
        match self {
            Fault::Redb(E::UpgradeRequired(version)) => Error::NotThisStore {
                detail: format!("a redb file of the old format {version}, which this store never had"),
            },
            Fault::Redb(E::DatabaseClosed) => Error::Closed,
            other => Error::backend(doing, other),
        }
    }
}

fn damaged(detail: String) -> Error {
    Error::corrupt("database file", detail)
}

/// Runs a call of redb; a panic of it is a fault.
pub(crate) fn catch<T, E: Into<redb::Error>>(
    call: impl FnOnce() -> std::result::Result<T, E>,
) -> std::result::Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Fault::Redb(error.into())),
        Err(payload) => Err(Fault::Panicked(message(&*payload))),
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().map(str::to_owned);
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".into())
}

/// The edge of one open store: remembers the first fault that makes writing unsafe.
#[derive(Debug, Default)]
pub(crate) struct Edge {
    poison: OnceLock<Poison>,
}

/// Why writing is not safe.
#[derive(Debug)]
struct Poison {
    reason: String,
    /// What is damaged, if that is why.
    damage: Option<String>,
}

impl Edge {
    /// Runs a call of redb.
    pub(crate) fn call<T, E: Into<redb::Error>>(
        &self,
        doing: &'static str,
        call: impl FnOnce() -> std::result::Result<T, E>,
    ) -> Result<T> {
        catch(call).map_err(|fault| {
            if fault.is_lasting() {
                self.poison(doing, &fault);
            }
            self.previous_damage(&fault).unwrap_or_else(|| fault.into_error(doing))
        })
    }

    /// A damaged page can lead redb to where the file has nothing, which it takes for a failing disk, or into a panic
    /// that leaves a lock behind. When it refuses what comes after, that is the same damage.
    fn previous_damage(&self, fault: &Fault) -> Option<Error> {
        use redb::Error as E;
        let Fault::Redb(E::PreviousIo | E::LockPoisoned(_)) = fault else { return None };
        self.poison.get()?.damage.clone().map(damaged)
    }

    /// Runs a commit. One that fails may have happened all the same, and what is on disk is not certain until the
    /// store is reopened (law DUR-2).
    pub(crate) fn commit(
        &self,
        commit: impl FnOnce() -> std::result::Result<(), redb::CommitError>,
    ) -> Result<()> {
        const DOING: &str = "committing";
        catch(commit).map_err(|fault| {
            if matches!(fault, Fault::Redb(redb::Error::TransactionPoisoned)) {
                return Error::backend(DOING, fault);
            }
            self.poison(DOING, &fault);
            Error::backend(DOING, fault).with_outcome(Outcome::InDoubt)
        })
    }

    /// Runs an abort. Its failure is no answer to what the transaction was about, so it shows as refused writes.
    pub(crate) fn abort(&self, abort: impl FnOnce() -> std::result::Result<(), redb::StorageError>) {
        if let Err(fault) = catch(abort) {
            self.poison("undoing a transaction", &fault);
        }
    }

    /// What a write transaction failed with. redb flushes also before the commit, when the file grows; once that has
    /// failed, what is on disk is not certain.
    pub(crate) fn in_doubt(&self, error: Error) -> Error {
        if self.poison.get().is_some() { error.with_outcome(Outcome::InDoubt) } else { error }
    }

    /// Refuses writes from now on. The first reason is the one that is told.
    fn poison(&self, doing: &str, fault: &Fault) {
        self.poison.get_or_init(|| Poison {
            reason: format!("{doing} failed: {}", describe(fault)),
            damage: fault.damage(),
        });
    }

    /// Whether writes are taken.
    ///
    /// # Errors
    /// `Poisoned`.
    pub(crate) fn check_writable(&self) -> Result<()> {
        match self.poison.get() {
            None => Ok(()),
            Some(Poison { reason, .. }) => Err(Error::Poisoned { reason: reason.clone() }),
        }
    }
}

/// `Busy` after waiting for `holder`.
pub(crate) fn busy(waited: Duration, holder: impl Into<Cow<'static, str>>) -> Error {
    Error::Busy { waited, holder: holder.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store_api::ErrorKind;

    fn fail(error: redb::Error) -> std::result::Result<(), redb::Error> {
        Err(error)
    }

    #[test]
    fn a_panic_is_corrupt_and_ends_writing() {
        let edge = Edge::default();
        let error = edge.call("reading", || -> std::result::Result<(), redb::Error> { panic!("page 7") });
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("redb panicked: page 7"));
        assert!(
            edge.check_writable().unwrap_err().to_string().contains("reading failed: redb panicked: page 7")
        );
    }

    /// A flipped bit in the number of a page led redb behind the end of the file. That read was `Corrupt`, and those
    /// after it were once told as a failing disk.
    #[test]
    fn what_redb_refuses_after_damage_is_the_same_damage() {
        let fails_after = |first: io::ErrorKind| {
            let edge = Edge::default();
            let errors = [redb::Error::Io(first.into()), redb::Error::PreviousIo];
            errors.map(|error| edge.call("reading", || fail(error)).unwrap_err().kind())
        };
        assert_eq!(fails_after(io::ErrorKind::UnexpectedEof), [ErrorKind::Corrupt; 2]);
        assert_eq!(fails_after(io::ErrorKind::Other), [ErrorKind::Backend; 2]);
    }

    #[test]
    fn a_failed_commit_is_in_doubt_and_ends_writing() {
        let edge = Edge::default();
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = edge.commit(|| Err(redb::StorageError::Io(full).into())).unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Backend, Outcome::InDoubt));
        assert_eq!(edge.check_writable().unwrap_err().kind(), ErrorKind::Poisoned);
    }

    #[test]
    fn a_commit_that_redb_rolled_back_is_not_in_doubt() {
        let edge = Edge::default();
        let error = edge.commit(|| Err(redb::CommitError::TransactionPoisoned)).unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotApplied);
        assert!(edge.check_writable().is_ok());
    }

    #[test]
    fn faults_keep_their_kind() {
        let edge = Edge::default();
        let kind = |error| edge.call("x", || fail(error)).unwrap_err().kind();
        assert_eq!(kind(redb::Error::Corrupted("x".into())), ErrorKind::Corrupt);
        assert_eq!(kind(redb::Error::TableDoesNotExist("x".into())), ErrorKind::Corrupt);
        assert_eq!(kind(redb::Error::DatabaseClosed), ErrorKind::Closed);
        assert!(edge.check_writable().is_ok(), "none of these is about writing");
        assert_eq!(kind(io::Error::other("x").into()), ErrorKind::Backend);
        assert!(edge.check_writable().is_err());
    }
}
