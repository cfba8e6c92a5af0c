//! What TLS adds to the printed configuration. Not what is in the files that it names.

use super::{Entries, Out, keys, word, words};
use crate::net::tls::{ClientFiles, ServerFiles};
use std::path::Path;

/// `tls` of a listener.
pub(super) fn listener(files: &ServerFiles, defaults: bool) -> Entries {
    let certificates = files.certificates.iter().map(|pair| {
        let mut certificate = Entries::new(&keys::tls::CERTIFICATE, defaults);
        certificate.text("cert", pair.cert.display()).text("key", pair.key.display());
        Out::Map(certificate.list)
    });
    let mut entries = Entries::new(&keys::tls::LISTENER, defaults);
    entries
        .push("certificates", Out::List(certificates.collect()))
        .path("client_ca", files.client_ca.as_deref())
        .text("min_version", word(words::TLS_VERSION, &files.min_version));
    entries
}

/// `tls` of those that are asked, which may be empty and yet say something.
pub(super) fn client(upstream: &mut Entries, files: Option<&ClientFiles>) {
    let Some(ClientFiles { ca, server_name, certificate, insecure_skip_verify }) = files else {
        return;
    };
    let pair = certificate.as_ref();
    let mut entries = Entries::new(&keys::tls::UPSTREAM, upstream.defaults);
    entries
        .path("ca", ca.as_deref())
        .optional("server_name", server_name.as_deref())
        .path("cert", pair.map(|pair| &*pair.cert))
        .path("key", pair.map(|pair| &*pair.key))
        .text("insecure_skip_verify", insecure_skip_verify);
    upstream.push("tls", Out::Map(entries.list));
}

impl Entries {
    fn path(&mut self, name: &str, value: Option<&Path>) -> &mut Self {
        self.optional(name, value.map(Path::to_string_lossy).as_deref())
    }
}
