//! What Sluice answers by itself, the words with which it refuses, and inline commands. Not what
//! it asks of every shard: that is redis_spread.

use crate::harness::{Cluster, Conn, PATIENCE, Value, bulk, eventually};
use std::time::{Duration, SystemTime};

#[test]
fn a_client_finds_a_redis_server() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().start();
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["PING"]), Value::Simple("PONG".into()));
    assert_eq!(conn.cmd(&["ping", "hello"]), bulk("hello"));
    assert_eq!(conn.cmd(&["ECHO", "e\0\r\n"]), bulk("e\0\r\n"));
    assert!(conn.cmd(&["ECHO"]).error().contains("wrong number of arguments for 'echo'"));
    assert!(conn.cmd(&["AUTH", "x"]).error().starts_with("ERR AUTH <password> called without"));

    let time = conn.cmd(&["TIME"]);
    let seconds: u64 = time.items()[0].text().parse().unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert!(now.abs_diff(seconds) < 60, "{time:?}");

    let info = conn.cmd(&["INFO"]).text();
    for line in ["redis_version:7.0.15", "role:master"] {
        assert!(info.contains(line), "{line} not in\n{info}");
    }
    assert!(conn.cmd(&["INFO", "server"]).text().contains("redis_version:7.0.15"));
    for name in ["save", "appendonly"] {
        assert_eq!(conn.cmd(&["CONFIG", "GET", name]).items()[0], bulk(name));
    }
}

#[test]
fn hello_greets() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().start();
    let mut conn = sluice.conn();
    for words in [vec!["HELLO"], vec!["HELLO", "2"], vec!["HELLO", "2", "SETNAME", "me"]] {
        let reply = conn.cmd(&words);
        let pairs: Vec<_> = reply.items().chunks(2).map(|p| (p[0].text(), p[1].clone())).collect();
        let field = |name: &str| pairs.iter().find(|(key, _)| key == name).unwrap().1.clone();
        assert_eq!(field("server"), "redis");
        assert_eq!(field("version"), "7.0.15");
        assert_eq!(field("proto"), 2);
        assert_eq!(field("mode"), "standalone");
        assert_eq!(field("role"), "master");
        assert!(field("id").int() > 0);
        assert_eq!(field("modules"), Value::Array(vec![]));
    }
    assert_eq!(conn.cmd(&["CLIENT", "GETNAME"]), "me");
    assert_eq!(conn.cmd(&["HELLO", "9"]).error(), "NOPROTO unsupported protocol version");
    assert!(
        conn.cmd(&["HELLO", "x"]).error().starts_with("ERR Protocol version is not an integer")
    );
    assert_eq!(conn.cmd(&["PING"]), "PONG");
}

#[test]
fn clients_have_ids_and_names_of_their_own() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().workers(2).start();
    let (mut one, mut two) = (sluice.conn(), sluice.conn());
    assert_ne!(one.cmd(&["CLIENT", "ID"]), two.cmd(&["CLIENT", "ID"]));
    assert_eq!(one.cmd(&["CLIENT", "GETNAME"]), Value::Nil);
    assert_eq!(one.cmd(&["CLIENT", "SETNAME", "first"]), "OK");
    assert_eq!(one.cmd(&["CLIENT", "SETINFO", "LIB-NAME", "tests"]), "OK");
    assert!(one.cmd(&["CLIENT", "SETNAME", "a b"]).error().starts_with("ERR Client names cannot"));
    assert_eq!(one.cmd(&["CLIENT", "GETNAME"]), "first");
    assert_eq!(two.cmd(&["CLIENT", "GETNAME"]), Value::Nil);
    let names = cluster.shards[0].primary.cmd(&["CLIENT", "LIST"]).text();
    assert!(!names.contains("name=first"), "a client's name leaked upstream:\n{names}");
}

