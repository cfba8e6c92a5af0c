//! What the operator's one YAML file means, as checked values: every address parses, every name
//! resolves, every number is in range. Not the text itself, and not the running state.

mod check;
mod env;
mod file;
mod finding;
pub mod import;
mod insight;
mod keys;
mod nearest;
mod print;
mod reads;
mod schema;
mod section;
mod seeds;
mod sentinel;
mod sharding;
mod units;
mod values;
mod words;

pub use env::Env;
pub(crate) use nearest::nearest;

pub use finding::{Finding, Findings, Level, Position};
pub use insight::RedisCluster;
pub use reads::Reads;
pub use schema::schema;
pub use seeds::Seeds;
pub use sentinel::Sentinel;
pub use sharding::{Sharding, ShardingBy};
pub use units::{Period, Size, UnitError};

use crate::{
    net::{
        addr::{Address, Bind},
        prefix::Prefix,
        proxy_protocol::Version,
        tls::{ClientFiles, ServerFiles},
    },
    policy::{
        access::Access,
        balance::{Failback, Strategy},
        gate,
        health::worst_case,
        sticky::{Attributes, Mode},
    },
    telemetry::access_log,
    topology::{
        Credentials, Dedicated, FailOpen, HttpCheck, Outage, Timeouts, admission::BackendLimits,
        door::DoorLimits,
    },
};
use ipnet::IpNet;
use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

/// A whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Worker threads; `None` is `auto`, one per core.
    pub workers: Option<NonZeroUsize>,
    pub admin: Admin,
    pub log: Log,
    /// `None`: requests are not logged.
    pub access_log: Option<AccessLog>,
    pub limits: Limits,
    pub shutdown: Shutdown,
    pub listeners: Vec<Listener>,
    pub clusters: Vec<Cluster>,
}

/// Where status and metrics are served, and who may change something.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    pub bind: Bind,
    /// False for the default: then a port in use is a warning, not an error.
    pub explicit: bool,
    /// The unix socket; `None`: one in a folder for such things, where there is one.
    pub socket: Option<PathBuf>,
    /// What lets somebody change something over TCP; `None`: nobody.
    pub token: Option<Secret>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    pub format: LogFormat,
    /// A tracing filter: `info`, `debug`, `sluice=debug`. `SLUICE_LOG` wins over it.
    pub level: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// One line for each request of the HTTP listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    pub place: access_log::Place,
    /// Whether paths are logged with their query; default true.
    pub query: bool,
}

/// Process-wide bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Clients at once; `None`: from the descriptor limit.
    pub max_connections: Option<usize>,
    /// Buffered bytes; `None`: from the cgroup when it has a limit, else none.
    pub memory: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Shutdown {
    /// How long to go on accepting after SIGTERM; default 0.
    pub pre_stop_delay: Duration,
    /// When draining clients are closed by force; default 25s.
    pub drain_timeout: Duration,
}

/// An address we accept on.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    pub name: String,
    pub bind: Bind,
    pub protocol: Protocol,
    /// Index into [`Config::clusters`]; with `routes` that of the first.
    pub cluster: usize,
    /// Of the protocol redis alone.
    pub redis: RedisListener,
    /// Of the protocol tcp alone: whose connections begin with a PROXY protocol header.
    pub proxy_protocol: Vec<IpNet>,
    /// `None`: in clear.
    pub tls: Option<ServerFiles>,
    pub limits: DoorLimits,
    /// Of the protocol http alone: the first that matches; one for every request when the listener
    /// names its cluster.
    pub routes: Vec<Route>,
    /// Of the protocol http alone.
    pub http: HttpListener,
}

/// What the clients of a listener speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Redis,
    /// Anything: bytes are passed on as they are.
    Tcp,
    /// HTTP/1.1 and HTTP/2.
    Http,
}

/// Which requests a cluster answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Route {
    /// In small letters: `example.com`, or `*.example.com` for every name below it.
    pub host: Option<String>,
    /// Whole parts of the path.
    pub path_prefix: Option<String>,
    /// Any of them; empty: any method.
    pub methods: Vec<http::Method>,
    /// All of them; `None` is any value.
    pub headers: Vec<(http::HeaderName, Option<http::HeaderValue>)>,
    /// Of redis: how the key begins, and whether the backends get it without that.
    pub key_prefix: Option<String>,
    pub strip: bool,
    /// Index into [`Config::clusters`].
    pub cluster: usize,
}

