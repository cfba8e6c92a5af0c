//! The body of a request on its way to the backend. It is passed on part by part as the backend
//! takes it, and gathered only as far as it may have to be sent once more.

use super::{
    hub::Hub,
    watch::{Phase, Watch},
};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

/// A client's body, whichever try takes it.
#[derive(Debug)]
pub(super) struct Source {
    hub: Rc<Hub>,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    incoming: Incoming,
    /// Bytes of the whole body, where it was announced.
    length: Option<u64>,
    /// What was taken of it; `None`: it was too much, or nobody will want it again.
    kept: Option<Vec<u8>>,
    trailers: Option<HeaderMap>,
    /// Something was taken.
    begun: bool,
    /// All was.
    ended: bool,
    /// The try that may take of it; an earlier one is over, although its connection may not know.
    newest: u32,
}

impl Source {
    /// `again`: it may have to be sent once more.
    pub(super) fn new(incoming: Incoming, again: bool, hub: &Rc<Hub>) -> Rc<Self> {
        let length = incoming.size_hint().exact();
        let kept = (again && length.is_none_or(|length| length <= MOST_KEPT)).then(Vec::new);
        let state =
            State { incoming, length, kept, trailers: None, begun: false, ended: false, newest: 0 };
        Rc::new(Self { hub: Rc::clone(hub), state: RefCell::new(state) })
    }

    /// Whether it can be sent from its beginning.
    pub(super) fn is_whole(&self) -> bool {
        let state = self.state.borrow();
        !state.begun || state.kept.is_some()
    }

    /// Whether it will be, however much of it has been sent by then.
    pub(super) fn stays_whole(&self) -> bool {
        let state = self.state.borrow();
        state.kept.is_some() && state.length.is_some()
    }
}

impl State {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        hub: &Hub,
    ) -> Poll<Option<Result<Part, hyper::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = std::task::ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        self.begun = true;
        let Some(frame) = frame.transpose()? else {
            self.ended = true;
            return Poll::Ready(None);
        };
        if let Some(data) = frame.data_ref() {
            self.keep(data, hub);
        } else if let (Some(_), Some(trailers)) = (&self.kept, frame.trailers_ref()) {
            self.trailers = Some(trailers.clone());
        }
        Poll::Ready(Some(Ok(frame)))
    }

    /// A copy: what hyper gives is a part of a buffer, which may be much larger.
    fn keep(&mut self, data: &Bytes, hub: &Hub) {
        let Some(kept) = &mut self.kept else { return };
        if (kept.len() + data.len()) as u64 > MOST_KEPT {
            hub.metrics.buffered.sub(kept.len() as u64);
            self.kept = None;
            return;
        }
        hub.metrics.buffered.add(data.len() as u64);
        kept.extend_from_slice(data);
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let kept = self.state.get_mut().kept.as_ref().map_or(0, Vec::len);
        self.hub.metrics.buffered.sub(kept as u64);
    }
}

type Part = Frame<Bytes>;

/// One try to send a body; `None`: there is none. In a box: few requests have one.
#[derive(Debug, Default)]
pub(super) struct Upload(Option<Box<Flow>>);

/// A body on its way, and how long the client may keep silent.
#[derive(Debug)]
struct Flow {
    source: Rc<Source>,
    /// Which try this is.
    turn: u32,
    /// Bytes that have gone this time.
    passed: u64,
    trailed: bool,
    watch: Rc<Watch>,
    times: Times,
    /// Until when a client that asked whether to send (`Expect: 100-continue`) waits for the backend
    /// to say so: at most [`LONGEST_EXPECTATION_US`].
    expects_us: Option<u64>,
}

/// How long each wait may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// For the next part of a body, either way.
    pub(super) body: Duration,
    /// For the head of the reply, from the end of the request on.
    pub(super) reply: Duration,
}

impl Upload {
    /// Nothing follows the head.
    pub(super) fn none(hub: &Hub, watch: &Watch, times: Times) -> Self {
        let now_us = hub.now_us();
        watch.ask(now_us);
        watch.enter(Phase::Waiting, Hub::after(now_us, times.reply));
        Self(None)
    }

