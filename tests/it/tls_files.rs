//! The files of certificates: what a wrong one is called, and what becomes of one that is renewed.

use crate::{
    harness::{Authority, Issued, PATIENCE, Setup, TlsConn, Value, during, eventually, port::Port},
    tls::{Site, handshakes, run, tls_redis},
};
use std::{fs, time::Duration};

/// A certificate is renewed while clients come and go: none of them notices, and soon all get it.
#[test]
fn a_renewed_certificate_is_shown_within_ten_seconds_and_no_handshake_fails() {
    let site = Site::new();
    let sluice = site.setup("").workers(2).start();
    let client = site.authority.client();
    let open = || {
        let mut conn = TlsConn::open(&sluice.address(), &client, "site.test").unwrap();
        assert_eq!(conn.cmd(&["GET", "a"]), Value::Nil);
        conn
    };
    let mut kept = open();
    let first = kept.shown();
    let ends = || sluice.metrics().sum("sluice_tls_certificate_not_after_timestamp_seconds", &[]);
    let before = ends();
    let load = |go_on: &dyn Fn() -> bool| {
        let mut shown = 0;
        while go_on() {
            open();
            shown += 1;
        }
        shown
    };
    let ((), counts) = during(2, load, || {
        for _ in 0..2 {
            let old = open().shown();
            let until = |params: &mut rcgen::CertificateParams| {
                params.not_after = rcgen::date_time_ymd(2090, 1, 1);
            };
            site.authority.issue_as("site", until, &["site.test"]);
            eventually("the new one is shown", Duration::from_secs(10), || {
                (open().shown() != old).then_some(())
            });
        }
    });
    assert!(counts.iter().sum::<u32>() > 100, "{counts:?}");
    assert_eq!(handshakes(&sluice, "failed"), 0.0);
    assert!(ends() < before);
    let reloads = |result| {
        sluice.metrics().sum("sluice_tls_reloads_total", &[("name", "cache"), ("result", result)])
    };
    assert_eq!((reloads("ok"), reloads("failed")), (2.0, 0.0));
    // One that is open stays.
    assert_eq!(kept.cmd(&["GET", "a"]), Value::Nil);
    assert_eq!(kept.shown(), first);
}

#[test]
fn a_broken_renewal_keeps_the_old_certificate_and_is_told_once() {
    let site = Site::new();
    let sluice = site.setup("").start();
    let shown = || site.conn(&sluice).shown();
    let first = shown();
    sluice.expect_log("site.key: it is not the key of the certificate in");
    let key = fs::read(&site.issued.key).unwrap();
    let other = site.authority.issue("other", &["site.test"]);
    fs::copy(&other.key, &site.issued.key).unwrap();
    let failed = || sluice.metrics().sum("sluice_tls_reloads_total", &[("result", "failed")]);
    eventually("it is told", PATIENCE, || (failed() == 1.0).then_some(()));
    assert_eq!(shown(), first);
    // Several looks later it was told once, and the old pair can come back.
    fs::write(&site.issued.key, key).unwrap();
    let ok = || sluice.metrics().sum("sluice_tls_reloads_total", &[("result", "ok")]);
    eventually("it is taken", PATIENCE, || (ok() == 1.0).then_some(()));
    assert_eq!(sluice.log().matches("going on with the old").count(), 1);
    fs::remove_file(&site.issued.cert).unwrap();
    sluice.expect_log("site.pem: No such file");
    eventually("it is told", PATIENCE, || (failed() == 2.0).then_some(()));
    assert_eq!(shown(), first);
}

