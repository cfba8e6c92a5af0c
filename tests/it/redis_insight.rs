//! What Sluice tells of the servers and of itself: INFO, MEMORY, LATENCY, SLOWLOG, CONFIG, DEBUG DIGEST
//! and the SLUICE family, against real servers. Not what it answers without them: that is redis_local.

use crate::harness::{
    Cluster, FakeServer, PATIENCE, Setup, Step, Value, bulk, eventually, request,
};
use std::{collections::HashMap, time::Duration};

/// Names and values as a map.
fn map(value: &Value) -> HashMap<String, Value> {
    value.items().chunks(2).map(|pair| (pair[0].text(), pair[1].clone())).collect()
}

fn field<'a>(info: &'a str, name: &str) -> &'a str {
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name} is not in\n{info}"))
}

#[test]
fn info_is_of_one_server_with_the_sums_of_all() {
    let cluster = Cluster::start(3, 0);
    let sluice = cluster.sluice().start();
    let mut conn = sluice.conn();
    for n in 0..30 {
        assert_eq!(conn.cmd(&["SET", &format!("k{n}"), "v", "EX", "1000"]), "OK");
    }
    conn.cmd(&["CONFIG", "GET", "save"]);
    let info = conn.cmd(&["INFO", "everything"]).text();
    assert!(info.starts_with("# Sluice\r\n"), "{info}");
    assert_eq!(field(&info, "redis_version"), "7.0.15");
    assert_eq!(field(&info, "sluice_shards_answering"), "3");
    assert_eq!(field(&info, "proxy_connected_clients"), "1");
    assert_eq!(field(&info, "connected_clients"), "1", "our clients, not the servers'");
    let keyspace = field(&info, "db0");
    assert!(keyspace.starts_with("keys=30,expires=30,avg_ttl="), "{keyspace}");
    let sets = field(&info, "cmdstat_set");
    assert!(sets.starts_with("calls=30,"), "{sets}");
    let memory: u64 = field(&info, "used_memory").parse().unwrap();
    let least: u64 = cluster
        .servers()
        .map(|server| server.info("used_memory").unwrap().parse::<u64>().unwrap() / 2)
        .sum();
    assert!(memory > least);
    assert!(field(&info, "used_memory_human").ends_with('M'));

    let stats = conn.cmd(&["INFO", "stats"]).text();
    assert!(stats.starts_with("# Stats"), "{stats}");
    let own = conn.cmd(&["INFO", "sluice"]).text();
    assert!(own.starts_with("# Sluice") && !own.contains("redis_version"), "{own}");

    let port = cluster.shards[1].primary.port().to_string();
    let one = conn.cmd(&["INFO", "shard", "s1"]).text();
    assert_eq!((field(&one, "tcp_port"), one.contains("# Sluice")), (&*port, false));
    let server = conn.cmd(&["INFO", "shard", "s2", "server"]).text();
    assert!(server.starts_with("# Server") && !server.contains("# Memory"), "{server}");
    assert!(conn.cmd(&["INFO", "shard", "nosuch"]).error().contains("no shard 'nosuch'"));
}

#[test]
fn memory_is_told_of_all_shards() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().start();
    let mut conn = sluice.conn();
    for n in 0..20 {
        conn.cmd(&["SET", &format!("k{n}"), "v"]);
    }
    assert!(conn.cmd(&["MEMORY", "USAGE", "k1"]).int() > 0);
    let stats = map(&conn.cmd(&["MEMORY", "STATS"]));
    assert_eq!(stats["keys.count"], 20);
    assert!(stats["startup.allocated"].int() > 0);
    let doctor = conn.cmd(&["MEMORY", "DOCTOR"]).text();
    assert!(doctor.contains("# shard s0\n") && doctor.contains("# shard s1\n"), "{doctor}");
    assert!(conn.cmd(&["MEMORY", "MALLOC-STATS"]).text().contains("# shard s1"));
    assert_eq!(conn.cmd(&["MEMORY", "PURGE"]), "OK");
    let direct = &cluster.shards[0].primary;
    for container in ["MEMORY", "LATENCY", "SLOWLOG", "CONFIG", "OBJECT", "XINFO", "XGROUP"] {
        assert_eq!(conn.cmd(&[container, "HELP"]), direct.cmd(&[container, "HELP"]));
    }
    assert_eq!(conn.cmd(&["ROLE"]), direct.cmd(&["ROLE"]));
    assert!(conn.cmd(&["LASTSAVE"]).int() > 1_600_000_000);
}

