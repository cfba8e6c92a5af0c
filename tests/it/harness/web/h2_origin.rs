//! An origin that speaks HTTP/2 alone (the h2 crate), in clear with prior knowledge. Probes that
//! only connect are no requests.

use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use std::thread;
use tokio::{net::TcpListener, runtime::Builder};

/// `/echo` sends back the body and its trailers, part by part; `/trailers-only` is an answer of
/// gRPC's, whose head is its end, with status 5; what else is answered 200 with `METHOD PATH`.
/// Every answer has `X-Authority` and `X-TE` as they came.
#[derive(Debug)]
pub(crate) struct TwoOrigin {
    address: String,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl TwoOrigin {
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = accept(listener) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, _stop: stop }
    }

    pub(crate) fn address(&self) -> String {
        self.address.clone()
    }
}

async fn accept(listener: TcpListener) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let Ok(mut connection) = h2::server::handshake(socket).await else { return };
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(answer(request, respond));
            }
        });
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<bytes::Bytes>,
) -> Option<()> {
    let (head, mut body) = request.into_parts();
    let mut response = Response::new(());
    let authority = head.uri.authority().map_or("", |authority| authority.as_str());
    let te = head.headers.get("te").cloned();
    response.headers_mut().insert("x-authority", HeaderValue::from_str(authority).unwrap());
    response.headers_mut().extend(te.map(|te| (http::HeaderName::from_static("x-te"), te)));
    match head.uri.path() {
        "/trailers-only" => {
            response.headers_mut().insert("grpc-status", HeaderValue::from_static("5"));
            respond.send_response(response, true).ok()?;
        }
        "/echo" => {
            let mut sending = respond.send_response(response, false).ok()?;
            while let Some(piece) = body.data().await {
                let piece = piece.ok()?;
                body.flow_control().release_capacity(piece.len()).ok()?;
                sending.send_data(piece, false).ok()?;
            }
            match body.trailers().await.ok()? {
                Some(trailers) => sending.send_trailers(trailers).ok()?,
                None => sending.send_trailers(HeaderMap::new()).ok()?,
            }
        }
        path => {
            let text = format!("{} {path}", head.method);
            let mut sending = respond.send_response(response, false).ok()?;
            sending.send_data(text.into(), true).ok()?;
        }
    }
    Some(())
}
