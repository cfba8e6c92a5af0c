//! What workers tell control about backends. Not what follows from it: that is control's.

use super::Backend;
use tokio::sync::mpsc;

/// What a worker tells control about a backend. Successes are counted in the backend's cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Connect, handshake, timeout, reset or protocol garbage.
    LocalFailure,
    /// The server said that it cannot serve now: LOADING, MASTERDOWN, CLUSTERDOWN.
    Error,
    /// The server said that its role is not what we thought: READONLY.
    RoleMismatch,
    /// The server said that another one has the keys, or that nobody has.
    Moved,
    /// Its oldest request waits too long and no byte has come since: probe it at once.
    Suspect,
}

/// One outcome of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    pub backend: u32,
    pub outcome: Outcome,
}

/// The workers' end of the bounded channel to control. A worker never waits: when the channel is
/// full the report is dropped, for control then has plenty of the same news.
#[derive(Clone, Debug)]
pub struct Reporter(mpsc::Sender<Report>);

impl Reporter {
    /// A channel with room for 1,024 reports.
    pub fn channel() -> (Self, mpsc::Receiver<Report>) {
        let (sender, receiver) = mpsc::channel(REPORTS);
        (Self(sender), receiver)
    }

    /// Tells control; never blocks.
    pub fn report(&self, backend: &Backend, outcome: Outcome) {
        let _ = self.0.try_send(Report { backend: backend.id, outcome });
    }
}

/// Reports that may wait for control: some for each backend of a large cluster.
const REPORTS: usize = 1024;
