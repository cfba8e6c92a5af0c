//! One client's connection, start to end: whom it is from, which HTTP it speaks, and its waits. Not
//! the requests on it: those are `service`'s.

use super::{
    client::Client,
    download::Download,
    fault::Fault,
    http2,
    hub::Hub,
    reply::{self, refused},
    service::{Prepared, Session},
    settings::Settings,
    tunnel::Tunnel,
    watch::{Phase, Watch},
};
use crate::{
    net::{early::Early, origin::Origin, stream::Stream},
    telemetry::metrics::ListenerMetrics,
    topology::door::{Place, Reason, Refusal},
};
use bytes::Bytes;
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
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
    /// It kept silent within a request, or for too long between two, or did not take its reply.
    Silent,
    /// It sent more than is good of frames that only cost.
    Flood,
    /// What it began with names no protocol of ours.
    NotHttp,
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
    let mut origin = Origin::known(peer);
    if peer.is_some_and(|peer| settings.is_proxy(peer)) {
        origin = match Box::pin(origin.greeted(&mut client, hub.stock.buffer())).await {
            Ok(told) => told,
            Err(error) => {
                let why = "its connection does not begin with a PROXY protocol header";
                Fault::Protocol.count(&hub, &settings, why);
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
        client = match Box::pin(tls.accept(client, &early, origin.address, listener)).await {
            Ok(client) => client,
            Err(error) => return End::NoTls(error),
        };
    }
    hub.look_at_clock();
    let watch = Watch::new(Phase::Head, Hub::after(hub.now_us(), settings.limits.header_time));
    let watched = hub.watch(Rc::clone(&watch));
    let early = match opening(&mut client, origin.early, &watch).await {
        Ok(Some(early)) => early,
        Ok(None) => return End::Closed,
        Err(error) => return End::Unread(error),
    };
    // What was agreed on under TLS counts, else what it begins with.
    let http2 = client.alpn().map_or_else(|| early.starts_with(PREFACE), |agreed| agreed == H2);
    if !http2 && !names_http(&early) {
        Fault::Protocol.count(&hub, &settings, "what it began with is not HTTP");
        return End::NotHttp;
    }
    let secure = client.is_tls();
    let io = Early::new(client, early);
    let session = Rc::new(Session {
        client: Client::new(&settings, origin.address, secure),
        wire: io.wire(),
        watch: Rc::clone(&watch),
        tunnel: RefCell::new(None),
        settings,
        hub,
    });
    let end = if http2 {
        // In a box: it is larger than all that HTTP/1.1 needs.
        Box::pin(http2::serve(&session, io)).await
    } else {
        one(&session, io, &watch).await
    };
    drop(watched);
    end
}

/// Whether the first line, when it is there, could be that of a request. A client that began with
/// anything else would not understand an answer either; RFC 9113, 3.4, has no other for one that
/// meant HTTP/2.
fn names_http(early: &[u8]) -> bool {
    let Some(end) = memchr::memchr(b'\n', early) else { return true };
    let line = early.get(..end).unwrap_or_default();
    line.trim_ascii().is_empty() || line.windows(5).any(|five| five == b"HTTP/")
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
    client: &mut Stream,
    mut early: Vec<u8>,
    watch: &Watch,
) -> io::Result<Option<Bytes>> {
    if early.capacity() == 0 {
        // Many say nothing for long, and a buffer of the stock is sixteen times as large.
        early.reserve_exact(FIRST_READ);
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
    Ok(Some(Bytes::copy_from_slice(&early)))
}

/// Why hyper has nothing more to do.
enum Over {
    /// It says so itself.
    Done(hyper::Result<()>),
    /// The client was waited for for too long.
    Silent,
    /// The client has left before it had its reply.
    Gone,
}

/// HTTP/1.1.
async fn one(session: &Rc<Session>, io: Early, watch: &Watch) -> End {
    let limits = session.settings.limits;
    // To see a client leave that waits for its reply hyper reads, for which it takes another buffer of
    // 8 KiB; a look at the socket needs none.
    let looks = !session.client.secure;
    let mut builder = http1::Builder::new();
    builder
        .max_headers(limits.headers)
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.header_bytes.max(SMALLEST_BUFFER))
        .half_close(looks);
    let wire = &session.wire;
    let connection = builder.serve_connection(TokioIo::new(io), service(session));
    let mut connection = Box::pin(connection);
    let (mut leaving, mut told) = (false, false);
    let (mut answered, mut lined_up) = (false, false);
    let ended = poll_fn(|cx| {
        if session.hub.order.is_busy() && !lined_up && !is_answering(watch) {
            lined_up = true;
            session.hub.order.line_up(&session.hub.spawn, cx);
            return Poll::Pending;
        }
        lined_up = false;
        if !leaving && session.hub.is_leaving() {
            leaving = true;
            if !is_answering(watch) {
                session.hub.look_at_clock();
                watch.enter(watch.phase(), Hub::after(session.hub.now_us(), LAST_REQUEST));
            }
        }
        let polled = connection.poll_without_shutdown(cx);
        let (read, written) = session.count();
        // hyper is done with a request whose rest nobody wants once its buffer has all of the reply.
        let is_unsent = matches!(polled, Poll::Ready(Ok(()))) && wire.is_blocked();
        if let Poll::Ready(ended) = polled
            && !is_unsent
        {
            return Poll::Ready(Over::Done(ended));
        }
        answered |= written > 0;
        // Its beginning may have come with the last request; what ends that may be its body.
        let begun = !wire.ends_with_empty_line() && (read > 0 || watch.received.get() == 0);
        waits(session, watch, begun, written > 0);
        if leaving && !told && (watch.is_over() || is_answering(watch)) {
            // hyper closes a connection without a request at once, and says `close` with a reply.
            told = true;
            connection.as_mut().graceful_shutdown();
            if let Poll::Ready(ended) = connection.poll_without_shutdown(cx) {
                return Poll::Ready(Over::Done(ended));
            }
        }
        if watch.is_over() {
            return Poll::Ready(Over::Silent);
        }
        let reads_nothing = is_answering(watch) || wire.is_blocked();
        if looks && reads_nothing && wire.poll_end(cx).is_ready() {
            return Poll::Ready(Over::Gone);
        }
        wire.push(false);
        watch.remember(cx);
        Poll::Pending
    });
    let ended = match ended.await {
        Over::Gone => return End::Closed,
        Over::Silent if watch.phase() == Phase::Head && !answered => {
            let io = Pin::into_inner(connection).into_parts().io.into_inner();
            let Some(mut stream) = io.into_parts().0 else { return End::Silent };
            let refusal = reply::Refusal::client_timeout();
            if let Some((fault, text)) = refusal.fault() {
                fault.count(&session.hub, &session.settings, text);
            }
            if let Some(listener) = session.listener() {
                listener.refused(refusal.reason());
            }
            let goodbye = async {
                stream.write_all(&refusal.into_bytes()).await?;
                stream.shutdown().await
            };
            let _ = Box::pin(timeout(GOODBYE, goodbye)).await;
            return End::Silent;
        }
        Over::Silent => {
            if matches!(watch.phase(), Phase::Head | Phase::Download) {
                let why = "it does not take its reply, or the rest of its request does not come";
                Fault::Slow.count(&session.hub, &session.settings, why);
            }
            return End::Silent;
        }
        Over::Done(ended) => ended,
    };
    wire.push(true);
    let unread = looks && wire.has_unread();
    if looks && !unread && ended.is_ok() && session.tunnel.borrow().is_none() {
        return End::Closed;
    }
    let parts = Pin::into_inner(connection).into_parts();
    let (stream, early) = parts.io.into_inner().into_parts();
    let Some(mut stream) = stream else { return End::Closed };
    let tunnel = session.tunnel.borrow_mut().take();
    if let (Ok(()), Some(tunnel)) = (&ended, tunnel) {
        // In a box: an idle connection would have room for it.
        // What of the first bytes did not fit into hyper's buffer comes after what did.
        let early = Bytes::from([parts.read_buf, early].concat());
        Box::pin(relay(session, tunnel, stream, early)).await;
        return End::Tunnel;
    }
    // A close says as much, but under TLS the end is told, which somebody who does not read could
    // hold up.
    if stream.is_tls() || ended.is_err() || unread {
        let _ = timeout(GOODBYE, stream.shutdown()).await;
    }
    match ended {
        Ok(()) => {
            if unread {
                Box::pin(linger(&session.hub, &mut stream, watch)).await;
            }
            End::Closed
        }
        Err(error) => {
            if let Some(fault) = Fault::of(&error) {
                fault.count(&session.hub, &session.settings, &error);
                Box::pin(linger(&session.hub, &mut stream, watch)).await;
            }
            End::Broken(error)
        }
    }
}

/// What a connection is once it has become another protocol.
async fn relay(session: &Session, tunnel: Box<Tunnel>, stream: Stream, early: Bytes) {
    let nobody = ListenerMetrics::default();
    tunnel.relay(&session.hub, session.listener().unwrap_or(&nobody), stream, early).await;
}

/// Reads on for a moment what nobody wants: a close with bytes unread is a reset, which may overtake
/// what the client is told (RFC 9112, 9.6).
async fn linger(hub: &Hub, stream: &mut Stream, watch: &Watch) {
    hub.look_at_clock();
    watch.enter(Phase::Idle, Hub::after(hub.now_us(), LINGER));
    let mut buffer = hub.stock.buffer();
    let mut left = LINGER_BYTES;
    while left > 0 {
        buffer.clear();
        let mut read = pin!(stream.read_buf(&mut buffer));
        let read = poll_fn(|cx| {
            watch.remember(cx);
            if watch.is_due() { Poll::Ready(Ok(0)) } else { read.as_mut().poll(cx) }
        });
        let Ok(read @ 1..) = read.await else { break };
        left = left.saturating_sub(read);
    }
    hub.stock.give(buffer);
}

fn is_answering(watch: &Watch) -> bool {
    !matches!(watch.phase(), Phase::Idle | Phase::Head)
}

/// Begins a wait, or begins it anew for a client that is slow and not idle. `begun`: a part of a
/// head has come.
fn waits(session: &Session, watch: &Watch, begun: bool, taken: bool) {
    let limits = session.settings.limits;
    match watch.phase() {
        Phase::Idle if begun => {
            session.hub.look_at_clock();
            watch.enter(Phase::Head, Hub::after(session.hub.now_us(), limits.header_time));
        }
        Phase::Download if taken => {
            watch.enter(Phase::Download, Hub::after(session.hub.now_us(), limits.body_idle));
        }
        _ => {}
    }
}

/// A request under way.
pub(super) struct Answering {
    hub: Rc<Hub>,
    /// At the clock, just now.
    looked: bool,
    state: State,
}

enum State {
    /// It is ours; `None` once it was taken.
    Ready(Option<Box<Response<Download>>>),
    /// In a box of its own: an idle connection has none.
    Asking(Pin<Box<dyn Future<Output = Response<Download>>>>),
}

impl Future for Answering {
    type Output = Result<Response<Download>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !std::mem::take(&mut self.looked) {
            self.hub.look_at_clock();
        }
        match &mut self.state {
            State::Ready(response) => {
                response.take().map_or(Poll::Pending, |r| Poll::Ready(Ok(*r)))
            }
            State::Asking(answer) => answer.as_mut().poll(cx).map(Ok),
        }
    }
}

