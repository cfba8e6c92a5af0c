//! The harness's own tests, against a plain redis-server: a fault that does not hurt would make
//! the tests built on it prove nothing.

use super::fault::Way;
use super::*;

#[test]
fn a_server_is_killed_hung_and_comes_back_on_its_port() {
    let mut server = Redis::start();
    let mut conn = server.conn();
    assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    assert_eq!(conn.pipeline(&[vec!["GET", "k"], vec!["INCR", "k"]])[0], "v");
    assert!(conn.cmd(&["INCR", "k"]).error().starts_with("ERR value"));
    assert_eq!(server.calls("incr"), 2);
    server.stop();
    conn.patience(Duration::from_millis(50));
    assert!(conn.try_cmd(&["PING"]).is_err());
    server.cont();
    server.kill();
    assert!(Conn::try_open(&server.address()).is_err());
    server.restart();
    assert_eq!(server.cmd(&["GET", "k"]), Value::Nil);
}

#[test]
fn a_cluster_replicates() {
    let cluster = Cluster::start(2, 2);
    for shard in &cluster.shards {
        assert_eq!(shard.primary.cmd(&["SET", "k", "v"]), "OK");
    }
    cluster.wait_for_replicas();
    assert_eq!(cluster.servers().count(), 6);
    for server in cluster.servers() {
        assert_eq!(server.cmd(&["GET", "k"]), "v");
    }
}

#[test]
fn faults_hurt_as_they_say() {
    let server = Redis::start();
    let proxy = FaultProxy::start(&server.address(), Fault::default());
    let fault = |requests, replies| proxy.set(Fault { requests, replies });
    let mut conn = Conn::open(&proxy.address());
    assert_eq!(conn.cmd(&["SET", "k", "0123456789"]), "OK");

    fault(Way::Slices, Way::Slices);
    assert_eq!(conn.cmd(&["GET", "k"]), "0123456789");

    fault(Way::Clean, Way::Late(Duration::from_millis(80)));
    let start = Instant::now();
    assert_eq!(conn.cmd(&["GET", "k"]), "0123456789");
    assert!(start.elapsed() >= Duration::from_millis(80));

    fault(Way::Clean, Way::Hole);
    conn.patience(Duration::from_millis(50));
    assert!(conn.try_cmd(&["GET", "k"]).is_err());
    conn.patience(PATIENCE);

    fault(Way::Clean, Way::CloseAfter(7));
    conn.send(&request(&["GET", "k"]));
    assert_eq!(conn.read_to_close(), b"$10\r\n01");

    let mut conn = Conn::open(&proxy.address());
    fault(Way::ResetAfter(3), Way::Clean);
    conn.send(&request(&["GET", "k"]));
    assert_eq!(conn.try_read().unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_control_group_kills_what_uses_more() {
    let group = match Cgroup::of_memory(16 << 20) {
        Ok(group) => group,
        Err(why) => return figure(format!("no control group for memory: {why}")),
    };
    let held = |bytes: &str| {
        let script = format!("head -c {bytes} /dev/zero | tail");
        said(cgroup::enter(&group.members()).args(["sh", "-c", &script])).map(drop)
    };
    assert_eq!(held("1M"), Ok(()));
    assert_eq!(group.killed(), 0);
    assert!(held("64M").is_err());
    assert_eq!(group.killed(), 1);
}

#[test]
fn a_fake_server_passes_for_a_primary_and_says_what_it_is_told() {
    let fake = FakeServer::start(|asked: &Request| match asked.words[0].as_str() {
        "GET" => Step::reply(&bulk(format!("{}:{}", asked.words[1], asked.number))),
        "HALF" => vec![Step::Send(b"$5\r\nab".to_vec()), Step::Close],
        _ => vec![],
    });
    let mut conn = Conn::open(&fake.address());
    assert_eq!(conn.cmd(&["PING"]), "PONG");
    assert!(conn.cmd(&["INFO", "replication"]).text().contains("role:master"));
    assert_eq!(conn.cmd(&["GET", "a"]), "a:0");
    assert_eq!(conn.cmd(&["GET", "b"]), "b:1");
    conn.send(&request(&["HALF"]));
    assert_eq!(conn.read_to_close(), b"$5\r\nab");
    assert_eq!(fake.seen().len(), 3);
}
