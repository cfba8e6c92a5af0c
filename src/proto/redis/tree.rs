//! One whole RESP2 reply as a tree of values, for replies that we read ourselves now and then.
//! Not the reader of the request path, which copies replies as bytes.

/// A value, borrowing its text from the reply. Errors are text too; nulls are empty arrays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Text(&'a [u8]),
    Integer(i64),
    Array(Vec<Self>),
}

/// How deep arrays may nest; `COMMAND` nests seven.
const MAX_DEPTH: u32 = 16;

impl<'a> Value<'a> {
    /// The reply that `bytes` begin with; `None` when they are not one whole reply.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        read(bytes, MAX_DEPTH).map(|(value, _)| value)
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        match self {
            Self::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    pub(super) fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(value) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(values) => Some(values),
            _ => None,
        }
    }

    /// The value after that name in an array of names and values.
    pub(super) fn field(&self, name: &str) -> Option<&Self> {
        let (pairs, _) = self.array()?.as_chunks::<2>();
        pairs.iter().find(|[key, _]| key.text() == Some(name)).map(|[_, value]| value)
    }

    /// The number after that name, when it fits.
    pub(super) fn number<T: TryFrom<i64>>(&self, name: &str) -> Option<T> {
        T::try_from(self.field(name)?.integer()?).ok()
    }
}

/// One value and the bytes after it. An array takes memory only for elements that are there.
fn read(bytes: &[u8], depth: u32) -> Option<(Value<'_>, &[u8])> {
    let (&kind, rest) = bytes.split_first()?;
    let (line, rest) = split_line(rest)?;
    match kind {
        b'+' | b'-' => Some((Value::Text(line), rest)),
        b':' => Some((Value::Integer(number(line)?), rest)),
        b'$' => match usize::try_from(number(line)?) {
            Ok(len) => {
                let (text, rest) = rest.split_at_checked(len)?;
                Some((Value::Text(text), rest.strip_prefix(b"\r\n")?))
            }
            Err(_) => Some((Value::Array(Vec::new()), rest)),
        },
        b'*' => {
            let depth = depth.checked_sub(1)?;
            let (mut values, mut rest) = (Vec::new(), rest);
            for _ in 0..number(line)? {
                let (value, after) = read(rest, depth)?;
                values.push(value);
                rest = after;
            }
            Some((Value::Array(values), rest))
        }
        _ => None,
    }
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\n', bytes)?;
    let (line, rest) = bytes.split_at_checked(end)?;
    Some((line.strip_suffix(b"\r")?, rest.get(1..)?))
}

fn number(line: &[u8]) -> Option<i64> {
    std::str::from_utf8(line).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_becomes_a_tree() {
        let bytes = b"*5\r\n+ok\r\n:-7\r\n$2\r\na\n\r\n*-1\r\n*2\r\n$1\r\nk\r\n:300\r\n:9\r\n";
        let value = Value::parse(bytes).unwrap();
        let values = value.array().unwrap();
        assert_eq!(values.iter().filter_map(Value::text).collect::<Vec<_>>(), ["ok", "a\n"]);
        assert_eq!(values.iter().find_map(Value::integer), Some(-7));
        assert_eq!(values.last().unwrap().number::<u32>("k"), Some(300));
        assert_eq!(values.last().unwrap().number::<u8>("k"), None);
    }

    #[test]
    fn bad_replies_are_none() {
        for bytes in ["", "*1\r\n", "$5\r\nabc\r\n", ":x\r\n", "?1\r\n", "$1\r\nab\r\n", "+ok\n"] {
            assert_eq!(Value::parse(bytes.as_bytes()), None, "{bytes:?}");
        }
        assert_eq!(Value::parse("*1\r\n".repeat(100_000).as_bytes()), None);
        assert_eq!(Value::parse(b"*9223372036854775807\r\n:1\r\n"), None);
    }
}
