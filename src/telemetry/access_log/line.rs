//! One line of the access log as JSON. Not where it goes.

use serde::{Serialize, Serializer};
use serde_json::ser::{self, Formatter};
use std::{
    io::{self, Write},
    net::IpAddr,
    time::SystemTime,
};
use time::OffsetDateTime;

/// One request, from its head to its end. Durations are in microseconds; `None` is not known, or not
/// reached.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// Whom it is from; `None` over a unix socket.
    pub client: Option<IpAddr>,
    pub listener: &'a str,
    pub cluster: Option<&'a str>,
    /// The one that was asked last.
    pub backend: Option<&'a str>,
    pub method: &'a str,
    /// With the query, where that is wanted.
    pub path: &'a str,
    /// What the client was told.
    pub status: Option<u16>,
    /// Of the request's body.
    pub bytes_received: u64,
    /// Of the reply's body.
    pub bytes_sent: u64,
    /// From the request's head to its end.
    pub total_us: u64,
    /// From the request's head to the reply's.
    pub reply_us: Option<u64>,
    /// How long the last try waited for a connection; 0 for one that was open.
    pub connect_us: Option<u64>,
    pub retries: u32,
    /// Who ended it.
    pub ended: Ended,
    /// Why we answered it ourselves, as in `X-Sluice-Error`.
    pub error: Option<&'a str>,
    #[serde(serialize_with = "lossy")]
    pub request_id: Option<&'a [u8]>,
    /// Of its `traceparent`.
    pub trace_id: Option<&'a str>,
}

/// Who ended a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// All of the reply was handed to the client's connection.
    Complete,
    /// The client left before that.
    Client,
    /// The backend broke off within its reply.
    Backend,
    /// We answered ourselves, or gave up.
    Proxy,
}

impl Line<'_> {
    /// Appends the line and its end to `text`.
    pub(super) fn write(&self, began: SystemTime, text: &mut Vec<u8>) {
        let line = Timed { time: Time(began), line: self };
        let mut json = serde_json::Serializer::with_formatter(&mut *text, Printable);
        // Nothing of it can fail: a Vec takes all, and there are no maps with odd keys.
        let _ = line.serialize(&mut json);
        text.push(b'\n');
    }
}

#[derive(Serialize)]
struct Timed<'a> {
    time: Time,
    #[serde(flatten)]
    line: &'a Line<'a>,
}

/// As RFC 3339 in UTC, with milliseconds.
struct Time(SystemTime);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let at = OffsetDateTime::from(self.0);
        let (month, millisecond) = (u8::from(at.month()), at.millisecond());
        let (year, day, hour, minute, second) =
            (at.year(), at.day(), at.hour(), at.minute(), at.second());
        serializer.collect_str(&format_args!(
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z"
        ))
    }
}

/// Bytes that are mostly text; what is no UTF-8 becomes U+FFFD.
fn lossy<S: Serializer>(bytes: &Option<&[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    bytes.map(String::from_utf8_lossy).serialize(serializer)
}

/// Escapes every control character: JSON asks for those of ASCII alone, but a terminal obeys others
/// too, and a log is looked at in one.
struct Printable;

impl Formatter for Printable {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(is_hidden) {
            let (plain, hidden) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut chars = hidden.chars();
            let code = chars.next().map_or(0, u32::from);
            write!(writer, "\\u{code:04x}")?;
            rest = chars.as_str();
        }
        ser::CompactFormatter.write_string_fragment(writer, rest)
    }
}

/// Controls, and what turns a line's direction or breaks it; all below U+10000.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