/// A backend changes to another authority: its file is followed too.
#[test]
fn a_changed_ca_of_a_cluster_is_believed_without_a_reload() {
    let (authority, next) = (Authority::new(), Authority::new());
    let issued = next.issue("server", &["127.0.0.1"]);
    let port = Port::free();
    let _redis = tls_redis(&next, &issued, &port, "no");
    let line = format!("upstream: {{ tls: {{ ca: {} }} }}", authority.ca().display());
    let sluice =
        Setup::shards([(port.address(), Vec::new())]).cluster(&line).without_waiting().start();
    sluice.expect_log("unhealthy");
    sluice.wait_for(&port.address(), false);
    fs::copy(next.ca(), authority.ca()).unwrap();
    sluice.wait_for(&port.address(), true);
    assert_eq!(sluice.conn().cmd(&["SET", "a", "1"]), "OK");
}

#[test]
fn what_is_wrong_with_a_certificate_is_told_with_its_file_before_anything_runs() {
    let authority = Authority::new();
    let good = authority.issue("good", &["good.test"]);
    let other = authority.issue("other", &["good.test"]);
    let old = |params: &mut rcgen::CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    };
    let old = authority.issue_as("old", old, &["good.test"]);
    fs::write(authority.path("text"), "hello").unwrap();
    let text = Issued { cert: authority.path("text"), key: good.key.clone() };
    let none = Issued { cert: authority.path("none"), key: good.key.clone() };
    let mixed = Issued { cert: good.cert.clone(), key: other.key.clone() };
    let file = authority.path("sluice.yaml");
    let check = |listener: &str, upstream: &str| {
        let yaml = format!(
            "listeners: [{{ bind: 127.0.0.1:1, protocol: tcp, cluster: a, tls: {{ {listener} }} }}]\n\
             clusters: {{ a: {{ backends: [b:1], upstream: {{ tls: {{ {upstream} }} }} }} }}\n"
        );
        fs::write(&file, yaml).unwrap();
        run(env!("CARGO_BIN_EXE_sluice"), &["check", file.to_str().unwrap()], "")
    };
    let item = |issued: &Issued| format!("certificates: [{}]", issued.yaml());
    // Files are relative to the configuration.
    let relative = "certificates: [{ cert: good.pem, key: good.key }], client_ca: ca.pem";
    let upstream = "ca: ca.pem, cert: good.pem, key: good.key";
    assert!(check(relative, upstream).contains(": ok: "), "{}", check(relative, upstream));
    for (listener, upstream, said) in [
        (item(&none), "ca: ca.pem", "certificates[0].cert: PATH/none: No such file"),
        (item(&text), "ca: ca.pem", "certificates[0].cert: PATH/text: it is not PEM"),
        (
            item(&old),
            "ca: ca.pem",
            "certificates[0].cert: PATH/old.pem: the certificate expired on",
        ),
        (
            item(&mixed),
            "ca: ca.pem",
            "certificates[0].key: PATH/other.key: it is not the key of the certificate in PATH/good.pem",
        ),
        (
            item(&good) + ", client_ca: other.key",
            "ca: ca.pem",
            "tls.client_ca: PATH/other.key: there is no certificate in it",
        ),
        (item(&good), "ca: nowhere", "upstream.tls.ca: PATH/nowhere: No such file"),
        (item(&good), "ca: ca.pem, cert: good.pem", "`cert` and `key` go together"),
        (item(&good), "ca: ca.pem, server_name: 'a b'", "'a b' is no name that a certificate"),
        (
            item(&good),
            "ca: ca.pem, insecure_skip_verify: true",
            "`insecure_skip_verify: true` makes it useless",
        ),
        ("certificates: []".to_owned(), "ca: ca.pem", "it has no certificate to show"),
        ("client_ca: ca.pem".to_owned(), "ca: ca.pem", "`certificates` is missing"),
        (item(&good) + ", min_version: 1.1", "ca: ca.pem", "'1.1' is not one of 1.2, 1.3"),
    ] {
        let told = check(&listener, upstream);
        let folder = authority.path("");
        let said = said.replace("PATH", folder.to_str().unwrap().trim_end_matches('/'));
        assert!(told.contains(&said) && !told.contains(": ok: "), "{said}\n{told}");
    }
    let hint = check(relative, "insecure_skip_verify: true");
    assert!(hint.contains("hint") && hint.contains(": ok: "), "{hint}");
}