#[test]
fn the_command_table_is_served() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().start();
    let mut conn = sluice.conn();
    let server = &cluster.shards[0].primary;
    let count = conn.cmd(&["COMMAND", "COUNT"]).int();
    assert!(count > 200, "{count}");
    let all = conn.cmd(&["COMMAND"]);
    assert!(all.items().len() > 200);
    let get = conn.cmd(&["COMMAND", "INFO", "get", "no-such"]);
    let expected = server.cmd(&["COMMAND", "INFO", "get"]);
    // Name, arity, and the key positions.
    for index in [0, 1, 3, 4, 5] {
        assert_eq!(get.items()[0].items()[index], expected.items()[0].items()[index], "{index}");
    }
    assert_eq!(get.items()[1], Value::Nil);
    for words in [
        vec!["COMMAND", "GETKEYS", "MSET", "a", "1", "b", "2"],
        vec!["COMMAND", "GETKEYS", "GET", "k"],
        vec!["COMMAND", "GETKEYS", "EVAL", "return 1", "2", "x", "y", "z"],
    ] {
        assert_eq!(conn.cmd(&words), server.cmd(&words), "{words:?}");
    }
    let docs = conn.cmd(&["COMMAND", "DOCS", "get"]);
    assert!(matches!(docs, Value::Array(_)), "{docs:?}");
}

#[test]
fn databases_are_kept_apart_on_the_servers() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().start();
    let (mut zero, mut four) = (sluice.conn(), sluice.conn());
    assert_eq!(four.cmd(&["SELECT", "4"]), "OK");
    assert_eq!(four.cmd(&["SET", "k", "in four"]), "OK");
    assert_eq!(zero.cmd(&["GET", "k"]), Value::Nil);
    assert_eq!(zero.cmd(&["SET", "k", "in zero"]), "OK");
    // Interleaved in one write: SELECT must hold for what follows it and for nothing else.
    let mixed = ["SELECT 4", "GET k", "SELECT 0", "GET k", "SELECT 4", "GET k"];
    let mixed: Vec<Vec<&str>> = mixed.iter().map(|line| line.split(' ').collect()).collect();
    let replies = zero.pipeline(&mixed);
    let values: Vec<String> = replies.iter().skip(1).step_by(2).map(Value::text).collect();
    assert_eq!(values, ["in four", "in zero", "in four"]);
    let mut direct = cluster.owner("k").primary.conn();
    direct.cmd(&["SELECT", "4"]);
    assert_eq!(direct.cmd(&["GET", "k"]), "in four");
    assert_eq!(zero.cmd(&["SELECT", "99999"]).error(), "ERR DB index is out of range");
    assert!(zero.cmd(&["SELECT", "x"]).is_error());
    assert_eq!(zero.cmd(&["GET", "k"]), "in four");
}

/// Each database has a connection of its own, so a pipeline over two of them could overtake itself.
#[test]
fn a_pipeline_over_databases_keeps_its_order() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().start();
    let mut conn = sluice.conn();
    for round in 0..200 {
        let value = round.to_string();
        let words: Vec<Vec<&str>> = vec![
            vec!["SELECT", "1"],
            vec!["SET", "k", &value],
            vec!["SELECT", "0"],
            vec!["FLUSHALL"],
            vec!["SELECT", "1"],
            vec!["GET", "k"],
        ];
        assert_eq!(conn.pipeline(&words)[5], Value::Nil, "round {round}");
    }
}

#[test]
fn what_a_later_version_brings_is_refused_and_the_connection_kept() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().start();
    let mut conn = sluice.conn();
    for line in ["CLUSTER INFO", "CLIENT CAPA redirect"] {
        let words: Vec<&str> = line.split(' ').collect();
        let expected = format!("ERR sluice: '{}|{}' is not supported yet", words[0], words[1]);
        assert_eq!(conn.cmd(&words).error(), expected, "{line}");
        let lower: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
        assert_eq!(conn.cmd(&lower).error(), expected, "{line}");
    }
    assert_eq!(conn.cmd(&["PING"]), "PONG");
}

#[test]
fn what_would_destroy_or_hijack_is_refused_until_allowed() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().start();
    let mut conn = sluice.conn();
    for line in [
        "MONITOR",
        "SYNC",
        "PSYNC ? -1",
        "REPLCONF ack 1",
        "SHUTDOWN NOSAVE",
        "DEBUG SLEEP 0",
        "REPLICAOF no one",
        "SLAVEOF no one",
        "FAILOVER",
        "MIGRATE h 1 k 0 1",
        "MODULE LIST",
        "SAVE",
        "BGSAVE",
        "BGREWRITEAOF",
        "SWAPDB 0 1",
        "PFDEBUG ENCODING k",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let reply = conn.cmd(&words);
        let text = reply.error();
        let named = text.starts_with(&format!("ERR sluice: command '{}", words[0]));
        assert!(named && text.ends_with("' is disabled"), "{line}: {text}");
    }
    drop(sluice);
    let sluice =
        cluster.sluice().listener("redis: { allow: [DEBUG], deny: [FLUSHALL, KEYS] }").start();
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["DEBUG", "SLEEP", "0"]), "OK");
    assert!(cluster.servers().all(|server| server.calls("debug") == 1));
    for words in [vec!["FLUSHALL"], vec!["keys", "*"]] {
        let name = words[0].to_uppercase();
        assert_eq!(conn.cmd(&words).error(), format!("ERR sluice: command '{name}' is disabled"));
    }
    assert_eq!(conn.cmd(&["FLUSHDB"]), "OK");
}

