//! An authority with the certificates it made in a temporary folder, and a TLS client that believes
//! it. It is rustls as Sluice is: what another library makes of Sluice is asked of openssl.

use super::{
    PATIENCE,
    resp::{Value, request},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    client::Resumption,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use std::{
    fs,
    io::{self, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempDir;

pub(crate) struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// The two files of a certificate.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// A connection that speaks TLS.
pub(crate) struct TlsConn(BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl Authority {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().unwrap();
        fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    /// A file in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Its own certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// A certificate for these names in `name.pem` and its key in `name.key`; `name` is its subject.
    pub(crate) fn issue(&self, name: &str, names: &[&str]) -> Issued {
        self.issue_as(name, |_| (), names)
    }

    /// The same, changed by `change` before it is signed.
    pub(crate) fn issue_as(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
        names: &[&str],
    ) -> Issued {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let issued = Issued {
            cert: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
        };
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        replace(&issued.cert, &certificate.pem());
        replace(&issued.key, &key.serialize_pem());
        issued
    }

    /// A client that believes only this authority, and is shown a certificate each time.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.ca()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }
}

/// As renewals are made: the new file takes the old one's name.
fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("fresh");
    fs::write(&fresh, text).unwrap();
    fs::rename(&fresh, path).unwrap();
}

impl Issued {
    /// As an item of `certificates`.
    pub(crate) fn yaml(&self) -> String {
        format!("{{ cert: {}, key: {} }}", self.cert.display(), self.key.display())
    }
}

impl TlsConn {
    /// Connects and finishes the handshake with a server called `name`.
    pub(crate) fn open(address: &str, client: &Arc<ClientConfig>, name: &str) -> io::Result<Self> {
        let socket = TcpStream::connect_timeout(&address.parse().unwrap(), PATIENCE)?;
        Self::over(socket, client, name)
    }

    /// The handshake on a socket that is connected.
    pub(crate) fn over(
        mut socket: TcpStream,
        client: &Arc<ClientConfig>,
        name: &str,
    ) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = ClientConnection::new(Arc::clone(client), name).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(Self(BufReader::with_capacity(64 << 10, StreamOwned::new(connection, socket))))
    }

    /// The certificate that the server showed.
    pub(crate) fn shown(&self) -> Vec<u8> {
        self.connection().peer_certificates().unwrap()[0].to_vec()
    }

    pub(crate) fn connection(&self) -> &ClientConnection {
        &self.0.get_ref().conn
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.0.get_ref().sock
    }

    /// Says that it sends no more.
    pub(crate) fn finish_sending(&mut self) {
        let stream = self.0.get_mut();
        stream.conn.send_close_notify();
        while stream.conn.wants_write() {
            stream.conn.write_tls(&mut stream.sock).unwrap();
        }
    }

    /// One Redis request, one reply.
    #[track_caller]
    pub(crate) fn cmd<T: AsRef<[u8]>>(&mut self, words: &[T]) -> Value {
        self.try_cmd(words).unwrap_or_else(|error| panic!("no reply: {error}"))
    }

    pub(crate) fn try_cmd<T: AsRef<[u8]>>(&mut self, words: &[T]) -> io::Result<Value> {
        self.write_all(&request(words))?;
        Value::read(&mut self.0)
    }

    /// The next Redis reply.
    #[track_caller]
    pub(crate) fn reply(&mut self) -> Value {
        Value::read(&mut self.0).unwrap()
    }
}

impl Read for TlsConn {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for TlsConn {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.get_mut().flush()
    }
}
