//! The admin address: liveness, readiness, metrics, status and the operator's wishes over HTTP/1.1,
//! on TCP and on unix sockets. Not what they say: that is scrape.rs, status.rs and operator.rs.

use super::{
    access::{self, Door},
    operator,
    plane::Plane,
    run_task, scrape,
    socket::Socket,
};
use crate::{
    config,
    net::{addr::Bind, stream::Stream},
};
use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE},
};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, io, rc::Rc, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Where the pages are served.
#[derive(Debug, Default)]
pub struct Doors {
    pub tcp: Option<std::net::TcpListener>,
    pub sockets: Vec<Socket>,
}

/// Binds the admin address and its unix sockets. The default address in use is no reason not to
/// start: then this warns and goes on without it.
///
/// # Errors
/// When what the operator wrote cannot be bound.
pub fn bind(admin: &config::Admin) -> io::Result<Doors> {
    let mut doors = Doors { tcp: bind_tcp(admin)?, sockets: Vec::new() };
    let bound = doors.tcp.as_ref().and_then(|listener| listener.local_addr().ok());
    let written = match &admin.bind {
        Bind::Unix(path) => [Some(path), admin.socket.as_ref()],
        Bind::Tcp(_) => [None, admin.socket.as_ref()],
    };
    for path in written.into_iter().flatten() {
        let socket = Socket::bind(path).map_err(|error| {
            io::Error::new(error.kind(), format!("admin: socket {}: {error}", path.display()))
        })?;
        doors.sockets.push(socket);
    }
    if let (true, Some(bound)) = (doors.sockets.is_empty(), bound) {
        doors.sockets.extend(Socket::by_default(&Bind::Tcp(bound)));
    }
    Ok(doors)
}

fn bind_tcp(admin: &config::Admin) -> io::Result<Option<std::net::TcpListener>> {
    let Bind::Tcp(address) = &admin.bind else { return Ok(None) };
    match std::net::TcpListener::bind(address) {
        Ok(listener) => {
            listener.set_nonblocking(true)?;
            Ok(Some(listener))
        }
        Err(error) if admin.explicit => {
            Err(io::Error::new(error.kind(), format!("admin: bind {address}: {error}")))
        }
        Err(error) => {
            tracing::warn!(
                "admin: bind {address}: {error}; going on without an admin address, set admin.bind"
            );
            Ok(None)
        }
    }
}

/// Starts serving at every door.
pub(super) fn open(doors: Doors, plane: &Rc<Plane>, shutdown: &CancellationToken) {
    let tcp = doors.tcp.into_iter().map(|listener| {
        let loopback = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
        let listener = TcpListener::from_std(listener)?;
        Ok(Listening::Tcp(listener, loopback))
    });
    let sockets = doors.sockets.into_iter().filter_map(|mut socket| {
        let listener = UnixListener::from_std(socket.take()?);
        Some(listener.map(|listener| Listening::Unix { listener, _file: socket }))
    });
    for listening in tcp.chain(sockets) {
        match listening {
            Ok(listening) => run_task(serve(listening, Rc::clone(plane), shutdown.clone())),
            Err(error) => {
                let error: io::Error = error;
                tracing::error!("admin: {error}; going on without this address");
            }
        }
    }
}

/// A door on the event loop.
enum Listening {
    /// Whether it is on loopback.
    Tcp(TcpListener, bool),
    /// Its file goes with it.
    Unix { listener: UnixListener, _file: Socket },
}

impl Listening {
    async fn accept(&self) -> io::Result<(Stream, Door)> {
        match self {
            Self::Tcp(listener, loopback) => {
                let (socket, _) = listener.accept().await?;
                Ok((Stream::from_tcp(socket)?, Door::Tcp { loopback: *loopback }))
            }
            Self::Unix { listener, .. } => {
                let (socket, _) = listener.accept().await?;
                Ok((Stream::Unix(socket), Door::Unix))
            }
        }
    }
}

/// Serves until `shutdown`; at most 64 connections at once, the others wait in the backlog.
async fn serve(listening: Listening, plane: Rc<Plane>, shutdown: CancellationToken) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accept = async {
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            match listening.accept().await {
                Ok((stream, door)) => {
                    run_task(connection(stream, door, Rc::clone(&plane), permit));
                }
                // Out of descriptors, most likely: they come back when a connection ends.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = shutdown.cancelled() => {}
    }
}

