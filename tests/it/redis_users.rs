//! Users of a listener, passwords that the servers check, and keys that belong to several clusters.

use crate::harness::{Cluster, Conn, PATIENCE, Redis, Sluice, Value, eventually};

const SECRET: &str = "canary-of-the-app";

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// No password may appear in anything an operator sees.
fn assert_no_canary(sluice: &Sluice) {
    let (code, printed, _) = sluice.cli(&["config", "print", "--defaults"]);
    assert_eq!(code, Some(0), "{printed}");
    let status = sluice.status().to_string();
    for text in [sluice.log(), sluice.metrics().text().to_owned(), status, printed] {
        assert!(!text.contains("canary"), "a password leaked:\n{text}");
    }
}

/// A cluster of that one server, as YAML.
fn yaml(name: &str, server: &Redis) -> String {
    format!(
        "  {name}:\n    shards: [{{ primary: {} }}]\n    check: {{ interval: 200ms, fast_interval: 100ms }}\n",
        server.address()
    )
}

fn log_in(sluice: &Sluice, user: &str, password: &str) -> Conn {
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["AUTH", user, password]), "OK");
    conn
}

const USERS: &str = "redis: { users: [\
    { name: app, password: canary-of-the-app, passwords: [canary-of-before], key_prefixes: ['app:', '{app}'] }, \
    { name: reader, password: canary-of-the-reader, commands: ['@read', 'SET', 'acl|whoami'], deny: [KEYS] }, \
    { name: other, password: canary-of-the-other, cluster: two, allow: ['CONFIG|RESETSTAT'] }] }";

/// With two clusters; the second is reached only by users.
fn with_users(cluster: &Cluster, two: &Redis) -> Sluice {
    let routes = ["{ cluster: cache }"];
    cluster
        .sluice()
        .routes(&routes, &yaml("two", two), 1)
        .listener(USERS)
        .env("APP", SECRET)
        .start()
}

#[test]
fn users_do_what_they_may_and_hear_redis_otherwise() {
    let (cluster, two) = (Cluster::start(2, 0), Redis::start());
    let sluice = with_users(&cluster, &two);
    // The same users at a server of Redis's own: the same words.
    let mut server = two.conn();
    for line in [
        "ACL SETUSER app on >canary-of-the-app ~app:* ~{app}* +@all",
        "ACL SETUSER reader on >canary-of-the-reader ~* +@read +set +acl|whoami -keys",
    ] {
        assert_eq!(server.cmd(&words(line)), "OK", "{line}");
    }
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["GET", "app:1"]).error(), "NOAUTH Authentication required.");
    for line in ["AUTH wrong", "AUTH default canary-of-the-app", "AUTH app canary", "AUTH nobody x"]
    {
        assert!(conn.cmd(&words(line)).error().starts_with("WRONGPASS"), "{line}");
    }
    assert_eq!(conn.cmd(&["AUTH", "app", "canary-of-before"]), "OK");
    for (user, password, lines) in [
        (
            "app",
            SECRET,
            "ACL WHOAMI|SET app:1 v|GET app:1|GET other|MGET app:1 b|MSET app:2 1 app:3 2|DEL app:2 app:3 b|\
             EVAL return(1) 1 other|EVAL return(redis.call('get',KEYS[1])) 1 app:1|SORT app:none|\
             COPY {app}1 {app}2|PING|ECHO x|OBJECT ENCODING b",
        ),
        (
            "reader",
            "canary-of-the-reader",
            "ACL WHOAMI|SET a v|GET a|DEL a|KEYS *|FLUSHALL|CONFIG GET save|XINFO STREAM none|INCR a|\
             MEMORY USAGE a|GETEX a|EVAL return(1) 0|AUTH reader canary|GET a",
        ),
    ] {
        let (mut ours, mut theirs) = (log_in(&sluice, user, password), two.conn());
        assert_eq!(theirs.cmd(&["AUTH", user, password]), "OK");
        for line in lines.split('|') {
            assert_eq!(ours.cmd(&words(line)), theirs.cmd(&words(line)), "{user}: {line}");
        }
    }
    // A transaction is no way around: neither for commands nor for keys.
    let mut app = log_in(&sluice, "app", SECRET);
    let steps = ["MULTI", "SET app:t 1", "GET other", "EXEC"];
    let replies = app.pipeline(&steps.map(words));
    assert!(
        replies[2].error().starts_with("NOPERM") && replies[3].error().starts_with("EXECABORT")
    );
    let replies = app.pipeline(&["MULTI", "SET app:t 1", "ACL WHOAMI", "EXEC"].map(words));
    assert_eq!(replies[3].items()[1], "app");
    let mut reader = log_in(&sluice, "reader", "canary-of-the-reader");
    let replies = reader.pipeline(&["MULTI", "DEL a", "EXEC"].map(words));
    assert!(replies[0].error().starts_with("NOPERM") && replies[1].error().starts_with("NOPERM"));
    let replies = app.pipeline(&["MULTI", "AUTH reader canary-of-the-reader", "EXEC"].map(words));
    assert!(replies[1].is_error() && replies[2].error().starts_with("EXECABORT"));
    assert_no_canary(&sluice);
}

