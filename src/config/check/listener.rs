//! `listeners`: where clients come in. Not the clusters that they reach.

use super::{bind, http, limits, routes, users};
use crate::{
    config::{
        Admin, Listener, Protocol, RedisListener, Route, Secret,
        file::{Node, Value, short},
        keys,
        nearest::nearest,
        section::{Reader, Section},
        values::{self, Wrong},
        words,
    },
    net::addr::Bind,
};
use ipnet::IpNet;
use std::{collections::HashMap, net::IpAddr};

/// Where a cluster is, and which of `shards` and `backends` it has; empty when it is neither.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) index: usize,
    pub(super) source: &'static str,
}

/// All listeners.
pub(super) fn listeners(
    reader: &mut Reader<'_, '_>,
    root: &Section<'_>,
    clusters: &HashMap<&str, Known>,
    admin: &Admin,
) -> Vec<Listener> {
    let items: Vec<(String, &Node)> = reader.items(root, "listeners").collect();
    if let (true, Some(field)) = (items.is_empty(), root.field("listeners"))
        && matches!(field.node.value, Value::List(_))
    {
        reader.notes.error(&field.key_at, &field.path, "it is empty; nobody could connect");
    }
    let mut listeners = Vec::new();
    let mut taken = Taken::default();
    if admin.explicit {
        taken.binds.push((admin.bind.clone(), "admin.bind".to_owned()));
    }
    for (path, node) in items {
        let Some(section) = reader.open(node, &keys::LISTENER, &path, &first(node)) else {
            continue;
        };
        listeners.extend(listener(reader, &section, clusters, &mut taken));
    }
    listeners
}

/// What earlier listeners have, and where.
#[derive(Default)]
struct Taken {
    names: HashMap<String, String>,
    binds: Vec<(Bind, String)>,
}

fn listener(
    reader: &mut Reader<'_, '_>,
    section: &Section<'_>,
    clusters: &HashMap<&str, Known>,
    taken: &mut Taken,
) -> Option<Listener> {
    let name = reader.value(section, "name", |text, _| values::name(text));
    let bind = reader.value(section, "bind", bind);
    let protocol = reader
        .value(section, "protocol", |text, kind| values::meaning(text, kind, words::PROTOCOL));
    let cluster_of = |text: &str, _: &keys::Kind| find_cluster(text, clusters);
    // That there is no cluster, or that they are no map, is a finding already.
    let cluster = match clusters.is_empty() {
        true => None,
        false => reader.value(section, "cluster", cluster_of),
    };
    let mut routes = http::routes(reader, section, clusters, protocol != Some(Protocol::Redis));
    if let (Some(_), Some(field)) = (section.field("cluster"), section.field("routes")) {
        let message = "`cluster` is given too; a route without `match` is for all other requests";
        reader.notes.error(&field.key_at, &field.path, message);
    }
    let redis = redis(reader, section, clusters);
    let of_http = http::listener(reader, section);
    let proxy_protocol = trusted(reader, section);
    let tls = super::tls::listener(reader, section);
    let limits = limits::listener(reader, section, protocol);
    if let Some(protocol) = protocol {
        fits(reader, section, protocol, cluster.map_or("", |cluster| cluster.source));
    }
    if let (true, Some(cluster)) = (routes.is_empty() && protocol == Some(Protocol::Http), cluster)
    {
        routes.push(Route { cluster: cluster.index, ..Route::default() });
    }
    if let Some(protocol) = protocol {
        routes::fit(reader, section, protocol, &routes, clusters);
    }
    let rest = match protocol {
        Some(Protocol::Redis) => routes.iter().find(|one| one.takes_all()),
        _ => routes.first(),
    };
    let cluster = cluster.map(|cluster| cluster.index).or_else(|| rest.map(|one| one.cluster));

    if let (Some(bind), Some(field)) = (&bind, section.field("bind")) {
        if let Some((other, path)) = taken.binds.iter().find(|(other, _)| clash(bind, other)) {
            let message = format!("'{bind}' cannot be bound beside {path}, {other}");
            reader.notes.error(&field.node.at, &field.path, message);
        }
        taken.binds.push((bind.clone(), field.path));
    }
    if let (Some(name), Some(field)) = (&name, section.field("name")) {
        if let Some(path) = taken.names.get(name) {
            let message = format!("'{name}' is the name of {path} already");
            reader.notes.error(&field.node.at, &field.path, message);
        } else {
            taken.names.insert(name.clone(), section.path.clone());
        }
    }
    let bind = bind?;
    let name = name.unwrap_or_else(|| bind.to_string());
    Some(Listener {
        name,
        bind,
        protocol: protocol?,
        cluster: cluster?,
        redis,
        proxy_protocol,
        tls,
        limits,
        routes,
        http: of_http,
    })
}

/// A protocol with roles needs a cluster that has them, one without needs one without.
fn fits(reader: &mut Reader<'_, '_>, section: &Section<'_>, protocol: Protocol, source: &str) {
    let needed = match protocol {
        Protocol::Redis if matches!(source, "sentinel" | "redis_cluster") => source,
        Protocol::Redis => "shards",
        Protocol::Http if source == "redis_cluster" => "backends",
        Protocol::Tcp => "backends",
        Protocol::Http if source == "sentinel" => "shards",
        Protocol::Http => source,
    };
    let word = protocol.as_str();
    if let (false, Some(field)) = (source.is_empty() || source == needed, section.field("cluster"))
    {
        let message =
            format!("a {word} listener needs a cluster with `{needed}`, this one has `{source}`");
        reader.notes.error(&field.node.at, &field.path, message);
    }
    if let (Protocol::Redis, Some(field)) = (protocol, section.field("proxy_protocol")) {
        reader.notes.not_supported(&field.key_at, &field.path, "proxy_protocol");
    }
    let own = |key: &str| match key {
        "redis" => protocol == Protocol::Redis,
        "routes" => protocol != Protocol::Tcp,
        _ => protocol == Protocol::Http,
    };
    for (key, whose) in [("redis", "a redis"), ("http", "an http"), ("routes", "an http or redis")]
    {
        if let (false, Some(field)) = (own(key), section.field(key)) {
            let message = format!("only {whose} listener has this");
            reader.notes.error(&field.key_at, &field.path, message);
        }
    }
}

