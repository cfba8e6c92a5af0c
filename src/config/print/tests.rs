//! What is printed reads back, and shows every key.

use super::*;
use crate::config::Env;

fn parsed(text: &str) -> Config {
    let (config, findings) = Config::parse(text, "f.yaml", Env::empty());
    config.unwrap_or_else(|| panic!("{findings}\n{text}"))
}

const SMALL: &str = "listeners: [{ bind: 127.0.0.1:1, protocol: redis, cluster: a }]\n\
    clusters: { a: { shards: [{ primary: 127.0.0.1:2 }] } }\n";

const LARGE: &str = r#"
workers: 3
admin: { bind: "[::1]:99", socket: "unix:/run/s s", token: (set) }
log: { format: json, level: "info,sluice=debug" }
limits: { max_connections: 10, memory: 1GiB }
shutdown: { pre_stop_delay: 1s, drain_timeout: 2s }
listeners:
  - { name: x, bind: "unix:/a b", protocol: redis, cluster: "null", limits: { max_connections: 7 }, redis: { password: "$${p", max_pipeline: 9, max_bulk: 1MiB, client_output_limit: 1MiB, slow_client_grace: 2s, split_writes: false, mget_partial: embed, allow: [debug, "config|set"], deny: [keys], strict_order: true, multi: pinned, multi_max_commands: 9, multi_max_bytes: 1MiB } }
clusters:
  other: { shards: [{ primary: a:1 }], redis: { commands: { "A.B": { access: write } } } }
  "null":
    shards:
      - { name: one, primary: { address: "[::1]:1", weight: 3 }, replicas: [b:2, { address: c:3, weight: 2 }] }
      - { primary: d:4 }
    reads: { from: any, balance: random, consistency: key, max_lag: 2s, scripts_declare_keys: false, overrides: [{ prefix: "cart:", from: primary }, { command: HGETALL, from: replica }] }
    check: { interval: 10ms, fast_interval: 20ms, down_interval: 30ms, timeout: 40ms, rise: 5, fall: 6, startup_grace: 0 }
    timeouts: { connect: 2s, request: 3s, fan_out: 4s, stall: 5s, client_idle: 6s }
    limits: { max_in_flight: 5, max_connections: 1000 }
    upstream: { user: "u ser", password: "(set)", mode: dedicated }
    dedicated: { max_per_backend: 7, wait_timeout: 2s, max_lease_idle: 3s, idle: 4s, lifetime: 5m, min: 6 }
    redis: { commands: { my.get: { access: read, keys: [1, -1, 2] } } }
"#;

const SENTINEL: &str = r#"
listeners: [{ bind: 127.0.0.1:1, protocol: redis, cluster: a }]
clusters:
  a: { sentinel: { addresses: [a:1, "[::1]:2"], masters: [m, n], user: u, password: (set), tls: { insecure_skip_verify: true } }, sharding: { by: ketama }, upstream: { password: (set) }, redis: { keyless_shard: n } }
"#;

const NODES: &str = r#"
listeners: [{ bind: 127.0.0.1:1, protocol: redis, cluster: a }]
clusters:
  a: { redis_cluster: { seeds: [a:1, "[::1]:2"], accept_unknown: false, spoof: list, announce: [c:3] }, reads: { from: any } }
"#;

