//! The table of a cluster's keys: where its backends are and how they are asked. Not of those that
//! one protocol alone has.

use super::{
    CHECK, CLUSTER_LIMITS, CLUSTER_REDIS, DAY, DEDICATED, HOUR, Kind, MAX_MEMBERS, MAX_SHARDS,
    MINUTE, MS, MS_10, REDIS_CLUSTER, RETRY, SENTINEL, SHARD_KEY, SHARDING, STICKY, Scope, between,
    choice, key, later, tls, up_to, whole,
};
use crate::config::words;
use std::time::Duration;

pub(in crate::config) static CLUSTER: Scope = Scope {
    required: &[&SOURCES],
    keys: &[
        key(
            "shards",
            Kind::List(&Kind::Map(&SHARD), MAX_SHARDS),
            "",
            "The shards in order; sharding says which keys they own.",
        ),
        key(
            "sentinel",
            Kind::Map(&SENTINEL),
            "",
            "Instead of shards: Sentinels that say who is in which shard.",
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
        key(
            "failover_wait",
            up_to(HOUR),
            "3s",
            "How long a request that needs the primary waits for the next one of a shard that has replicas; 0: not at all.",
        ),
        key(
            "failover_queue",
            whole(1, 1_000_000),
            "4096",
            "Clients of the process that wait for a primary at a time; who comes later is refused.",
        ),
        key(
            "redis_cluster",
            Kind::Map(&REDIS_CLUSTER),
            "",
            "Instead of shards: a Redis Cluster, whose nodes say who owns which slot.",
        ),
        later("dns"),
        later("file"),
        later("kubernetes"),
        later("mirror"),
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
pub(in crate::config) const SOURCES: [&str; 7] =
    ["backends", "shards", "sentinel", "redis_cluster", "dns", "file", "kubernetes"];

pub(in crate::config) static SHARD: Scope = Scope {
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
        key(
            "weight",
            whole(1, 1_000),
            "1",
            "Its share of the keys beside the others', for ketama, maglev and modulo.",
        ),
    ],
};

pub(in crate::config) static MEMBER: Scope = Scope {
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

pub(in crate::config) static READS: Scope = Scope {
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
            choice(words::CONSISTENCY_WORDS),
            "eventual",
            "What a read of a replica promises; eventual: nothing; session: a connection reads what it wrote, and never goes back in time; key: everybody reads what anybody wrote through this process; window: nothing older than `window` is missing.",
        ),
        key(
            "window",
            between(Duration::from_millis(500), HOUR),
            "",
            "Of consistency: window: how long a write may be missing.",
        ),
        key(
            "max_lag",
            between(Duration::from_millis(100), DAY),
            "",
            "A replica that is further behind its primary is not read until it is within half of it; when not given, it is read however late it is.",
        ),
        key(
            "overrides",
            Kind::List(&Kind::Map(&OVERRIDE), MAX_OVERRIDES),
            "",
            "Reads that go elsewhere; the first that fits decides.",
        ),
        key(
            "scripts_declare_keys",
            Kind::Switch,
            "true",
            "Of consistency: key: scripts and functions name every key that they touch; false: each of them counts as a write to its whole shard.",
        ),
    ],
};

/// The most overrides: each is compared with each read.
const MAX_OVERRIDES: usize = 64;

pub(in crate::config) static OVERRIDE: Scope = Scope {
    required: &[&["from"]],
    keys: &[
        key("prefix", Kind::Text, "", "Reads of keys that begin so."),
        key("command", Kind::Command, "", "Reads by this command, such as HGETALL."),
        key("from", choice(words::READ_FROM_WORDS), "", "Where they go, as reads.from."),
    ],
};

pub(in crate::config) static TIMEOUTS: Scope = Scope {
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

pub(in crate::config) static UPSTREAM: Scope = Scope {
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

const fn strategies() -> Kind {
    choice(words::STRATEGY_WORDS)
}
