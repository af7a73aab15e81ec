//! The redb engine: one file, pure Rust, one process
