//! The body of a request on its way to the backend. It is passed on part by part as the backend
//! takes it, never gathered.

use super::{
    hub::Hub,
    watch::{Phase, Watch},
};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

/// A client's body, and how long it may keep silent.
#[derive(Debug)]
pub(super) struct Upload {
    /// `None`: there is none, as the copy of a request has none.
    incoming: Option<Incoming>,
    hub: Rc<Hub>,
    watch: Rc<Watch>,
    times: Times,
    /// A client that asked whether to send (`Expect: 100-continue`) is told once the backend says
    /// so, and when it has not after [`LONGEST_EXPECTATION_US`].
    expects: Option<Expects>,
}

/// How long each wait may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// For the next part of a body, either way.
    pub(super) body: Duration,
    /// For the head of the reply, from the end of the request on.
    pub(super) reply: Duration,
}

#[derive(Debug)]
struct Expects {
    allowed: Arc<AtomicBool>,
    until_us: u64,
}

impl Upload {
    pub(super) fn new(
        incoming: Option<Incoming>,
        hub: Rc<Hub>,
        watch: Rc<Watch>,
        times: Times,
    ) -> Self {
        let upload = Self { incoming, hub, watch, times, expects: None };
        upload.watch.ask(u64::MAX);
        if upload.is_end_stream() {
            upload.finished();
        } else {
            upload.enter(Phase::Upload, times.body);
        }
        upload
    }

    /// Holds the body back until the backend has said that it wants it.
    pub(super) fn expect(&mut self) -> Arc<AtomicBool> {
        let allowed = Arc::new(AtomicBool::new(false));
        let until_us = self.hub.now_us() + LONGEST_EXPECTATION_US;
        self.expects = Some(Expects { allowed: Arc::clone(&allowed), until_us });
        allowed
    }

    /// All of the request was handed over: now the backend has to answer.
    fn finished(&self) {
        self.watch.ask(self.hub.now_us());
        self.enter(Phase::Waiting, self.times.reply);
    }

    /// Waits for that from now on. Once the reply has begun it is the reply that is waited for, and
    /// what passes the other way prolongs that.
    fn enter(&self, phase: Phase, time: Duration) {
        let now_us = self.hub.now_us();
        if self.watch.has_replied() {
            self.watch.enter(self.watch.phase(), Hub::after(now_us, self.times.body));
        } else {
            self.watch.enter(phase, Hub::after(now_us, time));
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(expects) = &self.expects {
            let allowed = expects.allowed.load(Ordering::Relaxed);
            if self.watch.has_replied() {
                // The final answer came first: the body is not wanted.
                return Poll::Pending;
            }
            if !allowed && self.hub.now_us() < expects.until_us {
                self.watch.enter(Phase::Upload, expects.until_us);
                self.watch.remember(cx);
                return Poll::Pending;
            }
            self.expects = None;
            self.enter(Phase::Upload, self.times.body);
        }
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let polled = Pin::new(incoming).poll_frame(cx);
        let Poll::Ready(frame) = polled else {
            if !self.watch.has_replied() && self.watch.phase() != Phase::Upload {
                self.enter(Phase::Upload, self.times.body);
            }
            return Poll::Pending;
        };
        match &frame {
            Some(Ok(frame)) => {
                let len = frame.data_ref().map_or(0, Bytes::len) as u64;
                self.watch.received.set(self.watch.received.get() + len);
                if self.is_end_stream() {
                    self.finished();
                } else {
                    // From here to the next look at the client it is the backend that takes it.
                    self.enter(Phase::Waiting, self.times.body);
                }
            }
            None => self.finished(),
            Some(Err(_)) => self.watch.break_body(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

/// A backend that knows nothing of expectations waits for the body (RFC 9110, 10.1.1: a client may
/// not wait for ever); a second is curl's own patience.
const LONGEST_EXPECTATION_US: u64 = 1_000_000;
