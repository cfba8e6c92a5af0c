//! Transactions with a backend played by hand.

use super::*;
use crate::{
    policy::{
        gate::{Axes, Health, Role},
        reads::ReadFrom,
    },
    proto::redis::stage::{Peer, Stage},
    topology::Timeouts,
};
use std::time::Duration;

const BLOCK: &str = "*1\r\n$5\r\nMULTI\r\n*2\r\n$4\r\nINCR\r\n$1\r\na\r\n*1\r\n$4\r\nEXEC\r\n";
const MULTI: &str = "*1\r\n$5\r\nMULTI\r\n";
const LOST: &str = "-ERR sluice: connection to shard s0 lost, result unknown\r\n";

/// A stage on whose backend a first transaction has gone well, and the connection of its own which
/// that one had.
async fn proven() -> (Stage, Peer) {
    let stage = Stage::new(1, ReadFrom::Primary);
    let mut client = stage.client();
    client.say("MULTI\r\nINCR a\r\nEXEC\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "+OK\r\n+QUEUED\r\n");
    let mut own = stage.accept(0);
    assert_eq!(own.heard(), MULTI);
    own.say("+OK\r\n");
    stage.settle().await;
    assert_eq!(Some(&*own.heard()), BLOCK.strip_prefix(MULTI));
    own.say("+QUEUED\r\n*1\r\n:1\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "*1\r\n:1\r\n");
    (stage, own)
}

#[tokio::test(start_paused = true)]
async fn a_block_leaves_in_one_piece_between_the_requests_of_others() {
    let (stage, _own) = proven().await;
    let (mut one, mut two) = (stage.client(), stage.client());
    one.say("GET x\r\nMULTI\r\nINCR a\r\n");
    two.say("GET y\r\n");
    stage.settle().await;
    one.say("EXEC\r\nGET z\r\n");
    two.say("GET y\r\n");
    stage.settle().await;
    let mut shared = stage.accept(0);
    let heard = shared.heard();
    assert_eq!(heard.matches(BLOCK).count(), 1);
    assert_eq!((heard.matches("MULTI").count(), heard.matches("GET").count()), (1, 4));
    let replies: Vec<&str> = heard
        .split_inclusive("\r\n")
        .filter_map(|line| match line.trim_end() {
            "x" => Some("+x\r\n"),
            "y" => Some("+y\r\n"),
            "z" => Some("+z\r\n"),
            "MULTI" => Some("+OK\r\n"),
            "INCR" => Some("+QUEUED\r\n"),
            "EXEC" => Some("*1\r\n:2\r\n"),
            _ => None,
        })
        .collect();
    // Cut anywhere.
    for byte in replies.concat().bytes() {
        shared.say([byte]);
        stage.settle().await;
    }
    assert_eq!(one.heard(), "+x\r\n+OK\r\n+QUEUED\r\n*1\r\n:2\r\n+z\r\n");
    assert_eq!(two.heard(), "+y\r\n+y\r\n");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_multi_executes_nothing_and_the_client_hears_why() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let mut client = stage.client();
    client.say("MULTI\r\nINCR a\r\nEXEC\r\nGET a\r\n");
    stage.settle().await;
    let mut own = stage.accept(0);
    assert_eq!(own.heard(), MULTI);
    own.say("-NOPERM no MULTI\r\n");
    stage.settle().await;
    assert_eq!(
        client.heard(),
        "+OK\r\n+QUEUED\r\n-ERR sluice: shard s0 refuses MULTI (NOPERM no MULTI); nothing was \
         executed\r\n"
    );
    assert_eq!(own.heard(), "");
    assert!(stage.accept(0).heard().ends_with("GET\r\n$1\r\na\r\n"));
}

/// It was queued behind that MULTI, and executed when the rest of the transaction came.
#[tokio::test(start_paused = true)]
async fn what_comes_after_a_transaction_that_timed_out_at_its_multi_is_not_queued_behind_it() {
    let timeouts = Timeouts { request: Duration::from_millis(500), ..Timeouts::default() };
    let mut stage = Stage::with_timeouts(1, ReadFrom::Primary, timeouts);
    let mut client = stage.client();
    client.say("MULTI\r\nINCR a\r\nEXEC\r\n");
    stage.settle().await;
    let mut own = stage.accept(0);
    assert_eq!(own.heard(), MULTI);
    stage.pass(Duration::from_secs(1)).await;
    let told = "+OK\r\n+QUEUED\r\n-ERR sluice: shard s0: request timed out, result unknown\r\n";
    assert_eq!(client.heard(), told);
    assert!(own.is_closed());
    client.say("SET b 1\r\n");
    stage.settle().await;
    let mut shared = stage.accept(0);
    let heard = shared.heard();
    assert!(heard.ends_with("*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$1\r\n1\r\n"), "{heard}");
    // COMMAND is asked there as well.
    shared.say("*0\r\n".repeat(heard.matches("COMMAND").count()));
    shared.say("+OK\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "+OK\r\n");
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_exec_is_refused_is_closed_before_others_are_queued_on_it() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let mut client = stage.client();
    client.say("MULTI\r\nINCR a\r\nEXEC\r\nGET a\r\n");
    stage.settle().await;
    let mut own = stage.accept(0);
    own.say("+OK\r\n");
    stage.settle().await;
    own.say("+QUEUED\r\n-ERR unknown command 'EXEC'\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "+OK\r\n+QUEUED\r\n-ERR unknown command 'EXEC'\r\n");
    assert_eq!(own.heard(), BLOCK);
    assert!(own.is_closed());

    // One that took transactions before, on a connection that others share.
    let (stage, _own) = proven().await;
    let (mut client, mut other) = (stage.client(), stage.client());
    client.say("MULTI\r\nINCR a\r\nEXEC\r\n");
    stage.settle().await;
    other.say("SET b 1\r\n");
    stage.settle().await;
    let mut shared = stage.accept(0);
    assert!(shared.heard().starts_with(BLOCK));
    shared.say("+OK\r\n+QUEUED\r\n-ERR unknown command 'EXEC'\r\n+QUEUED\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "+OK\r\n+QUEUED\r\n-ERR unknown command 'EXEC'\r\n");
    assert_eq!(other.heard(), LOST);
    assert!(shared.is_closed());
    assert!(!stage.hub.is_proven(0), "the next transaction must ask again");
}

#[tokio::test(start_paused = true)]
async fn what_ran_without_multi_is_said_and_not_sent_again() {
    let (stage, _own) = proven().await;
    let mut client = stage.client();
    client.say("MULTI\r\nINCR a\r\nEXEC\r\n");
    stage.settle().await;
    let mut shared = stage.accept(0);
    shared.say("-NOPERM no MULTI\r\n:7\r\n-ERR EXEC without MULTI\r\n");
    stage.settle().await;
    assert_eq!(
        client.heard(),
        "+OK\r\n+QUEUED\r\n-ERR sluice: shard s0 refuses MULTI (NOPERM no MULTI); the requests \
         were executed one by one\r\n"
    );
    assert_eq!(shared.heard(), BLOCK);
}

#[tokio::test(start_paused = true)]
async fn an_error_while_queueing_is_told_by_exec() {
    let (stage, _own) = proven().await;
    let mut client = stage.client();
    client.say("MULTI\r\nINCR a\r\nEXEC\r\nGET a\r\n");
    stage.settle().await;
    let mut shared = stage.accept(0);
    shared.say("+OK\r\n-OOM command not allowed\r\n-EXECABORT Transaction discarded\r\n+a\r\n");
    stage.settle().await;
    let heard = client.heard();
    let cause = "-EXECABORT Transaction discarded because of: OOM command not allowed\r\n+a\r\n";
    assert!(heard.ends_with(cause), "{heard}");
}

#[tokio::test(start_paused = true)]
async fn a_block_that_was_not_executed_goes_to_the_new_primary() {
    let stage = Stage::new(2, ReadFrom::Primary);
    (0..2).for_each(|backend| stage.hub.prove(backend));
    let mut client = stage.client();
    client.say("MULTI\r\nINCR a\r\nEXEC\r\n");
    stage.settle().await;
    let mut old = stage.accept(0);
    assert_eq!(old.heard(), BLOCK);
    let role = |role| Axes { health: Health::Healthy, role, ..Axes::default() };
    stage.set(1, role(Role::Primary));
    stage.set(0, role(Role::Replica));
    old.say("+OK\r\n-READONLY You can't write\r\n-EXECABORT Transaction discarded\r\n");
    stage.settle().await;
    let mut new = stage.accept(1);
    assert_eq!(new.heard(), BLOCK);
    new.say("+OK\r\n+QUEUED\r\n*1\r\n:1\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "+OK\r\n+QUEUED\r\n*1\r\n:1\r\n");
}

#[tokio::test(start_paused = true)]
async fn a_block_whose_reply_is_lost_is_never_sent_again() {
    for replies in ["", "+OK\r\n", "+OK\r\n+QUEUED\r\n", "+OK\r\n+QUEUED\r\n*1\r\n"] {
        let (stage, _own) = proven().await;
        let mut client = stage.client();
        client.say("MULTI\r\nINCR a\r\nEXEC\r\n");
        stage.settle().await;
        let mut shared = stage.accept(0);
        assert_eq!(shared.heard(), BLOCK);
        shared.say(replies);
        stage.settle().await;
        drop(shared);
        stage.settle().await;
        assert_eq!(client.heard(), format!("+OK\r\n+QUEUED\r\n{LOST}"), "after {replies:?}");
        assert!(stage.try_accept(0).is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn late_replies_of_a_block_are_nobody_elses() {
    let timeouts = Timeouts { request: Duration::from_millis(200), ..Timeouts::default() };
    let mut stage = Stage::with_timeouts(1, ReadFrom::Primary, timeouts);
    stage.hub.prove(0);
    let (mut slow, mut next) = (stage.client(), stage.client());
    slow.say("MULTI\r\nINCR a\r\nEXEC\r\n");
    stage.settle().await;
    let mut shared = stage.accept(0);
    shared.say("+OK\r\n");
    stage.pass(Duration::from_millis(300)).await;
    let timed_out = "-ERR sluice: shard s0: request timed out, result unknown\r\n";
    assert_eq!(slow.heard(), format!("+OK\r\n+QUEUED\r\n{timed_out}"));
    next.say("GET b\r\n");
    stage.settle().await;
    shared.say("+QUEUED\r\n*1\r\n:1\r\n+b\r\n");
    stage.settle().await;
    assert_eq!((slow.heard(), next.heard()), (String::new(), "+b\r\n".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn who_watched_over_a_lost_connection_begins_anew() {
    for (before, after) in [("WATCH a\r\n", "MULTI\r\nINCR a\r\n"), ("WATCH a\r\nMULTI\r\n", "")] {
        let (stage, own) = proven().await;
        drop(own);
        let mut client = stage.client();
        client.say(before);
        stage.settle().await;
        let mut own = stage.accept(0);
        let asked = own.heard().matches('*').count();
        own.say("+OK\r\n".repeat(asked));
        stage.settle().await;
        assert_eq!(client.heard(), "+OK\r\n".repeat(asked));
        drop(own);
        stage.settle().await;
        // To watch more changes nothing, and nothing leaves.
        let more = if after.is_empty() { "GET a\r\n" } else { "WATCH b\r\n" };
        client.say(format!("{more}{after}EXEC\r\n"));
        stage.settle().await;
        let expected = if after.is_empty() {
            "+QUEUED\r\n*-1\r\n"
        } else {
            "+OK\r\n+OK\r\n+QUEUED\r\n*-1\r\n"
        };
        assert_eq!(client.heard(), expected);
        assert!(stage.try_accept(0).is_none());
        client.say("EXEC\r\n");
        stage.settle().await;
        assert_eq!(client.heard(), "-ERR EXEC without MULTI\r\n");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pinned_transaction_that_loses_its_connection_says_so() {
    let mut stage = Stage::new(1, ReadFrom::Primary);
    stage.rules.pinned = true;
    let mut client = stage.client();
    client.say("MULTI\r\n");
    stage.settle().await;
    let mut own = stage.accept(0);
    own.say("+OK\r\n");
    stage.settle().await;
    drop(own);
    stage.settle().await;
    client.say("INCR a\r\nEXEC\r\n");
    stage.settle().await;
    assert_eq!(
        client.heard(),
        "+OK\r\n+QUEUED\r\n-EXECABORT Transaction discarded because of: sluice: connection to \
         shard s0 lost\r\n"
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_in_multi_is_not_for_the_next_one() {
    let (stage, own) = proven().await;
    drop(own);
    for said in ["WATCH a\r\nMULTI\r\n", "WATCH a\r\nMULTI\r\nINCR a\r\n"] {
        let mut leaves = stage.client();
        leaves.say(said);
        stage.settle().await;
        let mut own = stage.accept(0);
        own.say(
            "+OK\r\n+OK\r\n+QUEUED\r\n"
                .split_inclusive('\n')
                .take(said.matches('\n').count())
                .collect::<String>(),
        );
        stage.settle().await;
        drop(leaves);
        stage.settle().await;
        own.heard();
        assert!(own.is_closed(), "{said:?}");
    }
    // Nor is one that was left in another database.
    let mut client = stage.client();
    client.say("MULTI\r\nSELECT 3\r\nEXEC\r\n");
    stage.settle().await;
    let mut own = stage.accept(0);
    own.heard();
    own.say("+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n");
    stage.settle().await;
    client.say("GET a\r\n");
    stage.settle().await;
    own.heard();
    assert!(own.is_closed());
    assert!(stage.accept(0).heard().starts_with("*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n"));
}

#[tokio::test(start_paused = true)]
async fn a_drain_lets_a_transaction_end() {
    let (stage, _own) = proven().await;
    let mut client = stage.client();
    client.say("MULTI\r\nINCR a\r\n");
    stage.settle().await;
    stage.hub.drain();
    stage.settle().await;
    client.say("EXEC\r\n");
    stage.settle().await;
    let mut shared = stage.accept(0);
    assert_eq!(shared.heard(), BLOCK);
    assert_eq!(client.heard(), "+OK\r\n+QUEUED\r\n");
    shared.say("+OK\r\n+QUEUED\r\n*1\r\n:1\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), "*1\r\n:1\r\n");
    assert!(client.is_closed());
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_is_limited_and_counted() {
    let mut stage = Stage::new(1, ReadFrom::Primary);
    stage.rules = Rules { max_commands: 2, max_bytes: 100_000, ..Rules::default() };
    let mut client = stage.client();
    client.say("MULTI\r\nPING\r\nPING\r\nPING\r\nEXEC\r\nMULTI\r\n");
    stage.settle().await;
    let aborted = "-EXECABORT Transaction discarded because of previous errors.\r\n";
    assert_eq!(
        client.heard(),
        format!(
            "+OK\r\n+QUEUED\r\n+QUEUED\r\n-ERR sluice: transaction over \
             redis.multi_max_commands (2)\r\n{aborted}+OK\r\n"
        )
    );
    let value = "x".repeat(60_000);
    client.say(format!("SET a {value}\r\n"));
    stage.settle().await;
    assert_eq!(client.heard(), "+QUEUED\r\n");
    assert!(stage.hub.metrics.buffered.get() > 60_000);
    client.say(format!("SET b {value}\r\n"));
    stage.settle().await;
    assert_eq!(client.heard(), "-ERR sluice: transaction over redis.multi_max_bytes (100000)\r\n");
    assert!(stage.hub.metrics.buffered.get() < 60_000);
    client.say("EXEC\r\n");
    stage.settle().await;
    assert_eq!(client.heard(), aborted);
    assert!(stage.try_accept(0).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_full_memory_aborts_a_transaction() {
    let stage = Stage::with_memory(1, ReadFrom::Primary, 1 << 20);
    let mut client = stage.client();
    client.say("MULTI\r\n");
    stage.settle().await;
    stage.hub.charge(0, 1 << 20);
    client.say("GET a\r\nEXEC\r\n");
    stage.settle().await;
    assert_eq!(
        client.heard(),
        "+OK\r\n-OOM sluice: memory limit\r\n\
         -EXECABORT Transaction discarded because of previous errors.\r\n"
    );
}

#[tokio::test(start_paused = true)]
async fn a_large_block_has_a_connection_of_its_own() {
    let (stage, mut own) = proven().await;
    let mut client = stage.client();
    client.say("MULTI\r\n");
    let value = "x".repeat(60_000);
    for n in 0..20 {
        client.say(format!("SET k{n} {value}\r\n"));
        stage.settle().await;
    }
    client.say("EXEC\r\nGET a\r\n");
    let mut heard = String::new();
    for _ in 0..40 {
        stage.settle().await;
        heard.push_str(&own.heard());
    }
    assert_eq!((heard.matches("SET").count(), heard.ends_with("EXEC\r\n")), (20, true));
    assert!(stage.try_accept(0).is_none(), "the GET must not overtake");
    own.say(format!("+OK\r\n{}*1\r\n+OK\r\n", "+QUEUED\r\n".repeat(20)));
    stage.settle().await;
    assert_eq!(stage.accept(0).heard(), "*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
}
