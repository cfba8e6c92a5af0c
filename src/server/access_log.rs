//! The thread that writes the access log, from its start to its last line. Not what it writes.

use super::{RunError, worker};
use crate::{
    config,
    telemetry::access_log::{self, AccessLog, Dropped, Place},
};
use std::{
    sync::mpsc::{Receiver, sync_channel},
    time::Duration,
};

/// The log, when there is one.
pub(super) struct Logging {
    pub log: Option<AccessLog>,
    /// Says by its end that all is written.
    written: Option<Receiver<()>>,
}

impl Logging {
    /// Opens it and starts its thread.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(super) fn start(config: Option<&config::AccessLog>) -> Result<Self, RunError> {
        let Some(config) = config else { return Ok(Self { log: None, written: None }) };
        let (log, writer) = access_log::open(&config.place).map_err(|source| {
            let path = match &config.place {
                Place::Stdout => "stdout".to_owned(),
                Place::File(path) => path.display().to_string(),
            };
            RunError::AccessLog { path, source }
        })?;
        let (writing, written) = sync_channel(0);
        let work = move || {
            let _writing = writing;
            writer.run();
        };
        worker::thread("sluice-access", work)
            .map_err(|source| RunError::Start { what: "access log thread", source })?;
        Ok(Self { log: Some(log), written: Some(written) })
    }

    pub(super) fn dropped(&self) -> Option<Dropped> {
        self.log.as_ref().map(AccessLog::dropped)
    }

    /// Waits until all is written, but not for a disk that hangs or a reader that does not read.
    pub(super) fn finish(self) {
        drop(self.log);
        if let Some(written) = self.written {
            let _ = written.recv_timeout(LAST_LINES);
        }
    }
}

/// As long as the process's own log has (tracing-appender).
const LAST_LINES: Duration = Duration::from_secs(1);
