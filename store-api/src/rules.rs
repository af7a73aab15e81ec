//! The rules that engines call inside their transactions and that have no other home: what a save, an edit and a
//! prune come to. The rules about one type are methods of it ([`Ledger`](crate::Ledger), [`Run`](crate::Run),
//! [`Lease`](crate::Lease), [`RunState`], [`DefinitionFilter`](crate::DefinitionFilter), …).

use std::borrow::Cow;

use crate::page::MAX_PAGE;
use crate::{Definition, Error, Expect, Result, Revision, RunState};

/// Whether a save or a delete finds what it expects.
///
/// # Errors
/// `AlreadyExists`, `NotFound` or `Conflict`, as [`Catalog::save`](crate::Catalog::save) says (law DOC-3).
pub fn check_expect<D: Definition>(id: &D::Id, stored: Option<Revision>, expect: Expect) -> Result<()> {
    let what = D::KIND.entity();
    match (stored, expect) {
        (_, Expect::Any) | (None, Expect::Absent) => Ok(()),
        (Some(found), Expect::Revision(wanted)) if found == wanted => Ok(()),
        (Some(_), Expect::Absent) => Err(Error::already_exists(what, "id", id.as_ref())),
        (None, Expect::Revision(_)) => Err(Error::not_found(what, id.as_ref())),
        (Some(found), Expect::Revision(wanted)) => Err(Error::conflict(
            what,
            id.as_ref(),
            format!("revision {wanted} was expected, {found} is stored"),
        )),
    }
}

/// Whether a delete finds what it expects.
///
/// # Errors
/// `NotFound`, `Conflict`, or `InvalidInput` for [`Expect::Absent`].
pub fn check_delete<D: Definition>(id: &D::Id, stored: Option<Revision>, expect: Expect) -> Result<()> {
    if expect == Expect::Absent {
        return Err(Error::invalid("expect", "what is to be deleted cannot be expected to be absent"));
    }
    if stored.is_none() {
        return Err(Error::not_found(D::KIND.entity(), id.as_ref()));
    }
    check_expect::<D>(id, stored, expect)
}

/// Whether an edit left the id alone.
///
/// # Errors
/// `InvalidInput` when it did not.
pub fn check_edit<D: Definition>(before: &D::Id, edited: &D) -> Result<()> {
    if edited.id() == before {
        return Ok(());
    }
    Err(Error::invalid("id", format!("an edit may not change it from {before:?} to {:?}", edited.id())))
}

/// The run state after a save: `stored` is the schedule that was stored, with its run state, if there was one.
///
/// A save that leaves expression and zone alone keeps the stored run state; one that changes them takes the new
/// `next_run_at` and ends a lease; a schedule that is new brings both its times (laws MARK-2, MARK-3).
pub fn run_state_after_save<D: Definition>(stored: Option<&D>, saved: &D) -> Option<RunState> {
    let new = saved.schedule()?;
    let Some(old) = stored.and_then(Definition::schedule) else {
        return Some(RunState { lease: None, ..new.run_state() });
    };
    if old.same_times(new) {
        return Some(old.run_state());
    }
    Some(RunState { next_run_at: new.next_run_at, last_run_at: old.last_run_at, lease: None })
}

/// The document as it is stored: without the run state, which stands beside it.
pub fn without_run_state<D: Definition>(doc: &D) -> Cow<'_, D> {
    match doc.schedule() {
        Some(schedule) if schedule.run_state() != RunState::default() => {
            let mut doc = doc.clone();
            if let Some(schedule) = doc.schedule_mut() {
                schedule.set_run_state(RunState::default());
            }
            Cow::Owned(doc)
        }
        _ => Cow::Borrowed(doc),
    }
}

/// What a host reads: the stored document with the run state put in.
pub fn assemble<D: Definition>(mut doc: D, state: RunState) -> D {
    if let Some(schedule) = doc.schedule_mut() {
        schedule.set_run_state(state);
    }
    doc
}

/// The number after `last` (law SEQ-1). Zero stands for no version yet.
///
/// # Errors
/// `Corrupt` at the end of `i64`, which no store reaches by counting.
pub fn next_seq(last: u64) -> Result<u64> {
    let next = last.checked_add(1).filter(|next| i64::try_from(*next).is_ok());
    next.ok_or_else(|| Error::corrupt("sequence", format!("{last} is no number that counting reaches")))
}

/// Which versions a prune removes: of those given newest first as (seq, pinned), all after the first `keep` that
/// are not pinned.
pub fn prunable(newest_first: impl IntoIterator<Item = (u64, bool)>, keep: usize) -> Vec<u64> {
    newest_first.into_iter().skip(keep).filter(|(_, pinned)| !pinned).map(|(seq, _)| seq).collect()
}

/// Checks how many records a claim or a sweep may take: 1 to [`MAX_PAGE`].
///
/// # Errors
/// `InvalidInput`.
pub fn check_max(max: usize) -> Result<()> {
    if (1..=MAX_PAGE).contains(&max) {
        return Ok(());
    }
    Err(Error::invalid("max", format!("{max} is not between 1 and {MAX_PAGE}")))
}

/// Checks how many skills a look-up may name, and drops those that are named twice.
///
/// # Errors
/// `InvalidInput` for more than [`MAX_PAGE`].
pub fn distinct<T: Clone + Eq + std::hash::Hash>(field: &'static str, items: &[T]) -> Result<Vec<T>> {
    if items.len() > MAX_PAGE {
        return Err(Error::invalid(field, format!("{} are more than {MAX_PAGE}", items.len())));
    }
    let mut seen = std::collections::HashSet::new();
    Ok(items.iter().filter(|item| seen.insert(*item)).cloned().collect())
}
