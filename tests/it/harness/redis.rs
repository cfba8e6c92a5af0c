//! A real redis-server in a temporary folder on a free port, killed when dropped.

use super::{Conn, PATIENCE, eventually, port::Port, process::Process, resp::Value};
use rustix::process::Signal;
use std::{
    fs::{self, File},
    process::{Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

#[derive(Debug)]
pub(crate) struct Redis {
    process: Process,
    port: Port,
    arguments: Vec<String>,
    folder: TempDir,
}

impl Redis {
    pub(crate) fn start() -> Self {
        Self::with_args(&[])
    }

    /// With options beyond those every test server has.
    pub(crate) fn with_args(arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
        // Somebody may take the port, or the one 10,000 above that a cluster's bus needs.
        let mut tries = 0;
        loop {
            let (folder, port) = (TempDir::new().unwrap(), Port::free());
            match launch(&port, &folder, &arguments) {
                Ok(process) => return Self { process, port, arguments, folder },
                Err(said) if tries == 4 => panic!("redis-server does not start:\n{said}"),
                Err(_) => tries += 1,
            }
        }
    }

    /// A replica of `primary` from its start, also when it starts again.
    pub(crate) fn replica_of(primary: &Self, arguments: &[&str]) -> Self {
        let port = primary.port().to_string();
        Self::with_args(&[&["--replicaof", "127.0.0.1", &port], arguments].concat())
    }

    /// Makes it a replica of `primary`.
    pub(crate) fn follow(&self, primary: &Self) {
        let port = primary.port().to_string();
        assert_eq!(self.conn().cmd(&["REPLICAOF", "127.0.0.1", &port]), "OK");
    }

    /// `127.0.0.1:port`, which is also its name in Sluice's log and metrics.
    pub(crate) fn address(&self) -> String {
        self.port.address()
    }

    /// Its port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port.number
    }

    /// A connection, logged in when the server was given `--requirepass`.
    #[track_caller]
    pub(crate) fn conn(&self) -> Conn {
        let mut conn = Conn::open(&self.address());
        let mut words = self.arguments.iter();
        if words.any(|word| word == "--requirepass") {
            assert_eq!(conn.cmd(&["AUTH", words.next().unwrap().as_str()]), "OK");
        }
        conn
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub(crate) fn cmd<T: AsRef<[u8]>>(&self, words: &[T]) -> Value {
        self.conn().cmd(words)
    }

    /// One field of INFO.
    pub(crate) fn info(&self, field: &str) -> Option<String> {
        let text = self.cmd(&["INFO", "everything"]).text();
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.map(str::to_owned)
    }

    /// How often a command ran since the start, as the server counts.
    pub(crate) fn calls(&self, command: &str) -> u64 {
        let Some(stats) = self.info(&format!("cmdstat_{command}")) else { return 0 };
        let calls = stats.split(',').find_map(|field| field.strip_prefix("calls="));
        calls.unwrap().parse().unwrap()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Hangs it: SIGSTOP.
    pub(crate) fn stop(&self) {
        self.process.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub(crate) fn cont(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Starts it again on the same port, empty; one that was told to follow must be told again.
    pub(crate) fn restart(&mut self) {
        self.process.kill();
        // A connection of somebody's may have its port for a moment.
        self.process = eventually("redis-server starts again", PATIENCE, || {
            launch(&self.port, &self.folder, &self.arguments).ok()
        });
    }
}

/// A server that answers PING (-NOAUTH is an answer too), or what it said when it ended.
fn launch(port: &Port, folder: &TempDir, arguments: &[String]) -> Result<Process, String> {
    let log = folder.path().join("redis.log");
    let output = File::options().create(true).append(true).open(&log).unwrap();
    let mut child = Command::new("redis-server");
    child.args(["--port", &port.number.to_string(), "--bind", "127.0.0.1", "--save", ""]);
    child.args(["--appendonly", "no", "--repl-diskless-sync-delay", "0"]);
    child.args(["--enable-debug-command", "yes"]).args(arguments).current_dir(folder.path());
    child.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
    let mut process = match child.spawn() {
        Ok(child) => Process(child),
        Err(error) => panic!("redis-server: {error}; ./tests/run.sh installs it"),
    };
    eventually("redis-server answers or ends", PATIENCE, || {
        if process.ended().is_some() {
            return Some(Err(fs::read_to_string(&log).unwrap()));
        }
        let mut conn = Conn::try_open(&port.address()).ok()?;
        conn.patience(Duration::from_secs(2));
        conn.try_cmd(&["PING"]).ok().map(|_| Ok(()))
    })?;
    Ok(process)
}
