//! The built proxy, run with a configuration of the test's, watched through its admin address and
//! its log. When it is dropped it must drain and exit 0 with no warning that the test did not
//! announce.

use super::{Cgroup, Conn, PATIENCE, cgroup, eventually, http, port::Port, process::Process};
use rustix::process::Signal;
use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Write as _},
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    sync::Mutex,
    thread,
    time::Duration,
};
use tempfile::TempDir;

/// Longer than the longest drain a test leaves behind.
const EXIT_DEADLINE: Duration = Duration::from_secs(10);

/// What Sluice is to be started with.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    protocol: &'static str,
    /// The members, as `shards:` or `backends:`.
    shards: String,
    backends: usize,
    cluster: String,
    check: String,
    listener: String,
    /// The listener's cluster, or its routes.
    goes_to: String,
    /// After the first one.
    clusters: String,
    top: String,
    admin: String,
    workers: usize,
    unix: bool,
    environment: Vec<(String, String)>,
    descriptors: Option<usize>,
    members: Option<PathBuf>,
    wait: bool,
}

#[derive(Debug)]
pub(crate) struct Sluice {
    process: Process,
    port: Port,
    admin: Port,
    folder: TempDir,
    expected: Mutex<Vec<String>>,
}

/// The samples of one scrape of `/metrics`.
#[derive(Debug)]
pub(crate) struct Metrics(String);

impl Setup {
    /// In front of shards, each a primary and replicas by address.
    pub(crate) fn shards(shards: impl IntoIterator<Item = (String, Vec<String>)>) -> Self {
        let mut yaml = "    shards:\n".to_owned();
        let mut backends = 0;
        for (primary, replicas) in shards {
            backends += 1 + replicas.len();
            let replicas = replicas.join(", ");
            writeln!(yaml, "      - {{ primary: {primary}, replicas: [{replicas}] }}").unwrap();
        }
        Self::of("redis", yaml, backends)
    }

    /// In front of a Redis Cluster of so many nodes, asked by these of them.
    pub(crate) fn redis_cluster(seeds: &[String], nodes: usize) -> Self {
        let yaml = format!("    redis_cluster: {{ seeds: [{}] }}\n", seeds.join(", "));
        Self::of("redis", yaml, nodes)
    }

    /// In front of what Sentinels say, who are asked as this YAML map says.
    pub(crate) fn sentinel(map: &str, backends: usize) -> Self {
        Self::of("redis", format!("    sentinel: {map}\n"), backends)
    }

    /// In front of backends without roles, each an address or a map with one.
    pub(crate) fn tcp(members: impl IntoIterator<Item = String>) -> Self {
        Self::without_roles("tcp", members)
    }

    /// As [`Self::tcp`], for http.
    pub(crate) fn http(members: impl IntoIterator<Item = String>) -> Self {
        Self::without_roles("http", members)
    }

    /// As [`Self::shards`], for http.
    pub(crate) fn http_shards(shards: impl IntoIterator<Item = (String, Vec<String>)>) -> Self {
        Self { protocol: "http", ..Self::shards(shards) }
    }

    fn without_roles(protocol: &'static str, members: impl IntoIterator<Item = String>) -> Self {
        let mut yaml = "    backends:\n".to_owned();
        let mut backends = 0;
        for member in members {
            backends += 1;
            writeln!(yaml, "      - {member}").unwrap();
        }
        Self::of(protocol, yaml, backends)
    }

    fn of(protocol: &'static str, shards: String, backends: usize) -> Self {
        Self {
            protocol,
            shards,
            backends,
            cluster: String::new(),
            check: "{ interval: 200ms, fast_interval: 100ms, down_interval: 100ms }".to_owned(),
            listener: String::new(),
            goes_to: "cluster: cache\n".to_owned(),
            clusters: String::new(),
            top: String::new(),
            admin: String::new(),
            workers: 1,
            unix: false,
            environment: Vec::new(),
            descriptors: None,
            members: None,
            wait: true,
        }
    }

    /// One line of the cluster: `reads: { from: any }`.
    pub(crate) fn cluster(mut self, line: &str) -> Self {
        writeln!(self.cluster, "    {line}").unwrap();
        self
    }