/// What an HTTP listener takes from its clients and does for them.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpListener {
    /// Whose word is taken for who the client is.
    pub trusted: Vec<IpNet>,
    /// Bytes of a head; default 64 KiB.
    pub header_bytes: u64,
    /// Fields of a head; default 128.
    pub headers: usize,
    /// Bytes of path and query; default 16 KiB.
    pub uri_bytes: u64,
    /// Default 10s.
    pub header_timeout: Duration,
    /// Default 30s, zero: none.
    pub body_idle: Duration,
    /// Default 75s, zero: none.
    pub keep_alive: Duration,
    /// Default 128.
    pub streams: u32,
    /// Default false.
    pub via: bool,
    pub request_id: RequestId,
    /// Whether its requests are in the access log, when there is one; default true.
    pub access_log: bool,
}

impl Default for HttpListener {
    fn default() -> Self {
        Self {
            trusted: Vec::new(),
            header_bytes: 64 * 1024,
            headers: 128,
            uri_bytes: 16 * 1024,
            header_timeout: Duration::from_secs(10),
            body_idle: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
            streams: 128,
            via: false,
            request_id: RequestId::Pass,
            access_log: true,
        }
    }
}

/// What becomes of `X-Request-Id`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestId {
    #[default]
    Pass,
    /// A request without one gets one.
    Make,
}

/// What a cluster says of HTTP requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpCluster {
    pub shard_key: Option<ShardKey>,
    /// Default false.
    pub idempotent_writes: bool,
    /// Default false.
    pub http2: bool,
    /// How long an idle connection is kept; default 4s.
    pub idle: Duration,
}

/// Where the key of a request is.
#[derive(Clone, Debug, PartialEq)]
pub enum ShardKey {
    Header(http::HeaderName),
    Cookie(String),
    Query(String),
    /// Of the path, the first one being 1.
    PathSegment(usize),
}

#[derive(Clone, Debug, PartialEq)]
pub struct RedisListener {
    /// What clients must send with AUTH or HELLO; `None`: no password asked.
    pub password: Option<Secret>,
    /// Requests of one client in flight; default 1,024.
    pub max_pipeline: usize,
    /// The largest argument, in bytes; default 512 MiB.
    pub max_bulk: u64,
    /// Bytes a client may leave unread before it is closed; default 32 MiB.
    pub client_output_limit: u64,
    /// How long others wait behind a client that does not read its reply; default 1s.
    pub slow_client_grace: Duration,
    /// Whether MSET, DEL and UNLINK over several shards are split; default true.
    pub split_writes: bool,
    /// Whether MGET over several shards puts the error of one into its keys' places; default false.
    pub mget_embeds: bool,
    /// Commands allowed in spite of being refused by default, upper case, `CONFIG|SET` for one
    /// subcommand.
    pub allow: Vec<String>,
    /// Commands refused, likewise.
    pub deny: Vec<String>,
    /// The most keys that KEYS tells of several shards; default 1,000,000.
    pub keys_max: usize,
    /// A request for another shard waits for the replies before it; default false.
    pub strict_order: bool,
    /// Who may come in beside whoever has the password; default nobody.
    pub users: Vec<RedisUser>,
    /// The backends say who may come in.
    pub passthrough: bool,
    pub multi: Multi,
    /// Requests in one transaction; default 1,000,000.
    pub multi_max_commands: u32,
    /// Bytes of requests in one transaction; default 1 GiB.
    pub multi_max_bytes: u64,
}

/// One of `redis.users`.
#[derive(Clone, Debug, PartialEq)]
pub struct RedisUser {
    pub name: String,
    /// None only for `default`, which everybody is then.
    pub passwords: Vec<Secret>,
    /// Upper case, `CONFIG|GET` for one subcommand, `@READ` for a category; empty: all.
    pub commands: Vec<String>,
    /// Likewise.
    pub deny: Vec<String>,
    /// Commands allowed in spite of being refused by default.
    pub allow: Vec<String>,
    /// Empty: any key.
    pub key_prefixes: Vec<String>,
    /// Index into [`Config::clusters`]; `None`: the listener's.
    pub cluster: Option<usize>,
    /// Who we are to the backends on its behalf; `None`: as the cluster says.
    pub upstream: Option<Credentials>,
}

/// Where a transaction is kept until EXEC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Multi {
    /// Here; then it is sent in one piece on the shared connection.
    #[default]
    Buffered,
    /// In the server, over a connection of the client's own.
    Pinned,
}

