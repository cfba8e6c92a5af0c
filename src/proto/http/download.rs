//! The body of a reply on its way to the client: a short text, or a backend's, passed on part by
//! part as the client takes it. Not what is counted of it: see [`super::trip`].

use super::{broken::Broken, trip::Trip, upstream::Upstream};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// A reply's body.
#[derive(Debug)]
pub(super) enum Download {
    /// All of it is here; empty once it was taken.
    Text(Bytes),
    /// A backend's.
    Backend(Box<Passage>),
}

/// What brings a body.
#[derive(Debug)]
pub(super) enum Source {
    /// A connection for this reply alone, over HTTP/1.1: it moves only when this is polled.
    Own(Box<Upstream>),
    /// One that others are on too, over HTTP/2.
    Shared(Incoming),
}

impl Source {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self {
            Self::Own(upstream) => upstream.poll_body(cx),
            Self::Shared(incoming) => Pin::new(incoming).poll_frame(cx).map_err(Broken::Shared),
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Self::Own(upstream) => upstream.is_over(),
            Self::Shared(incoming) => incoming.is_end_stream(),
        }
    }
}

/// A body on its way from a backend.
#[derive(Debug)]
pub(super) struct Passage {
    /// `None`: it has ended.
    source: Option<Source>,
    trip: Trip,
    /// It has waited since the last look at the clock.
    waited: bool,
}

impl Download {
    /// The way of a reply's body; the connection goes back to its pool, and the request is counted,
    /// at its end.
    pub(super) fn new(mut source: Source, mut trip: Trip) -> Self {
        // A short body came with its head: no need to ask for it once more.
        let whole = match &mut source {
            Source::Own(upstream) if trip.ends_with_its_reply() || upstream.is_over() => {
                upstream.take_whole_body()
            }
            Source::Own(_) => None,
            Source::Shared(incoming) => incoming.is_end_stream().then(Bytes::new),
        };
        let Some(whole) = whole else {
            return Self::Backend(Box::new(Passage { source: Some(source), trip, waited: false }));
        };
        if !whole.is_empty() {
            trip.passed(whole.len());
        }
        trip.complete();
        if let Source::Own(upstream) = source {
            trip.give_back(upstream);
        }
        Self::Text(whole)
    }
}

impl Passage {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some(source) = &mut self.source else { return Poll::Ready(None) };
        if std::mem::take(&mut self.waited) {
            self.trip.look_at_clock();
        }
        let polled = source.poll(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.trip.passed(frame.data_ref().map_or(0, Bytes::len));
            }
            Poll::Ready(Some(Err(_))) => {
                self.source = None;
                self.trip.broken();
            }
            Poll::Ready(None) => self.trip.complete(),
            Poll::Pending => {
                self.waited = true;
                self.trip.waits();
                self.trip.watch().remember(cx);
            }
        }
        polled
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Text(text) if text.is_empty() => Poll::Ready(None),
            Self::Text(text) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(text))))),
            Self::Backend(passage) => passage.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Backend(passage) => passage.source.as_ref().is_none_or(Source::is_over),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => SizeHint::with_exact(text.len() as u64),
            Self::Backend(passage) => match &passage.source {
                Some(Source::Own(upstream)) => upstream.size_hint(),
                Some(Source::Shared(incoming)) => incoming.size_hint(),
                None => SizeHint::with_exact(0),
            },
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let Some(source) = self.source.take() else { return };
        // A body whose length was announced is not asked for its end.
        if source.is_over() {
            self.trip.complete();
        }
        if let Source::Own(upstream) = source
            && self.trip.is_complete()
        {
            self.trip.give_back(upstream);
        }
    }
}
