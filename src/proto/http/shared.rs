//! The HTTP/2 connection of a worker to a backend, which many requests share. It has a task of its
//! own, unlike [`super::upstream`].

use super::{
    hub::Hub,
    site::Site,
    upload::Upload,
    upstream::{Lost, given_up},
    watch::Watch,
};
use crate::{
    net::{
        dial::{Opening, dial},
        early::Early,
    },
    topology::{Cluster, Connected},
};
use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, Uri, Version,
    header::{HOST, TRANSFER_ENCODING},
    uri::Scheme,
};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    pin::pin,
    sync::Arc,
    task::Poll,
};

/// A connection to send requests on; the clones lead to the same one.
#[derive(Clone)]
pub(super) struct Shared {
    send: SendRequest<Upload>,
    scheme: Scheme,
}

impl Shared {
    /// The backend's connection, dialled when there is none.
    ///
    /// # Errors
    /// Why the backend could not be connected to.
    pub(super) async fn open(hub: &Hub, cluster: &Cluster, site: &Site) -> io::Result<Self> {
        let open = site.shared.borrow().clone();
        if let Some(open) = open.filter(|open| !open.send.is_closed()) {
            return Ok(open);
        }
        let opening = Opening { alpn: &[b"h2"], ..Opening::tls(cluster.tls.as_ref()) };
        let stream = dial(&site.backend.address, opening, cluster.timeouts.connect).await?;
        let scheme = if stream.is_tls() { Scheme::HTTPS } else { Scheme::HTTP };
        let connected = Connected::new(hub.chooser.worker(), Arc::clone(&site.backend));
        let stream = Early::new(stream, Bytes::new());
        let counts = stream.counts();
        let (send, connection) = http2::Builder::new(hub.spawn.clone())
            .max_header_list_size(MAX_HEADER_LIST)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
            .max_send_buf_size(SEND_BUFFER)
            .max_pending_accept_reset_streams(RESETS_AT_ONCE)
            .max_local_error_reset_streams(FAULTY_STREAMS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        hub.spawn.start(async move {
            let (mut connection, cell) = (pin!(connection), connected.cell());
            let ended = poll_fn(|cx| {
                let polled = connection.as_mut().poll(cx);
                counts.settle(&cell.bytes_in, &cell.bytes_out);
                polled
            });
            if let Err(error) = ended.await {
                tracing::debug!("HTTP/2 connection to a backend: {error}");
            }
        });
        let shared = Self { send, scheme };
        *site.shared.borrow_mut() = Some(shared.clone());
        Ok(shared)
    }

    /// Sends one request and waits for the head of its reply.
    pub(super) async fn ask(
        &mut self,
        mut request: Request<Upload>,
        watch: &Watch,
    ) -> Result<Response<Incoming>, Lost> {
        address(&mut request, self.scheme.clone());
        let mut reply = pin!(self.send.try_send_request(request));
        poll_fn(|cx| {
            match reply.as_mut().poll(cx) {
                Poll::Ready(Ok(response)) => return Poll::Ready(Ok(response)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Lost::of(error, lost))),
                Poll::Pending => {}
            }
            given_up(watch, cx).map(Err)
        })
        .await
    }
}

/// Whether the backend may have begun with the request: not when its stream is beyond those that a
/// GOAWAY says were taken, nor when it was refused (RFC 9113, 8.7).
fn lost(error: hyper::Error) -> Lost {
    let source = std::error::Error::source(&error);
    let cause = source.and_then(|source| source.downcast_ref::<h2::Error>());
    let refused = |cause: &h2::Error| {
        let stream = cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
        cause.is_remote() && (cause.is_go_away() || stream)
    };
    if cause.is_some_and(refused) { Lost::Refused(error) } else { Lost::Broken(error) }
}

/// Over HTTP/2 the host is part of the URI, and a body needs no framing.
fn address(request: &mut Request<Upload>, scheme: Scheme) {
    let host = request.headers_mut().remove(HOST);
    request.headers_mut().remove(TRANSFER_ENCODING);
    *request.version_mut() = Version::HTTP_2;
    let host = host.as_ref().and_then(|host: &HeaderValue| host.to_str().ok()).unwrap_or("unknown");
    let mut parts = request.uri().clone().into_parts();
    parts.scheme = Some(scheme);
    parts.authority = host.parse().ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

/// Bytes of the head of a reply.
const MAX_HEADER_LIST: u32 = 64 * 1024;
/// Bytes of a reply's body that wait here for the client of one stream, and for those of all streams
/// together: hyper's defaults, 2 MiB and 5 MiB, are for one client that reads all.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// The smallest that RFC 9113, 6.5.2, allows, and what everybody uses.
const MAX_FRAME: u32 = 16 * 1024;
/// Bytes of a request's body that wait for the backend, on each stream.
const SEND_BUFFER: usize = 64 * 1024;
/// h2's own limits on a peer that breaks off what it began, said so that they stay: 20 streams in one
/// turn, and 1,024 streams that were no HTTP/2 in the life of a connection.
const RESETS_AT_ONCE: usize = 20;
const FAULTY_STREAMS: usize = 1024;
