//! The server's side: the certificates of one listener, whom it lets in, and the handshake with its
//! clients. Not what they are served.

use super::{
    files::{self, FileError, Pair, Stamp},
    handshake,
    names::ByName,
    provider,
    renew::{Follower, Renewal},
};
use crate::{net::stream::Stream, telemetry::metrics::ListenerMetrics};
use arc_swap::ArcSwap;
use rustls::{
    Connection, RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion,
    server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier},
};
use std::{
    fmt, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::time::timeout;

/// What a listener's TLS is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    /// At least one; the first is for who asks for a name of none of them.
    pub certificates: Vec<Pair>,
    /// Whose certificates clients must show; `None`: they show none.
    pub client_ca: Option<PathBuf>,
    pub min_version: Version,
}

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    #[default]
    V1_2,
    V1_3,
}

/// One listener's side of TLS; cheap to clone, and all clones see a renewed certificate.
#[derive(Clone)]
pub struct Server(Arc<Shared>);

struct Shared {
    listener: String,
    files: ServerFiles,
    alpn: Vec<Vec<u8>>,
    loaded: ArcSwap<Loaded>,
    /// When a failed handshake was logged last, in seconds since 1970, and how many were not.
    complained: AtomicU64,
    unsaid: AtomicU64,
}

struct Loaded {
    config: Arc<ServerConfig>,
    roots: Option<Arc<RootCertStore>>,
    /// By certificate, when it ends.
    ends: Vec<i64>,
    stamp: Stamp,
}

impl ServerFiles {
    /// Every file.
    fn paths(&self) -> impl Iterator<Item = &Path> {
        let pairs = self.certificates.iter().flat_map(|pair| [&pair.cert, &pair.key]);
        pairs.chain(&self.client_ca).map(PathBuf::as_path)
    }

    /// Which of them a listener could not use now, and why.
    pub fn check(&self) -> Vec<FileError> {
        let now = SystemTime::now();
        let pairs = self.certificates.iter().map(|pair| files::certificate(pair, now).err());
        let errors: Vec<_> = pairs
            .chain([self.client_ca.as_deref().and_then(|ca| files::roots(ca).err())])
            .flatten()
            .collect();
        if errors.is_empty() { self.load(&[], None).err().into_iter().collect() } else { errors }
    }

    fn load(&self, alpn: &[Vec<u8>], before: Option<&Loaded>) -> Result<Loaded, FileError> {
        let stamp = Stamp::of(self.paths());
        let now = SystemTime::now();
        let each = self.certificates.iter().map(|pair| files::certificate(pair, now));
        let certificates = each.collect::<Result<Vec<_>, _>>()?;
        let roots = self.client_ca.as_deref().map(files::roots).transpose()?.map(Arc::new);
        let wrong = |error: &dyn fmt::Display| {
            let file = self.client_ca.as_deref().or_else(|| self.paths().next());
            FileError::new(file.unwrap_or_else(|| Path::new("")), error)
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(self.min_version.and_later())
            .map_err(|error| wrong(&error))?;
        let builder = match &roots {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let (roots, provider) = (Arc::clone(roots), Arc::clone(provider()));
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| wrong(&error))?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(ByName::new(&certificates)));
        config.alpn_protocols = alpn.to_vec();
        // A ticket holds the session, so nothing is remembered here. It stays good when a
        // certificate is renewed, but not when other clients are to be let in.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = match before {
            Some(before) if same(before.roots.as_deref(), roots.as_deref()) => {
                Arc::clone(&before.config.ticketer)
            }
            _ => tickets().map_err(|error| wrong(&error))?,
        };
        let ends = certificates.iter().map(|certificate| certificate.not_after).collect();
        Ok(Loaded { config: Arc::new(config), roots, ends, stamp })
    }
}

fn same(one: Option<&RootCertStore>, other: Option<&RootCertStore>) -> bool {
    one.map(|store| &store.roots) == other.map(|store| &store.roots)
}

fn tickets() -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
    rustls::crypto::aws_lc_rs::Ticketer::new()
}

