//! The table of bodies: lengths, codings, both at once, and chunks.

use super::{
    CHUNKS,
    Expected::{Agreed, Refused, Served},
    HIDDEN, Mutation, chunked, coding, length, mutation, post,
};

pub(super) fn all() -> Vec<Mutation> {
    [lengths(), codings(), both(), chunks()].concat()
}

fn lengths() -> Vec<Mutation> {
    let hidden = format!("hello{HIDDEN}");
    vec![
        length("length: good", "5", Served(2)),
        length("length: tab before it", "\t5", Served(2)),
        length("length: space after it", "5 ", Served(2)),
        length("length: leading zeros", "005", Agreed),
        length("length: plus", "+5", Refused),
        length("length: minus", "-5", Refused),
        length("length: minus zero", "-0", Refused),
        length("length: hexadecimal", "0x5", Refused),
        length("length: empty", "", Refused),
        length("length: space inside", "5 5", Refused),
        length("length: letters after it", "5abc", Refused),
        length("length: fraction", "5.0", Refused),
        length("length: exponent", "5e0", Refused),
        length("length: quoted", "\"5\"", Refused),
        length("length: arabic digit", "\u{665}", Refused),
        length("length: no-break space", "\u{a0}5", Refused),
        length("length: vertical tab", "\u{b}5", Refused),
        length("length: form feed", "\u{c}5", Refused),
        length("length: NUL after it", "5\0", Refused),
        length("length: semicolon", "5;5", Refused),
        length("length: list of one number", "5, 5", Agreed),
        length("length: list of two numbers", "5, 6", Refused),
        length("length: comma after it", "5,", Refused),
        length("length: comma before it", ",5", Refused),
        length("length: 2^32 + 5", "4294967301", Agreed),
        length("length: 2^63 + 5", "9223372036854775813", Agreed),
        length("length: 2^64 + 5", "18446744073709551621", Refused),
        length("length: 2^128 + 5", "340282366920938463463374607431768211461", Refused),
        length("length: longer than the body", "50", Agreed),
        length("length: shorter than the body", "3", Agreed),
        post("length: twice the same", b"Content-Length: 5~Content-Length: 5", "hello", Agreed),
        post("length: two numbers", b"Content-Length: 5~Content-Length: 6", "hello", Refused),
        post(
            "length: two numbers, hidden",
            b"Content-Length: 5~Content-Length: 42",
            &hidden,
            Refused,
        ),
        post(
            "length: two with other case",
            b"Content-Length: 5~content-length: 6",
            "hello",
            Refused,
        ),
        post("length: good and empty", b"Content-Length: 5~Content-Length:", "hello", Refused),
        post(
            "length: good and negative",
            b"Content-Length: 5~Content-Length: -5",
            "hello",
            Refused,
        ),
        post("length: good and zero", b"Content-Length: 0~Content-Length: 5", "hello", Refused),
        post("length: lower case", b"content-length: 5", "hello", Served(2)),
        post("length: mixed case", b"cOnTeNt-LeNgTh: 5", "hello", Served(2)),
        post("length: no space before it", b"Content-Length:5", "hello", Served(2)),
        post("length: space before the colon", b"Content-Length : 5", "hello", Refused),
        post("length: tab before the colon", b"Content-Length\t: 5", "hello", Refused),
        post("length: NUL before the colon", b"Content-Length\0: 5", "hello", Refused),
        post("length: space before the name", b"X: y~ Content-Length: 5", "hello", Refused),
        post("length: underscore", b"Content_Length: 5", "hello", Agreed),
        post("length: folded", b"Content-Length:~ 5", "hello", Refused),
        post("length: folded number", b"Content-Length: 1~ 5", "hello", Refused),
        post("length: behind a bare LF", b"X: y\nContent-Length: 5", "hello", Agreed),
        post("length: behind a bare CR", b"X: y\rContent-Length: 5", "hello", Refused),
        post("length: zero, then a request", b"Content-Length: 0", HIDDEN, Served(3)),
        post("length: none, then a request", b"X: y", HIDDEN, Served(3)),
        post("length: exact, then a request", b"Content-Length: 5", &hidden, Served(3)),
        mutation(
            "length: on a GET",
            format!("GET /first HTTP/1.1\r\nHost: test\r\nContent-Length: 38\r\n\r\n{HIDDEN}"),
            Served(2),
        ),
        mutation(
            "length: on a DELETE",
            "DELETE /first HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello",
            Served(2),
        ),
        mutation(
            "length: on an OPTIONS",
            "OPTIONS /first HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello",
            Served(2),
        ),
        Mutation {
            heads: vec![0],
            ..mutation(
                "length: on a HEAD",
                "HEAD /first HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello",
                Served(2),
            )
        },
        mutation(
            "length: HTTP/1.0",
            "POST /first HTTP/1.0\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello",
            Served(1),
        ),
    ]
}

