//! A good HTTP/2 client (the h2 crate) over clear text, for blocking tests.

use super::super::PATIENCE;
use http::{HeaderMap, Request, response::Parts};

/// A head, a body and its trailers.
pub(crate) type Message<H> = (H, Vec<u8>, Option<HeaderMap>);

/// Sends all requests at once on one connection, each with its body and trailers; gives each
/// response with its body and trailers.
pub(crate) fn exchange(
    address: &str,
    requests: Vec<Message<Request<()>>>,
) -> Vec<Result<Message<Parts>, h2::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let all = async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut waiting = Vec::new();
        for (request, body, trailers) in requests {
            sender = sender.ready().await.unwrap();
            let nothing = body.is_empty() && trailers.is_none();
            let (response, mut sending) = sender.send_request(request, nothing).unwrap();
            if !body.is_empty() {
                sending.send_data(body.into(), trailers.is_none()).unwrap();
            }
            if let Some(trailers) = trailers {
                sending.send_trailers(trailers).unwrap();
            }
            waiting.push(response);
        }
        // All at once: what one is not read of takes the room of the others.
        let reading: Vec<_> = waiting.into_iter().map(|one| tokio::spawn(read(one))).collect();
        let mut responses = Vec::new();
        for response in reading {
            responses.push(response.await.unwrap());
        }
        responses
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, all).await.expect("in time") })
}

async fn read(response: h2::client::ResponseFuture) -> Result<Message<Parts>, h2::Error> {
    let (parts, mut stream) = response.await?.into_parts();
    let mut body = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        stream.flow_control().release_capacity(piece.len())?;
        body.extend_from_slice(&piece);
    }
    Ok((parts, body, stream.trailers().await?))
}
