//! The arguments of one request, as ranges of the bytes they were read into. Nothing is copied.

/// Where an argument lies: its first byte and its length, relative to the request's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub len: u32,
}

/// The arguments of one request; index 0 is the command's name.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// The whole request in RESP, from its `*` to its last CRLF.
    pub frame: &'a [u8],
    pub spans: &'a [Span],
}

impl<'a> Args<'a> {
    /// How many arguments there are, the name included.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no argument at all.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The argument at `index`.
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        let span = self.spans.get(index)?;
        let start = span.start as usize;
        self.frame.get(start..start.checked_add(span.len as usize)?)
    }

    /// The argument at `index` as what Redis's `string2ll` takes for a number: `+3`, `03` and `-0`
    /// are none.
    pub fn number(&self, index: usize) -> Option<i64> {
        let text = std::str::from_utf8(self.get(index)?).ok()?;
        text.parse().ok().filter(|number| itoa::Buffer::new().format(*number) == text)
    }

    /// Whether the argument at `index` is that word, in any case.
    pub fn is(&self, index: usize, word: &str) -> bool {
        self.get(index).is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
    }

    /// The arguments in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let this = *self;
        (0..this.len()).filter_map(move |i| this.get(i))
    }
}
