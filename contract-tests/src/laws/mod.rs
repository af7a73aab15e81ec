//! The checks of the laws, a file for each part of the contract. A check is a plain function that panics when the
//! engine breaks the law; [`laws!`](crate::laws) makes a test of each.

pub mod audit;
pub mod budgets;
pub mod checkpoints;
pub mod schedules;
pub mod versions;
