//! `upstream.mode: dedicated`: each client has the server for itself, as far as the listener allows.

use crate::harness::{
    Cluster, Conn, PATIENCE, Redis, Setup, Sluice, Value, bulk, eventually, request,
};
use std::{thread, time::Duration};

fn dedicated(cluster: &Cluster) -> Setup {
    cluster.sluice().cluster("upstream: { mode: dedicated }")
}

const ALL: &str = "redis: { allow: [MONITOR, DEBUG, CLIENT, CONFIG, ACL, CLUSTER] }";

#[test]
fn one_client_hears_what_the_server_says_to_another_one() {
    let cluster = Cluster::start(1, 0);
    let sluice = dedicated(&cluster).listener(ALL).start();
    let other = Redis::start();
    let (mut direct, mut conn) = (other.conn(), sluice.conn());
    for line in [
        "PING",
        "SELECT 3",
        "SET a 1",
        "MULTI",
        "INCR a",
        "GET",
        "EXEC",
        "MULTI",
        "INCR a",
        "SELECT 4",
        "EXEC",
        "WATCH a",
        "MULTI",
        "GET a",
        "EXEC",
        "UNWATCH",
        "EVAL return{1,{2,3}} 0",
        "SCRIPT LOAD return",
        "OBJECT HELP",
        "CLIENT SETNAME me",
        "CLIENT GETNAME",
        "CONFIG SET maxmemory-samples 7",
        "CONFIG GET maxmemory-samples",
        "DEBUG OBJECT nothing",
        "ROLE",
        "WAIT 0 0",
        "NONSENSE a b",
        "ACL WHOAMI",
        "HELLO 7",
        "LPUSH list x",
        "BLPOP list 0",
        "BLPOP list 0.01",
        "QUIT",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(conn.cmd(&words), direct.cmd(&words), "{line}");
    }
    assert!(conn.read_to_close().is_empty(), "the server closed");
}

#[test]
fn streams_pass() {
    let cluster = Cluster::start(1, 0);
    let server = &cluster.shards[0].primary;
    let sluice = dedicated(&cluster).listener(ALL).start();
    let mut subscriber = sluice.conn();
    subscriber.send(&request(&["PING"]));
    subscriber.send(&request(&["SUBSCRIBE", "a", "b"]));
    assert_eq!(subscriber.read(), "PONG");
    for (n, channel) in [(1, "a"), (2, "b")] {
        let told = Value::Array(vec![bulk("subscribe"), bulk(channel), Value::Int(n)]);
        assert_eq!(subscriber.read(), told);
    }
    let mut other = sluice.conn();
    for round in 0..100 {
        let text = format!("message {round}");
        assert_eq!(other.cmd(&["PUBLISH", "a", &text]), 1);
        let message = Value::Array(vec![bulk("message"), bulk("a"), bulk(&text)]);
        assert_eq!(subscriber.read(), message);
    }
    let pong = subscriber.cmd(&["PING"]);
    assert_eq!(pong, Value::Array(vec![bulk("pong"), bulk("")]));
    let refused = subscriber.cmd(&["GET", "a"]);
    assert!(refused.error().starts_with("ERR Can't execute 'get'"), "{refused:?}");

    let mut monitor = sluice.conn();
    assert_eq!(monitor.cmd(&["MONITOR"]), "OK");
    other.cmd(&["SET", "seen", "1"]);
    eventually("the monitor sees it", PATIENCE, || {
        monitor.read().text().contains("\"SET\" \"seen\"").then_some(())
    });

    let mut silent = sluice.conn();
    silent.send(&request(&["CLIENT", "REPLY", "OFF"]));
    (0..50).for_each(|_| silent.send(&request(&["INCR", "n"])));
    silent.send(&request(&["CLIENT", "REPLY", "ON"]));
    assert_eq!(silent.read(), "OK");
    assert_eq!(silent.cmd(&["GET", "n"]), "50");

    let mut three = sluice.conn();
    three.send(&request(&["HELLO", "3"]));
    three.send(&request(&["QUIT"]));
    let text = String::from_utf8(three.read_to_close()).unwrap();
    assert!(text.starts_with("%7\r\n") && text.ends_with("+OK\r\n"), "{text}");
    drop((subscriber, monitor, silent));
    eventually("their connections went with them", PATIENCE, || {
        // Beside `other`'s there are those of probes and of questions of ours.
        let list = server.cmd(&["CLIENT", "LIST"]).text();
        let left = ["cmd=subscribe", "cmd=monitor", "cmd=get", "cmd=quit"];
        (!left.iter().any(|cmd| list.contains(cmd))).then_some(())
    });
}

