//! CLIENT: who is there, who goes, who waits, and who wants no replies, over all workers.

use crate::harness::{Cluster, Conn, PATIENCE, eventually};
use std::time::{Duration, Instant};

fn field(line: &str, name: &str) -> String {
    let mut words = line.trim_end().split(' ');
    let value = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {name} in {line}")).to_owned()
}

fn list(conn: &mut Conn, words: &str) -> Vec<String> {
    let words: Vec<&str> = ["CLIENT", "LIST"].into_iter().chain(words.split_whitespace()).collect();
    conn.cmd(&words).text().lines().map(str::to_owned).collect()
}

#[test]
fn clients_of_all_workers_are_listed() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().workers(2).start();
    let mut conns: Vec<Conn> = (0..6).map(|_| sluice.conn()).collect();
    let ids: Vec<String> =
        conns.iter_mut().map(|conn| conn.cmd(&["CLIENT", "ID"]).int().to_string()).collect();
    conns[1].raw("CLIENT SETNAME one");
    conns[1].raw("CLIENT SETINFO LIB-NAME tests");
    conns[1].raw("CLIENT SETINFO LIB-VER 1.2");
    conns[1].raw("HELLO 3");
    conns[1].raw("SELECT 7");
    conns[1].raw("CLIENT NO-EVICT ON");
    let lines = list(&mut conns[0], "");
    let mut listed: Vec<_> = lines.iter().map(|line| field(line, "id")).collect();
    let mut sorted = ids.clone();
    sorted.sort();
    assert_eq!(listed, sorted, "by id");
    let one = lines.iter().find(|line| field(line, "id") == ids[1]).unwrap();
    for (name, value) in [
        ("name", "one"),
        ("db", "7"),
        ("resp", "3"),
        ("flags", "e"),
        ("cmd", "client|no-evict"),
        ("user", "default"),
        ("redir", "-1"),
        ("sub", "0"),
        ("multi", "-1"),
        ("lib-name", "tests"),
        ("lib-ver", "1.2"),
        ("laddr", &format!("127.0.0.1:{}", sluice.port())),
    ] {
        assert_eq!(field(one, name), value, "{name} in {one}");
    }
    assert!(field(one, "addr").starts_with("127.0.0.1:"));
    // The same fields in the same order as the server's, and then those of newer ones.
    let names = |line: &str| -> Vec<String> {
        line.split_whitespace().map(|word| word.split('=').next().unwrap().to_owned()).collect()
    };
    let server = cluster.shards[0].primary.cmd(&["CLIENT", "INFO"]).text();
    assert!(names(one).starts_with(&names(&server)), "{one}\n{server}");
    let info = conns[2].cmd(&["CLIENT", "INFO"]).text();
    assert_eq!((field(&info, "id"), field(&info, "cmd")), (ids[2].clone(), "client|info".into()));

    let chosen = format!("ID {} {} 999999 {}", ids[4], ids[3], ids[4]);
    listed = list(&mut conns[5], &chosen).iter().map(|line| field(line, "id")).collect();
    assert_eq!(listed, [&*ids[4], &ids[3], &ids[4]]);
    assert_eq!(list(&mut conns[5], "TYPE normal").len(), 6);
    assert_eq!(list(&mut conns[5], "TYPE replica").len(), 0);
    conns.truncate(3);
    eventually("those that left are not listed", PATIENCE, || {
        (list(&mut conns[0], "").len() == 3).then_some(())
    });
}

/// Who was in MULTI looked like anybody else, and a request that had come in part like its buffer.
#[test]
fn what_waits_of_a_client_is_listed() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().start();
    let (mut asks, mut queues, mut stops) = (sluice.conn(), sluice.conn(), sluice.conn());
    for name in ["one", "two"] {
        let conn = if name == "one" { &mut queues } else { &mut stops };
        assert_eq!(conn.cmd(&["CLIENT", "SETNAME", name]), "OK");
    }
    for words in [&["MULTI"][..], &["SET", "k", "1"], &["GET", "k"]] {
        queues.cmd(words);
    }
    stops.send(b"*2\r\n$4\r\nECHO\r\n$5\r\nhe");
    let told = |conn: &mut Conn, name: &str| {
        let lines = list(conn, "");
        let line = lines.iter().find(|line| field(line, "name") == name).unwrap();
        ["flags", "multi", "qbuf"].map(|wanted| field(line, wanted))
    };
    assert_eq!(told(&mut asks, "one"), ["x", "2", "0"]);
    eventually("it has come", PATIENCE, || {
        (told(&mut asks, "two") == ["N", "-1", "20"]).then_some(())
    });
    assert_eq!(told(&mut asks, ""), ["N", "-1", "26"], "its own request");
    queues.cmd(&["EXEC"]);
    assert_eq!(told(&mut asks, "one"), ["N", "-1", "0"]);
}

