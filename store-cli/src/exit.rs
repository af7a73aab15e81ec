//! How the program ends: exit codes, and errors for people and programs.

use std::io;
use std::process::ExitCode;

use serde_json::{Value, json};
use store::{Error, ErrorKind, Outcome, describe};

/// The exit codes, as `--help` lists them.
pub(crate) const HELP: &str = "\
Exit codes:
  0  fine
  1  another error
  2  usage
  3  not found
  4  conflict, or already there
  5  busy
  6  corrupt, or not this store, or written by a newer version; two stores that differ
  7  limit exceeded
  8  lease lost
  9  invalid input";

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    Fine = 0,
    Other = 1,
    Usage = 2,
    NotFound = 3,
    Conflict = 4,
    Busy = 5,
    Corrupt = 6,
    LimitExceeded = 7,
    LeaseLost = 8,
    InvalidInput = 9,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> ExitCode {
        ExitCode::from(code as u8)
    }
}

impl Code {
    /// The code for a store's error.
    pub(crate) fn of(error: &Error) -> Code {
        match error.kind() {
            ErrorKind::NotFound => Code::NotFound,
            ErrorKind::AlreadyExists | ErrorKind::Conflict => Code::Conflict,
            ErrorKind::Busy => Code::Busy,
            ErrorKind::Corrupt | ErrorKind::NotThisStore | ErrorKind::SchemaTooNew => Code::Corrupt,
            ErrorKind::LimitExceeded => Code::LimitExceeded,
            ErrorKind::LeaseLost => Code::LeaseLost,
            ErrorKind::InvalidInput => Code::InvalidInput,
            _ => Code::Other,
        }
    }
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A store, or what was given to it.
    Store(Error),
    /// The command line.
    Usage(String),
    /// Standard input or output: nobody reads what is written any more, or the disk is full.
    Output(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Store(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Output(error)
    }
}

impl Failure {
    /// The exit code.
    pub(crate) fn code(&self) -> Code {
        match self {
            Failure::Store(error) => Code::of(error),
            Failure::Usage(_) => Code::Usage,
            Failure::Output(_) => Code::Other,
        }
    }

    /// What to write on standard error; nothing when whoever read our output has left.
    pub(crate) fn message(&self, json: bool) -> Option<String> {
        let error = match self {
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return None,
            Failure::Output(error) => other("output", format!("standard input or output failed: {error}")),
            Failure::Usage(text) if json => other("usage", text.clone()),
            Failure::Usage(text) => return Some(text.clone()),
            Failure::Store(error) => described(error),
        };
        Some(if json {
            json!({ "error": error }).to_string()
        } else {
            format!("storectl: {}", error["message"].as_str().unwrap_or_default())
        })
    }
}

fn other(kind: &str, message: String) -> Value {
    json!({ "kind": kind, "message": message, "retryable": false, "outcome": Outcome::NotApplied })
}

/// A store's error as programs read it: here on standard error, in `rpc` as the `data` of an error.
pub(crate) fn described(error: &Error) -> Value {
    let mut value = json!({
        "kind": error.kind(),
        "message": describe(error),
        "retryable": error.is_retryable(),
        "outcome": error.outcome(),
    });
    match error {
        Error::NotFound { what, id } | Error::LeaseLost { what, id } | Error::Conflict { what, id, .. } => {
            value["what"] = json!(what);
            value["id"] = json!(id);
        }
        Error::AlreadyExists { what, field, value: taken } => {
            value["what"] = json!(what);
            value["field"] = json!(field);
            value["value"] = json!(taken);
        }
        Error::InvalidInput { field, .. } => value["field"] = json!(field),
        Error::LimitExceeded { used, limit } => {
            value["used"] = json!(used);
            value["limit"] = json!(limit);
        }
        _ => {}
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_lists_every_code() {
        for code in [
            Code::Fine,
            Code::Other,
            Code::Usage,
            Code::NotFound,
            Code::Conflict,
            Code::Busy,
            Code::Corrupt,
            Code::LimitExceeded,
            Code::LeaseLost,
            Code::InvalidInput,
        ] {
            assert!(HELP.contains(&format!("\n  {}  ", code as u8)), "{code:?}");
        }
    }

    #[test]
    fn kinds_have_their_codes() {
        let of = |error: Error| Code::of(&error);
        assert_eq!(of(Error::Busy { waited: std::time::Duration::ZERO, holder: "x".into() }), Code::Busy);
        assert_eq!(of(Error::SchemaTooNew { found: 2, supported: 1 }), Code::Corrupt);
        assert_eq!(of(Error::NotThisStore { detail: "x".into() }), Code::Corrupt);
        assert_eq!(of(Error::corrupt("x", "y")), Code::Corrupt);
        assert_eq!(of(Error::Closed), Code::Other);
    }
}
