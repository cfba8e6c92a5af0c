//! The admin address: liveness, readiness, metrics and status over HTTP/1.1, reading only. Not
//! what they say: that is [`super::scrape`] and [`super::status`].

use super::{plane::Plane, run_task, scrape, status};
use crate::{config, net::addr::Bind};
use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE},
};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, io, rc::Rc, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Binds the admin address. The default address in use is no reason not to start: then this warns
/// and gives `None`.
///
/// # Errors
/// When an address that the operator wrote cannot be bound, and for `unix:` (not supported yet).
pub fn bind(admin: &config::Admin) -> io::Result<Option<std::net::TcpListener>> {
    let Bind::Tcp(address) = &admin.bind else {
        let what = format!("admin: {}: unix sockets are not supported yet", admin.bind);
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    };
    match std::net::TcpListener::bind(address) {
        Ok(listener) => Ok(Some(listener)),
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

/// Serves until `shutdown`; at most 64 connections at once, the others wait in the backlog.
pub(super) async fn serve(listener: TcpListener, plane: Rc<Plane>, shutdown: CancellationToken) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accept = async {
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((socket, _)) => run_task(connection(socket, Rc::clone(&plane), permit)),
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

async fn connection(socket: TcpStream, plane: Rc<Plane>, _permit: OwnedSemaphorePermit) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = answer(request.method(), request.uri().path(), &plane);
        async move { Ok::<_, Infallible>(response) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(socket), service);
    // A client that breaks off or sends nonsense was answered by hyper; there is nobody to tell.
    let _ = timeout(CONNECTION_LIFE, serving).await;
}

fn answer(method: &Method, path: &str, plane: &Plane) -> Response<Full<Bytes>> {
    let page: fn(&Plane) -> Response<Full<Bytes>> = match path {
        "/" => |_| text(StatusCode::OK, INDEX),
        "/livez" => |plane| verdict(plane.alive(), "alive"),
        "/readyz" => |plane| verdict(plane.state.readiness().map_err(str::to_owned), "ready"),
        "/metrics" => |plane| reply(StatusCode::OK, METRICS_TYPE, scrape::page(plane)),
        "/api/v1/status" => |plane| reply(StatusCode::OK, JSON_TYPE, status::page(plane)),
        _ => return text(StatusCode::NOT_FOUND, "no such page; / lists them\n"),
    };
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    page(plane)
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
    /api/v1/status  JSON\n";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";
const JSON_TYPE: &str = "application/json";
/// The type of Prometheus's text format.
const METRICS_TYPE: &str = prometheus::TEXT_FORMAT;
/// A scraper, two health checkers and some people; each may cost a page of memory.
const MAX_CONNECTIONS: usize = 64;
/// hyper's own least.
const MAX_HEAD: usize = 8 * 1024;
const MAX_HEADERS: usize = 64;
/// For each head, so an idle connection ends after it too.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A reader that takes nothing must not keep its place for ever.
const CONNECTION_LIFE: Duration = Duration::from_secs(600);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
