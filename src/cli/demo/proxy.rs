//! Sluice in front of the demo's servers: its process (this very program) and its ports. Not the
//! servers, nor what its configuration says of them.

use super::{
    DemoError,
    process::{Process, last_lines},
    status::Status,
};
use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The running proxy; drained and ended when dropped.
#[derive(Debug)]
pub(super) struct Proxy {
    process: Process,
    ports: Ports,
    /// What it speaks, and the port that it would like.
    protocol: (&'static str, u16),
    configuration: PathBuf,
    log: PathBuf,
}

/// Where it listens, on 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) front: u16,
    pub(super) admin: u16,
}

impl Proxy {
    /// In front of `backends`, by `host:port`. Writes the configuration, starts `sluice run` with it, and waits until every backend is
    /// ready.
    ///
    /// # Errors
    /// When it does not start, with the end of its log.
    pub(super) async fn start(
        folder: &Path,
        protocol: (&'static str, u16),
        backends: &BTreeSet<String>,
        yaml: impl Fn(Ports) -> String,
    ) -> Result<Self, DemoError> {
        let program =
            std::env::current_exe().map_err(|error| DemoError::io("find this program", error))?;
        let configuration = folder.join("sluice.yaml");
        let log = folder.join(LOG);
        for _ in 0..ATTEMPTS {
            let ports = Ports { front: free_from(protocol.1)?, admin: free_from(ADMIN_PORT)? };
            fs::write(&configuration, yaml(ports)).map_err(|error| {
                DemoError::io(format!("write {}", configuration.display()), error)
            })?;
            let arguments = [Path::new("run"), Path::new("-c"), &configuration];
            let process = Process::start(&program, arguments, folder, LOG)?;
            let mut proxy = Self {
                process,
                ports,
                protocol,
                configuration: configuration.clone(),
                log: log.clone(),
            };
            if proxy.wait_until_ready(backends).await {
                return Ok(proxy);
            }
            if proxy.process.runs() {
                break;
            }
            // Somebody took a port after we had looked: once more.
        }
        let end = last_lines(&log).unwrap_or_default();
        Err(DemoError::told(format!("sluice does not start; the end of its log:{end}")))
    }

    pub(super) fn ports(&self) -> Ports {
        self.ports
    }

    /// # Errors
    /// When it has ended, with the end of its log.
    pub(super) fn must_run(&mut self) -> Result<(), DemoError> {
        if self.process.runs() {
            return Ok(());
        }
        let end = last_lines(&self.log).unwrap_or_default();
        Err(DemoError::told(format!("sluice has ended; the end of its log:{end}")))
    }

    /// Where it listens and what it was told.
    pub(super) fn places(&self) -> String {
        let line = |what, port, wanted| {
            let taken =
                if port == wanted { String::new() } else { format!("   (port {wanted} is taken)") };
            format!("  {what:<14} 127.0.0.1:{port}{taken}\n")
        };
        format!(
            "\nSluice is in front of them:\n{}{}  configuration  {}\n  log            {}\n",
            line(self.protocol.0, self.ports.front, self.protocol.1),
            line("admin", self.ports.admin, ADMIN_PORT),
            self.configuration.display(),
            self.log.display(),
        )
    }

    /// False when it ended or its time is over. That it is our own process that answers is seen
    /// by its backends.
    async fn wait_until_ready(&mut self, ours: &BTreeSet<String>) -> bool {
        let deadline = Instant::now() + START_TIME;
        while Instant::now() < deadline && self.process.runs() {
            if let Ok(status) = Status::fetch(self.ports.admin).await
                && status.state == "ready"
                && status.backends().all(|backend| backend.state == "ready")
                && status.backends().map(|backend| backend.name.clone()).collect::<BTreeSet<_>>()
                    == *ours
            {
                return true;
            }
            tokio::time::sleep(POLL).await;
        }
        false
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.process.end(DRAIN + Duration::from_secs(1));
    }
}

/// As Sluice names a server here.
pub(super) fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// The first port from `wanted` on that is free now.
fn free_from(wanted: u16) -> Result<u16, DemoError> {
    (wanted..wanted.saturating_add(SEARCHED))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| DemoError::told(format!("no free port from {wanted} on")))
}

const ADMIN_PORT: u16 = 9900;
const SEARCHED: u16 = 100;
const LOG: &str = "sluice.log";
const ATTEMPTS: usize = 5;
/// How long clients of ours may keep it from ending.
pub(super) const DRAIN: Duration = Duration::from_secs(1);
/// Two probes of each backend take half a second.
const START_TIME: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(50);
