//! Sluice behind three real Sentinels: it finds who is who, follows a failover under load, and gives
//! writes to nobody who is no primary, whatever is said of him.

use crate::harness::{
    FakeServer, PATIENCE, Redis, Request, Setup, Sluice, Step, Value, bulk, during, eventually,
    figure,
    sentinel::{DOWN_AFTER, Trio},
};
use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

/// A primary with replicas that have what it has.
fn replicated(replicas: usize, arguments: &[&str]) -> (Redis, Vec<Redis>) {
    let primary = Redis::with_args(arguments);
    let replicas: Vec<_> = (0..replicas).map(|_| Redis::replica_of(&primary, arguments)).collect();
    for replica in &replicas {
        eventually("the replica's link is up", PATIENCE, || {
            (replica.info("master_link_status")? == "up").then_some(())
        });
    }
    (primary, replicas)
}

/// The roles that Sluice shows, by address.
fn roles(sluice: &Sluice) -> BTreeMap<String, String> {
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let status = sluice.status();
    let shards = status["clusters"][0]["shards"].as_array().unwrap().clone();
    let backends = shards.iter().flat_map(|shard| shard["backends"].as_array().unwrap().clone());
    backends.map(|one| (text(&one["name"]), text(&one["role"]))).collect()
}

fn events(sluice: &Sluice) -> Vec<String> {
    let status = sluice.status();
    let events = status["events"].as_array().unwrap().iter().map(|event| {
        let word = |name: &str| event[name].as_str().unwrap().to_owned();
        [word("backend"), word("from"), word("to"), word("cause")].join(" ")
    });
    events.collect()
}

#[test]
fn it_finds_a_primary_and_its_replicas_though_one_sentinel_is_dead() {
    let (primary, replicas) = replicated(2, &[]);
    let mut trio = Trio::start(&[("main", &primary, 2)]);
    trio.sentinels[1].kill();
    let sluice = trio.sluice(3).cluster("reads: { from: replica }").start();
    sluice.expect_log(trio.sentinels[1].address());
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    eventually("a replica has it", PATIENCE, || (conn.cmd(&["GET", "k"]) == "v").then_some(()));
    assert_eq!(primary.calls("get"), 0, "reads are the replicas'");
    let found = roles(&sluice);
    assert_eq!(found[&primary.address()], "primary");
    assert!(replicas.iter().all(|replica| found[&replica.address()] == "replica"), "{found:?}");
    let told = sluice.log().matches(&trio.sentinels[1].address()).count();
    assert_eq!(told, 1, "once:\n{}", sluice.log());
}

#[test]
fn sentinels_and_servers_have_passwords_of_their_own() {
    let arguments = ["--requirepass", "data", "--masterauth", "data"];
    let (primary, _replicas) = replicated(1, &arguments);
    let trio = Trio::with_passwords(&[("main", &primary, 1)], Some(("watch", "data")));
    let sluice = trio.sluice(2).cluster("upstream: { password: data }").start();
    assert_eq!(sluice.conn().cmd(&["SET", "k", "v"]), "OK");
    drop(sluice);
    let address = trio.sentinels[0].address();
    let map = format!("{{ addresses: [{address}], masters: [main], password: wrong }}");
    let refused = Setup::sentinel(&map, 0)
        .cluster("upstream: { password: data }")
        .check("{ startup_grace: 500ms }")
        .start();
    refused.expect_log("WRONGPASS");
    refused.expect_log("startup_grace");
    let error = refused.conn().cmd(&["SET", "k", "v"]);
    let wanted =
        "CLUSTERDOWN sluice: shard main has no primary: it is not known who its members are";
    assert_eq!(error.error(), wanted);
    assert!(!refused.log().contains("wrong\"") && refused.log().contains("WRONGPASS"));
}

/// As late may Sluice hear of a failover, and a client of its acknowledgement, on a machine that is
/// busy with other tests.
const HEARD: Duration = Duration::from_millis(300);

/// What writers saw while something happened to the primary.
#[derive(Debug, Default)]
struct Written {
    /// Keys that Sluice acknowledged, with when.
    acknowledged: Vec<(String, Instant)>,
    /// Errors by their first words.
    errors: BTreeMap<String, usize>,
}

