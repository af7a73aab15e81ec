//! The SQLite engine: one file, WAL, several processes
