use crate::{
    policy::{
        gate::{Axes, Health, Role},
        reads::ReadFrom,
    },
    proto::redis::stage::{Peer, Stage},
};
use std::time::Duration;

const PRIMARY: Axes = Axes::healthy(Role::Primary);
const REPLICA: Axes = Axes::healthy(Role::Replica);

/// A primary and a replica; what needs a primary waits 3s.
fn stage() -> Stage {
    let mut stage = Stage::new(2, ReadFrom::Primary);
    stage.wait_for_primary(Duration::from_secs(3), 4);
    stage
}

async fn pass(stage: &mut Stage, ms: u64) {
    stage.pass(Duration::from_millis(ms)).await;
}

fn served(backend: &mut Peer, request: &str, reply: &str) {
    let heard = backend.heard();
    assert!(heard.contains(request), "{heard}");
    backend.say(reply);
}

#[tokio::test(start_paused = true)]
async fn a_write_waits_for_the_next_primary_and_what_follows_it_waits_behind() {
    let mut stage = stage();
    stage.set(0, REPLICA);
    let mut client = stage.client();
    client.say("SET a 1\r\nGET a\r\nSET a 2\r\n");
    pass(&mut stage, 2_900).await;
    assert_eq!(client.heard(), "");
    stage.set(1, PRIMARY);
    stage.settle().await;
    let mut new = stage.accept(1);
    let heard = new.heard();
    let order = ["$1\r\n1\r\n", "GET", "$1\r\n2\r\n"].map(|word| heard.find(word).unwrap());
    assert!(order.is_sorted(), "{heard}");
    new.say("+OK\r\n$1\r\n1\r\n+OK\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "+OK\r\n$1\r\n1\r\n+OK\r\n");
    assert!(stage.try_accept(0).is_none(), "the old one gets no write");
    assert_eq!(stage.hub.metrics.clusters[0].failover_waits.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_longer_than_failover_wait_nor_without_a_replica_nor_for_a_dead_shard() {
    let mut stage = stage();
    stage.set(0, REPLICA);
    let mut client = stage.client();
    client.say("SET a 1\r\n");
    pass(&mut stage, 2_900).await;
    assert_eq!(client.heard(), "");
    pass(&mut stage, 200).await;
    assert!(client.heard().starts_with("-CLUSTERDOWN sluice: shard s0 has no primary"));
    // Each waits for itself, until the shard has had no primary for ten times as long.
    for _ in 0..9 {
        client.say("SET a 1\r\n");
        pass(&mut stage, 2_500).await;
        assert_eq!(client.heard(), "");
        pass(&mut stage, 600).await;
        assert!(client.heard().starts_with("-CLUSTERDOWN"));
    }
    client.say("SET a 1\r\n");
    stage.settle().await;
    assert!(client.heard().starts_with("-CLUSTERDOWN"));

    let mut lone = Stage::new(1, ReadFrom::Primary);
    lone.wait_for_primary(Duration::from_secs(3), 4);
    lone.set(0, Axes { health: Health::Unhealthy, ..PRIMARY });
    let mut client = lone.client();
    client.say("SET a 1\r\n");
    lone.settle().await;
    assert!(client.heard().starts_with("-CLUSTERDOWN"));
}

#[tokio::test(start_paused = true)]
async fn as_many_clients_wait_as_failover_queue_says() {
    let mut stage = stage();
    stage.set(0, REPLICA);
    let mut clients: Vec<_> = (0..5).map(|_| stage.client()).collect();
    clients.iter_mut().for_each(|client| client.say("SET a 1\r\n"));
    pass(&mut stage, 100).await;
    let refused =
        clients.iter_mut().filter_map(|client| Some(client.heard()).filter(|h| !h.is_empty()));
    assert_eq!(refused.count(), 1);
    // What a client has sent before it left is executed: its place is free when its time is over.
    drop(clients);
    pass(&mut stage, 3_000).await;
    let mut late = stage.client();
    late.say("SET a 1\r\n");
    stage.settle().await;
    assert_eq!(late.heard(), "");
}

#[tokio::test(start_paused = true)]
async fn a_transaction_and_what_goes_to_all_shards_wait_too() {
    for (said, reply) in [
        ("MULTI\r\nINCR n\r\nEXEC\r\n", "+OK\r\n+QUEUED\r\n-CLUSTERDOWN"),
        ("BLPOP l 0\r\n", "-CLUSTERDOWN"),
        ("DEL a b\r\n", "-CLUSTERDOWN"),
        ("FLUSHALL\r\n", "-CLUSTERDOWN"),
        ("EVAL x 0\r\n", "-CLUSTERDOWN"),
        ("WAIT 1 10\r\n", "-CLUSTERDOWN"),
        ("WATCH a\r\n", "-CLUSTERDOWN"),
        ("PUBLISH a b\r\n", "-CLUSTERDOWN"),
        ("SUBSCRIBE a\r\n", "-CLUSTERDOWN"),
        ("SCRIPT LOAD x\r\n", "-CLUSTERDOWN"),
        ("SCAN 0\r\n", "-CLUSTERDOWN"),
    ] {
        let mut stage = stage();
        stage.set(0, REPLICA);
        let mut client = stage.client();
        client.say(said);
        pass(&mut stage, 2_900).await;
        let heard = client.heard();
        assert!(!heard.contains("CLUSTERDOWN"), "{said} {heard}");
        pass(&mut stage, 200).await;
        let heard = heard + &client.heard();
        assert!(heard.starts_with(reply), "{said} {heard}");
    }
}

/// The first to find out that a primary is dead are those whose requests wait to be sent.
#[tokio::test(start_paused = true)]
async fn what_a_dead_primary_was_not_sent_is_executed_by_the_next_in_order() {
    let mut stage = stage();
    stage.stop_listening(0);
    let mut client = stage.client();
    client.say("SET a 1\r\nSET a 2\r\n");
    pass(&mut stage, 1_000).await;
    client.say("SET a 3\r\n");
    pass(&mut stage, 1_000).await;
    assert_eq!(client.heard(), "");
    stage.set(0, Axes { health: Health::Unhealthy, ..PRIMARY });
    stage.set(1, PRIMARY);
    stage.settle().await;
    let mut new = stage.accept(1);
    let heard = new.heard();
    let order = [1, 2, 3].map(|n| heard.find(&format!("$1\r\n{n}\r\n")).expect("all of them"));
    assert!(order.is_sorted(), "{heard}");
    new.say("+1\r\n+2\r\n+3\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "+1\r\n+2\r\n+3\r\n");
    assert_eq!(stage.hub.metrics.buffered.get(), stage.hub.clients()[0].held() as u64);
}

/// What came last was tried again at once, and executed before what waited.
#[tokio::test(start_paused = true)]
async fn what_comes_while_others_wait_is_executed_behind_them() {
    let mut stage = stage();
    stage.stop_listening(0);
    let mut client = stage.client();
    client.say("SET a 1\r\n");
    for n in 2..5 {
        pass(&mut stage, 120).await;
        client.say(format!("SET a {n}\r\n"));
        stage.round().await;
    }
    stage.listen_again(0);
    let mut heard = String::new();
    for _ in 0..20 {
        pass(&mut stage, 50).await;
        if let Some(mut server) = stage.try_accept(0) {
            pass(&mut stage, 50).await;
            heard += &server.heard();
        }
    }
    let places = [1, 2, 3, 4].map(|n| heard.find(&format!("$1\r\n{n}\r\n")).expect("all of them"));
    assert!(places.is_sorted(), "{heard}");
}

/// It went to the new primary at once, and what the old one had not been sent undid it.
#[tokio::test(start_paused = true)]
async fn a_write_after_the_change_waits_for_those_before_it() {
    let stage = stage();
    stage.stop_listening(0);
    let mut client = stage.client();
    client.say("SET k 1\r\n");
    while stage.backends[0].in_flight() == 0 {
        stage.round().await;
    }
    stage.set(0, REPLICA);
    stage.set(1, PRIMARY);
    client.say("SET k 2\r\n");
    stage.settle().await;
    let mut new = stage.accept(1);
    let mut heard = new.heard();
    new.say("+1\r\n");
    stage.settle().await;
    heard += &new.heard();
    new.say("+2\r\n");
    stage.settle().await;
    let places = [1, 2].map(|n| heard.find(&format!("$1\r\n{n}\r\n")).expect("both of them"));
    assert!(places.is_sorted(), "{heard}");
    assert_eq!(client.heard(), "+1\r\n+2\r\n");
}

/// Another client's transaction proves the new primary later: then the block would be the last.
#[tokio::test(start_paused = true)]
async fn what_follows_a_transaction_that_waits_waits_too() {
    let mut stage = stage();
    stage.stop_listening(0);
    let mut client = stage.client();
    stage.hub.prove(stage.backends[0].id);
    client.say("MULTI\r\nSET k 1\r\nEXEC\r\nSET k 2\r\n");
    pass(&mut stage, 200).await;
    stage.set(0, REPLICA);
    stage.set(1, PRIMARY);
    pass(&mut stage, 200).await;
    assert!(stage.try_accept(1).is_none(), "it has not shown that it takes transactions");
    stage.hub.prove(stage.backends[1].id);
    pass(&mut stage, 100).await;
    let heard = stage.accept(1).heard();
    let places = [1, 2].map(|n| heard.find(&format!("$1\r\n{n}\r\n")).expect("both of them"));
    assert!(places.is_sorted(), "{heard}");
}

#[tokio::test(start_paused = true)]
async fn what_no_primary_came_for_is_told_why_and_holds_nothing() {
    let mut stage = stage();
    stage.stop_listening(0);
    let mut client = stage.client();
    client.say("SET a 1\r\n");
    pass(&mut stage, 3_200).await;
    let heard = client.heard();
    assert!(heard.starts_with("-CLUSTERDOWN sluice: shard s0: "), "{heard}");
    client.say("PING\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "+PONG\r\n");
}

/// READONLY and LOADING say that nothing was executed.
#[tokio::test(start_paused = true)]
async fn a_write_that_an_old_primary_refuses_is_executed_by_the_next() {
    for refusal in ["-READONLY x\r\n", "-LOADING x\r\n", "-MASTERDOWN x\r\n"] {
        let stage = stage();
        let mut client = stage.client();
        client.say("SET a 1\r\n");
        stage.settle().await;
        let mut old = stage.accept(0);
        served(&mut old, "SET", refusal);
        // Its probe has not told yet: it would refuse once more.
        stage.set(0, REPLICA);
        stage.settle().await;
        assert_eq!(client.heard(), "");
        stage.set(1, PRIMARY);
        stage.settle().await;
        served(&mut stage.accept(1), "SET", "+OK\r\n");
        stage.settle().await;
        assert_eq!(client.heard(), "+OK\r\n", "{refusal}");
    }
}

/// The second may have been executed: the first would undo it.
#[tokio::test(start_paused = true)]
async fn a_refused_write_does_not_overtake_a_later_one() {
    let mut stage = stage();
    let mut client = stage.client();
    client.say("SET a 1\r\nSET a 2\r\n");
    stage.settle().await;
    let mut old = stage.accept(0);
    served(&mut old, "SET", "-LOADING x\r\n+OK\r\n");
    pass(&mut stage, 100).await;
    assert_eq!(client.heard(), "-LOADING x\r\n+OK\r\n");
}

/// A script may have written before it answered with that text.
#[tokio::test(start_paused = true)]
async fn a_refused_script_is_not_run_again() {
    let stage = stage();
    let mut client = stage.client();
    client.say("EVAL x 0\r\n");
    stage.settle().await;
    served(&mut stage.accept(0), "EVAL", "-READONLY x\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "-READONLY x\r\n");
}

#[tokio::test(start_paused = true)]
async fn who_leaves_while_its_write_waits_takes_nothing_down() {
    let mut stage = stage();
    stage.stop_listening(0);
    let mut client = stage.client();
    client.say("SET a 1\r\n");
    pass(&mut stage, 500).await;
    drop(client);
    pass(&mut stage, 500).await;
    stage.set(0, REPLICA);
    stage.set(1, PRIMARY);
    stage.settle().await;
    served(&mut stage.accept(1), "SET", "+OK\r\n");
    stage.settle().await;
    assert!(stage.hub.clients().is_empty());
    assert_eq!(stage.hub.metrics.buffered.get(), 0);
}
