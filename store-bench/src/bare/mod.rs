//! The bare databases: the same durable work as good hand-written code does it, without our checks and checksums.
//!
//! One transaction for each operation behind one mutex, statements cached or tables opened once a transaction,
//! documents encoded before the mutex is taken and decoded after it is given back, indexes for the same queries.

pub(crate) mod memory;
pub(crate) mod redb;
pub(crate) mod sqlite;

use std::sync::Arc;

use store_api::{Finish, Run};

/// A run as it stands once it has ended.
fn finished(running: Arc<Run>, finish: &Finish) -> Arc<Run> {
    let start = Arc::unwrap_or_clone(running).start;
    Arc::new(Run { status: finish.outcome.into(), finish: Some(finish.clone()), start })
}