/// A password or a key: never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cluster {
    pub name: String,
    /// What its listeners speak; redis or tcp by its kind when it has none.
    pub protocol: Protocol,
    /// Empty if and only if there are `backends` or `redis_cluster`.
    pub shards: Vec<Shard>,
    pub redis_cluster: Option<Seeds>,
    /// Who says who is in which shard; `None`: `shards` does.
    pub sentinel: Option<Sentinel>,
    /// Which of `shards` owns a key.
    pub sharding: Sharding,
    pub backends: Option<Backends>,
    pub reads: Reads,
    /// As written; see [`Config::slow_start`].
    pub slow_start: Option<Duration>,
    /// What a pick from `backends` does when none is ready; default `all_down`.
    pub fail_open: FailOpen,
    pub check: Check,
    /// What probes ask, where they are HTTP requests.
    pub http_check: Option<HttpCheck>,
    pub timeouts: Timeouts,
    pub limits: BackendLimits,
    pub upstream: Credentials,
    /// `upstream.tls`; `None`: in clear.
    pub tls: Option<ClientFiles>,
    /// The place in `shards` of the one that takes requests without a key; default the first.
    pub keyless: usize,
    /// Scripts that say `#!lua flags=no-writes` are reads; default false.
    pub shebang_reads: bool,
    /// `redis.commands`: commands we do not know or should see otherwise.
    pub commands: Vec<CustomCommand>,
    pub redis: RedisCluster,
    pub dedicated: Dedicated,
    /// `failover_wait` and `failover_queue`.
    pub outage: Outage,
    pub http: HttpCluster,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Shard {
    /// Default `s0`, `s1`, ...
    pub name: String,
    /// What it is known by to a ring: the name it was given, else its primary's address.
    pub identity: String,
    /// 1 to 1,000; default 1.
    pub weight: u32,
    /// `None`: Sentinel says who it is.
    pub primary: Option<Member>,
    pub replicas: Vec<Member>,
}

/// Backends without roles, all alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Backends {
    /// 1 to 64.
    pub members: Vec<Member>,
    pub balance: Strategy,
    /// Of `failover` alone.
    pub failback: Failback,
    pub sticky: Option<Sticky>,
    /// The PROXY protocol header that each connection begins with.
    pub send_proxy: Option<Version>,
}

/// What keeps a client at its backend: the first of these that a request has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sticky {
    pub cookie: Option<StickyCookie>,
    /// A header whose value tells clients apart, in lower case.
    pub header: Option<String>,
    /// A client's address, up to so many bits.
    pub client_ip: Option<Prefix>,
    /// A session whose backend is gone gets an error instead of another backend; default false.
    pub strict: bool,
}

/// The cookie that names a backend.
#[derive(Clone, Debug, PartialEq)]
pub struct StickyCookie {
    /// `max_age` is `max_life`.
    pub attributes: Attributes,
    pub mode: Mode,
    /// For [`Mode::Signed`] at least one, each of 16 bytes or more: the first signs, all verify.
    pub keys: Vec<Secret>,
    /// Since a client was last seen; default `None`: for ever.
    pub max_idle: Option<Duration>,
    /// Since its session began; default `None`: for ever.
    pub max_life: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub address: Address,
    /// 1 to 1,000; default 1.
    pub weight: u32,
    /// What the file says it is to do.
    pub admin: gate::Admin,
    /// 0 to 63; default 0. Used when no backend of a lower tier is ready.
    pub tier: u8,
}

/// The probes' schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Check {
    /// Default 2s.
    pub interval: Duration,
    /// While rising, falling or unknown; default 500ms.
    pub fast_interval: Duration,
    /// While unhealthy; default 1s.
    pub down_interval: Duration,
    /// Default 1s.
    pub timeout: Duration,
    /// Default 2.
    pub rise: u32,
    /// Default 3.
    pub fall: u32,
    /// How long traffic waits for the first round of probes; default 5s.
    pub startup_grace: Duration,
}

/// One entry of `redis.commands`: `"MY.GET": { access: read, keys: [1, 1, 1] }`.
#[derive(Clone, Debug, PartialEq)]
pub struct CustomCommand {
    /// Upper case.
    pub name: String,
    pub access: Access,
    /// First key, last key (negative: from the end), step; `None`: no keys.
    pub keys: Option<(i32, i32, i32)>,
}

impl Route {
    /// Whether every request matches.
    pub fn takes_all(&self) -> bool {
        *self == Self { cluster: self.cluster, ..Self::default() }
    }
}

