//! The recovery of a database whose flush failed, before it is opened. How it goes, and why: [`safe_files::recovery`].

use std::fs::File;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use redb::{Builder, ReadableDatabase, StorageBackend};
use safe_files::recovery::{Logs, Recovery, copy_file};
use safe_files::{failed, leads_to};
use store_api::{Error, Result, Verification};

use crate::error::{Edge, catch};
use crate::file::{self, Standing};
use crate::kv::Reading;
use crate::migrations;
use crate::open::{backend, check_mark, is_ours};
use crate::tx::Tx;
use crate::verify::{CHECK_CACHE, check_records};

/// redb lays nothing beside its file.
pub(crate) const LOGS: Logs = &[];

/// Recovers the database, unless somebody has it open: then the answer is no.
///
/// # Errors
/// `Corrupt` when the copy does not verify; those of [`file::look`] and [`is_ours`]; `Backend`. The database and the
/// marker are as they were then, or the next opener goes on.
pub(crate) fn run(recovery: Recovery, path: &Path) -> Result<bool> {
    if recovery.is_copied()? {
        return recovery.swap().map(|()| true);
    }
    let file = match file::look(path)? {
        Standing::Nothing | Standing::Empty(_) => return recovery.forget().map(|()| true),
        Standing::Changing => return Ok(false),
        Standing::Redb(file) => file,
    };
    if !is_ours(path, &file)? {
        return Ok(false);
    }
    let alone = catch(|| backend(&file)).map_err(|fault| fault.into_error("opening"))?;
    let locked = alone.try_lock_range(Bound::Unbounded, Bound::Unbounded);
    if !locked.map_err(|e| Error::backend("locking the database", e))? || !leads_to(path, &file)? {
        return Ok(false);
    }
    recovery.copy(|copy| {
        copy_file(&file, copy)?;
        verify(copy)
    })?;
    recovery.swap()?;
    Ok(true)
}

/// Checks every page and every record of the copy. What its last writer left undone redb ends there.
fn verify(copy: &Path) -> Result<()> {
    let edge = Arc::<Edge>::default();
    let file = File::options().read(true).write(true).open(copy).map_err(|e| failed("opening", copy, e))?;
    let database = edge.call("checking the copy", || {
        Builder::new()
            .set_cache_size(CHECK_CACHE)
            .set_check_integrity_on_open(true)
            .create_with_backend(backend(&file)?)
    })?;
    let schema = check_mark(&edge, copy, || database.begin_read())?;
    migrations::run(&edge, &database, schema)?;
    let tx = edge.call("reading the copy", || database.begin_read())?;
    let mut found = Verification::default();
    check_records(&Tx::on(&Reading::new(tx, &edge)), &mut found)?;
    edge.call("closing the copy", || database.close())?;
    found.require_sound("database that a failed flush left")
}
