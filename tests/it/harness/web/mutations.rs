//! The table of heads and bodies that somebody reads in two ways: what request smuggling is made of.
//! Each has a name, its bytes, and what a careful proxy does. Not the sending: see `smuggle`.

mod framing;
mod heads;

/// A request that is not quite HTTP/1.1, with a good one behind it.
#[derive(Clone, Debug)]
pub(crate) struct Mutation {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    /// Which of the responses, counted from 0, are to a HEAD.
    pub(crate) heads: Vec<usize>,
    pub(crate) expected: Expected,
}

/// What is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Nothing reaches the origin; the client gets an error or a closed connection.
    Refused,
    /// So many requests reach the origin.
    Served(usize),
    /// Whatever everybody agrees on.
    Agreed,
}

/// The good request behind each; it closes the connection.
const END: &str = "GET /end HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
/// What an attacker would hide.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: test\r\n\r\n";
/// A chunked body of `hello`.
const CHUNKS: &str = "5\r\nhello\r\n0\r\n\r\n";

/// All of them; names do not repeat.
pub(crate) fn mutations() -> Vec<Mutation> {
    let groups = [framing::all(), heads::all()];
    groups.concat()
}

fn mutation(name: &'static str, bytes: impl AsRef<[u8]>, expected: Expected) -> Mutation {
    let bytes = [bytes.as_ref(), END.as_bytes()].concat();
    Mutation { name, bytes, heads: Vec::new(), expected }
}

/// A POST with these bytes in its head and this body; every `~` in the head is a CRLF.
fn post(name: &'static str, fields: &[u8], body: &str, expected: Expected) -> Mutation {
    let mut bytes = b"POST /first HTTP/1.1\r\nHost: test\r\n".to_vec();
    for byte in fields {
        match byte {
            b'~' => bytes.extend_from_slice(b"\r\n"),
            other => bytes.push(*other),
        }
    }
    bytes.extend_from_slice(b"\r\n\r\n");
    bytes.extend_from_slice(body.as_bytes());
    mutation(name, bytes, expected)
}

/// A POST of `hello` with this value as its Content-Length.
fn length(name: &'static str, value: &str, expected: Expected) -> Mutation {
    post(name, format!("Content-Length: {value}").as_bytes(), "hello", expected)
}

/// A chunked POST of `hello` with these bytes as its Transfer-Encoding.
fn coding(name: &'static str, value: &[u8], expected: Expected) -> Mutation {
    post(name, &[b"Transfer-Encoding: ", value].concat(), CHUNKS, expected)
}

/// A POST with this after its head, which says that it is chunked.
fn chunked(name: &'static str, body: &str, expected: Expected) -> Mutation {
    post(name, b"Transfer-Encoding: chunked", body, expected)
}

/// A GET with this first line, without its end.
fn line(name: &'static str, line: impl AsRef<[u8]>, expected: Expected) -> Mutation {
    mutation(name, [line.as_ref(), b"\r\nHost: test\r\n\r\n"].concat(), expected)
}

/// A GET with these lines as its fields, each with its end.
fn get(name: &'static str, fields: impl AsRef<[u8]>, expected: Expected) -> Mutation {
    let bytes = [b"GET /first HTTP/1.1\r\n", fields.as_ref(), b"\r\n"].concat();
    mutation(name, bytes, expected)
}
