//! The body of a reply on its way to the client: a short text of ours, or a backend's, passed on
//! part by part as the client takes it. Not what is counted of it: see [`super::trip`].

use super::{trip::Trip, upstream::Upstream};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

/// A reply's body.
#[derive(Debug)]
pub(super) enum Download {
    /// Ours; empty once it was taken.
    Text(Bytes),
    /// A backend's.
    Backend(Box<Passage>),
}

/// A body on its way from a backend.
#[derive(Debug)]
pub(super) struct Passage {
    incoming: Incoming,
    /// What brings it, over HTTP/1.1: it moves only when this is driven.
    upstream: Option<Box<Upstream>>,
    trip: Trip,
    /// It has waited since the last look at the clock.
    waited: bool,
}

impl Passage {
    /// The way of a reply's body; the connection goes back to its pool, and the request is counted,
    /// at its end.
    pub(super) fn new(incoming: Incoming, upstream: Option<Box<Upstream>>, trip: Trip) -> Self {
        Self { incoming, upstream, trip, waited: false }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(upstream) = &mut self.upstream else {
            return Pin::new(&mut self.incoming).poll_frame(cx);
        };
        // Asking makes the connection read on, so it is driven after it was asked.
        let mut quiet = Context::from_waker(Waker::noop());
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(&mut quiet) {
            return Poll::Ready(frame);
        }
        upstream.drive(cx);
        Pin::new(&mut self.incoming).poll_frame(&mut quiet)
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let passage = match self.get_mut() {
            Self::Text(text) if text.is_empty() => return Poll::Ready(None),
            Self::Text(text) => return Poll::Ready(Some(Ok(Frame::data(std::mem::take(text))))),
            Self::Backend(passage) => passage,
        };
        if std::mem::take(&mut passage.waited) {
            passage.trip.look_at_clock();
        }
        let polled = passage.poll(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                passage.trip.passed(frame.data_ref().map_or(0, Bytes::len));
            }
            Poll::Ready(Some(Err(_))) => passage.trip.broken(),
            Poll::Ready(None) => passage.trip.complete(),
            Poll::Pending => {
                passage.waited = true;
                passage.trip.waits();
                passage.trip.watch().remember(cx);
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Backend(passage) => passage.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => SizeHint::with_exact(text.len() as u64),
            Self::Backend(passage) => passage.incoming.size_hint(),
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        // A body whose length was announced is not asked for its end.
        if self.incoming.is_end_stream() {
            self.trip.complete();
        }
        if let Some(upstream) = self.upstream.take()
            && self.trip.is_complete()
        {
            self.trip.give_back(upstream);
        }
    }
}
