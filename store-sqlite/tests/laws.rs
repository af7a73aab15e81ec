//! The laws run on this engine.

#![allow(clippy::unwrap_used)] // of the helpers: each is an assertion

mod harness;

contract_tests::laws!(crate::harness::Sqlite);
