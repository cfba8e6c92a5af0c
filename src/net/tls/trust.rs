//! Which certificates of a backend are believed, beyond those that an authority vouches for. Not the
//! handshake.

use super::provider;
use rustls::{
    DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use std::sync::Arc;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

/// Whom a cluster believes.
#[derive(Debug)]
pub(super) enum Trust {
    /// Those that one of `authorities` vouches for, and those named themselves: a server's own
    /// certificate as `openssl req -x509` makes it claims to be an authority, and such a one is
    /// refused by webpki (RFC 5280, section 4.2.1.9) although it was named.
    Vouched { authorities: Arc<WebPkiServerVerifier>, named: Vec<CertificateDer<'static>> },
    /// `insecure_skip_verify`: whoever has the key of the certificate that is shown.
    Anybody,
}

impl Trust {
    pub(super) fn new(
        roots: RootCertStore,
        named: Vec<CertificateDer<'static>>,
    ) -> Result<Self, String> {
        let provider = Arc::clone(provider());
        let authorities =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let authorities = authorities.map_err(|error| error.to_string())?;
        Ok(Self::Vouched { authorities, named })
    }
}

/// Whether a certificate is for that name and valid now.
fn suits(shown: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> bool {
    let now = i64::try_from(now.as_secs()).ok().and_then(|now| ASN1Time::from_timestamp(now).ok());
    let valid = X509Certificate::from_der(shown)
        .is_ok_and(|(_, parsed)| now.is_some_and(|now| parsed.validity().is_valid_at(now)));
    valid
        && ParsedCertificate::try_from(shown)
            .is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self {
            Self::Anybody => Ok(ServerCertVerified::assertion()),
            Self::Vouched { named, .. } if named.contains(shown) && suits(shown, name, now) => {
                Ok(ServerCertVerified::assertion())
            }
            Self::Vouched { authorities, .. } => {
                authorities.verify_server_cert(shown, between, name, ocsp, now)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        verify_tls12_signature(message, shown, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        verify_tls13_signature(message, shown, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
