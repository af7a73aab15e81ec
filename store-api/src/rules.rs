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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ErrorKind, Lease, LeaseToken, Name, PrincipalId, Schedule, Skill, SkillId, WorkerId, time::from_nanos,
    };

    fn skill(schedule: Option<Schedule>) -> Skill {
        let id = SkillId::new("s").unwrap();
        Skill { schedule, ..Skill::new(id, PrincipalId::new("o").unwrap(), Name::new("n").unwrap()) }
    }

    fn ran(cron: &str, next: i64, last: i64) -> Schedule {
        let worker = WorkerId::new("w").unwrap();
        let lease = Lease { worker, until: from_nanos(99), token: LeaseToken(1) };
        let last_run_at = Some(from_nanos(last));
        Schedule { last_run_at, lease: Some(lease), ..Schedule::new(cron, "UTC", Some(from_nanos(next))) }
    }

    #[test]
    fn expectations() {
        let id = SkillId::new("s").unwrap();
        let kind = |stored: Option<u64>, expect| {
            check_expect::<Skill>(&id, stored.map(Revision), expect).err().map(|error| error.kind())
        };
        assert_eq!(kind(None, Expect::Any), None);
        assert_eq!(kind(Some(3), Expect::Any), None);
        assert_eq!(kind(None, Expect::Absent), None);
        assert_eq!(kind(Some(3), Expect::Absent), Some(ErrorKind::AlreadyExists));
        assert_eq!(kind(Some(3), Expect::Revision(Revision(3))), None);
        assert_eq!(kind(Some(4), Expect::Revision(Revision(3))), Some(ErrorKind::Conflict));
        assert_eq!(kind(None, Expect::Revision(Revision(3))), Some(ErrorKind::NotFound));
        let delete = |stored: Option<u64>, expect| {
            check_delete::<Skill>(&id, stored.map(Revision), expect).err().map(|error| error.kind())
        };
        assert_eq!(delete(None, Expect::Any), Some(ErrorKind::NotFound));
        assert_eq!(delete(Some(1), Expect::Absent), Some(ErrorKind::InvalidInput));
        assert_eq!(delete(Some(2), Expect::Revision(Revision(1))), Some(ErrorKind::Conflict));
        assert_eq!(delete(Some(1), Expect::Any), None);
    }

    #[test]
    fn an_edit_leaves_the_id_alone() {
        let edited = skill(None);
        assert!(check_edit(&edited.id, &edited).is_ok());
        let other = SkillId::new("other").unwrap();
        assert_eq!(check_edit(&other, &edited).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn a_save_of_the_same_times_keeps_the_run_state_whatever_the_copy_says() {
        let stored = skill(Some(ran("daily", 10, 5)));
        for copy in [ran("daily", 1, 2), Schedule::new("daily", "UTC", None)] {
            let state = run_state_after_save(Some(&stored), &skill(Some(copy))).unwrap();
            assert_eq!(state, ran("daily", 10, 5).run_state());
        }
    }

    #[test]
    fn a_save_of_other_times_takes_the_next_and_ends_the_lease() {
        let stored = skill(Some(ran("daily", 10, 5)));
        let mut zone = ran("daily", 20, 1);
        zone.time_zone = "Europe/Madrid".into();
        for changed in [ran("hourly", 20, 1), zone] {
            let state = run_state_after_save(Some(&stored), &skill(Some(changed))).unwrap();
            let expected =
                RunState { next_run_at: Some(from_nanos(20)), last_run_at: Some(from_nanos(5)), lease: None };
            assert_eq!(state, expected);
        }
        assert_eq!(run_state_after_save(Some(&stored), &skill(None)), None);
    }

    #[test]
    fn a_new_schedule_brings_its_times_but_no_lease() {
        for stored in [None, Some(skill(None))] {
            let state = run_state_after_save(stored.as_ref(), &skill(Some(ran("daily", 10, 5)))).unwrap();
            assert_eq!(state, RunState { lease: None, ..ran("daily", 10, 5).run_state() });
        }
    }

    #[test]
    fn taking_the_run_state_out_and_putting_it_in_is_the_document() {
        let doc = skill(Some(ran("daily", 10, 5)));
        let stored = without_run_state(&doc).into_owned();
        assert_eq!(stored.schedule.as_ref().unwrap().run_state(), RunState::default());
        assert_eq!(assemble(stored, doc.schedule.as_ref().unwrap().run_state()), doc);
        for nothing in [None, Some(Schedule::new("daily", "UTC", None))] {
            assert!(matches!(without_run_state(&skill(nothing)), Cow::Borrowed(_)), "nothing to copy");
        }
    }

    #[test]
    fn pruning_keeps_the_newest_and_the_pinned() {
        let versions = [(9, false), (7, true), (6, false), (5, true), (2, false)];
        assert_eq!(prunable(versions, 2), [6, 2]);
        assert_eq!(prunable(versions, 0), [9, 6, 2]);
        assert_eq!(prunable(versions, 5), [0u64; 0]);
    }

    #[test]
    fn counting_ends_with_an_error() {
        assert_eq!(next_seq(0).unwrap(), 1);
        assert!(next_seq(i64::MAX as u64).is_err());
        assert!(next_seq(u64::MAX).is_err());
    }

    #[test]
    fn sizes_of_requests_are_checked() {
        assert!(check_max(0).is_err() && check_max(MAX_PAGE + 1).is_err() && check_max(MAX_PAGE).is_ok());
        assert_eq!(distinct("skills", &["b", "a", "b"]).unwrap(), ["b", "a"]);
        assert_eq!(distinct("skills", &vec![0; MAX_PAGE]).unwrap(), [0]);
        assert!(distinct("skills", &vec![0; MAX_PAGE + 1]).is_err());
    }
}
