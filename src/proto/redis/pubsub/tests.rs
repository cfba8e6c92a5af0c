use crate::{
    policy::{
        gate::{Axes, Health, Role},
        reads::ReadFrom,
    },
    proto::redis::{
        audience::Subject,
        class::Resp,
        client::Limits,
        stage::{Peer, Stage},
    },
    topology::Timeouts,
};
use std::time::Duration;

fn words(words: &[&str]) -> String {
    let bulks: String = words.iter().map(|w| format!("${}\r\n{w}\r\n", w.len())).collect();
    format!("*{}\r\n{bulks}", words.len())
}

fn confirmed(verb: &str, name: &str, count: usize) -> String {
    let (verb_len, len) = (verb.len(), name.len());
    format!("*3\r\n${verb_len}\r\n{verb}\r\n${len}\r\n{name}\r\n:{count}\r\n")
}

fn message(channel: &str, text: &str) -> String {
    words(&["message", channel, text])
}

/// A client that has subscribed to `a`, and the connection on which its messages come.
async fn subscribed(stage: &Stage) -> (Peer, Peer) {
    let mut client = stage.client();
    client.say("SUBSCRIBE a\r\n");
    stage.settle().await;
    let mut tap = stage.accept(0);
    assert_eq!(tap.heard(), words(&["subscribe", "a"]));
    assert_eq!(client.heard(), "", "nobody has confirmed yet");
    tap.say(confirmed("subscribe", "a", 1));
    stage.settle().await;
    assert_eq!(client.heard(), confirmed("subscribe", "a", 1));
    (client, tap)
}

#[tokio::test(start_paused = true)]
async fn clients_share_one_connection_and_each_gets_every_message() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let (mut one, mut tap) = subscribed(&stage).await;
    let mut two = stage.client();
    two.say("SUBSCRIBE a a\r\n");
    stage.settle().await;
    assert_eq!(two.heard(), confirmed("subscribe", "a", 1).repeat(2));
    assert_eq!(tap.heard(), "", "the server has been asked already");
    tap.say(message("a", "hello"));
    stage.settle().await;
    assert_eq!([one.heard(), two.heard()], [message("a", "hello"), message("a", "hello")]);
    one.say("UNSUBSCRIBE a\r\n");
    stage.settle().await;
    assert_eq!(one.heard(), confirmed("unsubscribe", "a", 0));
    assert_eq!(tap.heard(), "", "the other one listens");
    tap.say(message("a", "bye"));
    stage.settle().await;
    assert_eq!([one.heard(), two.heard()], [String::new(), message("a", "bye")]);
    drop(two);
    stage.settle().await;
    assert_eq!(tap.heard(), words(&["unsubscribe", "a"]));
    tap.say(message("a", "late"));
    tap.say(confirmed("unsubscribe", "a", 0));
    stage.settle().await;
    assert!(stage.hub.pubsub.audience.is_empty(0));
    let metrics = &stage.hub.metrics.clusters[0];
    assert_eq!(
        (metrics.subscribers.get(), metrics.topics.get(), metrics.messages.get()),
        (0, 0, 3)
    );
    one.say("GET k\r\n");
    stage.settle().await;
    assert_eq!(stage.accept(0).heard(), words(&["GET", "k"]));
}

/// The last other reader of `a` left meanwhile; the new one was told of a subscription that was gone.
#[tokio::test(start_paused = true)]
async fn a_confirmed_name_is_kept_for_who_waits_for_another() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let (one, mut tap) = subscribed(&stage).await;
    let mut two = stage.client();
    two.say("SUBSCRIBE a b\r\n");
    stage.settle().await;
    assert_eq!(tap.heard(), words(&["subscribe", "b"]));
    drop(one);
    stage.settle().await;
    assert_eq!(tap.heard(), "", "the second client wants it");
    tap.say(confirmed("subscribe", "b", 2));
    stage.settle().await;
    let both = [confirmed("subscribe", "a", 1), confirmed("subscribe", "b", 2)].concat();
    assert_eq!(two.heard(), both);
    tap.say(message("a", "hello"));
    stage.settle().await;
    assert_eq!(two.heard(), message("a", "hello"));
    drop(two);
    stage.settle().await;
    let mut asked = tap.heard();
    for name in ["a", "b"] {
        let one = words(&["unsubscribe", name]);
        assert!(asked.contains(&one), "{asked}");
        asked = asked.replace(&one, "");
    }
    assert_eq!(asked, "");
}

