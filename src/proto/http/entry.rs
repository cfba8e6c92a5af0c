//! What the access log will say of one request, gathered while it is under way. There is one only
//! where requests are logged. Not the line itself: see `telemetry::access_log`.

use super::{
    head::{TRACEPARENT, X_REQUEST_ID},
    settings::AccessLog,
};
use crate::{
    telemetry::access_log::{Ended, Line, Page},
    topology::Backend,
};
use http::{HeaderValue, Method, StatusCode, Uri, request::Parts};
use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// A request's line to be.
#[derive(Debug)]
pub(super) struct Entry {
    log: AccessLog,
    client: Option<IpAddr>,
    method: Method,
    uri: Uri,
    request_id: Option<HeaderValue>,
    traceparent: Option<HeaderValue>,
    backend: RefCell<Option<Arc<Backend>>>,
    connect_us: Cell<Option<u64>>,
    retries: Cell<u32>,
    pub(super) reply_us: Option<u64>,
    pub(super) error: Option<&'static str>,
}

/// What only the end of a request tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Close<'a> {
    pub(super) listener: &'a str,
    pub(super) cluster: Option<&'a str>,
    pub(super) status: Option<StatusCode>,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) total_us: u64,
    pub(super) ended: Ended,
}

impl Entry {
    /// Of a request as it came; `client`: whom it is from.
    pub(super) fn new(log: AccessLog, head: &Parts, client: Option<IpAddr>) -> Self {
        Self {
            log,
            client,
            method: head.method.clone(),
            uri: head.uri.clone(),
            request_id: head.headers.get(X_REQUEST_ID).cloned(),
            traceparent: head.headers.get(TRACEPARENT).cloned(),
            backend: RefCell::default(),
            connect_us: Cell::new(None),
            retries: Cell::new(0),
            reply_us: None,
            error: None,
        }
    }

    /// The request's name as the backend gets it.
    pub(super) fn named(&mut self, id: Option<&HeaderValue>) {
        self.request_id = id.cloned();
    }

    /// Another try.
    pub(super) fn retried(&self) {
        self.retries.set(self.retries.get().saturating_add(1));
    }

    /// A try begins; when it got its connection is not known yet.
    pub(super) fn asks(&self, backend: &Arc<Backend>) {
        *self.backend.borrow_mut() = Some(Arc::clone(backend));
        self.connect_us.set(None);
    }

    /// The try has its connection, so long after it began.
    pub(super) fn connected(&self, waited_us: u64) {
        self.connect_us.set(Some(waited_us));
    }

    /// Writes the line.
    pub(super) fn close(&self, page: &Page, close: Close<'_>) {
        let backend = self.backend.borrow();
        let began = SystemTime::now() - Duration::from_micros(close.total_us);
        let id = self.request_id.as_ref().map(HeaderValue::as_bytes);
        let path = self.uri.path_and_query();
        let path = path.map(|path| if self.log.query { path.as_str() } else { path.path() });
        let line = Line {
            client: self.client,
            listener: close.listener,
            cluster: close.cluster,
            backend: backend.as_ref().map(|backend| &*backend.name),
            method: self.method.as_str(),
            // A CONNECT has a host instead.
            path: path.or_else(|| self.uri.authority().map(|host| host.as_str())).unwrap_or(""),
            status: close.status.map(|status| status.as_u16()),
            bytes_received: close.received,
            bytes_sent: close.sent,
            total_us: close.total_us,
            reply_us: self.reply_us,
            connect_us: self.connect_us.get(),
            retries: self.retries.get(),
            ended: close.ended,
            error: self.error,
            request_id: id.map(|id| id.get(..LONGEST_ID).unwrap_or(id)),
            trace_id: self.traceparent.as_ref().and_then(|value| trace_id(value.as_bytes())),
        };
        page.add(began, &line);
    }
}

/// The trace's id in a `traceparent`: `00-` 32 digits `-` 16 digits `-` 2 digits, where a later
/// version may add more (W3C Trace Context, 3.2.2).
fn trace_id(value: &[u8]) -> Option<&str> {
    let digits = |part: Option<&[u8]>, length: usize| {
        part.is_some_and(|part| {
            let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            part.len() == length && part.iter().all(digit)
        })
    };
    let mut parts = value.split(|byte| *byte == b'-');
    let (version, trace) = (parts.next(), parts.next());
    let good = digits(version, 2)
        && version != Some(b"ff")
        && digits(trace, 32)
        && digits(parts.next(), 16)
        && digits(parts.next(), 2)
        && (version != Some(b"00") || parts.next().is_none());
    let trace = trace.filter(|trace| good && trace.iter().any(|digit| *digit != b'0'));
    std::str::from_utf8(trace?).ok()
}

/// Bytes of an id that are logged: any sort of id is shorter, and a header may be 64 KiB.
const LONGEST_ID: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_has_an_id_where_its_header_is_one() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        for good in [
            format!("00-{id}-00f067aa0ba902b7-01"),
            format!("01-{id}-00f067aa0ba902b7-01"),
            format!("01-{id}-00f067aa0ba902b7-01-more"),
        ] {
            assert_eq!(trace_id(good.as_bytes()), Some(id), "{good}");
        }
        for bad in [
            String::new(),
            id.to_owned(),
            format!("00-{id}"),
            format!("ff-{id}-00f067aa0ba902b7-01"),
            format!("00-{id}-00f067aa0ba902b7-01-more"),
            format!("00-{}-00f067aa0ba902b7-01", id.to_uppercase()),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{id}x-00f067aa0ba902b7-01"),
            format!("00-{id}-00f067aa0ba902b-01"),
        ] {
            assert_eq!(trace_id(bad.as_bytes()), None, "{bad}");
        }
    }
}
