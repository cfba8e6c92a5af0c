//! RESP written into a buffer, one element at a time, in the version that its reader understands. It
//! chooses no words and reads nothing.

use super::class::Resp;

/// `*n`, the head of an array of `len` elements.
pub(super) fn array(out: &mut Vec<u8>, len: usize) {
    number(out, b'*', len);
}

/// A bulk string.
pub(super) fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, b'$', bytes.len());
    line(out, bytes);
}

/// A simple string; `text` has no line break.
pub(super) fn simple(out: &mut Vec<u8>, text: &str) {
    out.push(b'+');
    line(out, text.as_bytes());
}

/// An integer.
pub(super) fn integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    number(out, b':', value);
}

/// What is not there.
pub(super) fn null(out: &mut Vec<u8>, resp: Resp) {
    out.extend_from_slice(match resp {
        Resp::Two => b"$-1\r\n",
        Resp::Three => b"_\r\n",
    });
}

/// The head of `len` pairs of a key and a value.
pub(super) fn map(out: &mut Vec<u8>, resp: Resp, len: usize) {
    match resp {
        Resp::Two => array(out, 2 * len),
        Resp::Three => number(out, b'%', len),
    }
}

/// The head of a set of `len` elements.
pub(super) fn set(out: &mut Vec<u8>, resp: Resp, len: usize) {
    match resp {
        Resp::Two => array(out, len),
        Resp::Three => number(out, b'~', len),
    }
}

/// Plain text for people.
pub(super) fn verbatim(out: &mut Vec<u8>, resp: Resp, text: &[u8]) {
    match resp {
        Resp::Two => bulk(out, text),
        Resp::Three => {
            number(out, b'=', text.len() + 4);
            out.extend_from_slice(b"txt:");
            line(out, text);
        }
    }
}

fn number(out: &mut Vec<u8>, kind: u8, value: impl itoa::Integer) {
    out.push(kind);
    line(out, itoa::Buffer::new().format(value).as_bytes());
}

fn line(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}
