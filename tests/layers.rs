//! Holds the layers of the house: a table of folder -> words that its code must not say.
//! It reads the source as text; it does not resolve names, so a renamed import escapes it.

use std::{fs, path::Path};

/// Folder or file, and the words its code must not say. A rule holds for all that is below.
const RULES: &[(&str, &str)] = &[
    (
        "src/policy",
        "tokio:: std::net std::io std::fs std::env tracing:: rand:: RandomState Instant::now
         SystemTime Mutex RwLock super::super:: crate::net crate::proto crate::topology
         crate::config crate::telemetry crate::control crate::server crate::cli",
    ),
    (
        "src/topology",
        "tokio::net tokio::io tokio::fs tokio::time std::net std::io std::fs crate::proto
         crate::control crate::server crate::config crate::cli",
    ),
    (
        "src/net",
        "shard Shard replica Replica Command crate::policy crate::proto crate::topology
         crate::config crate::control crate::server crate::cli",
    ),
    (
        "src/proto",
        "thread::sleep thread::current tokio::runtime crate::control crate::server crate::config crate::cli",
    ),
    ("src/proto/redis", "proto::http proto::tcp super::http super::tcp"),
    ("src/proto/tcp", "proto::http proto::redis super::super::"),
    (
        "src/config",
        "tokio:: TcpListener TcpStream UnixListener UnixStream UdpSocket ToSocketAddrs
         to_socket_addrs lookup_host crate::control crate::server crate::cli",
    ),
    ("src/control", "redis::session redis::client crate::server crate::cli"),
    (
        "src/telemetry",
        "crate::policy crate::net crate::proto crate::topology crate::config crate::control
         crate::server crate::cli",
    ),
    ("src/server", "crate::cli"),
    ("src/main.rs", "loop while impl"),
];

/// Who may start threads, runtimes and tasks; everyone else asks one of them.
const SPAWNERS: &[&str] = &["src/server/worker.rs", "src/control/mod.rs"];
const SPAWNING: &str = "tokio::spawn task::spawn spawn_local spawn_blocking thread::spawn
     thread::Builder thread::scope runtime:: JoinSet";

const MAX_LINES: usize = 600;

#[test]
fn every_layer_says_only_what_it_may() {
    let mut found = Vec::new();
    let mut files = 0;
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut |path| {
        let shown = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string();
        found.extend(findings(&shown, &fs::read_to_string(path).unwrap()));
        files += 1;
    });
    assert!(files > 20, "only {files} files were read");
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// What is wrong with one file, a line each.
fn findings(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let is_table = text.lines().next().is_some_and(|line| line.to_lowercase().contains("table"));
    let lines = text.lines().count();
    if lines > MAX_LINES && !is_table {
        found.push(format!("{path}: {lines} lines, over {MAX_LINES}; split it by idea"));
    }
    // A module of tests in a file of its own, as the one at the end of a file.
    if path.ends_with("/tests.rs") {
        return found;
    }
    let rules = RULES.iter().filter(|(place, _)| Path::new(path).starts_with(place));
    let spawn_rule = (!SPAWNERS.contains(&path)).then_some(&("src", SPAWNING));
    for (place, words) in rules.chain(spawn_rule) {
        for (number, line) in code(text) {
            for word in words.split_whitespace().filter(|word| line.contains(word)) {
                found.push(format!("{path}:{number}: {place} must not use {word}"));
            }
        }
    }
    found
}

/// The numbered lines of code without comments and without the module of tests at the end;
/// `use crate::{a, b::c}` is read as `crate::a`, `crate::b::c`.
fn code(text: &str) -> Vec<(usize, String)> {
    let mut depth = 0_usize;
    let mut lines = Vec::new();
    let text = text.split_once("\n#[cfg(test)]\nmod ").map_or(text, |(before, _)| before);
    for (index, raw) in text.lines().enumerate() {
        let mut line = String::new();
        for piece in raw.split("//").next().unwrap_or_default().split_inclusive(['{', ',', '}']) {
            if depth == 1 && !piece.trim().trim_start_matches('}').is_empty() {
                line.push_str("crate::");
            }
            line.push_str(if depth == 1 { piece.trim_start() } else { piece });
            match piece.chars().last() {
                Some('{') if depth > 0 || piece.ends_with("crate::{") => depth += 1,
                Some('}') => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        lines.push((index + 1, line));
    }
    lines
}

fn visit(folder: &Path, each: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, each);
        } else if path.extension().is_some_and(|end| end == "rs") {
            each(&path);
        }
    }
}

#[test]
fn the_scan_finds_what_it_is_for() {
    let text = "//! Picks.\nuse tokio::net;\n// tokio:: in a comment\nuse crate::{\n    net::{a, b},\n    policy,\n};\n";
    let found = findings("src/policy/balance.rs", text);
    assert_eq!(
        found,
        [
            "src/policy/balance.rs:2: src/policy must not use tokio::",
            "src/policy/balance.rs:5: src/policy must not use crate::net",
        ]
    );
    assert_eq!(findings("src/net/x.rs", "tokio::spawn(f);").len(), 1);
    assert_eq!(findings("src/control/mod.rs", "tokio::spawn(f);").len(), 0);
    assert_eq!(findings("src/x.rs", "\n#[cfg(test)]\nmod tests { use tokio::spawn; }").len(), 0);
    assert_eq!(findings("src/x/tests.rs", "use tokio::spawn;").len(), 0);
    assert_eq!(findings("src/x.rs", &"\n".repeat(MAX_LINES + 1)).len(), 1);
    assert_eq!(findings("src/x.rs", &format!("//! The table.{}", "\n".repeat(900))).len(), 0);
}
