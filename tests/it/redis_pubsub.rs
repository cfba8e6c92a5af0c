//! Publish and subscribe through the proxy, against what one real server does.

use crate::harness::{
    Cluster, Conn, Dice, PATIENCE, Redis, Sluice, Value, bulk, during, eventually, figure, request,
};
use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

fn told(verb: &str, name: &str, count: i64) -> Value {
    Value::Array(vec![bulk(verb), bulk(name), Value::Int(count)])
}

fn message(channel: &str, text: &str) -> Value {
    Value::Array(vec![bulk("message"), bulk(channel), bulk(text)])
}

/// A connection that has subscribed to these.
#[track_caller]
fn subscribed(sluice: &Sluice, channels: &[&str]) -> Conn {
    let mut conn = sluice.conn();
    conn.send(&request(&[&["SUBSCRIBE"], channels].concat()));
    for (count, channel) in (1..).zip(channels) {
        assert_eq!(conn.read(), told("subscribe", channel, count));
    }
    conn
}

/// A story told word by word to a real server and to the proxy: both must answer the same.
fn told_alike(conn: &mut Conn, other: &mut Conn) -> Vec<Value> {
    let mut heard = Vec::new();
    let mut say = |conn: &mut Conn, words: &[&str], replies: usize| {
        conn.send(&request(words));
        (0..replies).for_each(|_| heard.push(conn.read()));
    };
    say(conn, &["UNSUBSCRIBE"], 1);
    say(conn, &["PUNSUBSCRIBE", "x", "x"], 2);
    say(conn, &["SUBSCRIBE", "a", "b", "a"], 3);
    say(conn, &["PSUBSCRIBE", "a*"], 1);
    say(conn, &["SSUBSCRIBE", "s", "s2"], 2);
    say(conn, &["PING"], 1);
    say(conn, &["PING", "hello"], 1);
    say(conn, &["PING", "hello", "you"], 1);
    say(conn, &["GET", "a"], 1);
    say(conn, &["CLIENT", "GETNAME"], 1);
    say(conn, &["PUBLISH", "a", "b"], 1);
    say(conn, &["SUBSCRIBE"], 1);
    say(conn, &["HELLO", "2"], 1);
    say(other, &["PUBSUB", "NUMSUB", "a", "b", "s", "none"], 1);
    say(other, &["PUBSUB", "NUMSUB"], 1);
    say(other, &["PUBSUB", "NUMPAT"], 1);
    say(other, &["PUBSUB", "SHARDNUMSUB", "a", "s"], 1);
    say(other, &["PUBSUB", "CHANNELS", "[b-z]"], 1);
    say(other, &["PUBSUB", "SHARDCHANNELS", "s"], 1);
    say(other, &["PUBSUB", "CHANNELS", "a", "b"], 1);
    say(other, &["PUBSUB", "NONSENSE"], 1);
    say(other, &["PUBLISH", "a", "one"], 1);
    say(other, &["PUBLISH", "abc", "two"], 1);
    say(other, &["SPUBLISH", "s", "three"], 1);
    say(other, &["PUBLISH", "s", "nobody"], 1);
    // Those of several shards come as they come.
    let mut messages: Vec<Value> = (0..4).map(|_| conn.read()).collect();
    messages.sort_by_key(|message| format!("{message:?}"));
    heard.extend(messages);
    let mut say = |conn: &mut Conn, words: &[&str], replies: usize| {
        conn.send(&request(words));
        (0..replies).for_each(|_| heard.push(conn.read()));
    };
    say(conn, &["UNSUBSCRIBE", "b", "none"], 2);
    say(conn, &["UNSUBSCRIBE"], 1);
    say(conn, &["PUNSUBSCRIBE"], 1);
    say(conn, &["GET", "a"], 1);
    say(conn, &["SUNSUBSCRIBE", "s2"], 1);
    say(conn, &["SUNSUBSCRIBE"], 1);
    say(conn, &["GET", "a"], 1);
    say(other, &["PUBLISH", "a", "nobody"], 1);
    say(conn, &["SUBSCRIBE", "again"], 1);
    say(conn, &["QUIT"], 1);
    heard
}

