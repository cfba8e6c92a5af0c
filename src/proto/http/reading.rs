//! A reply of HTTP/1.1 out of the bytes that a backend sends: its head, and its body part by part
//! (RFC 9112). Not the socket they come from.

use super::{broken::Broken, marks::Marks};
use bytes::{Buf, Bytes};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING},
    response::Parts,
};
use http_body::{Frame, SizeHint};
use httparse::{EMPTY_HEADER, Header, Status};

/// The head of a reply.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) parts: Parts,
    pub(super) body: Body,
    /// The backend takes another request on the connection afterwards.
    pub(super) keep: bool,
}

/// What is left of a reply's body, and how its end is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes; none are left at zero.
    Length(u64),
    Chunked(Chunk),
    /// All until the connection closes.
    UntilClose,
}

/// Where in a chunked body the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    /// The line with the size of the next chunk.
    Size,
    /// So many bytes of the chunk are left.
    Data(u64),
    /// The end of the line behind a chunk's bytes.
    End,
    /// Behind the last chunk.
    Trailers,
}

/// Reads a head off the front of `bytes`; `None`: it has not come whole.
///
/// # Errors
/// What comes is not HTTP, or is too large.
pub(super) fn head(bytes: &mut Bytes, method: &Method) -> Result<Option<Head>, Broken> {
    let mut few = [EMPTY_HEADER; MOST_AT_FIRST];
    let read = match parse(bytes, &mut few, method) {
        Err(Bad::Fields) => parse(bytes, &mut vec![EMPTY_HEADER; MAX_HEADERS], method),
        read => read,
    };
    match read {
        Ok(Some((len, head))) if len <= MAX_HEAD => {
            bytes.advance(len);
            Ok(Some(head))
        }
        Ok(None) if bytes.len() < MAX_HEAD => Ok(None),
        Ok(_) => Err(Broken::Malformed("the head is too large")),
        Err(Bad::Fields) => Err(Broken::Malformed("the head has too many fields")),
        Err(Bad::Other(why)) => Err(Broken::Malformed(why)),
    }
}

/// Why a head is none.
enum Bad {
    /// More fields than there is room for.
    Fields,
    Other(&'static str),
}

fn parse<'b>(
    bytes: &'b Bytes,
    fields: &mut [Header<'b>],
    method: &Method,
) -> Result<Option<(usize, Head)>, Bad> {
    let mut reply = httparse::Response::new(fields);
    let len = match reply.parse(bytes) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Bad::Fields),
        Err(_) => return Err(Bad::Other("the head cannot be read")),
    };
    let block = bytes.slice(..len);
    let status = reply.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(Bad::Other("the status is none"))?;
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.status = status;
    parts.version = if reply.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let reason = reply.reason.filter(|reason| Some(*reason) != status.canonical_reason());
    if let Some(reason) =
        reason.and_then(|one| hyper::ext::ReasonPhrase::try_from(one.as_bytes()).ok())
    {
        parts.extensions.insert(reason);
    }
    parts.headers = HeaderMap::with_capacity(reply.headers.len() + ADDED);
    collect(&block, reply.headers, &mut parts.headers).map_err(Bad::Other)?;
    let marks = Marks::of(&parts.headers);
    let mut keep = keeps(&parts, marks);
    let body = framing(&mut parts, marks, method, &mut keep).map_err(Bad::Other)?;
    Ok(Some((len, Head { parts, body, keep })))
}

/// The fields as a map whose values are parts of `block`, which they were parsed from.
fn collect(
    block: &Bytes,
    fields: &[Header<'_>],
    headers: &mut HeaderMap,
) -> Result<(), &'static str> {
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_maybe_shared(block.slice_ref(field.value));
        let (Ok(name), Ok(value)) = (name, value) else { return Err("a field cannot be read") };
        headers.append(name, value);
    }
    Ok(())
}

/// Whether the connection stays open (RFC 9112, 9.3): who says `close` once means it.
fn keeps(parts: &Parts, marks: Marks) -> bool {
    if !marks.any(Marks::CONNECTION) {
        return parts.version == Version::HTTP_11;
    }
    let says = |wanted: &[u8]| {
        let values = parts.headers.get_all(CONNECTION).iter();
        let mut words = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        words.any(|word| word.trim_ascii().eq_ignore_ascii_case(wanted))
    };
    !says(b"close") && (parts.version == Version::HTTP_11 || says(b"keep-alive"))
}