impl Answering {
    /// `stream`: the watch of a stream of HTTP/2.
    pub(super) fn new(
        session: &Rc<Session>,
        request: Request<Incoming>,
        stream: Option<Rc<Watch>>,
    ) -> Self {
        let hub = Rc::clone(&session.hub);
        hub.look_at_clock();
        // All that needs no waiting is done here: what it needed is not kept while it waits.
        let state = match session.prepare(request, stream) {
            Ok(Prepared { mut errand, promise, trip }) => {
                let session = Rc::clone(session);
                // In one block: each further one would have a place, and make a copy, of all this.
                State::Asking(Box::pin(async move {
                    match errand.run(&trip).await {
                        Ok(answer) => session.reply(answer, promise, trip),
                        Err(refusal) => session.refuse(refusal, trip),
                    }
                }))
            }
            Err(response) => State::Ready(Some(response)),
        };
        Self { hub, looked: true, state }
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
    service_fn(move |request| Answering::new(&session, request, None))
}

/// The protocols of an HTTP listener under TLS, the preferred one first (RFC 7301, RFC 9113, 3.2).
pub const PROTOCOLS: &[&[u8]] = &[H2, b"http/1.1"];
const H2: &[u8] = b"h2";
/// When we leave, a connection between two requests is kept for so long: who sends one just then is
/// answered, and told to close. Without it that request was lost.
const LAST_REQUEST: Duration = Duration::from_secs(1);
const GOODBYE: Duration = Duration::from_secs(1);
/// What an HTTP/2 client begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Most first requests, but for large cookies; hyper reads the rest.
const FIRST_READ: usize = 1024;
/// hyper's own, below which it does not go.
const SMALLEST_BUFFER: usize = 8 * 1024;
/// A client that is told why it is closed has read so by then, or does not want to.
const LINGER: Duration = Duration::from_secs(2);
/// What may be under way to us when it is told; whoever sends more is not listening.
const LINGER_BYTES: usize = 1024 * 1024;
