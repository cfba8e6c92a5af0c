//! Finds requests in what a client sent: resumable, never scanning a byte twice, never trusting an
//! announced length. Not what a request means: that is [`super::table`].

use super::args::Span;
use memchr::memchr;

/// How far into a request we are; one per client. Reset by [`Decoder::reset`] between requests.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Bytes of the current request already scanned; may lie beyond what has arrived.
    pos: usize,
    /// Arguments still to come; 0 before the `*` line.
    missing: u32,
    /// The arguments found so far.
    spans: Vec<Span>,
}

/// What a client may send; smaller before it has said its password.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest argument in bytes.
    pub bulk: u64,
    /// The most arguments of one request.
    pub args: u32,
    pub authenticated: bool,
}

/// What stands at the front of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// Not all of it is there yet.
    Incomplete,
    /// A request of so many bytes; [`Decoder::spans`] has its arguments.
    Request(usize),
    /// A line of so many bytes, its end included, and so many without it.
    Inline { len: usize, line: usize },
    /// So many bytes that ask for nothing: an empty line, `*0`, `*-1`.
    Nothing(usize),
}

/// Bytes that are not Redis protocol; the text is Redis's own and ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("invalid multibulk length")]
    MultibulkLength,
    #[error("unauthenticated multibulk length")]
    UnauthenticatedMultibulk,
    #[error("expected '$', got '{}'", .0.escape_ascii())]
    ExpectedDollar(u8),
    #[error("invalid bulk length")]
    BulkLength,
    #[error("unauthenticated bulk length")]
    UnauthenticatedBulk,
    #[error("expected CRLF after an argument")]
    ExpectedCrlf,
    #[error("too big inline request")]
    InlineTooBig,
    #[error("too big mbulk count string")]
    CountTooBig,
    #[error("too big bulk count string")]
    BulkCountTooBig,
    #[error("request larger than 1 GiB")]
    RequestTooBig,
}

impl Decoder {
    /// Looks at `bytes`, the current request's first byte first. Call again with more of the same
    /// bytes after [`Frame::Incomplete`], and [`Self::reset`] after anything else.
    ///
    /// # Errors
    /// The bytes are not Redis protocol, or exceed `limits`.
    pub fn decode(&mut self, bytes: &[u8], limits: &Limits) -> Result<Frame, DecodeError> {
        if self.missing == 0 {
            match bytes.first() {
                None => return Ok(Frame::Incomplete),
                Some(b'*') => {}
                Some(_) => return inline(bytes),
            }
            let Some((count, end)) = number(bytes, 1, DecodeError::CountTooBig)? else {
                return Ok(Frame::Incomplete);
            };
            let count = count.ok_or(DecodeError::MultibulkLength)?;
            if count <= 0 {
                return Ok(Frame::Nothing(end));
            }
            let count = u32::try_from(count).map_err(|_| DecodeError::MultibulkLength)?;
            if !limits.authenticated && count > UNAUTHENTICATED_ARGS {
                return Err(DecodeError::UnauthenticatedMultibulk);
            }
            if count > limits.args {
                return Err(DecodeError::MultibulkLength);
            }
            self.missing = count;
            self.pos = end;
        }
        while self.missing > 0 {
            match bytes.get(self.pos) {
                None => return Ok(Frame::Incomplete),
                Some(b'$') => {}
                Some(other) => return Err(DecodeError::ExpectedDollar(*other)),
            }
            let Some((len, start)) = number(bytes, self.pos + 1, DecodeError::BulkCountTooBig)?
            else {
                return Ok(Frame::Incomplete);
            };
            let len = len
                .and_then(|len| u64::try_from(len).ok())
                .filter(|len| *len <= limits.bulk)
                .ok_or(DecodeError::BulkLength)?;
            if !limits.authenticated && len > UNAUTHENTICATED_BULK {
                return Err(DecodeError::UnauthenticatedBulk);
            }
            let len = usize::try_from(len).map_err(|_| DecodeError::BulkLength)?;
            let end = start + len;
            if end + 2 > MAX_REQUEST {
                return Err(DecodeError::RequestTooBig);
            }
            match bytes.get(end..end + 2) {
                Some(b"\r\n") => {}
                Some(_) => return Err(DecodeError::ExpectedCrlf),
                None => {
                    // Its header is scanned again when more has come: at most 32 bytes.
                    return Ok(Frame::Incomplete);
                }
            }
            self.spans.push(Span { start: narrow(start), len: narrow(len) });
            self.pos = end + 2;
            self.missing -= 1;
        }
        Ok(Frame::Request(self.pos))
    }

    /// The arguments of the request just found.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Where the first argument begins that is not there whole, and how many are not.
    pub(super) fn progress(&self) -> (usize, u32) {
        (self.pos, self.missing)
    }

    /// Forgets the current request.
    pub fn reset(&mut self) {
        self.pos = 0;
        self.missing = 0;
        if self.spans.capacity() > KEPT_SPANS {
            self.spans = Vec::new();
        } else {
            self.spans.clear();
        }
    }
}