#[test]
fn latency_is_told_of_all_shards() {
    let cluster = Cluster::with_args(2, 0, &["--latency-monitor-threshold", "1"]);
    let sluice = cluster.sluice().start();
    let mut conn = sluice.conn();
    for shard in &cluster.shards {
        shard.primary.cmd(&["DEBUG", "SLEEP", "0.02"]);
    }
    let latest = conn.cmd(&["LATENCY", "LATEST"]);
    assert_eq!(latest.items().len(), 1, "{latest:?}");
    let event = latest.items()[0].items();
    assert_eq!(event[0], "command");
    assert!(event[3].int() >= 20);
    assert_eq!(conn.cmd(&["LATENCY", "HISTORY", "command"]).items().len(), 2);
    assert!(conn.cmd(&["LATENCY", "GRAPH", "command"]).text().contains("# shard s1\n"));
    assert!(conn.cmd(&["LATENCY", "DOCTOR"]).text().contains("# shard s0\n"));
    for n in 0..50 {
        conn.cmd(&["SET", &format!("k{n}"), "v"]);
    }
    let histogram = map(&conn.cmd(&["LATENCY", "HISTOGRAM", "set"]));
    let set = map(&histogram["set"]);
    assert_eq!(set["calls"], 50);
    let counts = set["histogram_usec"].items();
    assert_eq!(counts.last().unwrap(), &Value::Int(50), "{counts:?}");
    assert_eq!(conn.cmd(&["LATENCY", "RESET"]), 2);
    assert_eq!(conn.cmd(&["LATENCY", "LATEST"]), Value::Array(vec![]));
}

#[test]
fn the_configuration_is_changed_everywhere_when_that_is_allowed() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().start();
    let mut conn = sluice.conn();
    for words in [vec!["CONFIG", "SET", "maxmemory", "0"], vec!["CONFIG", "RESETSTAT"]] {
        let told = conn.cmd(&words);
        assert!(told.error().ends_with("is disabled"), "{told:?}");
    }
    let sluice = cluster.sluice().listener("redis: { allow: [CONFIG, DEBUG] }").start();
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["CONFIG", "SET", "maxmemory", "123456789"]), "OK");
    for server in cluster.servers() {
        assert_eq!(server.cmd(&["CONFIG", "GET", "maxmemory"]).items()[1], bulk("123456789"));
    }
    let wrong = conn.cmd(&["CONFIG", "SET", "nosuch", "1"]);
    // All say the same, so it is told as one server would tell it.
    assert!(wrong.error().starts_with("ERR Unknown option"), "{wrong:?}");
    for n in 0..20 {
        conn.cmd(&["SET", &format!("k{n}"), "v"]);
    }
    assert!(cluster.servers().all(|server| server.calls("set") > 0));
    assert_eq!(conn.cmd(&["CONFIG", "RESETSTAT"]), "OK");
    assert!(cluster.servers().all(|server| server.calls("set") == 0));

    let of = |reply: Value| u128::from_str_radix(&reply.text()[..32], 16).unwrap();
    let each = cluster.servers().map(|server| of(server.cmd(&["DEBUG", "DIGEST"])));
    assert_eq!(of(conn.cmd(&["DEBUG", "DIGEST"])), each.fold(0, |all, one| all ^ one));
    assert!(conn.cmd(&["DEBUG", "OBJECT", "k1"]).text().contains("encoding:"));
}

#[test]
fn keys_tells_no_more_than_it_may() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().listener("redis: { keys_max: 10 }").start();
    let mut conn = sluice.conn();
    for n in 0..10 {
        conn.cmd(&["SET", &format!("k{n}"), "v"]);
    }
    assert_eq!(conn.cmd(&["KEYS", "*"]).items().len(), 10);
    conn.cmd(&["SET", "k10", "v"]);
    assert!(conn.cmd(&["KEYS", "*"]).error().contains("redis.keys_max"));
    assert_eq!(conn.cmd(&["KEYS", "k1*"]).items().len(), 2);
    assert_eq!(conn.cmd(&["DBSIZE"]), 11);
}

