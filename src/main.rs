//! The `portalkeeper` program.
use std::process::ExitCode;

fn main() -> ExitCode {
    portalkeeper::cli::main()
}
