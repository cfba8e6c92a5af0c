//! A real Chromium without a window, with a profile of its own, watched by the title of its page;
//! killed when dropped. It is driven by what the page does.

use super::{
    super::{PATIENCE, process::Process},
    HttpConn,
};
use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

#[derive(Debug)]
pub(crate) struct Browser {
    process: Process,
    /// Where it tells of its pages.
    debug: String,
    _profile: TempDir,
}

impl Browser {
    /// It is started again when it does not open its port: where much else starts it may hang.
    #[track_caller]
    pub(crate) fn open(url: &str) -> Self {
        let browser = (0..4).find_map(|_| Self::start(url));
        browser.expect("chromium starts, at least the fourth time")
    }

    fn start(url: &str) -> Option<Self> {
        let profile = TempDir::new().unwrap();
        let log = File::create(profile.path().join("chromium.log")).unwrap();
        let child = Command::new("chromium")
            .args([
                "--headless=new",
                // The tests may run as root, which has no sandbox.
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-extensions",
                "--disable-background-networking",
                "--disable-background-timer-throttling",
                "--disable-renderer-backgrounding",
                "--no-first-run",
                "--no-proxy-server",
                "--remote-debugging-port=0",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url)
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn();
        let child =
            child.unwrap_or_else(|error| panic!("chromium: {error}; ./tests/run.sh installs it"));
        let mut process = Process(child);
        let log = |profile: &TempDir| fs::read_to_string(profile.path().join("chromium.log"));
        let begun = Instant::now();
        let port = loop {
            if let Some(status) = process.ended() {
                panic!("chromium ended with {status}:\n{}", log(&profile).unwrap_or_default());
            }
            match port_of(profile.path()) {
                Some(port) => break port,
                None if begun.elapsed() > PATIENCE => {
                    end(&mut process);
                    return None;
                }
                None => thread::sleep(Duration::from_millis(20)),
            }
        };
        Some(Self { process, debug: format!("127.0.0.1:{port}"), _profile: profile })
    }

    /// The title of its page, once it has one of its own.
    pub(crate) fn title(&self) -> Option<String> {
        let mut conn = HttpConn::try_open(&self.debug).ok()?;
        conn.try_send(format!("GET /json/list HTTP/1.1\r\nHost: {}\r\n\r\n", self.debug)).ok()?;
        let pages: serde_json::Value =
            serde_json::from_slice(&conn.try_response().ok()?.body).ok()?;
        let page = pages.as_array()?.iter().find(|one| one["type"] == "page")?;
        page["title"].as_str().map(str::to_owned)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

/// With all that it has started.
fn end(process: &mut Process) {
    let _ = kill_process_group(Pid::from_child(&process.0), Signal::KILL);
    process.kill();
}

/// Chromium writes down which port it took.
fn port_of(profile: &Path) -> Option<u16> {
    let text = fs::read_to_string(profile.join("DevToolsActivePort")).ok()?;
    text.lines().next()?.parse().ok()
}
