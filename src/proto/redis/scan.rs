//! Measures replies of RESP2 and RESP3 where they lie: how many bytes the next one has. Nothing is
//! decoded. It is resumable, and a hostile server can neither make it recurse nor remember more than
//! 64 KiB.

use super::class::Resp;
use memchr::memchr;

/// How far into a reply we are; one per upstream connection.
#[derive(Clone, Debug)]
pub struct Scanner {
    /// Bytes of the current reply already scanned; may lie beyond what has arrived.
    pos: usize,
    /// Whether `pos` is the end of a string whose CRLF has not been looked at yet.
    open_string: bool,
    /// What may come: in RESP2 the types of RESP3 are garbage.
    resp: Resp,
    /// Elements still to come in each array that is open, the outermost first.
    missing: Vec<u64>,
}

/// Bytes of a server that are not a reply: its connection can no longer be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    #[error("reply of unknown type '{}'", .0.escape_ascii())]
    Type(u8),
    #[error("reply with an invalid length")]
    Length,
    #[error("reply with a line of over {MAX_LINE} bytes")]
    Line,
    #[error("reply nested deeper than {MAX_DEPTH}")]
    Depth,
    #[error("reply without CRLF after a string")]
    Crlf,
}

impl Default for Scanner {
    /// One that takes the types of RESP3 too.
    fn default() -> Self {
        Self::new(Resp::Three)
    }
}

impl Scanner {
    /// One that takes replies of that version, and the older one's.
    pub fn new(resp: Resp) -> Self {
        Self { pos: 0, open_string: false, resp, missing: Vec::new() }
    }

    /// The length of the reply at the front of `bytes`, or `None` when more is needed: then call
    /// again with more of the same bytes. A length given out starts the next reply.
    ///
    /// # Errors
    /// The bytes are not RESP of that version.
    pub fn measure(&mut self, bytes: &[u8]) -> Result<Option<usize>, ScanError> {
        loop {
            if self.pos > bytes.len() {
                return Ok(None);
            }
            if self.open_string {
                if bytes.get(self.pos.saturating_sub(2)..self.pos) != Some(b"\r\n") {
                    return Err(ScanError::Crlf);
                }
                self.open_string = false;
                if self.element_done() {
                    return Ok(Some(self.take()));
                }
                continue;
            }
            let rest = bytes.get(self.pos..).unwrap_or_default();
            let Some(kind) = rest.first() else { return Ok(None) };
            let Some(end) = line_end(rest)? else { return Ok(None) };
            let line = rest.get(1..end).unwrap_or_default();
            let three = self.resp == Resp::Three;
            match kind {
                b'+' | b'-' | b':' => self.pos += end + 2,
                b'_' | b'#' | b',' | b'(' if three => self.pos += end + 2,
                b'$' | b'!' | b'=' if three || *kind == b'$' => {
                    let len = length(line, MAX_BULK)?;
                    let Some(len) = len else {
                        self.pos += end + 2;
                        if self.element_done() {
                            return Ok(Some(self.take()));
                        }
                        continue;
                    };
                    self.pos += end + 2 + len + 2;
                    self.open_string = true;
                    continue;
                }
                b'*' | b'~' | b'>' | b'%' | b'|' if three || *kind == b'*' => {
                    let count = length(line, MAX_ELEMENTS)?.unwrap_or(0) as u64;
                    let count = match kind {
                        b'%' => 2 * count,
                        // An attribute is told before the value that it belongs to: together they
                        // are one.
                        b'|' => 2 * count + 1,
                        _ => count,
                    };
                    self.pos += end + 2;
                    if count > 0 {
                        if self.missing.len() == MAX_DEPTH {
                            return Err(ScanError::Depth);
                        }
                        self.missing.push(count);
                        continue;
                    }
                }
                other => return Err(ScanError::Type(*other)),
            }
            if self.element_done() {
                return Ok(Some(self.take()));
            }
        }
    }

    /// Forgets `n` bytes at the front, which the caller has passed on already.
    pub fn consumed(&mut self, n: usize) {
        self.pos = self.pos.saturating_sub(n);
    }

    /// How many of the `available` bytes at the front are known to belong to the current reply and
    /// are not needed again to measure the rest of it.
    pub fn passable(&self, available: usize) -> usize {
        let known = if self.open_string { self.pos.saturating_sub(2) } else { self.pos };
        known.min(available)
    }

