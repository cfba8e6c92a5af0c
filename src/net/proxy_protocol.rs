//! The PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt): the header in which one
//! proxy tells the next whose connection it passes on. Not whom to believe: the listener knows.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Which form is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// The two ends of the client's own connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub source: SocketAddr,
    /// Where it connected to.
    pub destination: SocketAddr,
}

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// `None`: the proxy speaks for itself, or does not know (`LOCAL`, `UNKNOWN`).
    pub ends: Option<Ends>,
    /// The bytes it takes; what follows is the client's.
    pub len: usize,
}

/// Why bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("it does not begin with a PROXY protocol header")]
    Absent,
    #[error("its PROXY protocol header is longer than {MOST} bytes")]
    TooLong,
    #[error("its PROXY protocol header is malformed: {0}")]
    Malformed(&'static str),
}

/// The longest header that is read: more than any list of type-length-values in use.
pub const MOST: usize = 4096;

/// The longest line of version 1, its end included (section 2.1).
const LINE: usize = 107;
const TEXT: &[u8] = b"PROXY ";
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The header that `bytes` begin with; `None` while more is needed to tell.
///
/// # Errors
/// When no more bytes could make it one.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    if begins(bytes, TEXT) {
        return line(bytes);
    }
    if begins(bytes, SIGNATURE) {
        return binary(bytes);
    }
    Err(HeaderError::Absent)
}

/// Whether `bytes` begin with `with`, as far as they go.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    bytes.iter().zip(with).all(|(byte, wanted)| byte == wanted)
}

fn line(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let malformed = HeaderError::Malformed;
    let Some(end) = memchr::memchr(b'\n', bytes.get(..LINE).unwrap_or(bytes)) else {
        return if bytes.len() < LINE { Ok(None) } else { Err(malformed("its line does not end")) };
    };
    let text = bytes.get(TEXT.len()..end).and_then(|text| text.strip_suffix(b"\r"));
    let text = text.ok_or(HeaderError::Malformed("its line does not end in CR LF"))?;
    let text = std::str::from_utf8(text).map_err(|_| malformed("it is not text"))?;
    let words: Vec<&str> = text.split(' ').collect();
    let ends = match words.as_slice() {
        ["UNKNOWN", ..] => None,
        ["TCP4", source, destination, from, to] => Some(Ends {
            source: SocketAddr::new(IpAddr::V4(ip(source)?), port(from)?),
            destination: SocketAddr::new(IpAddr::V4(ip(destination)?), port(to)?),
        }),
        ["TCP6", source, destination, from, to] => Some(Ends {
            source: SocketAddr::new(IpAddr::V6(ip(source)?), port(from)?),
            destination: SocketAddr::new(IpAddr::V6(ip(destination)?), port(to)?),
        }),
        _ => return Err(malformed("it is not TCP4, TCP6 or UNKNOWN with two addresses and ports")),
    };
    Ok(Some(Header { ends, len: end + 1 }))
}

fn ip<T: std::str::FromStr>(text: &str) -> Result<T, HeaderError> {
    text.parse().map_err(|_| HeaderError::Malformed("an address is none"))
}

fn port(text: &str) -> Result<u16, HeaderError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|_| digits);
    port.ok_or(HeaderError::Malformed("a port is none"))
}

fn binary(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let malformed = HeaderError::Malformed;
    let Some((_, rest)) = bytes.split_first_chunk::<12>() else { return Ok(None) };
    let Some((&[command, family, high, low], rest)) = rest.split_first_chunk::<4>() else {
        return Ok(None);
    };
    if command >> 4 != 2 {
        return Err(malformed("its version is not 2"));
    }
    let size = usize::from(u16::from_be_bytes([high, low]));
    if size > MOST - 16 {
        return Err(HeaderError::TooLong);
    }
    let Some(body) = rest.get(..size) else { return Ok(None) };
    let short = malformed("it is too short for its addresses");
    let ends = match (command & 15, family) {
        (0, _) | (1, 0x00 | 0x31) => None,
        (1, 0x11) => Some(v4(body.first_chunk().ok_or(short)?)),
        (1, 0x21) => Some(v6(body.first_chunk().ok_or(short)?)),
        (1, _) => return Err(malformed("it is not of a stream")),
        _ => return Err(malformed("it has no such command")),
    };
    Ok(Some(Header { ends, len: 16 + size }))
}

fn v4(body: &[u8; 12]) -> Ends {
    let &[a, b, c, d, e, f, g, h, from_high, from_low, to_high, to_low] = body;
    let end =
        |ip: [u8; 4], port| SocketAddr::new(Ipv4Addr::from(ip).into(), u16::from_be_bytes(port));
    Ends {
        source: end([a, b, c, d], [from_high, from_low]),
        destination: end([e, f, g, h], [to_high, to_low]),
    }
}

fn v6(body: &[u8; 36]) -> Ends {
    let end = |ip: Option<&[u8; 16]>, port: Option<&[u8; 2]>| {
        let ip = ip.map_or(Ipv6Addr::UNSPECIFIED, |ip| Ipv6Addr::from(*ip));
        SocketAddr::new(ip.into(), port.map_or(0, |port| u16::from_be_bytes(*port)))
    };
    let (addresses, ports) = body.split_at(32);
    Ends {
        source: end(addresses.first_chunk(), ports.first_chunk()),
        destination: end(addresses.last_chunk(), ports.last_chunk()),
    }
}