/// A number and the position after its CRLF; `None` inside when it is not a number, `None` outside
/// when its line is not complete. A number is what Redis's `string2ll` takes: `03`, `-0` and `+3`
/// are none, for the server would close the connection that others share.
pub(super) type Number = Option<(Option<i64>, usize)>;

#[inline(always)]
pub(super) fn number(
    bytes: &[u8],
    start: usize,
    too_big: DecodeError,
) -> Result<Number, DecodeError> {
    let rest = bytes.get(start..).unwrap_or_default();
    // Nearly all have one digit or two.
    match rest.first_chunk() {
        Some([one @ b'0'..=b'9', b'\r', b'\n', _]) => {
            Ok(Some((Some(i64::from(one - b'0')), start + 3)))
        }
        Some([ten @ b'1'..=b'9', one @ b'0'..=b'9', b'\r', b'\n']) => {
            let value = 10 * i64::from(ten - b'0') + i64::from(one - b'0');
            Ok(Some((Some(value), start + 4)))
        }
        _ => any_number(rest, start, too_big),
    }
}

#[inline(never)]
fn any_number(rest: &[u8], start: usize, too_big: DecodeError) -> Result<Number, DecodeError> {
    let mut value: i64 = 0;
    for (i, byte) in rest.iter().take(MAX_DIGITS).enumerate() {
        match byte {
            b'0'..=b'9' => value = value * 10 + i64::from(byte - b'0'),
            b'\r' if i > 0 => {
                let padded = i > 1 && rest.first() == Some(&b'0');
                return match rest.get(i + 1) {
                    None => Ok(None),
                    Some(b'\n') if !padded => Ok(Some((Some(value), start + i + 2))),
                    Some(_) => Ok(Some((None, start + i + 2))),
                };
            }
            _ => return odd_number(rest, start, too_big),
        }
    }
    odd_number(rest, start, too_big)
}

/// The rare forms: a sign, no digits, too many digits, or a line that is not complete.
fn odd_number(rest: &[u8], start: usize, too_big: DecodeError) -> Result<Number, DecodeError> {
    let Some(end) = memchr(b'\r', rest.get(..MAX_LINE.min(rest.len())).unwrap_or_default()) else {
        return if rest.len() >= MAX_LINE { Err(too_big) } else { Ok(None) };
    };
    if rest.len() < end + 2 {
        return Ok(None);
    }
    let text = std::str::from_utf8(rest.get(..end).unwrap_or_default()).unwrap_or_default();
    let complete = rest.get(end + 1) == Some(&b'\n');
    let number = text.parse().ok().filter(|n| itoa::Buffer::new().format(*n) == text);
    Ok(Some((number.filter(|_| complete), start + end + 2)))
}

fn inline(bytes: &[u8]) -> Result<Frame, DecodeError> {
    let Some(end) = memchr(b'\n', bytes.get(..MAX_LINE.min(bytes.len())).unwrap_or_default())
    else {
        return if bytes.len() >= MAX_LINE {
            Err(DecodeError::InlineTooBig)
        } else {
            Ok(Frame::Incomplete)
        };
    };
    let line = bytes.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Ok(Frame::Nothing(end + 1));
    }
    Ok(Frame::Inline { len: end + 1, line: line.len() })
}

#[expect(clippy::cast_possible_truncation, reason = "MAX_REQUEST keeps every position below 2^31")]
fn narrow(position: usize) -> u32 {
    position as u32
}