/// Writes keys of its own, one after the other, and reads one that never changes.
fn write_and_read(sluice: &Sluice, name: usize, go_on: &dyn Fn() -> bool) -> Written {
    let mut written = Written::default();
    let mut conn = sluice.conn();
    let mut number = 0;
    while go_on() {
        number += 1;
        let key = format!("w{name}:{number}");
        let reply = conn.cmd(&["SET", &key, &key]);
        if reply.is_error() {
            let text = reply.error().to_owned();
            let known = [
                "CLUSTERDOWN sluice: ",
                "ERR sluice: connection to shard main lost, result unknown",
            ];
            assert!(known.iter().any(|words| text.starts_with(words)), "{text}");
            let words: Vec<&str> = text.split(' ').take(3).collect();
            *written.errors.entry(words.join(" ")).or_default() += 1;
            thread::sleep(Duration::from_millis(5));
        } else {
            assert_eq!(reply, "OK");
            written.acknowledged.push((key, Instant::now()));
        }
        let read = conn.cmd(&["GET", "still"]);
        assert!(read == "here" || read.is_error(), "{read:?}");
        thread::sleep(Duration::from_micros(500));
    }
    written
}

/// When any Sentinel first told of another primary.
fn announced(trio: &Trio, go_on: &(dyn Fn() -> bool + Sync)) -> Option<Instant> {
    thread::scope(|scope| {
        let all: Vec<_> = trio
            .sentinels
            .iter()
            .map(|sentinel| {
                scope.spawn(move || {
                    let mut conn = sentinel.conn();
                    conn.cmd(&["SUBSCRIBE", "+switch-master"]);
                    conn.patience(Duration::from_millis(100));
                    while go_on() {
                        if conn.try_read().is_ok() {
                            return Some(Instant::now());
                        }
                    }
                    None
                })
            })
            .collect();
        all.into_iter().filter_map(|one| one.join().unwrap()).min()
    })
}

/// The longest time in which no writer got an acknowledgement.
fn interruption(all: &[Written]) -> Duration {
    let mut times: Vec<Instant> =
        all.iter().flat_map(|one| one.acknowledged.iter().map(|(_, at)| *at)).collect();
    times.sort();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
}

/// Fails over while four clients write, and asks the new primary for all that was acknowledged: what
/// it lacks was acknowledged before a Sentinel told of it, so Redis itself has lost it.
fn fail_over(what: &str, act: impl FnOnce(&Trio, &mut Redis)) -> (Redis, Trio, Vec<Redis>, Sluice) {
    let (mut primary, replicas) = replicated(2, &[]);
    assert_eq!(primary.cmd(&["SET", "still", "here"]), "OK");
    for replica in &replicas {
        eventually("the replica has it", PATIENCE, || {
            (replica.cmd(&["GET", "still"]) == "here").then_some(())
        });
    }
    let trio = Trio::start(&[("main", &primary, 2)]);
    let setup = trio.sluice(3).cluster("reads: { from: prefer_replica }").workers(2);
    let sluice = setup.start();
    let old = primary.address();
    std::iter::once(&primary)
        .chain(&replicas)
        .for_each(|server| sluice.expect_log(server.address()));
    let (done, began) = (std::sync::atomic::AtomicBool::new(false), Instant::now());
    let go_on = || !done.load(std::sync::atomic::Ordering::Relaxed);
    let (acted, told, all) = thread::scope(|scope| {
        let told = scope.spawn(|| announced(&trio, &go_on));
        let names = std::sync::atomic::AtomicUsize::new(0);
        let load = |go_on: &dyn Fn() -> bool| {
            let name = names.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            write_and_read(&sluice, name, go_on)
        };
        let (acted, all) = during(4, load, || {
            thread::sleep(Duration::from_millis(500));
            let acted = Instant::now();
            act(&trio, &mut primary);
            let mut conn = sluice.conn();
            eventually("another one is the primary and takes writes", PATIENCE, || {
                let found = roles(&sluice);
                let new = found.iter().any(|(name, role)| *name != old && role == "primary");
                (new && conn.cmd(&["SET", "probe", "1"]) == "OK").then_some(())
            });
            thread::sleep(Duration::from_millis(700));
            acted
        });
        // Who asks a Sentinel hears of it before those who listen.
        let begun = Instant::now();
        while !told.is_finished() && begun.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(10));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        (acted, told.join().unwrap(), all)
    });
    let told = told.expect("a Sentinel told of it");
    let new = replicas.iter().find(|one| one.info("role").as_deref() == Some("master"));
    let mut conn = new.expect("a replica is the primary").conn();
    let mut lost = Vec::new();
    let mut count = 0;
    for (key, at) in all.iter().flat_map(|one| &one.acknowledged) {
        count += 1;
        if conn.cmd(&["GET", key]) != bulk(key) {
            lost.push(*at);
        }
    }
    let (lost, late): (Vec<Instant>, Vec<_>) = lost.into_iter().partition(|at| *at <= told);
    let latest = late.iter().max().map_or(Duration::ZERO, |at| *at - told);
    let mut errors = BTreeMap::new();
    for (words, n) in all.iter().flat_map(|one| &one.errors) {
        *errors.entry(words.clone()).or_insert(0) += n;
    }
    figure(format!(
        "failover by {what}, down-after {DOWN_AFTER:?}: {count} writes acknowledged, {} of them lost \
         by Redis before it was told, {} up to {latest:?} after; told {:?} after the act; longest \
         interruption of writes {:?}; errors {errors:?}; {:?} in all",
        lost.len(),
        late.len(),
        told - acted,
        interruption(&all),
        began.elapsed()
    ));
    assert!(latest < HEARD, "a write to the old primary {latest:?} after it was told");
    assert!(count > 100, "{count}");
    assert!(interruption(&all) < Duration::from_secs(8));
    (primary, trio, replicas, sluice)
}