/// The header that tells `ends`, or that there is nothing to tell.
pub fn header(version: Version, ends: Option<Ends>) -> Vec<u8> {
    let ends = ends.map(Ends::of_one_family);
    match version {
        Version::V1 => text(ends),
        Version::V2 => bytes(ends),
    }
}

fn text(ends: Option<Ends>) -> Vec<u8> {
    let mut line = "PROXY UNKNOWN".to_owned();
    if let Some(Ends { source, destination }) = ends {
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        line.clear();
        let (from, to) = (source.port(), destination.port());
        let _ = write!(line, "PROXY {family} {} {} {from} {to}", source.ip(), destination.ip());
    }
    line.push_str("\r\n");
    line.into_bytes()
}

fn bytes(ends: Option<Ends>) -> Vec<u8> {
    let mut out = SIGNATURE.to_vec();
    match ends {
        None => out.extend([0x20, 0, 0, 0]),
        Some(Ends { source, destination }) => {
            out.extend(if source.is_ipv4() { [0x21, 0x11, 0, 12] } else { [0x21, 0x21, 0, 36] });
            for end in [source, destination] {
                let _ = match end.ip() {
                    IpAddr::V4(ip) => out.write_all(&ip.octets()),
                    IpAddr::V6(ip) => out.write_all(&ip.octets()),
                };
            }
            out.extend(source.port().to_be_bytes());
            out.extend(destination.port().to_be_bytes());
        }
    }
    out
}

impl Ends {
    /// Both IPv4, or both IPv6: a header has room for one family.
    fn of_one_family(self) -> Self {
        let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
        let (source, destination) = (plain(self.source), plain(self.destination));
        if source.is_ipv4() == destination.is_ipv4() {
            return Self { source, destination };
        }
        let wide = |end: SocketAddr| match end.ip() {
            IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), end.port()),
            IpAddr::V6(_) => end,
        };
        Self { source: wide(source), destination: wide(destination) }
    }
}

/// What a fuzzer feeds: a header is found or refused alike however it is cut, lies within the bytes,
/// and what it says can be said again.
pub fn fuzz(data: &[u8]) {
    let whole = parse(data);
    for cut in 0..data.len().min(300) {
        match parse(data.get(..cut).unwrap_or_default()) {
            Ok(None) => {}
            early => assert_eq!(early, whole, "cut at {cut}"),
        }
    }
    if let Ok(Some(Header { ends, len })) = whole {
        assert!(len <= data.len() && len <= MOST);
        for version in [Version::V1, Version::V2] {
            let again = header(version, ends);
            let read = parse(&again).expect("what is written is a header");
            let ends = ends.map(Ends::of_one_family);
            assert_eq!(read, Some(Header { ends, len: again.len() }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(source: &str, destination: &str) -> Option<Ends> {
        Some(Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
    }

    #[test]
    fn headers_of_the_specification_are_read() {
        let v4 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x01\x0a\0\0\x02\x30\x39\x01\xbbrest";
        let expected = ends("10.0.0.1:12345", "10.0.0.2:443");
        assert_eq!(parse(v4), Ok(Some(Header { ends: expected, len: 28 })));
        let text = b"PROXY TCP4 10.0.0.1 10.0.0.2 12345 443\r\nGET /";
        assert_eq!(parse(text), Ok(Some(Header { ends: expected, len: 40 })));
        let six = b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n";
        let expected = ends("[2001:db8::1]:1", "[::1]:2");
        assert_eq!(parse(six), Ok(Some(Header { ends: expected, len: 32 })));
        for nothing in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN ffff::1 x 1 2\r\n"] {
            assert_eq!(parse(nothing), Ok(Some(Header { ends: None, len: nothing.len() })));
        }
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\x03abc";
        assert_eq!(parse(local), Ok(Some(Header { ends: None, len: 19 })));
    }

    #[test]
    fn what_is_no_header_is_refused_and_what_may_become_one_waits() {
        for wait in [&b""[..], b"P", b"PROXY TCP4 10.0.0.1", b"\r\n\r\n\0", &SIGNATURE[..]] {
            assert_eq!(parse(wait), Ok(None), "{}", wait.escape_ascii());
        }
        for bad in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXZ",
            b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\n",
            b"PROXY TCP4 10.0.0.1 10.0.0.2 1 65536\r\n",
            b"PROXY TCP4 10.0.0.1 10.0.0.2 +1 2\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP4 10.0.0.1  10.0.0.2 1 2\r\n",
            b"PROXY UDP4 10.0.0.1 10.0.0.2 1 2\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\0",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x02ab",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
            &[&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat(),
        ] {
            assert!(parse(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for ends in [
            None,
            ends("10.0.0.1:1", "10.0.0.2:65535"),
            ends("[2001:db8::1]:1", "[::1]:2"),
            ends("10.0.0.1:1", "[::1]:2"),
            ends("[::ffff:10.0.0.1]:1", "10.0.0.2:2"),
        ] {
            for version in [Version::V1, Version::V2] {
                fuzz(&header(version, ends));
            }
        }
        let mixed = header(Version::V1, ends("10.0.0.1:1", "[::1]:2"));
        assert_eq!(mixed, b"PROXY TCP6 ::ffff:10.0.0.1 ::1 1 2\r\n");
    }
}
