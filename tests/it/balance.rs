//! Who gets the next connection or read: in line, by tier, by latency, and little by little after a
//! return. The strategies that tcp and redis have had from the start are with those.

use crate::{
    harness::{Cluster, Fault, FaultProxy, PATIENCE, Setup, Sluice, eventually, fault::Way},
    tcp::{Echo, before, connect, echoes, is_closed, open},
};
use std::{
    thread,
    time::{Duration, Instant},
};

fn all_go_to(sluice: &Sluice, name: u8) {
    for _ in 0..20 {
        assert_eq!(char::from(open(sluice).1), char::from(name));
    }
}

/// What the status page says of the member `echo`.
fn told(sluice: &Sluice, echo: &Echo) -> serde_json::Value {
    let status = sluice.status();
    let shards = status["clusters"][0]["shards"].as_array().unwrap();
    let mut backends = shards.iter().flat_map(|shard| shard["backends"].as_array().unwrap());
    backends.find(|backend| backend["name"] == echo.address().as_str()).unwrap().clone()
}

/// Kills a server that has been told of, and waits until the probes know.
fn kill(sluice: &Sluice, echo: &Echo) {
    sluice.expect_log(echo.address());
    echo.kill();
    sluice.wait_for(&echo.address(), false);
}

fn bring_back(sluice: &Sluice, echo: &Echo) {
    echo.restart();
    sluice.wait_for(&echo.address(), true);
}

#[test]
fn failover_uses_the_first_and_goes_back_by_itself_or_by_hand() {
    for (failback, after) in [("auto", b'a'), ("manual", b'b')] {
        let echoes = echoes(b"abc");
        let sluice = before(&echoes)
            .cluster("balance: failover")
            .cluster(&format!("failback: {failback}"))
            .workers(2)
            .start();
        all_go_to(&sluice, b'a');
        kill(&sluice, &echoes[0]);
        all_go_to(&sluice, b'b');
        bring_back(&sluice, &echoes[0]);
        all_go_to(&sluice, after);
        kill(&sluice, &echoes[1]);
        all_go_to(&sluice, b'a');
    }
}

#[test]
fn a_higher_tier_stands_by() {
    let echoes = echoes(b"abc");
    let member = |echo: &Echo, tier| format!("{{ address: {}, tier: {tier} }}", echo.address());
    let sluice =
        Setup::tcp([member(&echoes[0], 1), member(&echoes[1], 0), member(&echoes[2], 3)]).start();
    all_go_to(&sluice, b'b');
    assert_eq!([0, 1, 2].map(|i| told(&sluice, &echoes[i])["tier"].as_u64().unwrap()), [1, 0, 3]);
    kill(&sluice, &echoes[1]);
    all_go_to(&sluice, b'a');
    kill(&sluice, &echoes[0]);
    all_go_to(&sluice, b'c');
    bring_back(&sluice, &echoes[1]);
    all_go_to(&sluice, b'b');
}

#[test]
fn a_backend_that_is_back_gets_its_share_little_by_little() {
    let echoes = echoes(b"ab");
    let sluice = before(&echoes).cluster("balance: round_robin").cluster("slow_start: 4s").start();
    let share = |of: u32| (0..of).filter(|_| open(&sluice).1 == b'b').count();
    assert_eq!(share(40), 20, "nobody warms up at the start");
    kill(&sluice, &echoes[1]);
    echoes[1].restart();
    let back = eventually("it warms up", PATIENCE, || {
        let told = told(&sluice, &echoes[1]);
        (told["state"] == "warming").then_some(told)
    });
    assert_eq!(back["weight"], 1);
    let first = share(22);
    let weight = told(&sluice, &echoes[1])["effective_weight"].as_f64().unwrap();
    let most = (22.0 * weight / (1.0 + weight)).ceil() + 1.0;
    assert!((1.0..=most).contains(&(first as f64)), "{first} of 22 with at most {weight}");
    let metric = || {
        let label = [("backend", &*echoes[1].address())];
        sluice.metrics().sum("sluice_backend_effective_weight", &label)
    };
    assert!(metric() < 1.0);
    // The tenth part of its weight is there a step before the end.
    eventually("it is ready", PATIENCE, || {
        (told(&sluice, &echoes[1])["state"] == "ready").then_some(())
    });
    assert_eq!(metric(), 1.0);
    assert_eq!(share(40), 20);
}

#[test]
fn a_group_that_never_fails_open_closes_at_once_and_asks_nobody() {
    let echo = Echo::start(b'a');
    let sluice = before(std::slice::from_ref(&echo)).cluster("fail_open: never").start();
    assert_eq!(open(&sluice).1, b'a');
    kill(&sluice, &echo);
    let tries = || sluice.metrics().sum("sluice_backend_connects_total", &[]);
    let before = tries();
    assert!(is_closed(&mut connect(&sluice)));
    assert_eq!(tries(), before);
    bring_back(&sluice, &echo);
    assert_eq!(open(&sluice).1, b'a');
}

#[test]
fn peak_ewma_leaves_a_slow_replica_and_comes_back_to_it() {
    let cluster = Cluster::start(1, 2);
    let shard = &cluster.shards[0];
    assert_eq!(shard.primary.cmd(&["SET", "k", "v"]), "OK");
    cluster.wait_for_replicas();
    let slow = Way::Late(Duration::from_millis(30));
    let proxy = FaultProxy::start(&shard.replicas[0].address(), Fault::default());
    let sluice = Setup::shards([(
        shard.primary.address(),
        vec![proxy.address(), shard.replicas[1].address()],
    )])
    .cluster("reads: { from: replica, balance: peak_ewma }")
    .start();
    let mut conn = sluice.conn();
    let mut share = |reads: u64| {
        let before = shard.replicas[0].calls("get");
        (0..reads).for_each(|_| assert_eq!(conn.cmd(&["GET", "k"]), "v"));
        shard.replicas[0].calls("get") - before
    };
    assert!(share(200) > 0, "unused while it is as fast as the other one");
    proxy.set(Fault { replies: slow, ..Fault::default() });
    share(50);
    let few = share(200);
    assert!(few <= 20, "{few} of 200 at the slow one");
    proxy.set(Fault::default());
    let deadline = Instant::now() + PATIENCE;
    while share(20) == 0 {
        assert!(Instant::now() < deadline, "it is never asked again");
        thread::yield_now();
    }
}