#[test]
fn the_flags_of_keys_are_those_of_the_server() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().start();
    let mut conn = sluice.conn();
    let sort = |reply: &Value| {
        let of = |key: &Value| {
            let mut flags: Vec<String> = key.items()[1].items().iter().map(Value::text).collect();
            flags.sort();
            (key.items()[0].text(), flags)
        };
        reply.items().iter().map(of).collect::<Vec<_>>()
    };
    for line in [
        "GET k",
        "SET k v",
        "SET k v GET",
        "MSET a 1 b 2",
        "ZUNIONSTORE to 2 a b",
        "BITFIELD k GET u8 0",
        "BITFIELD k SET u8 0 1",
        "XREADGROUP GROUP g c STREAMS a b > >",
        "SINTERCARD 2 a b",
        "RENAME a b",
        "LMOVE a b LEFT RIGHT",
        "EVAL x 2 a b c",
        "SORT k STORE to",
    ] {
        let words: Vec<&str> =
            ["COMMAND", "GETKEYSANDFLAGS"].into_iter().chain(line.split(' ')).collect();
        let (ours, theirs) = (conn.cmd(&words), cluster.shards[0].primary.cmd(&words));
        assert_eq!(sort(&ours), sort(&theirs), "{line}");
    }
    assert!(conn.cmd(&["COMMAND", "GETKEYSANDFLAGS", "PING", "x"]).error().contains("no key"));
}

#[test]
fn the_slow_log_says_where_the_time_went() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster
        .sluice()
        .listener("redis: { allow: [DEBUG] }")
        .cluster("redis: { slowlog: { threshold: 50ms, entries: 3 } }")
        .start();
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["SLOWLOG", "LEN"]), 0);
    assert_eq!(conn.cmd(&["CLIENT", "SETNAME", "waits"]), "OK");
    let info = conn.cmd(&["CLIENT", "INFO"]).text();
    let key = cluster.key_of(1, "slow");
    let server = &cluster.shards[1].primary;
    // So that there is a connection.
    conn.cmd(&["GET", &key]);
    // Both a read and a write wait until the server goes on.
    for words in [vec!["GET", &*key], vec!["SET", &*key, "v"]] {
        server.stop();
        conn.send(&request(&words));
        std::thread::sleep(Duration::from_millis(150));
        server.cont();
        conn.read();
    }
    conn.cmd(&["GET", "quick"]);
    assert_eq!(conn.cmd(&["SLOWLOG", "LEN"]), 2);
    let log = conn.cmd(&["SLOWLOG", "GET"]);
    let [write, read] = log.items() else { panic!("{log:?}") };
    for (entry, name) in [(write, "SET"), (read, "GET")] {
        let fields = entry.items();
        assert_eq!(fields.len(), 6, "as of Redis");
        assert!((100_000..5_000_000).contains(&fields[2].int()), "{entry:?}");
        let args = fields[3].items();
        assert_eq!([args[0].text(), args[1].text()], [name.to_owned(), key.clone()]);
        let way = args.last().unwrap().text();
        assert!(way.starts_with("(queue 0us, upstream ") && way.contains("shard s1"), "{way}");
        assert!(way.contains(&server.address()), "{way}");
        assert!(info.contains(&format!(" addr={} ", fields[4].text())), "{entry:?}\n{info}");
        assert_eq!(fields[5], "waits");
    }
    assert!(write.items()[0].int() > read.items()[0].int());
    assert_eq!(conn.cmd(&["SLOWLOG", "GET", "1"]).items().len(), 1);
    assert_eq!(conn.cmd(&["SLOWLOG", "GET", "-1"]).items().len(), 2);
    assert!(conn.cmd(&["SLOWLOG", "GET", "-2"]).error().contains("greater than or equal to -1"));
    assert!(conn.cmd(&["SLOWLOG", "GET", "x"]).is_error());
    assert_eq!(sluice.metrics().sum("sluice_redis_slow_requests_total", &[]), 2.0);
    assert_eq!(conn.cmd(&["SLOWLOG", "RESET"]), "OK");
    assert_eq!(conn.cmd(&["SLOWLOG", "GET"]), Value::Array(vec![]));
}

/// The second waits with its server for the first, and the third for a connection.
#[test]
fn the_slow_log_tells_waiting_from_working() {
    let server = FakeServer::start(|request| {
        let late = if request.words[0] == "GET" { 200 } else { 0 };
        let value = Value::Simple("OK".into());
        [vec![Step::Wait(Duration::from_millis(late))], Step::reply(&value)].concat()
    });
    let setup = Setup::shards([(server.address(), Vec::new())]);
    let sluice = setup.cluster("redis: { slowlog: { threshold: 100ms } }").start();
    let mut conn = sluice.conn();
    conn.send(b"GET one\r\nGET two\r\n");
    conn.read();
    conn.read();
    let log = conn.cmd(&["SLOWLOG", "GET"]);
    let of = |at: usize| log.items()[at].items()[3].items().last().unwrap().text();
    let behind = |text: &str| -> u64 {
        let (_, rest) = text.split_once("of which ").unwrap();
        rest.split_once("us").unwrap().0.parse().unwrap()
    };
    assert!(behind(&of(0)) >= 150_000, "{}", of(0));
    assert!(behind(&of(1)) < 50_000, "{}", of(1));
}

