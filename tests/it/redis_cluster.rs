//! A real Redis Cluster behind Sluice, and clients that know nothing of clusters: slots that move and
//! primaries that fail while they write.

use crate::harness::{
    PATIENCE, RedisCluster, Sluice, Value, bulk, during, eventually, figure, request, said,
};
use sluice::policy::slot::slot;
use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

#[test]
fn a_client_that_knows_nothing_of_clusters() {
    let cluster = RedisCluster::start(3, 1);
    let sluice = cluster.setup().cluster("reads: { from: prefer_replica }").start();
    let mut conn = sluice.conn();
    let keys: Vec<String> = (0..300).map(|n| format!("key:{n}")).collect();
    for key in &keys {
        assert_eq!(conn.cmd(&["SET", key, key]), "OK");
    }
    cluster.nodes.iter().for_each(|node| assert!(node.info("role").is_some()));
    let mget: Vec<&str> =
        std::iter::once("MGET").chain(keys.iter().map(String::as_str)).chain(["key:0"]).collect();
    eventually("the replicas have them", PATIENCE, || {
        let told = conn.cmd(&mget);
        let right = told.items().iter().zip(keys.iter().chain(&keys[..1]));
        right.clone().all(|(value, key)| *value == key.as_str()).then_some(())
    });
    assert_eq!(conn.cmd(&["DBSIZE"]), 300);
    assert_eq!(conn.cmd(&["KEYS", "key:*"]).items().len(), 300);
    let (mut cursor, mut seen) = ("0".to_owned(), Vec::new());
    loop {
        let part = conn.cmd(&["SCAN", &cursor, "COUNT", "50"]);
        let [next, found] = part.items() else { panic!("{part:?}") };
        seen.extend(found.items().iter().map(Value::text));
        cursor = next.text();
        if cursor == "0" {
            break;
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 300);
    assert_eq!(conn.cmd(&["MSET", "a", "1", "b", "2", "c", "3", "a", "4"]), "OK");
    assert_eq!(conn.cmd(&["EXISTS", "a", "b", "b", "none"]), 3);
    assert_eq!(conn.cmd(&["DEL", "a", "b", "c", "none"]), 3);
    assert!(conn.cmd(&["SINTER", "a", "b"]).error().starts_with("CROSSSLOT"));
    assert_eq!(conn.cmd(&["SELECT", "0"]), "OK");
    assert_eq!(conn.cmd(&["SELECT", "1"]).error(), "ERR SELECT is not allowed in cluster mode");
    assert_eq!(conn.cmd(&["CLUSTER", "KEYSLOT", "foo"]), 12_182);
    let script = "return redis.call('incrby', KEYS[1], ARGV[1])";
    assert_eq!(conn.cmd(&["EVAL", script, "1", "{t}n", "5"]), 5);
    for words in [&["MULTI"][..], &["INCR", "{t}n"], &["INCR", "{t}m"]] {
        conn.cmd(words);
    }
    assert_eq!(conn.cmd(&["EXEC"]), Value::Array(vec![Value::Int(6), Value::Int(1)]));
    assert_eq!(conn.cmd(&["FLUSHALL"]), "OK");
    assert_eq!(conn.cmd(&["DBSIZE"]), 0);
    let served = |node: usize| cluster.nodes[node].calls("get") + cluster.nodes[node].calls("mget");
    let primaries = cluster.primaries();
    let by_replicas: u64 = (0..6).filter(|node| !primaries.contains(node)).map(served).sum();
    assert!(by_replicas > 0, "replicas answer reads");
    assert_eq!(sluice.metrics().sum("sluice_redirects_total", &[]), 0.0);
}

/// What a client has written: the newest value that was acknowledged, and one whose outcome nobody
/// knows.
#[derive(Debug, Default)]
struct Written {
    acknowledged: HashMap<String, (u64, Vec<u64>)>,
    errors: HashMap<String, u64>,
    /// The longest time in which no write was acknowledged.
    gap: Duration,
    acknowledgements: u64,
    /// Reads that saw something else than was written last.
    wrong: Vec<String>,
}

/// Writes rising values to `keys` in pipelines and reads them back, each in the same pipeline.
fn write(sluice: &Sluice, keys: &[String], go_on: &dyn Fn() -> bool) -> Written {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut written = Written::default();
    let mut conn = sluice.conn();
    let mut last = Instant::now();
    while go_on() {
        let mut asked = Vec::new();
        let mut values = Vec::new();
        for key in keys {
            for _ in 0..2 {
                let value = NEXT.fetch_add(1, Ordering::Relaxed);
                values.push((key, value));
                asked.push(vec!["SET".to_owned(), key.clone(), value.to_string()]);
                asked.push(vec!["GET".to_owned(), key.clone()]);
            }
        }
        let replies = conn.pipeline(&asked);
        for ((key, value), pair) in values.into_iter().zip(replies.chunks(2)) {
            let entry = written.acknowledged.entry(key.clone()).or_default();
            match &pair[0] {
                Value::Error(text) => {
                    assert!(!text.starts_with("MOVED") && !text.starts_with("ASK"), "{text}");
                    *written.errors.entry(text.clone()).or_default() += 1;
                    entry.1.push(value);
                }
                reply => {
                    assert_eq!(*reply, "OK");
                    *entry = (value, Vec::new());
                    written.acknowledgements += 1;
                    written.gap = written.gap.max(last.elapsed());
                    last = Instant::now();
                }
            }
            match &pair[1] {
                Value::Error(text) => {
                    assert!(!text.starts_with("MOVED") && !text.starts_with("ASK"), "{text}");
                    *written.errors.entry(text.clone()).or_default() += 1;
                }
                Value::Nil if entry.0 == 0 => {}
                reply => {
                    let seen: u64 = reply.text().parse().unwrap();
                    if seen != entry.0 && !entry.1.contains(&seen) {
                        written.wrong.push(format!("{key} is {seen}, was {entry:?}"));
                    }
                }
            }
        }
    }
    written
}

fn keys_of(client: usize) -> Vec<String> {
    (0..12).map(|n| format!("{{{}}}:{client}:{n}", n % 4)).collect()
}

/// Every key has its newest acknowledged value, or a later one whose outcome nobody told.
fn compare(cluster: &RedisCluster, all: &[Written]) -> usize {
    let mut lost = 0;
    for (key, (value, unknown)) in all.iter().flat_map(|one| &one.acknowledged) {
        let owner = cluster.owner(slot(key.as_bytes()));
        let now = cluster.nodes[owner].cmd(&["GET", key]);
        let now = if now == Value::Nil { 0 } else { now.text().parse().unwrap() };
        lost += usize::from(now != *value && !unknown.contains(&now));
    }
    lost
}

fn told(name: &str, all: &[Written]) {
    let writes: u64 = all.iter().map(|one| one.acknowledgements).sum();
    let gap = all.iter().map(|one| one.gap).max().unwrap_or_default();
    let mut errors: HashMap<&str, u64> = HashMap::new();
    for (text, count) in all.iter().flat_map(|one| &one.errors) {
        *errors.entry(text).or_default() += count;
    }
    figure(format!("{name}: {writes} writes, longest interruption {gap:?}, errors {errors:?}"));
}

/// Gives a slot to another primary, key by key, while clients use it.
fn move_slot(cluster: &RedisCluster, slot: u16, to: usize) {
    let from = cluster.owner(slot);
    if from == to {
        return;
    }
    let (source, target) = (&cluster.nodes[from], &cluster.nodes[to]);
    let number = slot.to_string();
    let set = |node: usize, words: &[&str]| {
        let all = [&["CLUSTER", "SETSLOT", &number], words].concat();
        assert_eq!(cluster.nodes[node].cmd(&all), "OK", "{all:?}");
    };
    set(to, &["IMPORTING", &cluster.id(from)]);
    set(from, &["MIGRATING", &cluster.id(to)]);
    let port = target.port().to_string();
    loop {
        let keys = source.cmd(&["CLUSTER", "GETKEYSINSLOT", &number, "3"]);
        let keys: Vec<String> = keys.items().iter().map(Value::text).collect();
        if keys.is_empty() {
            break;
        }
        let head = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        let words: Vec<&str> = head.into_iter().chain(keys.iter().map(String::as_str)).collect();
        let done = source.cmd(&words);
        assert!(done == "OK" || done == "NOKEY", "{done:?}");
        thread::sleep(Duration::from_millis(15));
    }
    let id = cluster.id(to);
    let others = cluster.primaries().into_iter().filter(|node| *node != to && *node != from);
    for node in [to, from].into_iter().chain(others) {
        set(node, &["NODE", &id]);
        thread::sleep(Duration::from_millis(5));
    }
}

/// The next client writes keys of its own.
fn write_as_next(sluice: &Sluice, go_on: &dyn Fn() -> bool) -> Written {
    static CLIENT: AtomicUsize = AtomicUsize::new(0);
    write(sluice, &keys_of(CLIENT.fetch_add(1, Ordering::Relaxed)), go_on)
}

#[test]
fn slots_move_while_clients_write() {
    let cluster = RedisCluster::start(3, 0);
    let sluice = cluster.setup().workers(2).start();
    let load = |go_on: &dyn Fn() -> bool| write_as_next(&sluice, go_on);
    let slots: Vec<u16> = (0..4).map(|n| slot(n.to_string().as_bytes())).collect();
    let ((), all) = during(8, load, || {
        for round in 0..6 {
            for (n, slot) in slots.iter().enumerate() {
                move_slot(&cluster, *slot, (round + n) % 3);
            }
        }
    });
    told("24 migrations of slots", &all);
    assert!(all.iter().all(|one| one.errors.is_empty()), "{:?}", all[0].errors);
    assert_eq!(compare(&cluster, &all), 0, "writes that were acknowledged are lost");
    // A primary that is killed takes with it what its replica has not heard; nobody else may.
    all.iter().for_each(|one| assert_eq!(one.wrong, [""; 0]));
    let redirects = |kind| sluice.metrics().sum("sluice_redirects_total", &[("kind", kind)]);
    figure(format!(
        "moved {}, ask {}, wait {}",
        redirects("moved"),
        redirects("ask"),
        redirects("wait")
    ));
    assert!(redirects("moved") > 0.0 && redirects("ask") > 0.0);
}

#[test]
fn primaries_are_replaced_while_clients_write() {
    let mut cluster = RedisCluster::start(3, 1);
    let sluice = cluster.setup().workers(2).start();
    sluice.expect_log("");
    let load = |go_on: &dyn Fn() -> bool| write_as_next(&sluice, go_on);
    let slots: Vec<u16> = (0..4).map(|n| slot(n.to_string().as_bytes())).collect();
    let ((), all) = during(8, load, || {
        for slot in &slots {
            let replica = replica_of(&cluster, cluster.owner(*slot));
            assert_eq!(cluster.nodes[replica].cmd(&["CLUSTER", "FAILOVER"]), "OK");
            eventually("it is the primary", PATIENCE, || {
                (cluster.nodes[replica].info("role")? == "master").then_some(())
            });
            thread::sleep(Duration::from_millis(1_500));
            cluster.wait_until_well();
        }
    });
    told("4 failovers by command", &all);
    assert_eq!(compare(&cluster, &all), 0, "writes that were acknowledged are lost");
    // A primary that is killed takes with it what its replica has not heard; nobody else may.
    all.iter().for_each(|one| assert_eq!(one.wrong, [""; 0]));
    let errors: u64 = all.iter().flat_map(|one| one.errors.values()).sum();
    assert_eq!(errors, 0);
    let victim = cluster.owner(slots[0]);
    let mut nodes = std::mem::take(&mut cluster.nodes);
    let (before, rest) = nodes.split_at_mut(victim);
    let (dead, after) = rest.split_first_mut().unwrap();
    let alive: Vec<&_> = before.iter().chain(after.iter()).collect();
    let ((), all) = during(8, load, || {
        thread::sleep(Duration::from_millis(500));
        dead.kill();
        eventually("another one has its slots", PATIENCE, || {
            let info = alive[0].cmd(&["CLUSTER", "INFO"]).text();
            let nodes = alive[0].cmd(&["CLUSTER", "NODES"]).text();
            (info.contains("cluster_state:ok") && nodes.contains("fail")).then_some(())
        });
        let mut conn = sluice.conn();
        eventually("writes go on", PATIENCE, || {
            (conn.cmd(&["SET", "{0}", "1"]) == "OK").then_some(())
        });
        thread::sleep(Duration::from_millis(500));
    });
    told("1 primary killed", &all);
    let mut lost = 0;
    let mut through = sluice.conn();
    for (key, (value, unknown)) in all.iter().flat_map(|one| &one.acknowledged) {
        let now = through.cmd(&["GET", key]);
        let now = if now == Value::Nil { 0 } else { now.text().parse().unwrap() };
        lost += usize::from(now != *value && !unknown.contains(&now));
    }
    figure(format!("{lost} keys have lost their newest value with the primary that was killed"));
    cluster.nodes = nodes;
}

#[test]
fn who_waits_in_a_server_waits_at_the_new_owner() {
    let cluster = RedisCluster::start(3, 0);
    let sluice = cluster.setup().start();
    let slot = slot(b"list");
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["LLEN", "list"]), 0);
    let from = cluster.owner(slot);
    move_slot(&cluster, slot, (from + 1) % 3);
    // The proxy does not know it yet.
    conn.send(&request(&["BLPOP", "list", "0"]));
    eventually("it waits", PATIENCE, || {
        let clients = cluster.nodes[(from + 1) % 3].info("blocked_clients")?;
        (clients == "1").then_some(())
    });
    assert_eq!(sluice.conn().cmd(&["RPUSH", "list", "x"]), 1);
    assert_eq!(conn.read(), Value::Array(vec![bulk("list"), bulk("x")]));
    assert_eq!(conn.cmd(&["WAIT", "0", "100"]), 0);
    // What was watched with a slot that goes counts as changed.
    let mut watching = sluice.conn();
    assert_eq!(watching.cmd(&["WATCH", "list"]), "OK");
    assert_eq!(watching.cmd(&["GET", "{list}2"]), Value::Nil);
}

