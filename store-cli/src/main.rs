//! `storectl`: look into a store, change it, move it, serve it.

use std::process::ExitCode;

fn main() -> ExitCode {
    store_cli::main()
}