impl Listener {
    /// The clusters it leads to, each once.
    pub fn clusters(&self) -> Vec<usize> {
        let mut clusters: Vec<usize> = self.routes.iter().map(|route| route.cluster).collect();
        clusters.push(self.cluster);
        clusters.extend(self.redis.users.iter().filter_map(|user| user.cluster));
        clusters.sort_unstable();
        clusters.dedup();
        clusters
    }
}

impl Protocol {
    /// The word of the configuration and the status API.
    pub fn as_str(self) -> &'static str {
        words::word(words::PROTOCOL, &self)
    }

    /// The default of `slow_start` (core.md): none for databases, nor for what may be one.
    pub const fn slow_start(self) -> Duration {
        match self {
            Self::Redis | Self::Tcp => Duration::ZERO,
            Self::Http => Duration::from_secs(10),
        }
    }
}

impl Config {
    /// Reads a file. The configuration is there if and only if the findings are accepted.
    /// `password_file`s are relative to the file's folder.
    pub fn load(path: &Path, env: Env<'_>) -> (Option<Self>, Findings) {
        let name = path.to_string_lossy();
        match file::load(path) {
            Ok(text) => Self::parse(&text, &name, env),
            Err(findings) => (None, findings),
        }
    }

    /// Reads a text; `file` is its name in the findings. Never panics, whatever the text is.
    pub fn parse(text: &str, file: &str, env: Env<'_>) -> (Option<Self>, Findings) {
        check::check(text, file, env)
    }

    /// The configuration in force as YAML; with `defaults` every default is written out, without it
    /// only what differs. Passwords are shown as `(set)`.
    pub fn to_yaml(&self, defaults: bool) -> String {
        print::yaml(self, defaults)
    }

    /// How long a backend of that cluster that has come back gets less than its share; 0: not at
    /// all.
    pub fn slow_start(&self, cluster: usize) -> Duration {
        let default =
            |cluster: &Cluster| cluster.slow_start.unwrap_or_else(|| cluster.protocol.slow_start());
        self.clusters.get(cluster).map(default).unwrap_or_default()
    }

    /// How many backends the clusters have, each address once per shard.
    pub fn backends(&self) -> usize {
        self.clusters.iter().map(Cluster::members).sum()
    }
}

impl Cluster {
    /// How many backends it has, each address once per shard.
    pub fn members(&self) -> usize {
        self.each_member().count()
    }

    /// Its backends in the order of the file: shard by shard, the primary first.
    pub fn each_member(&self) -> impl Iterator<Item = &Member> {
        let shards = self.shards.iter();
        let of_shards = shards.flat_map(Shard::members);
        of_shards.chain(self.backends.iter().flat_map(|backends| &backends.members))
    }
}

impl Check {
    /// How long a backend that stops answering may go unnoticed by the probes, at worst: it dies
    /// right after a passed probe, and each of `fall` probes takes its whole timeout (core.md).
    pub fn worst_case_detection(&self) -> Duration {
        worst_case(self.interval, self.fast_interval, self.timeout, self.fall)
    }
}

/// `timeouts.stall` when it is not written: the larger of 5 x `request` and 10s (redis.md T35). A
/// day when a request may take for ever: 10s would take its connection away.
fn default_stall(request: Duration) -> Duration {
    const LEAST: Duration = Duration::from_secs(10);
    if request.is_zero() { keys::DAY } else { request.saturating_mul(5).clamp(LEAST, keys::DAY) }
}

/// What a fuzzer feeds: any text is either accepted or refused with findings that can be shown.
/// Reads no variable and no file.
pub fn fuzz(text: &str) {
    let (config, findings) = Config::parse(text, "fuzz.yaml", Env::empty());
    assert_eq!(config.is_some(), findings.accepted(), "accepted means complete");
    let _ = findings.to_string();
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(set)")
    }
}

impl Member {
    /// One of weight 1 that is to do its work.
    pub const fn new(address: Address) -> Self {
        Self { address, weight: 1, tier: 0, admin: gate::Admin::Ready }
    }
}

impl Default for Admin {
    fn default() -> Self {
        let bind = Bind::Tcp(([127, 0, 0, 1], 9900).into());
        Self { bind, explicit: false, socket: None, token: None }
    }
}

impl Default for Check {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(2),
            fast_interval: Duration::from_millis(500),
            down_interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            startup_grace: Duration::from_secs(5),
        }
    }
}
