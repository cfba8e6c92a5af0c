//! One health request to a Redis server: AUTH, PING and INFO in one write, on one connection that
//! is kept. Not when to ask, nor what follows from the answer: control decides that.

use super::inline;
use crate::{
    net::{
        addr::Address,
        dial::{Opening, dial},
        stream::Stream,
        tls,
    },
    policy::gate::Role,
    topology::Credentials,
};
use bytes::{Buf, BytesMut};
use std::{fmt, io, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Asks one server again and again, over a connection that it opens anew after any error.
#[derive(Debug)]
pub struct Prober {
    address: Address,
    credentials: Credentials,
    tls: Option<tls::Client>,
    connection: Option<Stream>,
    /// What the server said last; it stands while a script keeps the server busy.
    last: Option<Report>,
    phase: Phase,
}

/// What a server that answered said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub role: Role,
    /// Bytes of the replication stream it has written (primary) or applied (replica).
    pub offset: Option<u64>,
    /// Which replication stream `offset` belongs to; offsets of two streams do not compare.
    pub replication_id: Option<String>,
    pub redis_version: Option<String>,
}

/// Why a probe failed: who, in which phase, what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("backend {address}: {phase}: {what}")]
pub struct ProbeError {
    pub address: String,
    pub phase: Phase,
    pub code: Code,
    pub what: String,
}

/// How far a probe came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Connect,
    Auth,
    Ping,
    Info,
    /// Of a web server, which is asked one thing.
    Http,
}

/// The kind of a failure, as one word for status pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// No whole answer in time.
    Timeout,
    /// It could not be reached.
    Connect,
    /// It closed or reset the connection.
    Closed,
    /// NOAUTH, WRONGPASS, NOPERM.
    Auth,
    /// It answered with another error.
    Refused,
    /// What it answered is not Redis, or not what was asked.
    Protocol,
}

impl Prober {
    /// Nothing is opened before the first probe.
    pub fn new(address: Address, credentials: Credentials) -> Self {
        let (connection, last) = (None, None);
        Self { address, credentials, tls: None, connection, last, phase: Phase::Connect }
    }

    /// Under TLS, where there is some.
    pub fn with_tls(self, tls: Option<tls::Client>) -> Self {
        Self { tls, ..self }
    }

    /// One probe; `timeout` covers all of it, a reconnect included. When the server closed a kept
    /// connection in between (its `timeout` setting, CLIENT KILL), a fresh one decides.
    ///
    /// # Errors
    /// When the server cannot be reached, refuses, answers nonsense, or does not answer in time.
    pub async fn probe(&mut self, timeout: Duration) -> Result<Report, ProbeError> {
        let done = tokio::time::timeout(timeout, self.attempt(timeout)).await;
        let report = done.unwrap_or_else(|_| {
            let text = format!("no answer within {}ms", timeout.as_millis());
            Err(self.error(Code::Timeout, text))
        })?;
        self.last = Some(report.clone());
        Ok(report)
    }

    async fn attempt(&mut self, timeout: Duration) -> Result<Report, ProbeError> {
        if let Some(kept) = self.connection.take() {
            match self.ask(kept, false).await {
                Err(error) if error.code == Code::Closed => {}
                done => return done,
            }
        }
        self.phase = Phase::Connect;
        let opening = Opening::tls(self.tls.as_ref());
        let fresh = dial(&self.address, opening, timeout).await.map_err(|error| {
            let timed_out = error.kind() == io::ErrorKind::TimedOut;
            let code = if timed_out { Code::Timeout } else { Code::Connect };
            self.error(code, error.to_string())
        })?;
        self.ask(fresh, true).await
    }

