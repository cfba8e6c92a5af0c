//! Scripts and functions over real servers: where they run, and that they are there.

use crate::harness::{Cluster, Conn, PATIENCE, Redis, Sluice, Value, eventually, request, said};
use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

const ADD: &str = "return redis.call('incrby', KEYS[1], ARGV[1])";
const READ: &str = "return redis.call('get', KEYS[1])";
const LIBRARY: &str = "#!lua name=lib\n\
    redis.register_function('add', function(k, a) return redis.call('incrby', k[1], a[1]) end)\n\
    redis.register_function{function_name='peek', flags={'no-writes'}, \
    callback=function(k) return redis.call('get', k[1]) end}";

fn load(conn: &mut Conn, body: &str) -> String {
    conn.cmd(&["SCRIPT", "LOAD", body]).text()
}

#[test]
fn redis_py_registers_scripts_through_one_and_three_shards() {
    for shards in [1, 3] {
        let cluster = Cluster::start(shards, 0);
        let sluice = cluster.sluice().workers(2).start();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut python = Command::new(root.join("target/venv/bin/python"));
        python.arg(root.join("tests/it/redis_scripts.py")).arg(sluice.port().to_string());
        assert_eq!(said(&mut python), Ok("ok".to_owned()));
    }
}

#[test]
fn a_script_runs_where_its_keys_are() {
    let cluster = Cluster::start(3, 0);
    let sluice = cluster.sluice().start();
    let mut conn = sluice.conn();
    let sha = load(&mut conn, ADD);
    for index in 0..3 {
        let key = cluster.key_of(index, "k");
        assert_eq!(conn.cmd(&["EVAL", ADD, "1", &key, "1"]), 1);
        assert_eq!(conn.cmd(&["EVALSHA", &sha.to_uppercase(), "1", &key, "2"]), 3);
        assert_eq!(cluster.shards[index].primary.cmd(&["GET", &key]), "3");
    }
    let (a, b) = (cluster.key_of(0, "a"), cluster.key_of(1, "b"));
    assert!(conn.cmd(&["EVAL", ADD, "2", &a, &b, "1"]).error().starts_with("CROSSSLOT"));
    let exists = conn.cmd(&["SCRIPT", "EXISTS", &sha, &"0".repeat(40)]);
    assert_eq!(exists.items(), [Value::Int(1), Value::Int(0)]);
    cluster.shards[1].primary.cmd(&["SCRIPT", "FLUSH"]);
    assert_eq!(conn.cmd(&["SCRIPT", "EXISTS", &sha]).items(), [Value::Int(0)]);
}

#[test]
fn mistakes_are_told_in_the_servers_words() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().start();
    let (mut conn, mut server) = (sluice.conn(), cluster.shards[0].primary.conn());
    for line in [
        "EVAL",
        "EVAL x",
        "EVAL x y",
        "EVAL x -1 a",
        "EVAL x 2 a",
        "EVALSHA x 0",
        "EVALSHA_RO x 5 a",
        "EVAL_RO return(redis.call('set',KEYS[1],1)) 1 a",
        "EVAL return( 0",
        "EVAL error('mine') 0",
        "EVAL return{err='LOADING'} 0",
        "FCALL nope 0",
        "FCALL nope x",
        "SCRIPT",
        "SCRIPT LOAD",
        "SCRIPT LOAD return(",
        "SCRIPT FLUSH NOW",
        "SCRIPT KILL",
        "SCRIPT DEBUG MAYBE",
        "SCRIPT DEBUG NO",
        "SCRIPT EXISTS",
        "SCRIPT NONSENSE",
        "SCRIPT HELP",
        "FUNCTION KILL",
        "FUNCTION LOAD nonsense",
        "FUNCTION DELETE nope",
        "FUNCTION RESTORE nonsense",
        "FUNCTION STATS",
        "FUNCTION LIST",
        "FUNCTION HELP",
        "FUNCTION DUMP",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(conn.cmd(&words), server.cmd(&words), "{line}");
    }
    assert!(conn.cmd(&["SCRIPT", "DEBUG", "YES"]).error().contains("disabled"));
}

