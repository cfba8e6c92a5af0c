//! `clusters.<name>.sticky`: what keeps a client at its backend. Not how one is picked at first.

use crate::{
    config::{
        Listener, Protocol, Secret, Sticky, StickyCookie,
        file::{Node, Value, join},
        keys,
        section::{Field, Reader, Section},
        words,
    },
    net::prefix::Prefix,
    policy::{
        balance::Strategy,
        sticky::{Attributes, Mode, SameSite, Secure},
    },
};
use std::time::Duration;

/// The fewest bytes of a key: as many as the MAC has.
const SHORTEST_KEY: usize = 16;
/// As many as `keys` may have.
const MOST_KEYS: usize = 8;
const MAKE_KEYS: &str = "`openssl rand -hex 16` makes a key";

pub(super) fn sticky(
    reader: &mut Reader<'_, '_>,
    cluster: &Section<'_>,
    balance: Strategy,
) -> Option<Sticky> {
    let section = reader.section(cluster, "sticky");
    let written = cluster.field("sticky")?;
    let cookie = cookie(reader, &section);
    let header = header(reader, &section);
    let client_ip = client_ip(reader, &section, balance);
    let strict = reader.switch(&section, "strict");
    let tells = ["cookie", "header", "client_ip"];
    if !tells.iter().any(|name| section.has_or_meant(name)) {
        let message = "it needs one or more of cookie, header, client_ip";
        reader.notes.error(&written.key_at, &written.path, message);
    }
    if let (true, false, Some(field)) = (strict, section.has("cookie"), section.field("strict")) {
        let message =
            "it is for a `cookie`: a header or an address does not tell where a client was before";
        reader.notes.error(&field.key_at, &field.path, message);
    }
    Some(Sticky { cookie, header, client_ip, strict })
}

/// A finding for what only http has, where a listener of another protocol uses the cluster.
pub(super) fn only_over_http(
    reader: &mut Reader<'_, '_>,
    cluster: (&str, &Node),
    listener: &Listener,
) {
    let (name, node) = cluster;
    if listener.protocol != Protocol::Tcp {
        return;
    }
    let Some((_, sticky)) = entry(node, "sticky") else { return };
    for key in ["cookie", "header"] {
        if let Some((key, _)) = entry(sticky, key) {
            let path = format!("clusters.{name}.sticky.{}", key.name);
            let message = format!(
                "listener '{}' speaks {}, which has none; `client_ip` works for it",
                listener.name,
                listener.protocol.as_str()
            );
            reader.notes.error(&key.at, &path, message);
        }
    }
}

fn entry<'n>(node: &'n Node, name: &str) -> Option<&'n (crate::config::file::Key, Node)> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|(key, _)| key.name == name)
}

fn client_ip(
    reader: &mut Reader<'_, '_>,
    sticky: &Section<'_>,
    balance: Strategy,
) -> Option<Prefix> {
    let section = reader.section(sticky, "client_ip");
    let prefix = Prefix {
        v4: reader.integer(&section, "v4").unwrap_or_default(),
        v6: reader.integer(&section, "v6").unwrap_or_default(),
    };
    let field = sticky.field("client_ip")?;
    if balance == Strategy::ClientIp {
        let message = "`balance: client_ip` says the same; keep one of the two";
        reader.notes.error(&field.key_at, &field.path, message);
    }
    Some(prefix)
}

fn header(reader: &mut Reader<'_, '_>, sticky: &Section<'_>) -> Option<String> {
    let header = reader.text(sticky, "header")?;
    let field = sticky.field("header")?;
    if !is_token(&header) {
        let message = "it is not the name of a header; write X-Session-Id";
        reader.notes.error(&field.node.at, &field.path, message);
    }
    Some(header.to_ascii_lowercase())
}

fn cookie(reader: &mut Reader<'_, '_>, sticky: &Section<'_>) -> Option<StickyCookie> {
    let section = reader.section(sticky, "cookie");
    let field = sticky.field("cookie")?;
    let mode = reader.choice(&section, "mode", words::COOKIE_MODE);
    let keys = keys_of(reader, &section);
    let max_idle = limit(reader, &section, "max_idle");
    let max_life = limit(reader, &section, "max_life");
    let attributes = attributes(reader, &section, max_life);
    let has_keys = ["keys", "keys_file"].iter().any(|key| section.has_or_meant(key));
    if mode == Mode::Signed && !has_keys {
        let message = format!(
            "the mode signed needs `keys` or `keys_file`; {MAKE_KEYS}, or choose `mode: opaque`"
        );
        reader.notes.error(&field.key_at, &field.path, message);
    }
    if let (true, Some(unused)) = (mode != Mode::Signed, section.field("keys")) {
        let message = format!("the mode {} signs nothing", words::word(words::COOKIE_MODE, &mode));
        reader.notes.hint(&unused.key_at, &unused.path, &message);
    }
    Some(StickyCookie { attributes, mode, keys, max_idle, max_life })
}

