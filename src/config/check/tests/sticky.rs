//! The rules of `sticky`, in a cluster that no listener of another protocol uses.

use super::{SHARDS, file, good, parse, told};
use crate::{
    config::{Secret, Sticky, StickyCookie},
    net::prefix::Prefix,
    policy::sticky::{Attributes, Mode, SameSite, Secure},
};
use std::time::Duration;

const KEYS: &str = "keys: [0123456789abcdef]";

fn sticky(keys: &str) -> String {
    file(
        "{ name: l, bind: 127.0.0.1:1, protocol: redis, cluster: r }",
        &format!("backends: [a:1], sticky: {{ {keys} }} }}, r: {{ {SHARDS}"),
    )
}

fn cookie(keys: &str) -> String {
    sticky(&format!("cookie: {{ {keys} }}"))
}

fn read(text: &str) -> Sticky {
    good(text).clusters[0].backends.as_ref().unwrap().sticky.clone().unwrap()
}

/// The first finding of each text begins as said; the last is that no listener uses the cluster, if
/// that is looked at.
fn each(cases: &[(String, &str)]) {
    for (text, expected) in cases {
        let told = told(text);
        let told: Vec<_> = told.iter().filter(|told| !told.contains("no listener")).collect();
        assert!(told.len() == 1 && told[0].starts_with(expected), "{text}: {told:#?} {expected}");
    }
}

#[test]
fn a_cookie_is_signed_and_has_its_defaults() {
    let Sticky { cookie: Some(read), header: None, client_ip: None, strict: false } =
        read(&cookie(&format!("name: SLUICE, {KEYS}, max_idle: 30m")))
    else {
        panic!("a cookie alone")
    };
    let expected = StickyCookie {
        attributes: Attributes::named("SLUICE"),
        mode: Mode::Signed,
        keys: vec![Secret("0123456789abcdef".to_owned())],
        max_idle: Some(Duration::from_secs(1_800)),
        max_life: None,
    };
    assert_eq!(read, expected);
}

#[test]
fn all_of_it_means_what_it_says() {
    let all = "cookie: { name: __Secure-S, keys_file: keys, max_life: 1h, http_only: false, same_site: none, secure: true, path: /app, domain: example.org }, header: X-Session-Id, client_ip: { v6: 56 }, strict: true";
    let max_life = Some(Duration::from_secs(3_600));
    let expected = Sticky {
        cookie: Some(StickyCookie {
            attributes: Attributes {
                name: "__Secure-S".to_owned(),
                path: "/app".to_owned(),
                domain: Some("example.org".to_owned()),
                http_only: false,
                same_site: SameSite::None,
                secure: Secure::Always,
                max_age: max_life,
            },
            mode: Mode::Signed,
            keys: ["0123456789abcdef", "fedcba9876543210"]
                .map(|key| Secret(key.to_owned()))
                .to_vec(),
            max_idle: None,
            max_life,
        }),
        header: Some("x-session-id".to_owned()),
        client_ip: Some(Prefix { v4: 32, v6: 56 }),
        strict: true,
    };
    assert_eq!(read(&sticky(all)), expected);
    for mode in ["plain", "opaque"] {
        good(&cookie(&format!("name: S, mode: {mode}")));
    }
}

#[test]
fn mistakes_are_told_with_what_to_write() {
    let with = |keys: &str| cookie(&format!("name: S, {KEYS}, {keys}"));
    let named = |name: &str| cookie(&format!("name: {name}, {KEYS}"));
    each(&[
        (
            cookie("name: S"),
            "clusters.c.sticky.cookie: the mode signed needs `keys` or `keys_file`; `openssl rand -hex 16` makes a key, or choose `mode: opaque`",
        ),
        (cookie(KEYS), "clusters.c.sticky.cookie: `name` is missing"),
        (
            cookie("name: S, keys: [short]"),
            "clusters.c.sticky.cookie.keys[0]: it has 5 bytes, the fewest is 16; `openssl rand",
        ),
        (
            cookie("name: S, keys: [0123456789abcdef, 0123456789abcdef]"),
            "clusters.c.sticky.cookie.keys[1]: it is given twice",
        ),
        (
            cookie("name: S, keys: []"),
            "clusters.c.sticky.cookie.keys: it has 0 keys; it takes 1 to 8; `openssl rand",
        ),
        (
            cookie("name: S, keys: 0123456789abcdef"),
            "clusters.c.sticky.cookie.keys: expected a list, found a text",
        ),
        (
            cookie("name: S, keys_file: empty"),
            "clusters.c.sticky.cookie.keys_file: it has 0 keys; it takes 1 to 8",
        ),
        (
            cookie("name: S, keys_file: none"),
            "clusters.c.sticky.cookie.keys_file: the file 'none' cannot be read",
        ),
        (with("keys_file: keys"), "clusters.c.sticky.cookie.keys_file: `keys` is given too"),
        (
            cookie(&format!("name: S, mode: plain, {KEYS}")),
            "hint: clusters.c.sticky.cookie.keys: the mode plain signs nothing",
        ),
        (with("mode: sealed"), "clusters.c.sticky.cookie.mode: 'sealed' is not one of plain,"),
        (with("max_idle: 1500ms"), "clusters.c.sticky.cookie.max_idle: it is kept in whole"),
        (with("max_idle: 1ms"), "clusters.c.sticky.cookie.max_idle: '1ms' is out of range"),
        (with("http_only: no"), "clusters.c.sticky.cookie.http_only: 'no' is not true or false"),
        (with("same_site: none"), "clusters.c.sticky.cookie.same_site: browsers drop a cookie"),
        (with("path: app"), "clusters.c.sticky.cookie.path: a path begins with /"),
        (with("path: \"/a;b\""), "clusters.c.sticky.cookie.path: a path begins with /"),
        (with("domain: \"a;b\""), "clusters.c.sticky.cookie.domain: it is not a domain"),
        (named("a b"), "clusters.c.sticky.cookie.name: a cookie's name has A-Z"),
        (named("é"), "clusters.c.sticky.cookie.name: a cookie's name has A-Z"),
        (named("\"a=b\""), "clusters.c.sticky.cookie.name: a cookie's name has A-Z"),
        (named("__Secure-S"), "clusters.c.sticky.cookie.name: browsers take a name with __Secure-"),
        (
            cookie(&format!("name: __Host-S, {KEYS}, secure: true, path: /a")),
            "clusters.c.sticky.cookie.name: browsers take a name with __Host-",
        ),
        (sticky("header: \"a b\""), "clusters.c.sticky.header: it is not the name of a header"),
        (
            sticky("header: X-A, strict: true"),
            "clusters.c.sticky.strict: it is for a `cookie`: a header",
        ),
    ]);
}

#[test]
fn a_key_is_not_shown_beside_a_mistake() {
    let inline = cookie("name: S, keys: [hunter2, \"hunter22\"], max_idel: 30m");
    let scalar = cookie("name: S, keys: hunter2");
    let block = "listeners: []\nclusters:\n  c:\n    backends: [a:1]\n    sticky:\n      cookie:\n        name: S\n        keys:\n          - hunter2\n          - ${NONE}hunter2\n";
    for text in [&*inline, &scalar, block] {
        let (config, findings) = parse(text);
        let shown = findings.to_string();
        assert!(config.is_none() && !shown.contains("hunter"), "{shown}");
    }
}
