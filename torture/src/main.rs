//! The command of the library beside it.

fn main() -> std::process::ExitCode {
    torture::main()
}
