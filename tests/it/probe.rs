//! The Redis probe against real servers, and against one that answers nonsense.

use crate::harness::{Redis, eventually, port::Port};
use sluice::{
    net::addr::Address,
    policy::gate::Role,
    proto::redis::probe::{Code, Phase, ProbeError, Prober, Report},
    topology::Credentials,
};
use std::{
    io::{Read, Write},
    net::TcpListener,
    time::{Duration, Instant},
};

const TIMEOUT: Duration = Duration::from_secs(2);

fn credentials(user: Option<&str>, password: Option<&str>) -> Credentials {
    Credentials { user: user.map(str::to_owned), password: password.map(str::to_owned) }
}

fn address(port: u16) -> Address {
    format!("127.0.0.1:{port}").parse().unwrap()
}

fn block<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(future)
}

fn probe_once(port: u16, credentials: Credentials) -> Result<Report, ProbeError> {
    block(Prober::new(address(port), credentials).probe(TIMEOUT))
}

#[test]
fn a_primary_and_its_replica_say_their_roles_and_offsets() {
    let mut primary = Redis::start();
    let replica = Redis::replica_of(&primary, &[]);
    block(async {
        let mut first = Prober::new(address(primary.port()), Credentials::default());
        let mut second = Prober::new(address(replica.port()), Credentials::default());
        let end = Instant::now() + Duration::from_secs(20);
        let (one, two) = loop {
            primary.cmd(&["SET", "k", "v"]);
            let two = second.probe(TIMEOUT).await.unwrap();
            let one = first.probe(TIMEOUT).await.unwrap();
            if two.role == Role::Replica && two.offset > Some(0) {
                break (one, two);
            }
            assert!(Instant::now() < end, "no link: {two}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(one.role, Role::Primary);
        assert!(one.offset >= two.offset, "{one}; {two}");
        assert_eq!(one.replication_id, two.replication_id);
        assert!(one.redis_version.unwrap().contains('.'));
        primary.kill();
        let end = Instant::now() + Duration::from_secs(20);
        while second.probe(TIMEOUT).await.unwrap().role != Role::ReplicaLinkDown {
            assert!(Instant::now() < end, "the broken link is not seen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn one_connection_is_kept_and_opened_anew_when_the_server_closed_it() {
    let server = Redis::start();
    block(async {
        let mut prober = Prober::new(address(server.port()), Credentials::default());
        for _ in 0..5 {
            prober.probe(TIMEOUT).await.unwrap();
        }
        let connections =
            || server.info("total_connections_received").unwrap().parse::<u32>().unwrap();
        let before = connections();
        prober.probe(TIMEOUT).await.unwrap();
        let after = connections();
        assert_eq!(after - before, 1, "only the question's own connection is new");
        server.cmd(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        let version = prober.probe(TIMEOUT).await.unwrap().redis_version;
        assert!(version.is_some(), "the fresh connection decides");
    });
}

#[test]
fn passwords_are_sent_and_refusals_say_what_to_do() {
    let server = Redis::with_args(&["--requirepass", "s3cret"]);
    let good = probe_once(server.port(), credentials(None, Some("s3cret"))).unwrap();
    assert_eq!(good.role, Role::Primary);
    let named = probe_once(server.port(), credentials(Some("default"), Some("s3cret"))).unwrap();
    assert_eq!(named.role, Role::Primary);
    for (given, phase, words) in [
        (credentials(None, None), Phase::Ping, "set upstream.password (NOAUTH"),
        (credentials(None, Some("canary")), Phase::Auth, "password is wrong (WRONGPASS"),
        (credentials(Some("ann"), Some("canary")), Phase::Auth, "password is wrong (WRONGPASS"),
    ] {
        let error = probe_once(server.port(), given).unwrap_err();
        assert_eq!((error.phase, error.code), (phase, Code::Auth));
        let text = error.to_string();
        let who = format!("backend 127.0.0.1:{}: ", server.port());
        assert!(text.starts_with(&who) && text.contains(words), "{text}");
        assert!(!text.contains("canary"), "{text}");
    }
    let open = Redis::start();
    let error = probe_once(open.port(), credentials(None, Some("x"))).unwrap_err();
    assert!(error.to_string().contains("remove upstream.password"), "{error}");
}

#[test]
fn a_busy_server_is_alive_and_keeps_its_role() {
    let server = Redis::with_args(&["--busy-reply-threshold", "50"]);
    let port = server.port().to_string();
    block(async {
        let mut prober = Prober::new(address(server.port()), Credentials::default());
        prober.probe(TIMEOUT).await.unwrap();
        let mut script = std::process::Command::new("redis-cli")
            .args(["-p", &port, "EVAL", "while true do end", "0"])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        eventually("a busy server", TIMEOUT * 5, || {
            let reply = server.cmd(&["PING"]);
            (reply.is_error() && reply.error().starts_with("BUSY")).then_some(())
        });
        assert_eq!(prober.probe(TIMEOUT).await.unwrap().role, Role::Primary);
        assert!(probe_once_fresh(&server).await.to_string().contains("BUSY"));
        server.cmd(&["SCRIPT", "KILL"]);
        script.wait().unwrap();
        assert_eq!(prober.probe(TIMEOUT).await.unwrap().role, Role::Primary);
    });
}

async fn probe_once_fresh(server: &Redis) -> ProbeError {
    Prober::new(address(server.port()), Credentials::default()).probe(TIMEOUT).await.unwrap_err()
}

#[test]
fn a_stopped_server_costs_one_timeout_and_no_more() {
    let server = Redis::start();
    server.stop();
    let start = Instant::now();
    let error = block(async {
        let mut prober = Prober::new(address(server.port()), Credentials::default());
        prober.probe(Duration::from_millis(250)).await.unwrap_err()
    });
    server.cont();
    assert_eq!((error.code, error.phase), (Code::Timeout, Phase::Ping));
    assert!(start.elapsed() < Duration::from_millis(600), "{:?}", start.elapsed());
    assert!(error.to_string().ends_with("ping: no answer within 250ms"), "{error}");
}

#[test]
fn nobody_there_is_told_as_such() {
    let error = probe_once(Port::free().number, Credentials::default()).unwrap_err();
    assert_eq!((error.code, error.phase), (Code::Connect, Phase::Connect));
    assert!(error.to_string().contains("refused"), "{error}");
}

/// Answers the first connection with `answer` and keeps it open, or closes it.
fn fake(answer: &'static [u8], close: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let _ = socket.read(&mut [0; 1024]);
        let _ = socket.write_all(answer);
        // Until the prober goes away.
        while !close && socket.read(&mut [0; 1024]).is_ok_and(|n| n > 0) {}
    });
    port
}

#[test]
fn odd_servers_are_errors_and_never_panics() {
    let huge: &'static [u8] = Box::leak(vec![b'+'; 1_000_000].into_boxed_slice());
    let nested: &'static [u8] = Box::leak(b"*1\r\n".repeat(100_000).into_boxed_slice());
    let table: [(&'static [u8], bool, Code, &str); 11] = [
        (b"", false, Code::Timeout, "no answer within"),
        (b"", true, Code::Closed, "closed the connection"),
        (b"+PO", false, Code::Timeout, "no answer within"),
        (b"+PONG\r\n$40\r\nrole:ma", true, Code::Closed, "closed the connection"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", true, Code::Protocol, "cannot begin with 'H'"),
        (b"+OK\r\n+OK\r\n+OK\r\n", false, Code::Protocol, "something else"),
        (b"+PONG\r\n$600000000\r\n", false, Code::Protocol, "600000000"),
        (b"+PONG\r\n$13\r\nrole:sentinel\r\n", false, Code::Protocol, "sentinel"),
        (b"-ERR unknown command 'PING'\r\n", false, Code::Refused, "unknown command"),
        (huge, false, Code::Protocol, "more than 65536"),
        (nested, false, Code::Protocol, "cannot begin with '*'"),
    ];
    for (answer, close, code, words) in table {
        let port = fake(answer, close);
        let error = block(async {
            let mut prober = Prober::new(address(port), Credentials::default());
            prober.probe(Duration::from_millis(300)).await.unwrap_err()
        });
        assert_eq!(error.code, code, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    let surplus =
        fake(b"+PONG\r\n$11\r\nrole:master\r\n$19\r\nredis_version:7.0.1\r\n+PONG\r\n", false);
    let error = probe_once(surplus, Credentials::default()).unwrap_err();
    assert!(error.to_string().contains("more than was asked"), "{error}");
}

#[test]
fn a_server_that_repeats_the_password_does_not_get_it_into_the_log() {
    let port = fake(b"-ERR unknown command 'AUTH', with args beginning with: 'canary' \r\n", false);
    let error = probe_once(port, credentials(None, Some("canary"))).unwrap_err();
    assert!(error.to_string().ends_with("with args beginning with: '***' "), "{error}");
}

#[test]
fn after_an_error_the_next_probe_begins_anew() {
    let mut server = Redis::start();
    block(async {
        let mut prober = Prober::new(address(server.port()), Credentials::default());
        prober.probe(TIMEOUT).await.unwrap();
        server.kill();
        let mut failed = None;
        while failed.is_none() {
            failed = prober.probe(TIMEOUT).await.err();
        }
        server.restart();
        assert_eq!(prober.probe(TIMEOUT).await.unwrap().role, Role::Primary);
    });
}