#[test]
fn clients_are_killed_wherever_they_are() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().workers(2).start();
    let mut admin = sluice.conn();
    let victim = || {
        let mut conn = sluice.conn();
        let line = conn.cmd(&["CLIENT", "INFO"]).text();
        (conn, field(&line, "id"), field(&line, "addr"))
    };
    for _ in 0..4 {
        let (mut conn, id, _) = victim();
        assert_eq!(admin.raw(&format!("CLIENT KILL ID {id}")), ":1\r\n");
        assert_eq!(conn.read_to_close(), b"");
        let (mut conn, id, addr) = victim();
        assert_eq!(admin.raw(&format!("CLIENT KILL {addr}")), "+OK\r\n");
        assert_eq!(conn.read_to_close(), b"");
        assert_eq!(admin.raw(&format!("CLIENT KILL {addr}")), "-ERR No such client\r\n");
        assert_eq!(admin.raw(&format!("CLIENT KILL ID {id}")), ":0\r\n");
        let (mut conn, _, addr) = victim();
        let laddr = format!("127.0.0.1:{}", sluice.port());
        let both = format!("CLIENT KILL TYPE normal ADDR {addr} LADDR {laddr} USER default");
        assert_eq!(admin.raw(&both), ":1\r\n");
        assert_eq!(conn.read_to_close(), b"");
    }
    let mut others: Vec<_> = (0..4).map(|_| victim().0).collect();
    assert_eq!(admin.raw("CLIENT KILL TYPE normal MAXAGE 1000"), ":0\r\n");
    assert_eq!(admin.raw("CLIENT KILL TYPE normal"), ":4\r\n");
    assert!(others.iter_mut().all(|conn| conn.read_to_close().is_empty()));
    let (mut last, ..) = victim();
    admin.send(b"CLIENT KILL TYPE normal SKIPME no\r\nPING\r\n");
    assert_eq!(admin.read_to_close(), b":2\r\n");
    assert_eq!(last.read_to_close(), b"");
    let line = sluice.conn().cmd(&["CLIENT", "INFO"]).text();
    let mut own = sluice.conn();
    let addr = field(&own.cmd(&["CLIENT", "INFO"]).text(), "addr");
    assert_ne!(addr, field(&line, "addr"));
    own.say(&format!("CLIENT KILL {addr}"));
    assert_eq!(own.read_to_close(), b"+OK\r\n");
}

#[test]
fn a_pause_holds_writes_or_everything_of_everybody() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().workers(2).start();
    let mut conns: Vec<Conn> = (0..4).map(|_| sluice.conn()).collect();
    let mut admin = sluice.conn();
    assert_eq!(admin.raw("SET k old"), "+OK\r\n");
    assert_eq!(admin.raw("CLIENT PAUSE 100000 WRITE"), "+OK\r\n");
    for conn in &mut conns {
        assert_eq!(conn.raw("GET k"), "$3\r\nold\r\n");
        // What comes behind a write that waits, waits too.
        conn.send(b"SET k new\r\nGET k\r\nPUBLISH c m\r\n");
    }
    let mut reader = sluice.conn();
    for _ in 0..20 {
        assert_eq!(reader.raw("GET k"), "$3\r\nold\r\n");
    }
    let mut transaction = sluice.conn();
    let words = ["MULTI", "GET k", "EXEC", "MULTI", "SET k new"];
    let said = words.map(|words| transaction.raw(words)).concat();
    assert_eq!(said, "+OK\r\n+QUEUED\r\n*1\r\n$3\r\nold\r\n+OK\r\n+QUEUED\r\n");
    transaction.say("EXEC");
    assert_eq!(reader.raw("GET k"), "$3\r\nold\r\n");
    // They are the blocked clients.
    let mut blocked = |count: u32| {
        let field = format!("blocked_clients:{count}\r\n");
        let told = || reader.raw("INFO clients").contains(&field).then_some(());
        eventually(&field, PATIENCE, told);
    };
    blocked(5);
    let lines = list(&mut admin, "");
    assert_eq!(lines.iter().filter(|line| field(line, "flags").contains('b')).count(), 5);
    assert_eq!(admin.raw("CLIENT UNPAUSE"), "+OK\r\n");
    blocked(0);
    assert_eq!(transaction.read_raw(), "*1\r\n+OK\r\n");
    for conn in &mut conns {
        assert_eq!([conn.read_raw(), conn.read_raw()], ["+OK\r\n", "$3\r\nnew\r\n"]);
        conn.read_raw();
    }
    // By its time, and reads as well.
    let begun = Instant::now();
    assert_eq!(admin.raw("CLIENT PAUSE 300"), "+OK\r\n");
    for conn in &mut conns {
        conn.say("GET k");
    }
    for conn in &mut conns {
        assert_eq!(conn.read_raw(), "$3\r\nnew\r\n");
        assert!(begun.elapsed() >= Duration::from_millis(300));
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(admin.raw("SET k x"), "+OK\r\n");
}