#[test]
fn a_killed_primary_is_replaced_and_gets_no_writes_when_it_comes_back() {
    let (mut primary, _trio, _replicas, sluice) = fail_over("kill", |_, primary| primary.kill());
    primary.restart();
    let mut conn = sluice.conn();
    // It says that it is a primary until a Sentinel has told it otherwise.
    let start = Instant::now();
    let mut said = false;
    while start.elapsed() < Duration::from_secs(3) {
        assert_eq!(conn.cmd(&["SET", "after", "1"]), "OK");
        // A Sentinel that tells it otherwise closes its connections.
        let Ok(info) = primary.conn().try_cmd(&["INFO", "everything"]) else { continue };
        let info = info.text();
        if info.contains("role:master") {
            said = true;
            assert!(!info.contains("cmdstat_set"), "it was written to");
        }
        thread::sleep(Duration::from_millis(2));
    }
    assert!(said, "it came back as a primary");
}

#[test]
fn a_failover_by_command_drops_the_old_primary_at_once() {
    let (_primary, _trio, _replicas, sluice) = fail_over("SENTINEL FAILOVER", |trio, _| {
        assert_eq!(trio.sentinels[0].conn().cmd(&["SENTINEL", "FAILOVER", "main"]), "OK");
    });
    let told = events(&sluice).iter().filter(|one| one.ends_with("primary sentinel")).count();
    assert_eq!(told, 1, "{:?}", events(&sluice));
}

#[test]
fn several_masters_are_several_shards() {
    let (mut one, ones) = replicated(1, &[]);
    let (two, _twos) = replicated(1, &[]);
    let trio = Trio::start(&[("one", &one, 1), ("two", &two, 1)]);
    let sluice = trio.sluice(4).start();
    ones.iter().chain([&one]).for_each(|server| sluice.expect_log(server.address()));
    let mut conn = sluice.conn();
    let keys: Vec<String> = (0..40).map(|n| format!("k{n}")).collect();
    for key in &keys {
        assert_eq!(conn.cmd(&["SET", key, key]), "OK");
    }
    assert_eq!(conn.cmd(&["DBSIZE"]).int(), 40);
    let (here, there) = (one.cmd(&["DBSIZE"]).int(), two.cmd(&["DBSIZE"]).int());
    assert!(here > 5 && there > 5 && here + there == 40, "{here} and {there}");
    let of = |server: &Redis| keys.iter().find(|key| server.cmd(&["EXISTS", key]) == Value::Int(1));
    let (lost, kept) = (of(&one).unwrap().clone(), of(&two).unwrap().clone());
    one.kill();
    let start = Instant::now();
    eventually("the other shard has a primary again", PATIENCE, || {
        assert_eq!(conn.cmd(&["SET", &kept, "x"]), "OK", "nothing happened to this one");
        (conn.cmd(&["SET", &lost, "x"]) == "OK").then_some(())
    });
    figure(format!("one shard of two without a primary for {:?}", start.elapsed()));
}

