//! What must hold of what we read in heads ourselves, whatever is in them. Not the bytes: the targets
//! in fuzz/ and tests/corpus.rs choose those, and the program calls none of it.
//!
//! Each function takes any bytes and panics when an invariant is broken.

use super::{
    client::{Client, X_FORWARDED_FOR},
    head::{self, Additions, KEEP_ALIVE, KEPT},
    marks::Marks,
    routes::{Host, begins},
    service::keep_alive_us,
    settings::{Limits, Settings},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version,
    header::{CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE},
    request::Parts,
};
use std::{net::IpAddr, time::Duration};

/// A peer, and values of `X-Forwarded-For`, a line each: who is not trusted is taken for nobody else,
/// and behind a proxy the client is the newest address that is no proxy's.
pub fn client(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let peer = lines.next().and_then(|line| std::str::from_utf8(line).ok()?.parse().ok());
    let mut headers = HeaderMap::new();
    for value in lines.take(MOST).filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        headers.append(X_FORWARDED_FOR, value);
    }
    let settings = trusting();
    let client = Client::new(&settings, peer, false);
    let origin = client.origin(&settings, &headers);
    let peer = peer.map(|peer: IpAddr| peer.to_canonical());
    let Some(found) = origin else { return assert_eq!(peer, None) };
    if !peer.is_some_and(|peer| settings.trusts(peer)) {
        assert_eq!(origin, peer);
    }
    if Some(found) != peer {
        let words =
            |value: &HeaderValue| value.to_str().unwrap_or_default().replace(['[', ']'], "");
        let told = |text: &str| text.split(',').any(|word| names(word.trim(), found));
        let mut values = headers.get_all(X_FORWARDED_FOR).iter();
        assert!(values.any(|value| told(&words(value))), "{found} is not told");
    }
}

/// Whether the word, without brackets, is that address, perhaps with a port behind it.
fn names(word: &str, address: IpAddr) -> bool {
    let is = |text: &str| text.parse() == Ok(address);
    // Another text may be the same address, and `%scope` is left out.
    is(word) || word.rsplit_once(':').is_some_and(|(text, _)| is(text) || text.contains('%'))
}

/// A request as text, its first byte choosing the client and the version: a head that is let through
/// is read again as the same list of fields, with one host and nothing that is for one connection
/// alone.
pub fn head(data: &[u8]) {
    let Some((first, text)) = data.split_first() else { return };
    let Some(mut parts) = read(text) else { return };
    parts.version = if first & 1 == 0 { Version::HTTP_11 } else { Version::HTTP_2 };
    let settings = trusting();
    let peer = if first & 2 == 0 { [10, 0, 0, 1] } else { [192, 0, 2, 1] };
    let client = Client::new(&settings, Some(IpAddr::from(peer)), first & 4 != 0);
    let marks = Marks::of(&parts.headers);
    if head::normalise(&mut parts, marks, &Limits::default()).is_err() {
        return;
    }
    let named = head::names(&parts.headers);
    let length_known = first & 8 != 0;
    let additions = Additions { length_known, apart: first & 16 != 0 };
    let (_, lines) = head::to_backend(&mut parts, marks, &client, &settings, additions, || 0);
    assert!(lines.is_empty() || !parts.headers.contains_key(X_FORWARDED_FOR), "told twice");

    assert_eq!(parts.version, Version::HTTP_11);
    assert_eq!(parts.headers.get_all(HOST).iter().count(), 1, "one host");
    for name in parts.headers.keys() {
        let ours = *name == TE || *name == TRANSFER_ENCODING;
        assert!(ours || !head::is_hop(name), "{name} is for one connection");
        let set = ours || name.as_str().contains("forwarded") || KEPT.contains(name);
        assert!(set || !named.contains(name), "{name} was named in Connection");
    }
    let chunked: Vec<_> = parts.headers.get_all(TRANSFER_ENCODING).iter().collect();
    assert!(if length_known { chunked.is_empty() } else { chunked == ["chunked"] }, "{chunked:?}");
    assert!(parts.headers.get_all(TE).iter().all(|te| te == "trailers"));
    assert!(!parts.headers.contains_key(CONNECTION) && !parts.headers.contains_key(UPGRADE));

    let written = write(&parts);
    let again = read(&written).expect("what we send is a request");
    assert_eq!((&again.method, &again.uri), (&parts.method, &parts.uri));
    assert!(again.uri.authority().is_none());
    assert_eq!(again.headers, parts.headers);
}

/// A request from its text: lines, which end as they may, and none of them folded.
fn read(text: &[u8]) -> Option<Parts> {
    let mut lines = text.split(|byte| *byte == b'\n').map(|line| line.trim_ascii_end());
    let mut words = lines.next()?.split(|byte| *byte == b' ');
    let method = Method::from_bytes(words.next()?).ok()?;
    let uri = Uri::try_from(words.next()?).ok()?;
    if words.next()? != b"HTTP/1.1" || words.next().is_some() {
        return None;
    }
    let (mut parts, ()) = Request::new(()).into_parts();
    (parts.method, parts.uri) = (method, uri);
    for line in lines.take_while(|line| !line.is_empty()).take(MOST) {
        let (name, value) = line.split_at(line.iter().position(|byte| *byte == b':')?);
        let value = value.get(1..)?.trim_ascii();
        let name = HeaderName::from_bytes(name).ok()?;
        parts.headers.append(name, HeaderValue::from_bytes(value).ok()?);
    }
    Some(parts)
}

/// The text of a head, as hyper writes it.
fn write(parts: &Parts) -> Vec<u8> {
    let mut text = format!("{} {} HTTP/1.1\r\n", parts.method, parts.uri).into_bytes();
    for (name, value) in &parts.headers {
        text.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    text
}

/// A value of `Keep-Alive`: no backend makes us keep a connection longer than configured.
pub fn keep_alive(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.headers.insert(KEEP_ALIVE, value);
    let configured = Duration::from_secs(4);
    let kept = keep_alive_us(&parts, Marks::of(&parts.headers), configured);
    assert!(u128::from(kept) <= configured.as_micros());
}

/// A host, a pattern of hosts, a path and a prefix, a line each: neither capitals nor a port make a
/// difference, and a prefix ends where a part of the path does.
pub fn routes(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let mut next = || lines.next().unwrap_or_default();
    let (host, pattern, path, prefix) = (next(), next(), next(), next());
    let pattern = Host::parse(pattern);
    let found = pattern.matches(host);
    assert_eq!(pattern.matches(&host.to_ascii_uppercase()), found);
    if !host.contains(':') {
        assert_eq!(pattern.matches(&format!("{host}:8080")), found);
    }
    if begins(path, prefix) {
        let whole = prefix.strip_suffix('/').unwrap_or(prefix);
        assert!(path.starts_with(whole));
        assert!(begins(&format!("{whole}/more"), prefix));
        assert!(!begins(&format!("{whole}more"), prefix));
    }
}

fn trusting() -> Settings {
    Settings::bare("10.0.0.0/8".parse().into_iter().collect())
}

/// As many fields as a head may have.
const MOST: usize = 128;
