//! The rules one by one: a mistake in an otherwise good file, and every finding it gives.

use crate::{
    config::{Config, Env, Findings, Protocol, Secret, Sticky},
    net::prefix::Prefix,
    policy::{access::Access, balance::Strategy, reads::ReadFrom},
};
use std::{path::Path, time::Duration};

const LISTENER: &str = "{ name: l, bind: 127.0.0.1:1, protocol: redis, cluster: c }";
const SHARDS: &str = "shards: [{ primary: 127.0.0.1:2 }]";

fn parse(text: &str) -> (Option<Config>, Findings) {
    let variable = |name: &str| match name {
        "PASSWORD" => Some("from: {environment}".to_owned()),
        "HOST" => Some("10.0.0.9".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    let file = |path: &Path| match path.to_str() {
        Some("dir/secret") => Ok("from file\n".to_owned()),
        Some("dir/keys") => Ok("0123456789abcdef\nfedcba9876543210\r\n\n".to_owned()),
        Some("dir/empty") => Ok("\n".to_owned()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    };
    Config::parse(text, "dir/f.yaml", Env { variable: &variable, file: &file, certificates: false })
}

/// A file with this listener and this cluster.
fn file(listener: &str, cluster: &str) -> String {
    format!("listeners: [{listener}]\nclusters: {{ c: {{ {cluster} }} }}\n")
}

fn listener(keys: &str) -> String {
    file(&LISTENER.replace(" }", &format!(", {keys} }}")), SHARDS)
}

fn cluster(keys: &str) -> String {
    file(LISTENER, &format!("{SHARDS}, {keys}"))
}

fn shards(shards: &str) -> String {
    file(LISTENER, &format!("shards: [{shards}], reads: {{ from: any }}"))
}

/// Whatever is at the root beside a good listener and cluster.
fn root(keys: &str) -> String {
    format!("{keys}\n{}", file(LISTENER, SHARDS))
}

fn good(text: &str) -> Config {
    let (config, findings) = parse(text);
    config.unwrap_or_else(|| panic!("{findings}"))
}

fn told(text: &str) -> Vec<String> {
    parse(text).1.iter().map(ToString::to_string).collect()
}

/// Each text gives exactly one finding, which begins as said.
fn each(cases: &[(String, &str)]) {
    for (text, expected) in cases {
        let told = told(text);
        assert!(told.len() == 1 && told[0].starts_with(expected), "{text}: {told:#?} {expected}");
    }
}

#[test]
fn what_is_typed_at_night_is_understood() {
    each(&[
        (
            shards("{ master: a:1 }"),
            "clusters.c.shards[0].master: unknown key `master`; did you mean 'primary'?",
        ),
        (
            shards("{ primary: a:1, slaves: [a:2] }"),
            "clusters.c.shards[0].slaves: unknown key `slaves`; did you mean 'replicas'?",
        ),
        (
            shards("a:1"),
            "clusters.c.shards[0]: expected a map such as { primary: 10.0.0.1:6379 }, found 'a:1'",
        ),
        (
            shards("{ primary: a:1, replicas: [localhost:1] }"),
            "clusters.c: 'localhost:1' is where listener 'l' accepts for this cluster",
        ),
        (
            "listeners:\n  - bind: [::]:6380\n    protocol: redis\n".to_owned(),
            "this is not YAML: an IPv6 address needs quotes: \"[::]:6380\"",
        ),
    ]);
}

#[test]
fn values_of_the_wrong_type_or_out_of_range() {
    each(&[
        (root("workers: 0"), "workers: 0 is out of range; it is 1 to 1024, or auto"),
        (root("workers: many"), "workers: 'many' is not a whole number from 1 to 1024, or auto"),
        (root("workers: [1]"), "workers: expected a whole number, found a list"),
        (root("workers:"), "workers: expected a whole number, found nothing"),
        (root("log: text"), "log: expected a map of keys and values, found 'text'"),
        (
            root("log: { level: inof }"),
            "log.level: 'inof' is not one of off, error, warn, info, debug, trace; did you mean 'info'?",
        ),
        (root("log: { format: xml }"), "log.format: 'xml' is not one of text, json"),
        (root("limits: { memory: 1 }"), "limits.memory: '1' is out of range; it is from 1MiB to"),
        (root("limits: { memory: 1gb }"), "limits.memory: '1gb' is not a size; write 1GiB"),
        (root("shutdown: { drain_timeout: 25 }"), "shutdown.drain_timeout: '25' has no unit"),
        (
            root("shutdown: { drain_timeout: 25h }"),
            "shutdown.drain_timeout: '25h' is out of range; it is from 0 to 1d",
        ),
        (root("admin: { bind: example.org:1 }"), "admin.bind: 'example.org' is not an IP address"),
        (root("admin: { bind: [::1]:1 }"), "this is not YAML"),
        (
            cluster("check: { interval: 1ms }"),
            "clusters.c.check.interval: '1ms' is out of range; it is from 10ms to 1h",
        ),
        (cluster("check: { fall: 0 }"), "clusters.c.check.fall: 0 is out of range; it is 1 to 100"),
        (
            cluster("timeouts: { request: 2d }"),
            "clusters.c.timeouts.request: '2d' is out of range; it is from 1ms to 1d, or 0 for none",
        ),
        (
            cluster("timeouts: { connect: 0 }"),
            "clusters.c.timeouts.connect: '0' is out of range; it is from 1ms to 1h",
        ),
        (
            listener("redis: { max_pipeline: 0 }"),
            "listeners[0].redis.max_pipeline: 0 is out of range",
        ),
        (
            listener("redis: { max_bulk: 2GiB }"),
            "listeners[0].redis.max_bulk: '2GiB' is out of range",
        ),
        (
            listener("redis: { allow: debug }"),
            "listeners[0].redis.allow: expected a list, found 'debug'",
        ),
        (
            listener("redis: { allow: [a b] }"),
            "listeners[0].redis.allow[0]: 'a b' is not a command",
        ),
        (
            cluster("reads: { balance: p3c }"),
            "clusters.c.reads.balance: 'p3c' is not one of p2c, round_robin, least_connections, peak_ewma, random, client_ip, maglev, failover; did you mean 'p2c'?",
        ),
    ]);
}

#[test]
fn keys_that_are_missing_unknown_or_for_later() {
    each(&[
        (
            "clusters: { c: { shards: [{ primary: a:1 }] } }".to_owned(),
            "`listeners` is missing; it takes a list",
        ),
        (format!("listeners: []\nclusters: {{ c: {{ {SHARDS} }} }}"), "listeners: it is empty"),
        (root("wrokers: 2"), "wrokers: unknown key `wrokers`; did you mean 'workers'?"),
        (root("banana: 2"), "banana: unknown key `banana`; the keys here are workers, admin, log,"),
        (root("<<: { workers: 2 }"), "<<: merge keys are not understood"),
        (root("watch: true"), "watch: `watch` is not supported yet"),
        (root("admin: { tls: {} }"), "admin.tls: `tls` is not supported yet"),
        (
            root("admin: { socket: sluice.sock }"),
            "admin.socket: 'sluice.sock' is not an absolute path",
        ),
        (root("admin: { bind: \"unix:/x\", socket: /x }"), "admin.socket: `bind` says the same"),
        (root("admin: { token: a, token_file: b }"), "admin.token_file: `token` is given too"),
        (root("admin: { token: \"a\\nb\" }"), "admin: it has characters that no header may have"),
        (root("shutdown: { mode: sidecar }"), "shutdown.mode: `mode` is not supported yet"),
        (file("{ protocol: redis, cluster: c }", SHARDS), "listeners[0]: `bind` is missing"),
        (file("{ bind: 127.0.0.1:1, cluster: c }", SHARDS), "listeners[0]: `protocol` is missing"),
        (
            file("{ bind: 127.0.0.1:1, protocol: redis }", SHARDS),
            "listeners[0]: it needs exactly one of cluster, routes",
        ),
        (
            file(
                "{ bind: 127.0.0.1:1, protocol: tcp, routes: [{ cluster: c }] }",
                "backends: [a:1]",
            ),
            "listeners[0].routes: only an http or redis listener has this",
        ),
        (
            file(LISTENER, "reads: { from: any }"),
            "clusters.c: it needs exactly one of backends, shards, sentinel, redis_cluster, dns, file, kubernetes",
        ),
        (
            file(LISTENER, "shard: [{ primary: a:1 }]"),
            "clusters.c.shard: unknown key `shard`; did you mean 'shards'?",
        ),
        (file(LISTENER, "dns: { name: x }"), "clusters.c.dns: `dns` is not supported yet"),
        (cluster("on_shard_down: miss"), "clusters.c.on_shard_down: `miss` is not supported yet"),
        (
            cluster("dedicated: { max_per_backend: 0 }"),
            "clusters.c.dedicated.max_per_backend: 0 is out of range; it is 1 to 1000000",
        ),
        (cluster("mirror: {}"), "clusters.c.mirror: `mirror` is not supported yet"),
        (shards("{ replicas: [] }"), "clusters.c.shards[0]: `primary` is missing"),
        (shards(""), "clusters.c.shards: it is empty"),
        ("just text".to_owned(), "expected a map of keys and values, found 'just text'"),
    ]);
}

#[test]
fn things_that_do_not_fit_together() {
    let two = |second: &str| file(&format!("{LISTENER}, {second}"), SHARDS);
    each(&[
        (
            two("{ name: l, bind: 127.0.0.1:3, protocol: redis, cluster: c }"),
            "listeners[1].name: 'l' is the name of listeners[0] already",
        ),
        (
            two("{ bind: 127.0.0.1:1, protocol: redis, cluster: c }"),
            "listeners[1].bind: '127.0.0.1:1' cannot be bound beside listeners[0].bind, 127.0.0.1:1",
        ),
        (
            two("{ bind: 0.0.0.0:1, protocol: redis, cluster: c }"),
            "listeners[1].bind: '0.0.0.0:1' cannot be bound beside",
        ),
        (
            root("admin: { bind: 127.0.0.1:1 }"),
            "listeners[0].bind: '127.0.0.1:1' cannot be bound beside admin.bind",
        ),
        (
            file("{ bind: 127.0.0.1:1, protocol: redis, cluster: zzzzz }", SHARDS),
            "listeners[0].cluster: there is no cluster 'zzzzz'; there is c",
        ),
        (
            shards("{ name: x, primary: a:1 }, { name: x, primary: a:2 }"),
            "clusters.c.shards[1]: 'x' is the name of clusters.c.shards[0] already",
        ),
        (
            shards("{ name: s1, primary: a:1 }, { primary: a:2 }"),
            "clusters.c.shards[1]: 's1' is the name of clusters.c.shards[0] already",
        ),
        (
            shards("{ primary: a:1, replicas: [a:0] }"),
            "clusters.c.shards[0].replicas[0]: 'a:0' cannot be connected to: port 0",
        ),
        (shards("{ primary: \"::1:1\" }"), "clusters.c.shards[0].primary: '::1:1' looks like IPv6"),
        (
            shards("{ primary: { address: a:1, weight: 0 } }"),
            "clusters.c.shards[0].primary.weight: 0 is out of range; it is 1 to 1000",
        ),
        (
            listener("redis: { password: a, password_file: secret }"),
            "listeners[0].redis.password_file: `password` is given too",
        ),
        (listener("redis: { password: \"\" }"), "listeners[0].redis.password: it is empty"),
        (
            listener("redis: { password_file: none }"),
            "listeners[0].redis.password_file: the file 'none' cannot be read",
        ),
        (
            listener("redis: { password_file: empty }"),
            "listeners[0].redis.password_file: the file 'empty' is empty",
        ),
        (
            listener("redis: { allow: [debug], deny: [DEBUG] }"),
            "listeners[0].redis.deny: DEBUG is in `allow` too",
        ),
        (
            cluster("upstream: { user: u }"),
            "clusters.c.upstream.user: a user needs `password` or `password_file`",
        ),
        (
            cluster("redis: { commands: { A: { access: read }, a: { access: read } } }"),
            "clusters.c.redis.commands.a: A is given already",
        ),
        (
            cluster("redis: { commands: { A: {} } }"),
            "clusters.c.redis.commands.A: `access` is missing",
        ),
        (
            cluster("redis: { commands: { A: { access: maybe } } }"),
            "clusters.c.redis.commands.A.access: 'maybe' is not one of read, write",
        ),
        (
            cluster("redis: { commands: { A: { access: read, keys: [0, 1, 1] } } }"),
            "clusters.c.redis.commands.A.keys: it is [first key, last key, step]",
        ),
        (
            cluster("redis: { commands: { A: { access: read, keys: [2, 1, 1] } } }"),
            "clusters.c.redis.commands.A.keys: it is [first",
        ),
        (
            cluster("redis: { commands: { A: { access: read, keys: [1] } } }"),
            "clusters.c.redis.commands.A.keys: it is [first",
        ),
        (
            cluster("redis: { commands: { A: { access: read, keys: [1, x, 1] } } }"),
            "clusters.c.redis.commands.A.keys[1]: 'x' is not a whole number",
        ),
    ]);
    let text = file(LISTENER, &format!("{SHARDS}, backends: [a:1]"));
    assert_eq!(
        told(&text),
        [
            "clusters.c: it has 2 of backends, shards, sentinel, redis_cluster, dns, file, kubernetes; it takes exactly one",
        ]
    );
}

const TCP: &str = "{ name: l, bind: 127.0.0.1:1, protocol: tcp, cluster: c }";

/// A tcp listener and its cluster, which has these keys beside two backends.
fn tcp(keys: &str) -> String {
    file(TCP, &format!("backends: [a:1, {{ address: b:2, weight: 3 }}], {keys}"))
}

#[test]
fn backends_have_no_roles_and_a_listener_gets_what_it_needs() {
    each(&[
        (
            file(TCP, SHARDS),
            "listeners[0].cluster: a tcp listener needs a cluster with `backends`, this one has `shards`",
        ),
        (
            file(LISTENER, "backends: [a:1]"),
            "listeners[0].cluster: a redis listener needs a cluster with `shards`, this one has `backends`",
        ),
        (
            tcp("").replace("cluster: c", "cluster: c, redis: { max_pipeline: 3 }"),
            "listeners[0].redis: only a redis listener has this",
        ),
        (file(TCP, "backends: []"), "clusters.c.backends: it is empty; give it at least one"),
        (
            file(TCP, "backends: [a:1, b:1, a:1]"),
            "clusters.c.backends[2]: 'a:1' is in this cluster already, as clusters.c.backends[0]",
        ),
        (file(TCP, "backends: [a]"), "clusters.c.backends[0]: 'a' has no port"),
        (
            tcp("reads: { from: any }"),
            "clusters.c.reads: it is for a cluster with `shards`; this one has `backends`",
        ),
        (
            tcp("timeouts: { connect: 1s, request: 1s }"),
            "clusters.c.timeouts.request: it is for a cluster of an http listener",
        ),
        (
            cluster("balance: random"),
            "clusters.c.balance: it is for a cluster with `backends`; this one has `shards`",
        ),
        (
            cluster("timeouts: { idle: 1s }"),
            "clusters.c.timeouts.idle: it is for a cluster with `backends`; this one has `shards`",
        ),
        (
            cluster("check: { tcp: {} }"),
            "clusters.c.check.tcp: it is for a cluster with `backends`; this one has `shards`",
        ),
        (
            cluster("check: { http: {} }"),
            "clusters.c.check.http: it is for a cluster with `backends`; this one has `shards`",
        ),
        (
            tcp("check: { http: {}, tcp: {} }"),
            "clusters.c.check.http: `tcp` is given too; a cluster's probes are of one kind",
        ),
        (tcp("check: { http: { path: x } }"), "clusters.c.check.http.path: 'x' is not a path"),
        (tcp("check: { http: { host: \"a b\" } }"), "clusters.c.check.http.host: 'a b' is not a"),
        (tcp("check: { http: { method: PUT } }"), "clusters.c.check.http.method: 'PUT' is not one"),
        (tcp("check: { http: { status: [] } }"), "clusters.c.check.http.status: it is empty"),
        (
            tcp("check: { http: { status: [300-200] } }"),
            "clusters.c.check.http.status[0]: '300-200' is not a status; write 200 or 200-299",
        ),
        (tcp("check: { http: { status: [600] } }"), "clusters.c.check.http.status[0]: '600' is"),
        (
            tcp("check: { http: { headers: { Host: a } } }"),
            "clusters.c.check.http.headers.Host: the key `host` beside `headers` sets it",
        ),
        (
            tcp("check: { http: { headers: { a: b, A: c } } }"),
            "clusters.c.check.http.headers.A: a is given already",
        ),
        (
            tcp("check: { http: { headers: { a: \"b\\nc\" } } }"),
            "clusters.c.check.http.headers.a: it has characters that no header may have",
        ),
        (
            tcp("check: { http: { method: HEAD, body_contains: x } }"),
            "clusters.c.check.http.body_contains: the answer to HEAD has no body",
        ),
        (
            file(
                "{ name: l, bind: 127.0.0.1:1, protocol: tcp, cluster: c }",
                "backends: [{ address: a:1, admin: drian }]",
            ),
            "clusters.c.backends[0].admin: 'drian' is not one of ready, drain, disabled; did you mean",
        ),
        (tcp("check: { tcp: { port: 1 } }"), "clusters.c.check.tcp.port: `port` is not supported"),
        (
            tcp("balance: peak_ewna"),
            "clusters.c.balance: 'peak_ewna' is not one of p2c, round_robin, least_connections, peak_ewma, random, client_ip, maglev, failover; did you mean 'peak_ewma'?",
        ),
        (tcp("sticky: {}"), "clusters.c.sticky: it needs one or more of cookie, header, client_ip"),
        (
            tcp("sticky: { cookie: { name: S, mode: plain } }"),
            "clusters.c.sticky.cookie: listener 'l' speaks tcp, which has none; `client_ip` works",
        ),
        (
            tcp("sticky: { header: X-Session-Id }"),
            "clusters.c.sticky.header: listener 'l' speaks tcp, which has none",
        ),
        (
            cluster("sticky: { cookie: { name: S, mode: plain } }"),
            "clusters.c.sticky: it is for a cluster with `backends`; this one has `shards`",
        ),
        (
            tcp("sticky: { client_ip: { v4: 0 } }"),
            "clusters.c.sticky.client_ip.v4: 0 is out of range; it is 1 to 32",
        ),
        (
            tcp("balance: client_ip, sticky: { client_ip: {} }"),
            "clusters.c.sticky.client_ip: `balance: client_ip` says the same; keep one of the two",
        ),
        (tcp("send_proxy: v3"), "clusters.c.send_proxy: 'v3' is not one of v1, v2"),
        (
            cluster("send_proxy: v2"),
            "clusters.c.send_proxy: it is for a cluster with `backends`; this one has `shards`",
        ),
        (
            listener("proxy_protocol: { trusted: [10.0.0.0/8] }"),
            "listeners[0].proxy_protocol: `proxy_protocol` is not supported yet",
        ),
        (
            tcp("").replace("cluster: c", "cluster: c, proxy_protocol: { trusted: [10.0.0.0/33] }"),
            "listeners[0].proxy_protocol.trusted[0]: '10.0.0.0/33' is not a network; write 10.0.0.0/8",
        ),
        (
            tcp("").replace("cluster: c", "cluster: c, proxy_protocol: { trusted: [] }"),
            "listeners[0].proxy_protocol.trusted: it is empty; nobody would send a header",
        ),
        (
            tcp("").replace("cluster: c", "cluster: c, proxy_protocol: {}"),
            "listeners[0].proxy_protocol: `trusted` is missing; it takes a list",
        ),
    ]);
    let config = good(&tcp("sticky: { client_ip: { v4: 24 } }, timeouts: { idle: 1h }"));
    let [cluster] = config.clusters.as_slice() else { panic!("one cluster") };
    let backends = cluster.backends.as_ref().unwrap();
    let weights: Vec<u32> = backends.members.iter().map(|member| member.weight).collect();
    assert_eq!((weights, backends.balance), (vec![1, 3], Strategy::P2c));
    let client_ip = Some(Prefix { v4: 24, v6: 64 });
    assert_eq!(backends.sticky, Some(Sticky { client_ip, ..Sticky::default() }));
    assert_eq!((cluster.timeouts.idle, cluster.shards.len()), (Duration::from_secs(3_600), 0));
    assert_eq!((config.listeners[0].protocol, config.backends()), (Protocol::Tcp, 2));
    assert_eq!(good(&tcp("")).clusters[0].backends.as_ref().unwrap().sticky, None);
}

mod balance;
mod reads;
mod redis;
mod redis_cluster;
mod sentinel;
mod sharding;
mod sticky;

#[test]
fn an_address_belongs_to_one_shard() {
    each(&[
        (
            shards("{ primary: a:1, replicas: [b:1, a:1] }"),
            "clusters.c.shards[0].replicas[1]: 'a:1' is in this shard already, as clusters.c.shards[0].primary",
        ),
        (
            shards("{ primary: a:1 }, { primary: a:1 }"),
            "hint: clusters.c.shards[1].primary: 'a:1' is in another shard too",
        ),
    ]);
}

#[test]
fn hints_do_not_refuse() {
    let replicas = "shards: [{ primary: a:1, replicas: [a:2] }, { primary: a:3 }]";
    for (cluster, expected) in [
        (
            replicas.to_owned(),
            Some("hint: clusters.c.shards: replicas stay unused; set reads.from: prefer_replica"),
        ),
        (format!("{replicas}, reads: {{ from: primary }}"), None),
        (
            format!("{replicas}, reads: {{ from: replica }}"),
            Some("hint: clusters.c.shards: shard 's1' has no replica"),
        ),
        (format!("{replicas}, reads: {{ from: any }}"), None),
        (
            format!("{SHARDS} }}, d: {{ {SHARDS}"),
            Some("hint: clusters.d: no listener uses this cluster"),
        ),
    ] {
        let text = file(LISTENER, &cluster);
        good(&text);
        let told = told(&text);
        assert_eq!(told.len(), usize::from(expected.is_some()), "{told:?}");
        assert!(told.iter().zip(expected).all(|(told, expected)| told.starts_with(expected)));
    }
}

#[test]
fn sizes_of_lists_are_limited() {
    let members: Vec<String> = (1..=64).map(|port| format!("a:{port}")).collect();
    each(&[(
        shards(&format!("{{ primary: b:1, replicas: [{}] }}", members.join(", "))),
        "clusters.c.shards[0].replicas: it has 64 items; the most is 63",
    )]);
    let all: Vec<String> = (1..=1_025).map(|port| format!("{{ primary: a:{port} }}")).collect();
    each(&[(shards(&all.join(", ")), "clusters.c.shards: it has 1025 items; the most is 1024")]);
    good(&shards(&all[1..].join(", ")));
}

#[test]
fn names_become_labels_and_are_held_to_it() {
    each(&[
        (listener("").replace("name: l", "name: a b"), "listeners[0].name: 'a b' is not a name"),
        (shards("{ name: é, primary: a:1 }"), "clusters.c.shards[0].name: 'é' is not a name"),
    ]);
    let text =
        file(LISTENER, SHARDS).replace("c: {", "\"c/d\": {").replace("cluster: c", "cluster: c/d");
    assert_eq!(
        told(&text),
        ["clusters.c/d: it is not a name: it has 1 to 64 of A-Z a-z 0-9 _ . -"]
    );
}

#[test]
fn variables_are_values_never_structure() {
    let config = good(&cluster("upstream: { password: \"${PASSWORD}\" }"));
    assert_eq!(config.clusters[0].upstream.password.as_deref(), Some("from: {environment}"));
    let config = good(&shards("{ primary: \"${HOST}:${PORT:-6379}\" }"));
    let primary = config.clusters[0].each_member().next().unwrap();
    assert_eq!(primary.address.to_string(), "10.0.0.9:6379");
    assert_eq!(good(&root("workers: \"${N:-3}\"")).workers.map(usize::from), Some(3));
    each(&[
        (
            root("workers: ${N}"),
            "workers: the variable N is not set; set it or write ${N:-default}",
        ),
        (root("workers: \"${N:?how many}\""), "workers: the variable N is not set: how many"),
        (root("workers: \"${EMPTY}\""), "workers: '' is not a whole number"),
        (root("workers: \"${N\""), "workers: `${` has no closing `}`"),
        (root("${HOST}: 1"), "${HOST}: unknown key"),
        (
            cluster("upstream: { password: ${PASSWORD} }"),
            "inside { } and [ ] a value with ${...} needs quotes",
        ),
    ]);
}

#[test]
fn a_full_file_means_what_it_says() {
    let text = "
workers: 2
limits: { max_connections: 7, memory: 2MiB }
listeners:
  - { name: a, bind: \"unix:/run/x.sock\", protocol: redis, cluster: d, redis: { password_file: secret, allow: [\"config|set\"] } }
  - { bind: \"[::]:0\", protocol: redis, cluster: c }
clusters:
  c: { shards: [{ primary: a:1 }], timeouts: { request: 0 } }
  d:
    shards: [{ name: x, primary: { address: a:1, weight: 2 }, replicas: [b:1] }]
    reads: { from: any, balance: least_connections }
    timeouts: { request: 1m }
    redis: { commands: { my.get: { access: read, keys: [1, -1, 2] }, noop: { access: write } } }
";
    let config = good(text);
    assert_eq!(config.limits.max_connections, Some(7));
    assert_eq!(config.limits.memory, Some(2 << 20));
    let [a, b] = config.listeners.as_slice() else { panic!("two listeners") };
    assert_eq!((&*a.name, a.cluster, &*b.name, b.cluster), ("a", 1, "[::]:0", 0));
    assert_eq!(a.redis.password, Some(Secret("from file".to_owned())));
    assert_eq!(a.redis.allow, ["CONFIG|SET"]);
    let [c, d] = config.clusters.as_slice() else { panic!("two clusters") };
    assert_eq!((c.timeouts.request, c.timeouts.stall), (Duration::ZERO, super::keys::DAY));
    assert_eq!(d.timeouts.stall, Duration::from_secs(300));
    assert_eq!((d.reads.from, d.reads.balance), (ReadFrom::Any, Strategy::LeastConnections));
    assert_eq!(d.shards[0].primary.as_ref().unwrap().weight, 2);
    let [get, noop] = d.commands.as_slice() else { panic!("two commands") };
    assert_eq!((&*get.name, get.access, get.keys), ("MY.GET", Access::Read, Some((1, -1, 2))));
    assert_eq!((&*noop.name, noop.access, noop.keys), ("NOOP", Access::Write, None));
    assert_eq!(config.backends(), 3);
}

#[test]
fn a_password_is_not_shown_beside_another_mistake() {
    let text = listener("redis: { password: hunter2, max_pipelin: 3 }");
    let shown = parse(&text).1.to_string();
    assert!(shown.contains("password: *******,") && !shown.contains("hunter2"), "{shown}");
}
