//! The checkers: whether a history of concurrent operations could have come from operations one after the other,
//! each at some moment between its call and its return.
//!
//! Numbered operations say themselves in which order they took place, so one pass over them decides
//! ([`numbered`], [`totals`]). For others the order has to be searched for ([`linearizable`]).

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

use serde::{Deserialize, Serialize};

/// An operation with what it gave, and when it was called and returned, by one clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed<T> {
    /// When it was called.
    pub called: u64,
    /// When it returned.
    pub returned: u64,
    /// What was asked, and what was answered.
    pub what: T,
}

/// Whether operations that are given in the order that they claim to have taken place could have: none may have
/// returned before one that comes earlier in that order was called.
fn agrees_with_time<'a, T: Debug + 'a>(
    in_order: impl IntoIterator<Item = &'a Timed<T>>,
) -> Result<(), String> {
    let mut latest: Option<&Timed<T>> = None;
    for operation in in_order {
        if let Some(before) = latest
            && operation.returned < before.called
        {
            return Err(format!("{operation:?} was over before {before:?}, which it follows, began"));
        }
        if latest.is_none_or(|before| before.called < operation.called) {
            latest = Some(operation);
        }
    }
    Ok(())
}

/// Whether appends were numbered 1, 2, 3 … in an order that agrees with time.
///
/// # Errors
/// The first gap, repetition or step back.
pub fn numbered(appends: &[Timed<u64>]) -> Result<(), String> {
    let mut appends: Vec<&Timed<u64>> = appends.iter().collect();
    appends.sort_by_key(|append| append.what);
    for (append, number) in appends.iter().zip(1..) {
        if append.what != number {
            return Err(format!("the number {number} is missing or was given twice: next is {append:?}"));
        }
    }
    agrees_with_time(appends)
}

/// Whether adds, each with its amount and the total after it, make one chain from zero that agrees with time.
///
/// # Errors
/// The first total that is not the one before it with the amount added, or a step back in time.
pub fn totals(adds: &[Timed<(u64, u64)>]) -> Result<(), String> {
    let mut adds: Vec<&Timed<(u64, u64)>> = adds.iter().collect();
    adds.sort_by_key(|add| add.what.1);
    let mut total = 0;
    for add in &adds {
        total += add.what.0;
        if add.what.1 != total {
            return Err(format!("{add:?} does not follow the total {}", total - add.what.0));
        }
    }
    agrees_with_time(adds)
}

/// Whether a record was never held twice: no two of these times, from the return of a claim to the call that gave
/// it back, overlap.
///
/// # Errors
/// Two that do.
pub fn held_once<T: Debug>(holds: &[Timed<T>]) -> Result<(), String> {
    let mut holds: Vec<&Timed<T>> = holds.iter().collect();
    holds.sort_by_key(|hold| hold.called);
    match holds.windows(2).find(|pair| pair[1].called < pair[0].returned) {
        Some(pair) => Err(format!("{:?} and {:?} held at once", pair[0], pair[1])),
        None => Ok(()),
    }
}

/// A thing in memory, to compare a history with.
pub trait Sequential {
    /// An operation with its answer.
    type Step: Debug;
    /// What the thing remembers.
    type State: Clone + Eq + Hash;

    /// What it remembers before the first step.
    fn begin(&self) -> Self::State;
    /// What it remembers after the step, or `None` when it would have answered otherwise.
    fn after(&self, state: &Self::State, step: &Self::Step) -> Option<Self::State>;
}

/// Which operations have taken place: all before `first`, and those in `beyond`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Done {
    first: usize,
    beyond: Vec<usize>,
}

impl Done {
    fn contains(&self, index: usize) -> bool {
        index < self.first || self.beyond.contains(&index)
    }

    fn with(&self, index: usize) -> Done {
        let mut done = self.clone();
        let at = done.beyond.partition_point(|other| *other < index);
        done.beyond.insert(at, index);
        while done.beyond.first() == Some(&done.first) {
            done.beyond.remove(0);
            done.first += 1;
        }
        done
    }
}

