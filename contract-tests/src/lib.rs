//! The laws of `store-api` as a test suite that any engine can run: one named test for each law, through `&dyn Store`.
//!
#![doc = include_str!("../GUIDE.md")]
// A check is a test: it panics when the engine breaks the law, and each `unwrap` in it is an assertion.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]
#![allow(missing_docs)] // of the checks: the contract says what each law promises
#![allow(clippy::missing_panics_doc)]

pub mod fixture;
pub mod harness;
pub mod history;
pub mod laws;
pub mod model;
pub mod process;
pub mod saboteurs;
pub mod suite;
pub mod tiny;
