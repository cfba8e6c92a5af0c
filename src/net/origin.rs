//! Whose connection it is: the socket's two ends, or what a trusted proxy says at its beginning.
//! Not who is trusted.

use super::{
    proxy_protocol::{self, Ends, Header},
    stream::Stream,
};
use std::{io, net::IpAddr, time::Duration};
use tokio::{io::AsyncReadExt, time::timeout};

/// Who the client is, and what of its bytes came with the telling.
#[derive(Debug)]
pub struct Origin {
    pub ends: Option<Ends>,
    pub address: Option<IpAddr>,
    /// Without capacity when nothing was read.
    pub early: Vec<u8>,
}

impl Origin {
    /// As the socket itself says; `peer` is its other end's address.
    pub fn of(client: &Stream, peer: Option<IpAddr>) -> Self {
        Self { ends: ends(client), address: peer, early: Vec::new() }
    }

    /// As the caller knows it; the ends of the socket are not asked for.
    pub fn known(peer: Option<IpAddr>) -> Self {
        Self { ends: None, address: peer, early: Vec::new() }
    }

    /// Reads the header that a proxy begins with into `buffer`; the own ends stand when it speaks
    /// for itself.
    ///
    /// # Errors
    /// When the header is none, or has not come after 5s.
    pub async fn greeted(self, client: &mut Stream, mut buffer: Vec<u8>) -> io::Result<Self> {
        let read = async {
            loop {
                match proxy_protocol::parse(&buffer).map_err(io::Error::other)? {
                    None if client.read_buf(&mut buffer).await? == 0 => {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    None => {}
                    Some(Header { ends, len }) => {
                        buffer.drain(..len);
                        let address = ends.map(|ends| ends.source.ip()).or(self.address);
                        return Ok(Self { ends: ends.or(self.ends), address, early: buffer });
                    }
                }
            }
        };
        timeout(HEADER_TIMEOUT, read).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

fn ends(client: &Stream) -> Option<Ends> {
    let socket = client.tcp()?;
    Some(Ends { source: socket.peer_addr().ok()?, destination: socket.local_addr().ok()? })
}

/// As long as a TLS handshake may take (http-tcp.md); a proxy sends its header at once.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
