//! Request smuggling: heads and bodies that somebody reads in two ways go through Sluice, and the
//! origin counts exactly the requests that Sluice counts and the client has answers to.

use crate::harness::{
    PATIENCE, Setup, eventually,
    web::{HttpConn, Mutation, Origin, mutations, smuggle},
};
use std::thread;

/// Some mutations leave a proxy waiting for the rest of a body: others go on beside them.
const LANES: usize = 8;

#[test]
fn the_origin_counts_the_requests_that_we_count() {
    let all = mutations();
    let share = all.len().div_ceil(LANES);
    let wrong: Vec<String> = thread::scope(|scope| {
        let lanes: Vec<_> = all.chunks(share).map(|share| scope.spawn(|| differ(share))).collect();
        lanes.into_iter().flat_map(|lane| lane.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Sends them one after another; gives those that somebody counts otherwise.
fn differ(mutations: &[Mutation]) -> Vec<String> {
    let origin = Origin::start("o");
    let sluice = Setup::http([origin.address()]).start();
    let counted = || sluice.metrics().sum("sluice_backend_requests_by_access_total", &[]);
    let mut wrong = Vec::new();
    let mut before = 0.0;
    for mutation in mutations {
        let outcome = smuggle(mutation, &sluice.address(), &origin);
        if !outcome.wrong.is_empty() {
            wrong.push(format!("{} ({:?}): {outcome:?}", mutation.name, mutation.expected));
            before = counted();
            continue;
        }
        let forwarded = f64::from(u32::try_from(outcome.forwarded).unwrap());
        let what = format!("{}: Sluice counts what the origin does: {outcome:?}", mutation.name);
        eventually(&what, PATIENCE, || (counted() - before == forwarded).then_some(()));
        before += forwarded;
    }
    wrong
}

/// It was counted as the backend's failure, and three of them ejected it.
#[test]
fn a_client_whose_body_is_no_http_does_no_harm_to_the_backend() {
    let origins = [Origin::start("one"), Origin::start("two")];
    let sluice = Setup::http(origins.iter().map(Origin::address)).start();
    for body in ["5\r\nhello\r\nx\r\n", "5\r\nhello"].repeat(10) {
        let mut conn = HttpConn::open(&sluice.address());
        conn.send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
        conn.send(body);
        conn.finish_sending();
        // One that ends early may find nobody to be told.
        assert!(conn.try_response().map_or(true, |response| response.status == 400));
    }
    let metrics = sluice.metrics();
    let failed = metrics.sum("sluice_backend_requests_total", &[("result", "failed")]);
    assert_eq!((failed, metrics.sum("sluice_backend_ejections_total", &[])), (0.0, 0.0));
    assert_eq!(HttpConn::open(&sluice.address()).get("/").status, 200);
}
