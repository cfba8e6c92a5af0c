//! A configuration as YAML again, with its defaults written out. Not a copy of the file: comments
//! are gone, variables are replaced, and passwords are shown as `(set)`.

mod http;
mod limits;
mod reads;
mod seeds;
mod sentinel;
mod sharding;
mod tls;
mod users;

use super::{
    Backends, Check, Cluster, Config, CustomCommand, Listener, Member, Protocol, Shard, ShardingBy,
    Sticky, StickyCookie,
    check::balance::default_fail_open,
    default_stall,
    keys::{self, Scope},
    units::{Period, Size},
    words::{self, word},
};
use crate::{
    policy::balance::Strategy,
    topology::{Dedicated, HttpCheck},
};
use ::http::{HeaderName, HeaderValue};
use std::{fmt::Display, time::Duration};

/// The configuration as YAML; without `defaults` only what differs from them.
pub(super) fn yaml(config: &Config, defaults: bool) -> String {
    let mut text = String::new();
    root(config, defaults).write(&mut text, 0);
    text
}

/// A value to print.
enum Out {
    /// A scalar, quoted where YAML needs it.
    Text(String),
    /// Nothing set; printed as a comment that names the key.
    Unset,
    /// A list of scalars, on one line.
    Row(Vec<String>),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
}

/// Fills one map by the table of its keys.
struct Entries {
    scope: &'static Scope,
    defaults: bool,
    list: Vec<(String, Out)>,
}

impl Entries {
    fn new(scope: &'static Scope, defaults: bool) -> Self {
        Self { scope, defaults, list: Vec::new() }
    }

    /// A scalar; left out when it is the default of its key.
    fn text(&mut self, name: &str, value: impl Display) -> &mut Self {
        let value = value.to_string();
        let default = self.scope.find(name).map_or("", |key| key.default);
        if self.defaults || default != value {
            self.list.push((name.to_owned(), Out::Text(value)));
        }
        self
    }

    fn period(&mut self, name: &str, value: Duration) -> &mut Self {
        self.text(name, Period(value))
    }

    fn auto(&mut self, name: &str, value: Option<impl Display>) -> &mut Self {
        match value {
            Some(value) => self.text(name, value),
            None => self.text(name, "auto"),
        }
    }

    /// A scalar that has no default.
    fn optional(&mut self, name: &str, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.list.push((name.to_owned(), Out::Text(value.to_owned()))),
            None if self.defaults => self.list.push((name.to_owned(), Out::Unset)),
            None => {}
        }
        self
    }

    fn row(&mut self, name: &str, values: &[String]) -> &mut Self {
        if self.defaults || !values.is_empty() {
            self.list.push((name.to_owned(), Out::Row(values.to_vec())));
        }
        self
    }

    /// A list that may be left out but not be empty.
    fn rows_or_unset(&mut self, name: &str, values: &[String]) -> &mut Self {
        if values.is_empty() { self.optional(name, None) } else { self.row(name, values) }
    }

    /// A map; left out when nothing is in it.
    fn map(&mut self, name: &str, entries: Self) -> &mut Self {
        if !entries.list.is_empty() {
            self.list.push((name.to_owned(), Out::Map(entries.list)));
        }
        self
    }

    fn push(&mut self, name: &str, value: Out) -> &mut Self {
        self.list.push((name.to_owned(), value));
        self
    }
}

fn root(config: &Config, defaults: bool) -> Out {
    let mut admin = Entries::new(&keys::ADMIN, defaults);
    if defaults || config.admin.explicit {
        admin.text("bind", &config.admin.bind);
    }
    let socket = config.admin.socket.as_ref().map(|path| path.display().to_string());
    admin
        .optional("socket", socket.as_deref())
        .optional("token", config.admin.token.as_ref().map(|_| SET));
    let mut log = Entries::new(&keys::LOG, defaults);
    log.text("format", word(words::LOG_FORMAT, &config.log.format));
    log.text("level", &config.log.level);
    let access_log = config.access_log.as_ref();
    let access_log = access_log.map(|log| http::access_log(log, defaults));
    let access_log = access_log.unwrap_or_else(|| Entries::new(&keys::ACCESS_LOG, defaults));
    let mut limits = Entries::new(&keys::LIMITS, defaults);
    limits.auto("max_connections", config.limits.max_connections);
    limits.auto("memory", config.limits.memory.map(Size));
    let mut shutdown = Entries::new(&keys::SHUTDOWN, defaults);
    shutdown.period("pre_stop_delay", config.shutdown.pre_stop_delay);
    shutdown.period("drain_timeout", config.shutdown.drain_timeout);

    let listeners = config.listeners.iter().map(|one| listener(config, one, defaults)).collect();
    let clusters = config.clusters.iter().map(|one| (one.name.clone(), cluster(one, defaults)));
    let mut root = Entries::new(&keys::ROOT, defaults);
    root.auto("workers", config.workers)
        .map("admin", admin)
        .map("log", log)
        .map("access_log", access_log)
        .map("limits", limits)
        .map("shutdown", shutdown)
        .push("listeners", Out::List(listeners))
        .push("clusters", Out::Map(clusters.collect()));
    Out::Map(root.list)
}