/// What a shard lost while it was down, or forgot because somebody told it to.
#[test]
fn a_script_that_a_server_lost_runs_all_the_same() {
    let mut cluster = Cluster::start(3, 0);
    let sluice = cluster.sluice().workers(2).start();
    let mut conn = sluice.conn();
    let (loaded, shown) = (load(&mut conn, ADD), "return {KEYS[1], ARGV[1]}");
    let key = cluster.key_of(2, "k");
    assert!(!conn.cmd(&["EVAL", shown, "1", &cluster.key_of(0, "k"), "x"]).is_error());
    let sha = cluster.shards[0].primary.cmd(&["SCRIPT", "LOAD", shown]).text();
    assert_eq!(conn.cmd(&["EVALSHA", &loaded, "1", &key, "1"]), 1);
    // Shown to one shard, called on another.
    assert_eq!(conn.cmd(&["EVALSHA", &sha, "1", &key, "x"]).items().len(), 2);

    let server = &mut cluster.shards[2].primary;
    server.restart();
    sluice.wait_for(&server.address(), true);
    let answer = |conn: &mut Conn, words: &[&str]| {
        eventually("the shard is back", PATIENCE, || {
            let reply = conn.cmd(words);
            (!reply.is_error() || reply.error().starts_with("NOSCRIPT")).then_some(reply)
        })
    };
    assert_eq!(answer(&mut conn, &["EVALSHA", &loaded, "1", &key, "5"]), 5);
    assert_eq!(answer(&mut conn, &["EVALSHA", &sha, "1", &key, "x"]).items().len(), 2);

    for round in 6..12 {
        server.cmd(&["SCRIPT", "FLUSH"]);
        assert_eq!(sluice.conn().cmd(&["EVALSHA", &loaded, "1", &key, "1"]), round);
    }
    // Through us a flush is a flush.
    assert_eq!(conn.cmd(&["SCRIPT", "FLUSH"]), "OK");
    for server in cluster.servers() {
        assert_eq!(server.cmd(&["SCRIPT", "EXISTS", &loaded]).items(), [Value::Int(0)]);
    }
    assert!(conn.cmd(&["EVALSHA", &loaded, "1", &key, "1"]).error().starts_with("NOSCRIPT"));
}

#[test]
fn a_pipeline_with_a_lost_script_keeps_its_order() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().start();
    let mut conn = sluice.conn();
    let sha = load(&mut conn, ADD);
    assert_eq!(conn.cmd(&["EVALSHA", &sha, "1", "k", "1"]), 1);
    for expected in ["NOSCRIPT", "5", "NOSCRIPT", "5"] {
        cluster.shards[0].primary.cmd(&["SCRIPT", "FLUSH"]);
        conn.cmd(&["SET", "k", "0"]);
        let replies = conn.pipeline(&[
            vec!["EVALSHA", &sha, "1", "k", "5"],
            vec!["SET", "k", "100"],
            vec!["GET", "k"],
        ]);
        // Sent again it would come last. The next time its body goes ahead, once.
        match &replies[0] {
            Value::Error(error) => assert!(error.starts_with(expected), "{replies:?}"),
            reply => assert_eq!(reply.int().to_string(), expected),
        }
        assert_eq!(replies[2], "100", "what came later was not overtaken");
        assert_eq!(conn.cmd(&["GET", "k"]), "100");
    }
}

#[test]
fn a_transaction_calls_a_script_that_the_server_lost() {
    let mut cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().start();
    let sha = load(&mut sluice.conn(), ADD);
    let server = &mut cluster.shards[0].primary;
    server.restart();
    sluice.wait_for(&server.address(), true);
    eventually("the transaction is executed", PATIENCE, || {
        let call = vec!["EVALSHA", &sha, "1", "k", "5"];
        let replies = sluice.conn().pipeline(&[vec!["MULTI"], call, vec!["EXEC"]]);
        (!replies[2].is_error()).then(|| assert_eq!(replies[2].items(), [Value::Int(5)]))
    });
}

#[test]
fn scripts_that_read_may_go_to_replicas() {
    let cluster = Cluster::start(1, 1);
    let sluice = cluster
        .sluice()
        .cluster("reads: { from: replica }")
        .cluster("redis: { script_shebang_reads: true }")
        .start();
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    let sha = load(&mut conn, READ);
    assert_eq!(conn.cmd(&["FUNCTION", "LOAD", LIBRARY]), "lib");
    cluster.wait_for_replicas();
    let replica = &cluster.shards[0].replicas[0];
    let shebang = format!("#!lua flags=no-writes\n{READ}");
    let named = load(&mut conn, &shebang);
    for (words, command) in [
        (["EVAL_RO", READ], "eval_ro"),
        (["EVALSHA_RO", &sha], "evalsha_ro"),
        (["FCALL_RO", "peek"], "fcall_ro"),
        (["EVAL", &shebang], "eval"),
        (["EVALSHA", &named], "evalsha"),
    ] {
        let before = replica.calls(command);
        assert_eq!(conn.cmd(&[&words[..], &["1", "k"]].concat()), "v", "{words:?}");
        assert_eq!(replica.calls(command), before + 1, "{words:?}");
    }
    let before = replica.calls("eval") + replica.calls("evalsha") + replica.calls("fcall");
    assert_eq!(conn.cmd(&["EVAL", READ, "1", "k"]), "v");
    assert_eq!(conn.cmd(&["EVALSHA", &sha, "1", "k"]), "v");
    assert_eq!(conn.cmd(&["FCALL", "peek", "1", "k"]), "v");
    let after = replica.calls("eval") + replica.calls("evalsha") + replica.calls("fcall");
    assert_eq!(after, before, "what may write went to a replica");
    assert_eq!(conn.cmd(&["SCRIPT", "FLUSH"]), "OK");
    assert!(conn.cmd(&["EVALSHA_RO", &sha, "1", "k"]).error().starts_with("NOSCRIPT"));
}

