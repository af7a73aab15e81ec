//! `storectl` as a program: run on real files, seen from outside.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod copying;
mod exits;
mod moving;
mod records;
mod session;
mod support;
mod verbs;