fn listener(config: &Config, listener: &Listener, defaults: bool) -> Out {
    let mut redis = Entries::new(&keys::LISTENER_REDIS, defaults);
    redis
        .optional("password", listener.redis.password.as_ref().map(|_| SET))
        .text("max_pipeline", listener.redis.max_pipeline)
        .text("max_bulk", Size(listener.redis.max_bulk))
        .text("client_output_limit", Size(listener.redis.client_output_limit))
        .period("slow_client_grace", listener.redis.slow_client_grace)
        .text("split_writes", listener.redis.split_writes)
        .text("mget_partial", word(words::MGET, &listener.redis.mget_embeds))
        .row("allow", &listener.redis.allow)
        .row("deny", &listener.redis.deny)
        .text("keys_max", listener.redis.keys_max)
        .text("strict_order", listener.redis.strict_order)
        .text("multi", word(words::MULTI, &listener.redis.multi))
        .text("multi_max_commands", listener.redis.multi_max_commands)
        .text("multi_max_bytes", Size(listener.redis.multi_max_bytes))
        .text("auth", word(words::AUTH, &listener.redis.passthrough));
    if listener.redis.users.is_empty() {
        redis.optional("users", None);
    } else {
        let users = users::users(config, &listener.redis.users, defaults);
        redis.push("users", Out::List(users));
    }
    let mut entries = Entries::new(&keys::LISTENER, defaults);
    // The default name is its bind, which is no name that could be written.
    let name = Some(&*listener.name).filter(|name| keys::is_name(name));
    entries
        .optional("name", name)
        .text("bind", &listener.bind)
        .text("protocol", listener.protocol.as_str());
    http::routes(&mut entries, config, listener);
    match listener.protocol {
        Protocol::Redis => entries.map("redis", redis),
        Protocol::Http => entries.map("http", http::listener(&listener.http, defaults)),
        Protocol::Tcp => &mut entries,
    };
    if let Some(files) = &listener.tls {
        entries.map("tls", tls::listener(files, defaults));
    }
    if !listener.proxy_protocol.is_empty() {
        let networks: Vec<String> =
            listener.proxy_protocol.iter().map(ToString::to_string).collect();
        let mut proxy = Entries::new(&keys::PROXY_PROTOCOL, defaults);
        proxy.row("trusted", &networks);
        entries.map("proxy_protocol", proxy);
    }
    entries.map("limits", limits::listener(&listener.limits, defaults));
    Out::Map(entries.list)
}

fn cluster(cluster: &Cluster, defaults: bool) -> Out {
    match &cluster.backends {
        Some(backends) => without_roles(cluster, backends, defaults),
        None => with_shards(cluster, defaults),
    }
}

fn without_roles(cluster: &Cluster, backends: &Backends, defaults: bool) -> Out {
    let members = backends.members.iter().map(|one| member(one, defaults)).collect();
    let mut times = Entries::new(&keys::TIMEOUTS, defaults);
    times.period("connect", cluster.timeouts.connect);
    let speaks_http = cluster.protocol == Protocol::Http;
    if speaks_http {
        times.period("request", cluster.timeouts.request);
    } else {
        times.period("idle", cluster.timeouts.idle);
    }
    times.period("queue", cluster.timeouts.queue);
    let mut entries = Entries::new(&keys::CLUSTER, defaults);
    entries
        .push("backends", Out::List(members))
        .text("balance", word(words::STRATEGY, &backends.balance));
    if backends.balance == Strategy::Failover {
        entries.text("failback", word(words::FAILBACK, &backends.failback));
    }
    coming_and_going(&mut entries, cluster);
    if let Some(written) = &backends.sticky {
        entries.map("sticky", sticky(written, defaults));
    }
    if let Some(version) = &backends.send_proxy {
        entries.text("send_proxy", word(words::SEND_PROXY, version));
    }
    let mut probes = check(&cluster.check, defaults);
    if let Some(http) = &cluster.http_check {
        probes.push("http", http_check(http, defaults));
    } else if defaults {
        probes.push("tcp", Out::Map(Vec::new()));
    }
    entries
        .map("check", probes)
        .map("timeouts", times)
        .map("limits", limits::cluster(&cluster.limits, defaults));
    let mut upstream = Entries::new(&keys::UPSTREAM, defaults);
    if speaks_http {
        http::upstream(&mut upstream, cluster);
    }
    tls::client(&mut upstream, cluster.tls.as_ref());
    entries.map("upstream", upstream);
    if speaks_http {
        http::cluster(&mut entries, cluster);
    }
    Out::Map(entries.list)
}

