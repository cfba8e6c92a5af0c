//! A connection that is read frame by frame in either version of the protocol. A frame is told in
//! values of RESP2, with what gave it away as one of a version.

use crate::harness::{PATIENCE, Value, bulk};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
};

#[derive(Debug)]
pub(super) struct Wire {
    reader: BufReader<TcpStream>,
}

/// One reply, message or confirmation.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) value: Value,
    /// It came as a push.
    pub(super) push: bool,
    /// Something in it is only in RESP2, or only in RESP3.
    pub(super) two: bool,
    pub(super) three: bool,
}

impl Wire {
    pub(super) fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    pub(super) fn finish_sending(&mut self) {
        self.reader.get_mut().shutdown(Shutdown::Write).unwrap();
    }

    pub(super) fn read(&mut self) -> io::Result<Frame> {
        let mut frame = Frame { value: Value::Nil, push: false, two: false, three: false };
        frame.push = self.reader.fill_buf()?.first() == Some(&b'>');
        frame.value = frame.value_of(&mut self.reader)?;
        Ok(frame)
    }

    /// What comes until the other side closes.
    pub(super) fn read_to_close(&mut self) -> String {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => {
                format!("{}, {error}", rest.escape_ascii())
            }
            _ => rest.escape_ascii().to_string(),
        }
    }
}

impl Frame {
    fn value_of(&mut self, from: &mut impl BufRead) -> io::Result<Value> {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let line = line.strip_suffix("\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let bad = || io::Error::new(io::ErrorKind::InvalidData, line.to_owned());
        let (kind, rest) = line.split_at_checked(1).ok_or_else(bad)?;
        self.three |= "_,#>%~=".contains(kind);
        let number = || rest.parse::<i64>().map_err(|_| bad());
        Ok(match kind {
            "+" => Value::Simple(rest.to_owned()),
            "-" => Value::Error(rest.to_owned()),
            ":" => Value::Int(number()?),
            "," => bulk(rest),
            "_" => Value::Nil,
            "$" | "=" | "*" if rest == "-1" => {
                self.two = true;
                Value::Nil
            }
            "$" | "=" => {
                let mut bytes = vec![0; usize::try_from(number()?).map_err(|_| bad())? + 2];
                from.read_exact(&mut bytes)?;
                if bytes.split_off(bytes.len() - 2) != b"\r\n" {
                    return Err(bad());
                }
                Value::Bulk(bytes)
            }
            "*" | ">" | "~" | "%" => {
                let count = number()? * if kind == "%" { 2 } else { 1 };
                Value::Array((0..count).map(|_| self.value_of(from)).collect::<Result<_, _>>()?)
            }
            _ => return Err(bad()),
        })
    }
}
