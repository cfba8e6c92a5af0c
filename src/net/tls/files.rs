//! Certificates and keys from PEM files, with errors that name the file and the reason. Not what
//! they are used for.

use super::provider;
use rustls::{
    Error, InconsistentKeys, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    sign::CertifiedKey,
};
use std::{
    fmt, fs,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The two files of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The certificate, followed by those between it and the authority's own.
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Which file cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", file.display())]
pub struct FileError {
    pub file: PathBuf,
    pub reason: String,
}

/// A certificate that can be shown, with its key.
#[derive(Clone)]
pub(super) struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    /// The host names it is for; `*.` stands for any one label.
    pub(super) names: Vec<String>,
    /// Seconds since 1970.
    pub(super) not_after: i64,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("names", &self.names).finish_non_exhaustive()
    }
}

impl FileError {
    pub(super) fn new(file: &Path, reason: impl fmt::Display) -> Self {
        Self { file: file.to_owned(), reason: reason.to_string() }
    }
}

/// A certificate that is valid at `now`, and the key that belongs to it.
pub(super) fn certificate(pair: &Pair, now: SystemTime) -> Result<Certificate, FileError> {
    let wrong = |reason: String| FileError::new(&pair.cert, reason);
    let chain = chain(&pair.cert)?;
    let first = chain.first().ok_or_else(|| wrong("there is no certificate in it".to_owned()))?;
    let (_, parsed) =
        X509Certificate::from_der(first).map_err(|error| wrong(format!("not X.509: {error}")))?;
    let validity = parsed.validity();
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    if validity.not_after.timestamp() < now {
        return Err(wrong(format!("the certificate expired on {}", validity.not_after)));
    }
    if validity.not_before.timestamp() > now {
        return Err(wrong(format!("the certificate is valid only from {}", validity.not_before)));
    }
    let names = parsed.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|extension| &extension.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    let (names, not_after) = (names.collect(), validity.not_after.timestamp());
    let key = certified(pair, chain)?;
    Ok(Certificate { key: Arc::new(key), names, not_after })
}

fn certified(pair: &Pair, chain: Vec<CertificateDer<'static>>) -> Result<CertifiedKey, FileError> {
    let wrong = |reason: &str| FileError::new(&pair.key, reason);
    let text = read(&pair.key)?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        _ if is_encrypted(&text) => wrong("its key is encrypted; store it decrypted"),
        pem::Error::NoItemsFound if has_pem(&text) => wrong("there is no private key in it"),
        pem::Error::NoItemsFound => wrong("it is not PEM"),
        error => FileError::new(&pair.key, error),
    })?;
    let key = provider().key_provider.load_private_key(key);
    let key = key.map_err(|error| wrong(&format!("its key cannot be used: {error}")))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(Error::InconsistentKeys(_)) => {
            Err(wrong(&format!("it is not the key of the certificate in {}", pair.cert.display())))
        }
        Err(error) => Err(FileError::new(&pair.cert, error)),
    }
}

/// The certificates of authorities.
pub(super) fn roots(file: &Path) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(file)? {
        roots.add(certificate).map_err(|error| {
            FileError::new(file, format!("a certificate in it cannot be used: {error}"))
        })?;
    }
    Ok(roots)
}

/// The authorities that this machine trusts; `SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured.
pub(super) fn system_roots() -> Result<RootCertStore, FileError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
    let reason = format!("none found{why}; install ca-certificates or name a file with `ca`");
    Err(FileError::new(Path::new("system certificates"), reason))
}

/// Every certificate in a file, at least one.
pub(super) fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let text = read(file)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let all = all.map_err(|error| FileError::new(file, format!("it is damaged: {error:?}")))?;
    match all.as_slice() {
        [] if has_pem(&text) => Err(FileError::new(file, "there is no certificate in it")),
        [] => Err(FileError::new(file, "it is not PEM")),
        _ => Ok(all),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, FileError> {
    let read = || {
        let mut text = Vec::new();
        fs::File::open(file)?.take(MOST + 1).read_to_end(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|error: io::Error| FileError::new(file, error))?;
    if u64::try_from(text.len()).is_ok_and(|len| len > MOST) {
        return Err(FileError::new(file, "it is larger than 4 MiB"));
    }
    Ok(text)
}

fn has_pem(text: &[u8]) -> bool {
    memchr::memmem::find(text, b"-----BEGIN ").is_some()
}

fn is_encrypted(text: &[u8]) -> bool {
    // The second is that of the older form, in the headers of the block.
    [&b"BEGIN ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"]
        .iter()
        .any(|mark| memchr::memmem::find(text, mark).is_some())
}

/// What tells that a file was replaced or written to: its place, its size and when. `None` when it
/// cannot be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp(Vec<Option<Look>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Look {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// Of these files now; links are followed.
    pub(super) fn of<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        let one = |file| {
            let meta = fs::metadata(file).ok()?;
            let changed = (meta.mtime(), meta.mtime_nsec());
            Some(Look { device: meta.dev(), inode: meta.ino(), size: meta.size(), changed })
        };
        Self(files.into_iter().map(one).collect())
    }
}

