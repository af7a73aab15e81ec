//! The one error type: what went wrong, whether trying again may help, whether the write may have happened.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::Amount;

/// What every fallible call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. Cheap to clone, because one failed flush may answer many callers.
///
/// The text of an error never repeats its source's text; walk [`source`](std::error::Error::source) for that.
/// The same fault gives the same [`kind`](Error::kind) in every engine.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The record that the call is about is not there.
    #[error("{what} {id:?} does not exist")]
    NotFound {
        /// What kind of record.
        what: Entity,
        /// Its id, as the caller gave it.
        id: String,
    },
    /// A record that must be new, or a field that must be unique, is taken.
    #[error("a {what} with {field} {value:?} exists already")]
    AlreadyExists {
        /// What kind of record.
        what: Entity,
        /// The field that is taken.
        field: &'static str,
        /// The value that is taken.
        value: String,
    },
    /// The stored state is not the one that the caller expected.
    #[error("conflict on {what} {id:?}: {reason}")]
    Conflict {
        /// What kind of record.
        what: Entity,
        /// Its id.
        id: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// The input breaks a rule; nothing was changed.
    #[error("invalid {field}: {reason}")]
    InvalidInput {
        /// The field, as a path from the argument (`schedule.cron`, `extra.a.b`).
        field: Cow<'static, str>,
        /// The rule that it breaks.
        reason: String,
    },
    /// Somebody else holds the store, and still did when the wait was over.
    #[error("the store is busy: {holder} (waited {waited:?})")]
    Busy {
        /// How long the call waited.
        waited: Duration,
        /// What is known of who holds it.
        holder: Cow<'static, str>,
    },
    /// The caller's lease is over: it lapsed, was released, or another worker holds the record now.
    #[error("the lease on {what} {id:?} is lost")]
    LeaseLost {
        /// What kind of record.
        what: Entity,
        /// Its id.
        id: String,
    },
    /// The amount would take the account past the limit; nothing was charged or held.
    #[error("limit exceeded: {used} of {limit} is used")]
    LimitExceeded {
        /// What is used and held, before this call.
        used: Amount,
        /// The limit that the caller gave.
        limit: Amount,
    },
    /// A write inside a snapshot, or on a store that was opened for reading.
    #[error("a snapshot is read-only")]
    ReadOnly,
    /// The store was called from inside its own transaction, snapshot or edit.
    #[error("the store was called from inside its own transaction; use the seams that the closure is given")]
    Nested,
    /// The engine cannot do this.
    #[error("not supported: {operation}")]
    Unsupported {
        /// What was asked for.
        operation: Cow<'static, str>,
    },
    /// Stored bytes are not what was written.
    #[error("corrupt {what}: {detail}")]
    Corrupt {
        /// The record or file part.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The file was written by a newer version of this library. It was not touched.
    #[error("the store has schema {found}, this version reads up to {supported}")]
    SchemaTooNew {
        /// The schema of the file.
        found: u32,
        /// The newest schema that this version knows.
        supported: u32,
    },
    /// The file belongs to another program, or is no database at all. It was not touched.
    #[error("not a store of ours: {detail}")]
    NotThisStore {
        /// What was found instead.
        detail: String,
    },
    /// The URL names an engine that this build does not contain, or none that exists.
    #[error("no engine for {scheme:?} in this build: {remedy}")]
    EngineNotCompiled {
        /// The scheme of the URL.
        scheme: String,
        /// The cargo feature to enable, or the schemes there are.
        remedy: String,
    },
    /// A flush failed earlier, of this store or of another on the same file, so what is on disk is not certain: writes
    /// are refused until the store is reopened.
    #[error("writes are refused until the store is reopened: {reason}")]
    Poisoned {
        /// What failed.
        reason: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The engine's own library or the operating system failed.
    #[error("{doing} failed")]
    Backend {
        /// What was being done.
        doing: Cow<'static, str>,
        /// Whether the write may have happened.
        outcome: Outcome,
        /// Whether the same call may succeed later.
        retryable: bool,
        /// The library's or the system's error.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
}

/// The kind of an [`Error`] without its details: what the laws compare across engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
#[allow(missing_docs)] // each variant is documented at its namesake in `Error`
pub enum ErrorKind {
    NotFound,
    AlreadyExists,
    Conflict,
    InvalidInput,
    Busy,
    LeaseLost,
    LimitExceeded,
    ReadOnly,
    Nested,
    Unsupported,
    Corrupt,
    SchemaTooNew,
    NotThisStore,
    EngineNotCompiled,
    Poisoned,
    Closed,
    Backend,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ErrorKind::NotFound => "not_found",
            ErrorKind::AlreadyExists => "already_exists",
            ErrorKind::Conflict => "conflict",
            ErrorKind::InvalidInput => "invalid_input",
            ErrorKind::Busy => "busy",
            ErrorKind::LeaseLost => "lease_lost",
            ErrorKind::LimitExceeded => "limit_exceeded",
            ErrorKind::ReadOnly => "read_only",
            ErrorKind::Nested => "nested",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::Corrupt => "corrupt",
            ErrorKind::SchemaTooNew => "schema_too_new",
            ErrorKind::NotThisStore => "not_this_store",
            ErrorKind::EngineNotCompiled => "engine_not_compiled",
            ErrorKind::Poisoned => "poisoned",
            ErrorKind::Closed => "closed",
            ErrorKind::Backend => "backend",
        })
    }
}