#[tokio::test(start_paused = true)]
async fn confirmations_take_their_place_and_nothing_overtakes_them() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let (_other, mut tap) = subscribed(&stage).await;
    let mut client = stage.client();
    client.say("GET k\r\nSUBSCRIBE b c\r\nPING\r\nUNSUBSCRIBE c b\r\nPING\r\n");
    stage.settle().await;
    let mut shared = stage.accept(0);
    assert_eq!(tap.heard(), "", "the GET before it is still under way");
    shared.say("$1\r\nv\r\n");
    stage.settle().await;
    tap.say(confirmed("subscribe", "b", 2));
    tap.say(message("b", "early"));
    stage.settle().await;
    assert_eq!(client.heard(), "$1\r\nv\r\n", "c is not confirmed");
    tap.say(confirmed("subscribe", "c", 3));
    stage.settle().await;
    let both = confirmed("subscribe", "b", 1) + &confirmed("subscribe", "c", 2);
    assert_eq!(client.heard(), both + &words(&["pong", ""]));
    tap.say(message("b", "late"));
    tap.say(confirmed("unsubscribe", "c", 2) + &confirmed("unsubscribe", "b", 1));
    stage.settle().await;
    let both = confirmed("unsubscribe", "c", 1) + &confirmed("unsubscribe", "b", 0);
    assert_eq!(client.heard(), both + "+PONG\r\n");
}

#[tokio::test(start_paused = true)]
async fn a_client_of_resp3_gets_pushes() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let (mut client, mut tap) = subscribed(&stage).await;
    let clients = stage.hub.clients();
    clients[0].set_resp(Resp::Three);
    tap.say(message("a", "hello"));
    stage.settle().await;
    assert_eq!(client.heard(), message("a", "hello").replacen('*', ">", 1));
}

/// A client that still waits for replies in RESP3 could not read a message in RESP2.
#[tokio::test(start_paused = true)]
async fn messages_change_their_version_when_hello_is_answered() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let (_other, mut tap) = subscribed(&stage).await;
    let mut client = stage.client();
    client.say("HELLO 3\r\nSUBSCRIBE a\r\n");
    stage.settle().await;
    assert!(client.heard().ends_with(&confirmed("subscribe", "a", 1).replacen('*', ">", 1)));
    client.say("GET k\r\nHELLO 2\r\nPING\r\n");
    stage.settle().await;
    let push = message("a", "before").replacen('*', ">", 1);
    tap.say(message("a", "before"));
    stage.settle().await;
    assert_eq!(client.heard(), push);
    let mut shared = stage.accept(0);
    assert!(shared.heard().contains("HELLO"));
    shared.say("%1\r\n$5\r\nproto\r\n:3\r\n");
    stage.settle().await;
    assert_eq!(shared.heard(), words(&["GET", "k"]));
    shared.say("_\r\n");
    stage.settle().await;
    tap.say(message("a", "after"));
    stage.settle().await;
    let heard = client.heard();
    assert!(heard.starts_with("_\r\n*14\r\n"), "{heard}");
    assert!(heard.ends_with(&(words(&["pong", ""]) + &message("a", "after"))), "{heard}");
}

#[tokio::test(start_paused = true)]
async fn in_resp2_a_subscriber_may_ask_for_little() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let (mut client, _feed) = subscribed(&stage).await;
    client.say("GET k\r\nCLIENT SETNAME x\r\nPING hi\r\nSUBSCRIBE\r\nQUIT\r\n");
    stage.settle().await;
    let only = "only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this \
                context\r\n";
    assert_eq!(
        client.heard(),
        format!("-ERR Can't execute 'get': {only}-ERR Can't execute 'client|setname': {only}")
            + &words(&["pong", "hi"])
            + "-ERR wrong number of arguments for 'subscribe' command\r\n+OK\r\n"
    );
    assert!(client.is_closed());
}

