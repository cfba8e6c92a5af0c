//! A real PostgreSQL server in a temporary folder on a free port, and psql in front of it.
//! It will not run as root: then it runs as nobody.

use super::{PATIENCE, eventually, port::Port, process::Process};
use rustix::process::{Signal, getuid};
use std::{
    fs::{self, File},
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

#[derive(Debug)]
pub(crate) struct Postgres {
    process: Process,
    port: Port,
    _folder: TempDir,
}

impl Postgres {
    pub(crate) fn start() -> Self {
        let (folder, port) = (TempDir::new().unwrap(), Port::free());
        if getuid().is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let data = folder.path().join("data");
        let mut initdb = unprivileged("initdb", folder.path());
        initdb.args(["-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"]);
        let made = initdb.args(["--locale=C", "-D"]).arg(&data).output().unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let log = folder.path().join("postgres.log");
        let output = File::create(&log).unwrap();
        let mut server = unprivileged("postgres", folder.path());
        server.arg("-D").arg(&data).args(["-p", &port.number.to_string()]);
        server.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
        server.args(["-c", "fsync=off"]).stdin(Stdio::null());
        server.stdout(output.try_clone().unwrap()).stderr(output);
        let mut process = Process(server.spawn().unwrap());
        eventually("postgres answers", 2 * PATIENCE, || {
            let text = || fs::read_to_string(&log).unwrap();
            assert!(process.ended().is_none(), "postgres ended:\n{}", text());
            psql(port.number, "SELECT 1").is_ok().then_some(())
        });
        Self { process, port, _folder: folder }
    }

    pub(crate) fn address(&self) -> String {
        self.port.address()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // It ends its own processes; killed, it would leave them for a while.
        self.process.signal(Signal::QUIT);
        self.process.wait(Duration::from_secs(10));
    }
}

/// What psql says to some SQL at 127.0.0.1:`port`, without heads and frames, or how it failed.
pub(crate) fn psql(port: u16, sql: &str) -> Result<String, String> {
    let mut psql = Command::new("psql");
    psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1"]);
    psql.args(["-p", &port.to_string(), "-U", "postgres", "-d", "postgres", "-c", sql]);
    super::said(psql.env("PGCONNECT_TIMEOUT", "10"))
}

/// A program of PostgreSQL's as somebody who is not root.
fn unprivileged(program: &str, folder: &Path) -> Command {
    let program = find(program);
    let mut command = Command::new("setpriv");
    if getuid().is_root() {
        let id = NOBODY.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(program);
    } else {
        command = Command::new(program);
    }
    command.current_dir(folder);
    command
}

/// Debian keeps them beside each other by version, out of the path.
fn find(program: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|version| version.path().join("bin").join(program));
    let found = found.filter(|path| path.exists()).max();
    found.unwrap_or_else(|| panic!("{program} is missing; ./tests/run.sh installs postgresql"))
}

/// Debian's nobody and nogroup.
const NOBODY: u32 = 65_534;
