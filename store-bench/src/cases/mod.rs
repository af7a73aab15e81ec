//! The cases: what is done over and over, and on which data.

use crate::measure::Op;
use crate::subject::{Result, Subject};

mod reads;
mod writes;

/// Where a client sits while it measures.
#[derive(Clone, Copy)]
pub(crate) struct Seat<'a> {
    pub(crate) subject: &'a dyn Subject,
}

/// One thing that is measured.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Makes the operation of one client.
    pub(crate) make: for<'a> fn(Seat<'a>) -> Result<Op<'a>>,
}

/// All of them.
pub(crate) const ALL: &[Case] =
    &[writes::APPEND_VERSION, writes::MARK, writes::BUDGET_ADD, reads::GET, reads::NEWEST_PAGE];

/// What an answer must be; a fast wrong answer is worth nothing.
fn check(is_right: bool, what: &str) -> Result<()> {
    if is_right { Ok(()) } else { Err(format!("a wrong answer: {what}").into()) }
}
