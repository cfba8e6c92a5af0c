//! The head of a request on its way to a backend, and of a reply on its way to the client: what is
//! refused, what is taken off because it is for one connection alone, and what is added. Not the
//! framing of bodies: that is hyper's.

use super::{
    client::{Client, X_FORWARDED_FOR},
    marks::Marks,
    reply::Refusal,
    settings::{Limits, RequestId, Settings},
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, Version,
    header::{CONNECTION, COOKIE, FORWARDED, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA},
    request, response,
    uri::PathAndQuery,
};

/// Refuses what hyper lets through and HTTP does not allow, and leaves a head with exactly one host
/// and a URI that is a path alone.
pub(super) fn normalise(
    head: &mut request::Parts,
    marks: Marks,
    limits: &Limits,
) -> Result<(), Refusal> {
    if head.method == Method::CONNECT {
        return Err(Refusal::no_tunnels());
    }
    let version = head.version;
    if version < Version::HTTP_2 {
        one_host(head)?;
        if marks.any(Marks::TRANSFER_ENCODING) {
            only_chunked(&head.headers)?;
        }
    } else {
        is_small(head, limits)?;
        host_of_authority(head)?;
        if marks.any(Marks::COOKIE) {
            join_cookies(&mut head.headers);
        }
    }
    let length = head.uri.path_and_query().map_or(0, |path| path.as_str().len());
    if length > limits.uri {
        return Err(Refusal::uri_too_long(limits.uri));
    }
    if head.uri.scheme().is_some() || head.uri.authority().is_some() {
        let path = head.uri.path_and_query().cloned();
        // An absolute URI without a path is the root, or for OPTIONS the whole server (RFC 9112,
        // 3.2.4).
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
        head.uri = Uri::from(path);
    }
    Ok(())
}

/// The limits of a head, which hyper keeps over HTTP/1.1 alone.
fn is_small(head: &request::Parts, limits: &Limits) -> Result<(), Refusal> {
    if head.headers.len() > limits.headers {
        let text = format!("the head has more than {} fields", limits.headers);
        return Err(Refusal::head_too_large(text));
    }
    // As they would be over HTTP/1.1: a name, a colon, a space, a value, and the end of a line.
    let fields = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    if fields.sum::<usize>() > limits.header_bytes {
        let text = format!("the head is larger than {} bytes", limits.header_bytes);
        return Err(Refusal::head_too_large(text));
    }
    Ok(())
}

/// RFC 9112, 3.2: a request has one host; a URI that names one is right against the field.
fn one_host(head: &mut request::Parts) -> Result<(), Refusal> {
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return Err(Refusal::malformed("the request has two Host fields")),
        (None, _) if head.version == Version::HTTP_11 => {
            return Err(Refusal::malformed("the request has no Host field"));
        }
        // What goes to the backend is HTTP/1.1, which has one, if an empty one (RFC 9112, 3.2).
        (None, _) => drop(head.headers.insert(HOST, HeaderValue::from_static(""))),
        (Some(host), None) if !is_host(host.as_bytes()) => {
            return Err(Refusal::malformed("the Host field is no host"));
        }
        _ => {}
    }
    if let Some(authority) = head.uri.authority() {
        let host = Some(without_user(authority.as_str())).filter(|host| is_host(host.as_bytes()));
        let host = host.and_then(|host| HeaderValue::from_str(host).ok());
        let host = host.ok_or_else(|| Refusal::malformed("the URI has no host"))?;
        head.headers.insert(HOST, host);
    }
    Ok(())
}

/// Over HTTP/2 the authority is the host; a Host field beside it must say the same (RFC 9113,
/// 8.3.1).
fn host_of_authority(head: &mut request::Parts) -> Result<(), Refusal> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    let authority = head.uri.authority().map(|authority| without_user(authority.as_str()));
    match (authority, host) {
        _ if second.is_some() => Err(Refusal::malformed("the request has two Host fields")),
        (None, None) => Err(Refusal::malformed("the request has no :authority")),
        (None, Some(host)) if !is_host(host.as_bytes()) => {
            Err(Refusal::malformed("the Host field is no host"))
        }
        (None, Some(_)) => Ok(()),
        (Some(authority), Some(host)) if host.as_bytes() != authority.as_bytes() => {
            Err(Refusal::malformed("Host and :authority are not the same"))
        }
        (Some(authority), _) => {
            let host = Some(authority).filter(|host| is_host(host.as_bytes()));
            let host = host.and_then(|host| HeaderValue::from_str(host).ok());
            let host = host.ok_or_else(|| Refusal::malformed("the :authority is no host"))?;
            head.headers.insert(HOST, host);
            Ok(())
        }
    }
}