#[test]
fn what_the_listener_refuses_is_refused_in_its_place() {
    let cluster = Cluster::start(1, 0);
    let sluice = dedicated(&cluster).listener("redis: { deny: [FLUSHALL, NEW.ONE] }").start();
    let mut conn = sluice.conn();
    let lines = [
        "SET a 1",
        "FLUSHALL",
        "GET a",
        "CONFIG SET maxmemory 1",
        "SHUTDOWN NOSAVE",
        "CLIENT KILL TYPE normal",
        "CLIENT LIST",
        "DEBUG SLEEP 0",
        "MONITOR",
        "NEW.ONE x",
        "CLUSTER NEWTHING",
        "GET a",
    ];
    let requests: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
    let replies = conn.pipeline(&requests);
    for (line, reply) in lines.iter().zip(replies) {
        match *line {
            "SET a 1" => assert_eq!(reply, "OK"),
            "GET a" => assert_eq!(reply, "1"),
            _ => assert!(reply.error().contains("is disabled"), "{line}: {reply:?}"),
        }
    }
    for (line, wanted) in [("MULTI", "OK"), ("GET a", "QUEUED")] {
        assert_eq!(conn.cmd(&line.split(' ').collect::<Vec<_>>()), wanted);
    }
    assert!(conn.cmd(&["FLUSHALL"]).error().contains("is disabled"));
    assert!(conn.cmd(&["EXEC"]).error().starts_with("EXECABORT"));
    assert_eq!(conn.cmd(&["SUBSCRIBE", "c"]).items()[0], bulk("subscribe"));
    assert!(conn.cmd(&["FLUSHALL"]).error().contains("is disabled"));
    assert_eq!(conn.cmd(&["UNSUBSCRIBE", "c"]).items()[0], bulk("unsubscribe"));
    assert_eq!(conn.cmd(&["GET", "a"]), "1");
}

/// It was refused though all was allowed that CONFIG can do.
#[test]
fn the_server_says_that_it_does_not_know_a_subcommand_when_all_that_are_refused_are_allowed() {
    let cluster = Cluster::start(1, 0);
    for (allow, wanted) in [
        ("[CONFIG|SET, CONFIG|REWRITE, CONFIG|RESETSTAT]", "ERR unknown subcommand 'NEW'"),
        ("[CONFIG|SET, CONFIG|REWRITE]", "ERR sluice: command 'CONFIG' is disabled"),
    ] {
        let sluice = dedicated(&cluster).listener(&format!("redis: {{ allow: {allow} }}")).start();
        let told = sluice.conn().cmd(&["CONFIG", "NEW"]).error().to_owned();
        assert!(told.starts_with(wanted), "{told}");
    }
}

/// One password for the server, another one for clients.
fn with_passwords() -> (Cluster, Sluice) {
    let cluster = Cluster::with_args(1, 0, &["--requirepass", "upstream"]);
    let sluice = cluster
        .sluice()
        .cluster("upstream: { mode: dedicated, password: upstream }")
        .listener("redis: { password: ours }")
        .start();
    (cluster, sluice)
}

#[test]
fn the_listeners_password_is_asked_for_here() {
    let (_cluster, sluice) = with_passwords();
    let mut conn = sluice.conn();
    assert!(conn.cmd(&["GET", "a"]).error().starts_with("NOAUTH"));
    assert!(conn.cmd(&["AUTH", "upstream"]).error().starts_with("WRONGPASS"));
    assert_eq!(conn.cmd(&["AUTH", "ours"]), "OK");
    assert_eq!(conn.cmd(&["SET", "a", "1"]), "OK");
    assert_eq!(conn.cmd(&["RESET"]), "RESET");
    assert!(conn.cmd(&["GET", "a"]).error().starts_with("NOAUTH"));
    assert_eq!(conn.cmd(&["AUTH", "default", "ours"]), "OK");
    assert_eq!(conn.cmd(&["GET", "a"]), "1");
    let mut hello = sluice.conn();
    let greeting = hello.cmd(&["HELLO", "2", "AUTH", "default", "ours", "SETNAME", "me"]);
    assert_eq!(greeting.items()[1], "redis");
    assert_eq!(hello.cmd(&["CLIENT", "GETNAME"]), "me");
}

/// It closed the client, or said NOAUTH before RESET's reply had come.
#[test]
fn reset_of_a_subscriber_is_answered_and_then_asks_for_the_password() {
    let (_cluster, sluice) = with_passwords();
    let mut conn = sluice.conn();
    for _ in 0..3 {
        assert_eq!(conn.cmd(&["AUTH", "ours"]), "OK");
        let lines = ["SUBSCRIBE c", "RESET", "GET a", "AUTH ours", "SET a 1", "GET a"];
        let requests: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
        let replies = conn.pipeline(&requests);
        assert_eq!(replies[0].items()[0], bulk("subscribe"));
        assert_eq!(replies[1], "RESET");
        assert!(replies[2].error().starts_with("NOAUTH"), "{replies:?}");
        assert_eq!(replies[3], "OK");
        assert_eq!(replies[4], "OK");
        assert_eq!(replies[5], bulk("1"));
        assert_eq!(conn.cmd(&["RESET"]), "RESET");
    }
}