/// What has one default for shards and another for backends, or for redis and for http.
fn coming_and_going(entries: &mut Entries, cluster: &Cluster) {
    let slow_start = cluster.slow_start.map(|time| Period(time).to_string());
    entries.optional("slow_start", slow_start.as_deref());
    let default = default_fail_open(cluster.backends.is_none());
    if entries.defaults || cluster.fail_open != default {
        entries.text("fail_open", word(words::FAIL_OPEN, &cluster.fail_open));
    }
}

fn sticky(written: &Sticky, defaults: bool) -> Entries {
    let mut entries = Entries::new(&keys::STICKY, defaults);
    if let Some(StickyCookie { attributes, mode, keys, max_idle, max_life }) = &written.cookie {
        let mut cookie = Entries::new(&keys::COOKIE, defaults);
        // As long as a key must be, and no two alike, so that it reads back.
        let set: Vec<String> = (1..=keys.len()).map(|n| format!("{SET}, not shown: {n}")).collect();
        cookie
            .text("name", &attributes.name)
            .text("mode", word(words::COOKIE_MODE, mode))
            .rows_or_unset("keys", &set)
            .period("max_idle", max_idle.unwrap_or_default())
            .period("max_life", max_life.unwrap_or_default())
            .text("http_only", attributes.http_only)
            .text("same_site", word(words::SAME_SITE, &attributes.same_site))
            .text("secure", word(words::SECURE, &attributes.secure))
            .text("path", &attributes.path)
            .optional("domain", attributes.domain.as_deref());
        entries.map("cookie", cookie);
    }
    entries.optional("header", written.header.as_deref());
    if let Some(prefix) = written.client_ip {
        let mut client_ip = Entries::new(&keys::CLIENT_IP, true);
        client_ip.text("v4", prefix.v4).text("v6", prefix.v6);
        entries.map("client_ip", client_ip);
    }
    entries.text("strict", written.strict);
    entries
}