/// Whether a failed write may have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It certainly did not.
    NotApplied,
    /// It may have: the commit itself failed. Ids, revisions and idempotency keys make a retry safe.
    InDoubt,
}

/// What an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
#[allow(missing_docs)] // the names say it
pub enum Entity {
    Skill,
    Agent,
    Version,
    Schedule,
    Account,
    Charge,
    Reservation,
    Run,
    Event,
    Checkpoint,
    Store,
    File,
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Entity::Skill => "skill",
            Entity::Agent => "agent",
            Entity::Version => "version",
            Entity::Schedule => "schedule",
            Entity::Account => "account",
            Entity::Charge => "charge",
            Entity::Reservation => "reservation",
            Entity::Run => "run",
            Entity::Event => "event",
            Entity::Checkpoint => "checkpoint",
            Entity::Store => "store",
            Entity::File => "file",
        })
    }
}

impl Error {
    /// The kind, for matching without the details.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::NotFound { .. } => ErrorKind::NotFound,
            Error::AlreadyExists { .. } => ErrorKind::AlreadyExists,
            Error::Conflict { .. } => ErrorKind::Conflict,
            Error::InvalidInput { .. } => ErrorKind::InvalidInput,
            Error::Busy { .. } => ErrorKind::Busy,
            Error::LeaseLost { .. } => ErrorKind::LeaseLost,
            Error::LimitExceeded { .. } => ErrorKind::LimitExceeded,
            Error::ReadOnly => ErrorKind::ReadOnly,
            Error::Nested => ErrorKind::Nested,
            Error::Unsupported { .. } => ErrorKind::Unsupported,
            Error::Corrupt { .. } => ErrorKind::Corrupt,
            Error::SchemaTooNew { .. } => ErrorKind::SchemaTooNew,
            Error::NotThisStore { .. } => ErrorKind::NotThisStore,
            Error::EngineNotCompiled { .. } => ErrorKind::EngineNotCompiled,
            Error::Poisoned { .. } => ErrorKind::Poisoned,
            Error::Closed => ErrorKind::Closed,
            Error::Backend { .. } => ErrorKind::Backend,
        }
    }

    /// Whether the same call, made again as it is, may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Busy { .. } => true,
            Error::Backend { retryable, .. } => *retryable,
            _ => false,
        }
    }

    /// Whether the write may have happened.
    pub fn outcome(&self) -> Outcome {
        match self {
            Error::Backend { outcome, .. } => *outcome,
            _ => Outcome::NotApplied,
        }
    }

    /// A refusal is an answer about the data: it changed nothing, and a transaction may go on after it.
    /// Any other error dooms the transaction that it happens in (law TXN-2).
    pub fn is_refusal(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::NotFound
                | ErrorKind::AlreadyExists
                | ErrorKind::Conflict
                | ErrorKind::InvalidInput
                | ErrorKind::LeaseLost
                | ErrorKind::LimitExceeded
        )
    }

    /// [`Error::NotFound`] for a record and its id.
    pub fn not_found(what: Entity, id: impl Into<String>) -> Self {
        Error::NotFound { what, id: id.into() }
    }

    /// [`Error::AlreadyExists`] for the field of a record.
    pub fn already_exists(what: Entity, field: &'static str, value: impl Into<String>) -> Self {
        Error::AlreadyExists { what, field, value: value.into() }
    }

    /// [`Error::Conflict`] on a record.
    pub fn conflict(what: Entity, id: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Conflict { what, id: id.into(), reason: reason.into() }
    }

    /// [`Error::InvalidInput`] for a field.
    pub fn invalid(field: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Self {
        Error::InvalidInput { field: field.into(), reason: reason.into() }
    }

    /// [`Error::LeaseLost`] on a record.
    pub fn lease_lost(what: Entity, id: impl Into<String>) -> Self {
        Error::LeaseLost { what, id: id.into() }
    }

    /// [`Error::Corrupt`]: which record, and what is wrong.
    pub fn corrupt(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Error::Corrupt { what: what.into(), detail: detail.into() }
    }

    /// [`Error::Backend`] for a call that certainly changed nothing and that trying again does not help.
    pub fn backend(
        doing: impl Into<Cow<'static, str>>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Error::Backend {
            doing: doing.into(),
            outcome: Outcome::NotApplied,
            retryable: false,
            source: Arc::new(source),
        }
    }

    /// The same error with another [`Outcome`]: a failed commit is in doubt. Only [`Error::Backend`] carries one.
    pub fn with_outcome(mut self, new: Outcome) -> Self {
        if let Error::Backend { outcome, .. } = &mut self {
            *outcome = new;
        }
        self
    }
}

