//! A connection to a backend as it is to be used: connected, greeted with a PROXY protocol header
//! where it wants one, and encrypted where the cluster says so. Not which backend, nor what is said
//! to it.

use super::{
    addr::Address,
    stream::{self, Stream},
    tls,
};
use std::{io, time::Duration};
use tokio::{io::AsyncWriteExt, time::timeout};

/// What is said to a backend before anything else.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opening<'a> {
    /// A PROXY protocol header; it comes before TLS.
    pub header: Option<&'a [u8]>,
    /// `None`: in clear.
    pub tls: Option<&'a tls::Client>,
    /// The protocols offered under TLS, the preferred one first.
    pub alpn: &'a [&'a [u8]],
}

impl<'a> Opening<'a> {
    /// TLS or not, and nothing else.
    pub fn tls(tls: Option<&'a tls::Client>) -> Self {
        Self { tls, ..Self::default() }
    }
}

/// Dials `address` and opens the connection; `limit` covers all of it.
///
/// # Errors
/// What went wrong, in which part; `TimedOut` after `limit`.
pub async fn dial(address: &Address, opening: Opening<'_>, limit: Duration) -> io::Result<Stream> {
    let Opening { header, tls, alpn } = opening;
    let connect = stream::connect(address, limit);
    if header.is_none() && tls.is_none() {
        return connect.await;
    }
    let mut connected = false;
    let open = async {
        let mut stream = connect.await?;
        connected = true;
        if let Some(header) = header {
            // A new socket takes so little at once.
            stream.write_all(header).await?;
        }
        match tls {
            None => Ok(stream),
            Some(tls) => tls
                .connect(stream, address, alpn)
                .await
                .map_err(|error| io::Error::new(error.kind(), format!("TLS handshake: {error}"))),
        }
    };
    match timeout(limit, open).await {
        Ok(done) => done,
        Err(_) => {
            let part = if connected { "TLS handshake: " } else { "" };
            let text = format!("{part}timed out after {}ms", limit.as_millis());
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        }
    }
}
