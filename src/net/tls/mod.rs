//! TLS on either side of a connection: what a listener shows and asks ([`Server`]), what we ask of
//! and show to a backend ([`Client`]). Not what is said inside, and not who dials.

mod client;
mod files;
mod names;
mod renew;
mod server;
mod stream;
mod trust;

pub use client::{Client, ClientFiles, is_server_name};
pub use files::{FileError, Pair};
pub use renew::{Follower, Renewal};
pub use server::{Server, ServerFiles, Version};
pub use stream::Tls;

pub(in crate::net) use stream::UNSENT;

use super::stream::Stream;
use rustls::{Connection, crypto::CryptoProvider};
use std::{
    future::poll_fn,
    io,
    sync::{Arc, LazyLock},
};

/// The cryptography: X25519 before all else, and the post-quantum group last, for who asks for
/// nothing else: it costs both sides about twice the time.
fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    &PROVIDER
}

async fn handshake(socket: Stream, connection: Connection, early: &[u8]) -> io::Result<Stream> {
    let mut tls = Box::new(Tls::new(socket, connection, early));
    poll_fn(|cx| tls.poll_handshake(cx)).await?;
    Ok(Stream::Tls(tls))
}

#[cfg(test)]
mod tests;