/// Whether there is an order of the operations that agrees with time and with what the thing would have answered:
/// the search of Wing and Gong, with Lowe's memory of where it has been.
///
/// # Errors
/// The operations that no order explains, at the point where the search got furthest.
pub fn linearizable<S: Sequential>(thing: &S, history: &[Timed<S::Step>]) -> Result<(), String> {
    let mut history: Vec<&Timed<S::Step>> = history.iter().collect();
    history.sort_by_key(|operation| operation.called);
    let mut open = vec![(Done { first: 0, beyond: Vec::new() }, thing.begin())];
    let mut seen = HashSet::new();
    let mut furthest = 0;
    while let Some((done, state)) = open.pop() {
        furthest = furthest.max(done.first);
        if done.first == history.len() {
            return Ok(());
        }
        // An operation can be next only if no other that is left had returned before it was called.
        let left = (done.first..history.len()).filter(|index| !done.contains(*index));
        let mut deadline = u64::MAX;
        for index in left {
            if history[index].called > deadline {
                break;
            }
            deadline = deadline.min(history[index].returned);
            if let Some(after) = thing.after(&state, &history[index].what) {
                let next = (done.with(index), after);
                if seen.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
    }
    let end = history.len().min(furthest + 4);
    Err(format!("no order explains {:#?}", &history[furthest..end]))
}

/// The revision of one definition.
#[derive(Debug)]
pub struct Register;

/// What is done to a [`Register`], with the answer. Revisions come from a counter that others use too, so a save may
/// give any that is higher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegisterStep {
    /// A read, with the revision that it gave.
    Read(u64),
    /// A save whatever is there, with its revision.
    Save(u64),
    /// A save of a revision that was read, with its own revision, or none when it was refused.
    SaveOver(u64, Option<u64>),
}

impl Sequential for Register {
    type Step = RegisterStep;
    type State = u64;

    fn begin(&self) -> u64 {
        0
    }

    fn after(&self, state: &u64, step: &RegisterStep) -> Option<u64> {
        match *step {
            RegisterStep::Read(revision) => (revision == *state).then_some(*state),
            RegisterStep::Save(revision) => (revision > *state).then_some(revision),
            RegisterStep::SaveOver(wanted, None) => (wanted != *state).then_some(*state),
            RegisterStep::SaveOver(wanted, Some(revision)) => {
                (wanted == *state && revision > *state).then_some(revision)
            }
        }
    }
}

/// What is used of one account with a limit.
#[derive(Debug)]
pub struct Budget {
    /// The limit of every admission.
    pub limit: u64,
}

/// What is done to a [`Budget`], with the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BudgetStep {
    /// A read, with what is used.
    Usage(u64),
    /// An add, with the total after it.
    Add(u64, u64),
    /// An admission, with the total after it, or what is used when it was refused.
    Admit(u64, Result<u64, u64>),
}

impl Sequential for Budget {
    type Step = BudgetStep;
    type State = u64;

    fn begin(&self) -> u64 {
        0
    }