fn with_shards(cluster: &Cluster, defaults: bool) -> Out {
    let sharding = sharding::sharding(cluster, defaults);
    let by = cluster.sharding.by;
    let reads = reads::reads(cluster, defaults);
    let timeouts = &cluster.timeouts;
    let mut times = Entries::new(&keys::TIMEOUTS, defaults);
    times.period("connect", timeouts.connect).period("request", timeouts.request);
    let mut upstream = Entries::new(&keys::UPSTREAM, defaults);
    if cluster.protocol == Protocol::Http {
        http::upstream(&mut upstream, cluster);
        tls::client(&mut upstream, cluster.tls.as_ref());
        times.period("queue", timeouts.queue);
        let shards = cluster.shards.iter().enumerate();
        let shards = shards.map(|(index, one)| shard(index, one, by, defaults)).collect();
        let mut entries = Entries::new(&keys::CLUSTER, defaults);
        entries
            .push("shards", Out::List(shards))
            .map("sharding", sharding)
            .map("reads", reads)
            .map("check", check(&cluster.check, defaults))
            .map("timeouts", times)
            .map("limits", limits::cluster(&cluster.limits, defaults))
            .map("upstream", upstream)
            .text("on_shard_down", "fail_fast");
        http::cluster(&mut entries, cluster);
        return Out::Map(entries.list);
    }
    times.period("fan_out", timeouts.fan_out).period("script", timeouts.script);
    if defaults || timeouts.stall != default_stall(timeouts.request) {
        times.period("stall", timeouts.stall);
    }
    times.period("client_idle", timeouts.client_idle);
    upstream
        .optional("user", cluster.upstream.user.as_deref())
        .optional("password", cluster.upstream.password.as_ref().map(|_| SET))
        .text("mode", word(words::UPSTREAM_MODE, &cluster.dedicated.always));
    tls::client(&mut upstream, cluster.tls.as_ref());
    let mut redis = Entries::new(&keys::CLUSTER_REDIS, defaults);
    let commands = cluster.commands.iter().map(|one| (one.name.clone(), command(one)));
    let commands: Vec<_> = commands.collect();
    if defaults || !commands.is_empty() {
        redis.push("commands", Out::Map(commands));
    }
    let mut slowlog = Entries::new(&keys::insight::SLOWLOG, defaults);
    slowlog.period("threshold", cluster.redis.slow).text("entries", cluster.redis.slow_entries);
    redis
        .map("slowlog", slowlog)
        .text("big", Size(cluster.redis.big))
        .text("redact", cluster.redis.redact);
    let keyless = cluster.shards.get(cluster.keyless).filter(|_| cluster.keyless > 0);
    redis
        .optional("keyless_shard", keyless.map(|shard| &*shard.name))
        .text("script_shebang_reads", cluster.shebang_reads);
    let mut entries = Entries::new(&keys::CLUSTER, defaults);
    if let Some(written) = &cluster.sentinel {
        entries.map("sentinel", sentinel::sentinel(written, &cluster.shards, defaults));
    } else if let Some(written) = &cluster.redis_cluster {
        entries.map("redis_cluster", seeds::seeds(written, defaults));
    } else {
        let shards = cluster.shards.iter().enumerate();
        let shards = shards.map(|(index, one)| shard(index, one, by, defaults)).collect();
        entries.push("shards", Out::List(shards));
    }
    if cluster.redis_cluster.is_none() {
        entries.map("sharding", sharding);
    }
    entries.map("reads", reads);
    coming_and_going(&mut entries, cluster);
    entries
        .map("check", check(&cluster.check, defaults))
        .map("timeouts", times)
        .map("limits", limits::shared(&cluster.limits, defaults))
        .map("dedicated", dedicated(&cluster.dedicated, defaults))
        .map("upstream", upstream)
        .map("redis", redis)
        .text("coalesce", cluster.redis.coalesce)
        .text("on_shard_down", "fail_fast")
        .period("failover_wait", cluster.outage.wait)
        .text("failover_queue", cluster.outage.queue);
    Out::Map(entries.list)
}

fn dedicated(written: &Dedicated, defaults: bool) -> Entries {
    let mut entries = Entries::new(&keys::DEDICATED, defaults);
    entries
        .text("max_per_backend", written.max_per_backend)
        .period("wait_timeout", written.wait)
        .period("max_lease_idle", written.max_lease_idle)
        .period("idle", written.idle)
        .period("lifetime", written.lifetime)
        .text("min", written.min);
    entries
}

fn shard(index: usize, shard: &Shard, by: ShardingBy, defaults: bool) -> Out {
    let mut entries = Entries::new(&keys::SHARD, defaults);
    let is_given = shard.name != format!("s{index}");
    // Written out where it was not, a name would move keys.
    let shown = match by.asks_identity() {
        true => shard.identity == shard.name,
        false => defaults || is_given,
    };
    if shown {
        entries.text("name", &shard.name);
    }
    let is_weighed = by.asks_identity() || by == ShardingBy::Modulo;
    if is_weighed && (defaults || shard.weight != 1) {
        entries.text("weight", shard.weight);
    }
    if let Some(primary) = &shard.primary {
        entries.push("primary", member(primary, defaults));
    }
    if defaults || !shard.replicas.is_empty() {
        let replicas = shard.replicas.iter().map(|one| member(one, defaults)).collect();
        entries.push("replicas", Out::List(replicas));
    }
    Out::Map(entries.list)
}

fn member(member: &Member, defaults: bool) -> Out {
    let mut entries = Entries::new(&keys::MEMBER, defaults);
    entries
        .text("address", &member.address)
        .text("weight", member.weight)
        .text("tier", member.tier)
        .text("admin", word(words::ADMIN, &member.admin));
    match entries.list.len() {
        1 => Out::Text(member.address.to_string()),
        _ => Out::Map(entries.list),
    }
}

fn check(check: &Check, defaults: bool) -> Entries {
    let mut entries = Entries::new(&keys::CHECK, defaults);
    entries
        .period("interval", check.interval)
        .period("fast_interval", check.fast_interval)
        .period("down_interval", check.down_interval)
        .period("timeout", check.timeout)
        .text("rise", check.rise)
        .text("fall", check.fall)
        .period("startup_grace", check.startup_grace);
    entries
}

