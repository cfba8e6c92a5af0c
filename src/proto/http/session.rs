//! One client's connection, start to end: whom it is from, which HTTP it speaks, and its requests.

use super::{
    client::Client,
    download::Download,
    hub::Hub,
    reply::refused,
    service::Session,
    settings::{Limits, Settings},
    watch::{Phase, Watch},
};
use crate::{
    net::{early::Early, origin::Origin, stream::Stream},
    telemetry::metrics::ListenerMetrics,
    topology::door::{Place, Reason, Refusal},
};
use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{
    cell::RefCell,
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::IpAddr,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

/// How a connection ended.
#[derive(Debug)]
pub enum End {
    /// Somebody closed it between requests.
    Closed,
    /// It has become another protocol, and that has ended.
    Tunnel,
    /// A trusted proxy did not say whose connection it is.
    NoHeader(io::Error),
    /// The TLS handshake failed.
    NoTls(io::Error),
    /// The client has too many connections, or they come too fast.
    Refused(Reason),
    /// It kept silent within a request, or for too long between two.
    Silent,
    /// What came was not HTTP, or the connection broke.
    Broken(hyper::Error),
    /// Nothing could be read.
    Unread(io::Error),
}

/// Serves one client until it ends. `peer` is its address, when it has one; `place` is what it has at
/// the listener's door, where one whose proxy speaks for it is identified here.
pub async fn serve(
    hub: Rc<Hub>,
    settings: Rc<Settings>,
    mut client: Stream,
    peer: Option<IpAddr>,
    mut place: Place,
) -> End {
    let _guard = Guard(Rc::clone(&hub));
    let mut origin = Origin::of(&client, peer);
    if peer.is_some_and(|peer| settings.is_proxy(peer)) {
        origin = match origin.greeted(&mut client, hub.stock.buffer()).await {
            Ok(told) => told,
            Err(error) => {
                hub.rejected(settings.listener);
                return End::NoHeader(error);
            }
        };
        if let Err(refusal) = identify(&hub, &settings, &mut place, origin.address) {
            // In clear nobody who wants TLS would understand it.
            if settings.tls.is_none() {
                let _ = client.write_all(&refused(refusal)).await;
                let _ = client.shutdown().await;
            }
            return End::Refused(refusal.reason);
        }
    }
    if let Some(tls) = &settings.tls {
        // The header was in clear, what came behind it is TLS.
        let early = std::mem::take(&mut origin.early);
        let nobody = ListenerMetrics::default();
        let listener = hub.metrics.listeners.get(settings.listener).unwrap_or(&nobody);
        client = match tls.accept(client, &early, origin.address, listener).await {
            Ok(client) => client,
            Err(error) => return End::NoTls(error),
        };
    }
    hub.look_at_clock();
    let watch = Watch::new(Phase::Head, Hub::after(hub.now_us(), settings.limits.header_time));
    let watched = hub.watch(Rc::clone(&watch));
    let early = match opening(&hub, &mut client, origin.early, &watch).await {
        Ok(Some(early)) => early,
        Ok(None) => return End::Closed,
        Err(error) => return End::Unread(error),
    };
    // What was agreed on under TLS counts, else what it begins with.
    let http2 = client.alpn().map_or_else(|| early.starts_with(PREFACE), |agreed| agreed == H2);
    let session = Rc::new(Session {
        client: Client::new(&settings, origin.address, client.is_tls()),
        watch: (!http2).then(|| Rc::clone(&watch)),
        tunnel: RefCell::new(None),
        settings,
        hub,
    });
    let io = Early::new(client, early);
    let end = if http2 {
        drop(watched);
        two(&session, io).await
    } else {
        one(&session, io, &watch).await
    };
    if let End::Broken(error) = &end
        && error.is_parse()
    {
        session.hub.rejected(session.settings.listener);
    }
    end
}

/// Takes the place of a client whose proxy has told who it is.
fn identify(
    hub: &Hub,
    settings: &Settings,
    place: &mut Place,
    address: Option<IpAddr>,
) -> Result<(), Refusal> {
    let Some(address) = address else { return Ok(()) };
    let now = Instant::now();
    place.identify(settings.door.prefix().client(address), now).inspect_err(|refusal| {
        if let Some(listener) = hub.metrics.listeners.get(settings.listener) {
            settings.door.refused(refusal.reason, listener, now);
        }
    })
}

/// Counts a fault of ours that ends the session.
struct Guard(Rc<Hub>);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.metrics.panics.add(1);
        }
    }
}

