//! Where the keys of a request are: the positions of its arguments that are keys, told by the
//! command's specification. It neither hashes keys nor compares their shards.
//!
//! Specifications are Redis 7's (`COMMAND`, "key specifications"): begin at an index or after a
//! keyword, then go on for a range or a counted number. Four commands have keys that no
//! specification can tell; they have a rule of their own.

use super::{args::Args, table::Command};

/// How the keys of a command are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    None,
    /// One key, at that argument.
    First(u32),
    /// From `first` to `last` by `step`; a negative `last` counts from the end, -1 the last one.
    Range {
        first: u32,
        last: i32,
        step: u32,
    },
    /// By the command's specifications.
    Specs,
    /// SORT, SORT_RO: argument 1, and what follows the last `STORE`.
    Sort,
    /// GEORADIUS, GEORADIUSBYMEMBER: argument 1, and what follows the last `STORE` and the last
    /// `STOREDIST` among the options, which begin at that argument.
    GeoRadius {
        options: u32,
    },
    /// MIGRATE: argument 3, or, when it is empty, all that follows `KEYS`.
    Migrate,
    /// DEBUG OBJECT and its like.
    Debug,
}

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

/// What is done to the keys of a specification, as bits.
pub mod spec_flag {
    pub const RO: u16 = 1;
    pub const RW: u16 = 1 << 1;
    pub const OW: u16 = 1 << 2;
    pub const RM: u16 = 1 << 3;
    pub const ACCESS: u16 = 1 << 4;
    pub const UPDATE: u16 = 1 << 5;
    pub const INSERT: u16 = 1 << 6;
    pub const DELETE: u16 = 1 << 7;
    pub const NOT_KEY: u16 = 1 << 8;
    pub const INCOMPLETE: u16 = 1 << 9;
    pub const VARIABLE: u16 = 1 << 10;

    /// The server's words, by bit from 0.
    pub const NAMES: [&str; 11] = [
        "RO",
        "RW",
        "OW",
        "RM",
        "access",
        "update",
        "insert",
        "delete",
        "not_key",
        "incomplete",
        "variable_flags",
    ];
}

/// The arguments do not say which keys there are. The server refuses such a request in its own
/// words, on whichever node it arrives, and does nothing: forward it to any shard's primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    #[error("the number of keys is not a number, is negative, or is more than there are arguments")]
    Count,
    #[error("there are fewer arguments than keys")]
    Missing,
}

/// The positions of the keys, in the order of the specification. Nothing is allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyIndexes {
    runs: [Run; MAX_SPECS],
}

/// Specifications of one command at most; GEORADIUS has the most of all known, three.
pub const MAX_SPECS: usize = 4;

/// Positions `next`, `next + step` and so on, below `end`; none when `next >= end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Run {
    next: usize,
    end: usize,
    /// 0 only in an empty run.
    step: usize,
}

/// The positions of the keys of `args`, a request of `command`.
///
/// # Errors
/// When the arguments cannot be a valid request of that command.
#[inline]
pub fn keys(command: &Command, args: Args<'_>) -> Result<KeyIndexes, KeysError> {
    let argc = args.len();
    match command.keys {
        Keys::None => Ok(KeyIndexes::default()),
        Keys::First(at) => Run::one(at as usize, argc).map(KeyIndexes::of),
        Keys::Range { first, last, step } => {
            let distance = last.unsigned_abs() as usize;
            let last = if last < 0 { argc.checked_sub(distance) } else { Some(distance) };
            Run::range(first as usize, last, step as usize, argc).map(KeyIndexes::of)
        }
        Keys::Specs => by_specs(&command.specs, args),
        Keys::Sort => sort(args),
        Keys::GeoRadius { options } => geo_radius(options as usize, args),
        Keys::Migrate => migrate(args),
        Keys::Debug => debug(args),
    }
}

impl KeyIndexes {
    const fn of(run: Run) -> Self {
        let none = Run { next: 0, end: 0, step: 0 };
        Self { runs: [run, none, none, none] }
    }

    fn push(&mut self, run: Run) {
        if let Some(free) = self.runs.iter_mut().find(|run| run.is_empty()) {
            *free = run;
        }
    }

    /// The first one.
    #[inline]
    pub fn first(&self) -> Option<usize> {
        let mut this = *self;
        this.next()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.runs.iter().all(Run::is_empty)
    }
}

