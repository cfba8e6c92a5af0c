//! `tls` of a listener and `upstream.tls` of a cluster: which files, and whether they can be used.
//! Not what is in them: `net::tls` reads that.

use crate::{
    config::{
        file::{Node, short},
        finding::Span,
        keys,
        section::{Reader, Section},
        values::Wrong,
        words,
    },
    net::tls::{ClientFiles, FileError, Pair, ServerFiles, is_server_name},
};
use std::path::PathBuf;

/// The files that were named, and where.
#[derive(Default)]
struct Named(Vec<(PathBuf, Span, String)>);

/// A listener's `tls`; `None` when there is none, or it is not whole.
pub(super) fn listener(reader: &mut Reader<'_, '_>, parent: &Section<'_>) -> Option<ServerFiles> {
    let field = parent.field("tls")?;
    let section = reader.section(parent, "tls");
    let mut named = Named::default();
    let errors = reader.notes.errors();
    let mut certificates = Vec::new();
    let items: Vec<(String, &Node)> = reader.items(&section, "certificates").collect();
    for (path, node) in items {
        let at = super::listener::first(node);
        let Some(item) = reader.open(node, &keys::tls::CERTIFICATE, &path, &at) else { continue };
        let cert = named.file(reader, &item, "cert");
        let key = named.file(reader, &item, "key");
        certificates.extend(cert.zip(key).map(|(cert, key)| Pair { cert, key }));
    }
    let client_ca = named.file(reader, &section, "client_ca");
    let min_version = reader.choice(&section, "min_version", words::TLS_VERSION);
    if reader.notes.errors() > errors {
        return None;
    }
    if certificates.is_empty() {
        reader.notes.error(&field.key_at, &section.path, "it has no certificate to show");
        return None;
    }
    let files = ServerFiles { certificates, client_ca, min_version };
    if reader.reads_certificates() {
        named.tell(reader, &section, files.check());
    }
    Some(files)
}

/// A cluster's `upstream.tls`; `None` when there is none, or it is not whole.
pub(super) fn upstream(reader: &mut Reader<'_, '_>, parent: &Section<'_>) -> Option<ClientFiles> {
    let field = parent.field("tls")?;
    let section = reader.section(parent, "tls");
    let mut named = Named::default();
    let errors = reader.notes.errors();
    let ca = named.file(reader, &section, "ca");
    let server_name = reader.value(&section, "server_name", server_name);
    let cert = named.file(reader, &section, "cert");
    let key = named.file(reader, &section, "key");
    let insecure_skip_verify = reader.switch(&section, "insecure_skip_verify");
    if section.has("cert") != section.has("key") {
        let message = "`cert` and `key` go together";
        reader.notes.error(&field.key_at, &section.path, message);
    }
    if let Some(skip) = section.field("insecure_skip_verify").filter(|_| insecure_skip_verify) {
        if let Some(ca) = section.field("ca") {
            let message = "`insecure_skip_verify: true` makes it useless; keep one of the two";
            reader.notes.error(&ca.key_at, &ca.path, message);
        }
        let message = "anybody in between can read and change everything; name a `ca` instead";
        reader.notes.hint(&skip.key_at, &skip.path, message);
    }
    if reader.notes.errors() > errors {
        return None;
    }
    let certificate = cert.zip(key).map(|(cert, key)| Pair { cert, key });
    let files = ClientFiles { ca, server_name, certificate, insecure_skip_verify };
    if reader.reads_certificates() {
        named.tell(reader, &section, files.check());
    }
    Some(files)
}

fn server_name(text: &str, _: &keys::Kind) -> Result<String, Wrong> {
    if is_server_name(text) {
        return Ok(text.to_owned());
    }
    let text = short(text);
    Err(format!("'{text}' is no name that a certificate can have: a host or an IP address").into())
}

impl Named {
    /// A path, relative to the configuration's folder.
    fn file(
        &mut self,
        reader: &mut Reader<'_, '_>,
        section: &Section<'_>,
        name: &str,
    ) -> Option<PathBuf> {
        let path = reader.path(section, name)?;
        let field = section.field(name)?;
        self.0.push((path.clone(), field.node.at.clone(), field.path));
        Some(path)
    }

    /// Each error where its file is named.
    fn tell(&self, reader: &mut Reader<'_, '_>, section: &Section<'_>, errors: Vec<FileError>) {
        for error in errors {
            let place = self.0.iter().find(|(file, ..)| *file == error.file);
            let (at, path) = place.map_or((&section.at, &section.path), |(_, at, path)| (at, path));
            reader.notes.error(at, path, error.to_string());
        }
    }
}
