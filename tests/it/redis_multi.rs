//! Transactions: what a client sees is what one server would have told it, on one shard and on
//! three, kept until EXEC or not.

use crate::harness::{Cluster, Conn, Value};

/// Sequences of requests by one client. All keys have one tag.
const STORIES: &[&[&str]] = &[
    &["EXEC", "DISCARD", "EXEC 1", "DISCARD 1", "MULTI 1", "EXEC"],
    &["MULTI", "EXEC", "EXEC", "MULTI", "DISCARD", "DISCARD"],
    &["MULTI", "MULTI", "WATCH {t}a", "SET {t}a 1", "EXEC", "GET {t}a"],
    &["MULTI", "SET {t}a 1", "GET {t}a", "INCR {t}a", "DEL {t}a {t}b", "EXEC", "GET {t}a"],
    &["SET {t}a x", "MULTI", "INCR {t}a", "LPUSH {t}a 1", "GET {t}a", "EXEC", "GET {t}a"],
    &["SET {t}a 1", "MULTI", "SET {t}a 2", "DISCARD", "GET {t}a", "EXEC"],
    &["MULTI", "SET {t}a", "SET {t}a 1", "EXEC", "GET {t}a", "EXEC"],
    &["MULTI", "SET {t}a 1", "EXEC x", "EXEC", "GET {t}a"],
    &["MULTI", "DISCARD x", "SET {t}a 1", "EXEC", "MULTI", "MULTI x", "DISCARD", "GET {t}a"],
    &["MULTI", "SAVE", "EXEC", "MULTI", "SYNC", "DISCARD", "EXEC"],
    &["MULTI", "CLIENT NOSUCH", "EXEC", "MULTI", "CONFIG NOSUCH x", "GET {t}a", "EXEC"],
    &["MULTI", "PING", "PING x", "ECHO y", "UNWATCH", "GET {t}a", "EXEC", "PING"],
    &["MULTI", "BLPOP {t}a 0", "RPUSH {t}a 1 2", "BLPOP {t}a 0", "BRPOPLPUSH {t}a {t}b 0", "EXEC"],
    &["MULTI", "WAIT 0 0", "SET {t}a 1", "XREAD BLOCK 0 STREAMS {t}s $", "EXEC"],
    &[
        "MULTI",
        "MSET {t}a 1 {t}b 2",
        "MGET {t}b {t}a {t}c",
        "EXISTS {t}a {t}a",
        "MSET {t}a",
        "EXEC",
    ],
    &["MULTI", "SELECT 3", "SET {t}a 3", "SELECT 99", "EXEC", "GET {t}a", "SELECT 0", "GET {t}a"],
    &["MULTI", "SELECT 3", "SET {t}a 3", "DISCARD", "GET {t}a"],
    &["SELECT 5", "MULTI", "SET {t}a 5", "EXEC", "GET {t}a", "SELECT 0", "GET {t}a"],
    &["MULTI", "CLIENT SETNAME x", "CLIENT GETNAME", "GET {t}a", "EXEC", "CLIENT GETNAME"],
    &["MULTI", "AUTH x", "AUTH a b", "GET {t}a", "EXEC", "GET {t}a"],
    &["MULTI", "HELLO 9", "PING", "CLIENT NO-EVICT on", "EXEC"],
    &["WATCH {t}a", "SET {t}a 1", "MULTI", "SET {t}a 2", "EXEC", "GET {t}a"],
    &["WATCH {t}a {t}b", "GET {t}a", "MULTI", "SET {t}a 2", "GET {t}a", "EXEC", "MULTI", "EXEC"],
    &["WATCH {t}a", "SET {t}a 1", "UNWATCH", "MULTI", "SET {t}a 2", "EXEC", "GET {t}a"],
    &["WATCH {t}a", "SET {t}a 1", "MULTI", "DISCARD", "MULTI", "SET {t}a 2", "EXEC", "GET {t}a"],
    &["WATCH {t}a", "MULTI", "WATCH {t}b", "MULTI", "SET {t}a", "EXEC", "EXEC", "GET {t}a"],
    &["WATCH {t}a", "SET {t}a 1", "MULTI", "EXEC", "MULTI", "PING", "EXEC"],
    &["WATCH {t}a", "MULTI", "SELECT 2", "SET {t}a 2", "CLIENT GETNAME", "EXEC", "GET {t}a"],
    &["WATCH {t}a", "MULTI", "SET {t}a 1", "EXEC 1", "EXEC", "SET {t}a 2", "MULTI", "EXEC"],
    &["UNWATCH", "WATCH", "MULTI", "WATCH", "EXEC"],
];

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// A story told one by one, or all at once.
fn told(conn: &mut Conn, story: &[&str], at_once: bool) -> Vec<Value> {
    let requests: Vec<Vec<String>> = story.iter().map(|line| words(line)).collect();
    if at_once {
        return conn.pipeline(&requests);
    }
    requests.iter().map(|words| conn.cmd(words)).collect()
}

fn flush(cluster: &Cluster) {
    cluster.servers().for_each(|server| assert_eq!(server.cmd(&["FLUSHALL"]), "OK"));
}

fn as_directly(shards: usize, listener: &str) {
    let cluster = Cluster::start(shards, 0);
    let sluice = cluster.sluice().listener(listener).start();
    let server = &cluster.owner("{t}").primary;
    let mut kept = sluice.conn();
    for story in STORIES {
        for at_once in [false, true] {
            flush(&cluster);
            let expected = told(&mut server.conn(), story, at_once);
            flush(&cluster);
            let got = told(&mut sluice.conn(), story, at_once);
            assert_eq!(got, expected, "{story:?}, at once: {at_once}");
            // The one who comes after finds nothing of it.
            flush(&cluster);
            let calm = ["SELECT 0", "SET {t}k v", "GET {t}k", "MULTI", "GET {t}k", "EXEC"];
            let expected = told(&mut server.conn(), &calm, true);
            assert_eq!(told(&mut kept, &calm, true), expected, "after {story:?}");
        }
    }
}

#[test]
fn one_shard_answers_as_its_server_would() {
    as_directly(1, "");
}

#[test]
fn three_shards_answer_as_a_server_would() {
    as_directly(3, "");
}

#[test]
fn pinned_transactions_are_answered_the_same() {
    as_directly(1, "redis: { multi: pinned }");
    as_directly(3, "redis: { multi: pinned }");
}
