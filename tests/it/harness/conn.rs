//! A raw, blocking Redis client with a time limit on everything. It knows RESP2 and no command.

use super::{
    PATIENCE,
    resp::{Value, read_raw, request},
};
use std::{
    io::{self, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

#[derive(Debug)]
pub(crate) struct Conn {
    stream: BufReader<Socket>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Conn {
    #[track_caller]
    pub(crate) fn open(address: &str) -> Self {
        Self::try_open(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"))
    }

    pub(crate) fn try_open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address.parse().unwrap(), PATIENCE)?;
        stream.set_nodelay(true)?;
        Self::over(Socket::Tcp(stream))
    }

    #[track_caller]
    pub(crate) fn open_unix(path: &Path) -> Self {
        Self::over(Socket::Unix(UnixStream::connect(path).unwrap())).unwrap()
    }

    fn over(socket: Socket) -> io::Result<Self> {
        let conn = Self { stream: BufReader::with_capacity(64 << 10, socket) };
        conn.patience(PATIENCE);
        Ok(conn)
    }

    /// How long a read or a write may take.
    pub(crate) fn patience(&self, limit: Duration) {
        match self.stream.get_ref() {
            Socket::Tcp(socket) => {
                socket.set_read_timeout(Some(limit)).unwrap();
                socket.set_write_timeout(Some(limit)).unwrap();
            }
            Socket::Unix(socket) => {
                socket.set_read_timeout(Some(limit)).unwrap();
                socket.set_write_timeout(Some(limit)).unwrap();
            }
        }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap();
    }

    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    #[track_caller]
    pub(crate) fn read(&mut self) -> Value {
        self.try_read().unwrap_or_else(|error| panic!("no reply: {error}"))
    }

    pub(crate) fn try_read(&mut self) -> io::Result<Value> {
        Value::read(&mut self.stream)
    }

    /// The next `len` bytes, whatever they are.
    #[track_caller]
    pub(crate) fn read_exactly(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// One request, one reply.
    #[track_caller]
    pub(crate) fn cmd<T: AsRef<[u8]>>(&mut self, words: &[T]) -> Value {
        self.send(&request(words));
        self.try_read().unwrap_or_else(|error| {
            let words: Vec<_> =
                words.iter().map(|w| w.as_ref().escape_ascii().to_string()).collect();
            panic!("no reply to {words:.80?}: {error}")
        })
    }

    /// One reply or push as it came, byte for byte.
    #[track_caller]
    pub(crate) fn read_raw(&mut self) -> String {
        read_raw(&mut self.stream).unwrap_or_else(|error| panic!("no reply: {error}"))
    }

    /// One request of words without spaces, one reply as it came.
    #[track_caller]
    pub(crate) fn raw(&mut self, line: &str) -> String {
        self.say(line);
        self.read_raw()
    }

    /// Sends a request of words without spaces.
    #[track_caller]
    pub(crate) fn say(&mut self, line: &str) {
        self.send(&request(&line.split(' ').collect::<Vec<_>>()));
    }

    /// As [`Self::cmd`], for when the connection may be gone.
    pub(crate) fn try_cmd<T: AsRef<[u8]>>(&mut self, words: &[T]) -> io::Result<Value> {
        self.try_send(&request(words))?;
        self.try_read()
    }

    /// All requests in one write, then all replies.
    #[track_caller]
    pub(crate) fn pipeline<T: AsRef<[u8]>>(&mut self, requests: &[Vec<T>]) -> Vec<Value> {
        let bytes: Vec<u8> = requests.iter().flat_map(|words| request(words)).collect();
        self.send(&bytes);
        requests.iter().map(|_| self.read()).collect()
    }

    /// The same connection for a second thread, to send on while this one reads.
    pub(crate) fn twin(&self) -> Self {
        let socket = match self.stream.get_ref() {
            Socket::Tcp(socket) => Socket::Tcp(socket.try_clone().unwrap()),
            Socket::Unix(socket) => Socket::Unix(socket.try_clone().unwrap()),
        };
        Self::over(socket).unwrap()
    }

    /// Half-closes: no more requests, replies still wanted.
    pub(crate) fn finish_sending(&mut self) {
        match self.stream.get_ref() {
            Socket::Tcp(socket) => socket.shutdown(Shutdown::Write).unwrap(),
            Socket::Unix(socket) => socket.shutdown(Shutdown::Write).unwrap(),
        }
    }

    /// What comes until the other side closes; a reset counts as a close.
    #[track_caller]
    pub(crate) fn read_to_close(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let mut piece = [0; 4096];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return rest,
                Ok(n) => rest.extend_from_slice(&piece[..n]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return rest,
                Err(error) => panic!("not closed: {error}; after {}", rest.escape_ascii()),
            }
        }
    }
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(into),
            Self::Unix(socket) => socket.read(into),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(bytes),
            Self::Unix(socket) => socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
