//! One HTTP/1.1 connection to a backend, for one request at a time. It is driven by whoever has it,
//! in that task: no task of its own is woken between the backend's reply and the client's.

use super::{upload::Upload, watch::Watch};
use crate::{
    net::{
        early::{Counts, Early},
        stream::Stream,
    },
    topology::Connected,
};
use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{self, Connection, SendRequest},
    },
};
use hyper_util::rt::TokioIo;
use std::{
    error::Error,
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// An open connection.
pub(super) struct Upstream {
    send: SendRequest<Upload>,
    connection: Connection<TokioIo<Early>, Upload>,
    open: bool,
    counts: Rc<Counts>,
    connected: Connected,
}

/// Why there is no reply.
#[derive(Debug)]
pub(super) enum Lost {
    /// The connection was over before anything was sent: here is the request again.
    Unsent(Box<Request<Upload>>),
    /// The backend says that it has not begun with it (RFC 9113, 8.7).
    Refused(hyper::Error),
    /// It broke, or the backend does not speak HTTP.
    Broken(hyper::Error),
    /// The time is over.
    Due,
    /// The backend is out, and the request may go to another one.
    Moved,
}

impl Lost {
    /// What hyper could not send comes back; `sent` says what has become of all else.
    pub(super) fn of(
        mut error: TrySendError<Request<Upload>>,
        sent: impl FnOnce(hyper::Error) -> Self,
    ) -> Self {
        match error.take_message() {
            Some(request) => Self::Unsent(Box::new(request)),
            None => sent(error.into_error()),
        }
    }
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

/// An error with its cause, which says more.
pub(super) fn told(error: &hyper::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl Upstream {
    /// Begins to speak HTTP on a fresh connection.
    ///
    /// # Errors
    /// When hyper refuses, which it has no reason to.
    pub(super) async fn new(stream: Stream, connected: Connected) -> hyper::Result<Self> {
        let stream = Early::new(stream, Bytes::new());
        let counts = stream.counts();
        let (send, connection) = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .max_header_size(BUFFER)
            .max_buf_size(BUFFER)
            .handshake(TokioIo::new(stream))
            .await?;
        Ok(Self { send, connection, open: true, counts, connected })
    }

    /// Sends one request and waits for the head of its reply. The request is handed over before the
    /// wait begins: kept in the future it would make every one of them half a kilobyte larger.
    pub(super) fn ask<'a>(
        &'a mut self,
        request: Request<Upload>,
        watch: &'a Watch,
    ) -> impl Future<Output = Result<Response<Incoming>, Lost>> + use<'a> {
        let reply = self.send.try_send_request(request);
        self.wait(reply, watch)
    }

    async fn wait(
        &mut self,
        reply: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Upload>>>>,
        watch: &Watch,
    ) -> Result<Response<Incoming>, Lost> {
        let mut reply = pin!(reply);
        // Only the connection, which is polled here, can bring the reply: nobody else need wake us.
        let mut quiet = Context::from_waker(Waker::noop());
        let (connection, open) = (&mut self.connection, &mut self.open);
        let (counts, cell) = (&*self.counts, self.connected.cell());
        poll_fn(|cx| {
            if *open {
                *open = connection.poll_without_shutdown(cx).is_pending();
                counts.settle(&cell.bytes_in, &cell.bytes_out);
            }
            match reply.as_mut().poll(&mut quiet) {
                Poll::Ready(Ok(response)) => {
                    // Its body will be asked for in this very turn. A connection that waits with
                    // our waker would wake us for that, for nothing.
                    if *open {
                        *open = connection.poll_without_shutdown(&mut quiet).is_pending();
                    }
                    return Poll::Ready(Ok(response));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Lost::of(error, Lost::Broken))),
                Poll::Pending => {}
            }
            given_up(watch, cx).map(Err)
        })
        .await
    }

    /// Lets the connection go on: a reply's body moves by this alone.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if self.open {
            self.open = self.connection.poll_without_shutdown(cx).is_pending();
            let cell = self.connected.cell();
            self.counts.settle(&cell.bytes_in, &cell.bytes_out);
        }
    }

    /// Whether it can take another request now: open, and done with the last one.
    pub(super) fn settle(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.open && self.send.is_ready()
    }

    /// The bare connection after a reply that says so (101), with what of it was read already.
    pub(super) fn into_stream(self) -> (Stream, Bytes, Connected) {
        let parts = self.connection.into_parts();
        let (stream, _) = parts.io.into_inner().into_parts();
        (stream, parts.read_buf, self.connected)
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("open", &self.open).finish_non_exhaustive()
    }
}

/// Of a reply; hyper's own default is 100.
const MAX_HEADERS: usize = 256;
/// Bytes of the head of a reply, and of a body in either direction that wait at one connection; as
/// much as a client may send in a head. hyper's own default is 408 KiB.
const BUFFER: usize = 64 * 1024;
