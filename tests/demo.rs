//! `sluice demo` as its user sees it: what it prints, its exit code, and that nothing is left of it.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// A running demo with a temporary folder of its own.
struct Demo {
    child: Child,
    folder: tempfile::TempDir,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &std::env::var("PATH").unwrap())
    }

    fn start_with(arguments: &[&str], path: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
        let output = |name| Stdio::from(fs::File::create(folder.path().join(name)).unwrap());
        let child = Command::new(env!("CARGO_BIN_EXE_sluice"))
            .arg("demo")
            .args(arguments)
            .env("TMPDIR", folder.path().join("tmp"))
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(output("out"))
            .stderr(output("err"))
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    fn out(&self) -> String {
        fs::read_to_string(self.folder.path().join("out")).unwrap()
    }

    fn err(&self) -> String {
        fs::read_to_string(self.folder.path().join("err")).unwrap()
    }

    /// What is after `before` on the first line that has it, up to the next blank.
    fn word_after(&self, before: &str) -> String {
        let out = self.out();
        let (_, rest) = out.split_once(before).unwrap_or_else(|| panic!("no '{before}' in {out}"));
        rest.split_whitespace().next().unwrap().to_owned()
    }

    /// The processes that it started: each works in its folder.
    fn processes(&self) -> Vec<u32> {
        let folder = self.folder.path().join("tmp");
        let works_there = |id: &u32| {
            let cwd = fs::read_link(format!("/proc/{id}/cwd")).unwrap_or_default();
            cwd.to_string_lossy().starts_with(&*folder.to_string_lossy())
        };
        let names = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
        names.filter_map(|name| name.to_str()?.parse().ok()).filter(works_there).collect()
    }

    fn signal(&self, name: &str) {
        kill(name, self.child.id());
    }

    /// Waits until `condition`; fails when that takes longer than half a minute.
    fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !condition(self) {
            assert!(Instant::now() < end, "no {what}:\n{}{}", self.out(), self.err());
            sleep(Duration::from_millis(5));
        }
    }

    /// Its exit code, which comes within `limit`; nothing is left then.
    fn ends_within(&mut self, limit: Duration) -> Option<i32> {
        let end = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < end, "no end within {limit:?}:\n{}", self.out());
            sleep(Duration::from_millis(5));
        };
        assert_eq!(self.processes(), [], "processes are left");
        let files = fs::read_dir(self.folder.path().join("tmp")).unwrap();
        assert_eq!(files.count(), 0, "files are left");
        status.code()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.processes().into_iter().for_each(|id| kill("-KILL", id));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kill(signal: &str, process: u32) {
    let _ = Command::new("kill").args([signal, &process.to_string()]).status();
}

/// The lines of the tables, without their headings.
fn rows(out: &str) -> impl Iterator<Item = &str> {
    out.lines().filter(|line| line.starts_with("s0 ") || line.starts_with("s1 "))
}

#[test]
fn it_ends_by_itself_and_leaves_nothing() {
    let mut demo = Demo::start(&["--seconds", "3"]);
    assert_eq!(demo.ends_within(Duration::from_secs(40)), Some(0), "{}", demo.err());
    let (out, err) = (demo.out(), demo.err());
    assert_eq!(err, "");
    assert!(out.contains("SHARD BACKEND") && out.contains("redis-cli -p "), "{out}");
    assert!(out.contains("MGET of all of them         ann, bob, 3, 42 "), "{out}");
    // One table at the start, one at the end.
    assert_eq!(rows(&out).count(), 12, "{out}");
    assert_eq!(rows(&out).filter(|row| row.contains(" primary ")).count(), 4, "{out}");
    let last = out.lines().last().unwrap();
    let end = "the time is over: all servers stopped, folder removed; client errors: 0";
    assert_eq!(last, end, "{out}");
    let rate = out.rsplit_once(" requests per second").unwrap().0.rsplit_once(' ').unwrap().1;
    assert!(rate.parse::<u32>().unwrap() > 20, "the load stands still: {out}");
    assert!(out.lines().all(|line| line.len() <= 100), "{out}");
}