#[test]
fn people_with_telnet_are_understood() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().start();
    let mut conn = sluice.conn();
    let mut say = |line: &str| {
        conn.send(line.as_bytes());
        conn.read()
    };
    assert_eq!(say("PING\r\n"), "PONG");
    assert_eq!(say("  ping  \n"), "PONG");
    assert_eq!(say("\r\n\r\nSET k \"a b\\x41\\n\"\r\n"), "OK");
    assert_eq!(say("GET k\r\n"), "a bA\n");
    assert_eq!(say("set 'k' 'it\\'s'\r\n"), "OK");
    assert_eq!(say("GET k\r\n"), "it's");
    assert_eq!(say("*0\r\n*-1\r\nECHO x\r\n"), "x");
    assert_eq!(say("MGET k none\r\n").items().len(), 2);
    assert!(say("GET\r\n").error().contains("wrong number of arguments"));
    conn.send(b"SET k \"open\r\n");
    assert_eq!(conn.read().error(), "ERR Protocol error: unbalanced quotes in request");
    assert_eq!(conn.read_to_close(), b"");
}

#[test]
fn quit_and_half_close_answer_what_was_asked_before() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().start();
    let ask = |conn: &mut Conn| {
        let sets: Vec<_> =
            (0..50).map(|n| vec!["SET".into(), format!("k{n}"), "v".into()]).collect();
        let bytes: Vec<u8> = sets.iter().flat_map(|words| crate::harness::request(words)).collect();
        conn.send(&bytes);
    };
    let mut conn = sluice.conn();
    ask(&mut conn);
    conn.send(b"QUIT\r\nSET late 1\r\n");
    assert!((0..51).all(|_| conn.read() == "OK"));
    assert_eq!(conn.read_to_close(), b"");

    let mut conn = sluice.conn();
    ask(&mut conn);
    conn.finish_sending();
    assert!((0..50).all(|_| conn.read() == "OK"));
    conn.patience(Duration::from_secs(5));
    assert_eq!(conn.read_to_close(), b"");
    assert_eq!(sluice.conn().cmd(&["EXISTS", "late"]), 0);
}

/// It was a normal client to CLIENT LIST, and CLIENT KILL TYPE did not find it.
#[test]
fn who_takes_the_stream_of_a_replica_is_listed_and_killed_as_one() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().listener("redis: { allow: [PSYNC, REPLCONF] }").start();
    let (mut replica, mut other) = (sluice.conn(), sluice.conn());
    assert_eq!(replica.cmd(&["REPLCONF", "capa", "psync2"]), "OK");
    assert_eq!(other.cmd(&["CLIENT", "LIST", "TYPE", "replica"]), "");
    replica.say("PSYNC ? -1");
    assert!(replica.read().text().starts_with("FULLRESYNC "));
    let listed = other.cmd(&["CLIENT", "LIST", "TYPE", "replica"]).text();
    assert!(listed.lines().count() == 1 && listed.contains(" flags=S "), "{listed}");
    assert_eq!(other.cmd(&["CLIENT", "KILL", "TYPE", "slave"]), 1);
    replica.patience(Duration::from_secs(5));
    replica.read_to_close();
}

/// It was refused even where it was allowed.
#[test]
fn a_monitor_has_a_connection_of_its_own_where_others_share_one() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().listener("redis: { allow: [MONITOR] }").start();
    let (mut monitor, mut other) = (sluice.conn(), sluice.conn());
    assert_eq!(monitor.cmd(&["SELECT", "3"]), "OK");
    assert_eq!(monitor.cmd(&["MONITOR"]), "OK");
    assert_eq!(other.cmd(&["SET", "seen", "1"]), "OK");
    eventually("the monitor sees it", PATIENCE, || {
        monitor.read().text().contains("\"SET\" \"seen\"").then_some(())
    });
    assert_eq!(other.cmd(&["GET", "seen"]), "1");
}