    /// The body of `source`, from its beginning. `expects`: it is held back until the backend says
    /// that it wants it.
    pub(super) fn of(source: &Rc<Source>, watch: &Rc<Watch>, times: Times, expects: bool) -> Self {
        let (turn, expects) = {
            let mut state = source.state.borrow_mut();
            state.newest += 1;
            (state.newest, expects && !state.begun)
        };
        watch.ask(u64::MAX);
        let expects_us = expects.then(|| source.hub.now_us() + LONGEST_EXPECTATION_US);
        let (source, watch) = (Rc::clone(source), Rc::clone(watch));
        let flow = Flow { source, turn, passed: 0, trailed: false, watch, times, expects_us };
        flow.enter(Phase::Upload, times.body);
        Self(Some(Box::new(flow)))
    }

    /// The backend says that it wants the body.
    pub(super) fn go_on(&mut self) {
        let Some(flow) = &mut self.0 else { return };
        if flow.expects_us.take().is_some() {
            flow.enter(Phase::Upload, flow.times.body);
        }
    }
}

impl Flow {
    fn hub(&self) -> &Hub {
        &self.source.hub
    }

    /// All of the request was handed over: now the backend has to answer.
    fn finished(&self) {
        self.watch.ask(self.hub().now_us());
        self.enter(Phase::Waiting, self.times.reply);
    }

    /// Waits for that from now on. Once the reply has begun it is the reply that is waited for, and
    /// what passes the other way prolongs that.
    fn enter(&self, phase: Phase, time: Duration) {
        let now_us = self.hub().now_us();
        if self.watch.has_replied() {
            self.watch.enter(self.watch.phase(), Hub::after(now_us, self.times.body));
        } else {
            self.watch.enter(phase, Hub::after(now_us, time));
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, hyper::Error>>> {
        if let Some(until_us) = self.expects_us {
            if self.watch.has_replied() {
                // The final answer came first: the body is not wanted.
                return Poll::Pending;
            }
            if self.hub().now_us() < until_us {
                self.watch.enter(Phase::Upload, until_us);
                self.watch.remember(cx);
                return Poll::Pending;
            }
            self.expects_us = None;
            self.enter(Phase::Upload, self.times.body);
        }
        let Poll::Ready(frame) = self.next(cx) else {
            if !self.watch.has_replied() && self.watch.phase() != Phase::Upload {
                self.enter(Phase::Upload, self.times.body);
            }
            return Poll::Pending;
        };
        match &frame {
            Some(Ok(frame)) => {
                self.passed += frame.data_ref().map_or(0, Bytes::len) as u64;
                self.watch.received.set(self.watch.received.get().max(self.passed));
                if self.is_over() {
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

    /// What an earlier try has had already, then what comes.
    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, hyper::Error>>> {
        let mut state = self.source.state.borrow_mut();
        if state.newest != self.turn {
            return Poll::Pending;
        }
        let passed = usize::try_from(self.passed).unwrap_or(usize::MAX);
        let missed = state.kept.as_ref().and_then(|kept| kept.get(passed..));
        if let Some(missed) = missed.filter(|missed| !missed.is_empty()) {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(missed)))));
        }
        if !self.trailed
            && let Some(trailers) = &state.trailers
        {
            self.trailed = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))));
        }
        let polled = state.poll(cx, &self.source.hub);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.trailed |= frame.is_trailers();
        }
        polled
    }

    /// Whether nothing more comes.
    fn is_over(&self) -> bool {
        let state = self.source.state.borrow();
        let missed = state.kept.as_ref().is_some_and(|kept| (kept.len() as u64) > self.passed);
        let untold = state.trailers.is_some() && !self.trailed;
        !missed && !untold && (state.ended || state.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.source.state.borrow().length;
        length.map_or_else(SizeHint::default, |length| {
            SizeHint::with_exact(length.saturating_sub(self.passed))
        })
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Part, hyper::Error>>> {
        self.0.as_mut().map_or(Poll::Ready(None), |flow| flow.poll(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|flow| flow.is_over())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |flow| flow.size_hint())
    }
}

/// http-tcp.md: so much of a request that may be retried is kept.
const MOST_KEPT: u64 = 64 * 1024;
/// A backend that knows nothing of expectations waits for the body (RFC 9110, 10.1.1: a client may
/// not wait for ever); a second is curl's own patience.
const LONGEST_EXPECTATION_US: u64 = 1_000_000;
