//! Moving everything that a store holds: as a file of JSON Lines, or straight into another store.

mod copy;
mod jsonl;
mod packing;
mod staging;

pub(crate) use copy::{ComparedSeam, Comparison, compare, copy};
pub(crate) use jsonl::{export, export_to_file, import, import_from_file};

/// Names what was being done when the operating system said no.
fn failed(doing: &'static str) -> impl Fn(std::io::Error) -> store::Error {
    move |error| store::Error::backend(doing, error)
}