/// Reads until it shows which HTTP this is; `None`: the client has left, or keeps silent.
async fn opening(
    hub: &Hub,
    client: &mut Stream,
    mut early: Vec<u8>,
    watch: &Watch,
) -> io::Result<Option<Bytes>> {
    if early.capacity() == 0 {
        early = hub.stock.buffer();
    }
    let shows = |early: &[u8]| {
        let seen = early.len().min(PREFACE.len());
        seen > 0 && (seen == PREFACE.len() || early.get(..seen) != PREFACE.get(..seen))
    };
    while !shows(&early) {
        let mut read = pin!(client.read_buf(&mut early));
        let read = poll_fn(|cx| {
            if let Poll::Ready(read) = read.as_mut().poll(cx) {
                return Poll::Ready(Some(read));
            }
            watch.remember(cx);
            if watch.is_due() { Poll::Ready(None) } else { Poll::Pending }
        });
        match read.await {
            Some(Ok(1..)) => {}
            Some(Ok(0)) | None => return Ok(None),
            Some(Err(error)) => return Err(error),
        }
    }
    let bytes = Bytes::copy_from_slice(&early);
    hub.stock.give(early);
    Ok(Some(bytes))
}

/// HTTP/1.1.
async fn one(session: &Rc<Session>, io: Early, watch: &Watch) -> End {
    let limits = session.settings.limits;
    let mut builder = http1::Builder::new();
    builder.max_headers(limits.headers).max_buf_size(limits.header_bytes.max(8 * 1024));
    let counts = io.counts();
    let connection = builder.serve_connection(TokioIo::new(io), service(session));
    let mut connection = Box::pin(connection);
    let mut draining = pin!(session.hub.draining.cancelled());
    let mut drained = false;
    let ended = poll_fn(|cx| {
        if !drained && draining.as_mut().poll(cx).is_ready() {
            drained = true;
            connection.as_mut().graceful_shutdown();
        }
        let seen = counts.read.get();
        if let Poll::Ready(ended) = connection.poll_without_shutdown(cx) {
            return Poll::Ready(Some(ended));
        }
        waits(session, watch, seen != counts.read.get(), limits);
        if watch.is_due() && !matches!(watch.phase(), Phase::Upload | Phase::Waiting) {
            return Poll::Ready(None);
        }
        watch.remember(cx);
        Poll::Pending
    });
    let ended = match ended.await {
        None => return End::Silent,
        Some(Err(error)) => Err(error),
        Some(Ok(())) => Ok(()),
    };
    let parts = Pin::into_inner(connection).into_parts();
    let mut stream = parts.io.into_inner().into_stream();
    let tunnel = session.tunnel.borrow_mut().take();
    if let (Ok(()), Some(tunnel)) = (&ended, tunnel) {
        let nobody = ListenerMetrics::default();
        let listener = session.hub.metrics.listeners.get(session.settings.listener);
        tunnel.relay(&session.hub, listener.unwrap_or(&nobody), stream, parts.read_buf).await;
        return End::Tunnel;
    }
    // Under TLS the end is told, which somebody who does not read could hold up.
    let _ = timeout(GOODBYE, stream.shutdown()).await;
    match ended {
        Ok(()) => End::Closed,
        Err(error) => End::Broken(error),
    }
}

fn waits(session: &Session, watch: &Watch, read: bool, limits: Limits) {
    if read && watch.phase() == Phase::Idle {
        session.hub.look_at_clock();
        watch.enter(Phase::Head, Hub::after(session.hub.now_us(), limits.header_time));
    }
}

/// HTTP/2.
async fn two(session: &Rc<Session>, io: Early) -> End {
    let limits = session.settings.limits;
    let mut builder = http2::Builder::new(session.hub.spawn.clone());
    builder
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER);
    let connection = builder.serve_connection(TokioIo::new(io), service(session));
    let mut connection = pin!(connection);
    let mut draining = pin!(session.hub.draining.cancelled());
    let mut drained = false;
    let ended = poll_fn(|cx| {
        if !drained && draining.as_mut().poll(cx).is_ready() {
            drained = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    });
    match ended.await {
        Ok(()) => End::Closed,
        Err(error) => End::Broken(error),
    }
}

/// A request under way. In a box of its own: an idle connection has none.
struct Answering {
    hub: Rc<Hub>,
    answer: Pin<Box<dyn Future<Output = Response<Download>>>>,
}

impl Future for Answering {
    type Output = Result<Response<Download>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.hub.look_at_clock();
        self.answer.as_mut().poll(cx).map(Ok)
    }
}

/// What hyper calls for each request.
fn service(
    session: &Rc<Session>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<Download>,
    Error = Infallible,
    Future = Answering,
> + use<> {
    let session = Rc::clone(session);
    service_fn(move |request| {
        let session = Rc::clone(&session);
        Answering {
            hub: Rc::clone(&session.hub),
            answer: Box::pin(async move { session.answer(request).await }),
        }
    })
}

/// The protocols of an HTTP listener under TLS, the preferred one first (RFC 7301, RFC 9113, 3.2).
pub const PROTOCOLS: &[&[u8]] = &[H2, b"http/1.1"];
const H2: &[u8] = b"h2";
const GOODBYE: Duration = Duration::from_secs(1);
/// What an HTTP/2 client begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a reply that may wait for an HTTP/2 client on each stream.
const SEND_BUFFER: usize = 64 * 1024;