impl Iterator for KeyIndexes {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let run = self.runs.iter_mut().find(|run| !run.is_empty())?;
        let at = run.next;
        run.next += run.step;
        Some(at)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = self.runs.iter().map(Run::len).sum();
        (len, Some(len))
    }
}

impl ExactSizeIterator for KeyIndexes {}

impl Run {
    #[inline]
    const fn is_empty(&self) -> bool {
        self.next >= self.end
    }

    fn len(&self) -> usize {
        if self.is_empty() { 0 } else { (self.end - self.next).div_ceil(self.step.max(1)) }
    }

    #[inline]
    const fn one(at: usize, argc: usize) -> Result<Self, KeysError> {
        if at < argc {
            Ok(Self { next: at, end: at + 1, step: 1 })
        } else {
            Err(KeysError::Missing)
        }
    }

    /// From `first` to `last`, which must be there.
    #[inline]
    fn range(
        first: usize,
        last: Option<usize>,
        step: usize,
        argc: usize,
    ) -> Result<Self, KeysError> {
        match last {
            Some(last) if first <= last && last < argc => {
                Ok(Self { next: first, end: last + 1, step: step.max(1) })
            }
            _ => Err(KeysError::Missing),
        }
    }
}

fn by_specs(specs: &[Spec], args: Args<'_>) -> Result<KeyIndexes, KeysError> {
    let mut found = KeyIndexes::default();
    for spec in specs.iter().take(MAX_SPECS) {
        if let Some(begin) = begin(spec.begin, args)
            && let Some(run) = find(spec.find, begin, args)?
        {
            found.push(run);
        }
    }
    Ok(found)
}

/// Where the first key would be; `None` when the word is not there.
fn begin(begin: Begin, args: Args<'_>) -> Option<usize> {
    match begin {
        Begin::Index(at) => usize::try_from(at).ok(),
        Begin::Keyword { word, from } => {
            let is_word = |&at: &usize| is(args, at, word);
            let distance = usize::try_from(from.unsigned_abs()).ok()?;
            let at = if from < 0 {
                (1..=args.len().checked_sub(distance)?).rev().find(is_word)
            } else {
                (distance..args.len()).find(is_word)
            };
            at.map(|at| at + 1)
        }
        Begin::Unknown => None,
    }
}

/// The keys from `begin` on; `None` when the specification cannot tell.
fn find(find: Find, begin: usize, args: Args<'_>) -> Result<Option<Run>, KeysError> {
    let argc = args.len();
    match find {
        Find::Range { last, step, limit } => {
            let distance = last.unsigned_abs() as usize;
            let last = match last {
                0.. => begin.checked_add(distance),
                -1 if limit > 1 => {
                    let there = argc.saturating_sub(begin) / limit as usize;
                    (begin + there).checked_sub(1)
                }
                _ => argc.checked_sub(distance),
            };
            Run::range(begin, last, step as usize, argc).map(Some)
        }
        Find::Counted { count, first, step } => {
            let at = begin.checked_add(count as usize).ok_or(KeysError::Missing)?;
            let count = number(args.get(at).ok_or(KeysError::Missing)?).ok_or(KeysError::Count)?;
            let first = begin.checked_add(first as usize).ok_or(KeysError::Missing)?;
            let step = (step as usize).max(1);
            // The last key must be there; whether what belongs to it is, the server checks.
            let span = count.checked_mul(step).ok_or(KeysError::Count)?;
            let end = first.checked_add(span).ok_or(KeysError::Count)?;
            if count == 0 {
                return Ok(Some(Run::default()));
            }
            if end - step >= argc {
                return Err(KeysError::Count);
            }
            Ok(Some(Run { next: first, end, step }))
        }
        Find::Unknown => Ok(None),
    }
}

/// A count of keys; what servers of any age take for one.
fn number(text: &[u8]) -> Option<usize> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Whether the argument at `at` is that word, in any case.
fn is(args: Args<'_>, at: usize, word: &str) -> bool {
    args.get(at).is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
}

/// An option of SORT, as the server walks them: what it is and how many arguments follow it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SortOption {
    Pattern,
    Store,
    Limit,
    Other,
}

/// The options of a SORT, each with its position.
fn sort_options(args: Args<'_>) -> impl Iterator<Item = (SortOption, usize)> {
    let mut at = 2;
    std::iter::from_fn(move || {
        let left = args.len().checked_sub(at)?.checked_sub(1)?;
        let option = if is(args, at, "LIMIT") && left >= 2 {
            SortOption::Limit
        } else if left >= 1 && (is(args, at, "BY") || is(args, at, "GET")) {
            SortOption::Pattern
        } else if left >= 1 && is(args, at, "STORE") {
            SortOption::Store
        } else {
            SortOption::Other
        };
        let here = at;
        at += match option {
            SortOption::Limit => 3,
            SortOption::Pattern | SortOption::Store => 2,
            SortOption::Other => 1,
        };
        Some((option, here))
    })
}