    /// Counts one element as seen, and every array that it completes. True when the reply is whole.
    fn element_done(&mut self) -> bool {
        while let Some(level) = self.missing.last_mut() {
            *level = level.saturating_sub(1);
            if *level > 0 {
                return false;
            }
            self.missing.pop();
        }
        true
    }

    fn take(&mut self) -> usize {
        if self.missing.capacity() > USUAL_DEPTH {
            self.missing = Vec::new();
        }
        std::mem::take(&mut self.pos)
    }
}

/// The position of the CR of the first line's CRLF.
fn line_end(rest: &[u8]) -> Result<Option<usize>, ScanError> {
    let window = rest.get(..MAX_LINE.min(rest.len())).unwrap_or_default();
    match near_cr(window).or_else(|| memchr(b'\r', window)) {
        Some(end) => match rest.get(end + 1) {
            None => Ok(None),
            Some(b'\n') => Ok(Some(end)),
            Some(_) => Err(ScanError::Crlf),
        },
        None if window.len() == MAX_LINE => Err(ScanError::Line),
        None => Ok(None),
    }
}

/// The first CR, where it is one of eight bytes: most lines are over before memchr has begun. Of a word
/// without those bytes each that is zero, and the first one for sure, keeps its top bit (Mycroft).
#[inline]
fn near_cr(window: &[u8]) -> Option<usize> {
    let word = u64::from_le_bytes(*window.first_chunk()?) ^ (LOW_BITS * u64::from(b'\r'));
    let found = word.wrapping_sub(LOW_BITS) & !word & (LOW_BITS << 7);
    (found != 0).then_some(found.trailing_zeros() as usize / 8)
}

/// The number of a `$` or `*` line; `None` for -1.
fn length(line: &[u8], max: usize) -> Result<Option<usize>, ScanError> {
    if line == b"-1" {
        return Ok(None);
    }
    if line.is_empty() || line.len() > MAX_DIGITS {
        return Err(ScanError::Length);
    }
    let mut value = 0usize;
    for byte in line {
        if !byte.is_ascii_digit() {
            return Err(ScanError::Length);
        }
        value = value * 10 + usize::from(byte - b'0');
    }
    if value > max { Err(ScanError::Length) } else { Ok(Some(value)) }
}