#[test]
fn users_have_clusters_of_their_own_also_in_the_middle_of_a_pipeline() {
    let (cluster, two) = (Cluster::start(1, 0), Redis::start());
    let sluice = with_users(&cluster, &two);
    let mut conn = sluice.conn();
    for _ in 0..50 {
        let replies = conn.pipeline(&[
            words("AUTH app canary-of-the-app"),
            words("SET app:k one"),
            words("AUTH other canary-of-the-other"),
            words("SET app:k two"),
            words("GET app:k"),
            words("HELLO 2 AUTH app canary-of-the-app"),
            words("GET app:k"),
        ]);
        assert_eq!((&replies[4], &replies[6]), (&"two".into_value(), &"one".into_value()));
    }
    assert_eq!(cluster.shards[0].primary.cmd(&["GET", "app:k"]), "one");
    assert_eq!(two.cmd(&["GET", "app:k"]), "two");
    let mut other = log_in(&sluice, "other", "canary-of-the-other");
    assert_eq!(other.cmd(&["CONFIG", "RESETSTAT"]), "OK");
    assert!(log_in(&sluice, "app", SECRET).cmd(&["CONFIG", "RESETSTAT"]).is_error());
}

/// Its connections go with the user, and with them who would tell it of changes.
#[test]
fn a_tracking_client_is_closed_when_it_becomes_another_user() {
    let (cluster, two) = (Cluster::start(2, 0), Redis::start());
    let sluice = with_users(&cluster, &two);
    let mut conn = log_in(&sluice, "app", "canary-of-the-app");
    assert!(conn.raw("HELLO 3").starts_with("%7"));
    assert_eq!(conn.raw("CLIENT TRACKING ON"), "+OK\r\n");
    assert_eq!(conn.raw("AUTH app canary-of-before"), "+OK\r\n");
    assert_eq!(conn.raw("GET app:k"), "_\r\n");
    assert_eq!(conn.raw("AUTH other canary-of-the-other"), "+OK\r\n");
    assert_eq!(conn.read_to_close(), b"");
}

trait IntoValue {
    fn into_value(self) -> Value;
}

impl IntoValue for &str {
    fn into_value(self) -> Value {
        Value::Bulk(self.as_bytes().to_vec())
    }
}

#[test]
fn everybody_may_be_the_default_user_with_rules() {
    let cluster = Cluster::start(1, 0);
    let users = "redis: { users: [{ name: default, commands: ['@read', '@connection'] }, { name: admin, password: p }] }";
    let sluice = cluster.sluice().listener(users).start();
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["GET", "k"]), Value::Nil);
    assert!(conn.cmd(&["SET", "k", "v"]).error().starts_with("NOPERM"));
    assert!(conn.cmd(&["AUTH", "x"]).error().contains("without any password"));
    assert_eq!(conn.cmd(&["AUTH", "admin", "p"]), "OK");
    assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
}

#[test]
fn a_user_may_be_another_one_to_the_servers() {
    let cluster = Cluster::start(1, 0);
    let server = &cluster.shards[0].primary;
    server.cmd(&words("ACL SETUSER limited on >canary-upstream ~l:* +@all"));
    let users = "redis: { users: [{ name: a, password: a, upstream: { user: limited, password: canary-upstream } }, \
        { name: b, password: b }] }";
    let sluice = cluster.sluice().listener(users).start();
    let (mut a, mut b) = (log_in(&sluice, "a", "a"), log_in(&sluice, "b", "b"));
    for _ in 0..3 {
        assert_eq!(a.cmd(&["SET", "l:1", "v"]), "OK");
        assert!(a.cmd(&["SET", "k", "v"]).error().starts_with("NOPERM"));
        assert_eq!(b.cmd(&["SET", "k", "v"]), "OK");
    }
    assert_no_canary(&sluice);
}