fn sort(args: Args<'_>) -> Result<KeyIndexes, KeysError> {
    let mut found = KeyIndexes::of(Run::one(1, args.len())?);
    let store = sort_options(args).filter(|&(option, _)| option == SortOption::Store).last();
    if let Some((_, at)) = store {
        found.push(Run::one(at + 1, args.len())?);
    }
    Ok(found)
}

/// The patterns of a SORT that read other keys than its own: `BY weight_*`, `GET obj_*->field`.
/// Not `BY nosort` and not `GET #`. With several shards every one must have a hash tag without
/// `*` that hashes to the slot of the key (redis.md T26), else the request must be refused.
pub fn pattern_keys<'a>(command: &Command, args: Args<'a>) -> impl Iterator<Item = &'a [u8]> {
    let args = if command.keys == Keys::Sort { args } else { Args { frame: &[], spans: &[] } };
    sort_options(args)
        .filter(|&(option, _)| option == SortOption::Pattern)
        .filter_map(move |(_, at)| args.get(at + 1))
        .filter(|pattern| pattern.contains(&b'*'))
}

fn geo_radius(options: usize, args: Args<'_>) -> Result<KeyIndexes, KeysError> {
    let mut found = KeyIndexes::of(Run::one(1, args.len())?);
    // The server writes to the last one named and counts both kinds as keys: so do we.
    let (mut store, mut store_dist) = (None, None);
    let mut at = options;
    while at + 1 < args.len() {
        let option = if is(args, at, "STORE") {
            &mut store
        } else if is(args, at, "STOREDIST") {
            &mut store_dist
        } else {
            at += 1;
            continue;
        };
        *option = Some(at + 1);
        at += 2;
    }
    for at in [store, store_dist].into_iter().flatten() {
        found.push(Run::one(at, args.len())?);
    }
    Ok(found)
}

fn migrate(args: Args<'_>) -> Result<KeyIndexes, KeysError> {
    let mut at = 6;
    while at < args.len() {
        if is(args, at, "KEYS") && args.get(3) == Some(b"") {
            let last = args.len().checked_sub(1);
            return Run::range(at + 1, last, 1, args.len()).map(KeyIndexes::of);
        }
        at += if is(args, at, "AUTH") {
            2
        } else if is(args, at, "AUTH2") {
            3
        } else {
            1
        };
    }
    Run::one(3, args.len()).map(KeyIndexes::of)
}

fn debug(args: Args<'_>) -> Result<KeyIndexes, KeysError> {
    const ONE_KEY: [&str; 6] =
        ["OBJECT", "SDSLEN", "ZIPLIST", "LISTPACK", "QUICKLIST", "HTSTATS-KEY"];
    if ONE_KEY.iter().any(|word| is(args, 1, word)) {
        return Run::one(2, args.len()).map(KeyIndexes::of);
    }
    if is(args, 1, "DIGEST-VALUE") {
        return Run::range(2, args.len().checked_sub(1), 1, args.len()).map(KeyIndexes::of);
    }
    Ok(KeyIndexes::default())
}

/// Whether an XREAD or XREADGROUP has the option `BLOCK`: as an option, not as the name of a
/// group or consumer, and before `STREAMS`.
pub(super) fn has_block(args: Args<'_>) -> bool {
    let mut at = 1;
    while at < args.len() {
        if is(args, at, "BLOCK") {
            return true;
        }
        at += if is(args, at, "STREAMS") {
            return false;
        } else if is(args, at, "GROUP") {
            3
        } else if is(args, at, "NOACK") {
            1
        } else {
            2
        };
    }
    false
}

impl Keys {
    /// The short form of specifications.
    pub(super) const fn of(specs: &[Spec]) -> Self {
        match specs {
            [] => Self::None,
            &[
                Spec {
                    begin: Begin::Index(first), find: Find::Range { last, step, limit: 0 }, ..
                },
            ] => match last {
                0 => Self::First(first),
                ..0 => Self::Range { first, last, step },
                1.. => Self::Range { first, last: last.saturating_add_unsigned(first), step },
            },
            _ => Self::Specs,
        }
    }
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
