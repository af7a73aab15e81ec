//! The cases: what is done over and over, and on which data.

use crate::engine::Engine;
use crate::measure::Op;
use crate::population::Population;
use crate::runner::Config;
use crate::subject::{Result, Subject};

mod beside;
pub(crate) mod copy;
mod open;
pub(crate) mod reads;
pub(crate) mod writes;

pub(crate) use writes::prepared;

/// Where a client sits while it measures.
#[derive(Clone, Copy)]
pub(crate) struct Seat<'a> {
    pub(crate) subject: &'a dyn Subject,
    /// What is in it.
    pub(crate) population: Population,
    pub(crate) client: usize,
}

/// Makes the operation of one client.
pub(crate) type Make = for<'a> fn(Seat<'a>) -> Result<Op<'a>>;

/// One thing that is measured.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) method: Method,
}

/// How it is measured.
pub(crate) enum Method {
    /// Clients in closed loops, each doing the same over and over.
    Loop(Loop),
    /// In a way of its own.
    Own(fn(&Case, Engine, &Config) -> Result<()>),
}

/// The same over and over.
pub(crate) struct Loop {
    /// On what, given the size of large stores.
    pub(crate) on: fn(u64) -> Population,
    pub(crate) needs: Needs,
    pub(crate) clients: Clients,
    pub(crate) make: Make,
}

/// What has to be prepared for each operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    Nothing,
    /// A running run and its checkpoint, which it uses up.
    ARun,
}

/// How many clients there are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Clients {
    /// As many as are asked for writers.
    Writers,
    /// As many as are asked for readers.
    Readers,
    Exactly(usize),
}

/// All of them. Those on one large store are beside each other, so that it is filled once.
pub(crate) const ALL: &[Case] = &[
    writes::APPEND_VERSION,
    writes::APPEND_16,
    writes::APPEND_64,
    writes::MARK,
    writes::BUDGET_ADD,
    writes::ADMIT,
    writes::START_RUN,
    writes::APPEND_EVENT,
    writes::FINISH_RUN,
    writes::SETTLE,
    writes::CHECKPOINT_1,
    writes::CHECKPOINT_16,
    writes::CHECKPOINT_256,
    writes::CLAIM,
    beside::BESIDE_READERS,
    reads::GET,
    reads::BY_NAME,
    reads::NEWEST_PAGE,
    reads::ANCESTORS,
    reads::DUE_PAGE,
    reads::DUE_PAGE_WIDE,
    reads::LAST_RUNS,
    reads::SUMMARY,
    open::OPEN,
    copy::COPY,
];

/// What an answer must be; a fast wrong answer is worth nothing.
pub(crate) fn check(is_right: bool, what: &str) -> Result<()> {
    if is_right { Ok(()) } else { Err(format!("a wrong answer: {what}").into()) }
}
