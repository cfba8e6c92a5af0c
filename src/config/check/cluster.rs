//! `clusters.<name>`: how a group of backends is read, probed and waited for. Not its members:
//! see `shard`.

use super::{
    balance, dedicated, http, insight, limits, probe, reads, redis_cluster, sentinel, shard,
    sharding, sticky, tls,
};
use crate::{
    config::{
        Backends, Check, Cluster, CustomCommand, Protocol, Shard, default_stall,
        file::{self, join},
        keys,
        nearest::nearest,
        section::{Reader, Section},
        values, words,
    },
    policy::access::Access,
    topology::{Credentials, Outage, Timeouts},
};
use std::collections::HashSet;

/// The cluster under that key; `None` when it is not even a map.
pub(super) fn cluster(
    reader: &mut Reader<'_, '_>,
    key: &file::Key,
    node: &file::Node,
    protocol: Option<Protocol>,
) -> Option<Cluster> {
    let path = join("clusters", &key.name);
    if !keys::is_name(&key.name) {
        let message = "it is not a name: it has 1 to 64 of A-Z a-z 0-9 _ . -";
        reader.notes.error(&key.at, &path, message);
    }
    let section = reader.open(node, &keys::CLUSTER, &path, &key.at)?;
    at_most_one_source(reader, &section);
    let mut shards = shard::shards(reader, &section);
    let sentinel = sentinel::sentinel(reader, &section).map(|(sentinel, masters)| {
        shards.extend(masters);
        sentinel::hints(reader, &section, &sentinel);
        sentinel
    });
    let backends = backends(reader, &section);
    let redis_cluster = redis_cluster::seeds(reader, &section);
    only_with_its_kind(reader, &section, protocol);
    let sharding = sharding::sharding(reader, &section, &mut shards);
    reader.value(&section, "on_shard_down", values::choice);
    let reads = reads::reads(reader, &section, &shards, protocol);
    if section.has("redis_cluster") {
        redis_cluster::promises_nothing(reader, &section, &reads);
    }
    let strategy = backends.as_ref().map_or(reads.balance, |backends| backends.balance);
    let of_upstream = reader.section(&section, "upstream");
    let mode = reader.choice(&of_upstream, "mode", words::UPSTREAM_MODE);
    if let (true, true, Some(field)) =
        (mode, section.has("redis_cluster"), of_upstream.field("mode"))
    {
        let message = "dedicated is not for redis_cluster: a client's own connection would stay at a node that gives slots away";
        reader.notes.error(&field.node.at, &field.path, message);
    }
    let of_http = http::cluster(reader, &section, &of_upstream);
    let by_kind = if section.has("backends") { Protocol::Tcp } else { Protocol::Redis };
    let checks = reader.section(&section, "check");
    let redis = reader.section(&section, "redis");
    let keyless = keyless(reader, &redis, &shards);
    Some(Cluster {
        name: key.name.clone(),
        protocol: protocol.unwrap_or(by_kind),
        shards,
        sentinel,
        sharding,
        backends,
        redis_cluster,
        reads,
        slow_start: balance::slow_start(reader, &section, strategy),
        fail_open: balance::fail_open(reader, &section),
        check: check(reader, &checks),
        http_check: probe::http(reader, &checks),
        timeouts: timeouts(reader, &section),
        limits: limits::cluster(reader, &section),
        upstream: upstream(reader, &of_upstream),
        tls: tls::upstream(reader, &of_upstream),
        keyless,
        shebang_reads: reader.switch(&redis, "script_shebang_reads"),
        commands: commands(reader, &redis),
        redis: insight::cluster(reader, &section, &redis),
        dedicated: dedicated::dedicated(reader, &section, mode),
        outage: outage(reader, &section),
        http: of_http,
    })
}

fn outage(reader: &mut Reader<'_, '_>, cluster: &Section<'_>) -> Outage {
    Outage {
        wait: reader.duration(cluster, "failover_wait"),
        queue: reader.integer(cluster, "failover_queue").unwrap_or_default(),
    }
}

/// That there is one at all is in the table.
fn at_most_one_source(reader: &mut Reader<'_, '_>, section: &Section<'_>) {
    let written: Vec<_> = keys::SOURCES.iter().filter_map(|name| section.field(name)).collect();
    if let [_, .., last] = written.as_slice() {
        let all = keys::SOURCES.join(", ");
        let message = format!("it has {} of {all}; it takes exactly one", written.len());
        reader.notes.error(&last.key_at, &section.path, message);
    }
}

