//! Listening sockets: binding with errors that teach, and accepting without ever spinning or
//! dying. Not who serves the socket: the caller hands it to a worker.

use super::{
    addr::Bind,
    stream::{self, Stream},
};
use rustix::{
    io::Errno,
    net::{SocketAddrAny, SocketFlags, acceptfrom_with},
};
use socket2::{Domain, Socket, Type};
use std::{
    future::poll_fn,
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr},
    os::unix::fs::FileTypeExt,
    time::Duration,
};
use tokio::io::{Interest, unix::AsyncFd};

/// A bound listening socket, tied to no event loop yet. A unix socket's file goes when it is dropped.
#[derive(Debug)]
pub struct Listener {
    bind: Bind,
    socket: Socket,
}

/// A connection just accepted, tied to no event loop yet, so that any worker may take it.
#[derive(Debug)]
pub enum Accepted {
    /// With its other end's address, where that is one.
    Tcp(std::net::TcpStream, Option<IpAddr>),
    Unix(std::os::unix::net::UnixStream),
}

impl Listener {
    /// Binds and listens. A unix socket's file left by a dead process is replaced.
    ///
    /// # Errors
    /// Whatever the kernel says, usually that the address is in use.
    pub fn bind(bind: &Bind) -> io::Result<Self> {
        let socket = match bind {
            Bind::Tcp(address) => {
                let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
                socket.set_reuse_address(true)?;
                // What it accepts has these from the start (tcp(7)): a call less each, per client.
                stream::configure(&socket)?;
                socket.bind(&(*address).into())?;
                socket
            }
            Bind::Unix(path) => {
                if is_dead_socket(path) {
                    std::fs::remove_file(path)?;
                }
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                socket.bind(&socket2::SockAddr::unix(path)?)?;
                socket
            }
        };
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Self { bind: bind.clone(), socket })
    }

    /// Where it listens; with the port that the kernel chose when port 0 was asked for.
    pub fn local(&self) -> Bind {
        match (&self.bind, self.socket.local_addr().ok().and_then(|a| a.as_socket())) {
            (Bind::Tcp(_), Some(address)) => Bind::Tcp(address),
            (bind, _) => bind.clone(),
        }
    }

    /// Ties it to the event loop of the calling thread.
    ///
    /// # Errors
    /// When the event loop takes no more descriptors.
    #[expect(deprecated, reason = "its successor is unsafe; a Listener owns its descriptor")]
    pub fn register(self) -> io::Result<Acceptor> {
        let fd = AsyncFd::with_interest(self, Interest::READABLE)?;
        Ok(Acceptor { fd, backoff: BACKOFF_MIN })
    }
}

impl std::os::fd::AsRawFd for Listener {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.socket.as_raw_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Bind::Unix(path) = &self.bind {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A listener on an event loop.
#[derive(Debug)]
pub struct Acceptor {
    fd: AsyncFd<Listener>,
    backoff: Duration,
}

impl Acceptor {
    /// Waits until a connection waits.
    ///
    /// # Errors
    /// When the event loop is gone.
    pub async fn ready(&self) -> io::Result<()> {
        poll_fn(|cx| self.fd.poll_read_ready(cx)).await.map(|mut ready| ready.retain_ready())
    }

    /// The connection that waits, if it still does: one that is already gone is passed over.
    /// Any other error, such as descriptors or memory that run out, is told to `on_error` and costs
    /// a wait of 10 to 100ms; the kernel's backlog waits meanwhile.
    pub async fn accept(&mut self, mut on_error: impl FnMut(&io::Error)) -> Option<Accepted> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let accept = |listener: &Listener| Ok(acceptfrom_with(&listener.socket, flags)?);
        let ready = self.ready().await;
        match ready.and_then(|()| self.fd.try_io(Interest::READABLE, accept)) {
            Ok((socket, peer)) => {
                self.backoff = BACKOFF_MIN;
                Some(match self.fd.get_ref().bind {
                    Bind::Tcp(_) => Accepted::Tcp(socket.into(), peer.and_then(ip)),
                    Bind::Unix(_) => Accepted::Unix(socket.into()),
                })
            }
            // Gone while it waited (accept(2) asks to treat these like EAGAIN).
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => None,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => {
                on_error(&error);
                tokio::time::sleep(self.backoff).await;
                self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
                None
            }
        }
    }
}

impl Accepted {
    /// The client's address, when it has one.
    pub fn peer(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(_, peer) => *peer,
            Self::Unix(_) => None,
        }
    }

    /// Writes what a connection that is refused is told, as far as it goes without waiting, and takes
    /// what has come: with bytes unread a close would be a reset, which may overtake the words.
    pub fn say_last(&self, words: &[u8]) {
        if words.is_empty() {
            return;
        }
        let mut unread = [0; 4096];
        let _ = match self {
            Self::Tcp(socket, _) => (&*socket)
                .write(words)
                .and_then(|_| socket.shutdown(Shutdown::Write))
                .and_then(|()| (&*socket).read(&mut unread)),
            Self::Unix(socket) => (&*socket)
                .write(words)
                .and_then(|_| socket.shutdown(Shutdown::Write))
                .and_then(|()| (&*socket).read(&mut unread)),
        };
    }

    /// Ties the connection to the event loop of the calling thread.
    ///
    /// # Errors
    /// When the connection is already broken.
    pub fn register(self) -> io::Result<Stream> {
        match self {
            Self::Tcp(socket, _) => Ok(Stream::Tcp(tokio::net::TcpStream::from_std(socket)?)),
            Self::Unix(socket) => Ok(Stream::Unix(tokio::net::UnixStream::from_std(socket)?)),
        }
    }
}

fn ip(address: SocketAddrAny) -> Option<IpAddr> {
    SocketAddr::try_from(address).ok().map(|address| address.ip())
}

/// EMFILE, ENFILE, ENOBUFS, ENOMEM (accept(2)): we have run out of something, which is no fault of
/// the other side; waiting helps, trying again at once does not.
pub fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}

/// Whether `path` is a socket that nobody listens on.
fn is_dead_socket(path: &std::path::Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path).is_err()
}

/// What listen(2) is asked for; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 4096;
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_millis(100);
