//! `sluice demo`: real Redis servers behind Sluice, to look at. Not a way to run Sluice.

use std::{
    io::{self, Write},
    process::ExitCode,
};

/// What the demo is asked to do.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoOptions {
    /// End by itself after so many seconds.
    #[arg(long, value_name = "N")]
    pub seconds: Option<u64>,
    /// Kill one replica after five seconds, and start it again five seconds later.
    #[arg(long)]
    pub kill_replica: bool,
}

/// Runs the demo.
pub fn run(options: &DemoOptions) -> ExitCode {
    let _ = writeln!(io::stderr().lock(), "sluice: this build has no demo yet: {options:?}");
    ExitCode::FAILURE
}
