//! The bare databases: the same durable work as good hand-written code does it, without our checks and checksums.
//!
//! One transaction for each operation behind one mutex, statements cached or tables opened once a transaction,
//! documents encoded before the mutex is taken and decoded after it is given back, indexes for the same queries.

pub(crate) mod memory;
pub(crate) mod redb;
pub(crate) mod sqlite;