#[test]
fn replicas_come_and_go() {
    let (primary, mut replicas) = replicated(1, &[]);
    let trio = Trio::start(&[("main", &primary, 1)]);
    let sluice = trio.sluice(2).cluster("reads: { from: prefer_replica }").start();
    let new = Redis::replica_of(&primary, &[]);
    sluice.wait_for(&new.address(), true);
    assert!(events(&sluice).contains(&format!("{} new unknown sentinel", new.address())));
    let gone = replicas.remove(0);
    let address = gone.address();
    sluice.expect_log(address.clone());
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    assert_eq!(conn.cmd(&["WAIT", "2", "5000"]).int(), 2);
    drop(gone);
    eventually("it is listed no more", PATIENCE, || {
        assert_eq!(conn.cmd(&["GET", "k"]), "v");
        (!roles(&sluice).contains_key(&address)).then_some(())
    });
    assert!(!sluice.metrics().text().contains(&address), "its metrics are gone");
    let (code, list, _) = sluice.cli(&["backend", "list"]);
    assert_eq!(code, Some(0));
    assert!(list.contains(&new.address()) && !list.contains(&address), "{list}");
    assert!(events(&sluice).iter().any(|event| event.ends_with("removed sentinel")));
}

/// A Sentinel that names `primary` and no replicas.
fn liar(primary: &str) -> FakeServer {
    let (host, port) = primary.split_once(':').unwrap();
    let address = Value::Array(vec![bulk(host), bulk(port)]);
    FakeServer::start(move |request: &Request| match request.words[0].as_str() {
        "SUBSCRIBE" => {
            let confirmed = |(n, name): (usize, &String)| {
                let n = Value::Int(i64::try_from(n).unwrap() + 1);
                Step::Send(Value::Array(vec![bulk("subscribe"), bulk(name), n]).encode())
            };
            request.words[1..].iter().enumerate().map(confirmed).collect()
        }
        _ => Step::reply(&match request.words[1].as_str() {
            "GET-MASTER-ADDR-BY-NAME" => address.clone(),
            "MASTER" => Value::Array(vec![bulk("config-epoch"), bulk("9")]),
            _ => Value::Array(Vec::new()),
        }),
    })
}

#[test]
fn a_replica_that_a_sentinel_calls_the_primary_gets_no_write() {
    let primary = Redis::start();
    let replica = Redis::replica_of(&primary, &["--replica-read-only", "no"]);
    let sentinel = liar(&replica.address());
    let map = format!("{{ addresses: [{}], masters: [main] }}", sentinel.address());
    let sluice = Setup::sentinel(&map, 0).without_waiting().start();
    let mut conn = sluice.conn();
    for _ in 0..20 {
        let refused = conn.cmd(&["SET", "k", "v"]);
        assert!(refused.error().starts_with("CLUSTERDOWN sluice: shard main has no primary: "));
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(replica.calls("set"), 0);
}

/// It passes every probe, and says what it is when it is asked before the first write.
#[test]
fn a_connection_for_writes_is_asked_for_its_role_first() {
    let role = Value::Array(vec![bulk("slave"), bulk("h"), Value::Int(1), bulk("connected")]);
    let server = FakeServer::with_role(Some(role), |_| Step::reply(&Value::Simple("OK".into())));
    let sentinel = liar(&server.address());
    let map = format!("{{ addresses: [{}], masters: [main] }}", sentinel.address());
    let sluice = Setup::sentinel(&map, 1).start();
    sluice.expect_log(server.address());
    let mut conn = sluice.conn();
    for _ in 0..5 {
        let refused = conn.cmd(&["SET", "k", "v"]);
        assert!(refused.error().contains("role: it says that it is a slave"), "{refused:?}");
    }
    assert!(server.seen().iter().all(|request| request.words[0] != "SET"), "{:?}", server.seen());
}
