//! `limits:` of a listener and of a cluster: the values, and what they mean to a protocol. Not how
//! they are kept.

use crate::{
    config::{
        Cluster, Listener, Protocol,
        file::{Key, Node, Value, join},
        section::{Field, Reader, Section},
        units::RateText,
        values::Wrong,
    },
    net::prefix::Prefix,
    policy::limit::{Allowance, Rate},
    topology::{
        admission::BackendLimits,
        door::{DoorLimits, PerClient},
    },
};
use std::num::NonZeroUsize;

/// Of a listener.
pub(super) fn listener(
    reader: &mut Reader<'_, '_>,
    section: &Section<'_>,
    protocol: Option<Protocol>,
) -> DoorLimits {
    let limits = reader.section(section, "limits");
    let client = reader.section(&limits, "per_client");
    let per_client = PerClient {
        connections: reader.integer(&client, "connections"),
        rate: allowance(reader, &client, "rate", "burst"),
        requests: allowance(reader, &client, "requests", "requests_burst"),
        prefix: Prefix {
            v4: reader.integer(&client, "v4").unwrap_or_default(),
            v6: reader.integer(&client, "v6").unwrap_or_default(),
        },
    };
    if let (Some(Protocol::Redis | Protocol::Tcp), Some(field)) =
        (protocol, client.field("requests"))
    {
        let message = "only an http listener counts requests; `rate` limits new connections";
        reader.notes.error(&field.key_at, &field.path, message);
    }
    DoorLimits { max_connections: reader.integer(&limits, "max_connections"), per_client }
}

fn allowance(
    reader: &mut Reader<'_, '_>,
    client: &Section<'_>,
    rate: &str,
    burst: &str,
) -> Option<Allowance> {
    let parse = |text: &str, _: &_| {
        text.parse().map(|RateText(rate)| rate).map_err(|error| Wrong::from(format!("{error}")))
    };
    let written: Option<Rate> = reader.value(client, rate, parse);
    let size = reader.integer(client, burst);
    if let (None, Some(field)) = (client.field(rate), client.field(burst)) {
        let message = format!("it is for `{rate}`, which is not given");
        reader.notes.error(&field.key_at, &field.path, message);
    }
    let rate = written?;
    Some(Allowance { rate, burst: size.unwrap_or(rate.count) })
}

/// Of a cluster.
pub(super) fn cluster(reader: &mut Reader<'_, '_>, section: &Section<'_>) -> BackendLimits {
    let limits = reader.section(section, "limits");
    let read = BackendLimits {
        max_connections: reader.integer(&limits, "max_connections"),
        max_in_flight: reader.integer(&limits, "max_in_flight"),
        queue: reader.integer(&limits, "queue").unwrap_or_default(),
    };
    if let (None, None, Some(field)) =
        (read.max_connections, read.max_in_flight, limits.field("queue"))
        && reader.notes.errors() == 0
    {
        let message = "nobody waits without `max_in_flight` or `max_connections`";
        reader.notes.error(&field.key_at, &field.path, message);
    }
    read
}

/// What a cluster's limits mean when a listener of this protocol uses it.
pub(super) fn of_protocol<'l>(
    reader: &mut Reader<'_, '_>,
    (key, node): (&Key, &Node),
    cluster: &Cluster,
    listeners: impl Iterator<Item = &'l Listener>,
    workers: Option<NonZeroUsize>,
) {
    let path = join("clusters", &key.name);
    let protocols: Vec<Protocol> = listeners.map(|listener| listener.protocol).collect();
    if protocols.contains(&Protocol::Http)
        && let Some(field) = written(node, &path, "limits", "max_connections")
    {
        reader.notes.not_supported(&field.key_at, &field.path, "max_connections over http");
    }
    if !protocols.contains(&Protocol::Redis) {
        return;
    }
    for (scope, name) in [("limits", "queue"), ("timeouts", "queue")] {
        if let Some(field) = written(node, &path, scope, name) {
            let message = "requests of redis do not wait: above max_in_flight they are refused at once; leave it out";
            reader.notes.error(&field.key_at, &field.path, message);
        }
    }
    let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let workers = workers.map_or_else(cores, NonZeroUsize::get);
    let needed = workers * DATABASES * RESP_CLASSES;
    if let Some(most) = cluster.limits.max_connections
        && usize::try_from(most).is_ok_and(|most| most < needed)
        && let Some(field) = written(node, &path, "limits", "max_connections")
    {
        let message = format!(
            "{most} is below the shared connections that one backend may need: {needed} = workers ({workers}) x databases ({DATABASES}) x RESP classes ({RESP_CLASSES})"
        );
        reader.notes.error(&field.node.at, &field.path, message);
    }
}

/// A key of a map of a cluster, when it is written.
fn written<'n>(cluster: &'n Node, path: &str, scope: &str, name: &str) -> Option<Field<'n>> {
    let inner = entry(cluster, scope)?.1;
    let (key, node) = entry(inner, name)?;
    let path = join(&join(path, scope), name);
    Some(Field { node, path, key_at: key.at.clone() })
}

