//! Which shard has a key, by every way to spread them: what was asked is where `sluice explain` says,
//! and where a real twemproxy put it. Not what a split request answers: that is redis_route.

use crate::harness::{Cluster, Conn, PATIENCE, Redis, eventually, port::Port, process::Process};
use std::{fs, path::Path, process::Command};

fn sluice(arguments: &[&str]) -> (bool, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_sluice")).args(arguments).output().unwrap();
    let text = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
    (out.status.success(), text)
}

/// A file of twemproxy over these servers, and what it was started as.
fn twemproxy(folder: &Path, port: &Port, more: &str, servers: &[String]) -> Process {
    let file = folder.join("nutcracker.yml");
    let servers: String = servers.iter().map(|server| format!("   - {server}\n")).collect();
    let text =
        format!("cache:\n  listen: {}\n  redis: true\n{more}  servers:\n{servers}", port.address());
    fs::write(&file, text).unwrap();
    // It listens on every address, so the port must not be held meanwhile.
    let stats = Port::free().number;
    let mut command = Command::new("nutcracker");
    command.args(["-c", file.to_str().unwrap(), "-s", &stats.to_string()]);
    Process(command.spawn().expect("nutcracker, of Debian's package of that name, starts"))
}

#[test]
fn what_twemproxy_wrote_is_read_through_the_imported_file() {
    let redis: Vec<Redis> = (0..3).map(|_| Redis::start()).collect();
    let named = |names: [&str; 3], weights: [u8; 3]| -> Vec<String> {
        let parts = redis.iter().zip(names).zip(weights);
        let server = |((redis, name), weight): ((&Redis, &str), u8)| {
            format!("{}:{weight} {name}", redis.address()).trim_end().to_owned()
        };
        parts.map(server).collect()
    };
    for (more, servers) in [
        ("  hash: fnv1a_64\n", named(["", "", ""], [1, 1, 1])),
        ("  hash: murmur\n  hash_tag: \"{}\"\n", named(["gamma", "a", "beta"], [1, 3, 2])),
        ("  hash: crc16\n  distribution: modula\n", named(["gamma", "a", "beta"], [1, 3, 2])),
    ] {
        redis.iter().for_each(|server| assert_eq!(server.cmd(&["FLUSHALL"]), "OK"));
        let folder = tempfile::tempdir().unwrap();
        let port = Port::free();
        let proxy = twemproxy(folder.path(), &port, more, &servers);
        let mut conn =
            eventually("twemproxy accepts", PATIENCE, || Conn::try_open(&port.address()).ok());
        let keys: Vec<String> = (0..200)
            .map(|n| format!("user:{n}"))
            .chain((0..20).map(|n| format!("{{t{n}}}\u{e9}{n}")))
            .collect();
        for key in &keys {
            assert_eq!(conn.cmd(&["SET", key, key]), "OK");
        }
        drop((conn, proxy));
        let (ok, imported) = sluice(&[
            "import",
            "twemproxy",
            folder.path().join("nutcracker.yml").to_str().unwrap(),
        ]);
        assert!(ok, "{imported}");
        let own = Port::free();
        let text = imported.replace(&port.address(), &own.address());
        let file = folder.path().join("sluice.yaml");
        fs::write(&file, format!("{text}admin: {{ bind: \"{}\" }}\n", Port::free().address()))
            .unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        let _running =
            Process(command.args(["run", "-c", file.to_str().unwrap()]).spawn().unwrap());
        let mut conn =
            eventually("Sluice accepts", PATIENCE, || Conn::try_open(&own.address()).ok());
        eventually("Sluice writes", PATIENCE, || {
            (conn.cmd(&["SET", "ready", "1"]) == "OK").then_some(())
        });
        for key in &keys {
            assert_eq!(conn.cmd(&["GET", key]), key.as_str(), "{more}");
        }
    }
}

