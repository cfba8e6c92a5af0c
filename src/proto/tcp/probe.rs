//! The plainest health request: a connection that is made, TLS included, and closed. Not when to ask, nor what
//! follows: control decides that.

use crate::net::{
    addr::Address,
    dial::{Opening, dial},
    tls,
};
use std::{io, time::Duration};

/// Whether somebody accepts at `address`, and can be spoken to under `tls`, within `timeout`.
///
/// # Errors
/// What kept it from connecting; `TimedOut` when nobody answered.
pub async fn probe(
    address: &Address,
    tls: Option<&tls::Client>,
    timeout: Duration,
) -> io::Result<()> {
    let mut stream = dial(address, Opening::tls(tls), timeout).await?;
    stream.say_goodbye();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn somebody_listens_or_nobody_does() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: Address = listener.local_addr().unwrap().to_string().parse().unwrap();
        probe(&address, None, Duration::from_secs(5)).await.unwrap();
        drop(listener);
        let error = probe(&address, None, Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
