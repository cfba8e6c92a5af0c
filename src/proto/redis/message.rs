//! What a server says on a connection that subscribes: messages and confirmations, found where they
//! lie. Not the replies to ordinary requests, which are only measured: [`super::scan`].

use super::audience::Subject;

/// One thing said, and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed<'a> {
    Whole(usize, Said<'a>),
    /// So many bytes are needed at least before it is worth another look.
    Partial(usize),
}

/// What was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    /// For the subscribers of `topic`: a channel, or the pattern that its channel fits.
    Message {
        subject: Subject,
        topic: &'a [u8],
    },
    /// The connection is subscribed to `name` from here on, or no longer.
    Confirmed {
        subject: Subject,
        on: bool,
        name: &'a [u8],
    },
    Pong,
    /// An error's text without `-` and CRLF.
    Error(&'a [u8]),
}

/// Bytes that no server says there: the connection can no longer be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ParseError {
    #[error("a message with an invalid length")]
    Length,
    #[error("a line of over {LONGEST_LINE} bytes")]
    Line,
    #[error("no CRLF after a string")]
    Crlf,
    #[error("neither a message nor a confirmation")]
    Unexpected,
}

/// The first thing said in `bytes`.
///
/// # Errors
/// No server says that.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed<'_>, ParseError> {
    let mut reader = Reader { bytes, at: 0 };
    match reader.said() {
        Ok(said) => Ok(Parsed::Whole(reader.at, said)),
        Err(Stop::More(needed)) => Ok(Parsed::Partial(needed)),
        Err(Stop::Bad(error)) => Err(error),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

enum Stop {
    More(usize),
    Bad(ParseError),
}

#[derive(Clone, Copy)]
enum Element<'a> {
    Bulk(&'a [u8]),
    /// A number, or the string that is not there.
    Other,
}

impl<'a> Reader<'a> {
    fn said(&mut self) -> Result<Said<'a>, Stop> {
        match self.kind()? {
            b'+' => match self.line(LONGEST_LINE)? {
                b"PONG" => Ok(Said::Pong),
                _ => Err(Stop::Bad(ParseError::Unexpected)),
            },
            b'-' => Ok(Said::Error(self.line(LONGEST_LINE)?)),
            b'*' | b'>' => self.array(),
            _ => Err(Stop::Bad(ParseError::Unexpected)),
        }
    }

    fn array(&mut self) -> Result<Said<'a>, Stop> {
        let count = self.number()?;
        if !(2..=4).contains(&count) {
            return Err(Stop::Bad(ParseError::Unexpected));
        }
        let Element::Bulk(word) = self.element(LONGEST_WORD)? else {
            return Err(Stop::Bad(ParseError::Unexpected));
        };
        let name = self.element(LONGEST_BULK)?;
        for _ in 2..count {
            self.element(LONGEST_BULK)?;
        }
        said(word, name, count).ok_or(Stop::Bad(ParseError::Unexpected))
    }

    fn element(&mut self, longest: usize) -> Result<Element<'a>, Stop> {
        match self.kind()? {
            b'$' => {
                let digits = self.line(MAX_DIGITS)?;
                if digits == b"-1" {
                    return Ok(Element::Other);
                }
                let len = number(digits).filter(|len| *len <= longest);
                let len = len.ok_or(Stop::Bad(ParseError::Length))?;
                let (start, end) = (self.at, self.at + len);
                match self.bytes.get(end..end + 2) {
                    None => return Err(Stop::More(end + 2)),
                    Some(b"\r\n") => {}
                    Some(_) => return Err(Stop::Bad(ParseError::Crlf)),
                }
                self.at = end + 2;
                Ok(Element::Bulk(self.bytes.get(start..end).unwrap_or_default()))
            }
            b':' => {
                self.number()?;
                Ok(Element::Other)
            }
            b'_' => match self.line(MAX_DIGITS)? {
                b"" => Ok(Element::Other),
                _ => Err(Stop::Bad(ParseError::Unexpected)),
            },
            _ => Err(Stop::Bad(ParseError::Unexpected)),
        }
    }

    fn number(&mut self) -> Result<usize, Stop> {
        number(self.line(MAX_DIGITS)?).ok_or(Stop::Bad(ParseError::Length))
    }

    fn kind(&mut self) -> Result<u8, Stop> {
        let kind = self.bytes.get(self.at).copied().ok_or(Stop::More(self.at + 1))?;
        self.at += 1;
        Ok(kind)
    }

    /// What is before the next CRLF.
    fn line(&mut self, longest: usize) -> Result<&'a [u8], Stop> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let window = rest.get(..longest + 1).unwrap_or(rest);
        let Some(end) = memchr::memchr(b'\r', window) else {
            let too_long = window.len() > longest;
            return Err(match too_long {
                true => Stop::Bad(ParseError::Line),
                false => Stop::More(self.bytes.len() + 1),
            });
        };
        match rest.get(end + 1) {
            None => Err(Stop::More(self.bytes.len() + 1)),
            Some(b'\n') => {
                self.at += end + 2;
                Ok(rest.get(..end).unwrap_or_default())
            }
            Some(_) => Err(Stop::Bad(ParseError::Crlf)),
        }
    }
}

