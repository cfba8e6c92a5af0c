//! The program: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice::cli::main(std::env::args_os())
}
