//! Sticky sessions as browsers see them: curl's cookie jar and a real Chromium keep their server
//! while others come and go, and move once when it dies.

use crate::harness::{
    Setup, Sluice, eventually,
    web::{Browser, Nginx},
};
use std::{
    fs::{self, File},
    process::{Command, Stdio},
    time::Duration,
};

const REQUESTS: usize = 1_000;
/// When its own server is killed.
const HALF: usize = REQUESTS / 2;
/// A thousand requests at a hundred a second take ten seconds.
const DEADLINE: Duration = Duration::from_secs(100);

/// A page that asks who is there a thousand times, one after the other. Its title says how far
/// it is, and at the end who answered how often in a row.
const PAGE: &str = r#"<!doctype html><title>asking</title><script>
(async () => {
  const runs = [];
  const add = (name) => {
    const last = runs[runs.length - 1];
    if (last && last[0] === name) last[1]++; else runs.push([name, 1]);
  };
  for (let i = 1; i <= 1000; i++) {
    try {
      const answer = await fetch("/?" + i, { cache: "no-store" });
      add(answer.ok ? await answer.text() : "error " + answer.status);
    } catch (error) { add("error " + error); }
    document.title = i + " " + runs[runs.length - 1][0];
    await new Promise((done) => setTimeout(done, 8));
  }
  document.title = "done " + runs.join(" ");
})();
</script>"#;

fn servers() -> Vec<Nginx> {
    let page = PAGE.replace('\n', " ").replace('\'', "");
    let page = format!("location = /page {{ default_type text/html; return 200 '{page}'; }}");
    (0..4).map(|i| Nginx::with(&format!("n{i}"), "", &page)).collect()
}

fn front(servers: &[Nginx]) -> Sluice {
    let sticky = "sticky: { cookie: { name: SLUICE, keys: [0123456789abcdef], max_idle: 30m } }";
    let sluice = Setup::http(servers.iter().map(Nginx::address)).cluster(sticky).workers(2).start();
    servers.iter().for_each(|server| sluice.expect_log(server.address()));
    sluice
}

/// Kills and restarts the servers that are not the client's; then its own. `so_far` gives the answers
/// that came until now: how many, and the newest.
fn stir(servers: &mut [Nginx], sluice: &Sluice, so_far: impl Fn() -> Option<(usize, String)>) {
    let newest = || eventually("an answer", DEADLINE, &so_far);
    let mut turns = 0;
    loop {
        let (asked, own) = newest();
        if asked >= HALF {
            break;
        }
        turns += 1;
        let mut others = servers.iter_mut().filter(|server| server.name() != own);
        let other = others.nth(turns % 3).unwrap();
        other.kill();
        sluice.wait_for(&other.address(), false);
        other.restart();
        sluice.wait_for(&other.address(), true);
    }
    assert!(turns >= 2, "others were killed {turns} times while it asked");
    let own = newest().1;
    servers.iter_mut().find(|server| server.name() == own).unwrap().kill();
}

/// A thousand answers of two servers, one after the other. `runs`: who answered how often in a row.
fn moved_once(runs: &[(String, usize)]) {
    assert_eq!(runs.iter().map(|(_, times)| times).sum::<usize>(), REQUESTS, "{runs:?}");
    assert!(runs.iter().all(|(name, _)| name.starts_with('n')), "{runs:?}");
    assert_eq!(runs.len(), 2, "it moved once: {runs:?}");
}

#[test]
fn curls_jar_keeps_its_server_and_moves_once() {
    let mut servers = servers();
    let sluice = front(&servers);
    let (jar, out) = (sluice.path("jar"), sluice.path("answers"));
    let mut curl = Command::new("curl")
        .args(["-sS", "--no-buffer", "--rate", "100/s", "-w", "\\n", "-b"])
        .arg(&jar)
        .arg("-c")
        .arg(&jar)
        .arg(format!("http://{}/?[1-{REQUESTS}]", sluice.address()))
        .stdin(Stdio::null())
        .stdout(File::create(&out).unwrap())
        .spawn()
        .unwrap();
    let answers = || {
        let text = fs::read_to_string(&out).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    stir(&mut servers, &sluice, || {
        let answers = answers();
        Some((answers.len(), answers.last()?.clone()))
    });
    let status = eventually("curl has asked all", DEADLINE, || curl.try_wait().unwrap());
    assert!(status.success(), "{status}");
    let mut runs: Vec<(String, usize)> = Vec::new();
    for answer in answers() {
        match runs.last_mut() {
            Some((last, times)) if *last == answer => *times += 1,
            _ => runs.push((answer, 1)),
        }
    }
    moved_once(&runs);
    let jar = fs::read_to_string(jar).unwrap();
    assert_eq!(jar.lines().filter(|line| line.contains("SLUICE")).count(), 1, "{jar}");
}

#[test]
fn a_chromium_keeps_its_server_and_moves_once() {
    let mut servers = servers();
    let sluice = front(&servers);
    let browser = Browser::open(&format!("http://{}/page", sluice.address()));
    let title = || browser.title();
    stir(&mut servers, &sluice, || {
        let title = title()?;
        let (asked, own) = title.split_once(' ')?;
        Some((asked.parse().ok()?, own.to_owned()))
    });
    let runs = eventually("the page has asked all", DEADLINE, || {
        title()?.strip_prefix("done ").map(str::to_owned)
    });
    let run = |run: &str| {
        let (name, times) = run.split_once(',').unwrap();
        (name.to_owned(), times.parse().unwrap())
    };
    moved_once(&runs.split(' ').map(run).collect::<Vec<_>>());
    let moved = sluice.metrics().sum("sluice_sticky_total", &[("result", "moved")]);
    assert_eq!(moved, 1.0);
}
