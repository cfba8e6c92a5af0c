//! One connection, whatever carries it: an unsplit, closed enum that is `Send`. Not what is said
//! on it.

use super::{
    addr::Address,
    tls::{self, Tls},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt},
};
use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};

/// A connected socket registered with the event loop of the thread that made it.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Encrypted, over one of the others.
    Tls(Box<Tls>),
}

/// Where a connection's ends are, as CLIENT LIST of Redis tells it: `address:port`, or `path:0` for
/// both ends of a unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends {
    pub peer: String,
    pub local: String,
    pub descriptor: i32,
    pub is_unix: bool,
}

/// Dials `address`; a name is resolved now, and every address it has is tried in turn. A TCP peer
/// that acknowledges nothing for 30s is then given up: a backend reads, unlike some clients.
///
/// # Errors
/// The last attempt's error, or `TimedOut` after `timeout` (which covers all of it).
pub async fn connect(address: &Address, timeout: Duration) -> io::Result<Stream> {
    let dial = async {
        match address {
            Address::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
            Address::Tcp { host, port } => {
                let host = host.trim_matches(['[', ']']);
                let socket = TcpStream::connect((host, *port)).await?;
                if socket.local_addr()? == socket.peer_addr()? {
                    // Nobody listens, and the kernel chose that very port for our end (TCP's
                    // simultaneous open): what we say would come back as the answer.
                    return Err(io::Error::new(
                        io::ErrorKind::ConnectionRefused,
                        "connected to itself: nobody listens there",
                    ));
                }
                sockopt::set_tcp_user_timeout(&socket, USER_TIMEOUT_MS)?;
                Stream::from_tcp(socket)
            }
        }
    };
    match tokio::time::timeout(timeout, dial).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("timed out after {}ms", timeout.as_millis()),
        )),
    }
}

/// Sets what every TCP socket of ours has: no delay, keepalive (idle 30s, then every 10s, 3 times).
///
/// # Errors
/// When the socket is already broken.
pub fn configure(socket: impl AsFd) -> io::Result<()> {
    let socket = socket.as_fd();
    sockopt::set_tcp_nodelay(socket, true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES)?;
    Ok(())
}

impl Stream {
    /// Takes a TCP socket in and sets what every one of ours has.
    ///
    /// # Errors
    /// When the socket is already broken.
    pub fn from_tcp(socket: TcpStream) -> io::Result<Self> {
        configure(&socket)?;
        Ok(Self::Tcp(socket))
    }

