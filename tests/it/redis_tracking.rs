//! CLIENT TRACKING: clients that keep what they have read are told of every change of it, whichever
//! shard it is on, and of nothing else.

use crate::harness::{Cluster, Conn, PATIENCE, eventually};

fn three(conn: &mut Conn) {
    assert!(conn.raw("HELLO 3").starts_with("%7"));
}

/// What one push says, `keys` of RESP3.
fn invalidates(keys: &str) -> String {
    format!(">2\r\n$10\r\ninvalidate\r\n{keys}")
}

fn invalidates_key(key: &str) -> String {
    invalidates(&format!("*1\r\n${}\r\n{key}\r\n", key.len()))
}

/// So many pushes, in the order of their texts.
fn pushes(conn: &mut Conn, count: usize) -> Vec<String> {
    let mut pushes: Vec<_> = (0..count).map(|_| conn.read_raw()).collect();
    pushes.sort();
    pushes
}

/// The pushes that speak of these keys, likewise.
fn of_keys<'k>(keys: impl IntoIterator<Item = &'k String>) -> Vec<String> {
    let mut pushes: Vec<_> = keys.into_iter().map(|key| invalidates_key(key)).collect();
    pushes.sort();
    pushes
}

/// Nothing has been told that was not read, nor is on its way from any shard.
fn is_quiet(conn: &mut Conn, keys: &[String]) {
    for key in keys {
        assert_eq!(conn.raw(&format!("STRLEN {key}")), ":1\r\n");
    }
    assert_eq!(conn.raw("PING"), "+PONG\r\n");
}

/// Told of a change of what it has read, and of nothing else, over a connection of its own.
#[test]
fn a_tracking_client_hears_of_changes() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().workers(2).start();
    let (mut conn, mut other) = (sluice.conn(), sluice.conn());
    three(&mut conn);
    assert_eq!(conn.raw("CLIENT TRACKINGINFO").split("\r\n").nth(4), Some("$3"));
    for round in 0..20 {
        assert_eq!(conn.raw("CLIENT TRACKING ON"), "+OK\r\n");
        assert_eq!(conn.raw("CLIENT GETREDIR"), ":0\r\n");
        assert!(conn.raw("CLIENT INFO").contains(" flags=t "));
        let value = if round == 0 { "_\r\n" } else { "$1\r\n1\r\n" };
        assert_eq!(conn.raw("GET k"), value);
        assert_eq!(other.raw("SET k 1"), "+OK\r\n");
        assert_eq!(conn.read_raw(), ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n");
        assert_eq!(other.raw("SET k 1"), "+OK\r\n");
        assert_eq!(conn.raw("PING"), "+PONG\r\n", "not read since, and nothing else is told");
        assert_eq!(conn.raw("CLIENT TRACKING OFF"), "+OK\r\n");
        assert_eq!(conn.raw("GET k"), "$1\r\n1\r\n");
        assert_eq!(other.raw("SET k 1"), "+OK\r\n");
        assert_eq!(conn.raw("ECHO quiet"), "$5\r\nquiet\r\n");
    }
    assert_eq!(sluice.metrics().sum("sluice_redis_stray_pushes_total", &[]), 0.0);
}