/// `None` for 0. Times in a cookie are whole seconds.
fn limit(reader: &mut Reader<'_, '_>, cookie: &Section<'_>, name: &str) -> Option<Duration> {
    let limit = reader.duration(cookie, name);
    if let (true, Some(field)) = (limit.subsec_nanos() != 0, cookie.field(name)) {
        let message = "it is kept in whole seconds; write 30m";
        reader.notes.error(&field.node.at, &field.path, message);
    }
    Some(limit).filter(|limit| !limit.is_zero())
}

/// Nothing that is told shows a key, nor a line that one stands on.
fn keys_of(reader: &mut Reader<'_, '_>, cookie: &Section<'_>) -> Vec<Secret> {
    let errors = reader.notes.errors();
    let (list, file) = (cookie.field("keys"), cookie.field("keys_file"));
    if let (Some(_), Some(file)) = (&list, &file) {
        let message = "`keys` is given too; keep one of the two";
        reader.notes.error(&file.key_at, &file.path, message);
    }
    let (field, keys) = match (list, file) {
        (Some(list), _) => {
            let keys = listed(reader, cookie, &list);
            (list, keys)
        }
        (None, Some(file)) => {
            let Some(text) = reader.file_text(cookie, "keys_file") else { return Vec::new() };
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            (file, lines.map(str::to_owned).collect())
        }
        (None, None) => return Vec::new(),
    };
    if !(1..=MOST_KEYS).contains(&keys.len()) && reader.notes.errors() == errors {
        let message = format!("it has {} keys; it takes 1 to {MOST_KEYS}; {MAKE_KEYS}", keys.len());
        reader.notes.error(&field.key_at, &field.path, message);
    }
    for (index, key) in keys.iter().enumerate() {
        let message = if key.len() < SHORTEST_KEY {
            format!("it has {} bytes, the fewest is {SHORTEST_KEY}; {MAKE_KEYS}", key.len())
        } else if keys.iter().take(index).any(|other| other == key) {
            "it is given twice".to_owned()
        } else {
            continue;
        };
        reader.notes.error(&field.key_at, &format!("{}[{index}]", field.path), message);
    }
    keys.into_iter().map(Secret).collect()
}

fn listed(reader: &mut Reader<'_, '_>, cookie: &Section<'_>, list: &Field<'_>) -> Vec<String> {
    if matches!(list.node.value, Value::Scalar(_)) {
        // What is found is not said: it is a key.
        let message = "expected a list, found a text; write [ ... ]";
        reader.notes.error(&list.key_at, &list.path, message);
        return Vec::new();
    }
    let mut keys = Vec::new();
    for (path, node) in reader.items(cookie, "keys") {
        let node = Node { at: list.key_at.clone(), value: node.value.clone() };
        let kind = &keys::Kind::Secret;
        keys.extend(reader.parse(&node, &path, kind, |text, _| Ok(text.to_owned())));
    }
    keys
}

fn attributes(
    reader: &mut Reader<'_, '_>,
    cookie: &Section<'_>,
    max_age: Option<Duration>,
) -> Attributes {
    let attributes = Attributes {
        name: reader.text(cookie, "name").unwrap_or_default(),
        path: reader.text(cookie, "path").unwrap_or_default(),
        domain: reader.text(cookie, "domain"),
        http_only: reader.switch(cookie, "http_only"),
        same_site: reader.choice(cookie, "same_site", words::SAME_SITE),
        secure: reader.choice(cookie, "secure", words::SECURE),
        max_age,
    };
    let Attributes { name, path, domain, same_site, secure, .. } = &attributes;
    let host = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b));
    let in_path = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b';';
    let always = *secure == Secure::Always;
    let host_only = always && path == "/" && domain.is_none();
    let rules = [
        ("name", is_token(name), "a cookie's name has A-Z a-z 0-9 and !#$%&'*+-.^_`|~ (RFC 6265)"),
        (
            "name",
            always || !name.starts_with("__Secure-"),
            "browsers take a name with __Secure- with `secure: true` alone",
        ),
        (
            "name",
            host_only || !name.starts_with("__Host-"),
            "browsers take a name with __Host- with `secure: true`, the path / and no domain alone",
        ),
        ("path", path.starts_with('/') && path.bytes().all(in_path), "a path begins with /"),
        ("domain", domain.as_deref().is_none_or(host), "it is not a domain; write example.org"),
        (
            "same_site",
            always || *same_site != SameSite::None,
            "browsers drop a cookie with `same_site: none` but without `secure: true`",
        ),
    ];
    for (key, holds, message) in rules {
        if let (false, Some(field)) = (holds, cookie.field(key)) {
            reader.notes.error(&field.node.at, &join(&cookie.path, key), message);
        }
    }
    attributes
}

/// A token of RFC 9110 (5.6.2): the name of a header, and of a cookie (RFC 6265, 4.1.1).
fn is_token(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(letter)
}
