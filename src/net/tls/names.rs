//! Which of a listener's certificates a client gets, by the host name it asks for. Not their
//! loading.

use super::files::Certificate;
use rustls::{
    SignatureScheme,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{collections::HashMap, sync::Arc};

/// The certificates of one listener.
#[derive(Debug)]
pub(super) struct ByName {
    /// For who asks for no name, or an unknown one.
    default: Vec<Arc<CertifiedKey>>,
    /// By name, in lower case.
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// By what follows the `*.`.
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl ByName {
    /// The first certificate, and those with the same names (of another kind of key), are the default.
    pub(super) fn new(certificates: &[Certificate]) -> Self {
        let mut all = Self { default: Vec::new(), exact: HashMap::new(), wildcard: HashMap::new() };
        for certificate in certificates {
            let key = &certificate.key;
            for name in &certificate.names {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(domain) => (&mut all.wildcard, domain),
                    None => (&mut all.exact, name.as_str()),
                };
                names.entry(name.to_ascii_lowercase()).or_default().push(Arc::clone(key));
            }
            if certificates.first().is_some_and(|first| first.names == certificate.names) {
                all.default.push(Arc::clone(key));
            }
        }
        all
    }

    /// The exact name wins over a wildcard, which stands for one label (RFC 6125, section 6.4.3).
    fn find(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let found = name.and_then(|name| {
            let lower = name.bytes().any(|byte| byte.is_ascii_uppercase());
            let lower = lower.then(|| name.to_ascii_lowercase());
            let name = lower.as_deref().unwrap_or(name);
            let domain = || self.wildcard.get(name.split_once('.')?.1);
            self.exact.get(name).or_else(domain)
        });
        found.unwrap_or(&self.default)
    }

    /// Of those the first with a key that the client can check.
    fn choose(
        &self,
        name: Option<&str>,
        offered: &[SignatureScheme],
    ) -> Option<&Arc<CertifiedKey>> {
        let keys = self.find(name);
        keys.iter().find(|one| one.key.choose_scheme(offered).is_some()).or_else(|| keys.first())
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes()).map(Arc::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tls::files::testing::certificate;

    #[test]
    fn exact_names_win_over_wildcards_and_the_first_is_the_default() {
        let certificates =
            [&["a.test", "b.test"][..], &["*.test", "c.test"], &["x.b.test", "c.test"]];
        let certificates = certificates.map(certificate);
        let by_name = ByName::new(&certificates);
        let place = |name| {
            let found = by_name.choose(name, &[SignatureScheme::ECDSA_NISTP256_SHA256]);
            let found = found.unwrap();
            certificates.iter().position(|one| Arc::ptr_eq(&one.key, found)).unwrap()
        };
        for (name, expected) in [
            ("a.test", 0),
            ("B.test", 0),
            ("c.test", 1),
            ("d.test", 1),
            ("D.TEST", 1),
            ("x.b.test", 2),
            ("y.b.test", 0),
            ("test", 0),
            ("other", 0),
        ] {
            assert_eq!(place(Some(name)), expected, "{name}");
        }
        assert_eq!(place(None), 0);
    }
}
