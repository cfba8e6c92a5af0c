//! Asks one node of a Redis Cluster who owns which slots. Not when, nor whether it is believed.

use super::slots::{Map, epoch};
use crate::{
    net::{
        addr::Address,
        dial::{Opening, dial},
        stream::Stream,
        tls,
    },
    proto::redis::{class::Class, handshake, inline, scan::Scanner},
    topology::Credentials,
};
use std::{io, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What a node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub map: Map,
    pub epoch: u64,
}

/// Asks the node at `address`; `timeout` covers all of it.
///
/// # Errors
/// It cannot be reached, refuses, or answers nonsense; in words, without the password.
pub async fn ask(
    address: &Address,
    credentials: &Credentials,
    tls: Option<&tls::Client>,
    timeout: Duration,
) -> Result<View, String> {
    let talk = async {
        let mut stream = dial(address, Opening::tls(tls), timeout).await?;
        handshake::greet(&mut stream, credentials, Class::default(), timeout).await?;
        let mut request = Vec::new();
        inline::to_resp(&["CLUSTER", "SLOTS"], &mut request);
        inline::to_resp(&["CLUSTER", "INFO"], &mut request);
        stream.write_all(&request).await?;
        stream.flush().await?;
        let mut bytes = Vec::new();
        let slots = reply(&mut stream, &mut bytes).await?;
        let info = reply(&mut stream, &mut bytes).await?;
        Ok::<_, io::Error>((slots, info))
    };
    let talked = tokio::time::timeout(timeout, talk).await;
    let (slots, info) = talked
        .map_err(|_| format!("no answer within {}ms", timeout.as_millis()))?
        .map_err(|error| credentials.conceal(&error.to_string()))?;
    let map = Map::parse(&slots, address)?;
    Ok(View { map, epoch: epoch(&String::from_utf8_lossy(&info)) })
}

/// The next whole reply; what is behind it stays in `bytes`.
async fn reply(stream: &mut Stream, bytes: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let mut scanner = Scanner::default();
    loop {
        if let Some(len) = scanner.measure(bytes).map_err(io::Error::other)? {
            let rest = bytes.split_off(len);
            return Ok(std::mem::replace(bytes, rest));
        }
        if bytes.len() > LONGEST {
            return Err(io::Error::other("its answer is too long"));
        }
        bytes.reserve(16 * 1024);
        if stream.read_buf(bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// 16,384 ranges of one slot with two replicas each take some 4 MiB.
const LONGEST: usize = 16 * 1024 * 1024;