#[test]
fn a_client_that_knows_clusters_sees_one_node() {
    let cluster = RedisCluster::start(3, 0);
    let seeds =
        format!("    redis_cluster: {{ seeds: [{}], spoof: self }}\n", cluster.nodes[1].address());
    let sluice = cluster.setup().rewrite(
        &format!("    redis_cluster: {{ seeds: [{}] }}\n", cluster.nodes[0].address()),
        &seeds,
    );
    let sluice = sluice.start();
    let mut conn = sluice.conn();
    let told = conn.cmd(&["CLUSTER", "SLOTS"]);
    let [only] = told.items() else { panic!("{told:?}") };
    let [first, last, node] = only.items() else { panic!("{only:?}") };
    assert_eq!((first.int(), last.int()), (0, 16_383));
    assert_eq!(node.items()[0], "127.0.0.1");
    assert_eq!(node.items()[1], i64::from(sluice.port()));
    let id = conn.cmd(&["CLUSTER", "MYID"]).text();
    assert_eq!(id.len(), 40);
    let nodes = conn.cmd(&["CLUSTER", "NODES"]).text();
    assert!(nodes.starts_with(&id) && nodes.contains("myself,master") && nodes.contains("0-16383"));
    assert!(conn.cmd(&["CLUSTER", "INFO"]).text().contains("cluster_state:ok"));
    assert_eq!(conn.cmd(&["CLUSTER", "SHARDS"]).items().len(), 1);
    assert_eq!(conn.cmd(&["SET", "{foo}1", "x"]), "OK");
    assert_eq!(conn.cmd(&["CLUSTER", "COUNTKEYSINSLOT", "12182"]), 1);
    assert_eq!(conn.cmd(&["CLUSTER", "GETKEYSINSLOT", "12182", "5"]).items(), [bulk("{foo}1")]);
    assert!(conn.cmd(&["CLUSTER", "COUNTKEYSINSLOT", "16384"]).is_error());
    let script = "import sys\nfrom redis.cluster import RedisCluster\n\
        r = RedisCluster(host='127.0.0.1', port=int(sys.argv[1]), decode_responses=True)\n\
        for n in range(200): assert r.set(f'k{n}', n)\n\
        assert [r.get(f'k{n}') for n in range(200)] == [str(n) for n in range(200)]\n\
        assert r.mget_nonatomic([f'k{n}' for n in range(9)]) == [str(n) for n in range(9)]\n\
        p = r.pipeline()\n\
        [p.incr(f'p{n}') for n in range(50)]\n\
        assert p.execute() == [1] * 50\n\
        assert len([n.name for n in r.get_nodes()]) == 1\n\
        print(r.dbsize())\n";
    let python = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/python");
    let mut command = std::process::Command::new(python);
    command.args(["-c", script, &sluice.port().to_string()]);
    assert_eq!(said(&mut command).unwrap(), "251");
}

