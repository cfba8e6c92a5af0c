use crate::{
    policy::{gate::Passive, reads::ReadFrom},
    proto::redis::stage::Stage,
    topology::{Outcome, Timeouts},
};
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn a_reply_that_nobody_asked_for_closes_the_connection() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let mut client = stage.client();
    client.say("GET a\r\n");
    stage.settle().await;
    let mut primary = stage.accept(0);
    primary.say("+a\r\n+surplus\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "+a\r\n");
    assert_eq!(stage.hub.metrics.clusters[0].stray_replies.get(), 1);
    client.say("GET b\r\n");
    stage.settle().await;
    let mut fresh = stage.accept(0);
    fresh.say("+b\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "+b\r\n");
}

/// The reply may come in the very turn in which the next request goes out.
#[tokio::test(start_paused = true)]
async fn a_surplus_reply_does_not_meet_the_request_sent_after_it() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let mut client = stage.client();
    client.say("GET a\r\n");
    stage.settle().await;
    let mut primary = stage.accept(0);
    primary.say("+a\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "+a\r\n");
    primary.say("+surplus\r\n");
    client.say("SET b 1\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "");
    assert!(!primary.heard().contains("SET"));
    let mut fresh = stage.accept(0);
    assert!(fresh.heard().contains("SET"));
    fresh.say("+OK\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "+OK\r\n");
}

/// A server closes idle connections (`timeout`); a write that comes then was never sent.
#[tokio::test(start_paused = true)]
async fn a_write_after_the_server_closed_goes_over_a_new_connection() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let mut client = stage.client();
    client.say("GET a\r\n");
    stage.settle().await;
    let mut primary = stage.accept(0);
    primary.say("+a\r\n");
    stage.settle().await;
    client.heard();
    drop(primary);
    client.say("SET b 1\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "");
    stage.accept(0).say("+OK\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "+OK\r\n");
}

/// What a request waited elsewhere is no silence of the backend it came to.
#[tokio::test(start_paused = true)]
async fn a_read_that_was_moved_does_not_make_its_new_backend_suspect_or_stalled() {
    let stall = Duration::from_millis(400);
    let timeouts = Timeouts { stall, ..Timeouts::default() };
    let mut stage = Stage::with_timeouts(2, ReadFrom::PreferReplica, timeouts);
    let mut client = stage.client();
    client.say("GET a\r\n");
    stage.settle().await;
    let _hung = stage.accept(1);
    stage.pass(Duration::from_millis(390)).await;
    stage.set_replica(1, Passive::Ejected);
    stage.settle().await;
    let mut primary = stage.accept(0);
    stage.reports();
    stage.pass(Duration::from_millis(100)).await;
    assert_eq!(stage.reports(), []);
    assert!(primary.heard().contains("GET"));
    assert!(!primary.is_closed());
    primary.say("+a\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "+a\r\n");
}

#[tokio::test(start_paused = true)]
async fn a_hung_backend_is_suspect_before_it_is_stalled() {
    let stall = Duration::from_millis(600);
    let timeouts = Timeouts { stall, ..Timeouts::default() };
    let mut stage = Stage::with_timeouts(1, ReadFrom::Primary, timeouts);
    // A worker that has just begun suspects nobody.
    stage.pass(Duration::from_millis(500)).await;
    let mut client = stage.client();
    client.say("SET a 1\r\n");
    stage.settle().await;
    let primary = stage.accept(0);
    stage.pass(Duration::from_millis(350)).await;
    let told: Vec<_> = stage.reports().iter().map(|report| report.outcome).collect();
    assert_eq!(told, [Outcome::Suspect]);
    stage.pass(Duration::from_millis(300)).await;
    assert_eq!(client.heard(), "-ERR sluice: connection to shard s0 lost, result unknown\r\n");
    drop(primary);
}

#[tokio::test(start_paused = true)]
async fn a_push_on_a_sessions_own_connection_is_its_clients_and_answers_no_request() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let mut client = stage.client();
    client.say("WATCH a\r\n");
    stage.settle().await;
    let mut own = stage.accept(0);
    own.say("+OK\r\n");
    stage.settle().await;
    client.say("GET a\r\nGET b\r\n");
    stage.settle().await;
    own.say("+a\r\n>2\r\n+invalidate\r\n*1\r\n+a\r\n");
    stage.settle().await;
    own.say("+b\r\n>1\r\n+la");
    stage.settle().await;
    own.say("te\r\n");
    stage.settle().await;
    let expected = "+OK\r\n+a\r\n>2\r\n+invalidate\r\n*1\r\n+a\r\n+b\r\n>1\r\n+late\r\n";
    assert_eq!(client.heard(), expected);
    own.heard();
    own.say("+surplus\r\n");
    stage.settle().await;
    assert!(own.is_closed());
    assert_eq!(stage.hub.metrics.clusters[0].stray_replies.get(), 1);
}