/// RFC 9112, 6.3.
fn framing(
    parts: &mut Parts,
    marks: Marks,
    method: &Method,
    keep: &mut bool,
) -> Result<Body, &'static str> {
    let status = parts.status;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        *keep = false;
        return Ok(Body::Length(0));
    }
    let bodyless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if *method == Method::HEAD || bodyless || status.is_informational() {
        return Ok(Body::Length(0));
    }
    let mut codings = parts.headers.get_all(TRANSFER_ENCODING).iter();
    if marks.any(Marks::TRANSFER_ENCODING)
        && let Some(coding) = codings.next()
    {
        // Another coding would reach the client as if it were the content.
        let chunked = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
        if !chunked || codings.next().is_some() || parts.version != Version::HTTP_11 {
            return Err("a Transfer-Encoding other than chunked");
        }
        // Whoever says both may be read otherwise by others (RFC 9112, 6.3).
        *keep &= parts.headers.remove(CONTENT_LENGTH).is_none();
        return Ok(Body::Chunked(Chunk::Size));
    }
    let mut lengths = parts.headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else {
        *keep = false;
        return Ok(Body::UntilClose);
    };
    let length = number(first.as_bytes()).ok_or("a Content-Length that is none")?;
    if lengths.next().is_some() {
        let same = |value: &HeaderValue| number(value.as_bytes()) == Some(length);
        if !parts.headers.get_all(CONTENT_LENGTH).iter().all(same) {
            return Err("two Content-Length that differ");
        }
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(Body::Length(length))
}

/// Digits alone: what `parse` allows beyond them, a `+`, others do not.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

impl Body {
    /// Whether nothing more comes.
    pub(super) fn is_over(self) -> bool {
        self == Self::Length(0)
    }

    /// How many bytes come, as far as it is known.
    pub(super) fn size_hint(self) -> SizeHint {
        match self {
            Self::Length(length) => SizeHint::with_exact(length),
            Self::Chunked(_) | Self::UntilClose => SizeHint::default(),
        }
    }

    /// Room for the next read: what is known to come, within reason.
    pub(super) fn room(self) -> usize {
        match self {
            Self::Length(left) => usize::try_from(left).unwrap_or(MOST).min(MOST),
            Self::Chunked(Chunk::Data(left)) => {
                usize::try_from(left).unwrap_or(MOST).clamp(SOME, MOST)
            }
            Self::Chunked(_) | Self::UntilClose => SOME,
        }
    }

    /// The next part of the body off the front of `bytes`; `None`: it has not come yet, or nothing
    /// more comes.
    ///
    /// # Errors
    /// The framing is wrong.
    pub(super) fn next(&mut self, bytes: &mut Bytes) -> Result<Option<Frame<Bytes>>, Broken> {
        match self {
            Self::Length(left) => Ok(take(bytes, left).map(Frame::data)),
            Self::UntilClose => {
                let all = std::mem::take(bytes);
                Ok(Some(all).filter(|all| !all.is_empty()).map(Frame::data))
            }
            Self::Chunked(chunk) => {
                let frame = chunk.next(bytes)?;
                let Some(frame) = frame else { return Ok(None) };
                let Some(frame) = frame else {
                    *self = Self::Length(0);
                    return Ok(None);
                };
                if frame.is_trailers() {
                    *self = Self::Length(0);
                }
                Ok(Some(frame))
            }
        }
    }

    /// The connection was closed.
    ///
    /// # Errors
    /// More was to come.
    pub(super) fn close(&mut self) -> Result<(), Broken> {
        match self {
            Self::Length(0) => Ok(()),
            Self::UntilClose => {
                *self = Self::Length(0);
                Ok(())
            }
            Self::Length(_) | Self::Chunked(_) => Err(Broken::Closed),
        }
    }
}

impl Chunk {
    /// The next frame; `None`: it has not come; `Some(None)`: there is none.
    fn next(&mut self, bytes: &mut Bytes) -> Result<Option<Option<Frame<Bytes>>>, Broken> {
        loop {
            match self {
                Self::Size => {
                    let Some(line) = line(bytes, MAX_SIZE_LINE)? else { return Ok(None) };
                    let size = size(&line).ok_or(Broken::Malformed("a chunk without a size"))?;
                    *self = if size == 0 { Self::Trailers } else { Self::Data(size) };
                }
                Self::Data(left) => {
                    let Some(data) = take(bytes, left) else { return Ok(None) };
                    if *left == 0 {
                        *self = Self::End;
                    }
                    return Ok(Some(Some(Frame::data(data))));
                }
                Self::End => {
                    let Some(line) = line(bytes, 2)? else { return Ok(None) };
                    if !line.is_empty() {
                        return Err(Broken::Malformed("a chunk longer than its size"));
                    }
                    *self = Self::Size;
                }
                Self::Trailers => return trailers(bytes),
            }
        }
    }
}