#[test]
fn shard_channels_go_with_their_slots_and_others_are_heard_once() {
    let cluster = RedisCluster::start(3, 0);
    let sluice = cluster.setup().start();
    let slot = slot(b"news");
    let (mut shard, mut all) = (sluice.conn(), sluice.conn());
    shard.send(&request(&["SSUBSCRIBE", "news"]));
    assert_eq!(shard.read().items()[0], "ssubscribe");
    all.send(&request(&["PSUBSCRIBE", "*"]));
    assert_eq!(all.read().items()[0], "psubscribe");
    all.send(&request(&["SUBSCRIBE", "news"]));
    assert_eq!(all.read().items()[0], "subscribe");
    let mut conn = sluice.conn();
    for channel in ["news", "other"] {
        conn.cmd(&["PUBLISH", channel, "once"]);
    }
    let heard: Vec<Value> = (0..3).map(|_| all.read()).collect();
    assert_eq!(heard.iter().filter(|one| one.items()[0] == "pmessage").count(), 2, "{heard:?}");
    let from = cluster.owner(slot);
    move_slot(&cluster, slot, (from + 1) % 3);
    eventually("it is heard at the new owner", PATIENCE, || {
        conn.cmd(&["SPUBLISH", "news", "moved"]);
        shard.patience(Duration::from_millis(50));
        let heard = shard.try_read().ok()?;
        (heard.items()[2] == "moved").then_some(())
    });
}

fn replica_of(cluster: &RedisCluster, primary: usize) -> usize {
    let port = cluster.nodes[primary].port().to_string();
    let follows = |node: &usize| {
        cluster.nodes[*node].info("master_port").is_some_and(|master| master == port)
    };
    (0..cluster.nodes.len()).find(follows).unwrap()
}
