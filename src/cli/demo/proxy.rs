//! Sluice in front of the demo's servers: its configuration, its process (this very program), its
//! ports. Not the servers.

use super::{
    DemoError,
    process::{Process, last_lines},
    servers::Fleet,
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
    configuration: PathBuf,
    log: PathBuf,
}

/// Where it listens, on 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) redis: u16,
    pub(super) admin: u16,
}

impl Proxy {
    /// Writes the configuration, starts `sluice run` with it, and waits until every backend is
    /// ready.
    ///
    /// # Errors
    /// When it does not start, with the end of its log.
    pub(super) async fn start(folder: &Path, fleet: &Fleet) -> Result<Self, DemoError> {
        let program =
            std::env::current_exe().map_err(|error| DemoError::io("find this program", error))?;
        let configuration = folder.join("sluice.yaml");
        let log = folder.join(LOG);
        for _ in 0..ATTEMPTS {
            let ports = Ports { redis: free_from(REDIS_PORT)?, admin: free_from(ADMIN_PORT)? };
            fs::write(&configuration, yaml(ports, fleet)).map_err(|error| {
                DemoError::io(format!("write {}", configuration.display()), error)
            })?;
            let arguments = [Path::new("run"), Path::new("-c"), &configuration];
            let process = Process::start(&program, arguments, folder, LOG)?;
            let mut proxy =
                Self { process, ports, configuration: configuration.clone(), log: log.clone() };
            if proxy.wait_until_ready(fleet).await {
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

    /// Where it is and what to type; `victim` is the process of a replica.
    pub(super) fn greeting(&self, victim: u32) -> String {
        let Ports { redis, admin } = self.ports;
        let line = |what, port, wanted| {
            let taken =
                if port == wanted { String::new() } else { format!("   (port {wanted} is taken)") };
            format!("  {what:<14} 127.0.0.1:{port}{taken}\n")
        };
        format!(
            "\nSluice is in front of them:\n{}{}  configuration  {}\n  log            {}\n\
             \nIn another terminal:\n\
             \x20 redis-cli -p {redis} set greeting hello\n\
             \x20 redis-cli -p {redis} get greeting\n\
             \x20 curl http://127.0.0.1:{admin}/readyz\n\
             \x20 curl http://127.0.0.1:{admin}/metrics\n\
             \x20 curl http://127.0.0.1:{admin}/api/v1/status\n\
             \x20 kill -STOP {victim}    # a replica of s0 hangs; kill -CONT {victim} wakes it\n\
             \nCtrl-C ends the demo and removes everything.\n",
            line("Redis", redis, REDIS_PORT),
            line("admin", admin, ADMIN_PORT),
            self.configuration.display(),
            self.log.display(),
        )
    }

    /// False when it ended or its time is over. That it is our own process that answers is seen
    /// by its backends.
    async fn wait_until_ready(&mut self, fleet: &Fleet) -> bool {
        let ours: BTreeSet<String> = fleet.ports().flatten().map(address).collect();
        let deadline = Instant::now() + START_TIME;
        while Instant::now() < deadline && self.process.runs() {
            if let Ok(status) = Status::fetch(self.ports.admin).await
                && status.state == "ready"
                && status.backends().all(|backend| backend.state == "ready")
                && status.backends().map(|backend| backend.name.clone()).collect::<BTreeSet<_>>()
                    == ours
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

fn yaml(ports: Ports, fleet: &Fleet) -> String {
    let shard = |(number, ports): (usize, Vec<u16>)| {
        let mut addresses = ports.into_iter().map(address);
        let primary = addresses.next().unwrap_or_default();
        let replicas: Vec<String> = addresses.collect();
        let replicas = replicas.join(", ");
        format!("      - {{ name: s{number}, primary: {primary}, replicas: [{replicas}] }}\n")
    };
    let shards: String = fleet.ports().enumerate().map(shard).collect();
    format!(
        "# Written by `sluice demo`, which removes it at its end.\n\
         admin: {{ bind: {} }}\n\
         shutdown: {{ drain_timeout: {}s }}\n\
         listeners:\n\
         \x20 - {{ name: demo, bind: {}, protocol: redis, cluster: demo }}\n\
         clusters:\n\
         \x20 demo:\n\
         \x20   shards:\n\
         {shards}\
         \x20   reads: {{ from: prefer_replica, balance: round_robin }}\n\
         \x20   check: {{ interval: 500ms, fast_interval: 250ms, timeout: 500ms }}\n",
        address(ports.admin),
        DRAIN.as_secs(),
        address(ports.redis),
    )
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// The first port from `wanted` on that is free now.
fn free_from(wanted: u16) -> Result<u16, DemoError> {
    (wanted..wanted.saturating_add(SEARCHED))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| DemoError::told(format!("no free port from {wanted} on")))
}

const REDIS_PORT: u16 = 6380;
const ADMIN_PORT: u16 = 9900;
const SEARCHED: u16 = 100;
const LOG: &str = "sluice.log";
const ATTEMPTS: usize = 5;
const DRAIN: Duration = Duration::from_secs(1);
/// Two probes of each backend take half a second.
const START_TIME: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(50);