async fn connection(stream: Stream, door: Door, plane: Rc<Plane>, _permit: OwnedSemaphorePermit) {
    let service = service_fn(|request: Request<Incoming>| {
        let plane = &plane;
        async move { Ok::<_, Infallible>(answer(request, door, plane).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    // A client that breaks off or sends nonsense was answered by hyper; there is nobody to tell.
    let _ = timeout(CONNECTION_LIFE, serving).await;
}

async fn answer(request: Request<Incoming>, door: Door, plane: &Plane) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let looks = matches!(head.method, Method::GET | Method::HEAD);
    let token = plane.token.as_ref().map(|secret| secret.0.as_str());
    let path = head.uri.path();
    let backend = path.strip_prefix("/api/v1/backends/").filter(|id| !id.is_empty());
    let changes = backend.is_some() && head.method == Method::PATCH;
    if let Err(why) = access::may(door, &head.headers, changes, token) {
        return refused(StatusCode::FORBIDDEN, &why);
    }
    if let Some(id) = backend {
        return match head.method {
            Method::GET | Method::HEAD => api(plane, path),
            Method::PATCH => match whole(body).await {
                Ok(body) => told(operator::change(plane, id, head.uri.query(), &body)),
                Err((status, why)) => refused(status, why),
            },
            _ => not_allowed("GET, HEAD, PATCH"),
        };
    }
    let page: fn(&Plane) -> Response<Full<Bytes>> = match path {
        "/" => |_| text(StatusCode::OK, INDEX),
        "/livez" => |plane| verdict(plane.alive(), "alive"),
        "/readyz" => |plane| verdict(plane.state.readiness().map_err(str::to_owned), "ready"),
        "/metrics" => |plane| reply(StatusCode::OK, METRICS_TYPE, scrape::page(plane)),
        _ if path.starts_with("/api/") && looks => return api(plane, path),
        _ if operator::is_page(path) => return not_allowed("GET, HEAD"),
        _ if path.starts_with("/api/") => return no_page(),
        _ => return text(StatusCode::NOT_FOUND, "no such page; / lists them\n"),
    };
    if looks { page(plane) } else { not_allowed("GET, HEAD") }
}

fn api(plane: &Plane, path: &str) -> Response<Full<Bytes>> {
    let page = path.strip_prefix("/api/v1/").and_then(|page| operator::look(plane, page));
    page.map_or_else(no_page, told)
}

fn no_page() -> Response<Full<Bytes>> {
    refused(StatusCode::NOT_FOUND, "no such page; / lists them")
}

fn told(told: operator::Told) -> Response<Full<Bytes>> {
    match told {
        Ok(document) => reply(StatusCode::OK, JSON_TYPE, document),
        Err((status, why)) => refused(status, &why),
    }
}

/// A body of at most [`MAX_BODY`] bytes that comes in time.
async fn whole(body: Incoming) -> Result<Bytes, (StatusCode, &'static str)> {
    match timeout(HEADER_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err((StatusCode::PAYLOAD_TOO_LARGE, "the body has more than 64KiB"))
        }
        Ok(Err(_)) => Err((StatusCode::BAD_REQUEST, "the body broke off")),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body did not come within 5s")),
    }
}

fn refused(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    let error = serde_json::json!({ "error": why });
    reply(status, JSON_TYPE, format!("{error}\n"))
}

fn not_allowed(methods: &'static str) -> Response<Full<Bytes>> {
    let why = format!("this takes {methods} only");
    let mut response = refused(StatusCode::METHOD_NOT_ALLOWED, &why);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

fn verdict(verdict: Result<(), String>, good: &str) -> Response<Full<Bytes>> {
    match verdict {
        Ok(()) => text(StatusCode::OK, format!("{good}\n")),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    reply(status, TEXT_TYPE, body)
}

fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

const INDEX: &str = "Sluice\n\n\
    /livez          the workers' loops turn\n\
    /readyz         clients may be sent here\n\
    /metrics        Prometheus text format\n\
    /api/v1/status  JSON\n\
    /api/v1/clusters, /api/v1/clusters/CLUSTER\n\
    /api/v1/backends, /api/v1/backends/CLUSTER/ADDRESS\n\
                    PATCH {\"admin\":\"drain\",\"ttl\":\"10m\"} on the unix socket\n";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";
const JSON_TYPE: &str = "application/json";
/// The type of Prometheus's text format.
const METRICS_TYPE: &str = prometheus::TEXT_FORMAT;
/// A scraper, two health checkers and some people; each may cost a page of memory.
const MAX_CONNECTIONS: usize = 64;
/// hyper's own least.
const MAX_HEAD: usize = 8 * 1024;
const MAX_HEADERS: usize = 64;
/// Of a request that changes something.
const MAX_BODY: usize = 64 * 1024;
/// For each head, so an idle connection ends after it too.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A reader that takes nothing must not keep its place for ever.
const CONNECTION_LIFE: Duration = Duration::from_secs(600);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