impl Version {
    fn and_later(self) -> &'static [&'static SupportedProtocolVersion] {
        static NEWEST: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
        match self {
            Self::V1_2 => rustls::DEFAULT_VERSIONS,
            Self::V1_3 => &NEWEST,
        }
    }
}

impl Server {
    /// For the listener of that name; `alpn` are the protocols it speaks, the preferred one first.
    /// A client that offers others alone is refused; one that offers none is not.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn load(listener: &str, files: ServerFiles, alpn: &[&[u8]]) -> Result<Self, FileError> {
        let alpn: Vec<_> = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let loaded = ArcSwap::from_pointee(files.load(&alpn, None)?);
        Ok(Self(Arc::new(Shared {
            listener: listener.to_owned(),
            files,
            alpn,
            loaded,
            complained: AtomicU64::new(0),
            unsaid: AtomicU64::new(0),
        })))
    }

    /// The handshake with a client at `peer`, of which `early` was read already. It takes at most
    /// 5s, is counted, and one that fails is logged, once a minute.
    ///
    /// # Errors
    /// Why there is no TLS; the client was told as far as it can be.
    pub async fn accept(
        &self,
        socket: Stream,
        early: &[u8],
        peer: Option<IpAddr>,
        metrics: &ListenerMetrics,
    ) -> io::Result<Stream> {
        // Apart, so that sessions in clear need no room for it.
        match Box::pin(self.handshake(socket, early)).await {
            Ok(stream) => {
                metrics.tls_ok.add(1);
                Ok(stream)
            }
            Err(error) => {
                metrics.tls_failed.add(1);
                self.0.complain(peer, &error);
                Err(error)
            }
        }
    }

    async fn handshake(&self, socket: Stream, early: &[u8]) -> io::Result<Stream> {
        let config = Arc::clone(&self.0.loaded.load().config);
        let connection = ServerConnection::new(config).map_err(io::Error::other)?;
        let handshake = handshake(socket, Connection::Server(connection), early);
        timeout(HANDSHAKE_TIMEOUT, handshake).await.unwrap_or_else(|_| {
            let text = format!("not done after {}s", HANDSHAKE_TIMEOUT.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        })
    }

    /// The certificates' files, and when each ends in seconds since 1970.
    pub fn ends(&self) -> Vec<(PathBuf, i64)> {
        let files = self.0.files.certificates.iter().map(|pair| pair.cert.clone());
        files.zip(self.0.loaded.load().ends.iter().copied()).collect()
    }

    /// Where its files stand now, for [`Self::renew`].
    pub fn follow(&self) -> Follower {
        Follower::new(self.0.loaded.load().stamp.clone())
    }

    /// Looks at the files, and uses what they hold for new clients once they have changed.
    pub fn renew(&self, follower: &mut Follower) -> Renewal {
        let shared = &*self.0;
        follower.look(Stamp::of(shared.files.paths()), || {
            let loaded = shared.files.load(&shared.alpn, Some(&shared.loaded.load()))?;
            shared.loaded.store(Arc::new(loaded));
            Ok(())
        })
    }
}

impl Shared {
    fn complain(&self, peer: Option<IpAddr>, error: &io::Error) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (now, last) = (now.as_secs(), self.complained.load(Ordering::Relaxed));
        let due = now.saturating_sub(last) >= COMPLAIN_AGAIN.as_secs();
        let relaxed = Ordering::Relaxed;
        if !due || self.complained.compare_exchange(last, now, relaxed, relaxed).is_err() {
            self.unsaid.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let more = self.unsaid.swap(0, Ordering::Relaxed);
        let peer = peer.map_or_else(|| "a unix socket".to_owned(), |peer| peer.to_string());
        tracing::info!(listener = %self.listener, more, "TLS handshake with {peer}: {error}");
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("files", &self.0.files).finish_non_exhaustive()
    }
}

/// http-tcp.md, TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const COMPLAIN_AGAIN: Duration = Duration::from_secs(60);