#[test]
fn tracking_by_prefix_and_by_choice_and_in_other_databases() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().start();
    let (mut conn, mut other) = (sluice.conn(), sluice.conn());
    three(&mut conn);
    assert_eq!(conn.raw("CLIENT TRACKING ON BCAST PREFIX user: NOLOOP"), "+OK\r\n");
    assert!(conn.raw("CLIENT TRACKINGINFO").contains("$5\r\nuser:\r\n"));
    conn.raw("SET user:1 mine");
    other.raw("SET order:1 x");
    other.raw("SET user:2 x");
    assert_eq!(conn.read_raw(), ">2\r\n$10\r\ninvalidate\r\n*1\r\n$6\r\nuser:2\r\n");
    assert!(conn.raw("CLIENT TRACKING ON OPTIN").starts_with("-ERR You can't switch BCAST"));
    assert_eq!(conn.raw("CLIENT TRACKING OFF"), "+OK\r\n");
    assert_eq!(conn.raw("CLIENT TRACKING ON OPTIN"), "+OK\r\n");
    conn.raw("GET user:1");
    assert_eq!(conn.raw("CLIENT CACHING YES"), "+OK\r\n");
    conn.raw("GET user:2");
    other.raw("MSET user:1 y user:2 y");
    assert_eq!(conn.read_raw(), ">2\r\n$10\r\ninvalidate\r\n*1\r\n$6\r\nuser:2\r\n");
    assert_eq!(conn.raw("CLIENT TRACKING OFF"), "+OK\r\n");
    // Its own connection follows it into another database and another version.
    assert_eq!(conn.raw("CLIENT TRACKING ON"), "+OK\r\n");
    assert_eq!(conn.raw("SELECT 5"), "+OK\r\n");
    assert_eq!(conn.raw("GET k"), "_\r\n");
    other.raw("SELECT 5");
    other.raw("SET k 1");
    assert_eq!(conn.read_raw(), ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n");
    conn.raw("HELLO 2");
    assert_eq!(conn.raw("GET none"), "$-1\r\n");
    assert_eq!(conn.raw("RESET"), "+RESET\r\n");
    assert_eq!(conn.raw("CLIENT GETREDIR"), ":-1\r\n");
    assert_eq!(conn.raw("GET k"), "$-1\r\n");
}

/// What it has kept may be old, and nobody would tell it.
#[test]
fn a_tracking_client_is_closed_when_one_of_its_servers_is_lost() {
    let mut cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().start();
    let mut other = sluice.conn();
    for shard in 0..2 {
        let mut conn = sluice.conn();
        three(&mut conn);
        assert_eq!(conn.raw("CLIENT TRACKING ON"), "+OK\r\n");
        assert_eq!(other.raw("PING"), "+PONG\r\n");
        cluster.shards[shard].primary.restart();
        assert_eq!(conn.read_to_close(), b"");
        assert_eq!(other.raw("PING"), "+PONG\r\n");
    }
}

/// Nine keys, three of each of three shards.
fn keys(cluster: &Cluster) -> Vec<String> {
    let prefixes = ["a", "b", "c"];
    let key = |shard| prefixes.map(|prefix| cluster.key_of(shard, prefix));
    (0..cluster.shards.len()).flat_map(key).collect()
}

#[test]
fn changes_on_every_shard_are_told() {
    let cluster = Cluster::start(3, 0);
    let sluice = cluster.sluice().workers(2).start();
    let keys = keys(&cluster);
    for round in 0..6 {
        let (mut conn, mut other) = (sluice.conn(), sluice.conn());
        three(&mut conn);
        keys.iter().for_each(|key| _ = other.raw(&format!("SET {key} 1")));
        assert_eq!(conn.raw("CLIENT TRACKING ON"), "+OK\r\n");
        assert_eq!(conn.raw("CLIENT GETREDIR"), ":0\r\n");
        assert!(conn.raw("CLIENT TRACKINGINFO").contains("$2\r\non\r\n"));
        if round % 2 == 0 {
            assert!(conn.raw(&format!("MGET {}", keys.join(" "))).starts_with("*9\r\n$1\r\n1"));
        } else {
            keys.iter().for_each(|key| assert_eq!(conn.raw(&format!("GET {key}")), "$1\r\n1\r\n"));
        }
        keys.iter().for_each(|key| _ = other.raw(&format!("SET {key} 2")));
        assert_eq!(pushes(&mut conn, keys.len()), of_keys(&keys));
        keys.iter().for_each(|key| _ = other.raw(&format!("SET {key} 3")));
        assert_eq!(conn.raw("CLIENT TRACKING OFF"), "+OK\r\n");
        conn.raw(&format!("MGET {}", keys.join(" ")));
        keys.iter().for_each(|key| _ = other.raw(&format!("SET {key} 4")));
        is_quiet(&mut conn, &keys);
    }
    assert_eq!(sluice.metrics().sum("sluice_redis_stray_pushes_total", &[]), 0.0);
}

