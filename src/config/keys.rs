//! The table of every key a configuration may have: what it takes, its default, what it is for. The
//! check, the JSON Schema, "did you mean" and the list of what is not supported yet all read it. Not
//! the reading itself.

mod access_log;
mod cluster;
mod dedicated;
mod http;
pub(super) mod insight;
mod limits;
mod listener;
mod probe;
mod process;
mod redis;
mod redis_cluster;
mod sentinel;
mod sharding;
mod sticky;
pub(super) mod tls;
mod users;

pub(super) use access_log::ACCESS_LOG;
pub(super) use cluster::{CLUSTER, MEMBER, OVERRIDE, READS, SHARD, SOURCES, TIMEOUTS, UPSTREAM};
pub(super) use dedicated::DEDICATED;
pub(super) use http::{LISTENER_HTTP, MATCH, RETRY, ROUTE, SHARD_KEY};
pub(super) use limits::{CLUSTER_LIMITS, LISTENER_LIMITS, PER_CLIENT};
pub(super) use listener::{LISTENER, PROXY_PROTOCOL};
pub(super) use probe::{CHECK, CHECK_HTTP};
pub(super) use process::{ADMIN, LIMITS, LOG, SHUTDOWN};
pub(super) use redis::{CLUSTER_REDIS, COMMAND, LISTENER_REDIS, POSITION};
pub(super) use redis_cluster::REDIS_CLUSTER;
pub(super) use sentinel::SENTINEL;
pub(super) use sharding::{MAX_ENTRIES, SHARDING};
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

const fn choice(now: &'static [&'static str]) -> Kind {
    Kind::Choice { now, later: &[] }
}

#[cfg(test)]
mod tests;