#[tokio::test(start_paused = true)]
async fn unsubscribing_from_nothing_is_confirmed() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let mut client = stage.client();
    client.say("UNSUBSCRIBE\r\nPUNSUBSCRIBE x\r\nSUNSUBSCRIBE\r\nPING\r\n");
    stage.settle().await;
    assert_eq!(
        client.heard(),
        "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n".to_owned()
            + &confirmed("punsubscribe", "x", 0)
            + "*3\r\n$12\r\nsunsubscribe\r\n$-1\r\n:0\r\n+PONG\r\n"
    );
    assert!(stage.try_accept(0).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_opened_again_and_no_client_notices() {
    let mut stage = Stage::new(1, ReadFrom::Primary);
    let (mut client, tap) = subscribed(&stage).await;
    client.say("PSUBSCRIBE n*\r\n");
    stage.settle().await;
    let mut tap = tap;
    tap.say(confirmed("psubscribe", "n*", 2));
    stage.settle().await;
    assert_eq!(client.heard(), confirmed("psubscribe", "n*", 2));
    drop(tap);
    stage.settle().await;
    assert_eq!(stage.hub.pubsub.audience.receivers(0, 0, Subject::Channel, b"a", 0), 0);
    stage.pass(Duration::from_secs(1)).await;
    let mut tap = stage.accept(0);
    let asked = tap.heard();
    assert!(asked.contains(&words(&["subscribe", "a"])), "{asked}");
    assert!(asked.contains(&words(&["psubscribe", "n*"])), "{asked}");
    stage.pass(Duration::from_secs(1)).await;
    tap.say(confirmed("subscribe", "a", 1) + &confirmed("psubscribe", "n*", 2));
    tap.say(message("a", "again"));
    stage.settle().await;
    assert_eq!(client.heard(), message("a", "again"));
    let metrics = &stage.hub.metrics.clusters[0];
    assert_eq!(metrics.resubscriptions.get(), 2);
    let gap = metrics.subscriber_gap_us.get();
    assert!((1_000_000..4_000_000).contains(&gap), "{gap}");
    assert_eq!(stage.hub.pubsub.audience.receivers(0, 0, Subject::Channel, b"a", 1), 1);
}

#[tokio::test(start_paused = true)]
async fn after_a_failover_the_new_primary_is_listened_to() {
    let mut stage = Stage::new(2, ReadFrom::Primary);
    let (mut client, mut tap) = subscribed(&stage).await;
    let role = |role| Axes { health: Health::Healthy, role, ..Axes::default() };
    stage.set(0, role(Role::Replica));
    stage.set(1, role(Role::Primary));
    stage.pass(Duration::from_millis(100)).await;
    assert!(tap.is_closed());
    let mut tap = stage.accept(1);
    assert_eq!(tap.heard(), words(&["subscribe", "a"]));
    tap.say(confirmed("subscribe", "a", 1) + &message("a", "here"));
    stage.settle().await;
    assert_eq!(client.heard(), message("a", "here"));
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_subscribed_hears_why_and_goes_on() {
    let mut stage = Stage::new(1, ReadFrom::Primary);
    let mut client = stage.client();
    client.say("SUBSCRIBE secret b\r\nPING\r\n");
    stage.settle().await;
    let mut tap = stage.accept(0);
    tap.say("-NOPERM no such luck\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "-NOPERM no such luck\r\n+PONG\r\n");
    tap.say(confirmed("subscribe", "b", 1));
    stage.settle().await;
    assert!(tap.heard().ends_with(&words(&["unsubscribe", "b"])));
    drop(tap);
    stage.stop_listening(0);
    client.say("SUBSCRIBE a\r\nPING\r\n");
    stage.pass(Duration::from_secs(1)).await;
    let heard = client.heard();
    assert!(heard.starts_with("-CLUSTERDOWN sluice: shard s0: backend "), "{heard}");
    assert!(heard.ends_with("\r\n+PONG\r\n"), "{heard}");
    stage.set(0, Axes { health: Health::Unhealthy, role: Role::Primary, ..Axes::default() });
    client.say("SUBSCRIBE a\r\n");
    stage.settle().await;
    assert!(client.heard().starts_with("-CLUSTERDOWN sluice: shard s0 has no primary"));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_confirm_is_not_waited_for_for_ever() {
    let mut stage = Stage::new(1, ReadFrom::Primary);
    let mut client = stage.client();
    client.say("SUBSCRIBE a\r\n");
    stage.settle().await;
    let mut tap = stage.accept(0);
    stage.pass(Duration::from_secs(29)).await;
    assert_eq!(client.heard(), "");
    stage.pass(Duration::from_secs(3)).await;
    assert!(client.heard().starts_with("-ERR sluice: the server did not confirm in time"));
    assert!(tap.heard().ends_with(&words(&["unsubscribe", "a"])));
}

/// It was taken for the end of what came next, which was never answered.
#[tokio::test(start_paused = true)]
async fn a_late_confirmation_ends_nothing_that_was_asked_since() {
    let timeouts = Timeouts { request: Duration::from_millis(500), ..Timeouts::default() };
    for next in ["SUBSCRIBE b", "PUNSUBSCRIBE"] {
        let mut stage = Stage::with_timeouts(1, ReadFrom::Primary, timeouts);
        let (mut client, mut tap) = subscribed(&stage).await;
        client.say("PSUBSCRIBE p\r\n");
        stage.settle().await;
        tap.say(confirmed("psubscribe", "p", 2));
        stage.settle().await;
        if next == "SUBSCRIBE b" {
            client.say("PUNSUBSCRIBE\r\n");
            stage.settle().await;
            tap.say(confirmed("punsubscribe", "p", 1));
            stage.settle().await;
        }
        client.heard();
        client.say("UNSUBSCRIBE\r\n");
        stage.pass(Duration::from_secs(2)).await;
        let left = usize::from(next == "PUNSUBSCRIBE");
        assert_eq!(client.heard(), confirmed("unsubscribe", "a", left));
        client.say(format!("{next}\r\nPING\r\n"));
        stage.settle().await;
        assert_eq!(client.heard(), "", "the server is silent");
        tap.say(confirmed("unsubscribe", "a", left));
        stage.settle().await;
        assert_eq!(client.heard(), "", "that was answered long ago");
        let told = match left {
            0 => [confirmed("subscribe", "b", 1), words(&["pong", ""])].concat(),
            _ => [confirmed("punsubscribe", "p", 0), "+PONG\r\n".to_owned()].concat(),
        };
        tap.say(match left {
            0 => confirmed("subscribe", "b", 1),
            _ => confirmed("punsubscribe", "p", 0),
        });
        stage.settle().await;
        assert_eq!(client.heard(), told, "{next}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_subscription_is_not_taken_for_an_old_one_that_is_ending() {
    let mut stage = Stage::new(1, ReadFrom::Primary);
    let mut late = stage.client();
    late.say("SUBSCRIBE a\r\n");
    stage.settle().await;
    let mut tap = stage.accept(0);
    stage.pass(Duration::from_secs(32)).await;
    assert!(late.heard().starts_with("-ERR sluice: "));
    let mut client = stage.client();
    client.say("SUBSCRIBE a\r\n");
    stage.settle().await;
    tap.say(confirmed("subscribe", "a", 1));
    stage.settle().await;
    assert_eq!(client.heard(), "", "that was the first one's, and its end follows");
    tap.say(words(&["pong", ""]));
    tap.say(confirmed("unsubscribe", "a", 0) + &confirmed("subscribe", "a", 1));
    stage.settle().await;
    assert_eq!(client.heard(), confirmed("subscribe", "a", 1));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_asked_for_closes_the_connection() {
    let mut stage = Stage::new(1, ReadFrom::Primary);
    let (mut client, mut tap) = subscribed(&stage).await;
    tap.say(confirmed("subscribe", "b", 2));
    stage.settle().await;
    assert!(tap.is_closed());
    stage.pass(Duration::from_secs(1)).await;
    stage.accept(0).say(confirmed("subscribe", "a", 1) + &message("a", "x"));
    stage.settle().await;
    assert_eq!(client.heard(), message("a", "x"));
}

#[tokio::test(start_paused = true)]
async fn a_message_may_come_byte_by_byte() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let (mut client, mut tap) = subscribed(&stage).await;
    for byte in message("a", "slow").bytes() {
        assert_eq!(client.heard(), "");
        tap.say([byte]);
        stage.settle().await;
    }
    assert_eq!(client.heard(), message("a", "slow"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_is_closed_at_either_limit_and_others_are_not() {
    for (limit, seconds, messages) in [(256 << 10, 0, 20), (32 << 20, 62, 460)] {
        let mut stage = Stage::new(1, ReadFrom::Primary);
        stage.limits = Limits { output: limit, ..stage.limits };
        let (mut slow, mut tap) = subscribed(&stage).await;
        let mut quick = stage.client();
        quick.say("SUBSCRIBE a\r\n");
        stage.settle().await;
        let text = message("a", &"x".repeat(40_000));
        let mut heard = quick.heard().len();
        for _ in 0..messages {
            tap.say(&*text);
            stage.settle().await;
            heard += quick.heard().len();
        }
        assert_eq!(heard, confirmed("subscribe", "a", 1).len() + messages * text.len());
        stage.pass(Duration::from_secs(seconds)).await;
        stage.settle().await;
        assert_eq!(stage.hub.clients().len(), 1);
        assert_eq!(stage.hub.metrics.clusters[0].subscribers_dropped.get(), 1);
        assert_eq!(stage.hub.metrics.buffered.get() / (1 << 20), 0, "all of it was given back");
        while !slow.heard().is_empty() {}
        assert!(slow.is_closed() && !quick.is_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_asked_and_an_unwanted_connection_closed() {
    let mut stage = Stage::new(1, ReadFrom::Primary);
    let (client, mut tap) = subscribed(&stage).await;
    stage.pass(Duration::from_secs(8)).await;
    assert_eq!(tap.heard(), words(&["PING"]));
    tap.say(words(&["pong", ""]));
    stage.pass(Duration::from_secs(8)).await;
    assert_eq!(tap.heard(), words(&["PING"]));
    drop(client);
    stage.settle().await;
    assert_eq!(tap.heard(), words(&["unsubscribe", "a"]));
    tap.say("*2\r\n$4\r\npong\r\n$0\r\n\r\n".to_owned() + &confirmed("unsubscribe", "a", 0));
    stage.pass(Duration::from_secs(20)).await;
    assert!(!tap.is_closed());
    tap.heard();
    tap.say("+PONG\r\n");
    stage.pass(Duration::from_secs(13)).await;
    tap.heard();
    assert!(tap.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_drain_leaves_subscribers_and_they_are_never_idle() {
    let mut stage = Stage::new(1, ReadFrom::Primary);
    stage.limits = Limits { idle: Duration::from_secs(2), ..stage.limits };
    let (mut client, mut tap) = subscribed(&stage).await;
    stage.pass(Duration::from_secs(5)).await;
    assert!(!client.is_closed());
    stage.hub.drain();
    tap.say(message("a", "still"));
    stage.settle().await;
    assert_eq!(client.heard(), message("a", "still"));
    assert!(!client.is_closed());
}

#[tokio::test(start_paused = true)]
async fn published_messages_tell_their_clients_not_our_connections() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let mut publisher = stage.client();
    publisher.say("PUBLISH a 1\r\n");
    stage.settle().await;
    let mut shared = stage.accept(0);
    shared.say(":4\r\n");
    stage.settle().await;
    assert_eq!(publisher.heard(), ":4\r\n");
    let (_one, mut tap) = subscribed(&stage).await;
    let mut two = stage.client();
    two.say("SUBSCRIBE a\r\nPSUBSCRIBE ?\r\n");
    stage.settle().await;
    tap.say(confirmed("psubscribe", "?", 2));
    stage.settle().await;
    publisher.say("PUBSUB NUMSUB a b\r\nPUBSUB NUMPAT\r\nPUBSUB CHANNELS *\r\nPUBLISH a 2\r\n");
    stage.settle().await;
    let told = "*4\r\n$1\r\na\r\n:2\r\n$1\r\nb\r\n:0\r\n:1\r\n*1\r\n$1\r\na\r\n";
    assert_eq!(publisher.heard(), told);
    assert!(shared.heard().ends_with(&words(&["PUBLISH", "a", "2"])));
    // Our channel and our pattern, and somebody else's.
    shared.say(":3\r\n");
    stage.settle().await;
    assert_eq!(publisher.heard(), ":4\r\n");
    publisher.say("PUBLISH a 3\r\n");
    stage.settle().await;
    shared.say("-READONLY no\r\n");
    stage.settle().await;
    assert_eq!(publisher.heard(), "-READONLY no\r\n");
}
