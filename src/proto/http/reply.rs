//! Every word that a client can hear from us: a status, a short text, and the reason in
//! `X-Sluice-Error`. Not when it is said.

use super::{download::Download, fault::Fault};
use crate::topology::door::{self, Reason};
use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER},
};

/// An answer of ours in place of a backend's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    /// For programs; one word.
    reason: &'static str,
    /// For people.
    text: String,
    /// What follows on the connection cannot be trusted, or is not wanted.
    close: bool,
    /// What the client did that it should not.
    fault: Option<Fault>,
    /// Seconds after which it is worth trying again.
    retry_s: u64,
}

impl Refusal {
    fn new(status: StatusCode, reason: &'static str, text: impl Into<String>) -> Self {
        Self { status, reason, text: text.into(), close: false, fault: None, retry_s: 1 }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn reason(&self) -> &'static str {
        self.reason
    }

    /// The request is not what HTTP allows: who is to say where the next one begins?
    pub(super) fn malformed(text: impl Into<String>) -> Self {
        let refusal = Self::new(StatusCode::BAD_REQUEST, "malformed_request", text);
        Self { close: true, fault: Some(Fault::Protocol), ..refusal }
    }

    /// The body of the request broke off, as when its client goes away.
    pub(super) fn unfinished() -> Self {
        Self { fault: None, ..Self::malformed("the body of the request broke off") }
    }

    pub(super) fn uri_too_long(limit: usize) -> Self {
        let text = format!("the URI is longer than {limit} bytes");
        let refusal = Self::new(StatusCode::URI_TOO_LONG, "uri_too_long", text);
        Self { fault: Some(Fault::HeaderLimit), ..refusal }
    }

    pub(super) fn head_too_large(text: impl Into<String>) -> Self {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Self { fault: Some(Fault::HeaderLimit), ..Self::new(status, "head_too_large", text) }
    }

    pub(super) fn no_tunnels() -> Self {
        let text = "CONNECT is for proxies that a client chooses; this one is not";
        Self { close: true, ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "no_tunnels", text) }
    }

    pub(super) fn no_route(host: &str) -> Self {
        let text = format!("no route is for this request (host {})", printable(host));
        Self::new(StatusCode::NOT_FOUND, "no_route", text)
    }

    pub(super) fn no_backend(text: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "no_backend", text)
    }

    /// Every backend is at its limit.
    pub(super) fn overloaded(cluster: &str) -> Self {
        let text = format!("cluster {cluster} is overloaded");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", text)
    }

    /// A limit of the listener, of the client's address or of the process.
    pub(super) fn limited(limit: door::Refusal) -> Self {
        let (status, text) = match limit.reason {
            Reason::MaxConnections => (StatusCode::SERVICE_UNAVAILABLE, "too many connections"),
            Reason::Memory => (StatusCode::SERVICE_UNAVAILABLE, "memory is used up"),
            Reason::ClientConnections => {
                (StatusCode::TOO_MANY_REQUESTS, "too many connections from your address")
            }
            Reason::ClientRate => {
                (StatusCode::TOO_MANY_REQUESTS, "your address connects too often")
            }
            Reason::ClientRequests => {
                (StatusCode::TOO_MANY_REQUESTS, "too many requests from your address")
            }
        };
        let refusal = Self::new(status, limit.reason.as_str(), text);
        Self { close: true, retry_s: limit.retry_after_s(), ..refusal }
    }

    pub(super) fn no_shard_key(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "no_shard_key", text)
    }

    pub(super) fn connect_failed(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "connect_failed", text)
    }

    /// A read that broke, and has been tried enough.
    pub(super) fn reply_lost(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "reply_lost", text)
    }

    /// A write that was sent, and may have been executed or not.
    pub(super) fn result_unknown(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "result_unknown", text)
    }

    pub(super) fn backend_timeout(text: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "backend_timeout", text)
    }

    pub(super) fn client_timeout() -> Self {
        let text = "the rest of the request did not come";
        let refusal = Self::new(StatusCode::REQUEST_TIMEOUT, "client_timeout", text);
        Self { close: true, fault: Some(Fault::Slow), ..refusal }
    }

    /// What the client did that it should not, and what it is told of it.
    pub(super) fn fault(&self) -> Option<(Fault, &str)> {
        self.fault.map(|fault| (fault, self.text.as_str()))
    }

    /// As it goes over HTTP/1.1 where hyper cannot be asked to write it; the connection ends then.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        let retry = match self.is_for_now() {
            true => format!("Retry-After: {}\r\n", self.retry_s),
            false => String::new(),
        };
        let Self { status, reason, text, .. } = self;
        let length = text.len() + 1;
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             X-Sluice-Error: {reason}\r\n{retry}Connection: close\r\n\
             Content-Length: {length}\r\n\r\n{text}\n"
        )
        .into_bytes()
    }

    /// Whether trying again later may help.
    fn is_for_now(&self) -> bool {
        matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
    }

    /// The reply; `close`: the connection ends after it.
    pub(super) fn into_response(self) -> Response<Download> {
        let for_now = self.is_for_now();
        let mut response = Response::new(Download::Text(Bytes::from(self.text + "\n")));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(X_SLUICE_ERROR, HeaderValue::from_static(self.reason));
        if for_now {
            headers.insert(RETRY_AFTER, HeaderValue::from(self.retry_s));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// What a connection that is refused before it says anything is told: HTTP/1.1, which a client of
/// HTTP/2 does not understand, but closing says the same to it.
pub fn refused(limit: door::Refusal) -> Vec<u8> {
    Refusal::limited(limit).into_bytes()
}

/// What a client sent, fit for a line of text.
fn printable(text: &str) -> String {
    text.chars().take(LONGEST_QUOTE).flat_map(char::escape_default).collect()
}

const X_SLUICE_ERROR: HeaderName = HeaderName::from_static("x-sluice-error");
/// A name in DNS is not longer.
const LONGEST_QUOTE: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::REFUSALS;

    #[test]
    fn every_reason_is_counted_by_its_name() {
        for refusal in [
            Refusal::malformed(""),
            Refusal::uri_too_long(1),
            Refusal::head_too_large(""),
            Refusal::no_tunnels(),
            Refusal::no_route(""),
            Refusal::no_backend(""),
            Refusal::overloaded(""),
            Refusal::limited(door::Refusal::MEMORY),
            Refusal::no_shard_key(""),
            Refusal::connect_failed(""),
            Refusal::reply_lost(""),
            Refusal::result_unknown(""),
            Refusal::backend_timeout(""),
            Refusal::client_timeout(),
        ] {
            assert!(REFUSALS.contains(&refusal.reason), "{}", refusal.reason);
        }
        assert!(REFUSALS.contains(&Reason::ClientRequests.as_str()));
    }
}
