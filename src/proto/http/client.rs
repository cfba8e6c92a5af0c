//! Who is on the other side of a connection, in the words of the headers that tell a backend. Not
//! the connection itself.

use super::settings::Settings;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use std::{
    cell::{RefCell, RefMut},
    net::{IpAddr, SocketAddr},
};

/// One client's connection, as its requests tell of it.
#[derive(Debug)]
pub(super) struct Client {
    /// Its address, when it has one.
    pub(super) address: Option<IpAddr>,
    /// What it says of whom it speaks for is believed.
    pub(super) trusted: bool,
    /// Over TLS.
    pub(super) secure: bool,
    /// For `X-Forwarded-For`.
    shown: HeaderValue,
    told: RefCell<Told>,
}

/// The newest host and what is told with it: a client asks for the same one again.
#[derive(Debug)]
struct Told {
    host: Option<HeaderValue>,
    /// Of `Forwarded`; empty until it is asked for.
    element: HeaderValue,
    /// Empty until they are asked for.
    lines: Bytes,
}

impl Client {
    pub(super) fn new(settings: &Settings, address: Option<IpAddr>, secure: bool) -> Self {
        let address = address.map(|address| address.to_canonical());
        Self {
            address,
            trusted: address.is_some_and(|address| settings.trusts(address)),
            secure,
            shown: address.map_or_else(|| HeaderValue::from_static("unknown"), text),
            told: RefCell::new(Told {
                host: None,
                element: HeaderValue::from_static(""),
                lines: Bytes::new(),
            }),
        }
    }

    /// `http` or `https`.
    pub(super) fn scheme(&self) -> HeaderValue {
        HeaderValue::from_static(if self.secure { "https" } else { "http" })
    }

    /// Its address, or `unknown`.
    pub(super) fn shown(&self) -> HeaderValue {
        self.shown.clone()
    }

    /// An element of `Forwarded` (RFC 7239).
    pub(super) fn forwarded(&self, host: Option<&HeaderValue>) -> HeaderValue {
        let mut told = self.about(host);
        if told.element.is_empty() {
            let element = HeaderValue::from_maybe_shared(Bytes::from(self.element(host)));
            told.element = element.unwrap_or_else(|_| HeaderValue::from_static("for=unknown"));
        }
        told.element.clone()
    }

    /// The lines of a head that say for whom we ask, as they go over the wire.
    pub(super) fn lines(&self, host: Option<&HeaderValue>) -> Bytes {
        let mut told = self.about(host);
        if told.lines.is_empty() {
            let (scheme, element) = (self.scheme(), self.element(host));
            let host = host.map(HeaderValue::as_bytes);
            let name: &[u8] = if host.is_some() { b"\r\nx-forwarded-host: " } else { b"" };
            let all: [&[u8]; 9] = [
                b"x-forwarded-for: ",
                self.shown.as_bytes(),
                b"\r\nforwarded: ",
                &element,
                b"\r\nx-forwarded-proto: ",
                scheme.as_bytes(),
                name,
                host.unwrap_or_default(),
                b"\r\n",
            ];
            told.lines = Bytes::from(all.concat());
        }
        told.lines.clone()
    }

    /// What is told with that host.
    fn about(&self, host: Option<&HeaderValue>) -> RefMut<'_, Told> {
        let mut told = self.told.borrow_mut();
        if told.host.as_ref() != host {
            // A copy: what hyper made is a part of a buffer of 8 KiB, which would stay with it.
            told.host = host.and_then(|host| HeaderValue::from_bytes(host.as_bytes()).ok());
            told.element = HeaderValue::from_static("");
            told.lines = Bytes::new();
        }
        told
    }

    fn element(&self, host: Option<&HeaderValue>) -> Vec<u8> {
        let (before, after): (&[u8], &[u8]) = match self.address {
            Some(IpAddr::V6(_)) => (b"for=\"[", b"]\""),
            Some(IpAddr::V4(_)) | None => (b"for=", b""),
        };
        let shown = self.shown.as_bytes();
        let mut text =
            Vec::with_capacity(shown.len() + host.map_or(0, HeaderValue::len) + MOST_AROUND);
        for part in [before, shown, after] {
            text.extend_from_slice(part);
        }
        // What is in quotes may be anything but a quote or a backslash.
        let fits = |byte: &u8| matches!(byte, b' '..=b'~') && !b"\"\\".contains(byte);
        let host = host.filter(|host| host.as_bytes().iter().all(fits));
        if let Some(host) = host {
            text.extend_from_slice(b";host=\"");
            text.extend_from_slice(host.as_bytes());
            text.push(b'"');
        }
        text.extend_from_slice(if self.secure { b";proto=https" } else { b";proto=http" });
        text
    }

    /// Whom the request is from: the newest address of `X-Forwarded-For` that no trusted proxy has,
    /// when the connection is one's; else the connection's own. What is no address ends the search:
    /// nobody knows who wrote what stands before it.
    pub(super) fn origin(&self, settings: &Settings, headers: &HeaderMap) -> Option<IpAddr> {
        if !self.trusted {
            return self.address;
        }
        let told = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
        let told: Vec<&str> = told.flat_map(|value| value.split(',')).collect();
        let mut known = self.address;
        for element in told.iter().rev() {
            let Some(address) = parse(element) else { break };
            known = Some(address);
            if !settings.trusts(address) {
                break;
            }
        }
        known
    }
}