/// Over HTTP/2 each cookie may have a field of its own; in HTTP/1.1 there is one (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() < 2 {
        return;
    }
    if let Ok(all) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
        headers.insert(COOKIE, all);
    }
}

/// The bytes of a name or an address and a port; two servers that read another differently do not
/// mean the same site. An empty one is of a request to no site in particular.
fn is_host(text: &[u8]) -> bool {
    let letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%".contains(byte);
    let address = |byte: &u8| byte.is_ascii_hexdigit() || b":.%".contains(byte);
    let (host, port) = match text.strip_prefix(b"[") {
        Some(rest) => {
            let Some(end) = memchr::memchr(b']', rest) else { return false };
            let (inside, after) = rest.split_at(end);
            if !inside.iter().all(address) {
                return false;
            }
            (&b""[..], after.get(1..).unwrap_or_default())
        }
        None => text.split_at(memchr::memchr(b':', text).unwrap_or(text.len())),
    };
    let number = port.strip_prefix(b":").unwrap_or(port);
    host.iter().all(letter)
        && (port.is_empty() || port.starts_with(b":"))
        && number.iter().all(u8::is_ascii_digit)
}

fn without_user(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// Whoever frames a body otherwise than we do sees other requests than we do.
fn only_chunked(headers: &HeaderMap) -> Result<(), Refusal> {
    let fine = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    if headers.get_all(TRANSFER_ENCODING).iter().all(fine) {
        return Ok(());
    }
    Err(Refusal::malformed("a Transfer-Encoding other than chunked"))
}

/// What the fields of one connection said, before they were taken off.
#[derive(Debug, Default)]
pub(super) struct Hop {
    /// The protocol that the client wants to go on with.
    pub(super) upgrade: Option<HeaderValue>,
    /// The client takes trailers.
    trailers: bool,
    /// The connection ends after this.
    pub(super) closes: bool,
}

/// Takes off what is for one connection alone: RFC 9110, 7.6.1, and what is named in Connection.
fn strip(headers: &mut HeaderMap, marks: Marks) -> Hop {
    let mut hop = Hop::default();
    if !marks.any(Marks::HOP) {
        return hop;
    }
    let mut upgrades = false;
    if marks.any(Marks::CONNECTION) {
        let mut values = headers.get_all(CONNECTION).iter().map(HeaderValue::as_bytes);
        // Nearly always one of two words, which name no other field.
        let plain = |named: &[u8]| {
            named.eq_ignore_ascii_case(b"keep-alive") || named.eq_ignore_ascii_case(b"close")
        };
        let first = values.next();
        hop.closes = first.is_some_and(|named| named.eq_ignore_ascii_case(b"close"));
        if !(first.is_none_or(plain) && values.next().is_none()) {
            for name in names(headers) {
                upgrades |= name == UPGRADE;
                if name != UPGRADE && !KEPT.contains(&name) {
                    headers.remove(&name);
                }
            }
        }
        headers.remove(CONNECTION);
    }
    if marks.any(Marks::UPGRADE) {
        hop.upgrade = headers.remove(UPGRADE).filter(|_| upgrades);
    }
    if marks.any(Marks::TE)
        && let Some(te) = headers.remove(TE)
    {
        let trailers = |word: &[u8]| word.trim_ascii().eq_ignore_ascii_case(b"trailers");
        hop.trailers = te.as_bytes().split(|byte| *byte == b',').any(trailers);
    }
    for (mark, name) in [
        (Marks::TRANSFER_ENCODING, &TRANSFER_ENCODING),
        (Marks::KEEP_ALIVE, &KEEP_ALIVE),
        (Marks::PROXY_CONNECTION, &PROXY_CONNECTION),
    ] {
        if marks.any(mark) {
            headers.remove(name);
        }
    }
    hop
}

pub(super) fn is_hop(name: &HeaderName) -> bool {
    [CONNECTION, UPGRADE, TE, TRANSFER_ENCODING, KEEP_ALIVE, PROXY_CONNECTION].contains(name)
}

/// The fields that Connection names.
pub(super) fn names(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter();
    let words = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    words.filter_map(|word| HeaderName::from_bytes(word.trim_ascii()).ok()).collect()
}

/// What a request gets on its way to the backend, beside its own fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct Additions {
    /// The body has an announced length or none.
    pub(super) length_known: bool,
    /// Who asks is told in lines apart, where that is possible.
    pub(super) apart: bool,
}

