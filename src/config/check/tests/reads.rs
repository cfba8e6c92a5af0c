//! `reads`: what is wrong with it, and what has no effect.

use super::*;
use crate::topology::{Consistency, Override};
use std::time::Duration;

const PAIR: &str = "shards: [{ primary: a:1, replicas: [a:2] }]";

fn reading(reads: &str) -> String {
    file(LISTENER, &format!("{PAIR}, reads: {{ {reads} }}"))
}

#[test]
fn what_is_promised_is_understood() {
    let text =
        "from: any, consistency: window, window: 2s, max_lag: 1s, scripts_declare_keys: false,
        overrides: [{ prefix: 'cart:', from: primary }, { command: hgetall, from: replica }]";
    let config = good(&reading(text).replace("scripts_declare_keys: false,", ""));
    let reads = &config.clusters[0].reads;
    assert_eq!(reads.consistency, Consistency::Window);
    assert_eq!(
        (reads.window, reads.max_lag),
        (Duration::from_secs(2), Some(Duration::from_secs(1)))
    );
    let [cart, all] = reads.overrides.as_slice() else { panic!("{reads:?}") };
    let wanted = Override { prefix: Some("cart:".into()), command: None, from: ReadFrom::Primary };
    assert_eq!(cart, &wanted);
    assert_eq!((all.command.as_deref(), all.from), (Some("HGETALL"), ReadFrom::Replica));
    assert!(reads.scripts_declare_keys);
}

#[test]
fn what_cannot_be_meant_is_told() {
    each(&[
        (
            reading("from: any, consistency: strong"),
            "clusters.c.reads.consistency: 'strong' is not one of eventual, session, key, window",
        ),
        (
            reading("from: any, consistency: window"),
            "clusters.c.reads.consistency: `window` is missing",
        ),
        (
            reading("from: any, consistency: key, window: 1s"),
            "clusters.c.reads.window: it says something of `consistency: window` alone",
        ),
        (
            reading("from: any, consistency: window, window: 10ms"),
            "clusters.c.reads.window: '10ms' is out of range; it is from 500ms to 1h",
        ),
        (
            reading("from: any, max_lag: 10ms"),
            "clusters.c.reads.max_lag: '10ms' is out of range; it is from 100ms to 1d",
        ),
        (
            reading("from: any, overrides: [{ from: primary }]"),
            "clusters.c.reads.overrides[0]: it needs `prefix` or `command`",
        ),
        (
            reading("from: any, overrides: [{ prefix: a }]"),
            "clusters.c.reads.overrides[0]: `from` is missing",
        ),
        (
            file(
                &LISTENER.replace("redis", "http"),
                &format!("{PAIR}, reads: {{ from: any, max_lag: 1s }}"),
            ),
            "clusters.c.reads.max_lag: it is for a cluster of a redis listener",
        ),
    ]);
}

#[test]
fn what_has_no_effect_is_hinted_at() {
    let alone = "reads go to the primary alone";
    for (reads, hint) in [
        ("from: primary, consistency: key", Some(("consistency", alone))),
        ("from: primary, max_lag: 1s", Some(("max_lag", alone))),
        ("from: primary, consistency: eventual", None),
        ("from: primary, consistency: key, overrides: [{ prefix: a, from: any }]", None),
        ("from: any, consistency: session, max_lag: 1s", None),
        (
            "from: any, consistency: session, scripts_declare_keys: false",
            Some(("scripts_declare_keys", "only `consistency: key` asks")),
        ),
        ("from: any, consistency: key, scripts_declare_keys: false", None),
        ("overrides: [{ prefix: a, from: any }]", None),
    ] {
        let text = reading(reads);
        good(&text);
        let wanted = hint.map(|(key, words)| format!("hint: clusters.c.reads.{key}: {words}"));
        let told = told(&text);
        assert_eq!(told.len(), usize::from(wanted.is_some()), "{reads}: {told:?}");
        assert!(
            told.iter().zip(wanted).all(|(told, wanted)| told.starts_with(&wanted)),
            "{told:?}"
        );
    }
}