#[test]
fn prefixes_and_what_is_ones_own_hold_on_every_shard() {
    let cluster = Cluster::start(3, 0);
    let sluice = cluster.sluice().start();
    let (mut conn, mut other) = (sluice.conn(), sluice.conn());
    let keys = keys(&cluster);
    three(&mut conn);
    assert_eq!(conn.raw("CLIENT TRACKING ON BCAST PREFIX a PREFIX b NOLOOP"), "+OK\r\n");
    let told = conn.raw("CLIENT TRACKINGINFO");
    assert!(told.contains("$1\r\na\r\n$1\r\nb\r\n"), "{told}");
    let all: String = keys.iter().map(|key| format!(" {key} 1")).collect();
    assert_eq!(conn.raw(&format!("MSET{all}")), "+OK\r\n");
    is_quiet(&mut conn, &keys);
    keys.iter().for_each(|key| _ = other.raw(&format!("SET {key} 2")));
    let wanted = of_keys(keys.iter().filter(|key| !key.starts_with('c')));
    assert_eq!(pushes(&mut conn, wanted.len()), wanted);
    assert!(
        conn.raw("CLIENT TRACKING ON BCAST PREFIX ax").starts_with("-ERR Prefix 'ax' overlaps")
    );
    assert!(conn.raw("CLIENT TRACKING ON OPTIN").starts_with("-ERR You can't switch BCAST"));
    assert!(conn.raw("CLIENT TRACKING ON PREFIX a").starts_with("-ERR PREFIX option requires"));
    assert_eq!(conn.raw("CLIENT TRACKING maybe"), "-ERR syntax error\r\n");
    is_quiet(&mut conn, &keys);
}

/// It is of the next request, on whichever shards that is, or of the transaction that begins.
#[test]
fn caching_is_of_the_next_request() {
    let cluster = Cluster::start(3, 0);
    let sluice = cluster.sluice().start();
    let (mut conn, mut other) = (sluice.conn(), sluice.conn());
    let keys = keys(&cluster);
    let mut change = || keys.iter().for_each(|key| _ = other.raw(&format!("SET {key} 1")));
    let read = |conn: &mut Conn| _ = conn.raw(&format!("MGET {}", keys.join(" ")));
    three(&mut conn);
    let text = "-ERR CLIENT CACHING can be called only when the client is in tracking mode";
    assert!(conn.raw("CLIENT CACHING YES").starts_with(text));
    assert_eq!(conn.raw("CLIENT TRACKING ON OPTIN"), "+OK\r\n");
    assert!(conn.raw("CLIENT CACHING NO").starts_with("-ERR CLIENT CACHING NO is only valid when"));
    // The first transaction of all to these servers.
    for key in [&keys[0], &keys[4], &keys[8]] {
        assert_eq!(conn.raw("CLIENT CACHING YES"), "+OK\r\n");
        conn.raw("MULTI");
        conn.raw(&format!("GET {key}"));
        assert!(conn.raw("EXEC").starts_with("*1\r\n"));
    }
    change();
    assert_eq!(pushes(&mut conn, 3), of_keys([&keys[0], &keys[4], &keys[8]]));
    read(&mut conn);
    assert_eq!(conn.raw("CLIENT CACHING YES"), "+OK\r\n");
    assert!(conn.raw("CLIENT TRACKINGINFO").contains("$11\r\ncaching-yes\r\n"));
    read(&mut conn);
    change();
    assert_eq!(pushes(&mut conn, keys.len()), of_keys(&keys));
    conn.raw("CLIENT CACHING YES");
    conn.raw("PING");
    read(&mut conn);
    change();
    is_quiet(&mut conn, &keys);
    // Here what is not said is kept.
    assert_eq!(conn.raw("CLIENT TRACKING OFF"), "+OK\r\n");
    assert_eq!(conn.raw("CLIENT TRACKING ON OPTOUT"), "+OK\r\n");
    assert_eq!(conn.raw("CLIENT CACHING NO"), "+OK\r\n");
    assert!(conn.raw("CLIENT TRACKINGINFO").contains("$10\r\ncaching-no\r\n"));
    read(&mut conn);
    change();
    conn.raw("CLIENT CACHING NO");
    conn.raw("ECHO over");
    read(&mut conn);
    change();
    assert_eq!(pushes(&mut conn, keys.len()), of_keys(&keys));
}