#[test]
fn a_request_that_timed_out_is_in_the_slow_log() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().cluster("timeouts: { request: 200ms, stall: 10s }").start();
    let mut conn = sluice.conn();
    let server = &cluster.shards[0].primary;
    server.stop();
    assert!(conn.cmd(&["SET", "k", "v"]).error().contains("timed out"));
    server.cont();
    let log = conn.cmd(&["SLOWLOG", "GET"]);
    let args = log.items()[0].items()[3].items();
    assert_eq!(args[0], "SET");
    assert!(args.last().unwrap().text().ends_with("timed out)"), "{log:?}");
    assert_eq!(log.items().len(), 1, "not once more with its late reply");
}

#[test]
fn keys_can_be_kept_secret() {
    let cluster = Cluster::start(1, 0);
    let redis = "redis: { slowlog: { threshold: 1ms }, big: 64KiB, redact: true }";
    let sluice = cluster.sluice().cluster(redis).start();
    let mut conn = sluice.conn();
    for _ in 0..2_000 {
        conn.cmd(&["GET", "secret"]);
    }
    let server = &cluster.shards[0].primary;
    server.stop();
    conn.send(&request(&["SET", "secret", &"hidden".repeat(20_000)]));
    std::thread::sleep(Duration::from_millis(20));
    server.cont();
    conn.read();
    conn.cmd(&["GET", "secret"]);
    let told = format!("{:?}{:?}", conn.cmd(&["SLOWLOG", "GET"]), conn.cmd(&["SLUICE", "HOTKEYS"]));
    assert!(told.to_lowercase().contains("set"), "{told}");
    let (_, status) = sluice.admin("/api/v1/status");
    eventually("the big ones are told", PATIENCE, || sluice.log().contains("a big").then_some(()));
    for text in [told, status, sluice.log()] {
        assert!(!text.contains("secret") && !text.contains("hidden"), "{text}");
    }
}

#[test]
fn hot_keys_are_found() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().workers(2).start();
    let mut conns = [sluice.conn(), sluice.conn()];
    eventually("the hottest is told", PATIENCE, || {
        for conn in &mut conns {
            let batch: Vec<Vec<String>> = (0..2_000)
                .map(|n| match n % 4 {
                    0 => vec!["GET".into(), format!("cold{n}")],
                    1 => vec!["HSET".into(), "warm".into(), "f".into(), "v".into()],
                    _ => vec!["GET".into(), "hot".into()],
                })
                .collect();
            conn.pipeline(&batch);
        }
        let told = conns[0].cmd(&["SLUICE", "HOTKEYS", "2"]);
        let keys: Vec<_> = told.items().iter().map(map).collect();
        let [hot, warm] = keys.as_slice() else { return None };
        let rate = |key: &HashMap<String, Value>| key["requests_per_second"].int();
        let found = hot["key"] == "hot" && warm["key"] == "warm" && rate(hot) > rate(warm);
        found.then_some(())
    });
    let status = sluice.status();
    assert_eq!(status["clusters"][0]["hot_keys"][0]["key"], "hot");
    let metrics = sluice.metrics();
    let rank = |rank| metrics.sum("sluice_redis_hot_key_requests_per_second", &[("rank", rank)]);
    assert!(rank("1") > rank("2") && rank("2") > 0.0 && rank("11") == 0.0);
    assert!(!metrics.text().contains("\"hot\""), "no label has a client's word");
}

#[test]
fn big_ones_are_counted_by_command() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().cluster("redis: { big: 100KiB }").start();
    let mut conn = sluice.conn();
    let value = "x".repeat(200_000);
    assert_eq!(conn.cmd(&["SET", "large", &value]), "OK");
    for _ in 0..3 {
        assert_eq!(conn.cmd(&["GET", "large"]), bulk(&value));
    }
    conn.cmd(&["SET", "small", &"x".repeat(50_000)]);
    conn.cmd(&["GET", "small"]);
    let metrics = sluice.metrics();
    let count = |command, direction| {
        metrics.sum("sluice_redis_big_total", &[("command", command), ("direction", direction)])
    };
    assert_eq!([count("set", "in"), count("get", "out")], [1.0, 3.0]);
    assert_eq!([count("set", "out"), count("get", "in")], [0.0, 0.0]);
    let log = sluice.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("a big ")).collect();
    assert!(lines[0].contains("large") && lines[0].contains("SET"), "{lines:?}");
    assert!(lines.len() <= 2, "{lines:?}");
}