fn codings() -> Vec<Mutation> {
    let two = |name, first: &str, second: &str, expected| {
        let fields = format!("Transfer-Encoding: {first}~Transfer-Encoding: {second}");
        post(name, fields.as_bytes(), CHUNKS, expected)
    };
    vec![
        coding("coding: good", b"chunked", Served(2)),
        coding("coding: upper case", b"CHUNKED", Served(2)),
        coding("coding: mixed case", b"ChUnKeD", Served(2)),
        coding("coding: tab before it", b"\tchunked", Served(2)),
        coding("coding: space after it", b"chunked ", Served(2)),
        coding("coding: tab after it", b"chunked\t", Served(2)),
        coding("coding: empty", b"", Refused),
        coding("coding: identity", b"identity", Refused),
        coding("coding: gzip", b"gzip", Refused),
        coding("coding: gzip, chunked", b"gzip, chunked", Refused),
        coding("coding: chunked, gzip", b"chunked, gzip", Refused),
        coding("coding: chunked, identity", b"chunked, identity", Refused),
        coding("coding: identity, chunked", b"identity, chunked", Refused),
        coding("coding: chunked, chunked", b"chunked, chunked", Agreed),
        coding("coding: comma before it", b", chunked", Agreed),
        coding("coding: comma after it", b"chunked,", Agreed),
        coding("coding: xchunked", b"xchunked", Refused),
        coding("coding: chunkedx", b"chunkedx", Refused),
        coding("coding: chunk", b"chunk", Refused),
        coding("coding: x chunked", b"x chunked", Refused),
        coding("coding: chu nked", b"chu nked", Refused),
        coding("coding: parameter", b"chunked;q=1", Refused),
        coding("coding: double quotes", b"\"chunked\"", Refused),
        coding("coding: single quotes", b"'chunked'", Refused),
        coding("coding: kelvin sign", "chun\u{212a}ed".as_bytes(), Refused),
        coding("coding: NUL after it", b"chunked\0", Refused),
        coding("coding: NUL before it", b"\0chunked", Refused),
        coding("coding: vertical tab before it", b"\x0bchunked", Refused),
        coding("coding: vertical tab after it", b"chunked\x0b", Refused),
        coding("coding: form feed before it", b"\x0cchunked", Refused),
        coding("coding: bare CR before it", b"\rchunked", Refused),
        coding("coding: bare CR after it", b"chunked\rx", Refused),
        coding("coding: bare LF after it", b"chunked\nX: y", Agreed),
        coding("coding: no-break space", b"\xa0chunked", Refused),
        coding("coding: high byte", b"chunked\xff", Refused),
        two("coding: twice", "chunked", "chunked", Agreed),
        two("coding: chunked and identity", "chunked", "identity", Refused),
        two("coding: identity and chunked", "identity", "chunked", Refused),
        two("coding: chunked and x", "chunked", "x", Refused),
        two("coding: x and chunked", "x", "chunked", Refused),
        two("coding: empty and chunked", "", "chunked", Agreed),
        post("coding: no space before it", b"Transfer-Encoding:chunked", CHUNKS, Served(2)),
        post("coding: lower case name", b"transfer-encoding: chunked", CHUNKS, Served(2)),
        post("coding: space before the colon", b"Transfer-Encoding : chunked", CHUNKS, Refused),
        post("coding: tab before the colon", b"Transfer-Encoding\t: chunked", CHUNKS, Refused),
        post("coding: high byte in the name", b"Transfer-Encoding\xa0: chunked", CHUNKS, Refused),
        post("coding: space before the name", b"X: y~ Transfer-Encoding: chunked", CHUNKS, Refused),
        post("coding: underscore", b"Transfer_Encoding: chunked", CHUNKS, Agreed),
        post("coding: folded", b"Transfer-Encoding:~ chunked", CHUNKS, Refused),
        post("coding: folded by a tab", b"Transfer-Encoding:~\tchunked", CHUNKS, Refused),
        post("coding: folded behind it", b"Transfer-Encoding: chunked~ , x", CHUNKS, Refused),
        post("coding: behind a bare LF", b"X: y\nTransfer-Encoding: chunked", CHUNKS, Agreed),
        post("coding: behind a bare CR", b"X: y\rTransfer-Encoding: chunked", CHUNKS, Refused),
        post("coding: TE: chunked", b"TE: chunked", HIDDEN, Agreed),
        mutation(
            "coding: HTTP/1.0",
            format!(
                "POST /first HTTP/1.0\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKS}"
            ),
            Agreed,
        ),
        mutation(
            "coding: on a GET",
            format!(
                "GET /first HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKS}"
            ),
            Served(2),
        ),
        Mutation {
            heads: vec![0],
            ..mutation(
                "coding: on a HEAD",
                format!(
                    "HEAD /first HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKS}"
                ),
                Served(2),
            )
        },
    ]
}