const TCP: &str = r#"
listeners: [{ bind: 127.0.0.1:1, protocol: tcp, cluster: a, proxy_protocol: { trusted: [10.0.0.0/8, "::1"] } }, { bind: 127.0.0.1:2, protocol: tcp, cluster: b, limits: { max_connections: 7, per_client: { connections: 2, rate: 10/m, burst: 3, v4: 24 } } }, { bind: 127.0.0.1:4, protocol: tcp, cluster: e }]
clusters:
  a: { backends: [a:1, { address: b:2, weight: 3 }], balance: least_connections, send_proxy: v2, timeouts: { idle: 1s }, check: { tcp: {} }, upstream: { tls: {} } }
  b: { backends: [{ address: a:1, admin: drain }], sticky: { client_ip: { v4: 24 } }, fail_open: never, check: { http: { method: HEAD, path: "/x?a=b", host: "a.b:1", status: [200, 300-302], headers: { x-a: "b c", authorization: (set) }, weight_header: x-weight } } }
  g: { backends: [a:1], limits: { max_connections: 9, queue: 0 }, timeouts: { queue: 2s }, check: { http: { body_contains: "all's \"well\"" } } }
  c: { backends: [a:1], sticky: { cookie: { name: S, keys: [0123456789abcdef, fedcba9876543210], max_idle: 30m, max_life: 1d, http_only: false, same_site: none, secure: true, path: /a, domain: example.org }, header: X-Session-Id, strict: true } }
  d: { backends: [a:1], sticky: { cookie: { name: S, mode: plain } } }
  e: { backends: [a:1, { address: b:1, tier: 2 }], balance: failover, failback: manual, slow_start: 0 }
  f: { backends: [a:1], balance: maglev, slow_start: 20s }
"#;

const TLS: &str = r#"
listeners:
  - { bind: 127.0.0.1:1, protocol: redis, cluster: a, tls: { certificates: [{ cert: /a.pem, key: a.key }, { cert: b, key: c }], client_ca: "d e", min_version: 1.3 } }
  - { bind: 127.0.0.1:2, protocol: http, cluster: c }
clusters:
  a: { shards: [{ primary: a:1 }], upstream: { user: u, password: "(set)", tls: { ca: x, server_name: y, cert: z, key: w } } }
  b: { backends: [a:1], upstream: { tls: { insecure_skip_verify: true } } }
  c: { shards: [{ primary: a:1 }], upstream: { tls: {} } }
"#;

const HTTP: &str = r#"
listeners:
  - { bind: 127.0.0.1:1, protocol: http, cluster: a, http: { trusted: [10.0.0.0/8], header_bytes: 8KiB, headers: 10, uri_bytes: 1KiB, header_timeout: 1s, body_idle: 0, keep_alive: 5s, streams: 3, via: true, request_id: make } }
  - bind: 127.0.0.1:2
    protocol: http
    routes:
      - { match: { host: "*.a.b", path_prefix: /x, method: [GET, PURGE], header: { x-a: "1", x-b: "*" } }, cluster: b }
      - { cluster: a }
clusters:
  a: { backends: [a:1], timeouts: { request: 2s }, upstream: { http2: true, idle: 1s }, retry: { idempotent_writes: true }, shard_key: { path_segment: 2 } }
  b: { shards: [{ primary: a:1, replicas: [b:1] }, { primary: c:1 }], reads: { from: any }, shard_key: { header: x-tenant } }
"#;

const USERS: &str = r#"
listeners:
  - bind: 127.0.0.1:1
    protocol: redis
    routes:
      - { match: { key_prefix: "s:" }, cluster: b, strip: true }
      - { cluster: a }
    redis:
      users:
        - { name: default, commands: ["@READ", "CONFIG|GET"] }
        - name: app
          password: (set)
          passwords: [(set), (set)]
          deny: [KEYS]
          allow: [DEBUG]
          key_prefixes: ["a:"]
          cluster: b
          upstream: { user: u, password: (set) }
  - { bind: 127.0.0.1:2, protocol: redis, cluster: a, redis: { auth: passthrough } }
clusters:
  a: { shards: [{ primary: a:1 }, { name: x, primary: a:2 }], reads: { from: any, consistency: window, window: 2s }, timeouts: { script: 9s }, redis: { keyless_shard: x, script_shebang_reads: true } }
  b: { shards: [{ primary: b:1 }] }
"#;

/// Every way to spread keys.
const SPREAD: &str = "\
listeners:
  - { bind: 127.0.0.1:1, protocol: redis, cluster: ring }
