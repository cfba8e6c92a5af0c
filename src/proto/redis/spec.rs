//! Key specifications, as `COMMAND` tells them since Redis 7: begin at an index or after a keyword,
//! then go on for a range or a counted number. They are data; [`super::keys`] follows them.

use super::flags::spec_flag;

/// One key specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    pub begin: Begin,
    pub find: Find,
    /// Bits of [`spec_flag`].
    pub flags: u16,
}

/// Where the first key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    Index(u32),
    /// After the first such word at or after argument `from` (negative: from the end, backwards).
    Keyword {
        word: &'static str,
        from: i32,
    },
    Unknown,
}

/// Which keys follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Find {
    /// To `last`, relative to the first key or, negative, to the end of the arguments, by `step`.
    /// With `last` -1, `limit` divides: 2 takes the first half of what is there.
    Range {
        last: i32,
        step: u32,
        limit: u32,
    },
    /// The argument `count` places after the beginning says how many, from `first` places after it.
    Counted {
        count: u32,
        first: u32,
        step: u32,
    },
    Unknown,
}

impl Spec {
    /// What `COMMAND` said before Redis 7, and what an operator writes: the first key, the last
    /// one (negative: from the end) and the step. `None` when that means no keys.
    pub(super) fn legacy(first: i32, last: i32, step: i32) -> Option<Self> {
        let at = u32::try_from(first).ok().filter(|&at| at > 0)?;
        let last = if last < 0 { last } else { last.checked_sub(first).filter(|&d| d >= 0)? };
        let step = u32::try_from(step).ok().filter(|&step| step > 0)?;
        let find = Find::Range { last, step, limit: 0 };
        Some(Self { begin: Begin::Index(at), find, flags: spec_flag::RW | spec_flag::UPDATE })
    }
}
