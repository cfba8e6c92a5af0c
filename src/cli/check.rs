//! `sluice check`: one line for each file that is well, every finding of those that are not. Not
//! the checking itself: see `config`.

use super::{EXIT_CONFIG, report, say};
use crate::config::{Config, Env, Finding, Findings, Level};
use serde_json::{Value, json};
use std::{path::PathBuf, process::ExitCode, time::Duration};

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    #[default]
    Text,
    Json,
}

/// Checks every file, also after a bad one.
pub(super) fn run(files: impl Iterator<Item = PathBuf>, format: Format) -> ExitCode {
    let mut accepted = true;
    for file in files {
        let (config, findings) = Config::load(&file, Env::process());
        accepted &= config.is_some();
        if format == Format::Json {
            say(&format_args!("{}\n", to_json(config.as_ref(), &findings)));
            continue;
        }
        report(&findings);
        if let Some(config) = config {
            say(&format_args!("{}: ok: {}\n", findings.file(), summary(&config)));
        }
    }
    if accepted { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CONFIG) }
}

/// `1 listener, 1 cluster, 2 shards, 6 backends; worst-case detection time of cluster 'x' is 6s`.
fn summary(config: &Config) -> String {
    let shards = config.clusters.iter().map(|cluster| cluster.shards.len()).sum();
    let counts = [
        (config.listeners.len(), "listener"),
        (config.clusters.len(), "cluster"),
        (shards, "shard"),
        (config.backends(), "backend"),
    ];
    // Clusters without roles have no shards.
    let counts = counts.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| count(n, what));
    let counts: Vec<String> = counts.collect();
    let times: Vec<String> = config
        .clusters
        .iter()
        .map(|cluster| {
            let time = seconds(cluster.check.worst_case_detection());
            format!("of cluster '{}' is {time}", cluster.name)
        })
        .collect();
    format!("{}; worst-case detection time {}", counts.join(", "), times.join(", "))
}

fn to_json(config: Option<&Config>, findings: &Findings) -> Value {
    let clusters = config.map(|config| {
        let clusters = config.clusters.iter().map(|cluster| {
            json!({
                "name": cluster.name,
                "shards": cluster.shards.len(),
                "backends": cluster.members(),
                "worst_case_detection_seconds": cluster.check.worst_case_detection().as_secs_f64(),
            })
        });
        clusters.collect::<Vec<_>>()
    });
    json!({
        "file": findings.file(),
        "ok": config.is_some(),
        "listeners": config.map(|config| config.listeners.len()),
        "clusters": clusters,
        "errors": findings.errors(),
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

fn finding(finding: &Finding) -> Value {
    let level = match finding.level {
        Level::Error => "error",
        Level::NotSupported => "not_supported",
        Level::Hint => "hint",
    };
    json!({
        "level": level,
        "line": finding.position.map(|position| position.line),
        "column": finding.position.map(|position| position.column),
        "path": finding.path,
        "message": finding.message,
        "suggestion": finding.suggestion,
    })
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A duration as a person reads it: `4.5s`.
fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "listeners: [{ bind: 127.0.0.1:1, protocol: redis, cluster: x }]\n\
        clusters: { x: { shards: [{ primary: a:1, replicas: [a:2, a:3] }, { primary: a:4 }], check: { timeout: 500ms } } }\n";

    #[test]
    fn a_good_file_is_one_line() {
        let (config, _) = Config::parse(TEXT, "f.yaml", Env::empty());
        assert_eq!(
            summary(&config.unwrap()),
            "1 listener, 1 cluster, 2 shards, 4 backends; worst-case detection time of cluster 'x' is 4.5s"
        );
    }

    #[test]
    fn json_has_every_finding() {
        let (config, findings) = Config::parse(TEXT, "f.yaml", Env::empty());
        let json = to_json(config.as_ref(), &findings);
        assert_eq!(json["ok"], true);
        assert_eq!(json["clusters"][0]["worst_case_detection_seconds"], 4.5);
        assert_eq!(json["findings"][0]["level"], "hint");
        let text = TEXT.replace("cluster: x", "cluster: y");
        let (config, findings) = Config::parse(&text, "f.yaml", Env::empty());
        let json = to_json(config.as_ref(), &findings);
        assert_eq!((&json["ok"], &json["errors"]), (&json!(false), &json!(1)));
        assert_eq!(json["findings"][0]["line"], 1);
        assert_eq!(json["findings"][0]["path"], "listeners[0].cluster");
    }
}
