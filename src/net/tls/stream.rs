//! One TLS connection over a socket: rustls does the protocol, this moves its bytes. Not the
//! handshake's settings, which are [`super::Server`]'s and [`super::Client`]'s.
//!
//! What is written is encrypted at once, up to [`UNSENT`] bytes, and leaves as far as the socket
//! takes it; the rest leaves with the next write, flush, or read that would wait. So whoever writes
//! without waiting must see to it that a task polls: [`Tls::unsent`] says whether it has to.

use crate::net::stream::Stream;
use rustls::{Connection, ProtocolVersion};
use std::{
    fmt,
    io::{self, BufRead, IoSlice, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncWrite, ReadBuf};

/// A connection whose handshake is done.
pub struct Tls {
    socket: Stream,
    connection: Connection,
    /// Read from the socket and not taken by the connection; without capacity when there is none.
    input: Vec<u8>,
    /// Bytes of `input` already taken.
    taken: usize,
    /// The socket took less than it was given.
    blocked: bool,
}

impl Tls {
    /// `early` was read from the socket already.
    pub(super) fn new(socket: Stream, mut connection: Connection, early: &[u8]) -> Self {
        connection.set_buffer_limit(Some(UNSENT));
        Self { socket, connection, input: early.to_vec(), taken: 0, blocked: false }
    }

    /// The protocol agreed on.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// The host name that the client asked for, on the server's side.
    pub fn sni(&self) -> Option<&str> {
        match &self.connection {
            Connection::Server(connection) => connection.server_name(),
            Connection::Client(_) => None,
        }
    }

    #[cfg(test)]
    pub(super) fn handshake_kind(&self) -> Option<rustls::HandshakeKind> {
        self.connection.handshake_kind()
    }

    /// What is below.
    pub(in crate::net) fn socket(&self) -> &Stream {
        &self.socket
    }

    /// Whether bytes that were accepted have not left.
    pub(in crate::net) fn unsent(&self) -> bool {
        self.connection.wants_write()
    }

    /// Goes on until both sides agree. The tickets that follow a TLS 1.3 handshake leave with what is
    /// written next, or when a read waits: nobody waits for them.
    pub(super) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.connection.is_handshaking() {
            if self.taken < self.input.len() {
                if let Err(error) = self.take_input() {
                    // The alert that says why; nobody waits for it.
                    let _ = self.try_flush();
                    return Poll::Ready(Err(error));
                }
                continue;
            }
            ready!(self.poll_flush(cx))?;
            if ready!(self.poll_fill(cx))? == 0 {
                let text = "the other side closed during the TLS handshake";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
            }
        }
        let tickets = matches!(self.connection, Connection::Server(_))
            && self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        if tickets { Poll::Ready(Ok(())) } else { self.poll_flush(cx) }
    }

    pub(in crate::net) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        loop {
            let mut reader = self.connection.reader();
            match reader.fill_buf() {
                Ok([]) => return Poll::Ready(Ok(())),
                Ok(plain) => {
                    let n = plain.len().min(buf.remaining());
                    buf.put_slice(plain.get(..n).unwrap_or_default());
                    reader.consume(n);
                    if buf.remaining() == 0 {
                        return Poll::Ready(Ok(()));
                    }
                    continue;
                }
                Err(_) if buf.filled().len() > before => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            if self.taken < self.input.len() {
                if let Err(error) = self.take_input() {
                    let _ = self.try_flush();
                    return Poll::Ready(Err(error));
                }
            } else if self.poll_fill(cx)?.is_pending() {
                // What is to be said must not wait for the other side to speak.
                if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                    return Poll::Ready(Err(error));
                }
                return Poll::Pending;
            }
        }
    }

    /// Resolves when a read may give something; it may still find that it was only half a record.
    pub(in crate::net) fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let waits = matches!(self.connection.reader().fill_buf(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        if !waits || self.taken < self.input.len() {
            return Poll::Ready(Ok(()));
        }
        let ready = self.socket.poll_read_ready(cx);
        if ready.is_pending()
            && let Poll::Ready(Err(error)) = self.poll_flush(cx)
        {
            return Poll::Ready(Err(error));
        }
        ready
    }

    /// Accepts some of `parts`; what is written at once shares its records.
    ///
    /// # Errors
    /// `WouldBlock` while what was accepted before has not left.
    pub(in crate::net) fn try_write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.blocked {
            self.try_flush()?;
        }
        let n = self.connection.writer().write_vectored(parts)?;
        match self.try_flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ if n == 0 && parts.iter().any(|part| !part.is_empty()) => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            _ => Ok(n),
        }
    }

    pub(in crate::net) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.try_write(parts) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.poll_flush(cx))?;
                }
                done => return Poll::Ready(done),
            }
        }
    }

    /// Resolves when all that was accepted has left.
    pub(in crate::net) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.try_flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_write_ready(cx))?;
                }
                done => return Poll::Ready(done),
            }
        }
    }

    /// Says that nothing more comes; the other side may go on.
    pub(in crate::net) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.send_close_notify();
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    /// The same without waiting; what the socket does not take now is lost.
    pub(in crate::net) fn say_goodbye(&mut self) {
        self.connection.send_close_notify();
        let _ = self.try_flush();
    }

    /// Writes all that was accepted.
    ///
    /// # Errors
    /// `WouldBlock` when the socket took less.
    fn try_flush(&mut self) -> io::Result<()> {
        self.blocked = false;
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Wire(&mut self.socket)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) => {
                    self.blocked = error.kind() == io::ErrorKind::WouldBlock;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Reads into `input`, which must have been taken; 0 at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        ready!(self.socket.poll_read_ready(cx))?;
        self.input.reserve(READ_SIZE);
        let read = tokio_util::io::poll_read_buf(Pin::new(&mut self.socket), cx, &mut self.input);
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        let n = ready!(read)?;
        if n == 0 {
            // This is how it is told of the end.
            self.connection.read_tls(&mut io::empty())?;
        }
        Poll::Ready(Ok(n))
    }

    /// Hands over what was read, until there is plaintext to be fetched: more is not taken then.
    fn take_input(&mut self) -> io::Result<()> {
        while let Some(mut rest) = self.input.get(self.taken..).filter(|rest| !rest.is_empty()) {
            let n = self.connection.read_tls(&mut rest)?;
            self.taken += n;
            let state = self.connection.process_new_packets();
            let state = state.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if n == 0 {
                // What comes behind the end is nobody's.
                break;
            }
            if state.plaintext_bytes_to_read() > 0 && self.taken < self.input.len() {
                return Ok(());
            }
        }
        self.input = Vec::new();
        self.taken = 0;
        Ok(())
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// Where rustls writes to.
struct Wire<'a>(&'a mut Stream);

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes that are encrypted and not taken by the socket: four records of the largest size.
pub(in crate::net) const UNSENT: usize = 64 * 1024;
/// One read takes a record of the largest size (RFC 8446, section 5.2) whole.
const READ_SIZE: usize = 16 * 1024 + 512;
