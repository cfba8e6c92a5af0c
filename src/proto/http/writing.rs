//! A request on its way to a backend over HTTP/1.1, as bytes: its head, and its body framed anew
//! (RFC 9112). Not the socket they go to.

use super::{broken::Broken, upload::Upload};
use bytes::{Buf, Bytes};
use http::{
    HeaderMap, HeaderName,
    header::{self, CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING},
    request::Parts,
};
use http_body::{Body, Frame};
use std::{
    io::{self, IoSlice, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::AsyncWrite;

/// What of a request has not left.
#[derive(Debug, Default)]
pub(super) struct Writing {
    /// The head or a part of the framing, which goes before `data`.
    plain: Bytes,
    data: Bytes,
    /// `None`: all of it was taken.
    rest: Option<Box<Rest>>,
}

/// A body that was not taken to its end.
#[derive(Debug)]
struct Rest {
    upload: Upload,
    framing: Framing,
}

#[derive(Debug)]
enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// `open`: the last chunk has no end yet. The trailers that may follow.
    Chunked { open: bool, trailers: Vec<HeaderName> },
}

impl Writing {
    /// Writes a head, and lines that are part of it, to `out` as it goes over the wire, and gives what
    /// follows it. The body is
    /// framed as it is, whatever the head says of it.
    pub(super) fn new((head, lines): (&Parts, &[u8]), upload: Upload, out: &mut Vec<u8>) -> Self {
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        for part in [head.method.as_str(), " ", path, " HTTP/1.1\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        let mut sized = false;
        for (name, value) in &head.headers {
            if name == CONTENT_LENGTH {
                sized = true;
            } else if name != TRANSFER_ENCODING {
                field(out, name.as_str(), value.as_bytes());
            }
        }
        out.extend_from_slice(lines);
        let rest = match (upload.is_end_stream(), upload.size_hint().exact()) {
            (true, _) => {
                if sized {
                    field(out, CONTENT_LENGTH.as_str(), b"0");
                }
                None
            }
            (false, Some(length)) => {
                let mut digits = itoa::Buffer::new();
                field(out, CONTENT_LENGTH.as_str(), digits.format(length).as_bytes());
                Some(Framing::Length(length))
            }
            (false, None) => {
                field(out, TRANSFER_ENCODING.as_str(), b"chunked");
                Some(Framing::Chunked { open: false, trailers: announced(&head.headers) })
            }
        };
        out.extend_from_slice(b"\r\n");
        let rest = rest.map(|framing| Box::new(Rest { upload, framing }));
        Self { plain: Bytes::new(), data: Bytes::new(), rest }
    }

    /// Bytes that go before all else: what of the head was not taken at once.
    pub(super) fn keep(&mut self, unsent: &[u8]) {
        self.plain = Bytes::copy_from_slice(unsent);
    }

    /// Whether all has left.
    pub(super) fn is_over(&self) -> bool {
        self.rest.is_none() && self.plain.is_empty() && self.data.is_empty()
    }

    /// The backend says that it wants the body.
    pub(super) fn go_on(&mut self) {
        if let Some(rest) = &mut self.rest {
            rest.upload.go_on();
        }
    }

    /// Writes what there is, until all has left; `sent` is told how much that is.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
        mut sent: impl FnMut(usize),
    ) -> Poll<Result<(), Broken>> {
        loop {
            let blocked =
                self.data.is_empty() && self.rest.is_some() && self.take(cx)?.is_pending();
            while !(self.plain.is_empty() && self.data.is_empty()) {
                let wrote = ready!(self.write(cx, stream)).map_err(Broken::Io)?;
                sent(wrote);
                let plain = wrote.min(self.plain.len());
                self.plain.advance(plain);
                self.data.advance(wrote - plain);
            }
            if blocked || self.rest.is_none() {
                // Under TLS what was taken may not have left.
                ready!(Pin::new(stream).poll_flush(cx)).map_err(Broken::Io)?;
                return if blocked { Poll::Pending } else { Poll::Ready(Ok(())) };
            }
        }
    }

    /// The next part of the body.
    fn take(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Broken> {
        let Some(rest) = &mut self.rest else { return Ok(Poll::Ready(())) };
        let Poll::Ready(frame) = Pin::new(&mut rest.upload).poll_frame(cx) else {
            return Ok(Poll::Pending);
        };
        let frame = frame.transpose().map_err(Broken::Body)?;
        let (plain, data) = rest.framing.frame(frame, rest.upload.is_end_stream())?;
        let both = || Bytes::from([&*self.plain, &*plain].concat());
        self.plain = if self.plain.is_empty() { plain } else { both() };
        self.data = data;
        if rest.framing.is_over() {
            self.rest = None;
        }
        Ok(Poll::Ready(()))
    }

    fn write(
        &self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(stream);
        let wrote = match (self.plain.is_empty(), self.data.is_empty()) {
            (false, true) => stream.poll_write(cx, &self.plain),
            (true, _) => stream.poll_write(cx, &self.data),
            (false, false) => {
                let both = [IoSlice::new(&self.plain), IoSlice::new(&self.data)];
                stream.poll_write_vectored(cx, &both)
            }
        };
        match ready!(wrote)? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            wrote => Poll::Ready(Ok(wrote)),
        }
    }
}

impl Framing {
    /// What goes over the wire for a frame, `None`: for the end; `last`: nothing follows it.
    fn frame(&mut self, frame: Option<Frame<Bytes>>, last: bool) -> Result<(Bytes, Bytes), Broken> {
        let frame = match frame.map(Frame::into_data) {
            Some(Ok(data)) if data.is_empty() && !last => return Ok(Default::default()),
            frame => frame,
        };
        match self {
            Self::Length(left) => {
                let Some(frame) = frame else { return Err(wrong(SHORT)) };
                let data = frame.unwrap_or_default();
                *left = left.checked_sub(data.len() as u64).ok_or_else(|| wrong(LONG))?;
                if last && *left > 0 {
                    return Err(wrong(SHORT));
                }
                Ok((Bytes::new(), data))
            }
            Self::Chunked { open, trailers } => {
                let mut plain = Vec::with_capacity(MOST_FRAMING);
                if *open {
                    plain.extend_from_slice(b"\r\n");
                }
                match frame {
                    Some(Ok(data)) if !data.is_empty() => {
                        *open = true;
                        let _ = write!(plain, "{:x}\r\n", data.len());
                        return Ok((plain.into(), data));
                    }
                    frame => {
                        plain.extend_from_slice(b"0\r\n");
                        if let Some(Err(frame)) = frame
                            && let Ok(fields) = frame.into_trailers()
                        {
                            let wanted = |name: &HeaderName| trailers.contains(name);
                            let fields = fields.iter().filter(|(name, _)| wanted(name));
                            fields.for_each(|(name, value)| {
                                field(&mut plain, name.as_str(), value.as_bytes());
                            });
                        }
                        plain.extend_from_slice(b"\r\n");
                        *self = Self::Length(0);
                    }
                }
                Ok((plain.into(), Bytes::new()))
            }
        }
    }

    fn is_over(&self) -> bool {
        matches!(self, Self::Length(0))
    }
}

/// A body that is not what its head says; hyper sees to it that there is none.
fn wrong(why: &'static str) -> Broken {
    Broken::Io(io::Error::new(io::ErrorKind::InvalidInput, why))
}

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// The trailers that the head announces, but for those that a trailer may not be (RFC 9110, 6.5.1).
fn announced(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(TRAILER).iter();
    let words = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let names = words.filter_map(|word| HeaderName::from_bytes(word.trim_ascii()).ok());
    names.filter(|name| !NO_TRAILERS.contains(name)).collect()
}

/// Those that say how a message is framed, routed, or read.
const NO_TRAILERS: [HeaderName; 15] = [
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONNECTION,
    header::CONTENT_ENCODING,
    CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::HOST,
    header::MAX_FORWARDS,
    header::SET_COOKIE,
    header::TE,
    TRAILER,
    TRANSFER_ENCODING,
    header::UPGRADE,
];
const SHORT: &str = "a body shorter than announced";
const LONG: &str = "a body longer than announced";
/// The size of a chunk in digits, and the ends of two lines.
const MOST_FRAMING: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    /// What goes over the wire for frames in the framing.
    fn framed(mut framing: Framing, frames: Vec<Option<Frame<Bytes>>>) -> Result<String, Broken> {
        let mut out = Vec::new();
        for frame in frames {
            let (plain, data) = framing.frame(frame, false)?;
            out.extend_from_slice(&plain);
            out.extend_from_slice(&data);
        }
        assert!(framing.is_over());
        Ok(String::from_utf8(out).unwrap())
    }

    fn data(text: &'static str) -> Option<Frame<Bytes>> {
        Some(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    #[test]
    fn a_head_is_written_as_it_is_but_for_its_framing() {
        let mut request = Request::put("http://h/a?b=c").header("A", "1").header("B", "").body(());
        let head = request.as_mut().unwrap().headers_mut();
        head.append("a", "2".parse().unwrap());
        head.append("transfer-encoding", "chunked".parse().unwrap());
        head.append("content-length", "7".parse().unwrap());
        let (head, ()) = request.unwrap().into_parts();
        let mut out = Vec::new();
        let writing = Writing::new((&head, b"c: 3\r\n"), Upload::default(), &mut out);
        assert!(writing.is_over());
        let lines = String::from_utf8(out).unwrap();
        assert_eq!(
            lines,
            "PUT /a?b=c HTTP/1.1\r\na: 1\r\na: 2\r\nb: \r\nc: 3\r\ncontent-length: 0\r\n\r\n"
        );
        let (head, ()) = Request::options("*").body(()).unwrap().into_parts();
        let mut out = Vec::new();
        Writing::new((&head, b""), Upload::default(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "OPTIONS * HTTP/1.1\r\n\r\n");
    }

    #[test]
    fn a_body_of_unknown_length_goes_in_chunks_with_the_trailers_that_were_announced() {
        let trailers = |names: &str| {
            let (head, ()) =
                Request::get("/").header("Trailer", names).body(()).unwrap().into_parts();
            announced(&head.headers)
        };
        let chunked = |names| Framing::Chunked { open: false, trailers: trailers(names) };
        let fields = || {
            let fields = [("x-sum", "3"), ("x-other", "4"), ("host", "evil")];
            let fields =
                fields.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            Some(Frame::trailers(HeaderMap::from_iter::<[(HeaderName, _); 3]>(fields)))
        };
        let wrote = framed(
            chunked("X-Sum, Host"),
            vec![data("abc"), data(""), data("0123456789abcdef"), fields()],
        );
        assert_eq!(wrote.unwrap(), "3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nx-sum: 3\r\n\r\n");
        assert_eq!(framed(chunked(""), vec![fields()]).unwrap(), "0\r\n\r\n");
        assert_eq!(framed(chunked(""), vec![None]).unwrap(), "0\r\n\r\n");
    }

    #[test]
    fn a_body_is_as_long_as_was_announced() {
        assert_eq!(
            framed(Framing::Length(4), vec![data("ab"), data(""), data("cd")]).unwrap(),
            "abcd"
        );
        assert!(framed(Framing::Length(1), vec![data("ab")]).is_err());
        assert!(framed(Framing::Length(3), vec![data("ab"), None]).is_err());
    }
}
