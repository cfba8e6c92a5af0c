//! HTTP/1.1 as RFC 9112 writes it and no looser: heads and bodies from a socket. What may be read in
//! two ways is refused, for somebody would read it in the other. It decides nothing about answers.

use std::{
    fmt,
    io::{self, BufRead, Read},
};

/// The most bytes of a head, a chunk's line or trailers.
const MAX_HEAD: usize = 1 << 20;
/// The most bytes of a body that are kept; all are counted.
const MAX_KEPT: usize = 1 << 20;

/// The first line and the fields of a message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    pub(crate) line: String,
    /// In their order, with names in lower case.
    pub(crate) fields: Vec<(String, String)>,
}

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(u64),
    Chunked,
    /// To the end of the connection: responses alone.
    Close,
}

/// What was read of a body.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    /// The first MiB.
    pub(crate) kept: Vec<u8>,
    pub(crate) length: u64,
    pub(crate) trailers: Vec<(String, String)>,
}

/// Why there is no message.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The connection ended between messages.
    End,
    /// It ended or broke inside one.
    Cut(io::Error),
    /// Bytes that are no HTTP/1.1.
    Garbage(String),
}

impl Head {
    /// Every value of a field, by its name in lower case.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let of_name = self.fields.iter().filter(|(field, _)| field == name);
        of_name.map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// Whether a word is in a field's list.
    pub(crate) fn says(&self, name: &str, word: &str) -> bool {
        let values = self.all(name);
        let mut words = values.iter().flat_map(|value| value.split(','));
        words.any(|one| one.trim().eq_ignore_ascii_case(word))
    }

    /// The three parts of a request's line.
    pub(crate) fn request(&self) -> (&str, &str, &str) {
        let mut parts = self.line.split(' ');
        let mut next = || parts.next().unwrap_or_default();
        (next(), next(), next())
    }

    /// The framing that the fields say; `None`: they say none.
    fn framing(&self) -> Result<Option<Framing>, Broken> {
        let (codings, lengths) = (self.all("transfer-encoding"), self.all("content-length"));
        match (codings.as_slice(), lengths.as_slice()) {
            ([], []) => Ok(None),
            ([coding], []) if coding.eq_ignore_ascii_case("chunked") => Ok(Some(Framing::Chunked)),
            ([], [length])
                if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                let length = length.parse().map_err(|_| garbage("length", length.as_bytes()))?;
                Ok(Some(Framing::Length(length)))
            }
            _ => Err(Broken::Garbage(format!("framing: {codings:?} {lengths:?}"))),
        }
    }
}

/// A request's head, strictly; and how its body is framed.
pub(crate) fn read_request(stream: &mut impl BufRead) -> Result<(Head, Framing), Broken> {
    let head = read_head(stream)?;
    let (method, target, version) = head.request();
    let token = |text: &str| !text.is_empty() && text.bytes().all(is_token);
    let visible =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte > b' ' && byte != 0x7f);
    let versions = ["HTTP/1.1", "HTTP/1.0"];
    let parts = head.line.split(' ').count();
    if parts != 3 || !token(method) || !visible(target) || !versions.contains(&version) {
        return Err(garbage("request line", head.line.as_bytes()));
    }
    let hosts = head.all("host");
    if version == "HTTP/1.1" && hosts.len() != 1 || !hosts.iter().all(|host| is_host(host)) {
        return Err(Broken::Garbage(format!("hosts: {hosts:?}")));
    }
    let framing = head.framing()?.unwrap_or(Framing::None);
    if version == "HTTP/1.0" && framing == Framing::Chunked {
        return Err(Broken::Garbage("chunked in HTTP/1.0".to_owned()));
    }
    Ok((head, framing))
}

/// A response's head, strictly; how its body is framed, by what was asked.
pub(crate) fn read_response(
    stream: &mut impl BufRead,
    to_head: bool,
) -> Result<(Head, u16, Framing), Broken> {
    let head = read_head(stream)?;
    let mut parts = head.line.splitn(3, ' ');
    let version = parts.next().unwrap_or_default();
    let status = parts.next().and_then(|code| code.parse().ok()).filter(|code| *code >= 100);
    let (true, Some(status)) = (version.starts_with("HTTP/1."), status) else {
        return Err(garbage("status line", head.line.as_bytes()));
    };
    let framing = match status {
        100..200 | 204 | 304 => Framing::None,
        _ if to_head => Framing::None,
        _ => head.framing()?.unwrap_or(Framing::Close),
    };
    Ok((head, status, framing))
}

