//! The HTTP/2 connection of a worker to a backend, which many requests share. It has a task of its
//! own, unlike [`super::upstream`].

use super::{
    broken::Broken,
    download::Source,
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
    HeaderValue, Request, Uri, Version,
    header::{HOST, TRANSFER_ENCODING},
    response::Parts,
    uri::Scheme,
};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::{
    cell::{Cell, RefCell},
    fmt,
    future::{Future, poll_fn},
    io,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};
use tokio::sync::watch::{self, Receiver};

/// A connection to send requests on; the clones lead to the same one.
#[derive(Clone)]
pub(super) struct Shared {
    send: SendRequest<Upload>,
    scheme: Scheme,
}

/// A backend's connection on one worker.
#[derive(Debug, Default)]
pub(super) struct Joint {
    open: RefCell<Option<Shared>>,
    /// What becomes of the dial that is under way, for those who wait for the same.
    dialling: RefCell<Option<Receiver<Option<Dialled>>>>,
    /// When it was last in use, and how long it may be idle.
    used_us: Cell<u64>,
    idle_us: Cell<u64>,
}

/// How a dial ended, to be told to several.
type Dialled = Result<Shared, (io::ErrorKind, String)>;

impl Joint {
    /// The backend's connection, dialled when there is none: once, however many ask. `idle`: how
    /// long it is kept while nothing is under way.
    ///
    /// # Errors
    /// Why the backend could not be connected to.
    pub(super) async fn get(
        &self,
        hub: &Hub,
        cluster: &Cluster,
        site: &Site,
        idle: Duration,
    ) -> io::Result<Shared> {
        self.idle_us.set(u64::try_from(idle.as_micros()).unwrap_or(u64::MAX));
        loop {
            self.used_us.set(hub.now_us());
            let open = self.open.borrow().clone();
            if let Some(open) = open.filter(|open| !open.send.is_closed()) {
                return Ok(open);
            }
            let dialling = self.dialling.borrow().clone();
            let Some(mut dialling) = dialling else { break };
            // An error: whoever dialled has gone away with its client.
            if let Ok(ended) = dialling.wait_for(Option::is_some).await
                && let Some(ended) = &*ended
            {
                return ended.clone().map_err(|(kind, text)| io::Error::new(kind, text));
            }
        }
        let (tell, told) = watch::channel(None);
        *self.dialling.borrow_mut() = Some(told);
        let under_way = UnderWay(self);
        let dialled = Shared::dial(hub, cluster, site).await;
        drop(under_way);
        if let Ok(shared) = &dialled {
            self.used_us.set(hub.now_us());
            *self.open.borrow_mut() = Some(shared.clone());
        }
        let _ = tell.send(Some(match &dialled {
            Ok(shared) => Ok(shared.clone()),
            Err(error) => Err((error.kind(), error.to_string())),
        }));
        dialled
    }

    /// Nothing new is begun on it; it is closed when what it has under way is over.
    pub(super) fn close(&self) {
        self.open.borrow_mut().take();
    }

    /// Closes it when it was idle for too long; `used`: something is under way at the backend.
    pub(super) fn sweep(&self, now_us: u64, used: bool) {
        if used {
            self.used_us.set(now_us);
        } else if self.used_us.get().saturating_add(self.idle_us.get()) <= now_us {
            self.close();
        }
    }
}

/// A dial, also when it is given up.
struct UnderWay<'a>(&'a Joint);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.dialling.borrow_mut().take();
    }
}

impl Shared {
    async fn dial(hub: &Hub, cluster: &Cluster, site: &Site) -> io::Result<Self> {
        let opening = Opening { alpn: &[b"h2"], ..Opening::tls(cluster.tls.as_ref()) };
        let stream = dial(&site.backend.address, opening, cluster.timeouts.connect).await?;
        let scheme = if stream.is_tls() { Scheme::HTTPS } else { Scheme::HTTP };
        let connected = Connected::new(hub.chooser.worker(), Arc::clone(&site.backend));
        let stream = Early::new(stream, Bytes::new());
        let wire = stream.wire();
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
                wire.settle(&cell.bytes_in, &cell.bytes_out);
                polled
            });
            if let Err(error) = ended.await {
                tracing::debug!("HTTP/2 connection to a backend: {error}");
            }
        });
        Ok(Self { send, scheme })
    }

    /// Sends one request and waits for the head of its reply.
    pub(super) async fn ask(
        &mut self,
        mut request: Request<Upload>,
        wait: &Watch,
    ) -> Result<(Parts, Source), Lost> {
        address(&mut request, self.scheme.clone());
        let mut reply = pin!(self.send.try_send_request(request));
        poll_fn(|cx| {
            match reply.as_mut().poll(cx) {
                Poll::Ready(Ok(response)) => {
                    let (head, incoming) = response.into_parts();
                    return Poll::Ready(Ok((head, Source::Shared(incoming))));
                }
                Poll::Ready(Err(mut error)) => {
                    // What hyper could not send comes back; we have it ourselves.
                    let unsent = error.take_message().is_some();
                    let lost = if unsent { Lost::Unsent } else { lost(error.into_error()) };
                    return Poll::Ready(Err(lost));
                }
                Poll::Pending => {}
            }
            given_up(wait, cx).map(Err)
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
    let refused = cause.is_some_and(refused);
    let error = Broken::Shared(error);
    if refused { Lost::Refused(error) } else { Lost::Broken(error) }
}

/// Over HTTP/2 the host is part of the URI, and a body needs no framing. A request that was addressed
/// before has its host there.
fn address<B>(request: &mut Request<B>, scheme: Scheme) {
    let host = request.headers_mut().remove(HOST);
    request.headers_mut().remove(TRANSFER_ENCODING);
    *request.version_mut() = Version::HTTP_2;
    let mut parts = request.uri().clone().into_parts();
    parts.scheme = Some(scheme);
    let told = host.as_ref().and_then(|host: &HeaderValue| host.to_str().ok()?.parse().ok());
    parts.authority = told.or(parts.authority).or_else(|| "unknown".parse().ok());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_comes_back_unsent_keeps_its_host() {
        let request = |host: Option<&str>| {
            let mut request = Request::get("/a?b").body(()).unwrap();
            let host = host.map(|host| (HOST, host.parse().unwrap()));
            request.headers_mut().extend(host);
            address(&mut request, Scheme::HTTP);
            request
        };
        let mut shop = request(Some("shop:81"));
        assert_eq!(shop.uri().to_string(), "http://shop:81/a?b");
        assert!(shop.headers().is_empty());
        address(&mut shop, Scheme::HTTPS);
        assert_eq!(shop.uri().to_string(), "https://shop:81/a?b", "and what it is sent on next");
        assert_eq!(request(None).uri().to_string(), "http://unknown/a?b");
    }
}
