//! What an operator does to a running Sluice: backends are drained, disabled and brought back, over
//! the command line and the admin address; and probed by HTTP. Real servers stand behind it.

use crate::harness::{
    Conn, PATIENCE, Redis, Setup, Sluice, eventually, port::Port, process::Process,
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Runs a change that must succeed; gives what it printed.
#[track_caller]
fn change(sluice: &Sluice, arguments: &[&str]) -> String {
    let (code, out, err) = sluice.cli(&[&["backend"], arguments].concat());
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    out
}

/// The port of the server behind a new connection, and the connection.
#[track_caller]
fn served_by(sluice: &Sluice) -> (u16, Conn) {
    let mut conn = sluice.conn();
    let words: Vec<String> =
        conn.cmd(&["CONFIG", "GET", "port"]).items().iter().map(|v| v.text()).collect();
    (words[1].parse().unwrap(), conn)
}

/// A connection that `port` serves.
#[track_caller]
fn conn_to(sluice: &Sluice, port: u16) -> Conn {
    eventually("a connection to that backend", PATIENCE, || {
        let (served, conn) = served_by(sluice);
        (served == port).then_some(conn)
    })
}

#[track_caller]
fn backend(sluice: &Sluice, name: &str) -> Value {
    let (code, body) = sluice.admin(&format!("/api/v1/backends/cache/{name}"));
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[track_caller]
fn wait_for_state(sluice: &Sluice, name: &str, state: &str) {
    let what = format!("{name} is {state}\n{}", sluice.log());
    eventually(&what, PATIENCE, || (backend(sluice, name)["state"] == state).then_some(()));
}

/// `from -> to: cause: detail` of the events of a backend.
fn events(sluice: &Sluice, name: &str) -> Vec<String> {
    let status = sluice.status();
    let events = status["events"].as_array().unwrap().iter();
    let own = events.filter(|event| event["backend"] == name);
    let word = |event: &Value, key: &str| event[key].as_str().unwrap().to_owned();
    own.map(|event| {
        let [from, to, cause, detail] =
            ["from", "to", "cause", "detail"].map(|key| word(event, key));
        format!("{from} -> {to}: {cause}: {detail}")
    })
    .collect()
}

/// In front of servers that get connections in turn, however busy they are.
fn turns<const N: usize>(servers: [&Redis; N]) -> Setup {
    Setup::tcp(servers.map(Redis::address)).cluster("balance: round_robin")
}

const SOCKET: &str = "socket: FOLDER/admin.sock";

#[test]
fn a_drained_tcp_backend_keeps_its_connections_and_gets_no_new_ones_until_its_time_is_over() {
    let (one, other) = (Redis::start(), Redis::start());
    let sluice = turns([&one, &other]).admin(SOCKET).start();
    let name = format!("cache/{}", one.address());
    let mut old = conn_to(&sluice, one.port());

    let told = change(&sluice, &["drain", &name]);
    assert_eq!(told, format!("{name}: drain (state drain, 1 in flight)\n"));
    for _ in 0..20 {
        assert_eq!(served_by(&sluice).0, other.port());
    }
    assert_eq!(old.cmd(&["PING"]), "PONG", "what it has stays");
    let told = change(&sluice, &["ready", &name]);
    assert_eq!(told, format!("{name}: ready (state ready, 1 in flight)\n"));
    conn_to(&sluice, one.port());

    let told = change(&sluice, &["drain", &name, "--ttl", "1s"]);
    assert!(told.starts_with(&format!("{name}: drain for 1s (state drain, ")), "{told}");
    wait_for_state(&sluice, &one.address(), "ready");
    conn_to(&sluice, one.port());
    assert_eq!(old.cmd(&["PING"]), "PONG");
    assert_eq!(
        events(&sluice, &one.address())[1..],
        [
            "ready -> drain: api: set",
            "drain -> ready: api: cleared",
            "ready -> drain: api: set for 1s",
            "drain -> ready: api: its time is over",
        ]
    );
    let metrics = sluice.metrics();
    let labels = [("backend", one.address()), ("to", "drain".to_owned())];
    let labels = labels.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(metrics.sum("sluice_backend_state_changes_total", &labels), 2.0);
}

#[test]
fn a_disabled_tcp_backend_is_probed_no_more_and_loses_its_connections_when_they_are_to_be_killed() {
    let (one, other) = (Redis::start(), Redis::start());
    let sluice = turns([&one, &other]).admin(SOCKET).workers(2).start();
    let name = format!("cache/{}", one.address());
    let (mut old, mut elsewhere) = (conn_to(&sluice, one.port()), conn_to(&sluice, other.port()));

    change(&sluice, &["disable", &name]);
    assert_eq!(old.cmd(&["PING"]), "PONG", "without --kill they stay");
    assert_eq!(served_by(&sluice).0, other.port());
    let probes = |backend: &Redis| {
        let address = backend.address();
        sluice.metrics().sum("sluice_backend_checks_total", &[("backend", &address)])
    };
    // One probe may be under way still; from the next of the other one on there is none.
    let pause = |rounds: f64| {
        let from = probes(&other);
        eventually("the other one is probed", PATIENCE, || {
            (probes(&other) >= from + rounds).then_some(())
        });
    };
    pause(2.0);
    let before = probes(&one);
    pause(5.0);
    assert_eq!(probes(&one), before, "it is probed");

    let told = change(&sluice, &["disable", &name, "--kill"]);
    assert!(told.starts_with(&format!("{name}: disabled (state disabled, ")), "{told}");
    assert_eq!(old.read_to_close(), b"");
    assert_eq!(elsewhere.cmd(&["PING"]), "PONG");
    eventually("nothing is in flight", PATIENCE, || {
        (backend(&sluice, &one.address())["in_flight"] == 0).then_some(())
    });
    change(&sluice, &["ready", &name]);
    conn_to(&sluice, one.port());
    assert!(probes(&one) > before, "a probe brought it back");
}

#[test]
fn a_backend_that_is_dead_when_it_is_enabled_again_gets_nothing() {
    let (mut one, other) = (Redis::start(), Redis::start());
    let sluice = turns([&one, &other]).admin(SOCKET).start();
    let name = format!("cache/{}", one.address());
    change(&sluice, &["disable", &name]);
    one.kill();
    change(&sluice, &["ready", &name]);
    for _ in 0..10 {
        assert_eq!(served_by(&sluice).0, other.port());
    }
    sluice.expect_log(format!("backend {} ", one.address()));
    wait_for_state(&sluice, &one.address(), "unhealthy");
    let failed = backend(&sluice, &one.address())["failures"].clone();
    assert_eq!(failed, 0, "no client's connection was tried there");
    one.restart();
    wait_for_state(&sluice, &one.address(), "ready");
}

#[test]
fn a_drained_replica_gets_no_reads_and_a_disabled_or_drained_primary_refuses_writes_by_name() {
    let primary = Redis::start();
    let replica = Redis::replica_of(&primary, &[]);
    let sluice = Setup::shards([(primary.address(), vec![replica.address()])])
        .cluster("reads: { from: prefer_replica }")
        .admin(SOCKET)
        .start();
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    eventually("the replica has it", PATIENCE, || (conn.cmd(&["GET", "k"]) == "v").then_some(()));
    assert!(replica.calls("get") > 0);

    change(&sluice, &["drain", &format!("cache/{}", replica.address())]);
    let before = replica.calls("get");
    for _ in 0..20 {
        assert_eq!(conn.cmd(&["GET", "k"]), "v");
    }
    assert_eq!(replica.calls("get"), before, "reads go to the primary");
    eventually("its quiet connection is closed", PATIENCE, || {
        (backend(&sluice, &replica.address())["connections"] == 0).then_some(())
    });

    let name = format!("cache/{}", primary.address());
    for (command, state) in [("drain", "drain"), ("disable", "disabled")] {
        change(&sluice, &[command, &name]);
        // As an operator sees it.
        let port = sluice.port().to_string();
        let asked =
            Command::new("redis-cli").args(["-p", &port, "SET", "k", "w"]).output().unwrap();
        let told = String::from_utf8(asked.stdout).unwrap();
        let why = format!("shard s0 has no primary: {} is {state} (primary)", primary.address());
        assert!(told.contains(&why), "{told}");
        assert_eq!(primary.cmd(&["GET", "k"]), "v");
    }
    change(&sluice, &["ready", &name]);
    wait_for_state(&sluice, &primary.address(), "ready");
    assert_eq!(conn.cmd(&["SET", "k", "w"]), "OK");
}

#[test]
fn a_killed_redis_primary_answers_what_is_under_way_with_result_unknown() {
    let primary = Redis::start();
    let sluice = Setup::shards([(primary.address(), vec![])])
        // The probes must not be the ones who notice.
        .check("{ interval: 30s, fast_interval: 100ms }")
        .admin(SOCKET)
        .start();
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    primary.stop();
    conn.send(&crate::harness::request(&["SET", "k", "w"]));
    eventually("it is under way", PATIENCE, || {
        (backend(&sluice, &primary.address())["in_flight"] == 1).then_some(())
    });
    let name = format!("cache/{}", primary.address());
    change(&sluice, &["disable", &name]);
    assert_eq!(backend(&sluice, &primary.address())["in_flight"], 1, "without --kill it waits");
    change(&sluice, &["disable", &name, "--kill"]);
    let told = conn.try_read().unwrap();
    assert_eq!(told.error(), "ERR sluice: connection to shard s0 lost, result unknown");
    primary.cont();
}

#[test]
fn the_configuration_may_drain_and_disable_and_the_api_does_not_overrule_it() {
    let servers = [Redis::start(), Redis::start(), Redis::start()];
    let [up, drained, disabled] = servers.each_ref().map(Redis::address);
    let sluice = Setup::tcp([
        up.clone(),
        format!("{{ address: \"{drained}\", admin: drain }}"),
        format!("{{ address: \"{disabled}\", admin: disabled }}"),
    ])
    .admin(SOCKET)
    .without_waiting()
    .start();
    for _ in 0..20 {
        assert_eq!(served_by(&sluice).0, servers[0].port());
    }
    let state = |name: &str| backend(&sluice, name)["state"].clone();
    assert_eq!((state(&drained), state(&disabled)), (json!("drain"), json!("disabled")));
    assert_eq!(
        events(&sluice, &disabled),
        ["ready -> disabled: config: as the configuration says"]
    );

    let name = format!("cache/{drained}");
    let told = change(&sluice, &["ready", &name]);
    let why = "drain, not ready: its configuration says drain";
    assert!(told.starts_with(&format!("{name}: {why}")), "{told}");
    change(&sluice, &["disable", &name, "--ttl", "10m"]);
    let admin = backend(&sluice, &drained)["admin"].clone();
    assert_eq!(admin["in_force"], "disabled");
    assert_eq!((&admin["config"], &admin["api"]), (&json!("drain"), &json!("disabled")));
    assert!((590_000..=600_000).contains(&admin["ttl_left_ms"].as_u64().unwrap()), "{admin}");
    change(&sluice, &["ready", &name]);
    wait_for_state(&sluice, &drained, "drain");
}

/// A request of HTTP/1.1 over any stream: status code and body.
#[track_caller]
fn ask(mut stream: impl Read + Write, line: &str, headers: &str, body: &str) -> (u16, String) {
    let length = body.len();
    write!(
        stream,
        "{line} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn error(body: &str) -> String {
    let document: Value = serde_json::from_str(body).unwrap();
    document["error"].as_str().unwrap().to_owned()
}

#[test]
fn changes_over_tcp_need_the_token_and_a_page_of_elsewhere_gets_nothing() {
    let server = Redis::start();
    let start = |admin: &str| Setup::tcp([server.address()]).admin(admin).start();
    let (without, sluice) = (start(SOCKET), start("token: \"secret token\""));
    let path = format!("/api/v1/backends/cache%2F{}", server.address());
    let patch = |sluice: &Sluice, headers: &str| {
        let stream = TcpStream::connect(sluice.admin_address()).unwrap();
        ask(stream, &format!("PATCH {path}"), headers, r#"{"admin":"drain","ttl":"10m"}"#)
    };
    let own = format!("Host: {}\r\n", sluice.admin_address());
    let token = format!("{own}Authorization: Bearer secret token\r\n");

    let (code, body) = patch(&without, &token);
    assert_eq!(code, 403);
    assert!(
        error(&body).contains("use the unix socket (admin.socket), or set admin.token"),
        "{body}"
    );
    for (headers, why) in [
        (own.clone(), "needs the header Authorization: Bearer TOKEN"),
        (
            format!("{own}Authorization: Bearer secret\r\n"),
            "the token is not the one of admin.token",
        ),
        (format!("{token}Origin: http://evil.example\r\n"), "a page of another origin"),
        (token.replace("127.0.0.1", "evil.example"), "is not an address"),
    ] {
        let (code, body) = patch(&sluice, &headers);
        assert_eq!(code, 403, "{headers}");
        assert!(error(&body).contains(why), "{headers}{body}");
        assert_eq!(backend(&sluice, &server.address())["admin"]["in_force"], "ready");
    }
    let (code, body) = patch(&sluice, &token);
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &answer["state"]), (200, &json!("drain")), "{body}");
    assert_eq!(answer["name"], server.address());
    assert_eq!(backend(&sluice, &server.address())["admin"]["api"], "drain");

    // The command line sends the token of the configuration; another one is refused.
    let told = change(&sluice, &["ready", &format!("cache/{}", server.address())]);
    assert!(told.contains("ready (state ready"), "{told}");
    let name = format!("cache/{}", server.address());
    let address = without.admin_address();
    let (code, _, told) = without.cli(&["backend", "drain", &name, "--admin", &address]);
    assert_eq!(code, Some(1));
    assert!(
        told.starts_with("sluice backend: over TCP nothing is changed: use the unix"),
        "{told}"
    );
    // A page of elsewhere cannot even look, whatever name it makes lead here.
    for headers in ["Host: evil.example\r\n", "Host: localhost\r\nOrigin: http://evil.example\r\n"]
    {
        let stream = TcpStream::connect(sluice.admin_address()).unwrap();
        assert_eq!(ask(stream, "GET /api/v1/status", headers, "").0, 403, "{headers}");
    }
}

#[test]
fn the_admin_api_lists_finds_and_refuses_with_reasons() {
    let server = Redis::start();
    let sluice = Setup::tcp([server.address()]).admin(SOCKET).start();
    let socket = sluice.path("admin.sock");
    let asked = |line: &str, body: &str| {
        ask(UnixStream::connect(&socket).unwrap(), line, "Host: x\r\n", body)
    };
    let id = format!("cache/{}", server.address());
    for path in ["/api/v1/backends/0".to_owned(), format!("/api/v1/backends/{id}")] {
        let (code, body) = asked(&format!("GET {path}"), "");
        let one: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((code, &one["id"], &one["cluster"]), (200, &json!(0), &json!("cache")));
    }
    let list: Value = serde_json::from_str(&asked("GET /api/v1/backends", "").1).unwrap();
    assert_eq!(list[0]["name"], server.address());
    let clusters: Value = serde_json::from_str(&asked("GET /api/v1/clusters", "").1).unwrap();
    let cluster: Value = serde_json::from_str(&asked("GET /api/v1/clusters/cache", "").1).unwrap();
    assert_eq!((&clusters[0]["name"], &cluster["name"]), (&json!("cache"), &json!("cache")));
    assert_eq!(cluster["shards"][0]["backends"][0]["name"], server.address());

    let port = server.port();
    let wrong = if port.is_multiple_of(10) { port + 1 } else { port - 1 };
    let patch = format!("PATCH /api/v1/backends/{id}");
    let large = format!("{{\"admin\":\"{}\"}}", "x".repeat(65 * 1024));
    for (line, body, code, part) in [
        (
            "PATCH /api/v1/backends/cahce/a:1",
            "{}",
            404,
            "no cluster 'cahce'; did you mean 'cache'?",
        ),
        ("PATCH /api/v1/backends/other/a:1", "{}", 404, "no cluster 'other'; there is cache"),
        (
            &format!("PATCH /api/v1/backends/cache/127.0.0.1:{wrong}"),
            "{}",
            404,
            &format!("did you mean '{}'?", server.address()),
        ),
        ("PATCH /api/v1/backends/7", "{}", 404, "there is no backend 7"),
        ("PATCH /api/v1/backends/cache", "{}", 404, "write CLUSTER/ADDRESS"),
        ("GET /api/v1/clusters/cahce", "", 404, "did you mean 'cache'?"),
        ("GET /api/v1/nothing", "", 404, "no such page"),
        (&patch, "{}", 400, "missing field `admin`"),
        (&patch, "not json", 400, "the body is JSON such as"),
        (&patch, r#"{"admin":"drian"}"#, 400, "did you mean 'drain'?"),
        (&patch, &large, 413, "more than 64KiB"),
        (&format!("POST /api/v1/backends/{id}"), "{}", 405, "GET, HEAD, PATCH"),
        ("PATCH /api/v1/status", "{}", 405, "GET, HEAD only"),
    ] {
        let (status, answer) = asked(line, body);
        assert_eq!(status, code, "{line}: {answer}");
        assert!(error(&answer).contains(part), "{line}: {answer}");
    }
    assert_eq!(backend(&sluice, &server.address())["admin"]["in_force"], "ready");
    let (code, _) = asked(&format!("{patch}?kill=true"), r#"{"admin":"disabled"}"#);
    assert_eq!((code, &backend(&sluice, &server.address())["state"]), (200, &json!("disabled")));
}

#[test]
fn the_command_line_shows_tables_and_json_and_its_errors_teach() {
    let server = Redis::start();
    let sluice = Setup::tcp([server.address()]).admin(SOCKET).start();
    let (code, out, _) = sluice.cli(&["backend", "list"]);
    let lines: Vec<&str> = out.lines().collect();
    assert!(code == Some(0) && lines.len() == 2 && lines[0].starts_with("BACKEND  "), "{out}");
    let words: Vec<&str> = lines[1].split_whitespace().collect();
    let name = format!("cache/{}", server.address());
    assert_eq!(words[..5], [&name, "-", "none", "ready", "ready"]);
    let (_, out, _) = sluice.cli(&["backend", "list", "cache", "--format", "json"]);
    let all: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((all.as_array().unwrap().len(), &all[0]["state"]), (1, &json!("ready")));
    let (_, out, _) = sluice.cli(&["backend", "drain", "0", "--format", "json"]);
    let one: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(one["admin"]["in_force"], "drain");
    // The socket by its path alone.
    let socket = sluice.path("admin.sock").display().to_string();
    let (code, _, err) = sluice.cli(&["backend", "ready", &name, "--admin", &socket]);
    assert_eq!((code, err.as_str()), (Some(0), ""));

    for (arguments, code, part) in [
        (vec!["drain", "cahce/a:1"], 1, "there is no cluster 'cahce'; did you mean 'cache'?"),
        (vec!["drain", "cache"], 1, "write CLUSTER/ADDRESS, such as cache/10.0.0.1:6379"),
        (vec!["drain", &name, "--ttl", "10"], 1, "ttl: '10' has no unit; write 10ms, 10s, ..."),
        (vec!["list", "cahce"], 1, "did you mean 'cache'?"),
        (vec!["list", "--admin", "/nowhere.sock"], 1, "unix:/nowhere.sock: No such file"),
        (vec!["list", "--admin", "nowhere"], 1, "no port; write host:port; or the path of"),
        (vec!["list", "-c", "/nowhere.yaml"], 78, "/nowhere.yaml: the file cannot be read"),
        (vec!["drian", &name], 1, "drain"),
        (vec!["ready", &name, "--kill"], 1, "unexpected argument '--kill'"),
    ] {
        let (status, _, err) = sluice.cli(&[&["backend"], &arguments[..]].concat());
        assert_eq!(status, Some(code), "{arguments:?}: {err}");
        assert!(err.contains(part), "{arguments:?}: {err}");
    }
}

#[test]
fn the_socket_is_for_its_owner_a_dead_one_is_replaced_and_a_live_one_is_not() {
    let server = Redis::start();
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("admin.sock");
    let setup = || Setup::tcp([server.address()]).admin(&format!("socket: {}", socket.display()));
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(UnixStream::connect(&socket).is_err(), "it is dead");
    let sluice = setup().start();
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let (code, out, _) = sluice.cli(&["backend", "list"]);
    assert!(code == Some(0) && out.contains(&server.address()), "{out}");

    // Another one with other ports, and the same socket.
    let text = fs::read_to_string(sluice.path("sluice.yaml")).unwrap();
    let text = text.replace(&sluice.admin_address(), "127.0.0.1:0");
    let text = text.replace(&sluice.address(), "127.0.0.1:0");
    let file = folder.path().join("second.yaml");
    fs::write(&file, text).unwrap();
    let (code, _, err) = sluice.cli(&["run", "-c", file.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    let why = format!("admin: socket {}: a process listens there; is Sluice", socket.display());
    assert!(err.contains(&why), "{err}");
    let (code, out, _) = sluice.cli(&["backend", "list"]);
    assert!(code == Some(0) && out.contains(&server.address()), "it is untouched: {out}");
    drop(sluice);
    assert!(!socket.exists(), "it goes with its process");
}

#[test]
fn without_a_word_about_it_the_socket_lies_where_both_sides_look() {
    let server = Redis::start();
    let folder = TempDir::new().unwrap();
    let runtime = folder.path().to_str().unwrap();
    let sluice = Setup::tcp([server.address()]).env("XDG_RUNTIME_DIR", runtime).start();
    let name = format!("sluice-{}.sock", sluice.admin_address().replace(':', "-"));
    assert!(folder.path().join(&name).exists(), "{name}\n{}", sluice.log());
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    let backend_name = format!("cache/{}", server.address());
    command.args(["backend", "drain", &backend_name]).env("XDG_RUNTIME_DIR", runtime);
    command.env("SLUICE_CONFIG", sluice.path("sluice.yaml"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    wait_for_state(&sluice, &server.address(), "drain");
}

#[test]
fn the_admin_address_may_be_a_socket_alone() {
    let (server, port, folder) = (Redis::start(), Port::free(), TempDir::new().unwrap());
    let (file, socket) = (folder.path().join("f.yaml"), folder.path().join("admin.sock"));
    let text = format!(
        "admin: {{ bind: \"unix:{}\" }}\n\
         listeners: [{{ bind: {}, protocol: tcp, cluster: cache }}]\n\
         clusters: {{ cache: {{ backends: [\"{}\"] }} }}\n",
        socket.display(),
        port.address(),
        server.address()
    );
    fs::write(&file, text).unwrap();
    let program = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command.env("SLUICE_CONFIG", &file).stderr(Stdio::null());
        command
    };
    let running = program().arg("run").stdout(Stdio::null()).spawn().unwrap();
    let _running = Process(running);
    let name = format!("cache/{}", server.address());
    eventually("it is drained", PATIENCE, || {
        program().args(["backend", "drain", &name]).output().unwrap().status.success().then_some(())
    });
    let ask = |path| ask(UnixStream::connect(&socket).unwrap(), path, "Host: x\r\n", "");
    assert_eq!(ask("GET /livez"), (200, "alive\n".to_owned()));
    assert!(ask("GET /api/v1/backends/0").1.contains("\"in_force\":\"drain\""));
}

/// nginx that answers on its port what `locations` say; a file `down` in its folder is for them to
/// look at.
struct Nginx {
    _process: Process,
    port: Port,
    folder: TempDir,
}

impl Nginx {
    fn start(locations: &str) -> Self {
        let (port, folder) = (Port::free(), TempDir::new().unwrap());
        let root = folder.path().display().to_string();
        // Its workers run as another user.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("  {name}_temp_path {root}/{name};\n"))
            .concat();
        let text = format!(
            "daemon off;\nmaster_process off;\npid {root}/pid;\nerror_log {root}/error.log;\n\
             events {{}}\nhttp {{\n  access_log {root}/access.log;\n{paths}\
             server {{\n    listen {};\n    {}\n  }}\n}}\n",
            port.address(),
            locations.replace("FOLDER", &root)
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, text).unwrap();
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-p").arg(folder.path()).arg("-e").arg(folder.path().join("error.log"));
        command.arg("-c").arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
        let _process = Process(command.stderr(Stdio::null()).spawn().unwrap());
        let nginx = Self { _process, port, folder };
        eventually("nginx accepts", PATIENCE, || TcpStream::connect(nginx.address()).ok());
        nginx
    }

    fn address(&self) -> String {
        self.port.address()
    }

    fn set_down(&self, down: bool) {
        let file = self.folder.path().join("down");
        match down {
            true => fs::write(file, "").unwrap(),
            false => fs::remove_file(file).unwrap(),
        }
    }
}

#[test]
fn http_probes_look_at_status_body_headers_and_host() {
    let nginx = Nginx::start(
        "location = /well { add_header X-Weight 7; return 200 \"all is ok\\n\"; }
         location = /moved { return 302 /well; }
         location = /bad { return 500; }
         location = /told {
             if ($http_host != app.example) { return 421; }
             if ($http_x_probe != \"by sluice\") { return 403; }
             return 204;
         }",
    );
    for (check, code, text) in [
        ("path: /well", "ok", "200 OK"),
        ("path: /well, weight_header: X-Weight", "ok", "200 OK, weight 7"),
        ("path: /well, body_contains: is ok", "ok", "200 OK"),
        ("path: /well, method: HEAD", "ok", "200 OK"),
        ("path: /moved", "ok", "302 Found"),
        ("path: /told, host: app.example, headers: { X-Probe: by sluice }", "ok", "204 No Content"),
        ("path: /well, body_contains: is well", "refused", "http: body lacks 'is well'"),
        ("path: /moved, status: [200-299]", "refused", "http: 302 Found"),
        ("path: /bad", "refused", "http: 500 Internal Server Error"),
        ("path: /told", "refused", "http: 421 Misdirected Request"),
        ("path: /told, host: app.example", "refused", "http: 403 Forbidden"),
    ] {
        let sluice = Setup::tcp([nginx.address()])
            .check(&format!("{{ fast_interval: 50ms, interval: 50ms, http: {{ {check} }} }}"))
            .without_waiting()
            .start();
        sluice.expect_log(format!("backend {} ", nginx.address()));
        let probe = eventually(check, PATIENCE, || {
            let probes = backend(&sluice, &nginx.address())["probes"].clone();
            probes.as_array()?.last().cloned()
        });
        assert_eq!((&probe["code"], &probe["text"]), (&json!(code), &json!(text)), "{check}");
    }
}

#[test]
fn an_http_backend_that_answers_503_is_out_within_the_printed_worst_case_and_comes_back() {
    let location = "location / { if (-f FOLDER/down) { return 503; } return 200 ok; }";
    let (one, other) = (Nginx::start(location), Nginx::start(location));
    let sluice = Setup::tcp([one.address(), other.address()])
        .check("{ interval: 300ms, fast_interval: 100ms, down_interval: 100ms, timeout: 300ms, http: { path: / } }")
        .start();
    sluice.expect_log(format!("backend {} ", one.address()));
    let worst = backend(&sluice, &one.address())["worst_case_detection_ms"].as_u64().unwrap();
    assert_eq!(worst, 300 + 2 * 100 + 3 * 300);
    one.set_down(true);
    let down = Instant::now();
    wait_for_state(&sluice, &one.address(), "unhealthy");
    let took = down.elapsed();
    // Two cores are shared with other tests.
    assert!(took < Duration::from_millis(worst + 200), "{took:?}");
    assert_eq!(backend(&sluice, &other.address())["state"], "ready");
    let told = events(&sluice, &one.address()).pop().unwrap();
    assert_eq!(told, "ready -> unhealthy: probe: 3 probes failed: http: 503 Service Unavailable");
    one.set_down(false);
    wait_for_state(&sluice, &one.address(), "ready");
}

#[test]
fn a_killed_http_backend_breaks_off_its_downloads_and_tunnels_and_a_drained_one_does_not() {
    let slow = "root FOLDER; location = /slow { limit_rate 1k; } location / { return 200 ok; }";
    let nginx = Nginx::start(slow);
    fs::write(nginx.folder.path().join("slow"), "x".repeat(1 << 20)).unwrap();
    let upgrades = Upgrades::start();
    let sluice = Setup::http([nginx.address()]).admin(SOCKET).start();
    let name = format!("cache/{}", nginx.address());
    let mut download = TcpStream::connect(sluice.address()).unwrap();
    download.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(download, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut some = vec![0; 600];
    download.read_exact(&mut some).unwrap();

    change(&sluice, &["drain", &name]);
    download.read_exact(&mut some).unwrap();
    change(&sluice, &["disable", &name]);
    download.read_exact(&mut some).unwrap();
    change(&sluice, &["disable", &name, "--kill"]);
    let killed = Instant::now();
    while let Ok(1..) = download.read(&mut some) {
        assert!(killed.elapsed() < PATIENCE, "it goes on");
    }
    let refused = crate::harness::http::get(&sluice.address(), "/").unwrap();
    assert_eq!(refused.0, 503, "{refused:?}");
    change(&sluice, &["ready", &name]);
    wait_for_state(&sluice, &nginx.address(), "ready");
    assert_eq!(crate::harness::http::get(&sluice.address(), "/").unwrap(), (200, "ok".to_owned()));
    drop(sluice);

    let sluice = Setup::http([upgrades.address()]).admin(SOCKET).start();
    let mut tunnel = TcpStream::connect(sluice.address()).unwrap();
    tunnel.set_read_timeout(Some(PATIENCE)).unwrap();
    let ask = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    tunnel.write_all(ask.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tunnel.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    let name = format!("cache/{}", upgrades.address());
    change(&sluice, &["disable", &name]);
    tunnel.write_all(b"ping").unwrap();
    let mut echo = [0; 4];
    tunnel.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"ping", "without --kill it stays");
    change(&sluice, &["disable", &name, "--kill"]);
    assert_eq!(tunnel.read(&mut echo).unwrap_or(0), 0);
}

/// A server that agrees to any upgrade and then sends back what it gets.
struct Upgrades(Port);

impl Upgrades {
    fn start() -> Self {
        let port = Port::free();
        let listener = std::net::TcpListener::bind(port.address()).unwrap();
        std::thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut bytes = [0; 4096];
                    let mut first = true;
                    while let Ok(n @ 1..) = socket.read(&mut bytes) {
                        let agreed = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                                       Upgrade: echo\r\n\r\n";
                        let said = if first { &agreed[..] } else { &bytes[..n] };
                        first = false;
                        if socket.write_all(said).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self(port)
    }

    fn address(&self) -> String {
        self.0.address()
    }
}
