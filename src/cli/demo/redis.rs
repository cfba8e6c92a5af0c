//! Redis on the stage: what Sluice is told of the servers, what its user may type, and the death of a
//! replica. Not the servers themselves.

use super::{
    DemoError,
    proxy::{DRAIN, Ports, Proxy, address},
    servers::Fleet,
    show::Stage,
    status::Status,
    table::{self, Totals},
};
use std::path::Path;

/// The servers, and what becomes of one.
#[derive(Debug)]
pub(super) struct RedisStage {
    fleet: Fleet,
    kill_replica: bool,
}

impl RedisStage {
    pub(super) fn new(fleet: Fleet, kill_replica: bool) -> Self {
        Self { fleet, kill_replica }
    }

    /// Sluice in front of the servers.
    ///
    /// # Errors
    /// As [`Proxy::start`].
    pub(super) async fn front(&self, folder: &Path) -> Result<Proxy, DemoError> {
        let backends = self.fleet.ports().flatten().map(address).collect();
        Proxy::start(folder, ("Redis", REDIS_PORT), &backends, |ports| yaml(ports, &self.fleet))
            .await
    }

    /// Where Sluice is and what to type.
    pub(super) fn greeting(&self, proxy: &Proxy) -> String {
        let Ports { front, admin } = proxy.ports();
        let victim = self.fleet.victim().unwrap_or_default();
        format!(
            "{}\nIn another terminal:\n\
             \x20 redis-cli -p {front} set greeting hello\n\
             \x20 redis-cli -p {front} get greeting\n\
             \x20 curl http://127.0.0.1:{admin}/readyz\n\
             \x20 curl http://127.0.0.1:{admin}/metrics\n\
             \x20 curl http://127.0.0.1:{admin}/api/v1/status\n\
             \x20 kill -STOP {victim}    # a replica of s0 hangs; kill -CONT {victim} wakes it\n\
             \nCtrl-C ends the demo and removes everything.\n",
            proxy.places(),
        )
    }
}

impl Stage for RedisStage {
    fn kill(&mut self) -> Option<String> {
        let port = if self.kill_replica { self.fleet.kill_replica()? } else { return None };
        Some(format!("SIGKILL to the replica 127.0.0.1:{port}"))
    }

    fn restart(&mut self) -> Result<Option<String>, DemoError> {
        if !self.kill_replica {
            return Ok(None);
        }
        let port = self.fleet.restart_replica()?;
        Ok(port.map(|port| format!("started the replica 127.0.0.1:{port} again")))
    }

    fn clients(&self) -> usize {
        super::load::CLIENTS
    }

    fn table(&self, status: &Status, before: Option<(&Totals, f64)>, color: bool) -> String {
        table::text(status, before, color)
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
        address(ports.front),
    )
}

const REDIS_PORT: u16 = 6380;
