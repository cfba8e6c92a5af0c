//! Real redis-servers and a fake one on free ports of 127.0.0.1, each ended when it is dropped.

use sluice::net::addr::Address;
use std::{
    io::Write,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A redis-server of our own.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    folder: tempfile::TempDir,
    arguments: Vec<String>,
}

impl Server {
    /// Starts one with extra arguments and waits until it accepts connections.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let arguments: Vec<_> = arguments.iter().map(|text| (*text).to_owned()).collect();
        for _ in 0..5 {
            let port = free_port();
            let mut child = spawn(port, &folder, &arguments);
            if accepts(port, &mut child) {
                return Self { child, port, folder, arguments };
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("redis-server does not start");
    }

    /// Starts a replica of `primary`.
    pub(crate) fn replica_of(primary: &Self, arguments: &[&str]) -> Self {
        let port = primary.port.to_string();
        let mut all = vec!["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"];
        all.extend_from_slice(arguments);
        Self::start(&all)
    }

    pub(crate) fn address(&self) -> Address {
        address(self.port)
    }

    /// SIGKILL, SIGSTOP, SIGCONT.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Starts it again at the same port after it was killed.
    pub(crate) fn restart(&mut self) {
        self.child.wait().unwrap();
        self.child = spawn(self.port, &self.folder, &self.arguments);
        assert!(accepts(self.port, &mut self.child), "redis-server does not come back");
    }

    /// Runs one command through redis-cli.
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let port = self.port.to_string();
        let out = Command::new("redis-cli").args(["-p", &port]).args(arguments).output().unwrap();
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn address(port: u16) -> Address {
    format!("127.0.0.1:{port}").parse().unwrap()
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Polls `condition` until it holds; fails the test when it does not within `limit`.
pub(crate) fn eventually(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> bool,
) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

fn spawn(port: u16, folder: &tempfile::TempDir, arguments: &[String]) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--appendonly", "no", "--dir"])
        .arg(folder.path())
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed")
}

/// Whether the server answers a line of ours; false when it ended.
fn accepts(port: u16, child: &mut Child) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end && child.try_wait().unwrap().is_none() {
        if let Ok(mut socket) = TcpStream::connect(("127.0.0.1", port)) {
            return socket.write_all(b"PING\r\n").is_ok();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}
