//! The laws of store-api as a test suite that any engine can run

pub mod harness;
pub mod model;
pub mod tiny;