/// Which of `shards`, `sentinel`, `redis_cluster` and `backends` a cluster has; empty for none of them, or several.
pub(super) fn source(node: &file::Node) -> &'static str {
    let file::Value::Map(entries) = &node.value else { return "" };
    let has = |name: &str| entries.iter().any(|(key, _)| key.name == name);
    let all = ["shards", "sentinel", "redis_cluster", "backends"];
    let mut written = all.into_iter().filter(|name| has(name));
    match (written.next(), written.next()) {
        (Some(only), None) => only,
        _ => "",
    }
}

/// Keys that say nothing to a cluster of another kind: who writes one expects something of it.
fn only_with_its_kind(
    reader: &mut Reader<'_, '_>,
    cluster: &Section<'_>,
    protocol: Option<Protocol>,
) {
    let has_shards = cluster.has("shards") || cluster.has("sentinel");
    let (own, other) = match (has_shards, cluster.has("backends")) {
        (true, false) if cluster.has("sentinel") => ("sentinel", "backends"),
        (true, false) => ("shards", "backends"),
        (false, true) => ("backends", "shards"),
        (false, false) if cluster.has("redis_cluster") => ("redis_cluster", "backends"),
        _ => return,
    };
    let has_roles = own != "backends";
    let http = protocol == Some(Protocol::Http);
    let whose = |section: &str, key: &str| match (section, key) {
        ("", "balance" | "failback" | "sticky" | "send_proxy") if has_roles => Some(other),
        ("", "sharding") if own == "redis_cluster" => Some("shards"),
        ("", "sharding" | "reads" | "on_shard_down") if own == "backends" => Some(other),
        ("", "redis" | "coalesce" | "dedicated" | "failover_wait" | "failover_queue")
        | ("upstream", "user" | "password" | "password_file" | "mode")
            if own == "backends" =>
        {
            Some(other)
        }
        ("timeouts", "fan_out" | "script" | "stall" | "client_idle") if own == "backends" => {
            Some(other)
        }
        ("timeouts", "request") if own == "backends" && !http => Some("an http listener"),
        ("timeouts", "idle") | ("check", "tcp" | "http") if has_roles && !http => Some(other),
        ("", "redis" | "coalesce" | "dedicated" | "failover_wait" | "failover_queue")
        | ("timeouts", "fan_out" | "script" | "stall" | "client_idle")
        | ("upstream", "user" | "password" | "password_file" | "mode")
            if http =>
        {
            Some("a redis listener")
        }
        ("", "send_proxy") | ("timeouts", "idle") if http => Some("a tcp listener"),
        ("", "shard_key" | "retry") | ("upstream", "http2" | "idle")
            if protocol.is_some() && !http =>
        {
            Some("an http listener")
        }
        _ => None,
    };
    let mut sections = vec![("", cluster.path.clone(), cluster.entries())];
    for name in ["timeouts", "check", "upstream"] {
        if let Some(field) = cluster.field(name)
            && let file::Value::Map(entries) = &field.node.value
        {
            sections.push((name, field.path, entries));
        }
    }
    for (section, path, entries) in sections {
        for (key, _) in entries {
            let message = match whose(section, &key.name) {
                None => continue,
                Some(source @ ("shards" | "backends")) => {
                    format!("it is for a cluster with `{source}`; this one has `{own}`")
                }
                Some(listener) => format!("it is for a cluster of {listener}"),
            };
            reader.notes.error(&key.at, &join(&path, &key.name), message);
        }
    }
}

fn backends(reader: &mut Reader<'_, '_>, cluster: &Section<'_>) -> Option<Backends> {
    let (balance, failback) = balance::balance(reader, cluster);
    let sticky = sticky::sticky(reader, cluster, balance);
    let members = shard::backends(reader, cluster);
    let version = |text: &str, kind: &keys::Kind| values::meaning(text, kind, words::SEND_PROXY);
    let send_proxy = reader.value(cluster, "send_proxy", version);
    cluster.has("backends").then_some(Backends { members, balance, failback, sticky, send_proxy })
}