    /// Keeps `stream` only when everything went well.
    async fn ask(&mut self, stream: Stream, fresh: bool) -> Result<Report, ProbeError> {
        let mut line = Line { stream, buffer: BytesMut::new() };
        let password = self.credentials.password.as_deref().filter(|_| fresh);
        let mut request = Vec::with_capacity(160);
        if let Some(password) = password {
            match self.credentials.user.as_deref() {
                Some(user) => inline::to_resp(&["AUTH", user, password], &mut request),
                None => inline::to_resp(&["AUTH", password], &mut request),
            }
        }
        inline::to_resp(&["PING"], &mut request);
        inline::to_resp(&["INFO", "replication"], &mut request);
        if fresh {
            inline::to_resp(&["INFO", "server"], &mut request);
        }
        let authenticate = password.is_some();
        self.phase = if authenticate { Phase::Auth } else { Phase::Ping };
        line.stream.write_all(&request).await.map_err(|e| self.fault(e.into()))?;
        line.stream.flush().await.map_err(|e| self.fault(e.into()))?;
        if authenticate {
            match line.reply().await.map_err(|e| self.fault(e))? {
                Reply::Status(_) => {}
                other => return Err(self.refused(other)),
            }
        }
        self.phase = Phase::Ping;
        let ping = line.reply().await.map_err(|e| self.fault(e))?;
        let hint = match ping {
            Reply::Status(text) if text == "PONG" => None,
            Reply::Error(text) if text.starts_with("LOADING") => Some(Role::Loading),
            Reply::Error(text) if text.starts_with("MASTERDOWN") => Some(Role::ReplicaLinkDown),
            // A script runs too long: the server lives and nothing more can be learnt now.
            Reply::Error(text) if text.starts_with("BUSY") && self.last.is_some() => {
                // How far it is by now nobody knows.
                let last = self.last.clone().map(|last| Report { offset: None, ..last });
                return last.ok_or_else(|| self.refused(Reply::Error(text)));
            }
            other => return Err(self.refused(other)),
        };
        self.phase = Phase::Info;
        let info = match line.reply().await.map_err(|e| self.fault(e))? {
            Reply::Bulk(text) => text,
            other => return Err(self.refused(other)),
        };
        let mut report = replication(&info).map_err(|text| self.error(Code::Protocol, text))?;
        report.role = hint.unwrap_or(report.role);
        report.redis_version = self.last.as_ref().and_then(|last| last.redis_version.clone());
        if fresh {
            match line.reply().await.map_err(|e| self.fault(e))? {
                Reply::Bulk(text) => {
                    report.redis_version = field(&text, "redis_version").map(str::to_owned);
                }
                other => return Err(self.refused(other)),
            }
        }
        if !line.buffer.is_empty() {
            return Err(self.error(Code::Protocol, "it sent more than was asked".to_owned()));
        }
        self.connection = Some(line.stream);
        Ok(report)
    }

    fn error(&self, code: Code, what: String) -> ProbeError {
        ProbeError { address: self.address.to_string(), phase: self.phase, code, what }
    }

    fn fault(&self, fault: Fault) -> ProbeError {
        match fault {
            Fault::Io(error) => {
                let what = match error.kind() {
                    io::ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
                    _ => error.to_string(),
                };
                self.error(Code::Closed, what)
            }
            Fault::Garbage(what) => self.error(Code::Protocol, what),
        }
    }

    /// What to say of a reply that is not the one asked for.
    fn refused(&self, reply: Reply) -> ProbeError {
        let text = match reply {
            Reply::Error(text) => self.credentials.conceal(&text),
            Reply::Status(_) | Reply::Bulk(_) => {
                let what = "it answered something else than was asked".to_owned();
                return self.error(Code::Protocol, what);
            }
        };
        let first = text.split(' ').next().unwrap_or_default();
        let (code, advice) = match first {
            "NOAUTH" => (Code::Auth, "the server wants a password: set upstream.password"),
            "WRONGPASS" => (Code::Auth, "upstream.user or upstream.password is wrong"),
            "NOPERM" => (Code::Auth, "upstream.user must be allowed PING and INFO"),
            "ERR" if self.phase == Phase::Auth && text.contains("without any password") => {
                (Code::Auth, "the server has no password: remove upstream.password")
            }
            _ => return self.error(Code::Refused, shorten(&text)),
        };
        self.error(code, format!("{advice} ({})", shorten(&text)))
    }
}