#[test]
fn a_client_hears_what_a_server_says() {
    for shards in [1, 3] {
        let (direct, cluster) = (Redis::start(), Cluster::start(shards, 0));
        let sluice = cluster.sluice().workers(2).start();
        let expected = told_alike(&mut direct.conn(), &mut direct.conn());
        let heard = told_alike(&mut sluice.conn(), &mut sluice.conn());
        assert_eq!(heard.len(), expected.len());
        for (at, (ours, theirs)) in heard.iter().zip(&expected).enumerate() {
            assert_eq!(ours, theirs, "reply {at} with {shards} shards");
        }
    }
}

#[test]
fn counts_are_those_of_clients_over_all_workers() {
    let direct = Redis::start();
    let cluster = Cluster::start(1, 0);
    for workers in [1, 3] {
        let sluice = cluster.sluice().workers(workers).start();
        let mut counts = Vec::new();
        for address in [direct.address(), sluice.address()] {
            let mut all = Vec::new();
            let mut publisher = Conn::open(&address);
            for n in 0..20 {
                let mut conn = Conn::open(&address);
                let words: &[&str] =
                    if n % 4 == 0 { &["PSUBSCRIBE", "c*"] } else { &["SUBSCRIBE", "c1"] };
                conn.cmd(words);
                all.push(conn);
                counts.push(publisher.cmd(&["PUBLISH", "c1", "x"]));
                counts.push(publisher.cmd(&["PUBSUB", "NUMSUB", "c1"]));
                counts.push(publisher.cmd(&["PUBSUB", "NUMPAT"]));
            }
            for conn in all.iter_mut().rev() {
                // Behind the messages so far.
                conn.send(&request(&["UNSUBSCRIBE"]));
                conn.send(&request(&["PUNSUBSCRIBE"]));
                while conn.read().items()[0] != "punsubscribe" {}
                counts.push(publisher.cmd(&["PUBLISH", "c1", "x"]));
                counts.push(publisher.cmd(&["PUBSUB", "NUMSUB", "c1"]));
            }
        }
        let (theirs, ours) = counts.split_at(counts.len() / 2);
        assert_eq!(ours, theirs, "{workers} workers");
        let metrics = sluice.metrics();
        assert_eq!(metrics.sum("sluice_redis_subscribers", &[]), 0.0);
        assert!(metrics.sum("sluice_redis_messages_total", &[("cluster", "cache")]) > 100.0);
    }
    // Somebody who listens at the server itself counts too.
    let sluice = cluster.sluice().workers(2).start();
    let mut outside = cluster.shards[0].primary.conn();
    assert_eq!(outside.cmd(&["SUBSCRIBE", "c1"]).items()[0], "subscribe");
    let _ours: Vec<Conn> = (0..6).map(|_| subscribed(&sluice, &["c1"])).collect();
    assert_eq!(sluice.conn().cmd(&["PUBLISH", "c1", "x"]), 7);
    assert_eq!(outside.read(), message("c1", "x"));
}

