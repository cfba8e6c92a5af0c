//! Three real redis-sentinels over real servers, on free ports, killed when dropped.

use super::{Conn, PATIENCE, Redis, Setup, eventually, port::Port, process::Process};
use std::{
    fs::{self, File},
    process::{Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

#[derive(Debug)]
pub(crate) struct Sentinel {
    process: Process,
    port: Port,
    password: Option<String>,
    _folder: TempDir,
}

/// What three Sentinels watch.
#[derive(Debug)]
pub(crate) struct Trio {
    pub(crate) sentinels: Vec<Sentinel>,
    masters: Vec<String>,
}

/// How long a server is silent before a Sentinel takes it for down.
pub(crate) const DOWN_AFTER: Duration = Duration::from_millis(700);

impl Trio {
    /// Watches these masters, each with so many replicas, until all know of all.
    pub(crate) fn start(masters: &[(&str, &Redis, usize)]) -> Self {
        Self::with_passwords(masters, None)
    }

    /// As [`Self::start`], where the Sentinels ask for the first password and the servers for the
    /// second.
    pub(crate) fn with_passwords(
        masters: &[(&str, &Redis, usize)],
        passwords: Option<(&str, &str)>,
    ) -> Self {
        let sentinels = (0..3).map(|_| Sentinel::start(masters, passwords)).collect();
        let trio =
            Self { sentinels, masters: masters.iter().map(|one| one.0.to_owned()).collect() };
        for (name, _, replicas) in masters {
            trio.wait_for(name, "num-slaves", &replicas.to_string());
            trio.wait_for(name, "num-other-sentinels", "2");
        }
        trio
    }

    /// Waits until every Sentinel says this of a master.
    #[track_caller]
    pub(crate) fn wait_for(&self, master: &str, field: &str, value: &str) {
        for sentinel in &self.sentinels {
            eventually(&format!("{field} of {master} is {value}"), PATIENCE, || {
                (sentinel.state(master, field)? == value).then_some(())
            });
        }
    }

    /// Sluice behind them, which is to find so many backends.
    pub(crate) fn sluice(&self, backends: usize) -> Setup {
        let addresses: Vec<String> = self.sentinels.iter().map(Sentinel::address).collect();
        let password = self.sentinels.iter().find_map(|sentinel| sentinel.password.as_deref());
        let more = password.map(|word| format!(", password: {word}")).unwrap_or_default();
        let masters = self.masters.join(", ");
        let addresses = addresses.join(", ");
        let yaml = format!("{{ addresses: [{addresses}], masters: [{masters}]{more} }}");
        Setup::sentinel(&yaml, backends)
    }
}

impl Sentinel {
    fn start(masters: &[(&str, &Redis, usize)], passwords: Option<(&str, &str)>) -> Self {
        let (folder, port) = (TempDir::new().unwrap(), Port::free());
        let mut text = format!("port {}\nbind 127.0.0.1\n", port.number);
        for (name, primary, _) in masters {
            let down_after = DOWN_AFTER.as_millis();
            text += &format!(
                "sentinel monitor {name} 127.0.0.1 {} 2\n\
                 sentinel down-after-milliseconds {name} {down_after}\n\
                 sentinel failover-timeout {name} 4000\nsentinel parallel-syncs {name} 2\n",
                primary.port()
            );
        }
        if let Some((password, data)) = passwords {
            for (name, ..) in masters {
                text += &format!("sentinel auth-pass {name} {data}\n");
            }
            text += &format!("requirepass {password}\nsentinel sentinel-pass {password}\n");
        }
        let file = folder.path().join("sentinel.conf");
        fs::write(&file, text).unwrap();
        let log = File::create(folder.path().join("sentinel.log")).unwrap();
        let mut command = Command::new("redis-sentinel");
        command.arg(&file).current_dir(folder.path()).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let process = command.spawn().unwrap_or_else(|error| {
            panic!("redis-sentinel: {error}; ./tests/run.sh installs it");
        });
        let password = passwords.map(|(password, _)| password.to_owned());
        let sentinel = Self { process: Process(process), port, password, _folder: folder };
        eventually("redis-sentinel answers", PATIENCE, || {
            let mut conn = sentinel.try_conn()?;
            // It looks around every ten seconds otherwise, and tells the others every two.
            let faster = ["info-period", "300", "publish-period", "200", "ask-period", "200"];
            let words: Vec<&str> = ["SENTINEL", "DEBUG"].into_iter().chain(faster).collect();
            (conn.try_cmd(&words).ok()? == "OK").then_some(())
        });
        sentinel
    }

    /// `127.0.0.1:port`.
    pub(crate) fn address(&self) -> String {
        self.port.address()
    }

    fn try_conn(&self) -> Option<Conn> {
        let mut conn = Conn::try_open(&self.address()).ok()?;
        conn.patience(Duration::from_secs(2));
        match &self.password {
            Some(password) => (conn.try_cmd(&["AUTH", password]).ok()? == "OK").then_some(conn),
            None => Some(conn),
        }
    }

    /// A connection, logged in.
    #[track_caller]
    pub(crate) fn conn(&self) -> Conn {
        self.try_conn().expect("the Sentinel lets us in")
    }

    /// One field of SENTINEL MASTER.
    pub(crate) fn state(&self, master: &str, field: &str) -> Option<String> {
        let reply = self.try_conn()?.try_cmd(&["SENTINEL", "MASTER", master]).ok()?;
        let words: Vec<String> = reply.items().iter().map(|item| item.text()).collect();
        words.chunks(2).find(|pair| pair[0] == field).map(|pair| pair[1].clone())
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }
}
