//! The rest of a request that is too big to be kept: where it ends, whatever the pieces it comes
//! in. Not the front of it, which tells where it goes: that is [`super::frame`]'s.

use super::frame::{DecodeError, number};

/// How far into the rest of a request we are.
#[derive(Debug)]
pub(super) struct Feed {
    /// Arguments that are not over, the one under way included.
    missing: u32,
    /// The largest argument in bytes.
    bulk: u64,
    /// What has come of an argument's `$` line.
    header: Vec<u8>,
    /// Bytes that are missing of the argument under way, its CRLF included; 0 in its `$` line.
    body: u64,
}

impl Feed {
    /// The rest of a request of which `missing` arguments are to come, from the `$` of the first.
    pub(super) fn new(missing: u32, bulk: u64) -> Self {
        Self { missing, bulk, header: Vec::new(), body: 0 }
    }

    /// How many of `bytes` belong to the request; it is over when [`Self::is_over`] says so.
    ///
    /// # Errors
    /// They are not Redis protocol.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<usize, DecodeError> {
        let mut taken = 0;
        while let Some(byte) = bytes.get(taken).filter(|_| self.missing > 0) {
            if self.body == 0 {
                self.header_byte(*byte)?;
                taken += 1;
            } else if self.body > 2 {
                let rest = (bytes.len() - taken) as u64;
                let step = rest.min(self.body - 2);
                self.body -= step;
                taken += usize::try_from(step).unwrap_or(usize::MAX);
            } else {
                let expected = if self.body == 2 { b'\r' } else { b'\n' };
                if *byte != expected {
                    return Err(DecodeError::ExpectedCrlf);
                }
                self.body -= 1;
                taken += 1;
                if self.body == 0 {
                    self.missing -= 1;
                }
            }
        }
        Ok(taken)
    }

    /// Whether all of the request has come.
    pub(super) fn is_over(&self) -> bool {
        self.missing == 0
    }

    fn header_byte(&mut self, byte: u8) -> Result<(), DecodeError> {
        if self.header.is_empty() && byte != b'$' {
            return Err(DecodeError::ExpectedDollar(byte));
        }
        self.header.push(byte);
        if self.header.len() > LONGEST_HEADER {
            return Err(DecodeError::BulkLength);
        }
        if byte == b'\n' {
            let line = number(&self.header, 1, DecodeError::BulkCountTooBig)?;
            let len = line
                .and_then(|(len, _)| len)
                .and_then(|len| u64::try_from(len).ok())
                .filter(|len| *len <= self.bulk)
                .ok_or(DecodeError::BulkLength)?;
            self.body = len + 2;
            self.header.clear();
        }
        Ok(())
    }
}

/// `$`, the digits of any length there is, CRLF.
const LONGEST_HEADER: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    const REST: &[u8] = b"$3\r\na\r\n\r\n$0\r\n\r\n$12\r\n0123456789ab\r\n";

    #[test]
    fn the_end_is_found_at_every_split() {
        let more = [REST, b"*1\r\n$4\r\nPING\r\n"].concat();
        for cut in 0..=REST.len() {
            let mut feed = Feed::new(3, 12);
            assert_eq!(feed.take(&more[..cut]), Ok(cut), "split at {cut}");
            assert_eq!(feed.is_over(), cut == REST.len());
            assert_eq!(feed.take(&more[cut..]), Ok(REST.len() - cut));
            assert!(feed.is_over());
        }
        let mut feed = Feed::new(3, 12);
        for byte in REST.chunks(1) {
            assert!(!feed.is_over());
            assert_eq!(feed.take(byte), Ok(1));
        }
        assert!(feed.is_over());
    }

    #[test]
    fn what_is_no_argument_is_told() {
        for (bytes, error) in [
            (&b"*1\r\n"[..], DecodeError::ExpectedDollar(b'*')),
            (b"$13\r\n", DecodeError::BulkLength),
            (b"$-1\r\n", DecodeError::BulkLength),
            (b"$x\r\n", DecodeError::BulkLength),
            (b"$0000000000000000000000001\r\n", DecodeError::BulkLength),
            (b"$1\r\nabc", DecodeError::ExpectedCrlf),
            (b"$1\r\na\rb", DecodeError::ExpectedCrlf),
        ] {
            assert_eq!(Feed::new(2, 12).take(bytes), Err(error), "{}", bytes.escape_ascii());
        }
    }
}