/// The error with its whole chain of sources on one line, for people.
pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What JSON and people read of a kind or an entity is one name.
    #[test]
    fn names_are_the_same_as_text_and_in_json() {
        let kinds = [
            Error::not_found(Entity::Run, "r"),
            Error::already_exists(Entity::Run, "id", "r"),
            Error::conflict(Entity::Run, "r", "ended"),
            Error::invalid("id", "is empty"),
            Error::Busy { waited: Duration::ZERO, holder: "".into() },
            Error::lease_lost(Entity::Run, "r"),
            Error::ReadOnly,
            Error::Nested,
            Error::Unsupported { operation: "x".into() },
            Error::corrupt("r", "rotten"),
            Error::Closed,
            Error::backend("reading", fmt::Error),
        ]
        .map(|error| error.kind());
        for kind in kinds {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.to_string());
        }
        for entity in [Entity::Skill, Entity::Account, Entity::Checkpoint, Entity::File] {
            assert_eq!(serde_json::to_value(entity).unwrap(), entity.to_string());
        }
    }

    #[test]
    fn an_error_says_whether_to_try_again_and_what_may_have_happened() {
        assert!(Error::Busy { waited: Duration::ZERO, holder: "".into() }.is_retryable());
        assert!(!Error::not_found(Entity::Run, "r").is_retryable());
        let failed = Error::backend("committing", fmt::Error);
        assert!(!failed.is_retryable());
        assert_eq!(failed.outcome(), Outcome::NotApplied);
        assert_eq!(failed.with_outcome(Outcome::InDoubt).outcome(), Outcome::InDoubt);
        let Error::Backend { doing, outcome, source, .. } = Error::backend("committing", fmt::Error) else {
            panic!("a backend error")
        };
        assert!(Error::Backend { doing, outcome, source, retryable: true }.is_retryable());
        assert_eq!(Error::ReadOnly.with_outcome(Outcome::InDoubt).outcome(), Outcome::NotApplied);
    }

    #[test]
    fn people_read_the_whole_chain() {
        let inner = Error::backend("flushing", fmt::Error);
        let outer = Error::backend("committing", inner.clone());
        assert_eq!(describe(&fmt::Error), fmt::Error.to_string());
        assert_eq!(describe(&outer), format!("{outer}: {inner}: {}", fmt::Error));
    }
}
