//! A real MariaDB server in a temporary folder on a free port, and the mysql client in front of it.

use super::{PATIENCE, eventually, port::Port, process::Process};
use rustix::process::{Signal, getuid};
use std::{
    fs::{self, File},
    process::{Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

#[derive(Debug)]
pub(crate) struct MariaDb {
    process: Process,
    port: Port,
    _folder: TempDir,
}

impl MariaDb {
    pub(crate) fn start() -> Self {
        let (folder, port) = (TempDir::new().unwrap(), Port::free());
        let data = format!("--datadir={}/data", folder.path().display());
        // It takes its name for leave to run as root.
        let user = if getuid().is_root() { &["--user=root"][..] } else { &[] };
        let mut install = Command::new("mariadb-install-db");
        install.args(["--no-defaults", &data, "--auth-root-authentication-method=normal"]);
        install.args(["--skip-test-db", "--skip-log-bin"]).args(user);
        super::said(&mut install).unwrap();
        let log = folder.path().join("mariadb.log");
        let output = File::create(&log).unwrap();
        let mut server = Command::new("/usr/sbin/mariadbd");
        server.args(["--no-defaults", &data, "--bind-address=127.0.0.1", "--skip-log-bin"]);
        server.arg(format!("--port={}", port.number)).args(user);
        server.arg(format!("--socket={}/socket", folder.path().display()));
        server.arg(format!("--pid-file={}/pid", folder.path().display()));
        server.args(["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M"]);
        server.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let mut process = Process(server.spawn().unwrap());
        eventually("mariadbd answers", 2 * PATIENCE, || {
            let text = || fs::read_to_string(&log).unwrap();
            assert!(process.ended().is_none(), "mariadbd ended:\n{}", text());
            mysql(port.number, "SELECT 1").is_ok().then_some(())
        });
        Self { process, port, _folder: folder }
    }

    pub(crate) fn address(&self) -> String {
        self.port.address()
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.process.signal(Signal::TERM);
        self.process.wait(Duration::from_secs(10));
    }
}

/// What the mysql client says to some SQL at 127.0.0.1:`port`, without heads and frames, or how it
/// failed.
pub(crate) fn mysql(port: u16, sql: &str) -> Result<String, String> {
    let mut mysql = Command::new("mysql");
    mysql.args(["--no-defaults", "-h", "127.0.0.1", "-P", &port.to_string(), "-u", "root"]);
    super::said(mysql.args(["--connect-timeout=10", "-N", "-B", "-e", sql]))
}
