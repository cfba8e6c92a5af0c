//! RESP2 written into a buffer, one element at a time. It chooses no words and reads nothing.

/// `*n`, the head of an array of `len` elements.
pub(super) fn array(out: &mut Vec<u8>, len: usize) {
    number(out, b'*', len);
}

/// The head of a map of `len` names and values.
pub(super) fn map(out: &mut Vec<u8>, len: usize) {
    array(out, 2 * len);
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

/// The array that is not there.
pub(super) fn null_array(out: &mut Vec<u8>) {
    out.extend_from_slice(b"*-1\r\n");
}

fn number(out: &mut Vec<u8>, kind: u8, value: impl itoa::Integer) {
    out.push(kind);
    line(out, itoa::Buffer::new().format(value).as_bytes());
}

fn line(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}
