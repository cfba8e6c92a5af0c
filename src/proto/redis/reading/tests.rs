//! Each condition of what reads of replicas promise, with servers that the test plays (redis.md,
//! T43).

use super::*;
use crate::{
    policy::{fresh::Known, gate::Passive},
    proto::redis::stage::{Peer, Stage},
    topology::{Consistency, Override},
};
use std::time::Duration;
use tokio::time::Instant;

/// A primary, replicas, and every connection that was opened to them.
struct Play {
    stage: Stage,
    born: Instant,
    servers: Vec<Vec<Peer>>,
}

const KEY: Consistency = Consistency::Key;
const SESSION: Consistency = Consistency::Session;

impl Play {
    /// A primary and a replica that is read first, over connections that are there.
    async fn of(promise: Consistency) -> Self {
        Self::with(2, ReadFrom::PreferReplica, promise).await
    }

    async fn with(members: usize, from: ReadFrom, promise: Consistency) -> Self {
        Self::ruled(members, from, promise, false, Vec::new()).await
    }

    async fn ruled(
        members: usize,
        from: ReadFrom,
        promise: Consistency,
        coalesce: bool,
        overrides: Vec<Override>,
    ) -> Self {
        let born = Instant::now();
        let fresh = Freshness::new(promise, Duration::from_secs(1), born.into_std());
        let freshness = Some(fresh).filter(|_| promise != Consistency::Eventual);
        let rules = ReadRules { overrides, scripts_declare_keys: true, freshness };
        let stage = Stage::ruled(members, from, coalesce, rules);
        let servers = (0..members).map(|_| Vec::new()).collect();
        let mut play = Self { stage, born, servers };
        play.pass(100).await;
        play.sample_all();
        let mut client = play.stage.client();
        // Its connections are opened by who wants to read there.
        play.run(&mut client, "GET warm", "$-1\r\n").await;
        play.catch_up().await;
        play
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap()
    }

    async fn pass(&mut self, ms: u64) {
        self.stage.pass(Duration::from_millis(ms)).await;
    }

    /// A replica has everything that its primary has now.
    fn sample(&self, member: usize) {
        let now = self.now_ms();
        self.stage.backends[member].sampled.publish(Known { safe_ms: now, sampled_ms: now });
    }

    fn sample_all(&self) {
        (1..self.servers.len()).for_each(|member| self.sample(member));
    }

    /// Time passes, and every replica is found to have everything.
    async fn catch_up(&mut self) {
        self.pass(100).await;
        self.sample_all();
        self.pass(50).await;
    }

    /// What has come to each server since it was looked at last.
    fn heard(&mut self) -> Vec<String> {
        for (member, open) in self.servers.iter_mut().enumerate() {
            while let Some(peer) = self.stage.try_accept(member) {
                open.push(peer);
            }
        }
        self.servers.iter_mut().map(|open| open.iter_mut().map(Peer::heard).collect()).collect()
    }

    /// Says `words` and gives who was asked, `-` for nobody; it is not answered.
    async fn ask(&mut self, client: &mut Peer, words: &str) -> String {
        self.heard();
        client.say(format!("{words}\r\n"));
        self.stage.settle().await;
        let heard = self.heard();
        let asked: String = heard
            .iter()
            .enumerate()
            .filter(|(_, text)| !text.is_empty())
            .map(|(member, _)| member.to_string())
            .collect();
        if asked.is_empty() { "-".to_owned() } else { asked }
    }

    async fn answer_of(&mut self, member: usize, reply: &str) {
        self.heard();
        let peer = self.servers[member].last_mut().unwrap();
        peer.say(reply);
        self.stage.settle().await;
    }

    /// [`Self::ask`], and the answer of who was asked.
    async fn run(&mut self, client: &mut Peer, words: &str, reply: &str) -> String {
        let asked = self.ask(client, words).await;
        if let Ok(member) = asked.parse() {
            self.answer_of(member, reply).await;
        }
        client.heard();
        asked
    }
}