/// Each shard tells it, and the client is told once.
#[test]
fn that_all_is_gone_is_told_once() {
    let cluster = Cluster::start(3, 0);
    let sluice = cluster.sluice().start();
    let (mut conn, mut other) = (sluice.conn(), sluice.conn());
    let keys = keys(&cluster);
    three(&mut conn);
    conn.raw("CLIENT TRACKING ON");
    for flush in ["FLUSHALL", "FLUSHDB"] {
        conn.raw(&format!("GET {}", keys[0]));
        assert_eq!(other.raw(flush), "+OK\r\n");
        assert_eq!(conn.read_raw(), invalidates("_\r\n"));
        keys.iter().for_each(|key| assert_eq!(conn.raw(&format!("GET {key}")), "_\r\n"));
        // Behind its own request's reply.
        assert_eq!(conn.raw(flush), "+OK\r\n");
        assert_eq!(conn.read_raw(), invalidates("_\r\n"));
        keys.iter().for_each(|key| assert_eq!(conn.raw(&format!("GET {key}")), "_\r\n"));
    }
}

/// The reply of a fast shard waits for that of a slow one before it: told of the change first, the
/// client would keep the old value for ever.
#[test]
fn a_change_is_not_told_before_the_value_that_it_ends() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().start();
    let (mut conn, mut other) = (sluice.conn(), sluice.conn());
    let (slow, fast) = (cluster.key_of(0, "k"), cluster.key_of(1, "k"));
    three(&mut conn);
    conn.raw("CLIENT TRACKING ON");
    for (request, reply) in [("GET", "$3\r\nold\r\n"), ("EXISTS", ":1\r\n")] {
        other.raw(&format!("SET {fast} old"));
        cluster.shards[0].primary.cmd(&["CLIENT", "PAUSE", "1500"]);
        conn.send(format!("GET {slow}\r\n{request} {fast}\r\nMGET {fast} {slow}\r\n").as_bytes());
        let tracked = || {
            let told = cluster.shards[1].primary.info("tracking_total_keys");
            (told.as_deref() == Some("1")).then_some(())
        };
        eventually("it was read", PATIENCE, tracked);
        other.raw(&format!("SET {fast} new"));
        assert_eq!(conn.read_raw(), "_\r\n");
        assert_eq!(conn.read_raw(), reply);
        let (many, push) = (conn.read_raw(), conn.read_raw());
        assert_eq!(push, invalidates_key(&fast));
        assert!(many.starts_with("*2\r\n$3\r\n"), "{many}");
    }
}

#[test]
fn what_watches_selects_or_streams_is_tracked_too() {
    let cluster = Cluster::start(3, 0);
    let sluice = cluster.sluice().start();
    let (mut conn, mut other) = (sluice.conn(), sluice.conn());
    let keys = keys(&cluster);
    three(&mut conn);
    // What is watched from before is watched on.
    conn.raw(&format!("WATCH {}", keys[0]));
    assert_eq!(conn.raw("CLIENT TRACKING ON"), "+OK\r\n");
    conn.raw("MULTI");
    conn.raw(&format!("GET {}", keys[1]));
    other.raw(&format!("SET {} 1", keys[0]));
    assert_eq!(conn.raw("EXEC"), "_\r\n");
    for key in [&keys[0], &keys[4], &keys[8]] {
        conn.raw(&format!("WATCH {key}"));
        conn.raw("MULTI");
        conn.raw(&format!("GET {key}"));
        assert!(conn.raw("EXEC").starts_with("*1\r\n"));
        other.raw(&format!("SET {key} 1"));
        assert_eq!(conn.read_raw(), invalidates_key(key));
    }
    // A transaction that changes the database changes it on all shards.
    conn.raw("MULTI");
    conn.raw("SELECT 3");
    conn.raw(&format!("GET {}", keys[0]));
    assert_eq!(conn.raw("EXEC"), "*2\r\n+OK\r\n_\r\n");
    other.raw("SELECT 3");
    for key in &keys {
        assert_eq!(conn.raw(&format!("GET {key}")), "_\r\n");
        other.raw(&format!("SET {key} 3"));
        assert_eq!(conn.read_raw(), invalidates_key(key));
    }
    let big = "x".repeat(3 << 20);
    assert_eq!(conn.cmd(&["SET", &keys[5], &big]), "OK");
    assert_eq!(conn.cmd(&["STRLEN", &keys[5]]).int(), 3 << 20);
    other.raw(&format!("SET {} 3", keys[5]));
    assert_eq!(conn.read_raw(), invalidates_key(&keys[5]));
    assert!(conn.raw("MEMORY STATS").starts_with("%"));
    conn.raw("RESET");
    assert_eq!(conn.raw("CLIENT GETREDIR"), ":-1\r\n");
}

