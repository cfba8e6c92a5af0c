//! A raw, blocking HTTP/1.1 client: any bytes out, strictly read responses in, a time limit on
//! everything.

use super::{
    super::PATIENCE,
    wire::{Broken, Framing, Head, read_body, read_response},
};
use std::{
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

#[derive(Debug)]
pub(crate) struct HttpConn {
    stream: BufReader<TcpStream>,
}

#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: Head,
    /// The first MiB.
    pub(crate) body: Vec<u8>,
    /// Of all of the body.
    pub(crate) length: u64,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Response {
    /// The first value of a header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl HttpConn {
    #[track_caller]
    pub(crate) fn open(address: &str) -> Self {
        Self::try_open(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"))
    }

    pub(crate) fn try_open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address.parse().unwrap(), PATIENCE)?;
        stream.set_nodelay(true)?;
        let conn = Self { stream: BufReader::with_capacity(64 << 10, stream) };
        conn.patience(PATIENCE);
        Ok(conn)
    }

    /// How long a read or a write may take.
    pub(crate) fn patience(&self, limit: Duration) {
        self.stream.get_ref().set_read_timeout(Some(limit)).unwrap();
        self.stream.get_ref().set_write_timeout(Some(limit)).unwrap();
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap();
    }

    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// The next response, one to an informational request included (`100 Continue`, `101`).
    pub(crate) fn any_response(&mut self, to_head: bool) -> Result<Response, Broken> {
        let (head, status, framing) = read_response(&mut self.stream, to_head)?;
        let body = read_body(&mut self.stream, framing)?;
        let (kept, length, trailers) = (body.kept, body.length, body.trailers);
        Ok(Response { status, head, body: kept, length, trailers })
    }

    /// The next final response to a request whose method is not HEAD.
    pub(crate) fn try_response(&mut self) -> Result<Response, Broken> {
        loop {
            let response = self.any_response(false)?;
            if response.status >= 200 || response.status == 101 {
                return Ok(response);
            }
        }
    }

    #[track_caller]
    pub(crate) fn response(&mut self) -> Response {
        self.try_response().unwrap_or_else(|broken| panic!("no response: {broken}"))
    }

    /// The head of the next response and no byte of its body.
    #[track_caller]
    pub(crate) fn response_head(&mut self) -> (u16, Head, Framing) {
        let (head, status, framing) =
            read_response(&mut self.stream, false).unwrap_or_else(|broken| panic!("{broken}"));
        (status, head, framing)
    }

    /// One request without a body; `fields` are whole lines: `Cookie: a=1\r\n`.
    #[track_caller]
    pub(crate) fn ask(&mut self, method: &str, path: &str, fields: &str) -> Response {
        self.send(format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{fields}\r\n"));
        self.response()
    }

    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.ask("GET", path, "")
    }

    /// As [`Self::get`], for when the connection may be gone.
    pub(crate) fn try_get(&mut self, path: &str) -> Result<Response, Broken> {
        self.try_send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).map_err(Broken::Cut)?;
        self.try_response()
    }

    /// Whether something comes within that time, the end included.
    pub(crate) fn is_ready(&mut self, within: Duration) -> bool {
        self.stream.get_ref().set_read_timeout(Some(within)).unwrap();
        let ready = match self.stream.fill_buf() {
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            Ok(_) => true,
        };
        self.patience(PATIENCE);
        ready
    }

    /// Half-closes: no more requests, responses still wanted.
    pub(crate) fn finish_sending(&mut self) {
        self.stream.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    /// So many bytes as they come: behind an upgrade.
    #[track_caller]
    pub(crate) fn read_exact(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Whether the other side closes without another byte; a reset counts as a close.
    #[track_caller]
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(n) => n == 0,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
            Err(error) => panic!("not closed: {error}"),
        }
    }
}
