//! RESP3: what a client hears after HELLO 3 is byte for byte what the server would have told it, and
//! what RESP2 clients hear beside it stays RESP2.

use crate::harness::{Cluster, Conn};
use std::{path::Path, process::Command};

/// Requests whose replies depend on nothing but the data.
const SAME: &str = "
    PING; PING x; ECHO e; ROLE; ACL WHOAMI; ACL CAT; ACL CAT nonsense; ACL HELP; CLIENT HELP;
    OBJECT HELP; XINFO HELP; XGROUP HELP; CONFIG HELP; CLUSTER HELP; CONFIG GET save;
    COMMAND GETKEYS GET a; COMMAND INFO get nosuch; COMMAND INFO client|id xread;
    RANDOMKEY; MGET a b; SET k v; GET k; MGET k none; INCR n; EXISTS k n none; KEYS k*; SCAN 0;
    HSET h f 1; HGETALL h; HRANDFIELD h 1 WITHVALUES; SADD s x; SMEMBERS s; SISMEMBER s x;
    SPOP nothing; ZADD z 1.5 a 2 b; ZSCORE z a; ZSCORE z none; ZRANGE z 0 -1 WITHSCORES;
    ZMSCORE z a none; ZPOPMIN z; GEOADD g 13.361389 38.115556 p; GEOPOS g p none; LPUSH l a;
    LPOP l 2; LPOP l; XADD x 1-1 f v; XRANGE x - +; XREAD STREAMS x 0; XINFO STREAM x; TYPE k;
    OBJECT ENCODING k; MEMORY USAGE none; INCRBYFLOAT fl 2.5; DEL k n h; DBSIZE; LRANGE none 0 -1;
    LPUSH k a; GET k; NOSUCH; GET; DEBUG PROTOCOL attrib; DEBUG PROTOCOL map; DEBUG PROTOCOL set;
    DEBUG PROTOCOL double; DEBUG PROTOCOL bignum; DEBUG PROTOCOL verbatim; DEBUG PROTOCOL null;
    DEBUG PROTOCOL true; DEBUG PROTOCOL array; SELECT 16; SELECT -1; SELECT x; SELECT 99999999999;
    AUTH a; AUTH a b; AUTH; HELLO x; HELLO 1; HELLO 4; HELLO 4 FOO; HELLO 2 FOO; HELLO 3 SETNAME;
    HELLO 3 SETNAME a b; HELLO 3 AUTH a b; HELLO 3 AUTH a; CLIENT GETNAME; FLUSHALL; RESET; GET none";

fn lines() -> impl Iterator<Item = &'static str> {
    SAME.split(';').map(str::trim)
}

fn hello(conn: &mut Conn, version: &str) -> String {
    conn.raw(&format!("HELLO {version}"))
}

#[test]
fn one_server_says_the_same_through_the_proxy_in_both_versions() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().listener("redis: { allow: [DEBUG] }").start();
    for version in ["2", "3"] {
        let (mut direct, mut conn) = (cluster.shards[0].primary.conn(), sluice.conn());
        let id = |reply: &str| reply.split(":").nth(2).unwrap().to_owned();
        let (expected, greeting) = (hello(&mut direct, version), hello(&mut conn, version));
        assert_eq!(greeting.replace(&id(&greeting), ""), expected.replace(&id(&expected), ""));
        let expected: Vec<_> = lines().map(|line| direct.raw(line)).collect();
        for (line, expected) in lines().zip(expected) {
            assert_eq!(conn.raw(line), expected, "{line} in RESP{version}");
        }
    }
}

#[test]
fn several_shards_are_merged_in_the_version_of_the_client() {
    let cluster = Cluster::start(3, 0);
    let sluice = cluster.sluice().start();
    let mut conn = sluice.conn();
    assert!(hello(&mut conn, "3").starts_with("%7\r\n"));
    assert_eq!(conn.raw("RANDOMKEY"), "_\r\n");
    assert_eq!(conn.raw("MSET a 1 b 2 c 3 d 4"), "+OK\r\n");
    assert_eq!(
        conn.raw("MGET a none1 b none2 c none3 d"),
        "*7\r\n$1\r\n1\r\n_\r\n$1\r\n2\r\n_\r\n$1\r\n3\r\n_\r\n$1\r\n4\r\n"
    );
    assert_eq!(conn.raw("EXISTS a b c none"), ":3\r\n");
    assert_eq!(conn.raw("DBSIZE"), ":4\r\n");
    assert!(conn.raw("KEYS *").starts_with("*4\r\n"));
    let info = conn.raw("INFO keyspace");
    assert!(
        info.starts_with("=") && info.contains("txt:# Keyspace") && info.contains("db0:keys=4")
    );
    assert_eq!(info.matches("txt:").count(), 1);
    let (mut cursor, mut seen) = ("0".to_owned(), 0);
    loop {
        let page = conn.raw(&format!("SCAN {cursor}"));
        let mut page = page.split("\r\n");
        cursor = page.nth(2).unwrap().to_owned();
        seen += page.next().unwrap()[1..].parse::<i32>().unwrap();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen, 4);
    assert!(
        ["$1\r\na\r\n", "$1\r\nb\r\n", "$1\r\nc\r\n", "$1\r\nd\r\n"]
            .contains(&conn.raw("RANDOMKEY").as_str())
    );
    assert_eq!(conn.raw("DEL a b c d"), ":4\r\n");
}