/// A script that says that it writes nothing is no write, wherever that is said.
#[test]
fn a_pause_of_writes_holds_no_script_that_only_reads() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().workers(2).start();
    let (mut admin, mut conn, mut held) = (sluice.conn(), sluice.conn(), sluice.conn());
    let reads = "#!lua flags=no-writes\nreturn redis.call('get', KEYS[1])";
    let sha = conn.cmd(&["SCRIPT", "LOAD", reads]).text();
    let writes = held.cmd(&["SCRIPT", "LOAD", "#!lua\nreturn 1"]).text();
    // In a transaction it begins with EXEC.
    for words in ["MULTI", "SET k old", "CLIENT PAUSE 100000 WRITE", "SET k new"] {
        admin.raw(words);
    }
    assert_eq!(conn.raw("SET k mine"), "+OK\r\n");
    assert_eq!(admin.raw("EXEC"), "*3\r\n+OK\r\n+OK\r\n+OK\r\n");
    for words in [["EVAL", reads], ["EVALSHA", &sha]] {
        assert_eq!(conn.cmd(&[words[0], words[1], "1", "k"]).text(), "new");
        assert_eq!(conn.cmd(&["MULTI"]), "OK");
        assert_eq!(conn.cmd(&[words[0], words[1], "1", "k"]), "QUEUED");
        assert_eq!(conn.cmd(&["EXEC"]).items()[0].text(), "new");
    }
    held.say(&format!("EVALSHA {writes} 0"));
    let held_now = || admin.raw("INFO clients").contains("blocked_clients:1\r\n").then_some(());
    eventually("a script that may write waits", PATIENCE, held_now);
    assert_eq!(conn.raw("CLIENT UNPAUSE"), "+OK\r\n");
    assert_eq!(held.read_raw(), ":1\r\n");
}