    /// Routes instead of the one cluster, a line each, and further clusters, as YAML, with so many
    /// backends.
    pub(crate) fn routes(mut self, routes: &[&str], clusters: &str, backends: usize) -> Self {
        self.backends += backends;
        let lines: String = routes.iter().map(|route| format!("      - {route}\n")).collect();
        self.goes_to = format!("routes:\n{lines}");
        clusters.clone_into(&mut self.clusters);
        self
    }

    /// Replaces the shards' YAML text: for weights and the like.
    pub(crate) fn rewrite(mut self, from: &str, to: &str) -> Self {
        assert!(self.shards.contains(from), "{from} is not in {}", self.shards);
        self.shards = self.shards.replace(from, to);
        self
    }

    /// The probes' schedule, instead of the harness's fast one.
    pub(crate) fn check(mut self, check: &str) -> Self {
        check.clone_into(&mut self.check);
        self
    }

    /// One line of the listener: `redis: { password: x }`.
    pub(crate) fn listener(mut self, line: &str) -> Self {
        writeln!(self.listener, "    {line}").unwrap();
        self
    }

    /// One line at the top: `limits: { max_connections: 4 }`.
    pub(crate) fn top(mut self, line: &str) -> Self {
        writeln!(self.top, "{line}").unwrap();
        self
    }

    /// More keys of `admin:`; FOLDER is its temporary folder.
    pub(crate) fn admin(mut self, keys: &str) -> Self {
        self.admin = format!(", {keys}");
        self
    }

    pub(crate) fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Listens on `sluice.sock` in its folder instead of on a port.
    pub(crate) fn unix(mut self) -> Self {
        self.unix = true;
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The hard limit of open descriptors.
    pub(crate) fn descriptors(mut self, limit: usize) -> Self {
        self.descriptors = Some(limit);
        self
    }

    /// Runs in this control group.
    pub(crate) fn inside(mut self, group: &Cgroup) -> Self {
        self.members = Some(group.members());
        self
    }

    /// Does not wait until every backend is up: some never will be.
    pub(crate) fn without_waiting(mut self) -> Self {
        self.wait = false;
        self
    }

    #[track_caller]
    pub(crate) fn start(self) -> Sluice {
        let folder = TempDir::new().unwrap();
        let (port, admin) = (Port::free(), Port::free());
        let file = folder.path().join("sluice.yaml");
        let bind = match self.unix {
            true => format!("unix:{}/sluice.sock", folder.path().display()),
            false => port.address(),
        };
        let yaml = self.yaml(&bind, &admin.address());
        fs::write(&file, yaml.replace("FOLDER", &folder.path().display().to_string())).unwrap();
        let log = File::create(folder.path().join("sluice.log")).unwrap();
        let mut command = self.program();
        command.args(["run", "-c"]).arg(&file).env_remove("SLUICE_LOG");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let process = Process(command.spawn().unwrap());
        let mut sluice = Sluice { process, port, admin, folder, expected: Mutex::default() };
        sluice.wait_until_ready();
        if self.wait {
            sluice.wait_for_up(self.backends);
        }
        sluice
    }

    fn program(&self) -> Command {
        let binary = env!("CARGO_BIN_EXE_sluice");
        let mut command = Command::new(binary);
        if let Some(members) = &self.members {
            command = cgroup::enter(members);
            command.arg(binary);
        }
        if let Some(limit) = self.descriptors {
            command = Command::new("prlimit");
            command.arg(format!("--nofile={limit}:{limit}")).arg(binary);
        }
        command
    }

    fn yaml(&self, bind: &str, admin: &str) -> String {
        let Self { protocol, shards, cluster, check, listener, top, admin: keys, workers, .. } =
            self;
        let Self { goes_to, clusters, .. } = self;
        format!(
            "workers: {workers}\nadmin: {{ bind: {admin}{keys} }}\n{top}listeners:\n  - name: cache\n    \
             bind: {bind}\n    protocol: {protocol}\n    {goes_to}{listener}clusters:\n  cache:\n\
             {shards}{cluster}    check: {check}\n{clusters}"
        )
    }
}

impl Sluice {
    #[track_caller]
    pub(crate) fn conn(&self) -> Conn {
        Conn::open(&self.address())
    }

    pub(crate) fn address(&self) -> String {
        self.port.address()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number
    }

    /// A file or socket path in its temporary folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// The admin address, `127.0.0.1:port`.
    pub(crate) fn admin_address(&self) -> String {
        self.admin.address()
    }