fn http_check(check: &HttpCheck, defaults: bool) -> Out {
    let text = |value: &HeaderValue| match value.is_sensitive() {
        true => SET.to_owned(),
        false => String::from_utf8_lossy(value.as_bytes()).into_owned(),
    };
    let mut entries = Entries::new(&keys::CHECK_HTTP, defaults);
    entries.text("method", &check.method).text("path", &check.path);
    entries.optional("host", check.host.as_ref().map(text).as_deref());
    if defaults || check.status != HttpCheck::default().status {
        let range = |(first, last): &(u16, u16)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        let ranges: Vec<String> = check.status.iter().map(range).collect();
        entries.row("status", &ranges);
    }
    let headers = check.headers.iter();
    let headers: Vec<_> =
        headers.map(|(name, value)| (name.to_string(), Out::Text(text(value)))).collect();
    if defaults || !headers.is_empty() {
        entries.push("headers", Out::Map(headers));
    }
    entries
        .optional("body_contains", check.body_contains.as_deref())
        .optional("weight_header", check.weight_header.as_ref().map(HeaderName::as_str));
    Out::Map(entries.list)
}

fn command(command: &CustomCommand) -> Out {
    let mut entries = Entries::new(&keys::COMMAND, true);
    entries.text("access", word(words::ACCESS, &command.access));
    if let Some((first, last, step)) = command.keys {
        entries.row("keys", &[first, last, step].map(|position| position.to_string()));
    }
    Out::Map(entries.list)
}

/// What stands for a password.
const SET: &str = "(set)";

impl Out {
    /// Nothing but keys that are not set.
    fn is_unset(&self) -> bool {
        match self {
            Self::Unset => true,
            Self::Map(entries) => {
                !entries.is_empty() && entries.iter().all(|(_, value)| value.is_unset())
            }
            Self::Text(_) | Self::Row(_) | Self::List(_) => false,
        }
    }

    fn write(&self, text: &mut String, depth: usize) {
        let indent = "  ".repeat(depth);
        match self {
            Self::Map(entries) => {
                for (name, value) in entries {
                    // Variables stand in values alone.
                    let name = if name.contains("${") { in_quotes(name) } else { quoted(name) };
                    match value {
                        Self::Unset => *text += &format!("{indent}# {name}: not set\n"),
                        Self::Map(inner) if inner.is_empty() => {
                            *text += &format!("{indent}{name}: {{}}\n");
                        }
                        Self::List(inner) if inner.is_empty() => {
                            *text += &format!("{indent}{name}: []\n");
                        }
                        // A key above nothing but comments would be a key without a value.
                        Self::Map(_) if value.is_unset() => {
                            *text += &format!("{indent}# {name}:\n");
                            value.write(text, depth + 1);
                        }
                        Self::Map(_) | Self::List(_) => {
                            *text += &format!("{indent}{name}:\n");
                            value.write(text, depth + 1);
                        }
                        Self::Text(_) | Self::Row(_) => {
                            *text += &format!("{indent}{name}: ");
                            value.write(text, depth);
                            text.push('\n');
                        }
                    }
                }
            }
            Self::List(items) => {
                for item in items {
                    // The item is written as a block of its own, then its first line gets the dash.
                    let mut block = String::new();
                    item.write(&mut block, depth + 1);
                    *text += &format!("{indent}- {}\n", block.trim());
                }
            }
            Self::Text(value) => *text += &quoted(value),
            Self::Row(values) => {
                let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
                *text += &format!("[{}]", values.join(", "));
            }
            Self::Unset => {}
        }
    }
}

/// JSON's escapes are YAML's.
fn in_quotes(value: &str) -> String {
    serde_json::Value::String(value.to_owned()).to_string()
}

/// Plain when nothing in it means something to YAML or to us, else in double quotes.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | ':' | '-');
    let starts_well = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '/');
    // A dash alone would begin an item of a list.
    let start = value.strip_prefix('-').unwrap_or(value);
    let null = value.eq_ignore_ascii_case("null");
    if value.chars().all(plain) && start.starts_with(starts_well) && !value.ends_with(':') && !null
    {
        return value.to_owned();
    }
    in_quotes(&value.replace("${", "$${"))
}

#[cfg(test)]
mod tests;