/// Nobody would tell it of the other cluster's keys.
#[test]
fn where_keys_go_to_several_clusters_there_is_no_tracking() {
    let (cluster, two) = (Cluster::start(1, 0), Cluster::start(1, 0));
    let other =
        format!("  two:\n    shards: [{{ primary: {} }}]\n", two.shards[0].primary.address());
    let routes = ["{ match: { key_prefix: 'two:' }, cluster: two }", "{ cluster: cache }"];
    let sluice = cluster.sluice().routes(&routes, &other, 1).start();
    let mut conn = sluice.conn();
    three(&mut conn);
    let refused = "-ERR sluice: CLIENT TRACKING where routes lead to other clusters";
    assert!(conn.raw("CLIENT TRACKING ON").starts_with(refused));
    assert_eq!(conn.raw("CLIENT TRACKING OFF"), "+OK\r\n");
    assert_eq!(conn.raw("CLIENT GETREDIR"), ":-1\r\n");
}

/// It need not speak to each shard all the time.
#[test]
fn a_silent_tracking_client_stays() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().cluster("dedicated: { max_lease_idle: 300ms }").start();
    let (mut conn, mut other) = (sluice.conn(), sluice.conn());
    three(&mut conn);
    conn.raw("CLIENT TRACKING ON");
    let keys = [cluster.key_of(0, "k"), cluster.key_of(1, "k")];
    keys.iter().for_each(|key| _ = conn.raw(&format!("GET {key}")));
    std::thread::sleep(std::time::Duration::from_millis(900));
    keys.iter().for_each(|key| _ = other.raw(&format!("SET {key} 1")));
    assert_eq!(pushes(&mut conn, 2), of_keys(&keys));
}

/// It was refused, and clients in RESP2 had no other way to be told.
#[test]
fn tracking_redirects_to_a_client_of_any_worker() {
    for shards in [1, 3] {
        redirects(shards);
    }
}

fn redirects(shards: usize) {
    let cluster = Cluster::start(shards, 0);
    let sluice = cluster.sluice().workers(2).start();
    let mut other = sluice.conn();
    let keys: Vec<_> = (0..shards).map(|shard| cluster.key_of(shard, "k")).collect();
    for round in 0..6 {
        let (mut ear, mut conn) = (sluice.conn(), sluice.conn());
        let id = ear.raw("CLIENT ID").trim_start_matches(':').trim_end().to_owned();
        let (front, none) = if round % 2 == 0 {
            ear.raw("SUBSCRIBE __redis__:invalidate");
            ("*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n", "$-1\r\n")
        } else {
            three(&mut ear);
            (">2\r\n$10\r\ninvalidate\r\n", "$-1\r\n")
        };
        assert_eq!(conn.raw(&format!("CLIENT TRACKING ON REDIRECT {id}")), "+OK\r\n");
        assert_eq!(conn.raw("CLIENT GETREDIR"), format!(":{id}\r\n"));
        let told = conn.raw("CLIENT TRACKINGINFO");
        assert!(told.contains(&format!("$8\r\nredirect\r\n:{id}\r\n")), "{told}");
        for key in &keys {
            conn.raw(&format!("GET {key}"));
            other.raw(&format!("SET {key} 1"));
            let told = format!("{front}*1\r\n${}\r\n{key}\r\n", key.len());
            assert_eq!(ear.read_raw(), told);
            conn.raw(&format!("GET {key}"));
        }
        other.raw("FLUSHALL");
        // Who keeps the values is another client than who hears: each shard's word counts.
        keys.iter().for_each(|_| assert_eq!(ear.read_raw(), format!("{front}{none}")));
        conn.raw(&format!("GET {}", keys[0]));
    }
    let nobody = other.raw("CLIENT TRACKING ON REDIRECT 999999");
    assert_eq!(nobody, "-ERR The client ID you want redirect to does not exist\r\n");
}

