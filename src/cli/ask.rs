//! Asking a running process over its admin address: where it listens, by the configuration or by
//! what is written, and one request to it. Not what is asked.

use super::{File, chain, load};
use crate::{
    config::{Admin, Secret},
    control::socket::default_paths,
    net::{
        addr::{Address, Bind},
        stream::{self, Stream},
    },
    proto::http::exchange::exchange,
};
use bytes::Bytes;
use clap::Args;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use std::{env, io, net::IpAddr, path::PathBuf, process::ExitCode, time::Duration};

/// Which process is meant.
#[derive(Debug, Args)]
pub(super) struct Whom {
    /// The configuration that it runs with; without one, what is there without an admin section.
    #[arg(short, long = "config", value_name = "FILE", env = "SLUICE_CONFIG")]
    config: Option<PathBuf>,
    /// Its admin address or socket, whatever a configuration says: /run/sluice/admin.sock, or
    /// 10.0.0.1:9900 with the token in SLUICE_ADMIN_TOKEN.
    #[arg(long, value_name = "ADDR_OR_SOCKET")]
    admin: Option<String>,
}

/// Where it may be asked, the best first, and with which token over TCP.
#[derive(Debug)]
pub(super) struct Doors {
    addresses: Vec<Address>,
    token: Option<String>,
}

/// What it answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
    /// Whom we asked, for messages.
    pub(super) address: String,
}

impl Whom {
    /// # Errors
    /// The exit code, when the configuration or the address is wrong; that was told already, or is
    /// the text.
    pub(super) fn doors(self) -> Result<Doors, Result<String, ExitCode>> {
        let given = env::var(TOKEN).ok().filter(|token| !token.is_empty());
        if let Some(written) = &self.admin {
            let address = address(written).map_err(Ok)?;
            return Ok(Doors { addresses: vec![address], token: given });
        }
        let admin = match self.config {
            Some(config) => load(File { config }).map_err(Err)?.admin,
            None => Admin::default(),
        };
        let token = given.or_else(|| admin.token.as_ref().map(|Secret(token)| token.clone()));
        let sockets = match (&admin.socket, &admin.bind) {
            (Some(socket), _) => vec![socket.clone()],
            (None, Bind::Unix(path)) => vec![path.clone()],
            (None, bind @ Bind::Tcp(_)) => default_paths(bind),
        };
        let tcp = match admin.bind {
            Bind::Tcp(bind) => Some(Address::Tcp { host: reached(bind.ip()), port: bind.port() }),
            Bind::Unix(_) => None,
        };
        let addresses = sockets.into_iter().map(Address::Unix).chain(tcp).collect();
        Ok(Doors { addresses, token })
    }
}

impl Doors {
    /// One request, to the first address where somebody listens.
    ///
    /// # Errors
    /// Why nobody could be asked, and what to do about it.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<Answer, String> {
        let mut tried = Vec::new();
        for address in &self.addresses {
            match stream::connect(address, CONNECT_TIMEOUT).await {
                Ok(stream) => {
                    let request = self.request(&stream, method, path, body)?;
                    let asked = exchange(stream, request, MAX_ANSWER);
                    let answer = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
                    let answer = answer.map_err(|_| format!("{address}: no answer within 10s"))?;
                    let (head, body) =
                        answer.map_err(|error| format!("{address}: {}", chain(&error)))?;
                    return Ok(Answer { status: head.status, body, address: address.to_string() });
                }
                // It is there, and not for us: another door would be another process's.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(format!(
                        "{address}: {error}; it is for the user that Sluice runs as, and for root"
                    ));
                }
                Err(error) => tried.push(format!("{address}: {error}")),
            }
        }
        Err(format!(
            "no running Sluice was found ({}); say which one with -c FILE or --admin",
            tried.join("; ")
        ))
    }

    fn request(
        &self,
        stream: &Stream,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<Request<Full<Bytes>>, String> {
        // Over TCP it answers to addresses alone, so that no page can reach it by a name of its own.
        let peer = stream.tcp().and_then(|socket| socket.peer_addr().ok());
        let host = peer.map_or_else(|| "localhost".to_owned(), |peer| peer.to_string());
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        if let (Some(token), Some(_)) = (&self.token, peer) {
            let value = HeaderValue::from_str(&format!("Bearer {token}"));
            let value = value.map_err(|_| format!("{TOKEN} has odd characters"))?;
            request = request.header(header::AUTHORIZATION, value);
        }
        request.body(Full::from(body)).map_err(|error| error.to_string())
    }
}

impl Answer {
    /// The document of a good answer.
    ///
    /// # Errors
    /// What it said is wrong, and with whom.
    pub(super) fn document(self) -> Result<serde_json::Value, String> {
        let document = serde_json::from_slice::<serde_json::Value>(&self.body);
        if self.status.is_success() {
            return document.map_err(|error| format!("{}: is this Sluice? {error}", self.address));
        }
        let told = document.ok().and_then(|told| Some(told.get("error")?.as_str()?.to_owned()));
        let told = told.unwrap_or_else(|| self.status.to_string());
        let hint = if told.contains("Bearer") || told.contains("token") {
            format!(" (sluice sends what {TOKEN} or admin.token of -c FILE says)")
        } else {
            String::new()
        };
        Err(format!("{told}{hint}"))
    }
}

/// `/path`, `unix:/path`, `host:port` or `http://host:port`.
fn address(written: &str) -> Result<Address, String> {
    if written.starts_with('/') {
        return Ok(Address::Unix(written.into()));
    }
    let plain = written.strip_prefix("http://").unwrap_or(written).trim_end_matches('/');
    plain.parse().map_err(|error| format!("--admin: {error}; or the path of its unix socket"))
}

/// The address of this machine at which a listener on `bind` is reached.
fn reached(bind: IpAddr) -> String {
    match bind {
        IpAddr::V4(ip) if ip.is_unspecified() => "127.0.0.1".to_owned(),
        IpAddr::V6(ip) if ip.is_unspecified() => "[::1]".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// The token, where no configuration says it.
const TOKEN: &str = "SLUICE_ADMIN_TOKEN";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Thousands of backends with their last probes.
const MAX_ANSWER: usize = 64 << 20;