#[test]
fn what_has_no_key_runs_on_the_shard_that_is_named() {
    let cluster = Cluster::start(3, 0);
    let count = |shard: usize| cluster.shards[shard].primary.calls("eval");
    let sluice = cluster.sluice().start();
    assert_eq!(sluice.conn().cmd(&["EVAL", "return 1", "0"]), 1);
    assert_eq!([count(0), count(1), count(2)], [1, 0, 0]);
    let sluice = cluster.sluice().cluster("redis: { keyless_shard: s2 }").start();
    assert_eq!(sluice.conn().cmd(&["EVAL", "return 1", "0"]), 1);
    assert_eq!([count(0), count(1), count(2)], [1, 0, 1]);
}

#[test]
fn functions_are_on_all_shards_or_it_is_told() {
    let cluster = Cluster::start(3, 0);
    let sluice = cluster.sluice().start();
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["FUNCTION", "LOAD", LIBRARY]), "lib");
    for index in 0..3 {
        let key = cluster.key_of(index, "k");
        assert_eq!(conn.cmd(&["FCALL", "add", "1", &key, "4"]), 4);
        assert_eq!(conn.cmd(&["FCALL_RO", "peek", "1", &key]), "4");
    }
    let again = conn.cmd(&["FUNCTION", "LOAD", LIBRARY]);
    assert_eq!(again.error(), "ERR Library 'lib' already exists", "all say the same");
    let dump = match conn.cmd(&["FUNCTION", "DUMP"]) {
        Value::Bulk(bytes) => bytes,
        other => panic!("{other:?}"),
    };
    assert_eq!(cluster.shards[1].primary.cmd(&["FUNCTION", "FLUSH"]), "OK");
    let partly = conn.cmd(&["FUNCTION", "DELETE", "lib"]);
    assert_eq!(
        partly.error(),
        "ERR sluice: FUNCTION DELETE failed on 1 of 3 shards (shard s1: ERR Library not found); the others have done it"
    );
    assert_eq!(conn.cmd(&[b"FUNCTION", &b"RESTORE"[..], &dump]), "OK");
    for server in cluster.servers() {
        assert_eq!(server.cmd(&["FUNCTION", "LIST"]).items().len(), 1);
    }
    assert_eq!(conn.cmd(&["FUNCTION", "FLUSH"]), "OK");
    assert_eq!(conn.cmd(&["FUNCTION", "LIST"]).items().len(), 0);
}

fn runs(sluice: &Sluice, words: &[&str]) -> Conn {
    let mut conn = sluice.conn();
    conn.send(&request(words));
    conn
}

fn is_busy(server: &Redis) {
    eventually("the server runs a script", PATIENCE, || {
        server.cmd(&["PING"]).is_error().then_some(())
    });
}

#[test]
fn a_script_that_does_not_end_is_killed_on_whichever_shard_it_runs() {
    let cluster = Cluster::with_args(3, 0, &["--busy-reply-threshold", "100"]);
    let sluice = cluster.sluice().start();
    let mut conn = sluice.conn();
    assert!(conn.cmd(&["SCRIPT", "KILL"]).error().starts_with("NOTBUSY"));
    let endless =
        "#!lua name=endless\nredis.register_function('f', function() while true do end end)";
    assert_eq!(conn.cmd(&["FUNCTION", "LOAD", endless]), "endless");
    let key = cluster.key_of(1, "k");
    for (kind, words) in [
        ("SCRIPT", ["EVAL", "while true do end", "1", &key]),
        ("FUNCTION", ["FCALL", "f", "1", &key]),
    ] {
        let mut runs = runs(&sluice, &words);
        is_busy(&cluster.shards[1].primary);
        let begun = Instant::now();
        assert_eq!(conn.cmd(&[kind, "KILL"]), "OK", "{kind}");
        assert!(runs.read().error().contains("kill"), "{kind}");
        assert!(begun.elapsed() < Duration::from_secs(2));
        assert_eq!(conn.cmd(&["SET", &key, "1"]), "OK");
    }
    // One that has written cannot be killed; what the server says of it is more than NOTBUSY.
    let body = "redis.call('set', KEYS[1], 1) local t = redis.call('time')[1] + 2 \
        while redis.call('time')[1] + 0 < t do end return 1";
    let mut writes = runs(&sluice, &["EVAL", body, "1", &key]);
    is_busy(&cluster.shards[1].primary);
    assert!(conn.cmd(&["SCRIPT", "KILL"]).error().starts_with("UNKILLABLE"));
    assert_eq!(writes.read(), 1);
}