clusters:
  ring:
    shards: [{ primary: a:1, weight: 2 }, { name: s1, primary: a:2 }, { name: x, primary: a:3 }]
    sharding: { by: ketama, hash: md5, hash_tag: $$ }
  table: { shards: [{ primary: a:1 }, { primary: a:2 }], sharding: { by: maglev } }
  jump: { shards: [{ primary: a:1 }, { primary: a:2 }], sharding: { by: jump, hash: murmur } }
  rest: { shards: [{ primary: a:1 }, { primary: a:2, weight: 3 }], sharding: { by: modulo, hash: xxh3 } }
  range:
    shards: [{ primary: a:1 }, { primary: a:2 }, { name: last, primary: a:3 }]
    sharding: { by: range, separator: \":\", bounds: [10, 20], default: last }
  directory:
    shards: [{ primary: a:1 }, { name: b, primary: a:2 }]
    sharding: { by: directory, keys: { \"cfg:*\": b, one: s0, \"a${b\": s0 }, default: b, hash_tag: \"{}\" }
";

#[test]
fn what_is_printed_reads_back_as_the_same() {
    for text in [SMALL, LARGE, TCP, HTTP, TLS, USERS, SPREAD, SENTINEL, NODES] {
        let config = parsed(text);
        for defaults in [false, true] {
            let printed = config.to_yaml(defaults);
            let mut back = parsed(&printed);
            back.admin.explicit = config.admin.explicit;
            for (ours, theirs) in back.listeners.iter_mut().zip(&config.listeners) {
                ours.redis.password.clone_from(&theirs.redis.password);
            }
            for (ours, theirs) in back.clusters.iter_mut().zip(&config.clusters) {
                let cookie = |cluster: &Cluster| -> Option<StickyCookie> {
                    cluster.backends.as_ref()?.sticky.as_ref()?.cookie.clone()
                };
                if let Some(written) = cookie(theirs) {
                    let read = ours.backends.as_mut().and_then(|all| all.sticky.as_mut());
                    read.unwrap().cookie.as_mut().unwrap().keys = written.keys;
                }
            }
            assert_eq!(back, config, "{printed}");
        }
    }
}

#[test]
fn every_key_is_visible_with_defaults_and_none_without() {
    let all = [SMALL, LARGE, TCP, HTTP, TLS, USERS, SPREAD, SENTINEL, NODES]
        .map(|text| parsed(text).to_yaml(true))
        .concat();
    let mut scopes = vec![&keys::ROOT];
    while let Some(scope) = scopes.pop() {
        for key in scope.now() {
            let name = key.name;
            // What a file holds is shown under the key beside it; no command is configured.
            if !name.ends_with("_file") && !std::ptr::eq(scope, &keys::COMMAND) {
                assert!(all.contains(&format!("{name}:")), "{name}\n{all}");
            }
            match key.kind {
                keys::Kind::Map(scope) | keys::Kind::Named(scope) => scopes.push(scope),
                keys::Kind::List(keys::Kind::Map(scope), _) => scopes.push(scope),
                _ => {}
            }
        }
    }
    let few = "listeners:\n  - bind: 127.0.0.1:1\n    protocol: redis\n    cluster: a\nclusters:\n  a:\n    shards:\n      - primary: 127.0.0.1:2\n";
    assert_eq!(parsed(SMALL).to_yaml(false), few);
}

#[test]
fn passwords_are_never_printed() {
    let config = parsed(&LARGE.replace("(set)", "hunter2"));
    assert_eq!(config.clusters[1].upstream.password.as_deref(), Some("hunter2"));
    let tcp = TCP.replace("(set)", "Basic hunter2");
    let probed = parsed(&format!("admin: {{ token: hunter2 }}\n{tcp}"));
    let sent = &probed.clusters.iter().find_map(|one| one.http_check.as_ref()).unwrap().headers;
    assert!(sent.iter().any(|(_, value)| value.as_bytes().ends_with(b"hunter2")));
    for text in [
        config.to_yaml(true),
        config.to_yaml(false),
        format!("{config:?}"),
        probed.to_yaml(true),
        format!("{probed:?}"),
    ] {
        assert!(!text.contains("hunter2") && !text.contains("${p"), "{text}");
    }
    let config = parsed(TCP);
    for text in [config.to_yaml(true), config.to_yaml(false), format!("{config:?}")] {
        assert!(!text.contains("0123456789abcdef"), "{text}");
        assert!(text.contains("(set)"), "{text}");
    }
}