#[test]
fn signals_end_it_well_and_leave_nothing() {
    for signal in ["-TERM", "-INT", "-HUP"] {
        let mut demo = Demo::start(&[]);
        demo.until("table", |demo| rows(&demo.out()).count() == 6);
        assert_eq!(demo.processes().len(), 7, "two shards of three servers, and Sluice");
        // Typed as it says, while it runs.
        let port: u16 = demo.word_after("redis-cli -p ").parse().unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        client.write_all(b"set greeting hello\r\n").unwrap();
        let mut reply = [0; 5];
        client.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"+OK\r\n");
        let configuration = demo.word_after("configuration  ");
        assert!(Path::new(&configuration).starts_with(demo.folder.path()), "{configuration}");
        // The client stays: it must not keep the demo from ending.
        demo.signal(signal);
        assert_eq!(demo.ends_within(Duration::from_secs(10)), Some(0), "{signal} {}", demo.err());
        assert!(demo.out().ends_with("folder removed; client errors: 0\n"), "{}", demo.out());
    }
}

#[test]
fn a_signal_while_it_starts_leaves_nothing() {
    for servers in [1, 4] {
        let mut demo = Demo::start(&[]);
        demo.until("servers", |demo| demo.processes().len() >= servers);
        demo.signal("-TERM");
        assert_eq!(demo.ends_within(Duration::from_secs(10)), Some(0), "{}", demo.err());
    }
}

#[test]
fn a_killed_replica_is_ejected_and_comes_back_unnoticed_by_clients() {
    let mut demo = Demo::start(&["--seconds", "16", "--kill-replica"]);
    assert_eq!(demo.ends_within(Duration::from_secs(60)), Some(0), "{}{}", demo.out(), demo.err());
    let out = demo.out();
    let mut rest = &*out;
    let replica = demo.word_after("SIGKILL to the replica ");
    for part in [
        "SIGKILL to the replica",
        &format!("s0 {replica} ready -> "),
        &format!("started the replica {replica} again"),
        "-> ready",
        "client errors: 0",
    ] {
        let (_, after) = rest.split_once(part).unwrap_or_else(|| panic!("no '{part}' in {out}"));
        rest = after;
    }
    assert!(out.contains("ejected"), "{out}");
    let last = rows(&out).filter(|row| row.contains(&replica)).last().unwrap();
    assert!(last.contains(" ready "), "not back at the end: {last}");
}

#[test]
fn a_client_error_is_counted_and_is_a_failure() {
    let mut demo = Demo::start(&["--seconds", "4"]);
    demo.until("table", |demo| rows(&demo.out()).count() == 6);
    let out = demo.out();
    let primary = rows(&out).find(|row| row.contains(" primary ")).unwrap();
    let address = primary.split_whitespace().nth(1).unwrap();
    let is_primary = |id: &u32| {
        let name = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&name).contains(address)
    };
    let id = demo.processes().into_iter().find(is_primary).expect("the primary runs");
    kill("-KILL", id);
    assert_eq!(demo.ends_within(Duration::from_secs(30)), Some(1), "{}", demo.out());
    assert!(demo.err().contains("a client saw an error"), "{}", demo.err());
    let out = demo.out();
    let error = out.lines().find(|line| line.contains("the last one: ")).expect("it is told");
    assert!(error.contains(" load:") && error.contains("shard s0"), "{error}");
}

