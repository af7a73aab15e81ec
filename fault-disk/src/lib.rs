//! A disk between an engine and the file system, that records, delays, fails and forgets: for tests and benchmarks.