/// Makes the head of a request what the backend gets. Gives the lines that go with it as they are,
/// if any do.
pub(super) fn to_backend(
    head: &mut request::Parts,
    marks: Marks,
    client: &Client,
    settings: &Settings,
    additions: Additions,
    make_id: impl FnOnce() -> u128,
) -> (Hop, Bytes) {
    let from = head.version;
    let headers = &mut head.headers;
    let mut hop = strip(headers, marks);
    hop.closes |= from == Version::HTTP_10 && !marks.any(Marks::CONNECTION);
    hop.closes &= from < Version::HTTP_2;
    if !additions.length_known {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if hop.trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    let lines = forwarded(headers, marks, client, additions.apart);
    if settings.via {
        headers.append(VIA, via(from));
    }
    if settings.request_id == RequestId::Make && !headers.contains_key(X_REQUEST_ID) {
        let id = HeaderValue::from_str(&format!("{:032x}", make_id()));
        headers.extend(id.ok().map(|id| (X_REQUEST_ID, id)));
    }
    head.version = Version::HTTP_11;
    (hop, lines)
}

/// Says for whom we ask. What a client says of itself is thrown away, what a trusted proxy says is
/// kept and added to. `apart`: in lines that are given back, where they are the same for each request
/// of the client.
fn forwarded(headers: &mut HeaderMap, marks: Marks, client: &Client, apart: bool) -> Bytes {
    let host = headers.get(HOST).filter(|host| !host.is_empty());
    if apart && !client.trusted {
        let lines = client.lines(host);
        if marks.any(Marks::FORWARDED) {
            for name in [X_FORWARDED_FOR, FORWARDED, X_FORWARDED_PROTO, X_FORWARDED_HOST] {
                headers.remove(name);
            }
        }
        return lines;
    }
    let host = host.cloned();
    let element = client.forwarded(host.as_ref());
    // At once: the map would grow, and move, with some of those that are added one by one.
    headers.reserve(MOST_ADDED);
    if client.trusted {
        append(headers, X_FORWARDED_FOR, &client.shown());
        append(headers, FORWARDED, &element);
        headers.entry(X_FORWARDED_PROTO).or_insert_with(|| client.scheme());
        if let Some(host) = host {
            headers.entry(X_FORWARDED_HOST).or_insert(host);
        }
        return Bytes::new();
    }
    headers.insert(X_FORWARDED_FOR, client.shown());
    headers.insert(FORWARDED, element);
    headers.insert(X_FORWARDED_PROTO, client.scheme());
    match host {
        Some(host) => drop(headers.insert(X_FORWARDED_HOST, host)),
        None => drop(headers.remove(X_FORWARDED_HOST)),
    }
    Bytes::new()
}

/// Adds an element to a list, in one field.
fn append(headers: &mut HeaderMap, name: HeaderName, element: &HeaderValue) {
    let told = headers.get_all(&name).iter().map(HeaderValue::as_bytes);
    let list = told.chain([element.as_bytes()]).collect::<Vec<_>>().join(&b", "[..]);
    if let Ok(list) = HeaderValue::from_bytes(&list) {
        headers.insert(name, list);
    }
}

/// Makes the head of a reply what the client gets; `of` is the version it came in.
pub(super) fn to_client(head: &mut response::Parts, marks: Marks, settings: &Settings) {
    let of = head.version;
    strip(&mut head.headers, marks);
    if settings.via {
        head.headers.append(VIA, via(of));
    }
    head.version = Version::HTTP_11;
}

fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_2 => "2 sluice",
        Version::HTTP_10 => "1.0 sluice",
        _ => "1.1 sluice",
    })
}

/// What a request gets of us, from X-Forwarded-For to X-Request-Id.
const MOST_ADDED: usize = 6;
/// Named in Connection or not, these are for the one at the end; TE must be named there (RFC 9110,
/// 10.1.4) and is read before it goes.
pub(super) const KEPT: [HeaderName; 3] = [HOST, TRAILER, TE];
pub(super) const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
pub(super) const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for good in [
            "",
            "a",
            "a:",
            "a:80",
            "a-b_c.example.org:8080",
            "10.0.0.1",
            "[::1]",
            "[::1]:80",
            "%41",
        ] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "a b", "a, b", "a/b", "a@b", "a:x", "a:80:80", "::1", "[::1", "[::1]x", "[x]", "a\\b",
            "a?b", "a#b", "é",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }
}
