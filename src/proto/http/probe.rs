//! One health request to a web server, on a connection of its own. Not when to ask, nor what
//! follows from the answer: control decides that.

use super::{broken::told, exchange::exchange};
use crate::{
    net::{
        addr::Address,
        dial::{Opening, dial},
        tls,
    },
    topology::HttpCheck,
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, header, response::Parts};
use http_body_util::Full;
use memchr::memmem;
use std::{io, time::Duration};
use tokio::time::{Instant, timeout_at};

/// A server's answer that is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    /// What it says its weight is, 0 to 256, in `weight_header`.
    pub weight: Option<u32>,
}

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("{0}")]
    Connect(io::Error),
    #[error("no whole answer within {}ms", .0.as_millis())]
    Timeout(Duration),
    /// The connection broke, or what came is not HTTP.
    #[error("{0}")]
    Broken(String),
    /// `503 Service Unavailable`
    #[error("{0}")]
    Status(StatusCode),
    #[error("body lacks '{0}'")]
    Body(String),
}

/// Asks `address` what `check` says, under `tls` where there is some; `timeout` covers all of it.
///
/// # Errors
/// When it cannot be reached, does not answer in time, or its answer is not well.
pub async fn probe(
    address: &Address,
    tls: Option<&tls::Client>,
    check: &HttpCheck,
    timeout: Duration,
) -> Result<Answer, Fault> {
    let deadline = Instant::now() + timeout;
    let opening = Opening { alpn: &[b"http/1.1"], ..Opening::tls(tls) };
    let stream = dial(address, opening, timeout).await.map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => Fault::Timeout(timeout),
        _ => Fault::Connect(error),
    })?;
    let asked = timeout_at(deadline, exchange(stream, request(address, check), MAX_BODY)).await;
    let (head, body) =
        asked.map_err(|_| Fault::Timeout(timeout))?.map_err(|error| Fault::Broken(told(&error)))?;
    if !check.accepts(head.status.as_u16()) {
        return Err(Fault::Status(head.status));
    }
    if let Some(wanted) = &check.body_contains
        && memmem::find(&body, wanted.as_bytes()).is_none()
    {
        return Err(Fault::Body(wanted.clone()));
    }
    let weight = check.weight_header.as_ref().and_then(|name| weight(&head, name));
    Ok(Answer { status: head.status, weight })
}

fn request(address: &Address, check: &HttpCheck) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    *request.method_mut() = check.method.clone();
    *request.uri_mut() = check.path.clone().into();
    let headers = request.headers_mut();
    let host = check.host.clone().unwrap_or_else(|| own_host(address));
    headers.insert(header::HOST, host);
    headers.insert(header::USER_AGENT, AGENT);
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    for (name, value) in &check.headers {
        headers.insert(name, value.clone());
    }
    request
}

fn own_host(address: &Address) -> HeaderValue {
    let name = match address {
        Address::Tcp { .. } => HeaderValue::from_str(&address.to_string()).ok(),
        Address::Unix(_) => None,
    };
    name.unwrap_or(HeaderValue::from_static("localhost"))
}

/// What a server says its weight is; one that says nonsense has said nothing.
fn weight(head: &Parts, name: &HeaderName) -> Option<u32> {
    let text = head.headers.get(name)?.to_str().ok()?;
    text.trim().parse().ok().filter(|weight| *weight <= MAX_WEIGHT)
}

const AGENT: HeaderValue = HeaderValue::from_static("sluice-probe");
/// What is searched for `body_contains`.
const MAX_BODY: usize = 64 * 1024;
/// As HAProxy's agents say it, whose weights end there.
const MAX_WEIGHT: u32 = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    /// A server that answers one request with `answer` and then keeps still.
    async fn asked(check: &HttpCheck, answer: &[u8]) -> (Result<Answer, Fault>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let server = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let n = socket.read(&mut request).await.unwrap();
            // A client that has seen enough leaves in the middle of a long body.
            let _ = socket.write_all(answer).await;
            (socket, String::from_utf8_lossy(&request[..n]).into_owned())
        };
        let (result, (_, request)) = tokio::join!(probe(&address, None, check, LIMIT), server);
        (result, request)
    }

    const LIMIT: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn the_answer_decides() {
        let check = HttpCheck { body_contains: Some("ok".to_owned()), ..HttpCheck::default() };
        let well =
            |text: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        let far = format!("{}ok", "x".repeat(100 * 1024));
        for (answer, expected) in [
            (well("all is ok"), Ok(200)),
            (well("all is well"), Err("body lacks 'ok'")),
            (well(&far), Err("body lacks 'ok'")),
            ("HTTP/1.1 302 Found\r\nContent-Length: 2\r\n\r\nok".to_owned(), Ok(302)),
            (
                "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nok".to_owned(),
                Err("503 Service Unavailable"),
            ),
            (well("ok").replace("2\r\n", "3\r\n"), Err("no whole answer within 300ms")),
            ("HTTP/1.1 200 OK\r\n".to_owned(), Err("no whole answer within 300ms")),
            ("+PONG\r\n\r\n".to_owned(), Err("invalid HTTP version parsed")),
        ] {
            let (result, _) = asked(&check, answer.as_bytes()).await;
            let told = result.map(|answer| answer.status.as_u16()).map_err(|e| e.to_string());
            assert_eq!(told, expected.map_err(str::to_owned), "{answer:.40}");
        }
    }

    #[tokio::test]
    async fn the_request_says_what_the_check_says() {
        let check = HttpCheck {
            path: "/health?full=1".parse().unwrap(),
            host: Some(HeaderValue::from_static("app.example")),
            headers: vec![(header::AUTHORIZATION, HeaderValue::from_static("Basic eA=="))],
            weight_header: Some(HeaderName::from_static("x-weight")),
            ..HttpCheck::default()
        };
        for (said, weight) in [("7", Some(7)), ("0", Some(0)), ("257", None), ("-1", None)] {
            let answer = format!("HTTP/1.1 204 No Content\r\nX-Weight: {said}\r\n\r\n");
            let (result, request) = asked(&check, answer.as_bytes()).await;
            assert_eq!(result.unwrap().weight, weight, "{said}");
            assert!(request.starts_with("GET /health?full=1 HTTP/1.1\r\n"), "{request}");
            for line in ["host: app.example\r\n", "authorization: Basic eA==\r\n"] {
                assert!(request.contains(line), "{request}");
            }
        }
    }
}
