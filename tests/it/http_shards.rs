//! A database behind HTTP: writes to the primary, reads to the replicas, and the shard by a key in
//! the request.

use crate::harness::{
    PATIENCE, Setup, Sluice, eventually,
    web::{HttpConn, Origin},
};
use std::collections::HashSet;

/// Shards of a primary (`p0`) and a replica (`r0`) each, and what Sluice is started with.
fn sharded(count: usize, cluster: &[&str]) -> (Vec<Origin>, Sluice) {
    let origins: Vec<_> = (0..count)
        .flat_map(|i| [format!("p{i}"), format!("r{i}")])
        .map(|name| Origin::start(&name))
        .collect();
    let shards = origins.chunks(2).map(|pair| (pair[0].address(), vec![pair[1].address()]));
    let setup = Setup::http_shards(shards.collect::<Vec<_>>());
    let sluice = cluster.iter().fold(setup, |setup, line| setup.cluster(line)).start();
    (origins, sluice)
}

fn who(sluice: &Sluice, method: &str, path: &str, fields: &str) -> String {
    let mut conn = HttpConn::open(&sluice.address());
    let answer = conn.ask(method, path, &format!("{fields}Content-Length: 0\r\n"));
    match answer.header("x-origin") {
        Some(origin) => origin.to_owned(),
        None => format!(
            "{} {} {}",
            answer.status,
            answer.header("x-sluice-error").unwrap_or(""),
            answer.text()
        ),
    }
}

#[test]
fn writes_go_to_the_primary_and_reads_to_replicas() {
    let (origins, sluice) = sharded(1, &["reads: { from: prefer_replica }"]);
    for method in ["GET", "OPTIONS", "TRACE"] {
        assert_eq!(who(&sluice, method, "/", ""), "r0", "{method}");
    }
    for method in ["POST", "PUT", "PATCH", "DELETE", "MKCOL"] {
        assert_eq!(who(&sluice, method, "/", ""), "p0", "{method}");
    }
    for origin in &origins {
        sluice.expect_log(origin.address());
    }
    sluice.expect_log("s0");
    origins[0].kill();
    sluice.wait_for(&origins[0].address(), false);
    let refused = who(&sluice, "POST", "/", "");
    assert!(refused.starts_with("503 no_backend"), "{refused}");
    assert!(refused.contains(&origins[0].address()), "it says who: {refused}");
    assert_eq!(who(&sluice, "GET", "/", ""), "r0");
    origins[0].restart();
    sluice.wait_for(&origins[0].address(), true);
    assert_eq!(who(&sluice, "POST", "/", ""), "p0");
    origins[1].kill();
    sluice.wait_for(&origins[1].address(), false);
    assert_eq!(who(&sluice, "GET", "/", ""), "p0", "the primary reads when no replica can");
}

#[test]
fn reads_go_where_the_configuration_says() {
    let (_origins, sluice) = sharded(1, &["reads: { from: primary }"]);
    assert_eq!(who(&sluice, "GET", "/", ""), "p0");
    let (_origins, sluice) = sharded(1, &["reads: { from: any }"]);
    let readers: HashSet<_> = (0..60).map(|_| who(&sluice, "GET", "/", "")).collect();
    assert_eq!(readers, HashSet::from(["p0".to_owned(), "r0".to_owned()]));
}

#[test]
fn a_key_has_one_shard_wherever_it_is() {
    /// Path and fields of a request with that key.
    type Ask = fn(&str) -> (String, String);
    let asks: [(&str, Ask); 4] = [
        ("header: X-Tenant", |key| ("/".into(), format!("X-Tenant: {key}\r\n"))),
        ("cookie: tenant", |key| ("/".into(), format!("Cookie: a=b; tenant={key}; c=d\r\n"))),
        ("query: tenant", |key| (format!("/x?a=b&tenant={key}&c"), String::new())),
        ("path_segment: 2", |key| (format!("/t/{key}/x"), String::new())),
    ];
    let mut owners: Vec<Vec<String>> = Vec::new();
    for (place, ask) in asks {
        let key = format!("shard_key: {{ {place} }}");
        let (_origins, sluice) = sharded(3, &[&key, "reads: { from: primary }"]);
        let owner = |method: &str, i: usize| {
            let (path, fields) = ask(&format!("tenant-{i}"));
            who(&sluice, method, &path, &fields)
        };
        let of_reads: Vec<_> = (0..40).map(|i| owner("GET", i)).collect();
        let of_writes: Vec<_> = (0..40).map(|i| owner("POST", i)).collect();
        assert_eq!(of_reads, of_writes, "{place}");
        assert_eq!(of_reads.iter().collect::<HashSet<_>>().len(), 3, "{place}: {of_reads:?}");
        let missing = who(&sluice, "GET", "/", "");
        assert!(missing.starts_with("400 no_shard_key"), "{place}: {missing}");
        owners.push(of_reads);
    }
    assert!(owners.iter().all(|one| *one == owners[0]), "a key's shard is its key's alone");
}

#[test]
fn a_client_address_has_one_backend() {
    for lines in [&["balance: client_ip"][..]] {
        let origins: Vec<_> = ["a", "b", "c"].map(Origin::start).into();
        let setup = Setup::http(origins.iter().map(Origin::address))
            .listener("http: { trusted: [127.0.0.0/8] }");
        let sluice = lines.iter().fold(setup, |setup, line| setup.cluster(line)).start();
        let mut all = HashSet::new();
        for client in 0..40 {
            let fields = format!("X-Forwarded-For: 10.1.1.{client}\r\nX-Tenant: {client}\r\n");
            let first = who(&sluice, "GET", "/", &fields);
            for method in ["GET", "POST"] {
                assert_eq!(who(&sluice, method, "/", &fields), first, "{client}");
            }
            all.insert(first);
        }
        assert_eq!(all.len(), 3, "{lines:?}");
        let requests = || sluice.metrics().sum("sluice_backend_in_flight", &[]);
        eventually("nothing is in flight", PATIENCE, || (requests() == 0.0).then_some(()));
    }
}