fn both() -> Vec<Mutation> {
    // Read by its length there is one body; read by its chunks a request hides in it.
    let hidden = format!("0\r\n\r\n{HIDDEN}");
    let of = |name, coding: &str, expected| {
        let fields = format!("Content-Length: {}~{coding}", hidden.len());
        post(name, fields.as_bytes(), &hidden, expected)
    };
    vec![
        of("both: length, coding", "Transfer-Encoding: chunked", Agreed),
        of("both: xchunked", "Transfer-Encoding: xchunked", Refused),
        of("both: identity", "Transfer-Encoding: identity", Refused),
        of("both: empty coding", "Transfer-Encoding:", Refused),
        of("both: vertical tab", "Transfer-Encoding: \u{b}chunked", Refused),
        of("both: space before the colon", "Transfer-Encoding : chunked", Refused),
        of("both: space before the name", " Transfer-Encoding: chunked", Refused),
        of("both: folded", "Transfer-Encoding:~ chunked", Refused),
        of("both: quoted", "Transfer-Encoding: \"chunked\"", Refused),
        of("both: underscore", "Transfer_Encoding: chunked", Agreed),
        of("both: behind a bare LF", "X: y\nTransfer-Encoding: chunked", Agreed),
        of("both: behind a bare CR", "X: y\rTransfer-Encoding: chunked", Refused),
        of("both: chunked, then x", "Transfer-Encoding: chunked~Transfer-Encoding: x", Refused),
        of("both: chunked, identity", "Transfer-Encoding: chunked, identity", Refused),
        of(
            "both: named in Connection",
            "Connection: Transfer-Encoding~Transfer-Encoding: chunked",
            Agreed,
        ),
        of("both: in TE", "TE: chunked", Served(2)),
        post(
            "both: coding, length",
            b"Transfer-Encoding: chunked~Content-Length: 5",
            CHUNKS,
            Agreed,
        ),
        post("both: short length", b"Content-Length: 4~Transfer-Encoding: chunked", CHUNKS, Agreed),
        post("both: length 0", b"Content-Length: 0~Transfer-Encoding: chunked", CHUNKS, Agreed),
        post("both: bad length", b"Content-Length: x~Transfer-Encoding: chunked", CHUNKS, Agreed),
        post(
            "both: two lengths",
            b"Content-Length: 5~Content-Length: 6~Transfer-Encoding: chunked",
            CHUNKS,
            Agreed,
        ),
        mutation(
            "both: HTTP/1.0",
            format!(
                "POST /first HTTP/1.0\r\nHost: test\r\nContent-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n{hidden}",
                hidden.len()
            ),
            Agreed,
        ),
        mutation(
            "both: on a GET",
            format!(
                "GET /first HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n{hidden}",
                hidden.len()
            ),
            Agreed,
        ),
    ]
}