fn said<'a>(word: &[u8], name: Element<'a>, count: usize) -> Option<Said<'a>> {
    if word == b"pong" && count == 2 {
        return Some(Said::Pong);
    }
    let Element::Bulk(topic) = name else { return None };
    Subject::ALL.into_iter().find_map(|subject| {
        let size = if subject == Subject::Pattern { 4 } else { 3 };
        if word == subject.message().as_bytes() && count == size {
            return Some(Said::Message { subject, topic });
        }
        let confirms = |on: bool| word == subject.verb(on).as_bytes() && count == 3;
        let on = [true, false].into_iter().find(|on| confirms(*on))?;
        Some(Said::Confirmed { subject, on, name: topic })
    })
}

fn number(digits: &[u8]) -> Option<usize> {
    let few = !digits.is_empty() && digits.len() <= MAX_DIGITS;
    let all = digits.iter().all(u8::is_ascii_digit);
    (few && all).then(|| digits.iter().fold(0, |n, digit| n * 10 + usize::from(digit - b'0')))
}

/// An error's text; Redis itself has no longer ones than 64 KiB.
const LONGEST_LINE: usize = 64 * 1024;
/// `punsubscribe`, with room.
const LONGEST_WORD: usize = 16;
/// 2^40: a length no server has; it keeps every sum far from overflow.
const LONGEST_BULK: usize = 1 << 40;
const MAX_DIGITS: usize = 13;

/// What a fuzzer feeds: the same is found however the bytes are cut, and nothing behind it counts.
pub fn fuzz(data: &[u8]) {
    let whole = parse(data);
    for end in super::fuzzing::steps(data.len()) {
        let part = parse(data.get(..end).unwrap_or_default());
        match part {
            Ok(Parsed::Partial(needed)) => {
                assert!(needed > end, "{needed} of {end}");
                if let Ok(Parsed::Whole(len, _)) = whole {
                    assert!(needed <= len && end < len);
                }
            }
            _ => assert_eq!(part, whole),
        }
    }
    if let Ok(Parsed::Whole(len, _)) = whole {
        assert_eq!(parse(data.get(..len).unwrap_or_default()), whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: Said<'_> = Said::Message { subject: Subject::Channel, topic: b"news" };

    #[test]
    fn everything_a_server_says_is_found_at_every_split() {
        let message = |subject, topic| Said::Message { subject, topic };
        let confirmed = |subject, on, name| Said::Confirmed { subject, on, name };
        for (bytes, expected) in [
            (&b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n"[..], MESSAGE),
            (b">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n", MESSAGE),
            (
                b"*4\r\n$8\r\npmessage\r\n$2\r\nn*\r\n$4\r\nnews\r\n$0\r\n\r\n",
                message(Subject::Pattern, &b"n*"[..]),
            ),
            (
                b"*3\r\n$8\r\nsmessage\r\n$1\r\ns\r\n$4\r\n\r\n\r\n\r\n",
                message(Subject::ShardChannel, b"s"),
            ),
            (
                b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
                confirmed(Subject::Channel, true, b"a"),
            ),
            (
                b"*3\r\n$12\r\npunsubscribe\r\n$0\r\n\r\n:0\r\n",
                confirmed(Subject::Pattern, false, b""),
            ),
            (b"*2\r\n$4\r\npong\r\n$0\r\n\r\n", Said::Pong),
            (b"+PONG\r\n", Said::Pong),
            (b"-NOPERM no\r\n", Said::Error(b"NOPERM no")),
        ] {
            let followed = [bytes, b"*3\r\n"].concat();
            assert_eq!(parse(&followed), Ok(Parsed::Whole(bytes.len(), expected)));
            fuzz(&followed);
            for cut in 0..bytes.len() {
                assert!(
                    matches!(parse(&bytes[..cut]), Ok(Parsed::Partial(needed)) if needed > cut),
                    "{} cut at {cut}",
                    bytes.escape_ascii()
                );
            }
        }
    }

    #[test]
    fn garbage_is_refused() {
        for (bytes, error) in [
            (&b"hello\r\n"[..], ParseError::Unexpected),
            (b"+OK\r\n", ParseError::Unexpected),
            (b"*9\r\n", ParseError::Unexpected),
            (b"*3\r\n*1\r\n", ParseError::Unexpected),
            (b"*3\r\n$-2\r\n", ParseError::Length),
            (b"*3\r\n$99999\r\n", ParseError::Length),
            (b"*3\r\n$7\r\nmessage\r\n$1\r\nabc", ParseError::Crlf),
            (b"*3\r\n$7\r\nmessage\r\n$-1\r\n$1\r\na\r\n", ParseError::Unexpected),
            (b"*4\r\n$7\r\nmessage\r\n:1\r\n:1\r\n:1\r\n", ParseError::Unexpected),
            (b"*33333333333333333", ParseError::Line),
        ] {
            assert_eq!(parse(bytes), Err(error), "{}", bytes.escape_ascii());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_cut_anywhere_are_found_alike(
            bytes in proptest::collection::vec(proptest::sample::select(&b"*$>-+:01234\r\nmesag"[..]), 0..100),
        ) {
            fuzz(&bytes);
        }
    }
}