/// The replies under way come in the version in which they were asked for, and later requests do
/// not overtake them on the other connection.
#[test]
fn the_version_changes_in_the_middle_of_a_pipeline() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().start();
    let (mut conn, mut other) = (sluice.conn(), sluice.conn());
    for round in 0..50 {
        let lines =
            ["HSET h f 1", "HGETALL h", "HELLO 3", "HGETALL h", "GET x", "HELLO 2", "GET x"];
        let lines: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
        let bytes: Vec<u8> =
            lines.iter().flat_map(|words| crate::harness::request(words)).collect();
        conn.send(&bytes);
        let replies: Vec<_> = lines.iter().map(|_| conn.read_raw()).collect();
        assert_eq!(replies[1], "*2\r\n$1\r\nf\r\n$1\r\n1\r\n", "round {round}");
        assert!(replies[2].starts_with("%7\r\n"));
        assert_eq!(replies[3], "%1\r\n$1\r\nf\r\n$1\r\n1\r\n");
        assert_eq!(replies[4], "_\r\n");
        assert!(replies[5].starts_with("*14\r\n"));
        assert_eq!(replies[6], "$-1\r\n");
        assert_eq!(other.raw("HGETALL h"), "*2\r\n$1\r\nf\r\n$1\r\n1\r\n");
    }
}

#[test]
fn hello_logs_in_and_reset_logs_out() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().listener("redis: { password: secret }").start();
    let mut conn = sluice.conn();
    assert!(hello(&mut conn, "3").starts_with("-NOAUTH HELLO must be called"));
    assert!(conn.raw("HELLO 3 AUTH default wrong SETNAME x").starts_with("-WRONGPASS"));
    let greeting = conn.raw("HELLO 3 AUTH default secret SETNAME me");
    assert!(greeting.starts_with("%7\r\n"), "{greeting}");
    assert_eq!(conn.raw("CLIENT GETNAME"), "$2\r\nme\r\n");
    assert_eq!(conn.raw("SELECT 3"), "+OK\r\n");
    assert_eq!(conn.raw("GET none"), "_\r\n");
    assert_eq!(conn.raw("RESET"), "+RESET\r\n");
    assert!(conn.raw("GET none").starts_with("-NOAUTH"));
    assert_eq!(conn.raw("RESET"), "+RESET\r\n");
    assert_eq!(conn.raw("AUTH secret"), "+OK\r\n");
    assert_eq!(conn.raw("CLIENT GETNAME"), "$-1\r\n");
    assert!(conn.raw("CLIENT INFO").contains(" db=0 "));
}

#[test]
fn reset_ends_subscriptions_and_transactions() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().start();
    let (mut conn, mut other) = (sluice.conn(), sluice.conn());
    hello(&mut conn, "3");
    assert_eq!(conn.raw("SUBSCRIBE c"), ">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
    let line = other.raw("CLIENT LIST TYPE pubsub");
    assert!(line.contains(" flags=P ") && line.contains(" sub=1 psub=0 "), "{line}");
    assert_eq!(conn.raw("MULTI"), "+OK\r\n");
    assert_eq!(conn.raw("SET k 1"), "+QUEUED\r\n");
    assert_eq!(conn.raw("RESET"), "+RESET\r\n");
    assert_eq!(conn.raw("EXEC"), "-ERR EXEC without MULTI\r\n");
    assert_eq!(other.raw("CLIENT LIST TYPE pubsub"), "$0\r\n\r\n");
    assert_eq!(other.raw("PUBLISH c m"), ":0\r\n");
    assert_eq!(conn.raw("GET k"), "$-1\r\n");
}

#[test]
fn redis_cli_and_redis_py_speak_resp3() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().workers(2).start();
    let port = sluice.port().to_string();
    let cli = |words: &[&str]| {
        let output = Command::new("redis-cli").args(["-3", "-p", &port]).args(words).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    cli(&["HSET", "h", "f", "v"]);
    assert_eq!(cli(&["--no-raw", "HGETALL", "h"]), "1# \"f\" => \"v\"\n");
    assert!(cli(&["--no-raw", "CLIENT", "INFO"]).contains("resp=3"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(root.join("target/venv/bin/python"));
    let output = command.arg(root.join("tests/it/redis_resp3.py")).arg(&port).output().unwrap();
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim() == "ok", "{said}\n{errors}");
}