    /// Runs the program with its configuration: exit code, stdout, stderr.
    #[track_caller]
    pub(crate) fn cli(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command.args(arguments).env("SLUICE_CONFIG", self.path("sluice.yaml"));
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// Status code and body of a path of the admin address.
    #[track_caller]
    pub(crate) fn admin(&self, path: &str) -> (u16, String) {
        http::get(&self.admin.address(), path).unwrap()
    }

    #[track_caller]
    pub(crate) fn metrics(&self) -> Metrics {
        let (code, text) = self.admin("/metrics");
        assert_eq!(code, 200, "{text}");
        Metrics(text)
    }

    #[track_caller]
    pub(crate) fn status(&self) -> serde_json::Value {
        let (code, text) = self.admin("/api/v1/status");
        assert_eq!(code, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// What it logged so far, without colours.
    pub(crate) fn log(&self) -> String {
        let text = fs::read(self.path("sluice.log")).unwrap();
        let text = String::from_utf8_lossy(&text);
        let mut pieces = text.split("\u{1b}[");
        let first = pieces.next().unwrap_or_default().to_owned();
        pieces.fold(first, |log, piece| log + piece.split_once('m').map_or(piece, |(_, rest)| rest))
    }

    /// Announces that warnings and errors with this text may appear in the log.
    pub(crate) fn expect_log(&self, text: impl Into<String>) {
        self.expected.lock().unwrap().push(text.into());
    }

    /// Whether `backend` (`host:port`) is up by its metric.
    pub(crate) fn is_up(&self, backend: &str) -> bool {
        self.metrics().sum("sluice_backend_up", &[("backend", backend)]) == 1.0
    }

    /// Waits until `backend` (`host:port`) is up, or down.
    #[track_caller]
    pub(crate) fn wait_for(&self, backend: &str, up: bool) {
        let what = format!("{backend} {}", if up { "up" } else { "down" });
        eventually(&what, PATIENCE, || (self.is_up(backend) == up).then_some(()));
    }

    #[track_caller]
    fn wait_for_up(&self, backends: usize) {
        let wanted = u32::try_from(backends).unwrap();
        eventually(&format!("{backends} backends up\n{}", self.log()), PATIENCE, || {
            let up = self.metrics().sum("sluice_backend_up", &[]);
            (up == f64::from(wanted)).then_some(())
        });
    }

    #[track_caller]
    fn wait_until_ready(&mut self) {
        eventually("/readyz answers 200", PATIENCE, || {
            if let Some(status) = self.process.ended() {
                panic!("sluice ended with {status}:\n{}", self.log());
            }
            let (code, _) = http::get(&self.admin.address(), "/readyz").ok()?;
            (code == 200).then_some(())
        });
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Its exit status, waiting up to `deadline`.
    #[track_caller]
    pub(crate) fn exit(&mut self, deadline: Duration) -> ExitStatus {
        let status = self.process.wait(deadline);
        status.unwrap_or_else(|| panic!("still running after {deadline:?}:\n{}", self.log()))
    }

    fn unexpected(&self) -> Vec<String> {
        let expected = self.expected.lock().unwrap();
        let log = self.log();
        let bad = log.lines().filter(|line| {
            let level = line.split_whitespace().take(3).any(|w| w == "WARN" || w == "ERROR");
            (level || line.contains("panicked at"))
                && !expected.iter().any(|text| line.contains(text.as_str()))
        });
        bad.map(str::to_owned).collect()
    }
}

impl Drop for Sluice {
    fn drop(&mut self) {
        self.terminate();
        let status = self.process.wait(EXIT_DEADLINE);
        if thread::panicking() {
            let _ = writeln!(io::stderr(), "sluice's log:\n{}", self.log());
            return;
        }
        let unexpected = self.unexpected();
        assert!(unexpected.is_empty(), "unexpected in the log:\n{}", unexpected.join("\n"));
        let Some(status) = status else {
            panic!("sluice did not exit within {EXIT_DEADLINE:?} of SIGTERM:\n{}", self.log());
        };
        assert!(status.success(), "sluice exited with {status}:\n{}", self.log());
    }
}

impl Metrics {
    /// The sum of the samples called `name` that carry all of `labels`; 0 when there is none.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: Vec<_> =
            labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let samples = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (carried, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.rsplit_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            let all = labels.iter().all(|label| carried.contains(label.as_str()));
            all.then(|| value.parse::<f64>().unwrap())
        });
        samples.sum()
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}