fn check(reader: &mut Reader<'_, '_>, section: &Section<'_>) -> Check {
    // It has no keys yet: the reading refuses what is in it.
    let _ = reader.section(section, "tcp");
    Check {
        interval: reader.duration(section, "interval"),
        fast_interval: reader.duration(section, "fast_interval"),
        down_interval: reader.duration(section, "down_interval"),
        timeout: reader.duration(section, "timeout"),
        rise: reader.integer(section, "rise").unwrap_or_default(),
        fall: reader.integer(section, "fall").unwrap_or_default(),
        startup_grace: reader.duration(section, "startup_grace"),
    }
}

fn timeouts(reader: &mut Reader<'_, '_>, cluster: &Section<'_>) -> Timeouts {
    let section = reader.section(cluster, "timeouts");
    let request = reader.duration(&section, "request");
    let stall = reader.value(&section, "stall", values::duration);
    Timeouts {
        connect: reader.duration(&section, "connect"),
        request,
        fan_out: reader.duration(&section, "fan_out"),
        script: reader.duration(&section, "script"),
        stall: stall.unwrap_or_else(|| default_stall(request)),
        client_idle: reader.duration(&section, "client_idle"),
        idle: reader.duration(&section, "idle"),
        queue: reader.duration(&section, "queue"),
    }
}

/// Who we are to those that are asked.
pub(super) fn upstream(reader: &mut Reader<'_, '_>, section: &Section<'_>) -> Credentials {
    let credentials =
        Credentials { user: reader.text(section, "user"), password: reader.password(section) };
    let has_password = ["password", "password_file"].iter().any(|key| section.has_or_meant(key));
    if let (Some(field), false) = (section.field("user"), has_password) {
        let message = "a user needs `password` or `password_file`";
        reader.notes.error(&field.key_at, &field.path, message);
    }
    credentials
}

/// The place of the shard that takes what has no key.
fn keyless(reader: &mut Reader<'_, '_>, redis: &Section<'_>, shards: &[Shard]) -> usize {
    let place = |text: &str, _: &keys::Kind| {
        shards.iter().position(|shard| shard.name == text).ok_or_else(|| {
            let meant = nearest(text, shards.iter().map(|shard| &*shard.name));
            let message = format!("there is no shard '{}'", file::short(text));
            values::Wrong::Value(message, meant.map(str::to_owned))
        })
    };
    reader.value(redis, "keyless_shard", place).unwrap_or_default()
}

fn commands(reader: &mut Reader<'_, '_>, redis: &Section<'_>) -> Vec<CustomCommand> {
    let mut commands = Vec::new();
    let mut names = HashSet::new();
    for (key, node) in reader.named(redis, "commands") {
        let path = join(&join(&redis.path, "commands"), &key.name);
        let Ok(name) = values::command(&key.name) else {
            reader.notes.error(&key.at, &path, "it is not a command; write MY.GET");
            continue;
        };
        if !names.insert(name.clone()) {
            let message = format!("{name} is given already; capitals make no difference");
            reader.notes.error(&key.at, &path, message);
        }
        let Some(section) = reader.open(node, &keys::COMMAND, &path, &key.at) else { continue };
        let access = |text: &str, kind: &keys::Kind| values::meaning(text, kind, words::ACCESS);
        let access = reader.value(&section, "access", access).unwrap_or(Access::Write);
        commands.push(CustomCommand { name, access, keys: positions(reader, &section) });
    }
    commands
}

/// First key, last key, step.
fn positions(reader: &mut Reader<'_, '_>, section: &Section<'_>) -> Option<(i32, i32, i32)> {
    let field = section.field("keys")?;
    let errors = reader.notes.errors();
    let mut numbers = Vec::new();
    for (path, node) in reader.items(section, "keys") {
        let kind = &keys::POSITION;
        let number = reader.parse(node, &path, kind, values::integer).flatten();
        numbers.extend(number.and_then(|number| i32::try_from(number).ok()));
    }
    if reader.notes.errors() > errors {
        return None;
    }
    match numbers.as_slice() {
        &[first, last, step] if first >= 1 && step >= 1 && (last < 0 || last >= first) => {
            Some((first, last, step))
        }
        _ => {
            let message = "it is [first key, last key, step]: the first and the step from 1, the last not before the first, or negative to count from the end";
            reader.notes.error(&field.key_at, &field.path, message);
            None
        }
    }
}
