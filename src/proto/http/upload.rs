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

/// A client's body; `None`: there is none. In a box: each connection to a backend has room for
/// many requests, and few of them have a body.
#[derive(Debug)]
pub(super) struct Upload(Option<Box<Flow>>);

/// A body on its way, and how long the client may keep silent.
#[derive(Debug)]
struct Flow {
    incoming: Incoming,
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
        hub: &Rc<Hub>,
        watch: &Rc<Watch>,
        times: Times,
    ) -> Self {
        let Some(incoming) = incoming.filter(|incoming| !incoming.is_end_stream()) else {
            let now_us = hub.now_us();
            watch.ask(now_us);
            watch.enter(Phase::Waiting, Hub::after(now_us, times.reply));
            return Self(None);
        };
        watch.ask(u64::MAX);
        let (hub, watch) = (Rc::clone(hub), Rc::clone(watch));
        let flow = Flow { incoming, hub, watch, times, expects: None };
        flow.enter(Phase::Upload, times.body);
        Self(Some(Box::new(flow)))
    }

    /// Holds the body back until the backend has said that it wants it; `None`: there is none.
    pub(super) fn expect(&mut self) -> Option<Arc<AtomicBool>> {
        let flow = self.0.as_mut()?;
        let allowed = Arc::new(AtomicBool::new(false));
        let until_us = flow.hub.now_us() + LONGEST_EXPECTATION_US;
        flow.expects = Some(Expects { allowed: Arc::clone(&allowed), until_us });
        Some(allowed)
    }
}

impl Flow {
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

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
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
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
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
                if self.incoming.is_end_stream() {
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
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.0.as_mut().map_or(Poll::Ready(None), |flow| flow.poll(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|flow| flow.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |flow| flow.incoming.size_hint())
    }
}

/// A backend that knows nothing of expectations waits for the body (RFC 9110, 10.1.1: a client may
/// not wait for ever); a second is curl's own patience.
const LONGEST_EXPECTATION_US: u64 = 1_000_000;