impl Report {
    /// A report of a role alone, for tests and for servers that say no more.
    pub fn of(role: Role) -> Self {
        Self { role, offset: None, replication_id: None, redis_version: None }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.role {
            Role::None => f.write_str("connected")?,
            role => f.write_str(role.as_str())?,
        }
        match self.offset {
            Some(offset) => write!(f, ", offset {offset}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Auth => "auth",
            Self::Ping => "ping",
            Self::Info => "info",
            Self::Http => "http",
        })
    }
}

impl Code {
    /// The word of the status API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Closed => "closed",
            Self::Auth => "auth",
            Self::Refused => "refused",
            Self::Protocol => "protocol",
        }
    }
}

/// The three kinds of replies that PING, AUTH and INFO can have.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Status(String),
    Error(String),
    Bulk(String),
}

enum Fault {
    Io(io::Error),
    Garbage(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A connection and what was read from it and not yet understood.
struct Line {
    stream: Stream,
    buffer: BytesMut,
}

impl Line {
    async fn reply(&mut self) -> Result<Reply, Fault> {
        loop {
            if let Some((reply, used)) = parse(&self.buffer).map_err(Fault::Garbage)? {
                self.buffer.advance(used);
                return Ok(reply);
            }
            if self.buffer.len() > MAX_REPLY {
                return Err(Fault::Garbage(format!("a reply of more than {MAX_REPLY} bytes")));
            }
            self.buffer.reserve(4096);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(Fault::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

/// The first reply in `bytes` and its length, `None` when it is not whole yet.
fn parse(bytes: &[u8]) -> Result<Option<(Reply, usize)>, String> {
    let Some((&kind, rest)) = bytes.split_first() else { return Ok(None) };
    if !matches!(kind, b'+' | b'-' | b'$') {
        return Err(format!("a reply cannot begin with {:?}", char::from(kind)));
    }
    let Some(end) = memchr::memchr(b'\n', rest) else { return Ok(None) };
    let Some(head) = rest.get(..end).and_then(|head| head.strip_suffix(b"\r")) else {
        return Err("a line that does not end in CRLF".to_owned());
    };
    let head = String::from_utf8_lossy(head).into_owned();
    let used = end + 2;
    match kind {
        b'+' => return Ok(Some((Reply::Status(head), used))),
        b'-' => return Ok(Some((Reply::Error(head), used))),
        _ => {}
    }
    let Some(length) = head.parse::<usize>().ok().filter(|length| *length <= MAX_REPLY) else {
        return Err(format!("a bulk of '{}' bytes", shorten(&head)));
    };
    let Some(body) = bytes.get(used..used + length + 2) else { return Ok(None) };
    let Some(body) = body.strip_suffix(b"\r\n") else {
        return Err("a bulk that does not end where it said".to_owned());
    };
    Ok(Some((Reply::Bulk(String::from_utf8_lossy(body).into_owned()), used + length + 2)))
}

/// Reads `INFO replication` (fields as documented at redis.io/commands/info).
fn replication(info: &str) -> Result<Report, String> {
    let number = |name| field(info, name).and_then(|value| value.parse::<u64>().ok());
    let (role, offset) = match field(info, "role") {
        Some("master") => (Role::Primary, number("master_repl_offset")),
        Some("slave" | "replica") => {
            let role = if number("master_sync_in_progress") == Some(1) {
                Role::Syncing
            } else if field(info, "master_link_status") == Some("up") {
                Role::Replica
            } else {
                Role::ReplicaLinkDown
            };
            // Its own applied offset, not what it has read or what the primary thinks of it.
            (role, number("slave_repl_offset"))
        }
        Some(other) => return Err(format!("INFO says role '{}'", shorten(other))),
        None => return Err("INFO says no role".to_owned()),
    };
    let replication_id = field(info, "master_replid").map(str::to_owned);
    Ok(Report { role, offset, replication_id, redis_version: None })
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// What a server says is shown, but not all of it, and never as control characters.
fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect()
}

/// What a fuzzer feeds: a reply is the same whatever follows it and is not there before its last
/// byte is; of any INFO there is a report with a role, or an error that can be shown.
pub fn fuzz(data: &[u8]) {
    let parsed = parse(data);
    if let Ok(Some((reply, used))) = &parsed {
        let whole = data.get(..*used).unwrap_or_default();
        assert_eq!(parse(whole), parsed);
        assert_eq!(parse(whole.get(..used - 1).unwrap_or_default()), Ok(None), "{reply:?}");
    }
    match replication(&String::from_utf8_lossy(data)) {
        Ok(report) => assert_ne!(report.role, Role::Unknown),
        Err(text) => assert!(!text.contains(char::is_control) && text.chars().count() < 256),
    }
}

/// INFO replication of a primary with 500 replicas has about 50 KiB.
const MAX_REPLY: usize = 64 * 1024;
/// Characters of a server's error that reach the log and the status page.
const MAX_SHOWN: usize = 160;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_reply_or_an_error_or_not_whole(
            kind in prop::sample::select(b"+-$*:".to_vec()),
            rest in prop::collection::vec(prop::sample::select(b"0123456789-\r\n\r\nax\xff".to_vec()), 0..40),
        ) {
            let bytes: Vec<u8> = std::iter::once(kind).chain(rest).collect();
            if let Ok(Some((_, used))) = parse(&bytes) {
                prop_assert!(used <= bytes.len());
                // More bytes behind it change nothing, and fewer make it not whole.
                let longer: Vec<u8> = bytes.iter().copied().chain(*b"+x\r\n").collect();
                prop_assert_eq!(parse(&longer), parse(&bytes));
                prop_assert_eq!(parse(&bytes[..used - 1]), Ok(None));
            }
        }

        #[test]
        fn any_info_is_a_report_or_an_error(info in "(role:(master|slave|x)?|[a-z_]*:[0-9-]*|\r|\n)*") {
            if let Ok(report) = replication(&info) {
                prop_assert_ne!(report.role, Role::Unknown);
            }
        }
    }

    #[test]
    fn replies_are_taken_whole_wherever_the_bytes_are_split() {
        let bytes = b"+PONG\r\n";
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]).unwrap(), None, "{cut}");
        }
        assert_eq!(parse(b"+PONG\r\n$").unwrap(), Some((Reply::Status("PONG".into()), 7)));
        assert_eq!(parse(b"$2\r\nab\r\n").unwrap(), Some((Reply::Bulk("ab".into()), 8)));
        assert_eq!(parse(b"$2\r\nab\r").unwrap(), None);
        assert_eq!(parse(b"-ERR x\r\n").unwrap(), Some((Reply::Error("ERR x".into()), 8)));
    }