/// A function's flags are known to its server alone, which is asked.
#[test]
fn a_pause_of_writes_holds_no_function_that_only_reads() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().workers(2).start();
    let (mut admin, mut held) = (sluice.conn(), sluice.conn());
    let library = "#!lua name=l\n\
        redis.register_function{function_name='Reads', callback=function(keys) \
        return redis.call('get', keys[1]) end, flags={'no-writes'}}\n\
        redis.register_function('writes', function(keys) return redis.call('incr', keys[1]) end)";
    assert_eq!(admin.cmd(&["FUNCTION", "LOAD", library]), "l");
    assert_eq!(admin.raw("SET k 1"), "+OK\r\n");
    // Queued before there was a pause.
    let mut early = sluice.conn();
    for words in ["MULTI", "FCALL reads 1 k"] {
        early.raw(words);
    }
    assert_eq!(admin.raw("CLIENT PAUSE 100000 WRITE"), "+OK\r\n");
    held.say("FCALL writes 1 k");
    for _ in 0..3 {
        let mut conn = sluice.conn();
        assert_eq!(conn.raw("FCALL reads 1 k"), "$1\r\n1\r\n");
        assert_eq!(conn.raw("FCALL READS 1 k"), "$1\r\n1\r\n");
        for words in ["MULTI", "FCALL reads 1 k", "FCALL Reads 1 k"] {
            conn.raw(words);
        }
        assert_eq!(conn.raw("EXEC"), "*2\r\n$1\r\n1\r\n$1\r\n1\r\n");
    }
    assert_eq!(early.raw("EXEC"), "*1\r\n$1\r\n1\r\n");
    let mut writer = sluice.conn();
    for words in ["MULTI", "FCALL reads 1 k", "FCALL writes 1 k"] {
        writer.raw(words);
    }
    writer.say("EXEC");
    let held_now = || admin.raw("INFO clients").contains("blocked_clients:2\r\n").then_some(());
    eventually("those that write wait", PATIENCE, held_now);
    assert_eq!(admin.raw("GET k"), "$1\r\n1\r\n");
    // In the next pause it may be another one.
    assert_eq!(admin.raw("CLIENT UNPAUSE"), "+OK\r\n");
    let told = [held.read_raw(), writer.read_raw()].concat();
    assert!(
        told == ":2\r\n*2\r\n$1\r\n2\r\n:3\r\n" || told == ":3\r\n*2\r\n$1\r\n1\r\n:2\r\n",
        "{told:?}"
    );
    let library = library.replace(", flags={'no-writes'}", "");
    assert_eq!(admin.cmd(&["FUNCTION", "LOAD", "REPLACE", &library]), "l");
    assert_eq!(admin.raw("CLIENT PAUSE 100000 WRITE"), "+OK\r\n");
    held.say("FCALL reads 1 k");
    let held_now = || admin.raw("INFO clients").contains("blocked_clients:1\r\n").then_some(());
    eventually("it may write now", PATIENCE, held_now);
    assert_eq!(admin.raw("CLIENT UNPAUSE"), "+OK\r\n");
    assert_eq!(held.read_raw(), "$1\r\n3\r\n");
}

#[test]
fn replies_that_nobody_wants_are_not_sent_and_move_no_other() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().start();
    let (mut conn, mut other) = (sluice.conn(), sluice.conn());
    for round in 0..50 {
        let value = format!("v{round}");
        conn.send(b"CLIENT REPLY OFF\r\n");
        for n in 0..20 {
            conn.say(&format!("SET k{n} {value}"));
            conn.say("MGET k1 k2 k3");
            conn.say("PING");
            conn.say("NOSUCH");
        }
        conn.say("CLIENT REPLY SKIP");
        conn.say("CLIENT REPLY nonsense");
        assert_eq!(conn.raw("CLIENT REPLY ON"), "+OK\r\n");
        assert_eq!(conn.raw("GET k19"), format!("${}\r\n{value}\r\n", value.len()));
        conn.send(
            b"CLIENT REPLY SKIP\r\nGET k1\r\nGET k2\r\nCLIENT REPLY SKIP\r\nPING\r\nECHO e\r\n",
        );
        assert_eq!(conn.read_raw(), format!("${}\r\n{value}\r\n", value.len()));
        assert_eq!(conn.read_raw(), "$1\r\ne\r\n");
        assert_eq!(other.raw("GET none"), "$-1\r\n");
    }
    conn.say("CLIENT REPLY OFF");
    assert_eq!(conn.raw("RESET"), "+RESET\r\n");
}

/// The confirmations were dropped like replies, and who waited for one waited for ever.
#[test]
fn who_wants_no_replies_hears_that_it_is_subscribed() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().start();
    let (mut conn, mut other) = (sluice.conn(), sluice.conn());
    for (hello, kind) in [("HELLO 2", '*'), ("HELLO 3", '>')] {
        conn.raw(hello);
        conn.say("CLIENT REPLY OFF");
        conn.say("PING");
        let heard = |verb: &str, n: u32| {
            format!("{kind}3\r\n${}\r\n{verb}\r\n$2\r\nch\r\n:{n}\r\n", verb.len())
        };
        assert_eq!(conn.raw("SUBSCRIBE ch"), heard("subscribe", 1));
        assert_eq!(other.raw("PUBLISH ch text"), ":1\r\n");
        assert!(conn.read_raw().contains("text"));
        assert_eq!(conn.raw("UNSUBSCRIBE ch"), heard("unsubscribe", 0));
        conn.say("PING");
        assert_eq!(conn.raw("CLIENT REPLY ON"), "+OK\r\n");
    }
}
