//! The store as methods by name: for JSON-RPC, and for the verbs of the command line.

mod dispatch;
#[cfg(test)]
mod document;
mod params;
mod protocol;
mod table;

pub(crate) use dispatch::call;
pub(crate) use params::Params;
pub(crate) use protocol::{answer_line, serve};
pub(crate) use table::find;