/// A body that is cut or wrong inside may have its head at the origin already; it must not be
/// counted as whole.
fn chunks() -> Vec<Mutation> {
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(100_000));
    let many = "1;a=b\r\nx\r\n".repeat(2_000) + "0\r\n\r\n";
    let tiny = "1\r\nx\r\n".repeat(2_000) + "0\r\n\r\n";
    vec![
        chunked("chunks: upper case", "A\r\n0123456789\r\n0\r\n\r\n", Served(2)),
        chunked("chunks: leading zeros", "000005\r\nhello\r\n0\r\n\r\n", Served(2)),
        chunked("chunks: 17 digits", "00000000000000005\r\nhello\r\n0\r\n\r\n", Agreed),
        chunked("chunks: 0x", "0x5\r\nhello\r\n0\r\n\r\n", Served(0)),
        chunked("chunks: plus", "+5\r\nhello\r\n0\r\n\r\n", Served(0)),
        chunked("chunks: minus", "-5\r\nhello\r\n0\r\n\r\n", Served(0)),
        chunked("chunks: minus zero", "5\r\nhello\r\n-0\r\n\r\n", Served(0)),
        chunked("chunks: space before", " 5\r\nhello\r\n0\r\n\r\n", Agreed),
        chunked("chunks: space after", "5 \r\nhello\r\n0\r\n\r\n", Agreed),
        chunked("chunks: tab after", "5\t\r\nhello\r\n0\r\n\r\n", Agreed),
        chunked("chunks: space inside", "0 5\r\nhello\r\n0\r\n\r\n", Served(0)),
        chunked("chunks: no number", "\r\nhello\r\n0\r\n\r\n", Served(0)),
        chunked("chunks: no digit", "g\r\nhello\r\n0\r\n\r\n", Served(0)),
        chunked("chunks: fraction", "5.0\r\nhello\r\n0\r\n\r\n", Served(0)),
        chunked("chunks: underscore", "0_5\r\nhello\r\n0\r\n\r\n", Served(0)),
        chunked("chunks: NUL", "5\0\r\nhello\r\n0\r\n\r\n", Served(0)),
        chunked("chunks: extension", "5;a=b\r\nhello\r\n0\r\n\r\n", Served(2)),
        chunked("chunks: extension without a name", "5;\r\nhello\r\n0\r\n\r\n", Agreed),
        chunked(
            "chunks: extension with a line end",
            "5;a=\"\r\nhello\"\r\nhello\r\n0\r\n\r\n",
            Agreed,
        ),
        chunked("chunks: extension with a bare LF", "5;a\nhello\r\n0\r\n\r\n", Served(0)),
        chunked("chunks: extension with a bare CR", "5;a\rb\r\nhello\r\n0\r\n\r\n", Served(0)),
        chunked("chunks: extension of 100 kB", &long, Agreed),
        chunked("chunks: 2,000 extensions", &many, Agreed),
        chunked("chunks: 2,000 of a byte", &tiny, Served(2)),
        chunked("chunks: bare LF behind the size", "5\nhello\r\n0\r\n\r\n", Served(0)),
        chunked("chunks: bare CR behind the size", "5\rhello\r\n0\r\n\r\n", Served(0)),
        chunked("chunks: two CR behind the size", "5\r\r\nhello\r\n0\r\n\r\n", Served(0)),
        chunked("chunks: bare LF behind the data", "5\r\nhello\n0\r\n\r\n", Served(0)),
        chunked("chunks: no line end behind the data", "5\r\nhello0\r\n\r\n", Served(0)),
        chunked("chunks: longer than its size", "5\r\nhello you\r\n0\r\n\r\n", Served(0)),
        chunked("chunks: shorter than its size", "6\r\nhello\r\n0\r\n\r\n", Served(0)),
        chunked("chunks: 2^64 + 5", "10000000000000005\r\nhello\r\n0\r\n\r\n", Served(0)),
        chunked("chunks: 2^64 - 1", "ffffffffffffffff\r\nhello\r\n0\r\n\r\n", Agreed),
        chunked("chunks: 2^32 + 5", "100000005\r\nhello\r\n0\r\n\r\n", Agreed),
        chunked("chunks: two zeros", "5\r\nhello\r\n00\r\n\r\n", Served(2)),
        chunked("chunks: 0x0 at the end", "5\r\nhello\r\n0x0\r\n\r\n", Served(0)),
        chunked("chunks: no last CRLF", "5\r\nhello\r\n0\r\n", Agreed),
        chunked("chunks: bare LF at the end", "5\r\nhello\r\n0\r\n\n", Agreed),
        chunked("chunks: bare LF all over", "5\nhello\n0\n\n", Served(0)),
        chunked("chunks: none", "", Served(0)),
        chunked("chunks: the last alone", "0\r\n\r\n", Served(2)),
        chunked("chunks: the last twice", "0\r\n\r\n0\r\n\r\n", Agreed),
        chunked("chunks: then a request", &format!("{CHUNKS}{HIDDEN}"), Served(3)),
        chunked("chunks: then a line end", &format!("{CHUNKS}\r\n"), Agreed),
        chunked("chunks: then a letter", &format!("{CHUNKS}x"), Agreed),
        chunked("trailers: one", "5\r\nhello\r\n0\r\nX: y\r\n\r\n", Served(2)),
        chunked("trailers: Content-Length", "5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n", Agreed),
        chunked(
            "trailers: Transfer-Encoding",
            "5\r\nhello\r\n0\r\nTransfer-Encoding: x\r\n\r\n",
            Agreed,
        ),
        chunked("trailers: Host", "5\r\nhello\r\n0\r\nHost: other\r\n\r\n", Agreed),
        chunked("trailers: folded", "5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n", Agreed),
        chunked("trailers: no colon", "5\r\nhello\r\n0\r\nX\r\n\r\n", Agreed),
        chunked("trailers: bare LF", "5\r\nhello\r\n0\r\nX: y\nZ: z\r\n\r\n", Agreed),
        chunked("trailers: bare CR", "5\r\nhello\r\n0\r\nX: y\rZ: z\r\n\r\n", Agreed),
        chunked("trailers: NUL", "5\r\nhello\r\n0\r\nX: \0\r\n\r\n", Agreed),
    ]
}
