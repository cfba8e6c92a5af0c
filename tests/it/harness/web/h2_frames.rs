//! HTTP/2 frames by hand (RFC 9113) over clear text, for what no good client does. No Huffman codes
//! and no table: what it sends is literal, what it gets it does not decode.

use super::super::PATIENCE;
use std::{
    io::{self, BufReader, Read, Write},
    net::TcpStream,
};

/// A connection whose preface and settings are sent.
#[derive(Debug)]
pub(crate) struct RawH2 {
    stream: BufReader<TcpStream>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const CONTINUATION: u8 = 9;

    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const ACK: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;

    /// The error code of a RST_STREAM or a GOAWAY (RFC 9113, 7).
    pub(crate) fn error(&self) -> Option<u32> {
        let at = match self.kind {
            Self::RST_STREAM => 0,
            Self::GOAWAY => 4,
            _ => return None,
        };
        let code = self.payload.get(at..at + 4)?;
        Some(u32::from_be_bytes(code.try_into().unwrap()))
    }
}

/// A frame's bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as HPACK's literals without indexing, names and values as they are (RFC 7541, 6.2.2).
pub(crate) fn literal(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    let text = |block: &mut Vec<u8>, text: &str| {
        // An integer with a prefix of 7 bits (RFC 7541, 5.1).
        match text.len().checked_sub(127) {
            None => block.push(u8::try_from(text.len()).unwrap()),
            Some(mut rest) => {
                block.push(127);
                while rest >= 128 {
                    block.push(u8::try_from(rest % 128).unwrap() | 128);
                    rest /= 128;
                }
                block.push(u8::try_from(rest).unwrap());
            }
        }
        block.extend_from_slice(text.as_bytes());
    };
    for (name, value) in fields {
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

impl RawH2 {
    pub(crate) fn open(address: &str) -> Self {
        let stream = TcpStream::connect_timeout(&address.parse().unwrap(), PATIENCE).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut conn = Self { stream: BufReader::new(stream) };
        conn.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        conn.send(&frame(Frame::SETTINGS, 0, 0, &[])).unwrap();
        conn
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// The head of a GET without a body; streams are 1, 3, 5, ...
    pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
        let fields =
            [(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", path)];
        frame(Frame::HEADERS, Frame::END_STREAM | Frame::END_HEADERS, stream, &literal(&fields))
    }

    /// A frame; settings and pings are acknowledged.
    pub(crate) fn next(&mut self) -> io::Result<Frame> {
        let next = self.read()?;
        if [Frame::SETTINGS, Frame::PING].contains(&next.kind) && next.flags & Frame::ACK == 0 {
            // It may have closed meanwhile.
            let _ = self.send(&frame(
                next.kind,
                Frame::ACK,
                0,
                match next.kind {
                    Frame::PING => &next.payload,
                    _ => &[],
                },
            ));
        }
        Ok(next)
    }

    fn read(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head)?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload)?;
        Ok(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// The next frame of that kind, others passed over.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.next().unwrap_or_else(|error| panic!("no frame {kind}: {error}"));
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Every frame until the other side closes; a reset counts as a close.
    pub(crate) fn read_to_close(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            match self.next() {
                Ok(frame) => frames.push(frame),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::UnexpectedEof
                            | io::ErrorKind::ConnectionReset
                            | io::ErrorKind::BrokenPipe
                    ) =>
                {
                    return frames;
                }
                Err(error) => panic!("not closed: {error}"),
            }
        }
    }
}
