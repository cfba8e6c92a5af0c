//! A request as it is handed to a connection, and once more if it may be. Not the decision whether
//! it is.

use super::{
    hub::Hub,
    upload::{Source, Times, Upload},
    watch::Watch,
};
use bytes::Bytes;
use http::{Extensions, Request, request::Parts};
use hyper::body::{Body, Incoming};
use std::{rc::Rc, time::Duration};

/// One request to be sent.
#[derive(Debug)]
pub(super) struct Parcel {
    /// In a box: it is large, and the request is moved about.
    head: Box<Parts>,
    /// More of its fields, as they go over the wire in HTTP/1.1.
    lines: Bytes,
    /// `None`: it has no body.
    source: Option<Rc<Source>>,
    again: Again,
    body_idle: Duration,
    expects: bool,
}

/// When a request may be sent a second time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Again {
    /// After it was sent, whatever became of it.
    pub(super) after_sent: bool,
    /// When a backend says that it has not begun with it, as HTTP/2 can.
    pub(super) when_refused: bool,
    /// Bytes may be kept for it.
    pub(super) room: bool,
}

impl Parcel {
    /// `lines`: more fields of its head, for HTTP/1.1 alone. `again`: when it may be sent a second time; a body is kept for that as far as it is short.
    pub(super) fn new(
        (head, lines): (Parts, Bytes),
        incoming: Incoming,
        hub: &Rc<Hub>,
        again: Again,
        body_idle: Duration,
        expects: bool,
    ) -> Self {
        let keeps = again.room && (again.after_sent || again.when_refused);
        let source = (!incoming.is_end_stream()).then(|| Source::new(incoming, keeps, hub));
        Self { head: Box::new(head), lines, source, again, body_idle, expects }
    }

    /// Whether it may be sent again after it was sent.
    pub(super) fn is_replayable(&self) -> bool {
        self.again.after_sent && self.is_kept()
    }

    /// Whether that stays so, however much of it is sent.
    pub(super) fn stays_replayable(&self) -> bool {
        self.again.after_sent && self.source.as_ref().is_none_or(|source| source.stays_whole())
    }

    /// Whether it may go elsewhere while a backend has it: one with a body waits for its answer.
    pub(super) fn is_movable(&self) -> bool {
        self.again.after_sent && self.source.is_none()
    }

    /// Whether all of it is here.
    pub(super) fn is_kept(&self) -> bool {
        self.source.as_ref().is_none_or(|source| source.is_whole())
    }

    /// Its head, and lines that go with it.
    pub(super) fn head(&self) -> (&Parts, &[u8]) {
        (&self.head, &self.lines)
    }

    /// Its body from the beginning, to be answered within `reply` of its end.
    pub(super) fn upload(&self, hub: &Hub, watch: &Rc<Watch>, reply: Duration) -> Upload {
        let times = Times { body: self.body_idle, reply };
        match &self.source {
            Some(source) => Upload::of(source, watch, times, self.expects),
            None => Upload::none(hub, watch, times),
        }
    }

    /// A copy to be handed over with `upload`.
    pub(super) fn copy(&self, upload: Upload) -> Request<Upload> {
        let (mut copy, upload) = Request::new(upload).into_parts();
        copy.method = self.head.method.clone();
        copy.uri = self.head.uri.clone();
        copy.version = self.head.version;
        copy.headers = self.head.headers.clone();
        // They are hyper's notes of the connection that it came on.
        copy.extensions = Extensions::new();
        Request::from_parts(copy, upload)
    }
}
