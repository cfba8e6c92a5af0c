//! The demo's Redis servers: two shards of one primary and two replicas each, on free ports. Not
//! Sluice, which stands in front of them.

use super::{
    DemoError,
    client::{Client, Reply},
    process::{Process, last_lines},
};
use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// All of them, primaries first within their shard.
#[derive(Debug)]
pub(super) struct Fleet {
    shards: Vec<Vec<Server>>,
}

#[derive(Debug)]
struct Server {
    process: Process,
    port: u16,
    /// The port of its primary, for a replica.
    primary: Option<u16>,
    folder: PathBuf,
}

impl Fleet {
    /// Starts them and waits until every replica is linked to its primary.
    ///
    /// # Errors
    /// When redis-server is missing or does not start.
    pub(super) async fn start(folder: &Path) -> Result<Self, DemoError> {
        let mut shards = Vec::new();
        for _ in 0..SHARDS {
            let primary = Server::start(folder, None).await?;
            let port = primary.port;
            let mut shard = vec![primary];
            for _ in 0..REPLICAS {
                shard.push(Server::start(folder, Some(port)).await?);
            }
            shards.push(shard);
        }
        for replica in shards.iter().flatten().filter(|server| server.primary.is_some()) {
            replica.wait_for("master_link_status:up").await?;
        }
        Ok(Self { shards })
    }

    /// The ports of each shard, its primary's first.
    pub(super) fn ports(&self) -> impl Iterator<Item = Vec<u16>> {
        self.shards.iter().map(|shard| shard.iter().map(|server| server.port).collect())
    }

    /// The process of the first shard's last replica, which is not the one that we kill.
    pub(super) fn victim(&self) -> Option<u32> {
        Some(self.shards.first()?.last()?.process.id())
    }

    /// SIGKILLs the first replica; its port.
    pub(super) fn kill_replica(&mut self) -> Option<u16> {
        let replica = self.first_replica()?;
        replica.process.kill();
        Some(replica.port)
    }

    /// Starts the first replica again, on the port that it had.
    ///
    /// # Errors
    /// When redis-server cannot be started.
    pub(super) fn restart_replica(&mut self) -> Result<Option<u16>, DemoError> {
        let Some(replica) = self.first_replica() else { return Ok(None) };
        replica.process = spawn(&replica.folder, replica.port, replica.primary)?;
        Ok(Some(replica.port))
    }

    fn first_replica(&mut self) -> Option<&mut Server> {
        self.shards.iter_mut().flatten().find(|server| server.primary.is_some())
    }
}

impl Server {
    /// Starts one. Between finding a free port and using it somebody else may take it; then
    /// another one is tried.
    async fn start(folder: &Path, primary: Option<u16>) -> Result<Self, DemoError> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let port = free_port()?;
            let process = spawn(folder, port, primary)?;
            let mut server = Self { process, port, primary, folder: folder.to_owned() };
            // Its own process id: a stranger's Redis on this port would have another one.
            let id = format!("process_id:{}\r", server.process.id());
            match server.wait_for(&id).await {
                Ok(()) => return Ok(server),
                Err(error) if server.process.runs() => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| DemoError::told("no free port")))
    }

    /// Polls INFO until `text` is in it.
    async fn wait_for(&self, text: &str) -> Result<(), DemoError> {
        let deadline = Instant::now() + START_TIME;
        while Instant::now() < deadline {
            if let Ok(mut client) = Client::connect(self.port).await
                && let Ok(Reply::Text(info)) = client.request(&["INFO"]).await
                && info.contains(text)
            {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        let log = last_lines(&self.folder.join(log_name(self.port))).unwrap_or_default();
        Err(DemoError::told(format!("redis-server on port {} does not start{log}", self.port)))
    }
}

fn spawn(folder: &Path, port: u16, primary: Option<u16>) -> Result<Process, DemoError> {
    let text = port.to_string();
    let mut arguments = vec!["--port", &text, "--bind", "127.0.0.1"];
    arguments.extend(["--save", "", "--appendonly", "no"]);
    // A primary would wait five seconds for more replicas before it sends its data.
    arguments.extend(["--repl-diskless-sync-delay", "0"]);
    let primary = primary.map(|port| port.to_string());
    if let Some(port) = &primary {
        arguments.extend(["--replicaof", "127.0.0.1", port]);
    }
    Process::start(Path::new("redis-server"), arguments, folder, &log_name(port))
}

fn log_name(port: u16) -> String {
    format!("redis-{port}.log")
}

fn free_port() -> Result<u16, DemoError> {
    let bound = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    Ok(bound.map_err(|error| DemoError::io("find a free port", error))?.port())
}

const SHARDS: usize = 2;
const REPLICAS: usize = 2;
const ATTEMPTS: usize = 5;
/// Starting takes some 20 ms; a first synchronisation up to a second.
const START_TIME: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);
