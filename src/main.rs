//! The program: arguments in, exit code out. Not what the arguments mean: that is the library's.

use std::process::ExitCode;

/// Faster than the system's for many small buffers of one thread (measured at GET c50).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    sluice::cli::main(std::env::args_os())
}
