//! A request as it is handed to a connection, and once more if it may be. Not the decision whether
//! it is.

use super::{
    hub::Hub,
    upload::{Times, Upload},
    watch::Watch,
};
use http::{Extensions, Request, request::Parts};
use hyper::body::{Body, Incoming};
use std::{rc::Rc, time::Duration};

/// One request to be sent.
#[derive(Debug)]
pub(super) struct Parcel {
    state: State,
    /// It may be sent again after it was sent.
    replayable: bool,
    /// What was handed over does not come back, so one that may be sent again is copied first.
    kept: bool,
    body_idle: Duration,
    expects: bool,
}

#[derive(Debug)]
enum State {
    /// Nothing was handed over.
    Fresh(Box<Whole>),
    /// It came back as it was.
    Returned(Box<Request<Upload>>),
    /// A copy of its head was handed over.
    Copied(Box<Whole>),
    /// It was handed over, and is gone.
    Gone,
}

/// A request as it came.
#[derive(Debug)]
struct Whole {
    head: Parts,
    /// Until it was handed over.
    incoming: Option<Incoming>,
}

/// When a request may be sent a second time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Again {
    /// After it was sent, whatever became of it.
    pub(super) after_sent: bool,
    /// When a backend says that it has not begun with it, as HTTP/2 can.
    pub(super) when_refused: bool,
}

impl Parcel {
    /// `again`: when it may be sent a second time, which it must have no body for.
    pub(super) fn new(
        head: Parts,
        incoming: Incoming,
        again: Again,
        body_idle: Duration,
        expects: bool,
    ) -> Self {
        let empty = incoming.is_end_stream();
        let replayable = again.after_sent && empty;
        let kept = (again.after_sent || again.when_refused) && empty;
        let state = State::Fresh(Box::new(Whole { head, incoming: Some(incoming) }));
        Self { state, replayable, kept, body_idle, expects }
    }

    /// Whether it may be sent again after it was sent.
    pub(super) fn is_replayable(&self) -> bool {
        self.replayable
    }

    /// Whether there is something to send again.
    pub(super) fn is_kept(&self) -> bool {
        !matches!(self.state, State::Gone)
    }

    /// The request, to be answered within `reply` of its end.
    pub(super) fn take(
        &mut self,
        hub: &Rc<Hub>,
        watch: &Rc<Watch>,
        reply: Duration,
    ) -> Request<Upload> {
        let times = Times { body: self.body_idle, reply };
        let upload = |incoming| Upload::new(incoming, hub, watch, times);
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Fresh(mut whole) => {
                let upload = upload(whole.incoming.take());
                let head = if self.kept {
                    let head = copy(&whole.head);
                    self.state = State::Copied(whole);
                    head
                } else {
                    whole.head
                };
                let mut request = Request::from_parts(head, upload);
                let expected = if self.expects { request.body_mut().expect() } else { None };
                if let Some(allowed) = expected {
                    hyper::ext::on_informational(&mut request, move |reply| {
                        if reply.status() == http::StatusCode::CONTINUE {
                            allowed.store(true, std::sync::atomic::Ordering::Relaxed);
                        }
                    });
                }
                request
            }
            State::Returned(request) => *request,
            State::Copied(whole) => {
                let head = copy(&whole.head);
                self.state = State::Copied(whole);
                Request::from_parts(head, upload(None))
            }
            State::Gone => unreachable!("what is gone is not sent again"),
        }
    }

    /// Takes it back: nothing of it was sent. One that is kept has no body, and its head is here.
    pub(super) fn put_back(&mut self, request: Box<Request<Upload>>) {
        if !self.kept {
            self.state = State::Returned(request);
        }
    }
}

/// All of a head but its extensions, which are hyper's notes of the connection it came on.
fn copy(head: &Parts) -> Parts {
    let (mut copy, ()) = Request::new(()).into_parts();
    copy.method = head.method.clone();
    copy.uri = head.uri.clone();
    copy.version = head.version;
    copy.headers = head.headers.clone();
    copy.extensions = Extensions::new();
    copy
}