#[tokio::test(start_paused = true)]
async fn who_reads_a_key_reads_what_anybody_wrote() {
    let mut play = Play::of(KEY).await;
    let (mut writer, mut reader) = (play.stage.client(), play.stage.client());
    assert_eq!(play.run(&mut reader, "GET k", "$-1\r\n").await, "1", "nothing was written");
    assert_eq!(play.run(&mut writer, "SET k 1", "+OK\r\n").await, "0");
    assert_eq!(play.run(&mut reader, "GET k", "$1\r\n1\r\n").await, "0", "it may not be there yet");
    assert_eq!(play.run(&mut reader, "GET other", "$-1\r\n").await, "1", "another key");
    assert_eq!(play.run(&mut reader, "MGET other k", "*0\r\n").await, "0", "one of its keys");
    play.catch_up().await;
    assert_eq!(play.run(&mut reader, "GET k", "$1\r\n1\r\n").await, "1");
}

#[tokio::test(start_paused = true)]
async fn a_key_is_read_at_the_primary_from_when_its_write_leaves() {
    let mut play = Play::of(KEY).await;
    let (mut writer, mut reader) = (play.stage.client(), play.stage.client());
    assert_eq!(play.ask(&mut writer, "SET k 1").await, "0");
    play.catch_up().await;
    assert_eq!(play.ask(&mut reader, "GET k").await, "0", "another one may have seen it already");
    play.answer_of(0, "+OK\r\n$1\r\n1\r\n").await;
    assert_eq!(play.run(&mut reader, "GET k", "$1\r\n1\r\n").await, "0", "answered just now");
    play.catch_up().await;
    assert_eq!(play.run(&mut reader, "GET k", "$1\r\n1\r\n").await, "1");
}

#[tokio::test(start_paused = true)]
async fn a_write_without_an_answer_keeps_its_key_at_the_primary_for_twice_the_timeout() {
    let mut play = Play::of(KEY).await;
    let (mut writer, mut reader) = (play.stage.client(), play.stage.client());
    assert_eq!(play.ask(&mut writer, "SET k 1").await, "0");
    play.servers[0].clear();
    play.stage.settle().await;
    assert!(writer.heard().contains("result unknown"));
    play.pass(59_000).await;
    play.catch_up().await;
    assert_eq!(play.run(&mut reader, "GET k", "$-1\r\n").await, "0", "it may run there yet");
    assert_eq!(play.run(&mut reader, "GET other", "$-1\r\n").await, "1");
    play.pass(1_000).await;
    play.catch_up().await;
    assert_eq!(play.run(&mut reader, "GET k", "$-1\r\n").await, "1");
}

