//! Whether a connection's bytes are passed on uncounted, and the words after which they are counted
//! again. Not whose bytes: that is [`super::relay`]; nor how they go: that is [`super::turn`].

use std::cell::{Cell, RefCell};

/// Of one connection.
#[derive(Debug, Default)]
pub(super) struct Raw {
    is: Cell<bool>,
    /// What the server says last before its replies are counted again; empty: it stays so.
    mark: RefCell<Vec<u8>>,
}

impl Raw {
    pub(super) fn begin(&self) {
        self.is.set(true);
    }

    pub(super) fn is_on(&self) -> bool {
        self.is.get()
    }

    /// From where the server says `mark` replies are counted again. Nothing may be sent before that.
    pub(super) fn until(&self, mark: Vec<u8>) {
        *self.mark.borrow_mut() = mark;
    }

    /// How many of the bytes that came are the client's now: what may be the beginning of the mark
    /// is not. The whole of it ends the stream.
    pub(super) fn passable(&self, bytes: &[u8]) -> usize {
        let mut mark = self.mark.borrow_mut();
        let most = mark.len().min(bytes.len());
        let held = (1..=most).rev().find(|n| mark.get(..*n).is_some_and(|m| bytes.ends_with(m)));
        let held = held.unwrap_or(0);
        if held > 0 && held == mark.len() {
            mark.clear();
            self.is.set(false);
        }
        bytes.len() - held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_mark_is_kept_back_however_it_comes() {
        let raw = Raw::default();
        raw.begin();
        assert_eq!(raw.passable(b"+OK"), 3, "no mark is awaited");
        raw.until(b"+OK!".to_vec());
        assert_eq!(raw.passable(b"+OK"), 0);
        assert_eq!(raw.passable(b"+OK+O"), 3);
        assert_eq!(raw.passable(b"+O+"), 2);
        assert!(raw.is_on());
        assert_eq!(raw.passable(b"a+OK!"), 1);
        assert!(!raw.is_on());
    }
}