fn trailers(bytes: &mut Bytes) -> Result<Option<Option<Frame<Bytes>>>, Broken> {
    let mut fields = [EMPTY_HEADER; MOST_AT_FIRST];
    match httparse::parse_headers(bytes, &mut fields) {
        Ok(Status::Complete((len, fields))) if len <= MAX_HEAD => {
            let mut headers = HeaderMap::new();
            collect(&bytes.slice(..len), fields, &mut headers).map_err(Broken::Malformed)?;
            bytes.advance(len);
            Ok(Some(Some(headers).filter(|all| !all.is_empty()).map(Frame::trailers)))
        }
        Ok(Status::Partial) if bytes.len() < MAX_HEAD => Ok(None),
        Ok(_) => Err(Broken::Malformed("the trailers are too large")),
        Err(_) => Err(Broken::Malformed("the trailers cannot be read")),
    }
}

/// Up to `left` bytes of what there is; `None`: nothing is.
fn take(bytes: &mut Bytes, left: &mut u64) -> Option<Bytes> {
    let most = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
    if most == 0 {
        return None;
    }
    *left -= most as u64;
    Some(bytes.split_to(most))
}

/// A line off the front, without its end, CR and LF; `most`: bytes of all of it.
fn line(bytes: &mut Bytes, most: usize) -> Result<Option<Bytes>, Broken> {
    let Some(end) = memchr::memchr(b'\n', bytes.get(..most.min(bytes.len())).unwrap_or_default())
    else {
        let fits = bytes.len() < most;
        return if fits { Ok(None) } else { Err(Broken::Malformed("a line of a chunk too long")) };
    };
    let mut line = bytes.split_to(end + 1);
    if !line.ends_with(b"\r\n") {
        return Err(Broken::Malformed("a line of a chunk that ends without CR"));
    }
    line.truncate(end - 1);
    Ok(Some(line))
}

/// Digits in base 16, and perhaps an extension, which nobody knows.
fn size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii_end();
    if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Fields of a head for which there is room on the stack; nearly all have fewer.
