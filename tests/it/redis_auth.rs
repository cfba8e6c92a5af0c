//! Passwords, on both sides, and what a client may send before it has given its own.

use crate::harness::{Cluster, PATIENCE, Sluice, eventually};
use std::fs;

const LISTENER: &str = "canary-of-the-listener";
const UPSTREAM: &str = "canary-of-the-servers";

/// Neither password may appear in anything an operator sees.
fn assert_no_canary(sluice: &Sluice) {
    let seen = [sluice.log(), sluice.metrics().text().to_owned(), sluice.status().to_string()];
    for text in seen {
        assert!(!text.contains("canary"), "a password leaked:\n{text}");
    }
}

#[test]
fn clients_log_in_to_the_listener_and_sluice_to_the_servers() {
    let arguments = ["--requirepass", UPSTREAM, "--masterauth", UPSTREAM];
    let cluster = Cluster::with_args(1, 1, &arguments);
    let sluice = cluster
        .sluice()
        .listener("redis: { password: \"${LISTENER_PASSWORD}\" }")
        .cluster("upstream: { user: default, password: \"${UPSTREAM_PASSWORD}\" }")
        .cluster("reads: { from: prefer_replica }")
        .env("LISTENER_PASSWORD", LISTENER)
        .env("UPSTREAM_PASSWORD", UPSTREAM)
        .start();
    let mut conn = sluice.conn();
    for words in [vec!["GET", "k"], vec!["PING"], vec!["FLUSHALL"], vec!["COMMAND"]] {
        assert_eq!(conn.cmd(&words).error(), "NOAUTH Authentication required.", "{words:?}");
    }
    assert!(conn.cmd(&["HELLO", "2"]).error().starts_with("NOAUTH HELLO must be called"));
    for words in
        [vec!["AUTH", "wrong"], vec!["AUTH", "default", ""], vec!["AUTH", "other", LISTENER]]
    {
        assert!(conn.cmd(&words).error().starts_with("WRONGPASS"), "{words:?}");
    }
    assert!(conn.cmd(&["GET", "k"]).error().starts_with("NOAUTH"));
    assert_eq!(conn.cmd(&["AUTH", LISTENER]), "OK");
    assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    cluster.wait_for_replicas();
    assert_eq!(conn.cmd(&["GET", "k"]), "v");
    assert!(conn.cmd(&["AUTH", "wrong"]).error().starts_with("WRONGPASS"));
    assert_eq!(conn.cmd(&["GET", "k"]), "v", "a failed AUTH does not log out");

    let mut conn = sluice.conn();
    assert_eq!(
        conn.cmd(&["HELLO", "2", "AUTH", "default", LISTENER, "SETNAME", "n"]).items().len(),
        14
    );
    assert_eq!(conn.cmd(&["GET", "k"]), "v");
    assert_no_canary(&sluice);
}

#[test]
fn the_servers_password_may_come_from_a_file() {
    let cluster = Cluster::with_args(2, 0, &["--requirepass", UPSTREAM]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, format!("{UPSTREAM}\n")).unwrap();
    let line = format!("upstream: {{ password_file: {} }}", file.display());
    let sluice = cluster.sluice().cluster(&line).start();
    assert_eq!(sluice.conn().cmd(&["MSET", "a", "1", "b", "2", "c", "3"]), "OK");
    assert_no_canary(&sluice);
}

#[test]
fn a_wrong_password_for_the_servers_is_told_and_kept_secret() {
    let cluster = Cluster::with_args(1, 0, &["--requirepass", UPSTREAM]);
    let sluice = cluster
        .sluice()
        .cluster("upstream: { password: canary-that-is-wrong }")
        .without_waiting()
        .start();
    sluice.expect_log(cluster.shards[0].primary.address());
    let reply = sluice.conn().cmd(&["GET", "k"]);
    assert!(reply.error().contains("sluice"), "{reply:?}");
    eventually("the log says why", PATIENCE, || sluice.log().contains("WRONGPASS").then_some(()));
    assert_no_canary(&sluice);
}

#[test]
fn strangers_may_send_little() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().listener("redis: { password: secret }").start();
    let base = sluice.process().rss_kb();
    for (sent, error) in [
        ("*11\r\n", "unauthenticated multibulk length"),
        ("*1048576\r\n", "unauthenticated multibulk length"),
        ("*2\r\n$3\r\nGET\r\n$16385\r\n", "unauthenticated bulk length"),
        ("*2\r\n$3\r\nGET\r\n$536870912\r\n", "unauthenticated bulk length"),
    ] {
        let mut conn = sluice.conn();
        conn.send(sent.as_bytes());
        assert_eq!(conn.read().error(), format!("ERR Protocol error: {error}"), "{sent:?}");
        assert_eq!(conn.read_to_close(), b"", "{sent:?}");
    }
    // Ten arguments of 16 KiB are within the limits, and after AUTH there are none.
    let long = "x".repeat(16 << 10);
    let mut conn = sluice.conn();
    let ten: Vec<&str> = ["ECHO"].into_iter().chain((0..9).map(|_| long.as_str())).collect();
    assert!(conn.cmd(&ten).error().starts_with("NOAUTH"));
    assert_eq!(conn.cmd(&["AUTH", "secret"]), "OK");
    let twenty: Vec<&str> = ["DEL"].into_iter().chain((0..20).map(|_| long.as_str())).collect();
    assert_eq!(conn.cmd(&twenty), 0);

    // Strangers who announce much and send little, all at once.
    let strangers: Vec<_> = (0..100)
        .map(|_| {
            let mut conn = sluice.conn();
            conn.send(b"*10\r\n$16384\r\n");
            conn
        })
        .collect();
    assert_eq!(sluice.conn().cmd(&["AUTH", "secret"]), "OK");
    let grown = sluice.process().peak_kb() - base;
    assert!(grown < 16 << 10, "{grown} KiB more for {} strangers", strangers.len());
}