#[test]
fn only_the_sessions_of_a_killed_web_server_move() {
    let mut demo = Demo::start(&["--http", "--seconds", "14"]);
    demo.until("table", |demo| demo.out().contains("SERVER   BACKEND"));
    // As a browser would: a page, a cookie, the same server again.
    let front = demo.word_after("HTTP           ");
    let page = get(&front, "/", "");
    assert!(page.contains("<title>Sluice demo</title>"), "{page}");
    let first = get(&front, "/who", "");
    let (_, cookie) =
        first.split_once("Set-Cookie: ").or_else(|| first.split_once("set-cookie: ")).unwrap();
    let cookie = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
    let name = |answer: &str| answer.rsplit_once("\r\n\r\n").unwrap().1.to_owned();
    (0..5).for_each(|_| assert_eq!(name(&get(&front, "/who", &cookie)), name(&first)));
    assert_eq!(demo.ends_within(Duration::from_secs(60)), Some(0), "{}{}", demo.out(), demo.err());
    let (out, err) = (demo.out(), demo.err());
    assert_eq!(err, "");
    assert!(out.lines().all(|line| line.len() <= 160), "{out}");
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let killed = words(out.split_once("SIGKILL to violet").unwrap().1.lines().next().unwrap());
    let sessions: u32 = killed[killed.len() - 3].parse().unwrap();
    assert!(sessions >= 5, "{killed:?}");
    let verdict = out.lines().find(|line| line.starts_with("verdict: ")).unwrap();
    let expected = format!(
        "verdict: violet was killed: of its {sessions} sessions {sessions} moved, once; of "
    );
    // One whose first answer was on the way at that moment is counted too.
    let late = expected.replace(&sessions.to_string(), &(sessions + 1).to_string());
    assert!(verdict.starts_with(&expected) || verdict.starts_with(&late), "{out}");
    assert!(verdict.ends_with(" others 0 moved; as it should be"), "{verdict}");
    for part in ["started violet", "-> ready", "folder removed; client errors: 0"] {
        assert!(out.contains(part), "no '{part}' in {out}");
    }
    let rows = |name: &str| {
        let of = out.lines().filter(|line| line.starts_with(name));
        of.map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    };
    let column = |row: &[String], at: usize| row[at].parse::<u32>().unwrap();
    let [amber, teal, violet] =
        ["amber ", "teal ", "violet "].map(|name| rows(name).last().unwrap().clone());
    assert_eq!(column(&violet, 6), column(&amber, 5) + column(&teal, 5), "who left came: {out}");
    assert!(column(&violet, 6) >= sessions, "{out}");
}

/// The whole answer.
fn get(address: &str, path: &str, fields: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{fields}\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_signal_ends_the_web_demo_well_with_a_verdict() {
    let mut demo = Demo::start(&["--http"]);
    demo.until("table", |demo| demo.out().contains("SERVER   BACKEND"));
    assert_eq!(demo.processes().len(), 4, "three servers, and Sluice");
    demo.signal("-INT");
    assert_eq!(demo.ends_within(Duration::from_secs(10)), Some(0), "{}", demo.err());
    assert!(demo.out().contains("verdict: no server was killed"), "{}", demo.out());
}

#[test]
fn taken_ports_are_told() {
    // Other tests here run demos, which take this port and give it back.
    let end = Instant::now() + Duration::from_secs(40);
    let _held = loop {
        match TcpListener::bind("127.0.0.1:6380") {
            Ok(listener) => break Some(listener),
            Err(_) if Instant::now() < end => sleep(Duration::from_millis(20)),
            // Whoever has it so long does not give it back.
            Err(_) => break None,
        }
    };
    let mut demo = Demo::start(&["--seconds", "0"]);
    assert_eq!(demo.ends_within(Duration::from_secs(40)), Some(0), "{}", demo.err());
    assert!(demo.out().contains("(port 6380 is taken)"), "{}", demo.out());
}

#[test]
fn a_missing_redis_server_is_told() {
    let mut demo = Demo::start_with(&[], "/nowhere");
    assert_eq!(demo.ends_within(Duration::from_secs(10)), Some(1));
    let err = demo.err();
    for part in ["redis-server is not installed", "apt-get install redis-server", "deploy/demo.sh"]
    {
        assert!(err.contains(part), "{err}");
    }
}