#[test]
fn each_way_to_spread_keys_puts_them_where_explain_says() {
    for (sharding, key) in [
        ("{ by: ketama, hash: md5 }", "user:1"),
        ("{ by: maglev }", "user:2"),
        ("{ by: jump, hash_tag: \"<>\" }", "<user:3>:cart"),
        ("{ by: modulo, hash: crc32a }", "user:4"),
        ("{ by: range, separator: \":\", bounds: [100, 200] }", "user:150:name"),
        ("{ by: directory, keys: { \"user:*\": s2, \"user:6\": s1 }, default: s0 }", "user:6"),
    ] {
        let cluster = Cluster::start(3, 0);
        let proxy = cluster.sluice().cluster(&format!("sharding: {sharding}")).start();
        let mut conn = proxy.conn();
        let keys: Vec<String> =
            (0..60).map(|n| format!("user:{}", n * 5)).chain([key.to_owned()]).collect();
        let sets: Vec<_> = keys.iter().map(|key| vec!["SET", key, key]).collect();
        assert!(conn.pipeline(&sets).iter().all(|reply| *reply == "OK"), "{sharding}");
        let held: Vec<i64> =
            cluster.servers().map(|server| server.cmd(&["DBSIZE"]).int()).collect();
        assert!(held.iter().filter(|n| **n > 0).count() >= 2, "{sharding}: {held:?}");
        let (code, told, complaint) = proxy.cli(&["explain", "GET", key]);
        assert_eq!(code, Some(0), "{complaint}");
        let line = told.lines().find(|line| line.starts_with("key")).unwrap();
        let (_, shard) = line.rsplit_once(" shard s").unwrap();
        let shard: usize = shard.trim().parse().unwrap();
        assert_eq!(cluster.shards[shard].primary.cmd(&["GET", key]), key, "{sharding}: {told}");
        let owner = cluster.shards[shard].primary.address();
        assert!(told.contains(&format!("{owner} shard s{shard} primary ready: yes")), "{told}");
        // The running process says the same.
        let said = format!("{:?}", conn.cmd(&["SLUICE", "EXPLAIN", "GET", key]));
        assert!(said.contains(&format!("shard s{shard}")), "{said}");
    }
}

#[test]
fn check_against_counts_what_would_move() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, ports: std::ops::Range<u16>, sharding: &str| {
        let shards: Vec<String> =
            ports.map(|port| format!("{{ primary: \"10.0.0.1:{port}\" }}")).collect();
        let path = folder.path().join(name);
        let text = format!(
            "listeners: [{{ bind: 127.0.0.1:1, protocol: redis, cluster: main }}]\n\
             clusters: {{ main: {{ shards: [{}], sharding: {sharding} }} }}\n",
            shards.join(", ")
        );
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (two, four) = (file("two", 1..3, "{}"), file("four", 1..5, "{}"));
    let (ok, told) = sluice(&["check", &four, "--against", &two]);
    assert!(ok, "{told}");
    assert!(told.contains("cluster 'main': 12288 of 16384 slots move (75.0 %)"), "{told}");
    assert!(told.contains("s0 10.0.0.1:1: 25.0 % of them, was 50.0 %"), "{told}");
    assert!(told.contains("s3 10.0.0.1:4: 25.0 % of them, new"), "{told}");
    let (jump, more) = (file("jump", 1..5, "{ by: jump }"), file("more", 1..6, "{ by: jump }"));
    let (ok, told) = sluice(&["check", &more, "--against", &jump]);
    assert!(ok, "{told}");
    let share = told.split_once("made up keys move (").unwrap().1;
    let share: f64 = share.split_once(" %").unwrap().0.parse().unwrap();
    assert!((19.0..21.0).contains(&share), "{told}");
    let keys = folder.path().join("keys");
    fs::write(&keys, "a\nb\nc\n").unwrap();
    let (ok, told) =
        sluice(&["check", &more, "--against", &jump, "--keys", keys.to_str().unwrap()]);
    assert!(ok && told.contains(" of 3 keys move"), "{told}");
}

#[test]
fn a_file_of_twemproxy_that_cannot_be_kept_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nutcracker.yml");
    let text = "cache:\n  listen: 127.0.0.1:1\n  redis: true\n  distribution: random\n  hash: fnv1a_46\n  servers:\n   - 127.0.0.1:2:1\n\
        other:\n  listen: 127.0.0.1:3\n  servers:\n   - 127.0.0.1:4:0\n";
    fs::write(&path, text).unwrap();
    let (ok, told) = sluice(&["import", "twemproxy", path.to_str().unwrap()]);
    assert!(!ok);
    for part in [
        ":4:17: cache.distribution: random has no counterpart",
        ":5:9: cache.hash: 'fnv1a_46' is no hash; did you mean 'fnv1a_64'?",
        "other: it is for memcached",
        "other.servers[0]: a weight is 1 to 1,000, not 0",
    ] {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
}
