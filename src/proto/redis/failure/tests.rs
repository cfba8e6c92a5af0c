use super::*;
use crate::{
    policy::{
        gate::{Axes, Health, Passive, Role},
        reads::ReadFrom,
    },
    proto::redis::stage::Stage,
    topology::Timeouts,
};
use std::time::Duration;

const NO_ROLE: Axes = Axes::healthy(Role::Unknown);

#[tokio::test(start_paused = true)]
async fn a_write_that_was_sent_is_never_sent_again() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let mut client = stage.client();
    client.say("INCR n\r\n");
    stage.settle().await;
    let mut primary = stage.accept(0);
    assert!(primary.heard().contains("INCR"));
    drop(primary);
    stage.settle().await;
    assert_eq!(client.heard(), "-ERR sluice: connection to shard s0 lost, result unknown\r\n");
    assert!(stage.try_accept(0).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_back_to_the_same_backend_only_while_it_is_the_primary() {
    for loses_role in [false, true] {
        let stage = Stage::new(1, ReadFrom::Primary);
        stage.stop_listening(0);
        let mut client = stage.client();
        client.say("SET k v\r\n");
        if loses_role {
            while stage.backends[0].in_flight() == 0 {
                stage.round().await;
            }
            stage.set(0, NO_ROLE);
        }
        stage.settle().await;
        let heard = client.heard();
        let tried = if loses_role { "tried 1" } else { "tried 2" };
        assert!(heard.starts_with("-CLUSTERDOWN sluice: ") && heard.contains(tried), "{heard}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_ejected_replica_gives_its_reads_to_another_and_its_late_replies_to_nobody() {
    let stage = Stage::new(3, ReadFrom::Replica);
    let mut client = stage.client();
    client.say("GET a\r\n");
    stage.settle().await;
    let (mut hung, other) = match stage.try_accept(1) {
        Some(hung) => (hung, 2),
        None => (stage.accept(2), 1),
    };
    assert!(hung.heard().contains("GET"));
    stage.set_replica(3 - other, Passive::Ejected);
    stage.settle().await;
    let mut other = stage.accept(other);
    assert!(other.heard().contains("GET"));
    other.say("+fresh\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "+fresh\r\n");
    hung.say("+late\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "");
    assert!(!hung.is_closed(), "a late reply is swallowed, not a reason to close");
    assert_eq!(stage.backends.iter().map(|b| b.in_flight()).sum::<u64>(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_ejected_primary_keeps_its_writes_and_an_unhealthy_one_answers_them() {
    for (axes, heard) in [
        (Axes { passive: Passive::Ejected, ..NO_ROLE }, ""),
        (
            Axes { health: Health::Unhealthy, ..NO_ROLE },
            "-ERR sluice: connection to shard s0 lost, result unknown\r\n",
        ),
    ] {
        let stage = Stage::new(1, ReadFrom::Primary);
        let mut client = stage.client();
        client.say("SET k v\r\n");
        stage.settle().await;
        let mut primary = stage.accept(0);
        stage.set(0, axes);
        stage.settle().await;
        assert_eq!(client.heard(), heard);
        assert_eq!(primary.heard(), "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n");
        assert_eq!(primary.is_closed(), !heard.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn an_expired_request_leaves_a_place_that_swallows_its_late_reply() {
    let request = Duration::from_millis(500);
    let timeouts = Timeouts { request, ..Timeouts::default() };
    let mut stage = Stage::with_timeouts(1, ReadFrom::Primary, timeouts);
    let mut client = stage.client();
    client.say("GET slow\r\n");
    stage.settle().await;
    let mut primary = stage.accept(0);
    stage.pass(request - Duration::from_millis(50)).await;
    assert_eq!(client.heard(), "");
    stage.pass(Duration::from_millis(100)).await;
    assert_eq!(client.heard(), "-ERR sluice: shard s0: request timed out, result unknown\r\n");
    client.say("GET fast\r\n");
    stage.settle().await;
    primary.say("+late\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "");
    primary.say("+fast\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "+fast\r\n");
    assert_eq!(stage.hub.metrics.clusters[0].stray_replies.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_loading_passes_the_read_on_and_control_hears_of_it() {
    let mut stage = Stage::new(2, ReadFrom::PreferReplica);
    let mut client = stage.client();
    client.say("GET a\r\n");
    stage.settle().await;
    let mut replica = stage.accept(1);
    replica.say("-LOADING Redis is loading the dataset in memory\r\n");
    stage.settle().await;
    let mut primary = stage.accept(0);
    primary.say("+value\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "+value\r\n");
    let told: Vec<_> = stage.reports().iter().map(|r| (r.backend, r.outcome)).collect();
    assert_eq!(told, [(1, Outcome::Error)]);
}

#[tokio::test(start_paused = true)]
async fn retries_end_with_the_budget() {
    let stage = Stage::new(2, ReadFrom::PreferReplica);
    stage.stop_listening(1);
    let mut client = stage.client();
    let mut primary = None;
    let (mut answered, mut failed) = (0, 0);
    for _ in 0..60 {
        client.say("GET a\r\n");
        stage.settle().await;
        let heard = client.heard();
        if heard.is_empty() {
            let primary = primary.get_or_insert_with(|| stage.accept(0));
            assert_eq!(primary.heard().matches("GET").count(), 1);
            primary.say("+v\r\n");
            stage.settle().await;
            assert_eq!(client.heard(), "+v\r\n");
            answered += 1;
        } else {
            assert!(heard.starts_with("-CLUSTERDOWN sluice: "), "{heard}");
            failed += 1;
        }
    }
    // Three a second over ten seconds, and one for every five requests (core.md).
    let allowed = 30 + 60 / 5;
    assert!((30..=allowed).contains(&answered), "{answered} of {}", answered + failed);
    assert_eq!(stage.hub.metrics.clusters[0].reads.all_retries(), answered);
}