    #[test]
    fn nonsense_is_an_error() {
        for bad in [
            "HTTP/1.1 400\r\n",
            "$-1\r\n",
            "$99999999999999999999\r\n",
            "$70000\r\n",
            "$2\r\nabcd",
            "+PONG\n",
            "*1\r\n",
            "\0",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn roles_are_read_from_info() {
        let table = [
            ("role:master\r\nmaster_repl_offset:7\r\n", Role::Primary, Some(7)),
            (
                "role:slave\r\nmaster_link_status:up\r\nmaster_sync_in_progress:0\r\nslave_read_repl_offset:9\r\nslave_repl_offset:5\r\n",
                Role::Replica,
                Some(5),
            ),
            ("role:slave\r\nmaster_link_status:down\r\n", Role::ReplicaLinkDown, None),
            (
                "role:slave\r\nmaster_link_status:down\r\nmaster_sync_in_progress:1\r\n",
                Role::Syncing,
                None,
            ),
        ];
        for (info, role, offset) in table {
            let report = replication(info).unwrap();
            assert_eq!((report.role, report.offset), (role, offset), "{info}");
        }
        assert!(replication("role:sentinel\r\n").unwrap_err().contains("sentinel"));
        assert!(replication("").unwrap_err().contains("no role"));
    }
}
