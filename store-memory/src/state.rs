//! Everything that the store holds, and the transaction as the seams see it.

use std::cell::{Ref, RefCell, RefMut};
use std::ops::Deref;

use store_api::*;

use crate::audit::Audit;
use crate::budget::Budgets;
use crate::catalog::Definitions;
use crate::checkpoint::Checkpoints;
use crate::table::Undo;

/// Everything that is stored.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) counter: Numbers,
    pub(crate) skills: Definitions<Skill>,
    pub(crate) agents: Definitions<Agent>,
    pub(crate) budgets: Budgets,
    pub(crate) audit: Audit,
    pub(crate) checkpoints: Checkpoints,
}

impl State {
    fn each_table(&mut self, act: &mut dyn FnMut(&mut dyn Undo)) {
        let State { counter, skills, agents, budgets, audit, checkpoints } = self;
        act(counter);
        skills.each_table(act);
        agents.each_table(act);
        budgets.each_table(act);
        audit.each_table(act);
        act(checkpoints);
    }
}

/// The store-wide counter that revisions and lease tokens come from.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    last: u64,
    committed: u64,
}

impl Numbers {
    /// The last number that was given.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Gives the next number.
    pub(crate) fn next(&mut self) -> Result<u64> {
        self.last = rules::next_seq(self.last)?;
        Ok(self.last)
    }

    /// Goes on after `last`, as an import says.
    pub(crate) fn set(&mut self, last: u64) {
        self.last = last;
    }
}

impl Undo for Numbers {
    fn commit(&mut self) {
        self.committed = self.last;
    }
    fn rollback(&mut self) {
        self.last = self.committed;
    }
}

/// The state under change. What was not committed when this is dropped is rolled back, also by a panic.
pub(crate) struct Changing<'a>(&'a mut State);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.each_table(&mut |table| table.rollback());
    }
}

/// A snapshot or a transaction. Every seam is implemented on it, each in its own module.
pub(crate) enum Tx<'a> {
    Snapshot(&'a State),
    Transaction(RefCell<Changing<'a>>),
}

impl<'a> Tx<'a> {
    pub(crate) fn snapshot(state: &'a State) -> Self {
        Tx::Snapshot(state)
    }

    pub(crate) fn transaction(state: &'a mut State) -> Self {
        Tx::Transaction(RefCell::new(Changing(state)))
    }

    /// Makes what the transaction did final.
    pub(crate) fn commit(self) {
        if let Tx::Transaction(changing) = self {
            changing.into_inner().0.each_table(&mut |table| table.commit());
        }
    }

    /// The state, to read. Let go of it before calling a closure of the host.
    pub(crate) fn look(&self) -> Look<'_> {
        match self {
            Tx::Snapshot(state) => Look::Snapshot(state),
            Tx::Transaction(changing) => {
                Look::Transaction(Ref::map(changing.borrow(), |changing| &*changing.0))
            }
        }
    }

    /// The state, to change. Let go of it before calling a closure of the host.
    ///
    /// # Errors
    /// `ReadOnly` in a snapshot; `Nested` while somebody still looks.
    pub(crate) fn change(&self) -> Result<RefMut<'_, State>> {
        match self {
            Tx::Snapshot(_) => Err(Error::ReadOnly),
            Tx::Transaction(changing) => {
                let changing = changing.try_borrow_mut().map_err(|_| Error::Nested)?;
                Ok(RefMut::map(changing, |changing| &mut *changing.0))
            }
        }
    }
}

/// The state as a call reads it: of a snapshot plain, of a transaction borrowed for as long as the call looks.
pub(crate) enum Look<'a> {
    Snapshot(&'a State),
    Transaction(Ref<'a, State>),
}

impl Deref for Look<'_> {
    type Target = State;
    fn deref(&self) -> &State {
        match self {
            Look::Snapshot(state) => state,
            Look::Transaction(state) => state,
        }
    }
}

impl Seams for Tx<'_> {
    fn skills(&self) -> &dyn SkillStore {
        self
    }
    fn agents(&self) -> &dyn AgentStore {
        self
    }
    fn budgets(&self) -> &dyn BudgetStore {
        self
    }
    fn audit(&self) -> &dyn AuditStore {
        self
    }
    fn checkpoints(&self) -> &dyn CheckpointStore {
        self
    }
}