#[test]
fn a_request_is_passed_on_while_it_comes() {
    let cluster = Cluster::start(1, 0);
    let server = &cluster.shards[0].primary;
    let sluice = dedicated(&cluster).start();
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["CLIENT", "SETNAME", "slow"]), "OK");
    let whole = request(&["SET", "a", &"x".repeat(300_000)]);
    let mut sent = 0;
    for end in [31, 40, 100, 100_000, 300_010, whole.len() - 1] {
        conn.send(&whole[sent..end]);
        sent = end;
        if end == 100_000 {
            eventually("the server has a part of it", PATIENCE, || {
                let list = server.cmd(&["CLIENT", "LIST"]).text();
                let line = list.lines().find(|line| line.contains("name=slow"))?;
                (!line.contains("qbuf=0 ")).then_some(())
            });
        }
    }
    conn.send(&whole[sent..]);
    assert_eq!(conn.read(), "OK");
    assert_eq!(conn.cmd(&["STRLEN", "a"]), 300_000);
    // In slices of every size, several at once.
    let requests: Vec<u8> =
        (0..200).flat_map(|i| request(&["SET", &format!("k{i}"), &"v".repeat(i)])).collect();
    for (n, piece) in requests.chunks(7).enumerate() {
        conn.send(piece);
        if n % 50 == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    (0..200).for_each(|_| assert_eq!(conn.read(), "OK"));
    assert_eq!(conn.cmd(&["STRLEN", "k199"]), 199);
}

#[test]
fn the_end_of_one_side_is_the_end_of_the_other() {
    let cluster = Cluster::start(1, 0);
    let server = &cluster.shards[0].primary;
    let sluice = dedicated(&cluster).start();
    let (mut killed, mut waits) = (sluice.conn(), sluice.conn());
    let id = killed.cmd(&["CLIENT", "ID"]).int().to_string();
    assert_eq!(server.cmd(&["CLIENT", "KILL", "ID", &id]), 1);
    assert!(killed.read_to_close().is_empty());
    waits.send(&request(&["BLPOP", "queue", "0"]));
    eventually("it waits", PATIENCE, || (server.info("blocked_clients")? == "1").then_some(()));
    drop(waits);
    eventually("it does not", PATIENCE, || (server.info("blocked_clients")? == "0").then_some(()));
    server.cmd(&["RPUSH", "queue", "x"]);
    assert_eq!(server.cmd(&["LLEN", "queue"]), 1);
    // What waits behind a command that waits is answered after it, and the client may close its side.
    let mut conn = sluice.conn();
    conn.send(&[request(&["BLPOP", "nothing", "0.1"]), request(&["PING"])].concat());
    assert_eq!(conn.read(), Value::Nil);
    assert_eq!(conn.read(), "PONG");
    conn.send(&request(&["LRANGE", "queue", "0", "-1"]));
    conn.finish_sending();
    assert_eq!(conn.read().items().len(), 1);
    assert!(conn.read_to_close().is_empty());
}

#[test]
fn a_slow_reader_costs_no_memory() {
    let cluster = Cluster::start(1, 0);
    let sluice = dedicated(&cluster).start();
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["SET", "big", &"x".repeat(1 << 20)]), "OK");
    (0..200).for_each(|_| conn.send(&request(&["GET", "big"])));
    eventually("it is held up", PATIENCE, || {
        let held = sluice.metrics().sum("sluice_buffered_bytes", &[]);
        (held > 500_000.0).then_some(())
    });
    thread::sleep(Duration::from_millis(300));
    let held = sluice.metrics().sum("sluice_buffered_bytes", &[]);
    assert!(held < 8e6, "{held} bytes");
    for _ in 0..200 {
        assert_eq!(conn.read().text().len(), 1 << 20);
    }
}

#[test]
fn no_more_clients_than_connections() {
    let cluster = Cluster::start(1, 0);
    let sluice = dedicated(&cluster)
        .workers(2)
        .cluster("dedicated: { max_per_backend: 2, wait_timeout: 200ms }")
        .start();
    let mut clients: Vec<Conn> = (0..2).map(|_| sluice.conn()).collect();
    for client in &mut clients {
        assert_eq!(client.cmd(&["PING"]), "PONG");
    }
    let mut late = sluice.conn();
    assert_eq!(late.cmd(&["PING"]).error(), "ERR sluice: no dedicated connection free");
    late.send(&request(&["PING"]));
    drop(clients);
    assert_eq!(late.read(), "PONG");
}

#[test]
fn with_several_shards_each_client_has_one_to_each() {
    let cluster = Cluster::start(2, 0);
    let sluice = dedicated(&cluster).start();
    let mut clients: Vec<Conn> = (0..3).map(|_| sluice.conn()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        for shard in 0..2 {
            let key = cluster.key_of(shard, &format!("c{n}"));
            assert_eq!(client.cmd(&["SET", &key, "1"]), "OK");
            assert_eq!(client.cmd(&["GET", &key]), "1");
        }
    }
    let leased = sluice.metrics().sum("sluice_backend_connections_leased", &[]);
    assert_eq!(leased, 6.0);
    drop(clients);
    eventually("they went with their clients", PATIENCE, || {
        let leased = sluice.metrics().sum("sluice_backend_connections_leased", &[]);
        (leased == 0.0).then_some(())
    });
}
