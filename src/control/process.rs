//! How far the process has come: listeners bound, first round of probes done, draining. Not the
//! state of any backend: a process is ready even when every backend is down.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};
use tokio::{sync::watch, time::Instant};

/// Shared by the server, the workers and control.
#[derive(Debug)]
pub struct ProcessState {
    listeners_bound: AtomicBool,
    draining: AtomicBool,
    first_round: watch::Sender<bool>,
    started: Instant,
    started_at: SystemTime,
}

/// Where the process is in its life; the label of `sluice_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Starting,
    Ready,
    Draining,
}

impl ProcessState {
    /// A process that starts now.
    pub fn new() -> Self {
        Self {
            listeners_bound: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            first_round: watch::Sender::new(false),
            started: Instant::now(),
            started_at: SystemTime::now(),
        }
    }

    /// Every listener is bound.
    pub fn set_listeners_bound(&self) {
        self.listeners_bound.store(true, Ordering::Release);
    }

    /// The process is about to end: readiness says so from now on.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether [`Self::start_draining`] was called.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether every backend was probed, or `startup_grace` is over.
    pub fn first_round_done(&self) -> bool {
        *self.first_round.borrow()
    }

    /// Waits until [`Self::first_round_done`]; returns at once when it is.
    pub async fn wait_first_round(&self) {
        // The sender is `self`, so the channel cannot be closed while we wait.
        let _ = self.first_round.subscribe().wait_for(|done| *done).await;
    }

    /// Control alone calls this.
    pub(crate) fn finish_first_round(&self) {
        self.first_round.send_replace(true);
    }

    /// What `/readyz` answers.
    ///
    /// # Errors
    /// Why clients should not be sent here now.
    pub fn readiness(&self) -> Result<(), &'static str> {
        if self.draining() {
            return Err("draining");
        }
        if !self.listeners_bound.load(Ordering::Acquire) {
            return Err("listeners are not bound yet");
        }
        if !self.first_round_done() {
            return Err("the first round of probes is not done yet");
        }
        Ok(())
    }

    /// Starting until ready for the first time, then ready, at last draining.
    pub fn stage(&self) -> Stage {
        match self.readiness() {
            Ok(()) => Stage::Ready,
            Err(_) if self.draining() => Stage::Draining,
            Err(_) => Stage::Starting,
        }
    }

    /// Time since the start.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// When the process started, by the wall clock.
    pub fn started_at(&self) -> SystemTime {
        self.started_at
    }
}

impl Default for ProcessState {
    fn default() -> Self {
        Self::new()
    }
}

impl Stage {
    /// Every stage, in the order of metrics.
    pub const ALL: [Self; 3] = [Self::Starting, Self::Ready, Self::Draining];

    /// The word of metrics and the status API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn readiness_says_what_is_missing() {
        let state = ProcessState::new();
        assert!(state.readiness().unwrap_err().contains("listeners"));
        state.set_listeners_bound();
        assert!(state.readiness().unwrap_err().contains("probes"));
        assert_eq!(state.stage(), Stage::Starting);
        state.finish_first_round();
        state.wait_first_round().await;
        assert_eq!((state.readiness(), state.stage()), (Ok(()), Stage::Ready));
        state.start_draining();
        assert_eq!((state.readiness(), state.stage()), (Err("draining"), Stage::Draining));
    }
}
