//! Sticky sessions over HTTP, in front of real nginx: whose cookie is believed, what it says, and
//! where a client goes when its server is out.

use crate::harness::{
    PATIENCE, Setup, Sluice,
    authority::Authority,
    eventually,
    web::{HttpConn, Nginx, Origin, Visitor},
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

const KEY: &str = "a key of the tests, 1 of 2";
const NEW_KEY: &str = "a key of the tests, 2 of 2";
const SIGNED: &str = "sticky: { cookie: { name: SLUICE, keys: [\"a key of the tests, 1 of 2\"] } }";

fn nginxes<const N: usize>() -> [Nginx; N] {
    std::array::from_fn(|i| Nginx::start(&format!("n{i}")))
}

fn front(servers: &[Nginx]) -> Setup {
    let setup = Setup::http(servers.iter().map(Nginx::address));
    setup.cluster("balance: round_robin").cluster("slow_start: 0")
}

/// A visitor whose server is that one.
fn visitor_of(sluice: &Sluice, server: &Nginx) -> Visitor {
    eventually("a session there", PATIENCE, || {
        let mut visitor = Visitor::new(&sluice.address());
        (visitor.visit() == server.name()).then_some(visitor)
    })
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A value as whoever has the key writes it.
fn sign(key: &str, token: &str, issued: u64, seen: u64) -> String {
    let payload = format!("1.{token}.{issued:x}.{seen:x}");
    let mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    let mac = mac.chain_update(&payload).finalize().into_bytes();
    let mac: String = mac.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("{payload}.{mac}")
}

/// The token in a value that was written by Sluice.
fn token(value: &str) -> &str {
    value.split('.').nth(1).unwrap()
}

#[test]
fn each_mode_keeps_a_client_at_its_server_and_shares_newcomers_by_the_strategy() {
    let servers = nginxes::<3>();
    for (mode, keys) in [("plain", ""), ("opaque", ""), ("signed", ", keys: [0123456789abcdef]")] {
        let sticky = format!("sticky: {{ cookie: {{ name: SLUICE, mode: {mode}{keys} }} }}");
        let sluice = front(&servers).cluster(&sticky).start();
        let mut got: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..12 {
            let mut visitor = Visitor::new(&sluice.address());
            let own = visitor.visit();
            (0..10).for_each(|_| assert_eq!(visitor.visit(), own, "{mode}"));
            assert_eq!(visitor.told, 1, "{mode}: it is told once");
            let server = servers.iter().find(|server| server.name() == own).unwrap();
            let value = visitor.value();
            let parts = value.split('.').map(str::len).collect::<Vec<_>>();
            match mode {
                "plain" => assert_eq!(value, server.address()),
                "opaque" => assert_eq!(parts, [1, 16], "{value}"),
                _ => assert_eq!(parts, [1, 16, 8, 8, 32], "{value}"),
            }
            *got.entry(own).or_default() += 1;
        }
        assert_eq!(got.values().copied().collect::<Vec<_>>(), [4, 4, 4], "{mode}: in turn");
    }
}

#[test]
fn a_value_that_is_not_ours_or_is_over_begins_a_new_session() {
    let servers = nginxes::<2>();
    let limits = SIGNED.replace(" } }", ", max_idle: 100s, max_life: 1000s } }");
    let sluice = front(&servers).cluster(&limits).start();
    let [here, there] = servers.each_ref().map(|server| visitor_of(&sluice, server));
    let (good, other, now) = (token(here.value()), token(there.value()), now());
    let swapped = here.value().replace(good, other);
    for (what, value) in [
        ("by hand", servers[0].address()),
        ("empty", String::new()),
        ("cut", here.value()[..here.value().len() - 1].to_owned()),
        ("another backend under the same signature", swapped),
        ("without a signature", here.value().rsplit_once('.').unwrap().0.to_owned()),
        ("of a strange key", sign(NEW_KEY, good, now, now)),
        ("of a strange backend", sign(KEY, "0123456789abcdef", now, now)),
        ("idle for too long", sign(KEY, good, now - 120, now - 120)),
        ("too old", sign(KEY, good, now - 1_010, now)),
        ("of next week", sign(KEY, good, now + 600_000, now + 600_000)),
        ("not ASCII", "\u{e9}\u{20ac}".to_owned()),
        ("long", "1.".repeat(4_000)),
    ] {
        let mut visitor = Visitor::with(&sluice.address(), &value);
        let own = visitor.visit();
        assert_eq!(visitor.told, 1, "{what}: a new one is told");
        assert_ne!(visitor.value(), value, "{what}");
        (0..4).for_each(|_| assert_eq!(visitor.visit(), own, "{what}"));
        assert_eq!(visitor.told, 1, "{what}");
    }
    let metrics = sluice.metrics();
    let moved = metrics.sum("sluice_sticky_total", &[("result", "moved")]);
    assert_eq!(moved, 0.0, "nobody had a session to move");
}

#[test]
fn a_plain_value_names_any_backend_but_no_other_server() {
    let servers = nginxes::<2>();
    let plain = "sticky: { cookie: { name: SLUICE, mode: plain } }";
    let sluice = front(&servers).cluster(plain).start();
    for server in &servers {
        let mut visitor = Visitor::with(&sluice.address(), &server.address());
        (0..4).for_each(|_| assert_eq!(visitor.visit(), server.name()));
        assert_eq!(visitor.told, 0);
    }
    // An admin page behind us is none of the backends.
    let hidden = Nginx::start("hidden");
    let mut visitor = Visitor::with(&sluice.address(), &hidden.address());
    assert_ne!(visitor.visit(), "hidden");
    assert_eq!(visitor.told, 1);
}

#[test]
fn a_session_that_goes_on_is_renewed_before_it_is_over() {
    let servers = nginxes::<2>();
    let limits = SIGNED.replace(" } }", ", max_idle: 100s, max_life: 1000s } }");
    let sluice = front(&servers).cluster(&limits).start();
    let first = visitor_of(&sluice, &servers[0]);
    let (token, now) = (token(first.value()).to_owned(), now());
    // Seen lately: nothing to tell. Seen long ago: told anew, as old as it was.
    for (seen, told) in [(now - 10, 0), (now - 60, 1)] {
        let value = sign(KEY, &token, now - 500, seen);
        let mut visitor = Visitor::with(&sluice.address(), &value);
        (0..4).for_each(|_| assert_eq!(visitor.visit(), servers[0].name()));
        assert_eq!(visitor.told, told, "seen {} s ago", now - seen);
        assert!(visitor.value().starts_with(&format!("1.{token}.{:x}.", now - 500)));
    }
}

#[test]
fn keys_are_replaced_without_moving_anybody_and_processes_with_the_same_keys_agree() {
    let servers = nginxes::<3>();
    let with = |keys: &str| {
        let sticky = format!("sticky: {{ cookie: {{ name: SLUICE, keys: [{keys}] }} }}");
        front(&servers).cluster(&sticky).start()
    };
    let old = with(&format!("\"{KEY}\""));
    let (both, twin) = (with(&format!("\"{NEW_KEY}\", \"{KEY}\"")), with(&format!("\"{KEY}\"")));
    let new = with(&format!("\"{NEW_KEY}\""));
    for server in &servers {
        let value = visitor_of(&old, server).value().to_owned();
        let at = |sluice: &Sluice, value: &str| {
            let mut visitor = Visitor::with(&sluice.address(), value);
            let own = visitor.visit();
            (own == server.name(), visitor.told, visitor.value().to_owned())
        };
        assert_eq!(at(&twin, &value), (true, 0, value.clone()), "a process like it");
        let (same, told, renewed) = at(&both, &value);
        assert_eq!((same, told), (true, 1), "signed with the new key");
        assert_eq!(token(&renewed), token(&value));
        assert_eq!(at(&new, &renewed), (true, 0, renewed.clone()), "without the old key");
        assert_eq!(at(&both, &renewed), (true, 0, renewed));
        assert_eq!(at(&new, &value).1, 1, "what the old key signed is over then");
    }
}

#[test]
fn the_cookie_has_the_attributes_that_were_asked_for() {
    let servers = nginxes::<1>();
    for (asked, expected) in [
        ("", "; Path=/; HttpOnly; SameSite=Lax"),
        ("http_only: false, same_site: strict", "; Path=/; SameSite=Strict"),
        ("secure: true, same_site: none", "; Path=/; HttpOnly; SameSite=None; Secure"),
        ("secure: false", "; Path=/; HttpOnly; SameSite=Lax"),
        (
            "path: /app, domain: example.org, max_life: 1h",
            "; Path=/app; Domain=example.org; Max-Age=3600; HttpOnly; SameSite=Lax",
        ),
    ] {
        let sticky = format!("sticky: {{ cookie: {{ name: ROUTE, mode: opaque, {asked} }} }}");
        let sluice = front(&servers).cluster(&sticky).start();
        let response = HttpConn::open(&sluice.address()).get("/");
        let [set] = response.head.all("set-cookie")[..] else { panic!("{response:?}") };
        let (pair, attributes) = set.split_at(set.find(';').unwrap());
        assert!(pair.starts_with("ROUTE=1."), "{set}");
        assert_eq!(attributes, expected);
    }
}

/// A browser sends a cookie with `Secure` over TLS alone.
#[test]
fn over_tls_the_cookie_is_secure_unless_told_otherwise() {
    let servers = nginxes::<2>();
    let authority = Authority::new();
    let site = authority.issue("site", &["127.0.0.1"]);
    let tls = format!("tls: {{ certificates: [{}] }}", site.yaml());
    for (secure, expected) in [("auto", true), ("false", false), ("true", true)] {
        let sticky = SIGNED.replace("name", &format!("secure: {secure}, name"));
        let sluice = front(&servers).cluster(&sticky).listener(&tls).start();
        for version in ["--http1.1", "--http2"] {
            let jar = sluice.path(version);
            let ask = || {
                let mut curl = Command::new("curl");
                curl.args(["-sS", "-i", version, "--cacert"]).arg(authority.ca());
                curl.arg("-b").arg(&jar).arg("-c").arg(&jar);
                let output = curl.arg(format!("https://{}/", sluice.address())).output().unwrap();
                assert!(output.status.success(), "{output:?}");
                String::from_utf8(output.stdout).unwrap().to_lowercase()
            };
            let first = ask();
            let set = first.lines().find(|line| line.starts_with("set-cookie: ")).unwrap();
            assert_eq!(set.trim_end().ends_with("; secure"), expected, "{secure} {version}: {set}");
            let server = |answer: &str| answer.trim_end().rsplit_once('\n').unwrap().1.to_owned();
            for _ in 0..4 {
                let next = ask();
                assert_eq!(server(&next), server(&first), "{secure} {version}");
                assert!(!next.contains("set-cookie"), "{next}");
            }
        }
    }
}

#[test]
fn the_cookie_is_ours_alone_and_makes_its_reply_private() {
    let says = "add_header X-Cookie \"[$http_cookie]\" always; add_header Cache-Control max-age=60;\
                add_header Set-Cookie app=1;";
    let server = Nginx::with("one", "", says);
    let sluice = Setup::http([server.address()]).cluster(SIGNED).start();
    let value = visitor_of(&sluice, &server).value().to_owned();
    let ours = format!("SLUICE={value}");
    for (sent, seen, told) in [
        (vec!["a=1; b=2".to_owned()], "[a=1; b=2]", true),
        (vec![ours.clone()], "[]", false),
        (vec![format!("a=1; {ours}; b=\"2 3\"")], "[a=1; b=\"2 3\"]", false),
        (vec![format!("{ours};c=3")], "[c=3]", false),
        (vec!["a=1; SLUICE=wrong; b=2".to_owned()], "[a=1; b=2]", true),
        (vec![format!("{ours}; SLUICE=two; XSLUICE=3; sluice=4")], "[XSLUICE=3; sluice=4]", false),
        (vec!["a=1".to_owned(), ours.clone(), "c=3".to_owned()], "[a=1; c=3]", false),
    ] {
        let lines: String = sent.iter().map(|line| format!("Cookie: {line}\r\n")).collect();
        let response = HttpConn::open(&sluice.address()).ask("GET", "/", &lines);
        assert_eq!(response.header("x-cookie"), Some(seen), "{sent:?}");
        let set = response.head.all("set-cookie");
        assert_eq!(set.len(), 1 + usize::from(told), "{sent:?}: {set:?}");
        assert_eq!(set[0], "app=1", "the application's own stays");
        assert!(response.head.says("cache-control", "max-age=60"), "{response:?}");
        assert_eq!(response.head.says("cache-control", "private"), told, "{response:?}");
    }
}

#[test]
fn a_strict_session_gets_an_error_and_no_other_server() {
    let mut servers = nginxes::<2>();
    let strict = SIGNED.replace("sticky: { ", "sticky: { strict: true, ");
    let sluice = front(&servers).cluster(&strict).start();
    let dead = servers[0].address();
    sluice.expect_log(&dead);
    let mut visitor = visitor_of(&sluice, &servers[0]);
    servers[0].kill();
    sluice.wait_for(&dead, false);
    for _ in 0..4 {
        let response = visitor.ask("");
        assert_eq!(response.status, 503);
        assert_eq!(response.header("x-sluice-error"), Some("no_backend"));
        assert_eq!(response.header("retry-after"), Some("1"));
        let text = response.text();
        assert!(text.contains("the session's backend is out") && text.contains(&dead), "{text}");
    }
    assert_eq!(visitor_of(&sluice, &servers[1]).told, 1, "newcomers go on");
    servers[0].restart();
    sluice.wait_for(&dead, true);
    assert_eq!((visitor.visit().as_str(), visitor.told), (servers[0].name(), 1));
}

/// Its header said nothing, and with `client_ip` the strategy had no say.
#[test]
fn a_header_pins_and_requests_without_it_go_by_the_strategy() {
    let servers = nginxes::<3>();
    let setup = || front(&servers).cluster("sticky: { header: X-Session }");
    let (sluice, twin) = (setup().start(), setup().start());
    let at = |sluice: &Sluice, fields: &str| Visitor::new(&sluice.address()).visit_with(fields);
    let mut got = BTreeMap::new();
    for session in 0..30 {
        let field = format!("X-Session: s{session}\r\n");
        let own = at(&sluice, &field);
        (0..3).for_each(|_| assert_eq!(at(&sluice, &field), own));
        assert_eq!(at(&twin, &field), own, "another process agrees");
        *got.entry(own).or_insert(0) += 1;
    }
    assert!(got.len() == 3 && got.values().all(|n| (3..=18).contains(n)), "spread: {got:?}");
    for field in ["", "X-Session:\r\n"] {
        let mut got = BTreeMap::new();
        (0..12).for_each(|_| *got.entry(at(&sluice, field)).or_insert(0) += 1);
        assert_eq!(got.into_values().collect::<Vec<_>>(), [4, 4, 4], "in turn: {field:?}");
    }
}

#[test]
fn the_order_is_cookie_header_client_address_strategy() {
    let servers = nginxes::<3>();
    let all = SIGNED.replace("} }", "}, header: X-Session, client_ip: { v4: 24 } }");
    let trusted = "http: { trusted: [127.0.0.0/8] }";
    let sluice = front(&servers).cluster(&all).listener(trusted).start();
    let at = |fields: &str| Visitor::new(&sluice.address()).visit_with(fields);
    let from = |ip: &str| format!("X-Forwarded-For: {ip}\r\n");
    // An address, and one of the same network; others are elsewhere.
    let homes: BTreeSet<String> = (0..30).map(|n| at(&from(&format!("10.0.{n}.1")))).collect();
    assert_eq!(homes.len(), 3);
    for n in 0..10 {
        let home = at(&from(&format!("10.0.{n}.1")));
        assert_eq!(at(&from(&format!("10.0.{n}.200"))), home);
        // A header before an address.
        let session = format!("X-Session: s{n}\r\n");
        let pinned = at(&session);
        for m in 0..5 {
            assert_eq!(at(&(session.clone() + &from(&format!("10.0.{m}.1")))), pinned);
        }
        // A cookie before both.
        for server in &servers {
            let mut visitor = Visitor::new(&sluice.address());
            while visitor.visit_with(&format!("X-Session: t{}\r\n", visitor.told)) != server.name()
            {
                visitor.cookie = None;
            }
            let told = visitor.told;
            let fields = session.clone() + &from(&format!("10.0.{n}.1"));
            assert_eq!(visitor.visit_with(&fields), server.name());
            assert_eq!(visitor.told, told);
        }
    }
}

#[test]
fn a_drained_backend_keeps_its_sessions_and_one_that_is_out_loses_them() {
    let mut servers = nginxes::<3>();
    let sluice = front(&servers).cluster(SIGNED).admin("socket: FOLDER/admin.sock").start();
    servers.iter().for_each(|server| sluice.expect_log(server.address()));
    let name = format!("cache/{}", servers[0].address());
    let own = servers[0].name().to_owned();
    let cli = |word| {
        let (code, out, err) = sluice.cli(&["backend", word, &name]);
        assert_eq!(code, Some(0), "{out}{err}");
    };
    let state = |wanted: &str| {
        eventually(wanted, PATIENCE, || {
            let (_, body) = sluice.admin(&format!("/api/v1/backends/{name}"));
            body.contains(&format!("\"state\":\"{wanted}\"")).then_some(())
        });
    };
    let moves = |why: &str, visitor: &mut Visitor| {
        let (value, told) = (visitor.value().to_owned(), visitor.told);
        let next = visitor.visit();
        assert_ne!(next, own, "{why}");
        assert_eq!(visitor.told, told + 1, "{why}: told at once");
        assert_ne!(token(visitor.value()), token(&value), "{why}");
        (0..5).for_each(|_| assert_eq!(visitor.visit(), next, "{why}"));
        assert_eq!(visitor.told, told + 1, "{why}: and once");
    };

    let [mut first, mut second, mut third] =
        std::array::from_fn(|_| visitor_of(&sluice, &servers[0]));
    cli("drain");
    for _ in 0..10 {
        assert_eq!(first.visit(), own);
        assert_ne!(Visitor::new(&sluice.address()).visit(), own, "no newcomer");
    }
    assert_eq!(first.told, 1);
    cli("disable");
    moves("disabled", &mut first);
    cli("ready");
    let back = first.visit();
    assert_ne!(back, own, "it does not move back");

    // Five errors in a row eject it.
    servers[0].fail(true);
    while second.ask("").status == 500 {}
    state("ejected");
    let next = second.visit();
    assert_ne!(next, own, "ejected");
    servers[0].fail(false);
    visitor_of(&sluice, &servers[0]);
    state("ready");
    assert_eq!(second.visit(), next);

    servers[0].kill();
    sluice.wait_for(&servers[0].address(), false);
    moves("unhealthy", &mut third);

    // A process that does not know it any more.
    let value = {
        servers[0].restart();
        sluice.wait_for(&servers[0].address(), true);
        visitor_of(&sluice, &servers[0]).value().to_owned()
    };
    let without = front(&servers[1..]).cluster(SIGNED).start();
    moves("removed", &mut Visitor::with(&without.address(), &value));
}

/// A browser sends several requests at once; each went its own way and began a session there.
#[test]
fn all_requests_of_a_session_whose_backend_died_go_to_one_other() {
    let mut servers = nginxes::<4>();
    let sluice = front(&servers).cluster(SIGNED).workers(2).start();
    let dead = servers[0].address();
    sluice.expect_log(&dead);
    let sessions: Vec<String> =
        (0..8).map(|_| visitor_of(&sluice, &servers[0]).value().to_owned()).collect();
    servers[0].kill();
    for value in &sessions {
        let gone: BTreeSet<String> = thread::scope(|scope| {
            let visit = || Visitor::with(&sluice.address(), value).visit();
            let all: Vec<_> = (0..6).map(|_| scope.spawn(visit)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(gone.len(), 1, "{gone:?}");
    }
}

#[test]
fn with_nobody_ready_a_session_stays_where_it_is() {
    let servers = nginxes::<3>();
    let check =
        "{ http: { path: /health }, interval: 200ms, fast_interval: 100ms, down_interval: 100ms }";
    let sluice = front(&servers).cluster(SIGNED).check(check).start();
    let mut visitors = servers.each_ref().map(|server| visitor_of(&sluice, server));
    for server in &servers {
        sluice.expect_log(server.address());
        server.sicken(true);
    }
    servers.iter().for_each(|server| sluice.wait_for(&server.address(), false));
    for (visitor, server) in visitors.iter_mut().zip(&servers) {
        (0..10).for_each(|_| assert_eq!(visitor.visit(), server.name()));
        assert_eq!(visitor.told, 1);
    }
}

#[test]
fn the_status_tells_the_share_of_sessions_of_each_backend() {
    let mut servers = nginxes::<2>();
    let sluice = front(&servers).cluster(SIGNED).workers(2).start();
    let sessions = |server: &Nginx| {
        let status = sluice.status();
        let backends = status["clusters"][0]["shards"][0]["backends"].as_array().unwrap().clone();
        let one = backends.into_iter().find(|one| one["name"] == server.address().as_str());
        one.unwrap()["sessions"].clone()
    };
    assert!(sessions(&servers[0]).is_null(), "none yet");
    let mut stay = visitor_of(&sluice, &servers[1]);
    let told = sessions(&servers[1])["new"].as_u64().unwrap();
    let mut moving: Vec<Visitor> = (0..3).map(|_| visitor_of(&sluice, &servers[0])).collect();
    (0..7).for_each(|_| assert_eq!(stay.visit(), servers[1].name()));
    let (here, there) = (sessions(&servers[0]), sessions(&servers[1]));
    let all = here["here"].as_u64().unwrap() + there["here"].as_u64().unwrap();
    assert!(there["new"].as_u64() >= Some(told) && here["new"].as_u64() >= Some(3));
    for one in [&here, &there] {
        let share = one["here"].as_f64().unwrap() / f64::from(u32::try_from(all).unwrap());
        assert!((one["share"].as_f64().unwrap() - share).abs() < 1e-9, "{one}");
    }
    assert_eq!((there["kept"].as_u64(), there["kept_share"].as_f64()), (Some(7), Some(1.0)));

    sluice.expect_log(servers[0].address());
    servers[0].kill();
    for visitor in &mut moving {
        assert_eq!(visitor.visit(), servers[1].name());
    }
    let (left, came) = (sessions(&servers[0]), sessions(&servers[1]));
    assert_eq!((left["left"].as_u64(), came["came"].as_u64()), (Some(3), Some(3)));
    assert_eq!(left["here"].as_u64(), here["here"].as_u64().map(|n| n - 3));
    let metrics = sluice.metrics();
    let sum = |name, labels: &[(&str, &str)]| metrics.sum(name, labels);
    assert_eq!(sum("sluice_sticky_total", &[("result", "moved")]), 3.0);
    assert_eq!(sum("sluice_sticky_total", &[("result", "kept"), ("cluster", "cache")]), 7.0);
    let dead = servers[0].address();
    assert_eq!(sum("sluice_backend_sticky_total", &[("backend", &dead), ("result", "left")]), 3.0);
}

/// Errors of ours are no place to begin a session at.
#[test]
fn a_reply_of_ours_sets_no_cookie() {
    let origin = Origin::start("o");
    let sluice = Setup::http([origin.address()])
        .cluster(SIGNED)
        .cluster("timeouts: { request: 200ms }")
        .start();
    let response = HttpConn::open(&sluice.address()).get("/slow/2000");
    assert_eq!((response.status, response.header("set-cookie")), (504, None));
}