    fn after(&self, state: &u64, step: &BudgetStep) -> Option<u64> {
        match *step {
            BudgetStep::Usage(used) => (used == *state).then_some(used),
            BudgetStep::Add(amount, total) => (state + amount == total).then_some(total),
            BudgetStep::Admit(amount, Ok(total)) => {
                (state + amount == total && total <= self.limit).then_some(total)
            }
            BudgetStep::Admit(amount, Err(used)) => {
                (used == *state && state + amount > self.limit).then_some(used)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<T>(called: u64, returned: u64, what: T) -> Timed<T> {
        Timed { called, returned, what }
    }

    #[test]
    fn numbers_have_no_gap_and_no_repetition_and_agree_with_time() {
        assert!(numbered(&[at(0, 9, 2), at(1, 3, 1), at(5, 8, 3)]).is_ok());
        assert!(numbered(&[at(0, 1, 1), at(2, 3, 3)]).is_err(), "a gap");
        assert!(numbered(&[at(0, 3, 1), at(1, 2, 1)]).is_err(), "a repetition");
        assert!(numbered(&[at(0, 1, 2), at(2, 3, 1)]).is_err(), "a step back");
        assert!(numbered(&[at(4, 5, 1), at(0, 9, 2), at(1, 2, 3)]).is_err(), "a step back around a long one");
    }

    #[test]
    fn totals_are_a_chain() {
        assert!(totals(&[at(0, 5, (2, 5)), at(1, 3, (3, 3)), at(6, 7, (1, 6))]).is_ok());
        assert!(totals(&[at(0, 5, (2, 2)), at(1, 3, (3, 3))]).is_err(), "a lost add");
        assert!(totals(&[at(0, 1, (2, 5)), at(2, 3, (3, 3))]).is_err(), "a step back");
    }

    #[test]
    fn holds_do_not_overlap() {
        assert!(held_once(&[at(5, 9, "b"), at(0, 5, "a")]).is_ok());
        assert!(held_once(&[at(4, 9, "b"), at(0, 5, "a")]).is_err());
    }

    #[test]
    fn a_lost_update_is_not_linearizable() {
        use RegisterStep::{Read, Save, SaveOver};
        let both = [at(0, 1, Save(1)), at(2, 5, SaveOver(1, Some(2))), at(3, 6, SaveOver(1, Some(3)))];
        assert!(linearizable(&Register, &both).is_err(), "both saves over revision 1 won");
        let one = [at(0, 1, Save(1)), at(2, 5, SaveOver(1, None)), at(3, 6, SaveOver(1, Some(3)))];
        assert!(linearizable(&Register, &one).is_ok(), "the later call took place first");
        assert!(linearizable(&Register, &[at(0, 1, Save(1)), at(0, 9, Read(0)), at(2, 3, Read(1))]).is_ok());
    }

    #[test]
    fn a_stale_read_is_not_linearizable() {
        use RegisterStep::{Read, Save};
        assert!(linearizable(&Register, &[at(0, 1, Save(1)), at(2, 3, Save(2)), at(4, 5, Read(1))]).is_err());
        let back = [at(0, 1, Save(1)), at(2, 9, Save(2)), at(3, 4, Read(2)), at(5, 6, Read(1))];
        assert!(linearizable(&Register, &back).is_err(), "a read went back while a save was under way");
    }

    #[test]
    fn an_overshoot_is_not_linearizable() {
        use BudgetStep::{Add, Admit, Usage};
        let budget = Budget { limit: 5 };
        assert!(linearizable(&budget, &[at(0, 3, Admit(3, Ok(3))), at(1, 4, Admit(3, Err(3)))]).is_ok());
        assert!(linearizable(&budget, &[at(0, 3, Admit(3, Ok(3))), at(1, 4, Admit(3, Ok(6)))]).is_err());
        assert!(linearizable(&budget, &[at(0, 3, Add(3, 3)), at(1, 4, Add(3, 3))]).is_err(), "a lost add");
        assert!(linearizable(&budget, &[at(0, 3, Add(3, 3)), at(4, 5, Usage(0))]).is_err(), "a stale read");
        assert!(linearizable(&budget, &[at(0, 3, Admit(3, Err(0)))]).is_err(), "a refusal without a cause");
    }

    #[test]
    fn long_histories_are_quick() {
        // Four at a time, overlapping: 2,000 operations in all.
        let adds = (0..2_000u64).map(|n| at(10 * (n / 4), 10 * (n / 4) + 11, BudgetStep::Add(1, n + 1)));
        let history: Vec<_> = adds.collect();
        assert!(linearizable(&Budget { limit: 0 }, &history).is_ok());
    }
}