#[test]
fn sluice_tells_of_itself() {
    let cluster = Cluster::start(2, 1);
    let sluice = cluster.sluice().cluster("reads: { from: prefer_replica }").start();
    let mut conn = sluice.conn();
    conn.cmd(&["SET", "k", "v"]);
    let help = conn.cmd(&["SLUICE", "HELP"]);
    assert!(help.items().iter().any(|line| line.text().starts_with("EXPLAIN")), "{help:?}");
    assert!(conn.cmd(&["SLUICE", "NOSUCH"]).error().contains("Try SLUICE HELP"));
    assert!(conn.cmd(&["SLUICE"]).is_error());

    let clusters = conn.cmd(&["SLUICE", "CLUSTERS"]);
    let one = map(&clusters.items()[0]);
    assert_eq!((one["name"].text(), one["shards"].int()), ("cache".to_owned(), 2));
    assert_eq!((one["backends"].int(), one["backends_ready"].int()), (4, 4));
    assert_eq!(one["writes"], 1);

    let shards = conn.cmd(&["SLUICE", "SHARDS"]);
    let second = map(&shards.items()[1]);
    assert_eq!((second["name"].text(), second["slots"].text()), ("s1".into(), "8192-16383".into()));
    let primary = map(&second["backends"].items()[0]);
    assert_eq!(primary["address"].text(), cluster.shards[1].primary.address());
    assert_eq!(
        (primary["role"].text(), primary["state"].text()),
        ("primary".into(), "ready".into())
    );

    let clients = map(&conn.cmd(&["SLUICE", "CLIENTS"]));
    assert_eq!((clients["listener"].text(), clients["active"].int()), ("cache".to_owned(), 1));
    assert_eq!(clients["id"], conn.cmd(&["CLIENT", "ID"]));
}

#[test]
fn explain_says_where_a_request_would_go_and_why() {
    let cluster = Cluster::start(2, 1);
    let sluice = cluster
        .sluice()
        .cluster("reads: { from: prefer_replica }")
        .listener("redis: { deny: [FLUSHALL] }")
        .start();
    let mut conn = sluice.conn();
    let mut explain = |line: &str| {
        let words: Vec<&str> = ["SLUICE", "EXPLAIN"].into_iter().chain(line.split(' ')).collect();
        let reply = conn.cmd(&words);
        reply.items().iter().map(Value::text).collect::<Vec<_>>()
    };
    let shard = &cluster.shards[0];
    let key = cluster.key_of(0, "k");
    let slot = sluice::policy::slot::slot(key.as_bytes());
    let read = explain(&format!("get {key}"));
    assert_eq!(&read[..2], ["command: GET", "access: read"]);
    assert!(read.contains(&format!("key: {key} slot {slot} shard s0")), "{read:?}");
    let of = |lines: &[String], address: &str| {
        lines.iter().find(|line| line.contains(address)).cloned().unwrap_or_default()
    };
    assert!(of(&read, &shard.replicas[0].address()).ends_with(": yes"), "{read:?}");
    assert!(of(&read, &shard.primary.address()).ends_with("wants replicas"), "{read:?}");
    let write = explain(&format!("SET {key} v"));
    assert!(of(&write, &shard.primary.address()).ends_with(": yes"), "{write:?}");
    assert!(of(&write, &shard.replicas[0].address()).ends_with("to the primary"), "{write:?}");
    let object = explain(&format!("OBJECT ENCODING {key}"));
    assert!(of(&object, &shard.primary.address()).ends_with(": yes"), "{object:?}");
    let two = [cluster.key_of(0, "a"), cluster.key_of(1, "b")].join(" ");
    assert!(explain(&format!("RENAME {two}")).iter().any(|line| line.contains("CROSSSLOT")));
    assert!(explain(&format!("MGET {two}")).iter().any(|line| line.contains("split over")));
    assert!(explain("FLUSHALL").iter().any(|line| line.contains("disabled")));
    assert!(explain("PING").iter().any(|line| line.contains("answered by Sluice")));
    assert!(explain("DBSIZE").iter().filter(|line| line.ends_with(": yes")).count() == 2);
    let gets: u64 = cluster.servers().map(|server| server.calls("get")).sum();
    assert_eq!(gets, 0, "nothing was sent");
    assert!(conn.cmd(&["SLUICE", "EXPLAIN", "nosuch"]).error().contains("unknown command"));
    assert!(conn.cmd(&["SLUICE", "EXPLAIN", "GET"]).error().contains("wrong number"));
}