/// Redis's PROTO_INLINE_MAX_SIZE.
const MAX_LINE: usize = 64 * 1024;
/// Enough for every i64 that matters here without overflow.
const MAX_DIGITS: usize = 18;
/// Redis's client-query-buffer-limit.
const MAX_REQUEST: usize = 1024 * 1024 * 1024;
/// networking.c, processMultibulkBuffer: before AUTH.
const UNAUTHENTICATED_ARGS: u32 = 10;
const UNAUTHENTICATED_BULK: u64 = 16 * 1024;
/// 64 arguments are kept between requests (512 bytes), more are returned to the allocator.
const KEPT_SPANS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { bulk: 512 << 20, args: 1 << 20, authenticated: true };

    fn decode(bytes: &[u8]) -> Result<Frame, DecodeError> {
        Decoder::default().decode(bytes, &LIMITS)
    }

    #[test]
    fn a_request_is_found_whole_at_every_split() {
        let request = b"*3\r\n$3\r\nSET\r\n$5\r\nuser1\r\n$0\r\n\r\n";
        for cut in 0..request.len() {
            let mut decoder = Decoder::default();
            assert_eq!(decoder.decode(&request[..cut], &LIMITS), Ok(Frame::Incomplete), "{cut}");
            assert_eq!(decoder.decode(request, &LIMITS), Ok(Frame::Request(request.len())));
            let args = super::super::args::Args { frame: request, spans: decoder.spans() };
            assert_eq!(args.iter().collect::<Vec<_>>(), [&b"SET"[..], b"user1", b""]);
        }
        let mut decoder = Decoder::default();
        for end in 0..request.len() {
            assert_eq!(decoder.decode(&request[..end], &LIMITS), Ok(Frame::Incomplete));
        }
        assert_eq!(decoder.decode(request, &LIMITS), Ok(Frame::Request(request.len())));
    }

    #[test]
    fn bad_bytes_are_told_in_redis_words() {
        for (bytes, error) in [
            (&b"*-9x\r\n"[..], DecodeError::MultibulkLength),
            (b"*99999999999\r\n", DecodeError::MultibulkLength),
            (b"*1048577\r\n", DecodeError::MultibulkLength),
            (b"*1\r\n*1\r\n", DecodeError::ExpectedDollar(b'*')),
            (b"*1\r\n$-1\r\n", DecodeError::BulkLength),
            (b"*1\r\n$629145600\r\n", DecodeError::BulkLength),
            (b"*1\r\n$99999999999999999999\r\n", DecodeError::BulkLength),
            (b"*1\r\n$1\r\nabc", DecodeError::ExpectedCrlf),
            (b"*1\r\n$+1\r\na\r\n", DecodeError::BulkLength),
            (b"*1\r\n$-0\r\n\r\n", DecodeError::BulkLength),
        ] {
            assert_eq!(decode(bytes), Err(error), "{}", bytes.escape_ascii());
        }
        assert_eq!(decode(&vec![b'a'; 65536]), Err(DecodeError::InlineTooBig));
        assert_eq!(decode(&[b"*", &vec![b'1'; 65536][..]].concat()), Err(DecodeError::CountTooBig));
    }

    /// Redis refuses them and closes; forwarded, they closed the connection that others share.
    #[test]
    fn short_numbers_are_those_of_any_length() {
        let bytes = *b"019\r\n-x";
        for a in bytes {
            for (b, c, d) in bytes.iter().flat_map(|b| bytes.map(|c| (*b, c, c ^ b ^ 0x0d))) {
                for text in [&[a, b, c, d][..], &[a, b, c], &[a, b, b'\r', b'\n']] {
                    let error = DecodeError::BulkCountTooBig;
                    let shown = text.escape_ascii();
                    assert_eq!(number(text, 0, error), any_number(text, 0, error), "{shown}");
                }
            }
        }
    }

    #[test]
    fn padded_numbers_are_refused_as_redis_refuses_them() {
        for (bytes, error) in [
            (&b"*01\r\n$4\r\nPING\r\n"[..], DecodeError::MultibulkLength),
            (b"*00\r\n", DecodeError::MultibulkLength),
            (b"*-0\r\n", DecodeError::MultibulkLength),
            (b"*-01\r\n", DecodeError::MultibulkLength),
            (b"*1\r\n$04\r\nPING\r\n", DecodeError::BulkLength),
            (b"*1\r\n$00\r\n\r\n", DecodeError::BulkLength),
            (b"*1\r\n$0000000000000000000004\r\nPING\r\n", DecodeError::BulkLength),
        ] {
            assert_eq!(decode(bytes), Err(error), "{}", bytes.escape_ascii());
        }
        assert_eq!(decode(b"*1\r\n$0\r\n\r\n"), Ok(Frame::Request(10)));
    }

    #[test]
    fn nothing_is_asked_by_empty_lines_and_empty_arrays() {
        for bytes in [&b"\r\n"[..], b"\n", b"*0\r\n", b"*-1\r\n"] {
            assert_eq!(decode(bytes), Ok(Frame::Nothing(bytes.len())));
        }
        assert_eq!(decode(b"PING\r\n"), Ok(Frame::Inline { len: 6, line: 4 }));
    }

    #[test]
    fn before_auth_little_is_taken() {
        let limits = Limits { authenticated: false, ..LIMITS };
        let decode = |bytes: &[u8]| Decoder::default().decode(bytes, &limits);
        assert_eq!(decode(b"*11\r\n"), Err(DecodeError::UnauthenticatedMultibulk));
        assert_eq!(decode(b"*1\r\n$16385\r\n"), Err(DecodeError::UnauthenticatedBulk));
        assert_eq!(decode(b"*10\r\n$16384\r\n"), Ok(Frame::Incomplete));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_split_anywhere_decode_alike(
            bytes in proptest::collection::vec(proptest::sample::select(&b"*$-+0129\r\nabPI"[..]), 0..200),
            cut in 0usize..200,
        ) {
            let whole = decode(&bytes);
            let mut decoder = Decoder::default();
            let first = decoder.decode(&bytes[..cut.min(bytes.len())], &LIMITS);
            let second = if first == Ok(Frame::Incomplete) { decoder.decode(&bytes, &LIMITS) } else { first };
            proptest::prop_assert_eq!(whole, second);
        }
    }
}
