//! Inline commands: a line of words instead of an array, as people and health checkers type it.
//! It splits one line; where the line ends and how long it may be (64 KiB) is the reader's matter.
//!
//! The rules are those of Redis's `sdssplitargs` (sds.c): words between white space; in double
//! quotes the escapes `\xHH \n \r \t \b \a` and a backslash before anything else; in single quotes
//! `\'` alone; after a closing quote white space or the end.

use super::wire;

/// The line is not a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InlineError {
    /// Worded as the server words it, behind `-ERR Protocol error: `.
    #[error("unbalanced quotes in request")]
    UnbalancedQuotes,
}

/// The words of `line`, which may still end in a line break. None at all for an empty line.
///
/// # Errors
/// [`InlineError::UnbalancedQuotes`], which also means text right after a closing quote.
pub fn parse(line: &[u8]) -> Result<Vec<Vec<u8>>, InlineError> {
    let mut words = Vec::new();
    // sdssplitargs works on C strings: a NUL ends the line.
    let end = memchr::memchr(0, line).unwrap_or(line.len());
    let mut rest = line.get(..end).unwrap_or(line);
    loop {
        rest = match rest {
            [] => return Ok(words),
            [byte, after @ ..] if is_space(*byte) => after,
            _ => {
                let (word, after) = word(rest)?;
                words.push(word);
                after
            }
        }
    }
}

/// The same request as clients send it: an array of bulk strings.
pub fn to_resp<A: AsRef<[u8]>>(args: &[A], out: &mut Vec<u8>) {
    wire::array(out, args.len());
    for arg in args {
        wire::bulk(out, arg.as_ref());
    }
}

/// One word from the start of `rest`, and what follows it. Quotes may begin within a word.
fn word(mut rest: &[u8]) -> Result<(Vec<u8>, &[u8]), InlineError> {
    let mut word = Vec::new();
    loop {
        rest = match rest {
            [] => return Ok((word, rest)),
            // Here, unlike between words, the vertical tab and the form feed are text.
            [b' ' | b'\t' | b'\n' | b'\r', ..] => return Ok((word, rest)),
            [b'"', inside @ ..] => return closed(double_quoted(inside, &mut word)?, word),
            [b'\'', inside @ ..] => return closed(single_quoted(inside, &mut word)?, word),
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
        }
    }
}

/// A quote was closed: the word must be over.
fn closed(rest: &[u8], word: Vec<u8>) -> Result<(Vec<u8>, &[u8]), InlineError> {
    match rest.first() {
        Some(byte) if !is_space(*byte) => Err(InlineError::UnbalancedQuotes),
        _ => Ok((word, rest)),
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], InlineError> {
    loop {
        rest = match rest {
            [] => return Err(InlineError::UnbalancedQuotes),
            [b'"', after @ ..] => return Ok(after),
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push(hex(*high) << 4 | hex(*low));
                after
            }
            [b'\\', escaped, after @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                after
            }
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], InlineError> {
    loop {
        rest = match rest {
            [] => return Err(InlineError::UnbalancedQuotes),
            [b'\'', after @ ..] => return Ok(after),
            [b'\\', b'\'', after @ ..] => {
                word.push(b'\'');
                after
            }
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
        }
    }
}

/// The value of a hexadecimal digit.
fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}

/// C's `isspace`: unlike Rust's ASCII white space it has the vertical tab.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_are_split_as_redis_splits_them() {
        for (line, wanted) in [
            ("", Some(vec![])),
            (" \t\r\n", Some(vec![])),
            ("PING\r\n", Some(vec!["PING"])),
            ("  set  k   v ", Some(vec!["set", "k", "v"])),
            (r#"set k "a b""#, Some(vec!["set", "k", "a b"])),
            (r#"set k "\x41\n\r\t\b\a\"\\\q""#, Some(vec!["set", "k", "A\n\r\t\u{8}\u{7}\"\\q"])),
            (r#""\x4" "\xg1""#, Some(vec!["x4", "xg1"])),
            (r"'it\'s' '\n'", Some(vec!["it's", r"\n"])),
            (r#"'' "" x"#, Some(vec!["", "", "x"])),
            (r#"pre"quoted""#, Some(vec!["prequoted"])),
            ("a\u{b}b \u{b} c", Some(vec!["a\u{b}b", "c"])),
            ("a\0b", Some(vec!["a"])),
            (r#""open"#, None),
            (r"'open\'", None),
            (r#""closed"text"#, None),
            (r"'closed'text", None),
            (r#""end\"#, None),
        ] {
            let words = parse(line.as_bytes()).ok();
            let wanted = wanted.map(|words: Vec<&str>| {
                words.into_iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>()
            });
            assert_eq!(words, wanted, "{line:?}");
        }
    }

    #[test]
    fn words_become_an_array() {
        let mut out = Vec::new();
        to_resp(&parse(b"set k \"\"").unwrap(), &mut out);
        assert_eq!(out, b"*3\r\n$3\r\nset\r\n$1\r\nk\r\n$0\r\n\r\n");
    }

    /// As redis-cli quotes a value (sds.c, `sdscatrepr`).
    fn quoted(word: &[u8]) -> String {
        let mut text = String::from("\"");
        for byte in word {
            text.push_str(&format!("\\x{byte:02X}"));
        }
        text + "\""
    }

    proptest! {
        #[test]
        fn any_line_is_words_or_an_error(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(words) = parse(&line) {
                prop_assert!(words.iter().map(Vec::len).sum::<usize>() <= line.len());
            }
        }

        #[test]
        fn quoted_words_come_back(
            words in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..8),
        ) {
            let line = words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(parse(line.as_bytes()), Ok(words));
        }

        #[test]
        fn single_quotes_keep_all_but_their_own_escape(word in "[a-z\"\\\\ '\t]{0,20}") {
            // A backslash at the end would escape the closing quote.
            let word = word.trim_end_matches('\\').replace("\\'", "'");
            let line = format!("'{}'", word.replace('\'', r"\'"));
            prop_assert_eq!(parse(line.as_bytes()), Ok(vec![word.into_bytes()]));
        }
    }
}
