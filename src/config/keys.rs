//! The table of every key a configuration may have: what it takes, its default, what it is for. The
//! check, the JSON Schema, "did you mean" and the list of what is not supported yet all read it. Not
//! the reading itself.

mod access_log;
mod dedicated;
mod http;
pub(super) mod insight;
mod limits;
mod probe;
mod sticky;
pub(super) mod tls;
mod users;

pub(super) use access_log::ACCESS_LOG;
pub(super) use dedicated::DEDICATED;
pub(super) use http::{LISTENER_HTTP, MATCH, RETRY, ROUTE, SHARD_KEY};
pub(super) use limits::{CLUSTER_LIMITS, LISTENER_LIMITS, PER_CLIENT};
pub(super) use probe::CHECK_HTTP;
pub(super) use sticky::{CLIENT_IP, COOKIE, STICKY};
pub(super) use users::{USER, WHO};

use super::words;
use std::time::Duration;

/// A map with a known set of keys.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) keys: &'static [Key],
    /// Of each of these groups one key must be written.
    pub(super) required: &'static [&'static [&'static str]],
}

/// One key of a scope.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// As it would be written; empty when there is none.
    pub(super) default: &'static str,
    /// What it is for, one sentence.
    pub(super) doc: &'static str,
}

/// What a key takes.
#[derive(Debug)]
pub(super) enum Kind {
    /// Designed, and for a later version.
    Later,
    /// Any text but the empty one.
    Text,
    /// A name: see [`is_name`].
    Name,
    /// A password.
    Secret,
    /// A file.
    Path,
    /// Where to accept.
    Bind,
    /// Where a backend lives.
    Address,
    /// Addresses: `10.0.0.0/8`, or a single one.
    Network,
    /// The name of a cluster of this file.
    Cluster,
    /// `info`, or `info,sluice=debug`.
    LogLevel,
    /// A command or `COMMAND|SUBCOMMAND`.
    Command,
    /// A duration in this range; `or_none`: 0 too, for none.
    Duration { min: Duration, max: Duration, or_none: bool },
    /// So many per second, minute or hour.
    Rate,
    /// `true` or `false`.
    Switch,
    /// A number of bytes; `auto`: that word too.
    Size { min: u64, max: u64, auto: bool },
    /// A whole number; `auto`: that word too.
    Integer { min: i64, max: i64, auto: bool },
    /// One of some words; `later` are for a later version.
    Choice { now: &'static [&'static str], later: &'static [&'static str] },
    /// A map with these keys.
    Map(&'static Scope),
    /// A map from names to maps with these keys.
    Named(&'static Scope),
    /// A map from names to texts.
    Texts,
    /// A list with up to so many of these.
    List(&'static Self, usize),
    /// An address, or a map with these keys.
    AddressOr(&'static Scope),
}

/// The most characters of a name.
pub(super) const MAX_NAME: usize = 64;
/// The most shards of a cluster; as many as Redis Cluster's recommended limit of nodes.
pub(super) const MAX_SHARDS: usize = 1_024;
/// The most members of a shard, its primary included: a pick keeps what it tried in 64 bits.
pub(super) const MAX_MEMBERS: usize = 64;
/// The most listeners; an operator's slip, not a need.
pub(super) const MAX_LISTENERS: usize = 1_024;
/// The most clusters, likewise.
pub(super) const MAX_CLUSTERS: usize = 1_024;
/// The most networks of a list.
const MAX_NETWORKS: usize = 1_024;
/// The most entries of `allow`, `deny`; there are about 400 commands.
const MAX_COMMANDS: usize = 1_024;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

impl Scope {
    /// The key of that name.
    pub(super) fn find(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The keys that work in this version.
    pub(super) fn now(&self) -> impl Iterator<Item = &'static Key> {
        self.keys.iter().filter(|key| !matches!(key.kind, Kind::Later))
    }
}

/// True for 1 to 64 of `A-Z a-z 0-9 _ . -`: names become labels, paths and parts of URLs.
pub(super) fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

const fn key(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { name, kind, default, doc }
}

const fn later(name: &'static str) -> Key {
    Key { name, kind: Kind::Later, default: "", doc: "" }
}

const fn between(min: Duration, max: Duration) -> Kind {
    Kind::Duration { min, max, or_none: false }
}

const fn up_to(max: Duration) -> Kind {
    Kind::Duration { min: Duration::from_millis(1), max, or_none: true }
}

const fn whole(min: i64, max: i64) -> Kind {
    Kind::Integer { min, max, auto: false }
}

const MS: Duration = Duration::from_millis(1);
const MS_10: Duration = Duration::from_millis(10);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);

pub(super) static ROOT: Scope = Scope {
    required: &[&["listeners"], &["clusters"]],
    keys: &[
        key(
            "workers",
            Kind::Integer { min: 1, max: 1_024, auto: true },
            "auto",
            "Worker threads; auto: one per core.",
        ),
        key("admin", Kind::Map(&ADMIN), "", "Where status and metrics are served."),
        key("log", Kind::Map(&LOG), "", "What is logged and how."),
        key("limits", Kind::Map(&LIMITS), "", "Bounds of the whole process."),
        key("shutdown", Kind::Map(&SHUTDOWN), "", "How the process ends after SIGTERM."),
        key(
            "listeners",
            Kind::List(&Kind::Map(&LISTENER), MAX_LISTENERS),
            "",
            "The addresses we accept on.",
        ),
        key("clusters", Kind::Named(&CLUSTER), "", "The groups of backends by name."),
        later("watch"),
        later("users"),
        key(
            "access_log",
            Kind::Map(&ACCESS_LOG),
            "",
            "One line of JSON for each request of the http listeners; when not given, none.",
        ),
        later("slow_log"),
        later("trusted"),
    ],
};

pub(super) static ADMIN: Scope = Scope {
    required: &[],
    keys: &[
        key(
            "bind",
            Kind::Bind,
            "127.0.0.1:9900",
            "Where status and metrics are served; when not given, a taken port is only a warning.",
        ),
        key(
            "socket",
            Kind::Text,
            "",
            "A unix socket with the same pages, for its owner alone, on which backends may be changed: /run/sluice/admin.sock. When not given, one is made in /run/sluice or $XDG_RUNTIME_DIR where there is one.",
        ),
        key(
            "token",
            Kind::Secret,
            "",
            "What `Authorization: Bearer` must say to change something over TCP; without one nothing is changed there.",
        ),
        key("token_file", Kind::Path, "", "A file that holds the token."),
        later("tls"),
    ],
};

pub(super) static LOG: Scope = Scope {
    required: &[],
    keys: &[
        key("format", choice(words::LOG_FORMAT_WORDS), "text", "One line of text or of JSON."),
        key(
            "level",
            Kind::LogLevel,
            "info",
            "off, error, warn, info, debug or trace, also by target: info,sluice=debug; the variable SLUICE_LOG wins.",
        ),
    ],
};

pub(super) static LIMITS: Scope = Scope {
    required: &[],
    keys: &[
        key(
            "max_connections",
            Kind::Integer { min: 1, max: 100_000_000, auto: true },
            "auto",
            "Clients at once; auto: from the descriptor limit.",
        ),
        key(
            "memory",
            Kind::Size { min: MIB, max: 1_024 * TIB, auto: true },
            "auto",
            "Buffered bytes; auto: from the cgroup when it has a limit, else none.",
        ),
    ],
};

pub(super) static SHUTDOWN: Scope = Scope {
    required: &[],
    keys: &[
        key("pre_stop_delay", up_to(HOUR), "0", "How long to go on accepting after SIGTERM."),
        key(
            "drain_timeout",
            between(Duration::ZERO, DAY),
            "25s",
            "When clients that are still there are closed by force.",
        ),
        later("mode"),
    ],
};

pub(super) static LISTENER: Scope = Scope {
    required: &[&["bind"], &["protocol"], &["cluster", "routes"]],
    keys: &[
        key("name", Kind::Name, "", "Its name in metrics and logs; when not given, its bind."),
        key("bind", Kind::Bind, "", "host:port, [::]:port or unix:/path."),
        key(
            "protocol",
            choice(words::PROTOCOL_WORDS),
            "",
            "What clients speak; tcp: anything, passed on as it is.",
        ),
        key(
            "cluster",
            Kind::Cluster,
            "",
            "The cluster that answers: with shards for redis, with backends for tcp, either for http.",
        ),
        key("redis", Kind::Map(&LISTENER_REDIS), "", "What only the protocol redis has."),
        key(
            "proxy_protocol",
            Kind::Map(&PROXY_PROTOCOL),
            "",
            "Whose connections begin with a PROXY protocol header, for tcp and http.",
        ),
        key(
            "routes",
            Kind::List(&Kind::Map(&ROUTE), http::MAX_ROUTES),
            "",
            "Instead of cluster: for http the first that matches a request says which cluster answers, for redis the longest beginning of its key.",
        ),
        key(
            "tls",
            Kind::Map(&tls::LISTENER),
            "",
            "What is shown to and asked of clients under TLS.",
        ),
        key(
            "limits",
            Kind::Map(&LISTENER_LIMITS),
            "",
            "How many connections it takes, and of one client address.",
        ),
        later("users"),
        later("trusted"),
        key("http", Kind::Map(&LISTENER_HTTP), "", "What only the protocol http has."),
        later("tcp"),
        later("idle_timeout"),
    ],
};

pub(super) static PROXY_PROTOCOL: Scope = Scope {
    required: &[&["trusted"]],
    keys: &[key(
        "trusted",
        Kind::List(&Kind::Network, MAX_NETWORKS),
        "",
        "Proxies: their connections must begin with a header, others' are taken as they are.",
    )],
};

pub(super) static LISTENER_REDIS: Scope = Scope {
    required: &[],
    keys: &[
        key("password", Kind::Secret, "", "What clients must send with AUTH or HELLO."),
        key("password_file", Kind::Path, "", "A file that holds the password."),
        key("max_pipeline", whole(1, 1_000_000), "1024", "Requests of one client in flight."),
        key(
            "max_bulk",
            Kind::Size { min: KIB, max: GIB, auto: false },
            "512MiB",
            "The largest argument.",
        ),
        key(
            "client_output_limit",
            Kind::Size { min: 64 * KIB, max: TIB, auto: false },
            "32MiB",
            "Bytes a client may leave unread before it is closed.",
        ),
        key(
            "allow",
            Kind::List(&Kind::Command, MAX_COMMANDS),
            "",
            "Commands allowed in spite of being refused by default: DEBUG, \"CONFIG|SET\".",
        ),
        key("deny", Kind::List(&Kind::Command, MAX_COMMANDS), "", "Commands refused, likewise."),
        key(
            "keys_max",
            whole(1, 1_000_000_000),
            "1000000",
            "The most keys that KEYS tells of several shards; over it, an error.",
        ),
        key(
            "slow_client_grace",
            up_to(HOUR),
            "1s",
            "How long others wait behind the reply to a client that does not read it, before it is closed.",
        ),
        key(
            "split_writes",
            Kind::Switch,
            "true",
            "Whether MSET, DEL and UNLINK over several shards are split; false: CROSSSLOT.",
        ),
        key(
            "mget_partial",
            choice(words::MGET_WORDS),
            "fail",
            "What MGET answers when a shard fails; embed: its error in the place of each of its keys.",
        ),
        key(
            "users",
            Kind::List(&Kind::Map(&USER), users::MAX_USERS),
            "",
            "Who may come in, and what each may do.",
        ),
        key(
            "auth",
            choice(words::AUTH_WORDS),
            "listener",
            "passthrough: the backends say who may come in, and each client is to them who it says it is.",
        ),
        key(
            "multi",
            choice(words::MULTI_WORDS),
            "buffered",
            "Transactions are kept until EXEC and sent in one piece; pinned: each has a connection of its own, and errors while queueing come at once.",
        ),
        later("cross_shard_multi"),
        key("multi_max_commands", whole(1, 100_000_000), "1000000", "Requests in one transaction."),
        key(
            "multi_max_bytes",
            Kind::Size { min: KIB, max: TIB, auto: false },
            "1GiB",
            "Bytes of the requests in one transaction.",
        ),
        key(
            "strict_order",
            Kind::Switch,
            "false",
            "A request for another shard waits until the shard before it has replied.",
        ),
        later("cluster_spoof"),
        later("keyless_shard"),
        later("script_shebang_reads"),
    ],
};

pub(super) static CLUSTER: Scope = Scope {
    required: &[&SOURCES],
    keys: &[
        key(
            "shards",
            Kind::List(&Kind::Map(&SHARD), MAX_SHARDS),
            "",
            "The shards in order; the slots are split evenly over them.",
        ),
        key(
            "backends",
            Kind::List(&Kind::AddressOr(&MEMBER), MAX_MEMBERS),
            "",
            "Instead of shards: backends without roles, all alike.",
        ),
        key(
            "balance",
            strategies(),
            "p2c",
            "How one of the backends is picked; p2c: the less busy of two drawn.",
        ),
        key(
            "failback",
            choice(words::FAILBACK_WORDS),
            "auto",
            "Of balance: failover; manual: it stays where it is until that one fails.",
        ),
        key(
            "slow_start",
            up_to(HOUR),
            "",
            "A backend that has come back gets 10% of its weight at first and all of it after so long; when not given, 10s for http and 0 for redis and tcp.",
        ),
        key(
            "fail_open",
            choice(words::FAIL_OPEN_WORDS),
            "",
            "all_down: when no backend is ready, all are tried; when not given, all_down for backends and never for shards.",
        ),
        key("sticky", Kind::Map(&STICKY), "", "What keeps a client at its backend."),
        key(
            "send_proxy",
            choice(words::SEND_PROXY_WORDS),
            "",
            "Begin each connection to a backend with a PROXY protocol header of this version.",
        ),
        key("sharding", Kind::Map(&SHARDING), "", "Which shard owns a key."),
        key("reads", Kind::Map(&READS), "", "Where reads go."),
        key("check", Kind::Map(&CHECK), "", "The schedule of the probes."),
        key("timeouts", Kind::Map(&TIMEOUTS), "", "How long to wait for what."),
        key(
            "limits",
            Kind::Map(&CLUSTER_LIMITS),
            "",
            "How much one backend gets at once, and how many wait for it.",
        ),
        key("upstream", Kind::Map(&UPSTREAM), "", "Who we are to the backends."),
        key("redis", Kind::Map(&CLUSTER_REDIS), "", "What only the protocol redis has."),
        key(
            "coalesce",
            Kind::Switch,
            "false",
            "Equal GETs that are under way at one backend are asked once by each worker.",
        ),
        key(
            "on_shard_down",
            Kind::Choice { now: &["fail_fast"], later: &["replica_reads", "miss", "rehash"] },
            "fail_fast",
            "What requests for a dead shard get; fail_fast: an error at once.",
        ),
        later("sentinel"),
        later("redis_cluster"),
        later("dns"),
        later("file"),
        later("kubernetes"),
        later("mirror"),
        later("failover_wait"),
        later("init_state"),
        later("on_unhealthy"),
        later("outlier"),
        later("passive"),
        key("retry", Kind::Map(&RETRY), "", "Which requests are tried again, for http."),
        key(
            "shard_key",
            Kind::Map(&SHARD_KEY),
            "",
            "Where the key of an http request is: the same key, the same shard; over `backends`, what maglev pins.",
        ),
        later("tls"),
        key(
            "dedicated",
            Kind::Map(&DEDICATED),
            "",
            "Connections that one client has for itself: while it watches keys or waits in the server, or always (upstream.mode).",
        ),
        later("pool"),
        later("idle_timeout"),
        later("http"),
        later("protocol"),
    ],
};

/// Of these a cluster has exactly one.
pub(super) const SOURCES: [&str; 7] =
    ["backends", "shards", "sentinel", "redis_cluster", "dns", "file", "kubernetes"];

pub(super) static SHARD: Scope = Scope {
    required: &[&["primary"]],
    keys: &[
        key("name", Kind::Name, "", "Its name in metrics and logs; when not given, s0, s1, ..."),
        key("primary", Kind::AddressOr(&MEMBER), "", "The backend that takes writes."),
        key(
            "replicas",
            Kind::List(&Kind::AddressOr(&MEMBER), MAX_MEMBERS - 1),
            "",
            "The backends that copy the primary.",
        ),
        later("weight"),
        later("range"),
        later("keys"),
    ],
};

pub(super) static MEMBER: Scope = Scope {
    required: &[&["address"]],
    keys: &[
        key("address", Kind::Address, "", "host:port or unix:/path."),
        key("weight", whole(1, 1_000), "1", "Its share beside the others'."),
        key("tier", whole(0, 63), "0", "It is used when no backend of a lower tier is ready."),
        later("id"),
        key(
            "admin",
            choice(words::ADMIN_WORDS),
            "ready",
            "ready; drain: only sessions that it has; disabled: nothing, not even probes.",
        ),
        later("max_connections"),
        later("max_in_flight"),
    ],
};

pub(super) static SHARDING: Scope = Scope {
    required: &[],
    keys: &[
        key(
            "by",
            Kind::Choice {
                now: &["slots"],
                later: &["ketama", "maglev", "jump", "modulo", "range", "directory"],
            },
            "slots",
            "slots: CRC16 over 16,384 slots, as Redis Cluster.",
        ),
        key(
            "hash_tag",
            Kind::Choice { now: &["{}"], later: &[] },
            "{}",
            "The part of a key that is hashed; for slots it is Redis's own rule.",
        ),
        later("hash"),
        later("separator"),
        later("bounds"),
        later("keys"),
        later("default"),
    ],
};

pub(super) static READS: Scope = Scope {
    required: &[],
    keys: &[
        key(
            "from",
            choice(words::READ_FROM_WORDS),
            "primary",
            "primary; prefer_replica: the primary when no replica is ready; replica: else an error; any: all alike.",
        ),
        key(
            "balance",
            strategies(),
            "p2c",
            "How one of several is picked; p2c: the less busy of two drawn.",
        ),
        key(
            "consistency",
            Kind::Choice { now: &["eventual"], later: &["session", "key", "window"] },
            "eventual",
            "What a read of a replica promises; eventual: nothing.",
        ),
        later("max_lag"),
        later("overrides"),
        later("scripts_declare_keys"),
    ],
};

pub(super) static CHECK: Scope = Scope {
    required: &[],
    keys: &[
        key("interval", between(MS_10, HOUR), "2s", "Between two probes of a healthy backend."),
        key(
            "fast_interval",
            between(MS_10, HOUR),
            "500ms",
            "Between two probes while rising, falling or unknown.",
        ),
        key("down_interval", between(MS_10, HOUR), "1s", "Between two probes while unhealthy."),
        key("timeout", between(MS, MINUTE), "1s", "After which a probe has failed."),
        key("rise", whole(1, 100), "2", "Passed probes in a row that make a backend healthy."),
        key("fall", whole(1, 100), "3", "Failed probes in a row that make it unhealthy."),
        key(
            "startup_grace",
            between(Duration::ZERO, HOUR),
            "5s",
            "How long traffic waits for the first round of probes.",
        ),
        key(
            "tcp",
            Kind::Map(&CHECK_TCP),
            "",
            "A probe is a connection that is made and closed; the kind that backends have.",
        ),
        key(
            "http",
            Kind::Map(&CHECK_HTTP),
            "",
            "A probe is a request, and its answer must be well.",
        ),
        later("redis"),
        later("jitter"),
    ],
};

/// There is nothing to say yet; `{}` names the kind.
pub(super) static CHECK_TCP: Scope = Scope { required: &[], keys: &[later("port")] };

pub(super) static TIMEOUTS: Scope = Scope {
    required: &[],
    keys: &[
        key("connect", between(MS, HOUR), "1s", "For a new connection to a backend."),
        key("request", up_to(DAY), "30s", "For a request with all its tries; 0: none."),
        key("fan_out", up_to(DAY), "30s", "For a request that goes to every shard; 0: none."),
        key(
            "stall",
            between(Duration::from_millis(100), DAY),
            "",
            "A connection silent this long with requests outstanding is closed; when not given, the larger of 5 x request and 10s (with request: 0, 1d).",
        ),
        key("client_idle", up_to(DAY), "0", "A client silent this long is closed; 0: never."),
        key(
            "idle",
            up_to(DAY),
            "0",
            "A tcp connection on which no byte moves for so long, either way, is closed; 0: never.",
        ),
        key(
            "queue",
            between(MS, MINUTE),
            "1s",
            "For a backend that has room, when all are at their limit (limits.max_in_flight).",
        ),
        key("script", up_to(DAY), "0", "For a script or function; 0: none."),
        later("read"),
        later("write"),
    ],
};

pub(super) static UPSTREAM: Scope = Scope {
    required: &[],
    keys: &[
        key("user", Kind::Text, "", "The ACL user; when not given, the default user."),
        key("password", Kind::Secret, "", "The password we send."),
        key("password_file", Kind::Path, "", "A file that holds the password."),
        key(
            "mode",
            choice(words::UPSTREAM_MODE_WORDS),
            "shared",
            "shared: the clients of a worker share one connection per backend; dedicated: each has its own.",
        ),
        key(
            "http2",
            Kind::Switch,
            "false",
            "Speak HTTP/2 to the backends, for http; gRPC needs it.",
        ),
        key(
            "idle",
            between(MS_10, DAY),
            "4s",
            "How long an idle connection of http is kept; less than the backends keep it.",
        ),
        key(
            "tls",
            Kind::Map(&tls::UPSTREAM),
            "",
            "Speak TLS to the backends, probes included; {} believes the authorities that this machine trusts.",
        ),
    ],
};

pub(super) static CLUSTER_REDIS: Scope = Scope {
    required: &[],
    keys: &[
        key(
            "commands",
            Kind::Named(&COMMAND),
            "",
            "Commands that we do not know or should see otherwise.",
        ),
        key("slowlog", Kind::Map(&insight::SLOWLOG), "", "Which requests SLOWLOG tells of."),
        key(
            "big",
            Kind::Size { min: 64 * KIB, max: TIB, auto: false },
            "1MiB",
            "A request or reply of so many bytes is counted by its command and told in the log.",
        ),
        key(
            "redact",
            Kind::Switch,
            "false",
            "Keys and values are left out of SLOWLOG, SLUICE HOTKEYS, the status page and the log.",
        ),
        key(
            "keyless_shard",
            Kind::Name,
            "",
            "The shard that runs scripts and takes other requests without a key; when not given, the first.",
        ),
        key(
            "script_shebang_reads",
            Kind::Switch,
            "false",
            "Scripts that begin with `#!lua flags=no-writes` are reads.",
        ),
    ],
};

/// One of a command's key positions.
pub(super) static POSITION: Kind = whole(-1_000_000, 1_000_000);

pub(super) static COMMAND: Scope = Scope {
    required: &[&["access"]],
    keys: &[
        key("access", choice(words::ACCESS_WORDS), "", "read or write."),
        key(
            "keys",
            Kind::List(&POSITION, 3),
            "",
            "First key, last key (negative: from the end), step; when not given, no keys.",
        ),
    ],
};

const fn strategies() -> Kind {
    choice(words::STRATEGY_WORDS)
}

const fn choice(now: &'static [&'static str]) -> Kind {
    Kind::Choice { now, later: &[] }
}

#[cfg(test)]
mod tests;