#[test]
fn the_servers_say_who_comes_in() {
    let cluster = Cluster::start(2, 1);
    for server in cluster.servers() {
        server.cmd(&words("ACL SETUSER ann on >canary-ann ~* +@all"));
        server.cmd(&words("ACL SETUSER bob on >canary-bob ~b* +@all -del"));
        server.cmd(&words("ACL SETUSER default on >canary-default"));
    }
    let sluice = cluster
        .sluice()
        .listener("redis: { auth: passthrough }")
        .cluster("upstream: { password: canary-default }")
        .cluster("reads: { from: prefer_replica }")
        .start();
    let mut conn = sluice.conn();
    assert!(conn.cmd(&["GET", "k"]).error().starts_with("NOAUTH"));
    for line in ["AUTH wrong", "AUTH ann wrong", "AUTH nobody canary-ann", "HELLO 2 AUTH ann x"] {
        assert!(conn.cmd(&words(line)).error().starts_with("WRONGPASS"), "{line}");
        assert!(conn.cmd(&["GET", "k"]).error().starts_with("NOAUTH"));
    }
    let replies = conn.pipeline(&[
        words("AUTH ann canary-ann"),
        words("SET k 1"),
        words("ACL WHOAMI"),
        words("AUTH bob canary-bob"),
        words("SET k 2"),
        words("SET b1 2"),
        words("DEL b1"),
        words("HELLO 2 AUTH default canary-default SETNAME x"),
        words("ACL WHOAMI"),
        words("CLIENT GETNAME"),
        words("GET k"),
    ]);
    let errors: Vec<bool> = replies.iter().map(Value::is_error).collect();
    let expected = [false, false, false, false, true, false, true, false, false, false, false];
    assert_eq!(errors, expected, "{replies:?}");
    assert_eq!((&replies[2], &replies[8]), (&"ann".into_value(), &"default".into_value()));
    assert!(replies[4].error().starts_with("NOPERM") && replies[6].error().starts_with("NOPERM"));
    eventually("the replica has it", PATIENCE, || (conn.cmd(&["GET", "k"]) == "1").then_some(()));

    // Many at once, each on its own connections, one password wrong.
    std::thread::scope(|scope| {
        for n in 0..8 {
            let sluice = &sluice;
            scope.spawn(move || {
                for _ in 0..5 {
                    let mut conn = sluice.conn();
                    if n == 0 {
                        assert!(conn.cmd(&["AUTH", "ann", "x"]).error().starts_with("WRONGPASS"));
                    } else {
                        assert_eq!(conn.cmd(&["AUTH", "bob", "canary-bob"]), "OK");
                        assert_eq!(conn.cmd(&["SET", "bb", "v"]), "OK");
                        assert!(conn.cmd(&["SET", "cc", "v"]).error().starts_with("NOPERM"));
                    }
                }
            });
        }
    });
    assert_no_canary(&sluice);
}

#[test]
fn keys_go_to_clusters_by_how_they_begin() {
    let (cluster, one, two) = (Cluster::start(2, 0), Redis::start(), Redis::start());
    let routes = [
        "{ match: { key_prefix: 'sess:' }, cluster: one }",
        "{ cluster: cache }",
        "{ match: { key_prefix: 'sess:hot:' }, strip: true, cluster: two }",
    ];
    let clusters = yaml("one", &one) + &yaml("two", &two);
    let sluice = cluster.sluice().routes(&routes, &clusters, 2).start();
    let mut conn = sluice.conn();
    let keys = ["sess:1", "sess:hot:1", "other"];
    for key in keys {
        assert_eq!(conn.cmd(&["SET", key, key]), "OK");
        assert_eq!(conn.cmd(&["GET", key]), key);
    }
    assert_eq!(one.cmd(&["KEYS", "*"]).items(), ["sess:1".into_value()]);
    assert_eq!(two.cmd(&["KEYS", "*"]).items(), ["1".into_value()]);
    assert_eq!(conn.cmd(&["DBSIZE"]), 1, "what has no key is the default's");
    assert_eq!(conn.cmd(&["MGET", "sess:1", "sess:2"]).items().len(), 2);
    assert_eq!(conn.cmd(&["DEL", "sess:hot:1", "sess:hot:2"]), 1);
    assert_eq!(conn.cmd(&words("EVAL return(redis.call('get',KEYS[1])) 1 sess:1")), "sess:1");
    for line in ["MGET sess:1 other", "MGET other sess:1", "RENAME sess:1 sess:hot:1"] {
        let reply = conn.cmd(&words(line));
        assert!(reply.error().starts_with("CROSSSLOT sluice:"), "{line}: {reply:?}");
    }
    let big = "x".repeat(3 << 20);
    let long = conn.pipeline(&[vec!["SET", "sess:hot:big", &big], vec!["STRLEN", "sess:hot:big"]]);
    assert_eq!(long[1], 3 << 20);
    // Watched here, written there: not the connection of the one for the other.
    assert_eq!(conn.cmd(&["WATCH", "sess:1"]), "OK");
    assert_eq!(conn.cmd(&["SET", "other", "2"]), "OK");
    assert_eq!(conn.cmd(&["GET", "other"]), "2");
    assert_eq!(cluster.owner("other").primary.cmd(&["GET", "other"]), "2");
    let mut conn = sluice.conn();
    let replies = conn.pipeline(&[words("MULTI"), words("SET sess:1 x"), words("EXEC")]);
    assert!(
        replies[1].error().starts_with("CROSSSLOT") && replies[2].error().starts_with("EXECABORT")
    );
    let replies = conn.pipeline(&[words("MULTI"), words("SET other 3"), words("EXEC")]);
    assert_eq!(replies[2].items().len(), 1);
    assert_eq!(conn.cmd(&["SET", "other", "2"]), "OK");
    let mut typed = sluice.conn();
    typed.send(b"GET sess:1\r\nGET other\r\n");
    assert_eq!((typed.read(), typed.read()), ("sess:1".into_value(), "2".into_value()));
}
