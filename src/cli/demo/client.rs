//! A small Redis client (RESP2, flat replies) and a smaller HTTP one: what the demo itself needs to
//! talk to Sluice and to the servers, as any application would. Not the proxy's own code paths.

use std::{
    fmt,
    io::{self, ErrorKind},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::TcpStream,
    time::timeout,
};

/// A connection to Redis, or to what looks like it.
#[derive(Debug)]
pub(super) struct Client(BufStream<TcpStream>);

/// A reply; arrays have no arrays in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Text(String),
    Error(String),
    Nil,
    Array(Vec<Self>),
}

impl Client {
    /// Connects to 127.0.0.1.
    pub(super) async fn connect(port: u16) -> io::Result<Self> {
        let stream = in_time(TcpStream::connect(("127.0.0.1", port))).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufStream::new(stream)))
    }

    /// Sends one request and waits for its reply, for at most five seconds.
    pub(super) async fn request(&mut self, arguments: &[&str]) -> io::Result<Reply> {
        let mut bytes = format!("*{}\r\n", arguments.len());
        for argument in arguments {
            bytes += &format!("${}\r\n{argument}\r\n", argument.len());
        }
        in_time(async {
            self.0.write_all(bytes.as_bytes()).await?;
            self.0.flush().await?;
            let line = self.line().await?;
            match line.strip_prefix('*') {
                None => self.one(&line).await,
                Some(count) => {
                    let count: usize = count.parse().map_err(|_| odd(&line))?;
                    let mut items = Vec::new();
                    for _ in 0..count {
                        let line = self.line().await?;
                        items.push(self.one(&line).await?);
                    }
                    Ok(Reply::Array(items))
                }
            }
        })
        .await
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).await?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The reply that begins with `line`.
    async fn one(&mut self, line: &str) -> io::Result<Reply> {
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| odd(line))?;
        match kind {
            "+" | ":" => Ok(Reply::Text(rest.to_owned())),
            "-" => Ok(Reply::Error(rest.to_owned())),
            "$" if rest == "-1" => Ok(Reply::Nil),
            "$" => {
                let length: u16 = rest.parse().map_err(|_| odd(line))?;
                let mut bytes = vec![0; usize::from(length) + 2];
                self.0.read_exact(&mut bytes).await?;
                bytes.truncate(usize::from(length));
                Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned()))
            }
            _ => Err(odd(line)),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.pad(text),
            Self::Error(text) => f.pad(&format!("(error) {text}")),
            Self::Nil => f.pad("(nil)"),
            Self::Array(items) => {
                let items: Vec<String> = items.iter().map(ToString::to_string).collect();
                f.pad(&items.join(", "))
            }
        }
    }
}

/// The body of `http://127.0.0.1:port/path`, whatever its status.
pub(super) async fn http_get(port: u16, path: &str) -> io::Result<String> {
    in_time(async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let head = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(MAX_BODY).read_to_string(&mut answer).await?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or(ErrorKind::UnexpectedEof)?;
        Ok(body.to_owned())
    })
    .await
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(PATIENCE, work).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(
            ErrorKind::TimedOut,
            format!("no answer in {}s", PATIENCE.as_secs()),
        )),
    }
}

fn odd(line: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("not a reply: {line:?}"))
}

const PATIENCE: Duration = Duration::from_secs(5);
/// Six backends with their probes and 256 events are a tenth of this.
const MAX_BODY: u64 = 4 << 20;