fn entry<'n>(node: &'n Node, name: &str) -> Option<(&'n Key, &'n Node)> {
    let Value::Map(entries) = &node.value else { return None };
    let (key, node) = entries.iter().find(|(key, _)| key.name == name)?;
    Some((key, node))
}

/// Clients may SELECT 0 to 15; each database has connections of its own.
const DATABASES: usize = 16;
/// RESP2 alone; connections of another protocol version are others.
const RESP_CLASSES: usize = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Env};
    use std::time::Duration;

    /// A file with one listener, whose cluster has these members.
    fn file(protocol: &str, listener: &str, members: &str, cluster: &str) -> String {
        format!(
            "workers: 4\nlisteners: [{{ bind: 127.0.0.1:1, protocol: {protocol}, cluster: c, {listener} }}]\n\
             clusters: {{ c: {{ {members}, {cluster} }} }}\n"
        )
    }

    fn redis(listener: &str, cluster: &str) -> String {
        file("redis", listener, "shards: [{ primary: a:1 }]", cluster)
    }

    fn tcp(listener: &str, cluster: &str) -> String {
        file("tcp", listener, "backends: [a:1]", cluster)
    }

    fn told(text: &str) -> Vec<String> {
        let (_, findings) = Config::parse(text, "f.yaml", Env::empty());
        findings.iter().map(ToString::to_string).collect()
    }

    fn good(text: &str) -> Config {
        let (config, findings) = Config::parse(text, "f.yaml", Env::empty());
        config.unwrap_or_else(|| panic!("{findings}\n{text}"))
    }

    #[test]
    fn limits_mean_what_they_say() {
        let none = good(&tcp("", ""));
        assert_eq!(none.listeners[0].limits, DoorLimits::default());
        assert_eq!(none.clusters[0].limits, BackendLimits::default());
        let config = good(&tcp(
            "limits: { max_connections: 9, per_client: { connections: 2, rate: 600/m, v4: 24 } }",
            "limits: { max_in_flight: 3, max_connections: 4, queue: 0 }, timeouts: { queue: 2s }",
        ));
        let limits = config.listeners[0].limits;
        assert_eq!(limits.max_connections, Some(9));
        let rate = Rate { count: 600, period: Duration::from_secs(60) };
        assert_eq!(limits.per_client.rate, Some(Allowance { rate, burst: 600 }));
        assert_eq!(limits.per_client.connections, Some(2));
        assert_eq!(limits.per_client.prefix, Prefix { v4: 24, v6: 64 });
        let cluster = &config.clusters[0];
        let expected = BackendLimits { max_connections: Some(4), max_in_flight: Some(3), queue: 0 };
        assert_eq!((cluster.limits, cluster.timeouts.queue.as_secs()), (expected, 2));
        let config = good(&redis("limits: { per_client: { rate: 5/s, burst: 7 } }", ""));
        assert_eq!(config.listeners[0].limits.per_client.rate.unwrap().burst, 7);
    }

    #[test]
    fn limits_that_say_nothing_or_too_much_are_told() {
        let client = |keys: &str| tcp(&format!("limits: {{ per_client: {{ {keys} }} }}"), "");
        for (text, expected) in [
            (client("rate: 5"), "listeners[0].limits.per_client.rate: '5' is not a rate; write"),
            (
                client("connections: 1, burst: 5"),
                "listeners[0].limits.per_client.burst: it is for `rate`, which is not given",
            ),
            (
                client("v4: 24"),
                "listeners[0].limits.per_client: it needs exactly one of connections, rate, requests",
            ),
            (
                client("requests: 5/s"),
                "listeners[0].limits.per_client.requests: only an http listener counts requests",
            ),
            (
                tcp("", "limits: { queue: 5 }"),
                "clusters.c.limits.queue: nobody waits without `max_in_flight`",
            ),
            (
                redis("", "limits: { max_in_flight: 5, queue: 5 }"),
                "clusters.c.limits.queue: requests of redis do not wait",
            ),
            (
                redis("", "timeouts: { queue: 2s }"),
                "clusters.c.timeouts.queue: requests of redis do not wait",
            ),
            (
                redis("", "limits: { max_connections: 63 }"),
                "clusters.c.limits.max_connections: 63 is below the shared connections that one backend may need: 64 = workers (4) x databases (16) x RESP classes (1)",
            ),
            (
                file("http", "", "backends: [a:1]", "limits: { max_connections: 63 }"),
                "clusters.c.limits.max_connections: `max_connections over http` is not supported yet",
            ),
        ] {
            let told = told(&text);
            assert!(
                told.len() == 1 && told[0].starts_with(expected),
                "{text}: {told:#?} {expected}"
            );
        }
        good(&redis("", "limits: { max_connections: 64 }"));
        good(&file("http", "limits: { per_client: { requests: 5/s } }", "backends: [a:1]", ""));
    }
}
