//! Assembles everything from a configuration and runs it. It contains no decision.

use crate::config::Config;

/// Why the process could not start or go on.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RunError(String);

/// Runs until it is told to stop.
pub fn run(config: Config) -> Result<(), RunError> {
    drop(config);
    Err(RunError("this build has no data plane yet".to_owned()))
}
