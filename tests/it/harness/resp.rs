//! RESP2 as the tests speak it: values read from a stream, requests made of words. Written apart
//! from the proxy's own parser, so that one mistake is not made twice.

use std::{
    fmt,
    io::{self, BufRead, Read},
};

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Simple(String),
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Self>),
}

impl Value {
    /// Reads one value. A close before its first byte is `UnexpectedEof`, as is one within it.
    pub(crate) fn read(from: &mut impl BufRead) -> io::Result<Self> {
        Self::read_within(from, 32)
    }

    fn read_within(from: &mut impl BufRead, depth: usize) -> io::Result<Self> {
        let deeper = depth.checked_sub(1).ok_or_else(|| bad("arrays nested too deep"))?;
        let line = read_line(from)?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| bad("an empty line"))?;
        let length = || rest.parse::<i64>().map_err(|_| bad(&line));
        Ok(match kind {
            "+" => Self::Simple(rest.to_owned()),
            "-" => Self::Error(rest.to_owned()),
            ":" => Self::Int(length()?),
            "$" => match usize::try_from(length()?) {
                Err(_) => Self::Nil,
                Ok(length) => {
                    // Not allocated by announced length: some tests announce what never comes.
                    let mut bytes = Vec::new();
                    from.take(length as u64).read_to_end(&mut bytes)?;
                    let mut end = [0; 2];
                    from.read_exact(&mut end)?;
                    if end != *b"\r\n" {
                        return Err(bad("a bulk without its CRLF"));
                    }
                    Self::Bulk(bytes)
                }
            },
            "*" => match usize::try_from(length()?) {
                Err(_) => Self::Nil,
                Ok(count) => Self::Array(
                    (0..count)
                        .map(|_| Self::read_within(from, deeper))
                        .collect::<io::Result<_>>()?,
                ),
            },
            _ => return Err(bad(&line)),
        })
    }

    /// The bytes a server sends for it.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Simple(text) => format!("+{text}\r\n").into_bytes(),
            Self::Error(text) => format!("-{text}\r\n").into_bytes(),
            Self::Int(number) => format!(":{number}\r\n").into_bytes(),
            Self::Nil => b"$-1\r\n".to_vec(),
            Self::Bulk(bytes) => {
                [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
            }
            Self::Array(items) => {
                let mut out = format!("*{}\r\n", items.len()).into_bytes();
                items.iter().for_each(|item| out.extend(item.encode()));
                out
            }
        }
    }

    pub(crate) fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// The text of an error; fails on anything else.
    #[track_caller]
    pub(crate) fn error(&self) -> &str {
        match self {
            Self::Error(text) => text,
            other => panic!("expected an error, got {other:?}"),
        }
    }

    /// The items of an array; fails on anything else.
    #[track_caller]
    pub(crate) fn items(&self) -> &[Self] {
        match self {
            Self::Array(items) => items,
            other => panic!("expected an array, got {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn int(&self) -> i64 {
        match self {
            Self::Int(number) => *number,
            other => panic!("expected an integer, got {other:?}"),
        }
    }

    /// A bulk or simple string as text; fails on anything else.
    #[track_caller]
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Simple(text) => text.clone(),
            other => panic!("expected a string, got {other:?}"),
        }
    }
}

/// Long values are cut: a failed assertion should fit on a screen.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simple(text) => write!(f, "+{text}"),
            Self::Error(text) => write!(f, "-{text}"),
            Self::Int(number) => write!(f, ":{number}"),
            Self::Nil => write!(f, "nil"),
            Self::Bulk(bytes) if bytes.len() > 120 => {
                write!(f, "\"{}\"...({} bytes)", bytes[..40].escape_ascii(), bytes.len())
            }
            Self::Bulk(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Self::Array(items) if items.len() > 40 => {
                write!(f, "{:?}...({} items)", &items[..5], items.len())
            }
            Self::Array(items) => write!(f, "{items:?}"),
        }
    }
}

impl PartialEq<&str> for Value {
    /// A string, simple or bulk, with this text.
    fn eq(&self, other: &&str) -> bool {
        match self {
            Self::Simple(text) => text == other,
            Self::Bulk(bytes) => bytes == other.as_bytes(),
            _ => false,
        }
    }
}

impl PartialEq<i64> for Value {
    fn eq(&self, other: &i64) -> bool {
        matches!(self, Self::Int(number) if number == other)
    }
}

pub(crate) fn bulk(text: impl AsRef<[u8]>) -> Value {
    Value::Bulk(text.as_ref().to_vec())
}

/// A request as an array of bulk strings.
pub(crate) fn request<T: AsRef<[u8]>>(words: &[T]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend(format!("${}\r\n", word.as_ref().len()).into_bytes());
        out.extend_from_slice(word.as_ref());
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// One value of RESP2 or RESP3 as it came, byte for byte.
pub(crate) fn read_raw(from: &mut impl BufRead) -> io::Result<String> {
    let line = read_line(from)?;
    let (kind, rest) = line.split_at_checked(1).ok_or_else(|| bad("an empty line"))?;
    let mut raw = format!("{line}\r\n");
    let count = rest.parse::<i64>().unwrap_or(0).max(0);
    let elements = match kind {
        "*" | "~" | ">" => count,
        "%" => 2 * count,
        "|" => 2 * count + 1,
        "$" | "=" | "!" if rest != "-1" => {
            let mut bytes = vec![0; usize::try_from(count).unwrap() + 2];
            from.read_exact(&mut bytes)?;
            raw.push_str(&String::from_utf8_lossy(&bytes));
            0
        }
        _ => 0,
    };
    for _ in 0..elements {
        raw.push_str(&read_raw(from)?);
    }
    Ok(raw)
}

fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    from.take(1 << 20).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if !line.ends_with(b"\r\n") {
        return Err(bad(&String::from_utf8_lossy(&line)));
    }
    line.truncate(line.len() - 2);
    String::from_utf8(line).map_err(|_| bad("a line that is not UTF-8"))
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not RESP: {what:?}"))
}