/// All of a body.
pub(crate) fn read_body(stream: &mut impl BufRead, framing: Framing) -> Result<Body, Broken> {
    let mut body = Body::default();
    match framing {
        Framing::None => {}
        Framing::Length(length) => body.take(stream, length)?,
        Framing::Close => {
            // A reset loses nothing that a test counts.
            let _ = stream.read_to_end(&mut body.kept);
            body.length = body.kept.len() as u64;
        }
        Framing::Chunked => loop {
            let line = read_line(stream)?;
            let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
            let hex = (1..=16).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
            if !hex || line.iter().any(u8::is_ascii_control) {
                return Err(garbage("chunk size", &line));
            }
            let size = u64::from_str_radix(&String::from_utf8_lossy(digits), 16).unwrap();
            if size == 0 {
                body.trailers = read_fields(stream)?;
                break;
            }
            body.take(stream, size)?;
            let end = read_line(stream)?;
            if !end.is_empty() {
                return Err(garbage("end of a chunk", &end));
            }
        },
    }
    Ok(body)
}

impl Body {
    fn take(&mut self, stream: &mut impl Read, length: u64) -> Result<(), Broken> {
        let mut left = length;
        let mut piece = vec![0; 64 << 10];
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            let n = stream.read(&mut piece[..want]).map_err(Broken::Cut)?;
            if n == 0 {
                return Err(Broken::Cut(io::ErrorKind::UnexpectedEof.into()));
            }
            let room = MAX_KEPT.saturating_sub(self.kept.len()).min(n);
            self.kept.extend_from_slice(&piece[..room]);
            self.length += n as u64;
            left -= n as u64;
        }
        Ok(())
    }
}

fn read_head(stream: &mut impl BufRead) -> Result<Head, Broken> {
    match stream.fill_buf() {
        Ok([]) => return Err(Broken::End),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(Broken::End),
        Err(error) => return Err(Broken::Cut(error)),
        Ok(_) => {}
    }
    let line = read_line(stream)?;
    if line.iter().any(u8::is_ascii_control) {
        return Err(garbage("first line", &line));
    }
    let line = String::from_utf8_lossy(&line).into_owned();
    Ok(Head { line, fields: read_fields(stream)? })
}

fn read_fields(stream: &mut impl BufRead) -> Result<Vec<(String, String)>, Broken> {
    let mut fields = Vec::new();
    loop {
        let line = read_line(stream)?;
        if line.is_empty() {
            return Ok(fields);
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return Err(garbage("field", &line));
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) || value.iter().any(control)
        {
            return Err(garbage("field", &line));
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        fields.push((text(name).to_ascii_lowercase(), text(value.trim_ascii())));
    }
}

/// A line without its CRLF; a CR or an LF alone is garbage.
fn read_line(stream: &mut impl BufRead) -> Result<Vec<u8>, Broken> {
    let mut line = Vec::new();
    stream.take(MAX_HEAD as u64).read_until(b'\n', &mut line).map_err(Broken::Cut)?;
    if line.last() != Some(&b'\n') {
        return Err(Broken::Cut(io::ErrorKind::UnexpectedEof.into()));
    }
    match line.strip_suffix(b"\r\n") {
        Some(rest) if !rest.contains(&b'\r') => Ok(rest.to_vec()),
        _ => Err(garbage("end of a line", &line)),
    }
}

/// A name or an address, and perhaps a port (RFC 9110, 7.2).
fn is_host(text: &str) -> bool {
    let port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let name =
        |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b));
    match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((_, after)) => after.is_empty() || after.strip_prefix(':').is_some_and(port),
        None => {
            let (host, number) = text.split_once(':').unwrap_or((text, ""));
            name(host) && port(number)
        }
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn garbage(what: &str, bytes: &[u8]) -> Broken {
    let shown = &bytes[..bytes.len().min(200)];
    Broken::Garbage(format!("{what}: {}", shown.escape_ascii()))
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("the connection ended"),
            Self::Cut(error) => write!(f, "the connection ended inside a message: {error}"),
            Self::Garbage(what) => write!(f, "no HTTP/1.1: {what}"),
        }
    }
}
