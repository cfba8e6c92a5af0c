//! One mutation through a proxy, and whether everybody counted the same. It knows no proxy.

use super::{
    super::{PATIENCE, eventually},
    HttpConn, Origin, Response,
    mutations::{Expected, Mutation},
    wire::Broken,
};
use std::{
    io,
    time::{Duration, Instant},
};

/// What became of a mutation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Status codes at the client, those of the proxy itself among them.
    pub(crate) statuses: Vec<u16>,
    /// Requests the origin counted whole.
    pub(crate) forwarded: usize,
    /// Requests whose head alone reached the origin.
    pub(crate) cut: usize,
    /// What does not agree; empty is good.
    pub(crate) wrong: Vec<String>,
}

/// Silence before and after a sign of life of the proxy, after which nothing more comes to a client whose
/// responses have all come: nobody waits longer before it passes a whole request on. On a busy machine
/// silence alone may be that of a proxy that had no turn.
const QUIET: Duration = Duration::from_millis(500);

/// Sends a mutation, and a good request behind it, through the proxy at `address` to `origin`: each
/// request that the origin counts is answered at the client once, in order, and there is no garbage.
pub(crate) fn smuggle(mutation: &Mutation, address: &str, origin: &Origin) -> Outcome {
    let (count, begun, garbage) = (origin.count(), origin.begun(), origin.garbage().len());
    let mut outcome = Outcome::default();
    let mut conn = HttpConn::open(address);
    let _ = conn.try_send(&mutation.bytes);
    let forwarded = || origin.count() - count;
    let responses = responses(&mut conn, address, &mutation.heads, forwarded, &mut outcome);
    drop(conn);
    eventually("the proxy lets go of a request that was cut", PATIENCE, || {
        (origin.reading() == 0).then_some(())
    });
    let seen = origin.seen().split_off(count);
    outcome.forwarded = seen.len();
    outcome.cut = (origin.begun() - begun).saturating_sub(seen.len());
    outcome.statuses = responses.iter().map(|response| response.status).collect();
    outcome.wrong.extend(origin.garbage().split_off(garbage));
    let answered: Vec<&str> =
        responses.iter().filter_map(|response| response.header("x-count")).collect();
    let counted: Vec<String> = seen.iter().map(|seen| seen.count.to_string()).collect();
    if answered != counted {
        outcome.wrong.push(format!("the client got the answers {answered:?} to {counted:?}"));
    }
    let own = responses.iter().filter(|response| response.header("x-count").is_none());
    if own.clone().any(|response| response.status < 400) {
        outcome.wrong.push("the proxy itself answers with success".to_owned());
    }
    if own.count() > 1 {
        outcome.wrong.push("the proxy goes on after it refused".to_owned());
    }
    if mutation.expected == Expected::Refused && !(seen.is_empty() && refused(&outcome)) {
        outcome.wrong.push("it was to be refused".to_owned());
    }
    if let Expected::Served(requests) = mutation.expected
        && seen.len() != requests
    {
        outcome.wrong.push(format!("{requests} requests were to be served"));
    }
    outcome
}

/// Closed without a word is a refusal too: there may be nobody to tell.
fn refused(outcome: &Outcome) -> bool {
    outcome.statuses.iter().all(|status| (400..600).contains(status))
}

/// Every final response until the proxy closes, or is quiet with nothing left to answer.
fn responses(
    conn: &mut HttpConn,
    address: &str,
    heads: &[usize],
    forwarded: impl Fn() -> usize,
    outcome: &mut Outcome,
) -> Vec<Response> {
    let mut responses: Vec<Response> = Vec::new();
    let start = Instant::now();
    loop {
        if !conn.is_ready(QUIET) {
            wait_for_sign_of_life(address);
            if conn.is_ready(QUIET) {
                continue;
            }
            let answered = responses.iter().filter(|one| one.header("x-count").is_some()).count();
            if answered == forwarded() || start.elapsed() > PATIENCE {
                return responses;
            }
            continue;
        }
        match conn.any_response(heads.contains(&responses.len())) {
            Ok(response) if response.status < 200 => {}
            Ok(response) => responses.push(response),
            Err(Broken::End) => return responses,
            Err(Broken::Cut(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                return responses;
            }
            Err(broken) => {
                outcome.wrong.push(format!("what the client got is broken: {broken}"));
                return responses;
            }
        }
    }
}

/// The proxy refuses a request that came later, which no origin hears of.
fn wait_for_sign_of_life(address: &str) {
    let mut conn = HttpConn::open(address);
    conn.send("GET / HTTP/1.1\r\nHost: test\r\nContent-Length: x\r\n\r\n");
    let _ = conn.try_response();
}