/// A script that returns a table with itself inside is answered that deep: Lua's stack has 8,000
/// places (luaconf.h, LUAI_MAXCSTACK), and each level takes one.
const MAX_DEPTH: usize = 8_192;
/// Deeper than any other reply (COMMAND nests 5): more room is given back.
const USUAL_DEPTH: usize = 32;
/// Error and status lines are short; Redis itself has no longer ones than 64 KiB.
const MAX_LINE: usize = 64 * 1024;
/// The lowest bit of each of eight bytes.
const LOW_BITS: u64 = 0x0101_0101_0101_0101;
/// 2^40: a length no server has; it keeps every sum far from overflow.
const MAX_BULK: usize = 1 << 40;
/// Redis counts elements in 32 bits.
const MAX_ELEMENTS: usize = u32::MAX as usize;
const MAX_DIGITS: usize = 13;

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(bytes: &[u8]) -> Result<Option<usize>, ScanError> {
        Scanner::default().measure(bytes)
    }

    #[test]
    fn a_near_end_of_line_is_seen_where_it_is() {
        for first in 0..=8 {
            for second in 0..=8 {
                for other in [0x0c, 0x0e, 0x8d, 0x00, 0xff] {
                    let mut window = [other; 9];
                    (window[first], window[second]) = (b'\r', b'\r');
                    let seen = Some(first.min(second)).filter(|at| *at < 8);
                    assert_eq!(near_cr(&window), seen, "{}", window.escape_ascii());
                }
            }
        }
        assert_eq!(near_cr(b":1\r\n"), None);
    }

    #[test]
    fn every_kind_of_reply_is_measured_at_every_split() {
        for reply in [
            &b"+OK\r\n"[..],
            b"-ERR no\r\n",
            b":-12\r\n",
            b"$5\r\nhello\r\n",
            b"$0\r\n\r\n",
            b"$-1\r\n",
            b"*-1\r\n",
            b"*0\r\n",
            b"*2\r\n$1\r\na\r\n*2\r\n:1\r\n*0\r\n",
            b"*1\r\n*1\r\n*1\r\n+x\r\n",
            b"_\r\n",
            b"#t\r\n",
            b",-inf\r\n",
            b",3.5e-7\r\n",
            b"(-3492890328409238509324850943850943825024385\r\n",
            b"!5\r\nERR x\r\n",
            b"=7\r\ntxt:a\r\n\r\n",
            b"%0\r\n",
            b"%2\r\n+a\r\n:1\r\n+b\r\n%1\r\n_\r\n~1\r\n#f\r\n",
            b"~2\r\n,1\r\n*0\r\n",
            b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n",
            b"|1\r\n+ttl\r\n:3\r\n+value\r\n",
            b"*2\r\n|0\r\n:1\r\n|1\r\n+a\r\n*1\r\n_\r\n%1\r\n:2\r\n:3\r\n",
        ] {
            let followed = [reply, b":1\r\n"].concat();
            assert_eq!(measure(&followed), Ok(Some(reply.len())), "{}", reply.escape_ascii());
            for cut in 0..reply.len() {
                let mut scanner = Scanner::default();
                assert_eq!(scanner.measure(&reply[..cut]), Ok(None), "{cut}");
                assert_eq!(scanner.measure(&followed), Ok(Some(reply.len())), "{cut}");
                assert_eq!(scanner.measure(b":1\r\n"), Ok(Some(4)));
            }
        }
    }

    #[test]
    fn garbage_is_refused() {
        for (bytes, error) in [
            (&b"hello\r\n"[..], ScanError::Type(b'h')),
            (b"$-2\r\n", ScanError::Length),
            (b"$99999999999999\r\n", ScanError::Length),
            (b"$1\r\nabc", ScanError::Crlf),
            (b"*4294967296\r\n", ScanError::Length),
            (b"+a\rb\r\n", ScanError::Crlf),
        ] {
            assert_eq!(measure(bytes), Err(error), "{}", bytes.escape_ascii());
        }
        assert_eq!(measure(&b"*1\r\n".repeat(100_000)), Err(ScanError::Depth));
        assert_eq!(measure(&b"|0\r\n".repeat(100_000)), Err(ScanError::Depth));
        assert_eq!(measure(&[b"+", &vec![b'a'; MAX_LINE][..]].concat()), Err(ScanError::Line));
    }

    /// The reply of a script that returns a table with itself inside closed the connection of all.
    #[test]
    fn a_reply_as_deep_as_lua_can_nest_is_measured_and_then_forgotten() {
        let reply = [&b"*1\r\n".repeat(8_000)[..], b"-ERR reached lua stack limit\r\n"].concat();
        let mut scanner = Scanner::default();
        assert_eq!(scanner.measure(&reply[..20_000]), Ok(None));
        assert_eq!(scanner.measure(&reply), Ok(Some(reply.len())));
        assert!(scanner.missing.capacity() <= USUAL_DEPTH);
        assert_eq!(scanner.measure(b":1\r\n"), Ok(Some(4)));
    }

    #[test]
    fn the_types_of_resp3_are_garbage_in_resp2() {
        for kind in b"_#,(!=%~>|" {
            let reply = [&[*kind][..], b"1\r\n"].concat();
            let error = Err(ScanError::Type(*kind));
            assert_eq!(Scanner::new(Resp::Two).measure(&reply), error);
        }
        assert_eq!(Scanner::new(Resp::Two).measure(b"*1\r\n$-1\r\n"), Ok(Some(9)));
    }

    #[test]
    fn a_long_string_can_be_passed_on_while_it_arrives() {
        let reply = b"$10\r\n0123456789\r\n";
        let mut scanner = Scanner::default();
        let (mut held, mut passed) = (Vec::new(), Vec::new());
        for byte in reply {
            held.push(*byte);
            if let Some(len) = scanner.measure(&held).unwrap() {
                passed.extend(held.drain(..len));
                break;
            }
            let n = scanner.passable(held.len());
            passed.extend(held.drain(..n));
            scanner.consumed(n);
        }
        assert_eq!(passed, reply);
        assert_eq!(scanner.measure(b":1\r\n"), Ok(Some(4)));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_split_anywhere_measure_alike(
            bytes in proptest::collection::vec(proptest::sample::select(&b"*$-+:_#,(!=%~>|012\r\nab"[..]), 0..200),
            cut in 0usize..200,
        ) {
            let whole = measure(&bytes);
            let mut scanner = Scanner::default();
            let first = scanner.measure(&bytes[..cut.min(bytes.len())]);
            let second = if first == Ok(None) { scanner.measure(&bytes) } else { first };
            proptest::prop_assert_eq!(whole, second);
        }
    }
}
