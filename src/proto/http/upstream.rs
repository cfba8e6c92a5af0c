//! One HTTP/1.1 connection to a backend, for one request at a time. It is driven by whoever has it,
//! in that task: no task of its own is woken between the backend's reply and the client's. Not the
//! bytes of a request or a reply: see [`super::writing`] and [`super::reading`].

use super::{
    broken::Broken,
    hub::Hub,
    reading::{self, Body},
    upload::Upload,
    watch::Watch,
    writing::Writing,
};
use crate::{net::stream::Stream, topology::Connected};
use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, request, response};
use http_body::{Frame, SizeHint};
use std::{
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

/// An open connection.
pub(super) struct Upstream {
    stream: Stream,
    connected: Connected,
    /// Of the request under way.
    method: Method,
    writing: Writing,
    /// A byte of it has left.
    sent: bool,
    /// What was read and not passed on.
    unread: Bytes,
    /// What is left of the reply.
    body: Body,
    /// The backend takes another request afterwards.
    keep: bool,
    /// Why the request was not written to its end. A reply may be there nevertheless.
    unwritten: Option<Broken>,
}

/// Why there is no reply.
#[derive(Debug)]
pub(super) enum Lost {
    /// The connection was over before anything was sent.
    Unsent,
    /// The backend says that it has not begun with it (RFC 9113, 8.7).
    Refused(Broken),
    /// It broke, or the backend does not speak HTTP.
    Broken(Broken),
    /// The time is over.
    Due,
    /// The backend is out, and the request may go to another one.
    Moved,
}

/// Why nobody waits for a reply any longer; while somebody does, `watch` wakes the task of `cx`.
pub(super) fn given_up(watch: &Watch, cx: &Context<'_>) -> Poll<Lost> {
    if watch.is_due() {
        return Poll::Ready(Lost::Due);
    }
    if watch.take_moved() {
        return Poll::Ready(Lost::Moved);
    }
    watch.remember(cx);
    Poll::Pending
}

impl Upstream {
    /// Speaks HTTP on a fresh connection.
    pub(super) fn new(stream: Stream, connected: Connected) -> Self {
        Self {
            stream,
            connected,
            method: Method::GET,
            writing: Writing::default(),
            sent: false,
            unread: Bytes::new(),
            body: Body::Length(0),
            keep: true,
            unwritten: None,
        }
    }

    /// Sends one request and waits for the head of its reply. The request is written before the
    /// wait begins: nothing of it is kept in the future.
    pub(super) fn ask<'a>(
        &'a mut self,
        head: (&request::Parts, &[u8]),
        upload: Upload,
        hub: &'a Hub,
        watch: &'a Watch,
    ) -> impl Future<Output = Result<response::Parts, Lost>> + use<'a> {
        self.begin(head, upload, hub);
        poll_fn(move |cx| match self.poll_head(cx, hub) {
            Poll::Ready(head) => Poll::Ready(head.map_err(|error| self.lost(error))),
            Poll::Pending => given_up(watch, cx).map(Err),
        })
    }

    fn lost(&self, error: Broken) -> Lost {
        let ours = matches!(error, Broken::Body(_));
        if self.sent || ours { Lost::Broken(error) } else { Lost::Unsent }
    }

    fn begin(&mut self, head: (&request::Parts, &[u8]), upload: Upload, hub: &Hub) {
        let mut out = hub.stock.buffer();
        self.method = head.0.method.clone();
        self.writing = Writing::new(head, upload, &mut out);
        // Most requests are a head that goes at once; a body goes with its head.
        let sent =
            if self.writing.is_over() { self.stream.try_write(&out).unwrap_or(0) } else { 0 };
        self.sent = sent > 0;
        self.connected.cell().bytes_out.add(sent as u64);
        self.writing.keep(out.get(sent..).unwrap_or_default());
        hub.stock.give(out);
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        hub: &Hub,
    ) -> Poll<Result<response::Parts, Broken>> {
        loop {
            self.send(cx)?;
            while !self.unread.is_empty() {
                let Some(head) = reading::head(&mut self.unread, &self.method)? else { break };
                let status = head.parts.status;
                if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                    (self.body, self.keep) = (head.body, head.keep);
                    return Poll::Ready(Ok(head.parts));
                }
                if status == StatusCode::CONTINUE {
                    self.writing.go_on();
                    self.send(cx)?;
                }
            }
            ready!(self.stream.poll_read_ready(cx)).map_err(Broken::Io)?;
            let mut buffer = hub.stock.buffer();
            let read = self.read(cx, &mut buffer);
            if let Poll::Ready(Ok(1..)) = read {
                self.take_in(&buffer);
            }
            hub.stock.give(buffer);
            match ready!(read) {
                Ok(0) => return Poll::Ready(Err(self.unwritten.take().unwrap_or(Broken::Closed))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// The next part of the reply's body.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.send(cx)?;
        loop {
            let frame = self.body.next(&mut self.unread)?;
            if frame.is_some() || self.body.is_over() {
                return Poll::Ready(frame.map(Ok));
            }
            ready!(self.stream.poll_read_ready(cx)).map_err(Broken::Io)?;
            let mut buffer = BytesMut::with_capacity(self.body.room());
            match ready!(self.read(cx, &mut buffer))? {
                0 => self.body.close()?,
                // What waits for a slow client is not to hold much more than it counts for.
                read if !self.unread.is_empty() || read < buffer.capacity() / 2 => {
                    self.take_in(&buffer);
                }
                _ => self.unread = buffer.freeze(),
            }
        }
    }

    /// All of the reply's body, when it has come with its head and has no end of its own.
    pub(super) fn take_whole_body(&mut self) -> Option<Bytes> {
        let Body::Length(length) = self.body else { return None };
        let length = usize::try_from(length).ok().filter(|length| *length <= self.unread.len())?;
        self.body = Body::Length(0);
        Some(self.unread.split_to(length))
    }

    /// Whether all of the reply was passed on.
    pub(super) fn is_over(&self) -> bool {
        self.body.is_over()
    }

    /// How much of it is left.
    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    /// Goes on with the request. That it cannot be written is remembered: the reply may be there.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        let over = self.writing.is_over() && self.stream.unsent() == 0;
        if over || self.unwritten.is_some() {
            return Ok(());
        }
        let (any, bytes_out) = (&mut self.sent, &self.connected.cell().bytes_out);
        let sent = |sent: usize| {
            *any = true;
            bytes_out.add(sent as u64);
        };
        match self.writing.poll(cx, &mut self.stream, sent) {
            Poll::Ready(Err(error @ Broken::Body(_))) => return Err(error),
            Poll::Ready(Err(error)) => self.unwritten = Some(error),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        Ok(())
    }

    fn read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut impl bytes::BufMut,
    ) -> Poll<Result<usize, Broken>> {
        let read = ready!(poll_read_buf(Pin::new(&mut self.stream), cx, buffer));
        let read = read.map_err(Broken::Io)?;
        self.connected.cell().bytes_in.add(read as u64);
        Poll::Ready(Ok(read))
    }

    fn take_in(&mut self, read: &[u8]) {
        self.unread = if self.unread.is_empty() {
            Bytes::copy_from_slice(read)
        } else {
            Bytes::from([&*self.unread, read].concat())
        };
    }

    /// Whether it is done with its request and may take another.
    pub(super) fn is_free(&self) -> bool {
        self.keep
            && self.body.is_over()
            && self.unread.is_empty()
            && self.unwritten.is_none()
            && self.writing.is_over()
            && self.stream.unsent() == 0
    }

    /// Whether it can take a request now: the backend has neither closed it nor said what nobody
    /// asked for.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        // A task whose turn is over would be told that there is nothing.
        let read = poll_fn(|cx| Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
        let read = pin!(tokio::task::unconstrained(read));
        read.poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// The bare connection after a reply that says so (101), with what of it was read already.
    pub(super) fn into_stream(self) -> (Stream, Bytes, Connected) {
        (self.stream, self.unread, self.connected)
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("free", &self.is_free()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Backend;
    use std::sync::Arc;
    use tokio::{
        net::UnixStream,
        task::coop::{consume_budget, has_budget_remaining},
    };

    #[tokio::test]
    async fn a_close_is_seen_by_a_task_whose_turn_is_over() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let backend = Backend::new(0, "c".into(), "s".into(), "a:1".parse().unwrap(), 1, 1);
        let connected = Connected::new(0, Arc::new(backend));
        let mut upstream = Upstream::new(Stream::Unix(ours), connected);
        assert!(upstream.is_quiet() && upstream.is_free());
        drop(theirs);
        poll_fn(|cx| upstream.stream.poll_read_ready(cx)).await.unwrap();
        let mut quiet = Context::from_waker(Waker::noop());
        while has_budget_remaining() {
            assert!(pin!(consume_budget()).poll(&mut quiet).is_ready());
        }
        assert!(!upstream.is_quiet());
    }
}