#[test]
fn a_script_may_take_longer_than_a_request() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().cluster("timeouts: { request: 300ms, stall: 300ms }").start();
    let body = "local t = redis.call('time') local e = t[1] * 1000000 + t[2] + 900000 \
        while t[1] * 1000000 + t[2] < e do t = redis.call('time') end return 'late'";
    assert_eq!(sluice.conn().cmd(&["EVAL", body, "0"]), "late");
    let sluice = cluster.sluice().cluster("timeouts: { request: 10s, script: 300ms }").start();
    let mut conn = sluice.conn();
    assert!(conn.cmd(&["EVAL", body, "0"]).error().contains("timed out"));
    assert_eq!(conn.cmd(&["GET", "k"]), Value::Nil, "the late reply is nobody else's");
}

/// They waited behind it on the connection that all share, PING said PONG, and SCRIPT KILL did not
/// come through to a server that refused SELECT.
#[test]
fn others_are_told_that_the_server_is_busy_while_a_script_runs() {
    let cluster = Cluster::with_args(1, 0, &["--busy-reply-threshold", "100"]);
    let sluice = cluster.sluice().start();
    let (mut here, mut elsewhere) = (sluice.conn(), sluice.conn());
    assert_eq!(here.cmd(&["GET", "k"]), Value::Nil);
    assert_eq!(elsewhere.cmd(&["SELECT", "9"]), "OK");
    let mut runs = runs(&sluice, &["EVAL", "while true do end", "0"]);
    is_busy(&cluster.shards[0].primary);
    for conn in [&mut here, &mut elsewhere] {
        eventually("PING tells it", PATIENCE, || conn.cmd(&["PING"]).is_error().then_some(()));
        assert!(conn.cmd(&["GET", "k"]).error().starts_with("BUSY"));
    }
    assert_eq!(elsewhere.cmd(&["SCRIPT", "KILL"]), "OK");
    assert!(runs.read().error().contains("kill"));
    eventually("PONG again", PATIENCE, || (!here.cmd(&["PING"]).is_error()).then_some(()));
    assert_eq!(elsewhere.cmd(&["GET", "k"]), Value::Nil);
}

/// Its reply closed the connection that all share.
#[test]
fn a_script_may_return_a_table_with_itself_inside() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().start();
    let (mut conn, mut other) = (sluice.conn(), sluice.conn());
    let endless = "local a = {}; local b = {a}; a[1] = b; return a";
    conn.send(&request(&["EVAL", endless, "0"]));
    conn.send(&request(&["QUIT"]));
    let reply = String::from_utf8(conn.read_to_close()).unwrap();
    assert!(reply.starts_with("*1\r\n*1\r\n"));
    assert!(reply.ends_with("-ERR reached lua stack limit\r\n+OK\r\n"));
    assert_eq!(other.cmd(&["GET", "k"]), Value::Nil);
}

/// A script that begins when another one has just ended: what was asked meanwhile went behind it.
#[test]
fn a_ping_does_not_wait_behind_a_script() {
    let cluster = Cluster::with_args(1, 0, &["--busy-reply-threshold", "10"]);
    let sluice = cluster.sluice().start();
    let (mut runs, mut other) = (sluice.conn(), sluice.conn());
    for _ in 0..4 {
        runs.send(b"EVAL 'while 1 do end' 0\r\nPING\r\n");
        let busy = || other.raw("PING").starts_with("-BUSY").then_some(());
        eventually("the server is busy", PATIENCE, busy);
        assert_eq!(other.raw("SCRIPT KILL"), "+OK\r\n");
        assert!(runs.read_raw().starts_with("-ERR Script killed"));
        assert_eq!(runs.read_raw(), "+PONG\r\n");
    }
}
