//! The checks of the laws, a file for each part of the contract. A check is a plain function that panics when the
//! engine breaks the law; [`laws!`](crate::laws!) makes a test of each.

pub mod audit;
pub mod budgets;
pub mod checkpoints;
pub mod damage;
pub mod documents;
pub mod durability;
pub mod moves;
pub mod opening;
pub mod pages;
pub mod schedules;
pub mod transactions;
pub mod versions;
