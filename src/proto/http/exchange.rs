//! One HTTP/1.1 request and its answer over a connection of its own, for probes and the command
//! line. Not for requests of clients: nothing is kept or streamed here.

use crate::net::stream::Stream;
use bytes::Bytes;
use http::{Request, response::Parts};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::{convert::Infallible, future::pending};

/// The head of the answer and the first `most` bytes of its body. It takes as long as the server
/// does: the caller has the clock.
///
/// # Errors
/// When the connection breaks or what comes is not HTTP.
pub async fn exchange(
    stream: Stream,
    request: Request<Full<Bytes>>,
    most: usize,
) -> hyper::Result<(Parts, Vec<u8>)> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await?;
    let ask = async {
        let (parts, mut body) = sender.send_request(request).await?.into_parts();
        let mut read = Vec::new();
        while let (true, Some(frame)) = (read.len() < most, body.frame().await.transpose()?) {
            if let Some(bytes) = frame.data_ref() {
                let room = most - read.len();
                read.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
            }
        }
        Ok((parts, read))
    };
    // Its end, well or not, is told to the request.
    let drive = async {
        let _ = connection.await;
        pending::<Infallible>().await
    };
    tokio::select! {
        answer = ask => answer,
        never = drive => match never {},
    }
}

/// Of the answer's head.
const MAX_HEAD: usize = 64 * 1024;