    /// Waits for a dialled peer that does not read for as long as it is there: the limit on what is not
    /// acknowledged counts a full receive buffer too (tcp(7), `TCP_USER_TIMEOUT`). One that is gone
    /// is noticed by keepalive, or by the kernel's retries (`tcp_retries2`) when bytes are under way.
    ///
    /// # Errors
    /// When the socket is already broken.
    pub fn wait_for_slow_reader(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => Ok(sockopt::set_tcp_user_timeout(socket, 0)?),
            Self::Unix(_) => Ok(()),
            Self::Tls(tls) => tls.socket().wait_for_slow_reader(),
        }
    }

    /// Writes what the socket takes now, without waiting; under TLS some more, which is
    /// [`Self::unsent`] then.
    ///
    /// # Errors
    /// `WouldBlock` when it takes nothing; then wait with [`Self::poll_write_ready`].
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_write(bytes),
            Self::Unix(socket) => socket.try_write(bytes),
            Self::Tls(tls) => tls.try_write(&[IoSlice::new(bytes)]),
        }
    }

    /// The same with several pieces.
    ///
    /// # Errors
    /// Those of [`Self::try_write`].
    pub fn try_write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_write_vectored(parts),
            Self::Unix(socket) => socket.try_write_vectored(parts),
            Self::Tls(tls) => tls.try_write(parts),
        }
    }

    /// Bytes that were taken and have not left: 0 unless it is encrypted, and then as many as there
    /// may be at most. They leave when a task flushes, or polls to read or to write.
    pub fn unsent(&self) -> usize {
        match self {
            Self::Tls(tls) if tls.unsent() => tls::UNSENT,
            Self::Tcp(_) | Self::Unix(_) | Self::Tls(_) => 0,
        }
    }

    /// Resolves when a read may give something, the end or an error included.
    pub fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => socket.poll_read_ready(cx),
            Self::Unix(socket) => socket.poll_read_ready(cx),
            Self::Tls(tls) => tls.poll_read_ready(cx),
        }
    }

    /// Resolves when the other side sends no more and all that it sent was read; for somebody who
    /// reads nothing now. Never under TLS, where only a read can tell.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let peeked = match self {
                Self::Tcp(socket) => {
                    let _ready = ready!(socket.poll_read_ready(cx));
                    socket.try_io(Interest::READABLE, || peek(socket.as_fd()))
                }
                Self::Unix(socket) => {
                    let _ready = ready!(socket.poll_read_ready(cx));
                    socket.try_io(Interest::READABLE, || peek(socket.as_fd()))
                }
                Self::Tls(_) => return Poll::Pending,
            };
            match peeked {
                Ok(1..) => return Poll::Pending,
                // It was not ready after all, and is waited for anew.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
    }

    /// Whether there are bytes to read, as far as the event loop has told. Never under TLS. Nobody is
    /// woken by reads afterwards.
    pub fn has_unread(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let fd = match self {
            Self::Tcp(socket) if socket.poll_read_ready(&mut cx).is_ready() => {
                TcpStream::as_fd(socket)
            }
            Self::Unix(socket) if socket.poll_read_ready(&mut cx).is_ready() => {
                UnixStream::as_fd(socket)
            }
            Self::Tcp(_) | Self::Unix(_) | Self::Tls(_) => return false,
        };
        matches!(peek(fd), Ok(1..))
    }

    /// Whether the connection is known to be gone: reset, or closed both ways. One whose other side
    /// has finished sending and may still read is not.
    pub fn is_broken(&self) -> bool {
        let nothing = PollFlags::empty();
        let mut polled = [match self {
            Self::Tcp(socket) => PollFd::new(socket, nothing),
            Self::Unix(socket) => PollFd::new(socket, nothing),
            Self::Tls(tls) => return tls.socket().is_broken(),
        }];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Errors and hang-ups are told unasked (poll(2)).
        poll(&mut polled, Some(&now)).is_ok()
            && polled.iter().any(|one| one.revents().intersects(PollFlags::ERR | PollFlags::HUP))
    }

    /// Whether the other side is known to send no more, even when there are bytes of it to read.
    pub fn is_finished(&self) -> bool {
        let mut polled = [match self {
            Self::Tcp(socket) => PollFd::new(socket, PollFlags::RDHUP),
            Self::Unix(socket) => PollFd::new(socket, PollFlags::RDHUP),
            Self::Tls(tls) => return tls.socket().is_finished(),
        }];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let ended = PollFlags::RDHUP | PollFlags::ERR | PollFlags::HUP;
        poll(&mut polled, Some(&now)).is_ok()
            && polled.iter().any(|one| one.revents().intersects(ended))
    }

    /// Resolves within 100ms of [`Self::is_broken`], and never else.
    pub async fn broken(&self) {
        while !self.is_broken() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Where its two ends are.
    pub fn ends(&self) -> Ends {
        match self {
            Self::Tcp(socket) => Ends {
                peer: socket.peer_addr().map_or_else(|_| String::new(), |peer| peer.to_string()),
                local: socket
                    .local_addr()
                    .map_or_else(|_| String::new(), |local| local.to_string()),
                descriptor: socket.as_raw_fd(),
                is_unix: false,
            },
            Self::Unix(socket) => {
                let bound = socket.local_addr().ok();
                let path = bound.as_ref().and_then(|bound| bound.as_pathname());
                let path = path.map_or_else(String::new, |path| path.display().to_string());
                let end = format!("{path}:0");
                let descriptor = socket.as_raw_fd();
                Ends { peer: end.clone(), local: end, descriptor, is_unix: true }
            }
            Self::Tls(tls) => tls.socket().ends(),
        }
    }

    /// The socket, when what is written to it is what the other side gets.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(socket) => Some(socket),
            Self::Unix(_) | Self::Tls(_) => None,
        }
    }

    /// Resolves when [`Self::try_write`] may go on, and nothing is [`Self::unsent`].
    pub fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => socket.poll_write_ready(cx),
            Self::Unix(socket) => socket.poll_write_ready(cx),
            Self::Tls(tls) => tls.poll_flush(cx),
        }
    }

    /// As [`AsyncWrite::poll_write_vectored`], of what is nothing but the end to follow: with TCP a packet
    /// that is not full waits for [`Self::push`], so that both leave in one.
    pub fn poll_write_last(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut room = [0; GATHERED];
        let (Self::Tcp(socket), Some(bytes)) = (&mut *self, gather(slices, &mut room)) else {
            return Pin::new(self).poll_write_vectored(cx, slices);
        };
        loop {
            ready!(socket.poll_write_ready(cx))?;
            let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
            match socket.try_io(Interest::WRITABLE, || Ok(send(&*socket, bytes, flags)?)) {
                // It was not ready after all, and is waited for anew.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    /// Lets what [`Self::poll_write_last`] has left behind go, with the end of what we send when `ends`.
    pub fn push(&self, ends: bool) {
        if let Self::Tcp(socket) = self {
            // Whoever has broken the connection is told so by what comes next.
            let _ = match ends {
                true => shutdown(socket, Shutdown::Write),
                // tcp(7): sends what waits.
                false => sockopt::set_tcp_nodelay(socket, true),
            };
        }
    }

    /// Whether it is encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The protocol that both ends agreed on under TLS.
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Tls(tls) => tls.alpn(),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }

    /// The host name that the client asked for under TLS.
    pub fn sni(&self) -> Option<&str> {
        match self {
            Self::Tls(tls) => tls.sni(),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }

    /// Tells the other side, without waiting, that all was said: under TLS an end that is not told
    /// may be somebody's cut.
    pub fn say_goodbye(&mut self) {
        if let Self::Tls(tls) = self {
            tls.say_goodbye();
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(tls) => tls.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(tls) => tls.poll_write(cx, &[IoSlice::new(bytes)]),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(bytes) = gather(slices, &mut [0; GATHERED]) {
            return self.poll_write(cx, bytes);
        }
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Self::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Self::Tls(tls) => tls.poll_write(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => tls.poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(tls) => tls.poll_shutdown(cx),
        }
    }
}

/// Several pieces as one: writev(2) has more to look at than send(2), more than the copy of little costs.
fn gather<'a>(slices: &'a [IoSlice<'_>], room: &'a mut [u8; GATHERED]) -> Option<&'a [u8]> {
    if let [only] = slices {
        return Some(only);
    }
    let total: usize = slices.iter().map(|slice| slice.len()).sum();
    let mut free = room.get_mut(..total)?;
    for slice in slices {
        let (taken, rest) = free.split_at_mut(slice.len());
        taken.copy_from_slice(slice);
        free = rest;
    }
    room.get(..total)
}

/// How many bytes there are to read, as far as one goes; 0: the other side sends no more.
fn peek(fd: BorrowedFd<'_>) -> io::Result<usize> {
    Ok(recv(fd, &mut [0], RecvFlags::PEEK)?.0)
}

/// An event loop tells no waiter of a hang-up beside what can be read already, so we ask.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Bytes of several pieces that are written as one: a small reply with its head.
const GATHERED: usize = 1024;
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
const USER_TIMEOUT_MS: u32 = 30_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{addr::Bind, listener::Listener};
    use tokio::io::AsyncReadExt;

    fn options(stream: &Stream) -> (bool, bool, Duration, Duration, u32, u32) {
        let Stream::Tcp(socket) = stream else { panic!("a TCP socket") };
        (
            socket.nodelay().unwrap(),
            sockopt::socket_keepalive(socket).unwrap(),
            sockopt::tcp_keepidle(socket).unwrap(),
            sockopt::tcp_keepintvl(socket).unwrap(),
            sockopt::tcp_keepcnt(socket).unwrap(),
            sockopt::tcp_user_timeout(socket).unwrap(),
        )
    }

    #[tokio::test]
    async fn both_ends_of_ours_do_not_delay_and_notice_a_dead_peer() {
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let Bind::Tcp(address) = listener.local() else { panic!("a TCP listener") };
        let mut acceptor = listener.register().unwrap();
        let address = address.to_string().parse().unwrap();
        let dialled = connect(&address, Duration::from_secs(5)).await.unwrap();
        let accepted = acceptor.accept(|error| panic!("{error}")).await.unwrap();
        let wanted =
            |user_timeout| (true, true, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, 3, user_timeout);
        assert_eq!(options(&dialled), wanted(30_000));
        // A client may pause for as long as it likes: a full receive buffer counts as silence.
        assert_eq!(options(&accepted.register().unwrap()), wanted(0));
    }

    /// A close with bytes of the other side unread is a reset: what waits for the end must leave before.
    #[tokio::test]
    async fn the_last_bytes_leave_with_the_end_or_when_they_are_pushed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for (ends, pieces) in [(true, 1), (false, 1), (true, 2), (false, 2)] {
            let (theirs, ours) = tokio::join!(TcpStream::connect(address), listener.accept());
            let (mut theirs, mut ours) =
                (theirs.unwrap(), Stream::from_tcp(ours.unwrap().0).unwrap());
            let slices = vec![IoSlice::new(b"last"); pieces];
            let written = std::future::poll_fn(|cx| ours.poll_write_last(cx, &slices)).await;
            assert_eq!(written.unwrap(), 4 * pieces);
            let mut read = vec![0; 4 * pieces];
            let early = theirs.read_exact(&mut read);
            let early = tokio::time::timeout(Duration::from_millis(30), early).await;
            assert!(early.is_err(), "it left without the end");
            ours.push(ends);
            theirs.read_exact(&mut read).await.unwrap();
            assert_eq!(read, b"last".repeat(pieces));
            let end = tokio::time::timeout(Duration::from_millis(30), theirs.read(&mut [0])).await;
            assert_eq!(end.is_ok_and(|read| matches!(read, Ok(0))), ends);
        }
    }

    #[tokio::test]
    async fn a_reset_is_told_from_an_end_of_sending() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pair = async || {
            let (theirs, ours) = tokio::join!(TcpStream::connect(address), listener.accept());
            (theirs.unwrap(), Stream::from_tcp(ours.unwrap().0).unwrap())
        };
        let (mut theirs, mut ours) = pair().await;
        assert!(!ours.is_broken() && !ours.is_finished());
        tokio::io::AsyncWriteExt::write_all(&mut theirs, b"unread").await.unwrap();
        tokio::io::AsyncWriteExt::shutdown(&mut theirs).await.unwrap();
        std::future::poll_fn(|cx| ours.poll_read_ready(cx)).await.unwrap();
        assert!(!ours.is_broken() && ours.is_finished());
        socket2::SockRef::from(&theirs).set_linger(Some(Duration::ZERO)).unwrap();
        drop(theirs);
        tokio::time::timeout(Duration::from_secs(5), ours.broken()).await.unwrap();

        let (theirs, ours) = UnixStream::pair().unwrap();
        let ours = Stream::Unix(ours);
        assert!(!ours.is_broken());
        drop(theirs);
        assert!(ours.is_broken());
    }
}