/// A bundle of every authority there is has less than 1 MiB.
const MOST: u64 = 4 * 1024 * 1024;

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;

    /// PEM of a certificate for `names` that it signed itself, and of its key.
    pub(in crate::net) fn pem(names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let params = CertificateParams::new(names).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    /// The two files of a certificate for `names`.
    pub(in crate::net) fn pair(folder: &TempDir, name: &str, names: &[&str]) -> Pair {
        let (certificate, key) = pem(names);
        let pair = Pair {
            cert: folder.path().join(format!("{name}.pem")),
            key: folder.path().join(format!("{name}.key")),
        };
        fs::write(&pair.cert, certificate).unwrap();
        fs::write(&pair.key, key).unwrap();
        pair
    }

    pub(in crate::net::tls) fn certificate(names: &[&str]) -> Certificate {
        let folder = TempDir::new().unwrap();
        super::certificate(&pair(&folder, "x", names), SystemTime::now()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        testing::{pair, pem},
        *,
    };
    use std::time::Duration;
    use tempfile::TempDir;

    #[test]
    fn names_and_end_are_those_of_the_certificate() {
        let folder = TempDir::new().unwrap();
        let pair = pair(&folder, "x", &["a.test", "*.b.test"]);
        let loaded = certificate(&pair, SystemTime::now()).unwrap();
        assert_eq!(loaded.names, ["a.test", "*.b.test"]);
        // The year 4096, rcgen's own default.
        assert_eq!(loaded.not_after, 67_090_118_400);
    }

    #[test]
    fn an_error_names_the_file_and_the_reason() {
        let folder = TempDir::new().unwrap();
        let good = pair(&folder, "good", &["a.test"]);
        let other = pair(&folder, "other", &["a.test"]);
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let (cert, key) = pem(&["a.test"]);
        let cut = cert.replace("-----END", "----");
        let locked =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let cert_of = |file: PathBuf| Pair { cert: file, key: good.key.clone() };
        let key_of = |file: PathBuf| Pair { cert: good.cert.clone(), key: file };
        for (pair, file, reason) in [
            (cert_of(folder.path().join("none")), "none", "No such file"),
            (cert_of(folder.path().to_owned()), "", "directory"),
            (cert_of(write("text.pem", "hello")), "text.pem", "it is not PEM"),
            (cert_of(write("key.pem", &key)), "key.pem", "there is no certificate in it"),
            (cert_of(write("cut.pem", &cut)), "cut.pem", "it is damaged"),
            (key_of(write("cert.key", &cert)), "cert.key", "there is no private key in it"),
            (key_of(write("text.key", "hello")), "text.key", "it is not PEM"),
            (key_of(write("locked.key", locked)), "locked.key", "its key is encrypted"),
            (key_of(other.key.clone()), "other.key", "it is not the key of the certificate in"),
        ] {
            let error = certificate(&pair, SystemTime::now()).unwrap_err().to_string();
            let path = folder.path().join(file);
            let path = path.to_str().unwrap().trim_end_matches('/');
            assert!(error.starts_with(path) && error.contains(reason), "{error}");
        }
        let late = SystemTime::UNIX_EPOCH + Duration::from_secs(200_000_000_000);
        let error = certificate(&good, late).unwrap_err().to_string();
        assert!(error.contains("good.pem: the certificate expired on"), "{error}");
        let error = certificate(&good, SystemTime::UNIX_EPOCH).unwrap_err().to_string();
        assert!(error.contains("good.pem: the certificate is valid only from"), "{error}");
    }

    #[test]
    fn a_stamp_changes_with_the_file() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("x");
        let stamp = || Stamp::of([file.as_path()]);
        let none = stamp();
        fs::write(&file, "1").unwrap();
        let first = stamp();
        assert!(none != first && first == stamp());
        fs::write(&file, "12").unwrap();
        let second = stamp();
        assert_ne!(first, second);
        let other = folder.path().join("y");
        fs::write(&other, "12").unwrap();
        fs::rename(&other, &file).unwrap();
        assert_ne!(second, stamp());
    }
}
