use super::*;
use crate::{
    policy::reads::ReadFrom,
    proto::redis::{
        stage::{Peer, Stage},
        testing,
    },
};

const GET: &str = "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";

async fn asked(stage: &Stage, backend: &mut Peer) -> usize {
    stage.settle().await;
    backend.heard().matches("GET").count()
}

#[tokio::test(start_paused = true)]
async fn the_window_starts_at_64_requests_and_doubles_with_every_round_that_fills_it() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let mut client = stage.client();
    client.say(GET.repeat(500));
    stage.settle().await;
    let mut primary = stage.accept(0);
    let mut rounds = Vec::new();
    loop {
        let n = asked(&stage, &mut primary).await;
        if n == 0 {
            break;
        }
        rounds.push(n);
        primary.say("+v\r\n".repeat(n));
    }
    assert_eq!(rounds, [64, 128, 256, 52]);
    assert_eq!(client.heard(), "+v\r\n".repeat(500));
}

/// In flight times the largest recent reply stays within 1 MiB: 17 of 60,000 bytes.
#[tokio::test(start_paused = true)]
async fn the_window_shrinks_when_replies_are_big() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let mut client = stage.client();
    client.say(GET.repeat(150));
    stage.settle().await;
    let mut primary = stage.accept(0);
    let mut under_way = asked(&stage, &mut primary).await;
    assert_eq!(under_way, 64);
    let big = format!("$60000\r\n{}\r\n", "x".repeat(60_000));
    for answered in 1..=100 {
        primary.say(&big);
        under_way = under_way - 1 + asked(&stage, &mut primary).await;
        assert_eq!(client.heard(), big);
        assert!(answered < 64 - 17 || under_way == 17, "{under_way} after {answered}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_closed_at_its_output_limit() {
    let mut stage = Stage::new(1, ReadFrom::Primary);
    stage.limits.output = 1024 * 1024;
    let (mut slow, mut other) = (stage.client(), stage.client());
    slow.say(GET.repeat(64));
    stage.settle().await;
    let mut primary = stage.accept(0);
    let reply = format!("$50000\r\n{}\r\n", "x".repeat(50_000));
    for _ in 0..40 {
        primary.say(&reply);
        stage.settle().await;
    }
    assert!(slow.heard().len() < 40 * reply.len());
    assert!(slow.is_closed());
    // Its other replies go nowhere, and those of others arrive.
    other.say(GET);
    for _ in 40..64 {
        primary.say(&reply);
        stage.settle().await;
    }
    primary.say("+v\r\n");
    stage.settle().await;
    assert_eq!(other.heard(), "+v\r\n");
    assert_eq!(stage.backends[0].in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_long_reply_is_passed_on_while_it_arrives_and_a_cut_one_ends_the_session() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let mut client = stage.client();
    client.say(GET);
    stage.settle().await;
    let mut primary = stage.accept(0);
    primary.say(format!("$300000\r\n{}", "x".repeat(150_000)));
    stage.settle().await;
    assert!(client.heard().len() > 64 * 1024, "not held back until it is whole");
    drop(primary);
    stage.settle().await;
    client.heard();
    assert!(client.is_closed());
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_before_the_end_of_input_is_answered() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let mut client = stage.client();
    client.say(GET);
    client.say("*1\r\n$4\r\nPING\r\n");
    client.end();
    stage.settle().await;
    stage.accept(0).say("+v\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "+v\r\n+PONG\r\n");
    assert!(client.is_closed());
    assert!(stage.hub.clients().is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_held_for_a_client_that_has_its_replies() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let mut client = stage.client();
    client.say(GET);
    stage.settle().await;
    assert!(stage.hub.metrics.buffered.get() > 0);
    stage.accept(0).say("+v\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "+v\r\n");
    assert_eq!(stage.hub.metrics.buffered.get(), 0);
}

fn client(pipeline: usize) -> Rc<Client> {
    let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
    drop(theirs);
    let limits =
        Limits { output: 1 << 20, pipeline, idle: Duration::ZERO, grace: Duration::from_secs(1) };
    Client::new(1, 0, Stream::Unix(ours), limits)
}

fn fill(client: &Client) -> Vec<u32> {
    std::iter::from_fn(|| client.has_room().then(|| client.open(0))).collect()
}

/// The window doubled beyond it, and was cut only when the batch was over.
#[tokio::test]
async fn no_more_requests_are_under_way_than_the_pipeline_allows() {
    let (hub, client) = (testing::hub(), client(100));
    assert_eq!(fill(&client).len(), FIRST_WINDOW);
    for seq in 0..64 {
        client.answer(&hub, seq, 0, "s0", b"+OK\r\n");
    }
    assert_eq!(fill(&client).len(), 100);
}

/// Early replies were no backlog: one slow request let a client pile up a thousand large ones.
#[tokio::test]
async fn replies_that_wait_for_an_earlier_one_are_backlog() {
    let (hub, client) = (testing::hub(), client(1024));
    client.open(0);
    let big = vec![b'x'; 1 << 20];
    let kept = std::iter::from_fn(|| client.has_room().then(|| client.reply(&hub, &big)));
    assert_eq!(kept.count(), SOFT_BACKLOG >> 20);
    client.answer(&hub, 0, 0, "s0", b"+OK\r\n");
    client.close(&hub);
    assert_eq!(hub.metrics.buffered.get(), 0);
}