#[test]
fn publisher_and_subscriber_meet_on_any_shard() {
    let cluster = Cluster::start(3, 0);
    let sluice = cluster.sluice().workers(2).start();
    let names: Vec<String> = (0..60).map(|n| format!("channel {n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut conn = subscribed(&sluice, &names);
    let mut pattern = sluice.conn();
    assert_eq!(pattern.cmd(&["PSUBSCRIBE", "channel *"]), told("psubscribe", "channel *", 1));
    let mut publisher = sluice.conn();
    for name in &names {
        assert_eq!(publisher.cmd(&["PUBLISH", name, "hello"]), 2);
        assert_eq!(conn.read(), message(name, "hello"));
        let items = [bulk("pmessage"), bulk("channel *"), bulk(name), bulk("hello")];
        assert_eq!(pattern.read(), Value::Array(items.to_vec()));
    }
    for shard in &cluster.shards {
        assert!(shard.primary.calls("publish") > 0);
    }
    let metrics = sluice.metrics();
    let subscriptions = |kind| metrics.sum("sluice_redis_subscriptions", &[("kind", kind)]);
    assert_eq!((subscriptions("channel"), subscriptions("pattern")), (60.0, 1.0));
    assert_eq!(metrics.sum("sluice_redis_subscribers", &[]), 2.0);
    assert_eq!(metrics.sum("sluice_redis_messages_total", &[]), 120.0);
    let told = &sluice.status()["clusters"][0]["subscriptions"];
    assert_eq!((told["subscribers"].as_u64(), told["messages"].as_u64()), (Some(2), Some(120)));
    drop((conn, pattern));
    eventually("the servers are told", PATIENCE, || {
        let left = cluster.servers().map(|server| {
            let names = server.cmd(&["PUBSUB", "CHANNELS"]).items().len() as i64;
            names + server.cmd(&["PUBSUB", "NUMPAT"]).int()
        });
        (left.sum::<i64>() == 0).then_some(())
    });
    eventually("nobody counts", PATIENCE, || {
        (publisher.cmd(&["PUBLISH", names[0], "x"]) == 0).then_some(())
    });
}

#[test]
fn what_servers_tell_of_keys_comes_from_all_primaries() {
    let cluster = Cluster::with_args(3, 0, &["--notify-keyspace-events", "KEA"]);
    let sluice = cluster.sluice().start();
    let mut events = subscribed(&sluice, &["__keyevent@0__:set"]);
    let mut pattern = sluice.conn();
    pattern.cmd(&["PSUBSCRIBE", "__keyspace@*__:k*"]);
    let mut conn = sluice.conn();
    for shard in 0..3 {
        let key = cluster.key_of(shard, "k");
        assert_eq!(conn.cmd(&["SET", &key, "v"]), "OK");
        assert_eq!(events.read(), message("__keyevent@0__:set", &key));
        let items = pattern.read();
        assert_eq!(items.items()[2], bulk(format!("__keyspace@0__:{key}")));
        assert_eq!(items.items()[3], bulk("set"));
    }
}

#[test]
fn a_restarted_server_is_subscribed_to_again() {
    let mut cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().workers(2).start();
    cluster.servers().for_each(|server| sluice.expect_log(server.address()));
    let names: Vec<String> = (0..20).map(|n| format!("c{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut conns: Vec<Conn> = (0..8).map(|_| subscribed(&sluice, &names)).collect();
    let mut publisher = sluice.conn();
    let dead = cluster.shards[0].primary.address();
    cluster.shards[0].primary.kill();
    sluice.wait_for(&dead, false);
    let lost = cluster.key_of(0, "c");
    let lost = names.iter().find(|name| **name == lost).copied().unwrap_or("c0");
    assert!(publisher.cmd(&["PUBLISH", &cluster.key_of(0, "x"), "x"]).is_error());
    let mut late = sluice.conn();
    assert!(late.cmd(&["PSUBSCRIBE", "*"]).error().starts_with("CLUSTERDOWN sluice: "));
    assert_eq!(late.cmd(&["PING"]), "PONG");
    cluster.shards[0].primary.restart();
    sluice.wait_for(&dead, true);
    eventually("all are subscribed again", PATIENCE, || {
        names.iter().all(|name| publisher.cmd(&["PUBLISH", name, "probe"]) == 8).then_some(())
    });
    assert_eq!(publisher.cmd(&["PUBLISH", lost, "end"]), 8);
    for conn in &mut conns {
        while conn.read().items()[2] != "end" {}
    }
    let metrics = sluice.metrics();
    assert!(metrics.sum("sluice_redis_resubscriptions_total", &[]) >= 2.0);
    let gap = metrics.sum("sluice_redis_subscriber_gap_seconds_total", &[]);
    assert!(gap > 0.05 && gap < 60.0, "{gap}");
}

/// A server that lost its role keeps its subscribers, and tells them nothing any more.
#[test]
fn a_failover_takes_subscribers_to_the_new_primary() {
    let cluster = Cluster::start(1, 1);
    let sluice = cluster.sluice().workers(2).start();
    let (old, new) = (&cluster.shards[0].primary, &cluster.shards[0].replicas[0]);
    [old, new].iter().for_each(|server| sluice.expect_log(server.address()));
    sluice.expect_log("s0");
    let mut conns: Vec<Conn> = (0..4).map(|_| subscribed(&sluice, &["c"])).collect();
    assert_eq!(new.cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
    old.follow(new);
    eventually("all listen to the new primary", PATIENCE, || {
        (new.cmd(&["PUBSUB", "NUMSUB", "c"]).items()[1] == 2).then_some(())
    });
    eventually("messages pass", PATIENCE, || {
        (sluice.conn().cmd(&["PUBLISH", "c", "there"]) == 4).then_some(())
    });
    for conn in &mut conns {
        assert_eq!(conn.read(), message("c", "there"));
    }
}

/// As Celery's remote control and its events: many subscribers, publishers that never stop, and a
/// server that goes and comes back. What is published while all are subscribed arrives, in order.
#[test]
fn under_load_nothing_is_lost_beyond_what_a_server_loses() {
    let mut cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().workers(2).start();
    cluster.servers().for_each(|server| sluice.expect_log(server.address()));
    for shard in &cluster.shards {
        sluice.expect_log(&*shard.primary.address());
    }
    sluice.expect_log("s0");
    let name = |who: usize| format!("celery.{who}");
    let listen = |go_on: &dyn Fn() -> bool| {
        let mut conn = sluice.conn();
        conn.send(&request(&["SUBSCRIBE", &name(0), &name(1), &name(2), &name(3)]));
        (0..4).for_each(|_| drop(conn.read()));
        conn.patience(Duration::from_millis(200));
        let (mut last, mut gaps, mut messages) = ([0_u64; 4], 0, 0_u64);
        let mut quiet = 0;
        while quiet < 5 {
            let Ok(value) = conn.try_read() else {
                quiet = if go_on() { 0 } else { quiet + 1 };
                continue;
            };
            let items = value.items();
            let who: usize = items[1].text().split_once('.').unwrap().1.parse().unwrap();
            let text = items[2].text();
            let (from, n) = text.split_once(' ').unwrap();
            assert_eq!(from, who.to_string(), "a message of another channel");
            let n: u64 = n.parse().unwrap();
            assert!(n > last[who], "{n} after {}", last[who]);
            gaps += u64::from(n > last[who] + 1);
            last[who] = n;
            messages += 1;
        }
        (messages, gaps)
    };
    let ((), heard) = during(6, listen, || {
        eventually("all listen", PATIENCE, || {
            let counts = sluice.conn().cmd(&["PUBSUB", "NUMSUB", &name(3)]);
            (counts.items()[1] == 6).then_some(())
        });
        let publish = |go_on: &dyn Fn() -> bool| {
            let mut conn = sluice.conn();
            let mut n = [0_u64; 4];
            let mut published = 0_u64;
            while go_on() {
                for (who, n) in n.iter_mut().enumerate() {
                    *n += 1;
                    let reply = conn.cmd(&["PUBLISH", &name(who), &format!("{who} {n}")]);
                    published += u64::from(reply == 6);
                }
                thread::sleep(Duration::from_millis(1));
            }
            published
        };
        let ((), published) = during(1, publish, || {
            thread::sleep(Duration::from_secs(1));
            let dead = cluster.shards[0].primary.address();
            cluster.shards[0].primary.kill();
            sluice.wait_for(&dead, false);
            cluster.shards[0].primary.restart();
            sluice.wait_for(&dead, true);
            thread::sleep(Duration::from_secs(2));
        });
        figure(format!("published to all: {published:?}"));
        assert!(published[0] > 1_000, "{published:?}");
    });
    figure(format!("heard, gaps: {heard:?}"));
    let fewest = heard.iter().map(|(messages, _)| messages).min().unwrap();
    assert!(*fewest > 1_000);
    for (messages, gaps) in &heard {
        // One gap for each of the channels of the server that went.
        assert!(*gaps <= 4, "{gaps} gaps in {messages} messages");
    }
}

#[test]
fn a_thousand_subscribers_of_one_channel() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().workers(2).start();
    let mut conns: Vec<Conn> = (0..1_000).map(|_| subscribed(&sluice, &["hot"])).collect();
    let mut publisher = sluice.conn();
    let start = Instant::now();
    for n in 0..20 {
        assert_eq!(publisher.cmd(&["PUBLISH", "hot", &format!("message {n}")]), 1_000);
    }
    for conn in &mut conns {
        for n in 0..20 {
            assert_eq!(conn.read(), message("hot", &format!("message {n}")));
        }
    }
    figure(format!("20 messages to 1,000 subscribers took {:?}", start.elapsed()));
    // Each worker hears it once, whoever many listen.
    assert_eq!(cluster.shards[0].primary.cmd(&["PUBSUB", "NUMSUB", "hot"]).items()[1], 2);
    drop(conns);
    eventually("nobody listens", PATIENCE, || {
        (publisher.cmd(&["PUBLISH", "hot", "x"]) == 0).then_some(())
    });
}

#[test]
fn a_subscriber_that_does_not_read_is_closed_and_costs_little() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().listener("redis: { client_output_limit: 4MiB }").start();
    let mut slow = subscribed(&sluice, &["c"]);
    let mut quick = subscribed(&sluice, &["c"]);
    let mut publisher = sluice.conn();
    let text = "x".repeat(64 << 10);
    let mut most = 0.0_f64;
    let mut sent = 0;
    while publisher.cmd(&["PUBSUB", "NUMSUB", "c"]).items()[1] == 2 {
        publisher.cmd(&["PUBLISH", "c", &text]);
        assert_eq!(quick.read(), message("c", &text));
        most = most.max(sluice.metrics().sum("sluice_buffered_bytes", &[]));
        sent += 1;
        assert!(sent < 1_000, "never closed");
    }
    assert!(most < f64::from(6 << 20), "{most} bytes were held");
    assert_eq!(sluice.metrics().sum("sluice_redis_subscribers_dropped_total", &[]), 1.0);
    assert!(slow.read_to_close().len() < 64 << 20);
    assert_eq!(publisher.cmd(&["PUBLISH", "c", "still here"]), 1);
    assert_eq!(quick.read(), message("c", "still here"));
}

#[test]
fn a_server_that_refuses_a_channel_is_quoted() {
    let cluster = Cluster::start(1, 0);
    let primary = &cluster.shards[0].primary;
    primary.cmd(&[
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">secret",
        "+@all",
        "~*",
        "resetchannels",
        "&ok*",
    ]);
    let sluice = cluster.sluice().cluster("upstream: { user: app, password: secret }").start();
    let mut conn = sluice.conn();
    assert!(conn.cmd(&["SUBSCRIBE", "no"]).error().starts_with("NOPERM "));
    assert_eq!(conn.cmd(&["GET", "k"]), Value::Nil);
    assert_eq!(conn.cmd(&["SUBSCRIBE", "ok"]), told("subscribe", "ok", 1));
}

#[test]
fn a_drain_does_not_close_subscribers_before_its_end() {
    let cluster = Cluster::start(1, 0);
    let mut sluice = cluster.sluice().top("shutdown: { drain_timeout: 2s }").start();
    sluice.expect_log("drain");
    let mut conn = subscribed(&sluice, &["c"]);
    sluice.terminate();
    let start = Instant::now();
    eventually("it drains", PATIENCE, || {
        (Conn::try_open(&sluice.address()).is_err()).then_some(())
    });
    assert_eq!(cluster.shards[0].primary.cmd(&["PUBLISH", "c", "last words"]), 1);
    assert_eq!(conn.read(), message("c", "last words"));
    assert!(conn.read_to_close().is_empty());
    assert!(start.elapsed() > Duration::from_secs(1));
    assert!(sluice.exit(Duration::from_secs(5)).success());
}

#[test]
fn redis_cli_subscribes() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().start();
    let mut cli = Command::new("redis-cli")
        .args(["-p", &sluice.port().to_string(), "--csv", "SUBSCRIBE", "c"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("redis-cli listens", PATIENCE, || {
        (sluice.conn().cmd(&["PUBLISH", "c", "hello there"]) == 1).then_some(())
    });
    eventually("it has heard", PATIENCE, || {
        (sluice.metrics().sum("sluice_redis_messages_total", &[]) >= 1.0).then_some(())
    });
    thread::sleep(Duration::from_millis(100));
    cli.kill().unwrap();
    let output = cli.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("\"subscribe\",\"c\",1"), "{said}");
    assert!(said.contains("\"message\",\"c\",\"hello there\""), "{said}");
}

#[test]
fn redis_py_publishes_and_subscribes() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().workers(2).start();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(root.join("target/venv/bin/python"));
    command.arg(root.join("tests/it/redis_pubsub.py")).arg(sluice.port().to_string());
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; ./tests/run.sh installs it"));
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim() == "ok", "{said}\n{errors}");
}

/// Clients that come and go, subscribe and unsubscribe while others publish: what they are told
/// keeps its order, and nothing is left behind.
#[test]
fn any_order_of_requests_is_answered_in_order() {
    let cluster = Cluster::start(3, 0);
    let sluice = cluster.sluice().workers(2).start();
    let storm = |go_on: &dyn Fn() -> bool| {
        let mut publisher = sluice.conn();
        let mut n = 0;
        while go_on() {
            n += 1;
            publisher.cmd(&["PUBLISH", &format!("c{}", n % 7), "x"]);
        }
    };
    during(2, storm, || {
        let mut dice = Dice::new(7);
        for round in 0..40 {
            let mut conn = sluice.conn();
            let (mut bytes, mut wanted) = (Vec::new(), Vec::new());
            let mut mine = BTreeSet::new();
            for _ in 0..30 {
                let name = format!("c{}", dice.below(7));
                match dice.below(4) {
                    0 | 1 => {
                        bytes.extend(request(&["SUBSCRIBE", &name]));
                        mine.insert(name.clone());
                        wanted.push(told("subscribe", &name, mine.len() as i64));
                    }
                    2 => {
                        bytes.extend(request(&["UNSUBSCRIBE", &name]));
                        mine.remove(&name);
                        wanted.push(told("unsubscribe", &name, mine.len() as i64));
                    }
                    _ => {
                        bytes.extend(request(&["PING", &name]));
                        let pong = Value::Array(vec![bulk("pong"), bulk(&name)]);
                        wanted.push(if mine.is_empty() { bulk(&name) } else { pong });
                    }
                }
            }
            conn.send(&bytes);
            let mut heard = BTreeSet::new();
            for wanted in wanted {
                let value = loop {
                    let value = conn.read();
                    let is_message = matches!(&value, Value::Array(items) if items[0] == "message");
                    if !is_message {
                        break value;
                    }
                    assert!(heard.contains(&value.items()[1].text()), "round {round}: {value:?}");
                };
                assert_eq!(value, wanted, "round {round}");
                if let Value::Array(items) = &value {
                    let name = items[1].text();
                    match items[0].text().as_str() {
                        "subscribe" => drop(heard.insert(name)),
                        "unsubscribe" => drop(heard.remove(&name)),
                        _ => {}
                    }
                }
            }
        }
    });
    eventually("nothing is left behind", PATIENCE, || {
        let count = |server: &Redis| server.cmd(&["PUBSUB", "CHANNELS"]).items().len();
        (cluster.servers().map(count).sum::<usize>() == 0).then_some(())
    });
    assert_eq!(sluice.metrics().sum("sluice_redis_subscriptions", &[]), 0.0);
}
