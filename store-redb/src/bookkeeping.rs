//! redb's own tables, checked before it is let write.
//!
//! Every commit, the one of a close included, takes entries out of redb's tables of freed pages. Over a damaged page
//! there redb panics, and while it unwinds a destructor goes on with the same page and panics again: that ends the
//! process, and nobody can catch it. These tables are small, so the checksums of their pages are verified at every
//! open. Those of our tables are not: their values have checksums of their own, and a panic over them is caught.

use std::fs::File;

use redb::{Builder, RepairSession, StorageBackend};
use store_api::Result;
use twox_hash::XxHash3_128;

use crate::error::{Fault, catch};
use crate::open::{PEEK_CACHE, backend};
use crate::storage::Overlay;

/// The header of a redb file of format 3: 64 bytes, of which this one is flags, and two slots for commits.
const HEADER: usize = 320;
const SLOTS: usize = 64;
const SLOT: usize = 128;
const FLAGS: usize = 9;

/// The flag that the second slot is the current one.
const SECOND: u8 = 1;
/// The flag that the current commit had two phases, so that redb trusts its pages. Without it redb checks them all.
const TWO_PHASES: u8 = 4;

/// Where the checksum of a slot begins, which goes to its end.
const SLOT_SUM: usize = 112;

/// Has redb check its own tables, and leaves the file as it is; `false` while somebody has it open.
///
/// redb checks all tables or none, so it is shown a file in whose header ours are not there.
///
/// # Errors
/// `Corrupt`, `Backend`.
pub(crate) fn check(file: &File) -> Result<bool> {
    let checked = catch(|| {
        let overlay = Overlay::over(backend(file)?).map_err(redb::StorageError::Io)?;
        let mut header = [0; HEADER];
        overlay.read(0, &mut header).map_err(redb::StorageError::Io)?;
        if !hide_our_tables(&mut header) {
            return Ok(());
        }
        overlay.write(0, &header).map_err(redb::StorageError::Io)?;
        let opened = Builder::new()
            .set_cache_size(PEEK_CACHE)
            .set_check_integrity_on_open(true)
            .set_repair_callback(stop_when_checked)
            .create_with_backend(overlay);
        match opened {
            Ok(_) | Err(redb::DatabaseError::RepairAborted) => Ok(()),
            Err(error) => Err(error),
        }
    });
    match checked {
        Ok(()) => Ok(true),
        Err(Fault::Redb(redb::Error::DatabaseAlreadyOpen)) => Ok(false),
        Err(fault) => Err(fault.into_error("checking redb's own tables")),
    }
}

/// Says in the slot of the current commit that it has none of our tables; no, if redb trusts no commit of the file
/// anyway, or the slot is damaged.
fn hide_our_tables(header: &mut [u8; HEADER]) -> bool {
    let flags = header[FLAGS];
    let begin = if flags & SECOND == 0 { SLOTS } else { SLOTS + SLOT };
    let (fields, sum) = header[begin..begin + SLOT].split_at_mut(SLOT_SUM);
    if flags & TWO_PHASES == 0 || *sum != XxHash3_128::oneshot(fields).to_le_bytes() {
        return false;
    }
    // The version, then whether there is a root of our tables.
    fields[1] = 0;
    sum.copy_from_slice(&XxHash3_128::oneshot(fields).to_le_bytes());
    true
}

/// redb begins with a progress of nought, and comes back when all checksums are verified. What it would do then is
/// the repair.
fn stop_when_checked(session: &mut RepairSession) {
    if session.progress() > 0.0 {
        session.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use store_api::{Durability, Seams, Store, Verification};

    use super::*;
    use crate::verify::check_file;
    use crate::{Options, RedbStore};

    const PAGE: usize = 4096;

    /// What is said of the file by the check of redb's own tables, and by the one of all tables.
    fn refused(path: &Path) -> (bool, bool) {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let own = check(&file);
        let mut all = Verification::default();
        check_file(path, &mut all).unwrap();
        (own.is_err(), !all.is_sound())
    }

    /// A bit flipped in redb's table of freed pages once ended the process of who closed the store: redb, which walks
    /// that table then, panicked, and panicked again in the destructor of its walk.
    #[test]
    fn damage_in_redbs_own_tables_is_found_and_no_other_is_looked_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agents.redb");
        let options = Options { durability: Durability::Process, ..Options::default() };
        let store = RedbStore::open_with(&path, options).unwrap();
        contract_tests::laws::moves::fill(&store);
        for iteration in 1_000..1_008 {
            store.checkpoints().save(&contract_tests::fixture::checkpoint("r1", iteration)).unwrap();
        }
        Store::close(&store).unwrap();
        let sound = fs::read(&path).unwrap();
        assert_eq!(refused(&path), (false, false));
        let (mut own, mut ours) = (0, 0);
        for page in (PAGE..sound.len()).step_by(PAGE) {
            let mut damaged = sound.clone();
            // How many entries the page has, which redb believes.
            damaged[page + 3] ^= 0x40;
            fs::write(&path, &damaged).unwrap();
            match refused(&path) {
                (true, all) => {
                    assert!(all, "the page at {page} is sound");
                    own += 1;
                }
                (false, all) => ours += u32::from(all),
            }
        }
        // The table of tables, the allocator's, and those of freed pages.
        assert!(own >= 3 && ours > own, "{own} pages of redb's own are damaged, and {ours} of ours");
    }
}