const MOST_AT_FIRST: usize = 64;
/// Of a reply; hyper's own default is 100.
const MAX_HEADERS: usize = 256;
/// Bytes of the head of a reply, as much as a client may send in a head.
const MAX_HEAD: usize = 64 * 1024;
/// What a reply gets of us: `Set-Cookie`, `Cache-Control` and `Via`.
const ADDED: usize = 3;
/// Bytes of the line before a chunk, its extensions included.
const MAX_SIZE_LINE: usize = 4 * 1024;
/// Room for a read of a body of unknown length, and the most for one of known length.
const SOME: usize = 16 * 1024;
const MOST: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, method: &Method) -> Result<Head, String> {
        let mut bytes = Bytes::copy_from_slice(text.as_bytes());
        match head(&mut bytes, method) {
            Ok(head) => head.ok_or_else(|| "partial".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_end_of_a_body_is_found_as_rfc_9112_says() {
        let chunked = Body::Chunked(Chunk::Size);
        for (method, text, body, keep) in [
            ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Body::Length(3), true),
            (
                "GET",
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
                Body::Length(3),
                true,
            ),
            ("GET", "HTTP/1.1 200 OK\r\n\r\n", Body::UntilClose, false),
            ("GET", "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", Body::Length(3), false),
            (
                "GET",
                "HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n",
                Body::Length(3),
                true,
            ),
            (
                "GET",
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: a, Close\r\n\r\n",
                Body::Length(3),
                false,
            ),
            (
                "GET",
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n",
                Body::Length(3),
                false,
            ),
            ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", chunked, true),
            (
                "GET",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
                chunked,
                false,
            ),
            ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Body::Length(0), true),
            (
                "HEAD",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                Body::Length(0),
                true,
            ),
            ("GET", "HTTP/1.1 204 No Content\r\n\r\n", Body::Length(0), true),
            (
                "GET",
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
                Body::Length(0),
                true,
            ),
            ("GET", "HTTP/1.1 101 Switching Protocols\r\n\r\n", Body::Length(0), false),
            ("GET", "HTTP/1.1 100 Continue\r\n\r\n", Body::Length(0), true),
        ] {
            let method = method.parse().unwrap();
            let head = parsed(text, &method).unwrap_or_else(|error| panic!("{error}: {text}"));
            assert_eq!((head.body, head.keep), (body, keep), "{method} {text}");
            assert!(head.parts.headers.get_all(CONTENT_LENGTH).iter().count() <= 1, "{text}");
        }
    }

    #[test]
    fn a_reply_that_two_may_read_differently_is_refused() {
        for fields in [
            "Content-Length: 3\r\nContent-Length: 4",
            "Content-Length: +3",
            "Content-Length: 3, 3",
            "Content-Length:",
            "Content-Length: 99999999999999999999",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: gzip",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "A : b",
            "A: b\r\n folded: c",
            "A: \0",
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
            assert!(parsed(&text, &Method::GET).is_err(), "{fields}");
        }
        for line in [
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
            "HTTP/2 200 OK",
            "hello",
            "HTTP/1.1 20 OK",
            "HTTP/1.1 099 OK",
        ] {
            assert!(parsed(&format!("{line}\r\n\r\n"), &Method::GET).is_err(), "{line}");
        }
    }

    #[test]
    fn a_head_has_its_limits() {
        let fields = |count: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(count));
        assert_eq!(parsed(&fields(MAX_HEADERS), &Method::GET).unwrap().parts.headers.len(), 256);
        assert!(parsed(&fields(MAX_HEADERS + 1), &Method::GET).is_err());
        let long = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(MAX_HEAD));
        assert!(parsed(&long, &Method::GET).is_err_and(|error| error.contains("too large")));
        assert_eq!(parsed("HTTP/1.1 200 OK\r\nA: b", &Method::GET).unwrap_err(), "partial");
    }

    /// What comes out of `text` when it comes in pieces of `step` bytes: data, trailers, and whether
    /// it ended.
    fn passed(mut body: Body, text: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), Broken> {
        let (mut data, mut trailers, mut unread) = (Vec::new(), 0, Bytes::new());
        for piece in text.chunks(step) {
            unread = Bytes::from([&*unread, piece].concat());
            while !body.is_over() {
                match body.next(&mut unread)?.map(Frame::into_data) {
                    Some(Ok(part)) => data.extend_from_slice(&part),
                    Some(Err(frame)) => trailers += frame.trailers_ref().map_or(0, HeaderMap::len),
                    None => break,
                }
            }
        }
        Ok((data, trailers, body.is_over()))
    }

    #[test]
    fn chunks_are_found_however_the_bytes_come() {
        let text = b"3\r\nabc\r\n00a;x=\"y\" \r\n0123456789\r\n0\r\nX-Sum: 13\r\nB: c\r\n\r\n";
        for step in 1..=text.len() {
            let (data, trailers, over) = passed(Body::Chunked(Chunk::Size), text, step).unwrap();
            assert_eq!((&*data, trailers, over), (&b"abc0123456789"[..], 2, true), "{step}");
            let (data, trailers, over) =
                passed(Body::Chunked(Chunk::Size), &text[..text.len() - 1], step).unwrap();
            assert_eq!((data.len(), trailers, over), (13, 0, false), "{step}");
            let plain = passed(Body::Chunked(Chunk::Size), b"1\r\na\r\n0\r\n\r\n", step).unwrap();
            assert_eq!(plain, (b"a".to_vec(), 0, true));
            assert_eq!(passed(Body::Length(2), b"ab", step).unwrap(), (b"ab".to_vec(), 0, true));
            assert_eq!(passed(Body::UntilClose, b"ab", step).unwrap(), (b"ab".to_vec(), 0, false));
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused_however_it_comes() {
        for text in [
            "x\r\n",
            "\r\n",
            "-1\r\n",
            "0x1\r\na\r\n",
            "+1\r\na\r\n",
            "11111111111111111\r\n",
            "1\na\r\n0\r\n\r\n",
            "1\r\nab\r\n",
            "1\r\na0\r\n\r\n",
            "1\r\na\n0\r\n\r\n",
            "0\r\nA\r\n\r\n",
            "0\r\n A: b\r\n\r\n",
        ] {
            for step in 1..=text.len() {
                let passed = passed(Body::Chunked(Chunk::Size), text.as_bytes(), step);
                assert!(passed.is_err(), "{text:?} by {step}: {passed:?}");
            }
        }
        let long = format!("1;{}", "x".repeat(MAX_SIZE_LINE));
        assert!(passed(Body::Chunked(Chunk::Size), long.as_bytes(), 100).is_err());
        let trailers = format!("0\r\nA: {}", "x".repeat(MAX_HEAD));
        assert!(passed(Body::Chunked(Chunk::Size), trailers.as_bytes(), 10_000).is_err());
    }

    #[test]
    fn a_connection_that_closes_ends_only_what_ends_so() {
        let close = |mut body: Body| body.close().map(|()| body.is_over()).ok();
        assert_eq!(close(Body::UntilClose), Some(true));
        assert_eq!(close(Body::Length(0)), Some(true));
        assert_eq!(close(Body::Length(1)), None);
        assert_eq!(close(Body::Chunked(Chunk::Trailers)), None);
    }
}