/// EXEC that was refused answered at once, and what was asked in the same breath went over the
/// connection that it was done with.
#[test]
fn tracking_begins_on_a_connection_that_the_client_keeps() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().start();
    let (mut conn, mut other) = (sluice.conn(), sluice.conn());
    three(&mut conn);
    assert_eq!(conn.raw("WATCH w"), "+OK\r\n");
    assert_eq!(conn.raw("MULTI"), "+OK\r\n");
    assert!(conn.raw("GET").starts_with("-ERR wrong number"));
    conn.send(b"EXEC\r\nCLIENT TRACKING ON\r\n");
    assert!(conn.read_raw().starts_with("-EXECABORT"));
    assert_eq!(conn.read_raw(), "+OK\r\n");
    assert_eq!(conn.raw("PING"), "+PONG\r\n");
    assert_eq!(conn.raw("GET k"), "_\r\n");
    assert_eq!(other.raw("SET k 1"), "+OK\r\n");
    assert_eq!(conn.read_raw(), invalidates_key("k"));
}

/// It was kept as if it had been granted: what was asked next was held against it.
#[test]
fn a_refused_tracking_is_not_remembered_as_done() {
    for shards in [1, 3] {
        let cluster = Cluster::start(shards, 0);
        let sluice = cluster.sluice().start();
        let (mut conn, mut other) = (sluice.conn(), sluice.conn());
        three(&mut conn);
        let refused = conn.raw("CLIENT TRACKING ON BCAST PREFIX a PREFIX ab");
        assert!(refused.starts_with("-ERR Prefix 'a"), "{refused}");
        assert_eq!(conn.raw("CLIENT GETREDIR"), ":-1\r\n");
        assert!(conn.raw("CLIENT TRACKINGINFO").contains("$3\r\noff\r\n"));
        // In one breath, and in the other mode.
        conn.send(
            b"CLIENT TRACKING ON BCAST PREFIX a PREFIX ab\r\nCLIENT TRACKING ON\r\nGET k\r\n",
        );
        assert_eq!(conn.read_raw(), refused);
        assert_eq!([conn.read_raw(), conn.read_raw()], ["+OK\r\n", "_\r\n"]);
        assert_eq!(other.raw("SET k 1"), "+OK\r\n");
        assert_eq!(conn.read_raw(), invalidates_key("k"));
        // What was in force before stays so.
        assert_eq!(conn.raw("CLIENT TRACKING OFF"), "+OK\r\n");
        assert_eq!(conn.raw("CLIENT TRACKING ON BCAST PREFIX a"), "+OK\r\n");
        assert!(conn.raw("CLIENT TRACKING ON BCAST PREFIX ab").starts_with("-ERR Prefix 'ab'"));
        assert_eq!(conn.raw("CLIENT GETREDIR"), ":0\r\n");
        assert_eq!(other.raw("SET a1 1"), "+OK\r\n");
        assert_eq!(conn.read_raw(), invalidates_key("a1"));
    }
}

/// The server was sent our number of a client, which is another's there, or nobody's.
#[test]
fn tracking_off_is_told_no_other_client() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().workers(2).start();
    let mut ears: Vec<_> = (0..6).map(|_| sluice.conn()).collect();
    let ids = ears.iter_mut().map(|ear| ear.raw("CLIENT ID"));
    let ids: Vec<_> = ids.map(|id| id.trim_matches([':', '\r', '\n']).to_owned()).collect();
    let (mut conn, mut other) = (sluice.conn(), sluice.conn());
    three(&mut conn);
    for id in &ids {
        assert_eq!(conn.raw(&format!("CLIENT TRACKING OFF REDIRECT {id}")), "+OK\r\n");
        assert_eq!(conn.raw("CLIENT TRACKING ON"), "+OK\r\n");
        let nobody = conn.raw("CLIENT TRACKING OFF REDIRECT 999999");
        assert_eq!(nobody, "-ERR The client ID you want redirect to does not exist\r\n");
        conn.raw("GET k");
        assert_eq!(other.raw("SET k 1"), "+OK\r\n");
        assert_eq!(conn.read_raw(), invalidates_key("k"));
        assert_eq!(conn.raw(&format!("CLIENT TRACKING OFF REDIRECT {id}")), "+OK\r\n");
        conn.raw("GET k");
        assert_eq!(other.raw("SET k 1"), "+OK\r\n");
        assert_eq!(conn.raw("CLIENT GETREDIR"), ":-1\r\n");
    }
    let leased = || sluice.metrics().sum("sluice_backend_connections_leased", &[]);
    eventually("nobody has a connection", PATIENCE, || (leased() == 0.0).then_some(()));
}
