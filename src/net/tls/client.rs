//! The client's side: whom we believe to be a backend, what we show it, and the handshake. Not the
//! dialling: see [`crate::net::dial`].

use super::{
    files::{self, FileError, Pair, Stamp},
    handshake, provider,
    renew::{Follower, Renewal},
    trust::Trust,
};
use crate::net::{addr::Address, stream::Stream};
use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, ClientConnection, Connection, pki_types::ServerName, sign::SingleCertAndKey,
};
use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

/// What TLS to the backends of a cluster is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// Whose certificates are believed; `None`: the authorities that this machine trusts.
    pub ca: Option<PathBuf>,
    /// The name that their certificates must have; `None`: the host of each one's address.
    pub server_name: Option<String>,
    /// What we show when we are asked.
    pub certificate: Option<Pair>,
    /// Believes any certificate.
    pub insecure_skip_verify: bool,
}

/// A cluster's side of TLS; cheap to clone, and all clones see a renewed certificate.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    files: ClientFiles,
    loaded: ArcSwap<Loaded>,
}

struct Loaded {
    config: Arc<ClientConfig>,
    stamp: Stamp,
}

/// Whether a certificate can be for that: a host name or an IP address.
pub fn is_server_name(text: &str) -> bool {
    ServerName::try_from(text).is_ok()
}

impl ClientFiles {
    /// Every file.
    fn paths(&self) -> impl Iterator<Item = &Path> {
        let pair = self.certificate.iter().flat_map(|pair| [&pair.cert, &pair.key]);
        pair.chain(&self.ca).map(PathBuf::as_path)
    }

    /// Which of them could not be used now, and why.
    pub fn check(&self) -> Vec<FileError> {
        let shown = self.certificate.as_ref();
        let shown = shown.and_then(|pair| files::certificate(pair, SystemTime::now()).err());
        let ca = self.ca.as_deref().and_then(|ca| files::roots(ca).err());
        let errors: Vec<_> = shown.into_iter().chain(ca).collect();
        if errors.is_empty() { self.load().err().into_iter().collect() } else { errors }
    }

    fn load(&self) -> Result<Loaded, FileError> {
        let stamp = Stamp::of(self.paths());
        let builder = ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| FileError::new(Path::new("TLS"), error))?;
        let trust = match &self.ca {
            _ if self.insecure_skip_verify => Trust::Anybody,
            Some(ca) => Trust::new(files::roots(ca)?, files::chain(ca)?)
                .map_err(|reason| FileError::new(ca, reason))?,
            None => Trust::new(files::system_roots()?, Vec::new())
                .map_err(|reason| FileError::new(Path::new("system certificates"), reason))?,
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(trust));
        let config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let shown = files::certificate(pair, SystemTime::now())?.key;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown)))
            }
        };
        Ok(Loaded { config: Arc::new(config), stamp })
    }
}

impl Client {
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn load(files: ClientFiles) -> Result<Self, FileError> {
        let loaded = ArcSwap::from_pointee(files.load()?);
        Ok(Self(Arc::new(Shared { files, loaded })))
    }

    /// The handshake with the backend at `address`, on a fresh connection to it; `alpn` are the
    /// protocols offered, the preferred one first. It has no time limit of its own.
    ///
    /// # Errors
    /// Why there is no TLS.
    pub async fn connect(
        &self,
        socket: Stream,
        address: &Address,
        alpn: &[&[u8]],
    ) -> io::Result<Stream> {
        let name = self.server_name(address)?;
        let config = Arc::clone(&self.0.loaded.load().config);
        let alpn = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let connection = ClientConnection::new_with_alpn(config, name, alpn);
        let connection = Connection::Client(connection.map_err(io::Error::other)?);
        handshake(socket, connection, &[]).await
    }

    fn server_name(&self, address: &Address) -> io::Result<ServerName<'static>> {
        let name = match (&self.0.files.server_name, address) {
            (Some(name), _) => name,
            (None, Address::Tcp { host, .. }) => host.trim_matches(['[', ']']),
            (None, Address::Unix(_)) => "localhost",
        };
        ServerName::try_from(name.to_owned()).map_err(|_| {
            let text = format!("'{name}' is no name a certificate can have; set server_name");
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })
    }

    /// Where its files stand now, for [`Self::renew`].
    pub fn follow(&self) -> Follower {
        Follower::new(self.0.loaded.load().stamp.clone())
    }

    /// Looks at the files, and uses what they hold for new connections once they have changed.
    pub fn renew(&self, follower: &mut Follower) -> Renewal {
        let shared = &*self.0;
        follower.look(Stamp::of(shared.files.paths()), || {
            shared.loaded.store(Arc::new(shared.files.load()?));
            Ok(())
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("files", &self.0.files).finish_non_exhaustive()
    }
}