/// An address as proxies write it: with or without brackets and a port.
fn parse(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse().ok();
    address.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// An address as it is written. Each connection has one: a formatter costs several times as much.
fn text(address: IpAddr) -> HeaderValue {
    let text = match address {
        IpAddr::V4(address) => {
            let (mut digits, mut text) = (itoa::Buffer::new(), Vec::with_capacity(LONGEST_V4));
            for part in address.octets() {
                if !text.is_empty() {
                    text.push(b'.');
                }
                text.extend_from_slice(digits.format(part).as_bytes());
            }
            text
        }
        IpAddr::V6(address) => address.to_string().into_bytes(),
    };
    HeaderValue::from_maybe_shared(Bytes::from(text))
        .unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// Bytes of an element of `Forwarded` beside the address and the host.
const MOST_AROUND: usize = 40;
/// Three digits four times, and dots.
const LONGEST_V4: usize = 15;
pub(super) const X_FORWARDED_FOR: http::HeaderName =
    http::HeaderName::from_static("x-forwarded-for");

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::bare(vec!["10.0.0.0/8".parse().unwrap()])
    }

    fn origin(peer: &str, told: &[&str]) -> String {
        let settings = settings();
        let mut headers = HeaderMap::new();
        for line in told {
            headers.append(X_FORWARDED_FOR, line.parse().unwrap());
        }
        let client = Client::new(&settings, Some(peer.parse().unwrap()), false);
        client.origin(&settings, &headers).unwrap().to_string()
    }

    #[test]
    fn only_a_trusted_proxy_says_who_the_client_is() {
        assert_eq!(origin("1.2.3.4", &["5.6.7.8"]), "1.2.3.4");
        assert_eq!(origin("10.0.0.1", &["5.6.7.8"]), "5.6.7.8");
        assert_eq!(origin("10.0.0.1", &["6.6.6.6, 5.6.7.8, 10.0.0.2"]), "5.6.7.8");
        assert_eq!(origin("10.0.0.1", &["6.6.6.6", "5.6.7.8:4444"]), "5.6.7.8");
        assert_eq!(origin("10.0.0.1", &["10.0.0.7, 10.0.0.2"]), "10.0.0.7");
        assert_eq!(origin("10.0.0.1", &["nonsense"]), "10.0.0.1");
        assert_eq!(origin("10.0.0.1", &["6.6.6.6, unknown"]), "10.0.0.1");
        assert_eq!(origin("10.0.0.1", &["6.6.6.6, _hidden, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(origin("10.0.0.1", &["[2001:db8::1]:80"]), "2001:db8::1");
        assert_eq!(origin("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn forwarded_says_who_and_for_which_host() {
        let said = |address: Option<&str>, secure, host: Option<&'static str>| {
            let address = address.map(|address| address.parse().unwrap());
            let client = Client::new(&settings(), address, secure);
            let host = host.map(HeaderValue::from_static);
            let first = client.forwarded(host.as_ref());
            assert_eq!(client.forwarded(host.as_ref()), first);
            let lines = client.lines(host.as_ref());
            assert_eq!(client.lines(host.as_ref()), lines);
            let first = first.to_str().unwrap().to_owned();
            let scheme = if secure { "https" } else { "http" };
            let of_host =
                host.map(|host| format!("x-forwarded-host: {}\r\n", host.to_str().unwrap()));
            assert_eq!(
                String::from_utf8(lines.to_vec()).unwrap(),
                format!(
                    "x-forwarded-for: {}\r\nforwarded: {first}\r\nx-forwarded-proto: {scheme}\r\n{}",
                    client.shown().to_str().unwrap(),
                    of_host.unwrap_or_default()
                )
            );
            assert_eq!(client.forwarded(None), client.forwarded(None));
            assert_ne!(client.lines(Some(&HeaderValue::from_static("z"))), lines);
            first
        };
        assert_eq!(
            said(Some("1.2.3.4"), false, Some("a:1")),
            "for=1.2.3.4;host=\"a:1\";proto=http"
        );
        assert_eq!(said(Some("::1"), true, None), "for=\"[::1]\";proto=https");
        assert_eq!(said(Some("::ffff:1.2.3.4"), true, None), "for=1.2.3.4;proto=https");
        assert_eq!(said(None, false, Some("a\"b")), "for=unknown;proto=http");
    }
}