/// A server that has started again, with an old file, is asked over a new connection.
#[tokio::test(start_paused = true)]
async fn a_replica_is_read_over_connections_that_are_older_than_its_sample() {
    let mut play = Play::of(KEY).await;
    let mut reader = play.stage.client();
    assert_eq!(play.run(&mut reader, "GET k", "$-1\r\n").await, "1");
    play.servers[1].clear();
    play.stage.settle().await;
    assert_eq!(play.run(&mut reader, "GET k", "$-1\r\n").await, "0", "there is no connection");
    assert_eq!(play.run(&mut reader, "GET k", "$-1\r\n").await, "0", "there is, since just now");
    play.catch_up().await;
    assert_eq!(play.run(&mut reader, "GET k", "$-1\r\n").await, "1");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_has_looked_at_for_a_second_is_not_read() {
    let mut play = Play::of(KEY).await;
    let mut reader = play.stage.client();
    play.sample(1);
    play.pass(950).await;
    assert_eq!(play.run(&mut reader, "GET k", "$-1\r\n").await, "1");
    play.pass(100).await;
    assert_eq!(play.run(&mut reader, "GET k", "$-1\r\n").await, "0");
    play.sample(1);
    assert_eq!(play.run(&mut reader, "GET k", "$-1\r\n").await, "1");
    play.stage.backends[1].sampled.publish(Known::default());
    assert_eq!(play.run(&mut reader, "GET k", "$-1\r\n").await, "0", "it follows another primary");
}

/// What each command keeps at the primary: `k`, `l`, everything or nothing of the shard.
#[tokio::test(start_paused = true)]
async fn every_write_counts_for_the_keys_that_it_may_have_changed() {
    for (words, reply, kept) in [
        ("SET k 1", "+OK\r\n", "k"),
        ("MSET k 1 l 2", "+OK\r\n", "kl"),
        ("RENAME k l", "+OK\r\n", "kl"),
        ("SORT m STORE k", ":0\r\n", "km"),
        ("GETEX k PERSIST", "$-1\r\n", "k"),
        ("XREADGROUP GROUP g c STREAMS k >", "*-1\r\n", "k"),
        ("EVAL s 1 k", ":1\r\n", "k"),
        ("FCALL f 2 k l", ":1\r\n", "kl"),
        ("EVAL s 0", ":1\r\n", "klm"),
        ("FLUSHALL", "+OK\r\n", "klm"),
        ("MOVE k 1", ":1\r\n", "klm"),
        ("COPY k l DB 1", ":1\r\n", "klm"),
        ("COPY k l", ":1\r\n", "kl"),
        ("NOBODY.KNOWS k", ":1\r\n", "klm"),
        ("PUBLISH k l", ":0\r\n", ""),
        ("GET k", "$-1\r\n", ""),
        ("SET k 1", "-OOM not now\r\n", "k"),
    ] {
        let mut play = Play::of(KEY).await;
        let (mut writer, mut reader) = (play.stage.client(), play.stage.client());
        play.run(&mut writer, words, reply).await;
        let mut at_primary = String::new();
        for key in ["k", "l", "m"] {
            if play.run(&mut reader, &format!("GET {key}"), "$-1\r\n").await == "0" {
                at_primary.push_str(key);
            }
        }
        assert_eq!(at_primary, kept, "{words}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_database_has_keys_of_its_own() {
    let mut play = Play::of(KEY).await;
    let (mut writer, mut reader) = (play.stage.client(), play.stage.client());
    writer.say("SELECT 3\r\n");
    assert_eq!(play.ask(&mut writer, "SET k 1").await, "0");
    assert_eq!(play.run(&mut reader, "GET k", "$-1\r\n").await, "1");
}

#[tokio::test(start_paused = true)]
async fn a_transaction_counts_for_all_its_keys_when_it_is_executed() {
    let mut play = Play::of(KEY).await;
    play.stage.hub.prove(0);
    let (mut writer, mut reader) = (play.stage.client(), play.stage.client());
    for words in ["MULTI", "SET k 1", "GET m", "INCR l"] {
        assert_eq!(play.ask(&mut writer, words).await, "-");
    }
    assert_eq!(play.run(&mut reader, "GET k", "$-1\r\n").await, "1", "nothing has left yet");
    assert_eq!(play.ask(&mut writer, "EXEC").await, "0");
    let replies = "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n+OK\r\n$-1\r\n:1\r\n";
    play.answer_of(0, replies).await;
    assert!(writer.heard().contains(":1"));
    for (key, asked) in [("k", "0"), ("l", "0"), ("m", "1")] {
        let words = format!("GET {key}");
        assert_eq!(play.run(&mut reader, &words, "$-1\r\n").await, asked, "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_somebody_waits_for_is_read_at_the_primary() {
    let mut play = Play::of(KEY).await;
    let (mut waits, mut reader) = (play.stage.client(), play.stage.client());
    assert_eq!(play.ask(&mut waits, "BLPOP k 0").await, "0");
    play.catch_up().await;
    assert_eq!(play.run(&mut reader, "LRANGE other 0 -1", "*0\r\n").await, "1");
    play.heard();
    reader.say("LRANGE k 0 -1\r\n");
    play.stage.settle().await;
    let heard = play.heard();
    assert!(heard[0].contains("LRANGE") && heard[1].is_empty(), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn reads_whose_keys_nobody_knows_go_to_the_primary() {
    let mut play = Play::of(KEY).await;
    let mut reader = play.stage.client();
    for words in ["EVAL_RO s 0", "DBSIZE", "SORT_RO k BY w_*", "XREAD BLOCK 1 STREAMS k $"] {
        assert_eq!(play.ask(&mut reader, words).await, "0", "{words}");
        let number = if words.contains("BLOCK") { ":7\r\n" } else { "" };
        play.answer_of(0, &format!("{number}*0\r\n")).await;
    }
    assert_eq!(play.run(&mut reader, "EVAL_RO s 1 k", ":1\r\n").await, "1");
}

/// What is too long to be kept leaves when nobody knows any more what it is.
#[tokio::test(start_paused = true)]
async fn a_large_value_is_a_write_as_any_other() {
    let mut play = Play::of(KEY).await;
    let (mut writer, mut reader) = (play.stage.client(), play.stage.client());
    let value = "x".repeat(100_000);
    play.heard();
    writer.say(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n{value}\r\n"));
    play.stage.settle().await;
    play.heard();
    play.answer_of(0, "+OK\r\n").await;
    assert_eq!(writer.heard(), "+OK\r\n");
    assert_eq!(play.run(&mut reader, "GET k", "$-1\r\n").await, "0");
    assert_eq!(play.run(&mut reader, "GET l", "$-1\r\n").await, "1");
}

#[tokio::test(start_paused = true)]
async fn where_replicas_alone_are_read_a_client_is_told_that_none_is_new_enough() {
    let mut play = Play::with(2, ReadFrom::Replica, KEY).await;
    let (mut writer, mut reader) = (play.stage.client(), play.stage.client());
    play.run(&mut writer, "SET k 1", "+OK\r\n").await;
    assert_eq!(play.ask(&mut reader, "GET k").await, "-");
    let told = reader.heard();
    assert!(told.starts_with("-CLUSTERDOWN sluice: shard s0 has no replica"), "{told}");
    assert!(told.contains("reads.consistency"), "{told}");
    play.catch_up().await;
    assert_eq!(play.run(&mut reader, "GET k", "$1\r\n1\r\n").await, "1");
}

#[tokio::test(start_paused = true)]
async fn a_read_that_is_tried_again_goes_to_nobody_who_is_older() {
    for (newer, then) in [(true, "2"), (false, "0")] {
        let mut play = Play::with(3, ReadFrom::PreferReplica, KEY).await;
        let (mut writer, mut reader) = (play.stage.client(), play.stage.client());
        play.stage.set_replica(2, Passive::Ejected);
        play.run(&mut writer, "SET k 1", "+OK\r\n").await;
        play.pass(100).await;
        play.sample(1);
        assert_eq!(play.ask(&mut reader, "GET k").await, "1");
        play.stage.set_replica(2, Passive::Closed);
        if newer {
            play.sample(2);
        }
        play.servers[1].clear();
        play.stage.settle().await;
        let heard = play.heard();
        let asked = heard.iter().position(|text| text.contains("GET")).unwrap();
        assert_eq!(asked.to_string(), then, "{heard:?}");
    }
}

/// It came back between the look at it and the pick, and was read however old it was: once in some
/// hundred thousand reads.
#[tokio::test(start_paused = true)]
async fn who_was_out_when_it_was_looked_at_is_not_picked_when_it_comes_back() {
    let play = Play::of(KEY).await;
    let mut topology = play.stage.hub.topology();
    let cluster = Arc::clone(&topology.snapshot().clusters[0]);
    drop(topology);
    play.stage.set_replica(1, Passive::Ejected);
    let entry = Entry::new(crate::proto::redis::entry::Owner::Tombstone, 0, Access::Read, 0);
    let shard = &cluster.shards[0];
    let mask = barred(&play.stage.hub, &cluster, shard, Class::default(), &entry);
    assert_eq!(mask, 0b10);
    play.stage.set_replica(1, Passive::Closed);
    let mask = barred(&play.stage.hub, &cluster, shard, Class::default(), &entry);
    assert_eq!(mask, 0, "it is new enough");
}

/// Who asks after a write was answered must not get the answer to a question from before it.
#[tokio::test(start_paused = true)]
async fn nobody_joins_a_question_that_is_older_than_a_write() {
    let mut play = Play::ruled(2, ReadFrom::PreferReplica, KEY, true, Vec::new()).await;
    let [mut first, mut joins, mut writer, mut late] = [(); 4].map(|()| play.stage.client());
    assert_eq!(play.ask(&mut first, "GET k").await, "1");
    assert_eq!(play.ask(&mut joins, "GET k").await, "-", "nothing was written");
    play.run(&mut writer, "SET k 1", "+OK\r\n").await;
    play.catch_up().await;
    assert_eq!(play.ask(&mut late, "GET k").await, "1", "it asks anew");
    play.answer_of(1, "$-1\r\n$1\r\n1\r\n").await;
    assert_eq!([first.heard(), joins.heard(), late.heard()], ["$-1\r\n", "$-1\r\n", "$1\r\n1\r\n"]);
}

#[tokio::test(start_paused = true)]
async fn a_session_reads_what_it_wrote_and_others_need_not() {
    let mut play = Play::of(SESSION).await;
    let (mut writer, mut other) = (play.stage.client(), play.stage.client());
    assert_eq!(play.run(&mut writer, "GET k", "$-1\r\n").await, "1");
    play.run(&mut writer, "SET k 1", "+OK\r\n").await;
    assert_eq!(play.run(&mut writer, "GET l", "$-1\r\n").await, "0");
    assert_eq!(play.run(&mut other, "GET k", "$-1\r\n").await, "1");
    play.catch_up().await;
    assert_eq!(play.run(&mut writer, "GET k", "$1\r\n1\r\n").await, "1");
    assert_eq!(play.ask(&mut writer, "SET k 2").await, "0");
    play.catch_up().await;
    assert_eq!(play.ask(&mut writer, "GET k").await, "0", "its write is under way");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_has_read_the_primary_reads_no_replica_that_is_older() {
    let mut play = Play::of(SESSION).await;
    let mut reader = play.stage.client();
    play.stage.set_replica(1, Passive::Ejected);
    assert_eq!(play.ask(&mut reader, "GET k").await, "0");
    play.stage.set_replica(1, Passive::Closed);
    play.catch_up().await;
    assert_eq!(play.ask(&mut reader, "GET k").await, "0", "the first is not answered");
    play.answer_of(0, "$1\r\n1\r\n$1\r\n1\r\n").await;
    assert_eq!(play.run(&mut reader, "GET k", "$1\r\n1\r\n").await, "0", "it has seen what is new");
    play.catch_up().await;
    assert_eq!(play.run(&mut reader, "GET k", "$1\r\n1\r\n").await, "1");
}

#[tokio::test(start_paused = true)]
async fn a_session_stays_with_its_replica_and_leaves_it_for_a_newer_one_alone() {
    let mut play = Play::with(3, ReadFrom::Replica, SESSION).await;
    let mut reader = play.stage.client();
    let first = play.run(&mut reader, "GET k", "$-1\r\n").await;
    for _ in 0..6 {
        assert_eq!(
            play.run(&mut reader, "GET k", "$-1\r\n").await,
            first,
            "the same one always may"
        );
    }
    let (one, other) = if first == "1" { (1, 2) } else { (2, 1) };
    play.pass(100).await;
    play.run(&mut reader, "GET k", "$-1\r\n").await;
    play.stage.set_replica(one, Passive::Ejected);
    assert_eq!(play.ask(&mut reader, "GET k").await, "-", "the other one has less, perhaps");
    assert!(reader.heard().starts_with("-CLUSTERDOWN"));
    play.pass(100).await;
    play.sample(other);
    assert_eq!(play.run(&mut reader, "GET k", "$-1\r\n").await, other.to_string());
}

/// The answer of another replica could be older than the one that is still to come.
#[tokio::test(start_paused = true)]
async fn a_session_asks_one_replica_at_a_time() {
    let mut play = Play::with(3, ReadFrom::Replica, SESSION).await;
    let mut reader = play.stage.client();
    let first = play.ask(&mut reader, "GET k").await;
    for _ in 0..4 {
        assert_eq!(play.ask(&mut reader, "GET k").await, first);
    }
}

/// A replica that could not answer was not read, but the primary that did instead was.
#[tokio::test(start_paused = true)]
async fn a_session_whose_read_was_tried_again_at_the_primary_does_not_go_back() {
    let mut play = Play::of(SESSION).await;
    let mut reader = play.stage.client();
    assert_eq!(play.ask(&mut reader, "GET k").await, "1");
    play.answer_of(1, "-LOADING Redis is loading the dataset in memory\r\n").await;
    let heard = play.heard();
    assert!(heard[0].contains("GET"), "{heard:?}");
    play.answer_of(0, "$1\r\n1\r\n").await;
    assert_eq!(reader.heard(), "$1\r\n1\r\n");
    assert_eq!(play.run(&mut reader, "GET k", "$1\r\n1\r\n").await, "0");
    play.catch_up().await;
    assert_eq!(play.run(&mut reader, "GET k", "$1\r\n1\r\n").await, "1");
}

#[tokio::test(start_paused = true)]
async fn within_a_window_everything_older_is_there() {
    let mut play = Play::of(Consistency::Window).await;
    let mut reader = play.stage.client();
    assert_eq!(play.run(&mut reader, "GET k", "$-1\r\n").await, "1");
    let now = play.now_ms();
    let known = |behind| Known { safe_ms: now - behind, sampled_ms: now };
    play.stage.backends[1].sampled.publish(known(99));
    play.pass(900).await;
    assert_eq!(play.run(&mut reader, "GET k", "$-1\r\n").await, "1");
    play.pass(50).await;
    assert_eq!(play.run(&mut reader, "GET k", "$-1\r\n").await, "0");
}

#[tokio::test(start_paused = true)]
async fn readwrite_asks_for_the_primary_and_readonly_takes_it_back() {
    let mut play = Play::of(Consistency::Eventual).await;
    let (mut client, mut other) = (play.stage.client(), play.stage.client());
    assert_eq!(play.run(&mut client, "GET k", "$-1\r\n").await, "1");
    client.say("READWRITE\r\n");
    assert_eq!(play.run(&mut client, "GET k", "$-1\r\n").await, "0");
    assert_eq!(play.run(&mut other, "GET k", "$-1\r\n").await, "1", "its own wish alone");
    client.say("READONLY\r\n");
    assert_eq!(play.run(&mut client, "GET k", "$-1\r\n").await, "1");
    client.say("READWRITE\r\nRESET\r\n");
    assert_eq!(play.run(&mut client, "GET k", "$-1\r\n").await, "1");
}

#[tokio::test(start_paused = true)]
async fn readwrite_is_refused_where_replicas_alone_are_read() {
    let mut play = Play::with(2, ReadFrom::Replica, Consistency::Eventual).await;
    let mut client = play.stage.client();
    assert_eq!(play.ask(&mut client, "READWRITE").await, "-");
    assert_eq!(
        client.heard(),
        "-ERR sluice: reads go to replicas alone here (reads.from: replica)\r\n"
    );
    assert_eq!(play.run(&mut client, "GET k", "$-1\r\n").await, "1");
}

#[tokio::test(start_paused = true)]
async fn the_first_exception_that_a_read_fits_says_where_it_goes() {
    let exception = |prefix: Option<&str>, command: Option<&str>, from| Override {
        prefix: prefix.map(str::to_owned),
        command: command.map(str::to_owned),
        from,
    };
    let overrides = vec![
        exception(Some("cart:"), Some("HGETALL"), ReadFrom::Replica),
        exception(Some("cart:"), None, ReadFrom::Primary),
        exception(None, Some("STRLEN"), ReadFrom::Primary),
    ];
    let mut play =
        Play::ruled(2, ReadFrom::PreferReplica, Consistency::Eventual, false, overrides).await;
    let mut client = play.stage.client();
    for (words, asked) in [
        ("GET k", "1"),
        ("GET cart:1", "0"),
        ("MGET k cart:1", "0"),
        ("HGETALL cart:1", "1"),
        ("STRLEN k", "0"),
    ] {
        assert_eq!(play.run(&mut client, words, "$-1\r\n").await, asked, "{words}");
    }
}
