//! The log as an operator meets it: each test runs itself once more as a process of its own, whose
//! stderr it reads (or does not).

use sluice::telemetry::log;
use std::{
    io::Read,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Set in the process that logs.
const CHILD: &str = "SLUICE_TEST_LOGS";

fn child(test: &str, filter: Option<&str>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(CHILD, "1").env_remove("SLUICE_LOG");
    if let Some(filter) = filter {
        command.env("SLUICE_LOG", filter);
    }
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Whether this is the process that logs.
fn logs() -> bool {
    std::env::var_os(CHILD).is_some()
}

fn stderr(test: &str, filter: Option<&str>) -> String {
    let mut child = child(test, filter);
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
    text
}

#[test]
fn the_variable_wins_and_a_bad_one_is_reported() {
    if logs() {
        let _guard = log::start(false, "warn");
        tracing::info!(target: "sluice", "small news");
        tracing::warn!(target: "sluice", "big news");
        return;
    }
    let test = "the_variable_wins_and_a_bad_one_is_reported";
    let plain = stderr(test, None);
    assert!(plain.contains(" WARN big news\n") && !plain.contains("small news"), "{plain:?}");
    assert!(stderr(test, Some("info")).contains(" INFO small news\n"));
    let bad = stderr(test, Some("inof"));
    assert!(bad.contains("SLUICE_LOG: 'inof' is not a log filter"), "{bad}");
    assert!(bad.contains("small news"), "info is used: {bad}");
    assert!(!bad.contains('\u{1b}'), "no colours in a pipe");
}

#[test]
fn json_lines_are_json() {
    if logs() {
        let _guard = log::start(true, "info");
        tracing::warn!(target: "sluice", "a \"quoted\" word");
        return;
    }
    let text = stderr("json_lines_are_json", None);
    let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!((&line["level"], &line["message"]), (&"WARN".into(), &"a \"quoted\" word".into()));
}

#[test]
fn a_blocked_pipe_blocks_nobody() {
    if logs() {
        let _guard = log::start(false, "info");
        for n in 0..200_000 {
            tracing::info!(target: "sluice", "line {n} of a flood that nobody reads");
        }
        return;
    }
    let mut child = child("a_blocked_pipe_blocks_nobody", None);
    let end = Instant::now() + Duration::from_secs(30);
    // Nobody reads its stderr, and it holds far less than what is written.
    let ended = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the log blocks");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(ended.success());
}