/// The proxies whose word is taken for who the client is.
fn trusted(reader: &mut Reader<'_, '_>, listener: &Section<'_>) -> Vec<IpNet> {
    let section = reader.section(listener, "proxy_protocol");
    let items: Vec<_> = reader.items(&section, "trusted").collect();
    let networks = items.into_iter().filter_map(|(path, node)| {
        reader.parse(node, &path, &keys::Kind::Network, |text, _| network(text))
    });
    let networks: Vec<_> = networks.collect();
    if let Some(field) = section.field("trusted")
        && matches!(&field.node.value, Value::List(items) if items.is_empty())
    {
        reader.notes.error(&field.key_at, &field.path, "it is empty; nobody would send a header");
    }
    networks
}

pub(super) fn network(text: &str) -> Result<IpNet, Wrong> {
    let single = text.parse::<IpAddr>().map(IpNet::from);
    single.or_else(|_| text.parse()).map_err(|_| {
        let text = short(text);
        Wrong::from(format!("'{text}' is not a network; write 10.0.0.0/8, or one address"))
    })
}

pub(super) fn find_cluster<'k>(
    text: &str,
    clusters: &'k HashMap<&str, Known>,
) -> Result<&'k Known, Wrong> {
    clusters.get(text).ok_or_else(|| {
        let mut names: Vec<&str> = clusters.keys().copied().collect();
        names.sort_unstable();
        let meant = nearest(text, names.iter().copied()).map(str::to_owned);
        let known = match (&meant, names.as_slice()) {
            (None, [_, ..]) if names.len() <= 10 => format!("; there is {}", names.join(", ")),
            _ => String::new(),
        };
        Wrong::Value(format!("there is no cluster '{}'{known}", short(text)), meant)
    })
}

fn redis(
    reader: &mut Reader<'_, '_>,
    listener: &Section<'_>,
    clusters: &HashMap<&str, Known>,
) -> RedisListener {
    let section = reader.section(listener, "redis");
    let password = reader.password(&section).map(Secret);
    let users = users::users(reader, &section, clusters, password.is_some());
    let passthrough = reader.choice(&section, "auth", words::AUTH);
    if let (true, Some(field)) = (passthrough, section.field("auth"))
        && (password.is_some() || !users.is_empty())
    {
        let message =
            "with passthrough the backends know the users; leave `password` and `users` out";
        reader.notes.error(&field.node.at, &field.path, message);
    }
    let redis = RedisListener {
        password,
        users,
        passthrough,
        max_pipeline: reader.integer(&section, "max_pipeline").unwrap_or_default(),
        max_bulk: reader.size(&section, "max_bulk").unwrap_or_default(),
        client_output_limit: reader.size(&section, "client_output_limit").unwrap_or_default(),
        slow_client_grace: reader.duration(&section, "slow_client_grace"),
        split_writes: reader.switch(&section, "split_writes"),
        mget_embeds: reader.choice(&section, "mget_partial", words::MGET),
        allow: commands(reader, &section, "allow"),
        deny: commands(reader, &section, "deny"),
        keys_max: reader.integer(&section, "keys_max").unwrap_or_default(),
        strict_order: reader.switch(&section, "strict_order"),
        multi: reader.choice(&section, "multi", words::MULTI),
        multi_max_commands: reader.integer(&section, "multi_max_commands").unwrap_or_default(),
        multi_max_bytes: reader.size(&section, "multi_max_bytes").unwrap_or_default(),
    };
    if let Some(both) = redis.allow.iter().find(|command| redis.deny.contains(command))
        && let Some(field) = section.field("deny")
    {
        let message = format!("{both} is in `allow` too; keep one of the two");
        reader.notes.error(&field.key_at, &field.path, message);
    }
    redis
}

fn commands(reader: &mut Reader<'_, '_>, section: &Section<'_>, name: &str) -> Vec<String> {
    let mut commands = Vec::new();
    for (path, node) in reader.items(section, name) {
        let command =
            reader.parse(node, &path, &keys::Kind::Command, |text, _| values::command(text));
        commands.extend(command);
    }
    commands
}

/// True when the kernel would refuse the second: the same path, or the same port on the same
/// address or on all addresses of that family. Port 0 is any free one.
fn clash(one: &Bind, other: &Bind) -> bool {
    match (one, other) {
        (Bind::Tcp(a), Bind::Tcp(b)) => {
            let all = a.ip().is_unspecified() || b.ip().is_unspecified();
            let same = a.ip() == b.ip() || all && a.is_ipv4() == b.is_ipv4();
            a.port() != 0 && a.port() == b.port() && same
        }
        (Bind::Unix(a), Bind::Unix(b)) => a == b,
        _ => false,
    }
}

/// Where an item of a list begins.
pub(super) fn first(node: &Node) -> std::ops::Range<usize> {
    node.at.start..node.at.start + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_clash_as_the_kernel_says() {
        for (one, other, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("[::]:1", "0.0.0.0:1", false),
            ("[::]:1", "[::1]:1", true),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("unix:/a", "unix:/a", true),
            ("unix:/a", "127.0.0.1:1", false),
        ] {
            let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(clash(&one, &other), expected, "{one} {other}");
        }
    }
}
