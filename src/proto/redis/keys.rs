//! Where the keys of a request are: the positions of its arguments that are keys, told by the
//! command's specification. It neither hashes keys nor compares their shards.
//!
//! They follow from the command's specifications ([`super::spec`]). A few commands have keys that
//! no specification can tell; they have a rule of their own (`options`).

use super::{
    args::Args,
    flags::flag,
    options::{self, is},
    spec::{Begin, Find, Spec},
    table::Command,
};
pub use options::pattern_keys;

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
    /// SORT, SORT_RO: argument 1, and, if it may store, what follows the last `STORE`.
    Sort {
        store: bool,
    },
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

/// The arguments do not say which keys there are. The server refuses such a request in its own
/// words, on whichever node it arrives, and does nothing: forward it to any shard's primary, as a
/// Redis Cluster runs it on whichever node was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    #[error("the number of keys is not a number, not positive, or more than there are arguments")]
    Count,
    #[error("there are fewer arguments than keys")]
    Missing,
    #[error("MIGRATE has both a key and KEYS")]
    Both,
}

/// The positions of the keys, in the order of the specification. Nothing is allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyIndexes {
    runs: [Run; MAX_SPECS],
}

/// Specifications of one command at most; GEORADIUS has the most of all known, three.
pub const MAX_SPECS: usize = 3;

/// Positions `next`, `next + step` and so on, below `end`; none when `next >= end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Run {
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
        Keys::Specs => by_specs(command, args),
        Keys::Sort { store } => options::sort(store, args),
        Keys::GeoRadius { options: from } => options::geo_radius(from as usize, args),
        Keys::Migrate => options::migrate(args),
        Keys::Debug => options::debug(args),
    }
}

/// The positions of the keys of `args`, each with the flags of its specification, bits of
/// [`super::flags::spec_flag`]. Where a rule of its own finds the keys they have those of the first.
///
/// # Errors
/// As [`keys`].
pub fn flagged(command: &Command, args: Args<'_>) -> Result<Vec<(usize, u16)>, KeysError> {
    let of_first = command.specs.first().map_or(0, |spec| spec.flags);
    let all = keys(command, args)?;
    if matches!(command.keys, Keys::Sort { .. } | Keys::GeoRadius { .. } | Keys::Migrate) {
        // What follows the first key is what the result is stored in.
        let stored = command.specs.last().map_or(0, |spec| spec.flags);
        let flags = std::iter::once(of_first).chain(std::iter::repeat(stored));
        return Ok(all.zip(flags).collect());
    }
    let mut found = Vec::new();
    for spec in command.specs.iter().take(MAX_SPECS) {
        let Some(begin) = begin(spec.begin, args) else { continue };
        let Some(run) = find(spec.find, begin, args)? else { continue };
        found.extend(KeyIndexes::of(run).map(|at| (at, spec.flags)));
    }
    Ok(if found.is_empty() { all.map(|at| (at, of_first)).collect() } else { found })
}

impl KeyIndexes {
    pub(super) const fn of(run: Run) -> Self {
        let none = Run { next: 0, end: 0, step: 0 };
        Self { runs: [run, none, none] }
    }

    pub(super) fn push(&mut self, run: Run) {
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
    pub(super) const fn one(at: usize, argc: usize) -> Result<Self, KeysError> {
        if at < argc {
            Ok(Self { next: at, end: at + 1, step: 1 })
        } else {
            Err(KeysError::Missing)
        }
    }

    /// From `first` to `last`, which must be there.
    #[inline]
    pub(super) fn range(
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

fn by_specs(command: &Command, args: Args<'_>) -> Result<KeyIndexes, KeysError> {
    let mut found = KeyIndexes::default();
    for spec in command.specs.iter().take(MAX_SPECS) {
        let Some(begin) = begin(spec.begin, args) else {
            continue;
        };
        let Some(run) = find(spec.find, begin, args)? else {
            continue;
        };
        if run.is_empty() && command.flags & flag::NO_MANDATORY_KEYS == 0 {
            return Err(KeysError::Count);
        }
        found.push(run);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::redis::{table::Commands, testing::Request};
    use proptest::prelude::*;

    /// Words that mean something to some command, and bytes that mean nothing.
    fn word() -> impl Strategy<Value = Vec<u8>> {
        let known = [
            "STREAMS",
            "STORE",
            "STOREDIST",
            "KEYS",
            "BY",
            "GET",
            "LIMIT",
            "BLOCK",
            "GROUP",
            "COUNT",
            "AUTH2",
            "OBJECT",
            "DIGEST-VALUE",
            "",
            "a*",
            "0",
            "1",
            "2",
            "3",
            "-1",
            "+2",
            "007",
            "9223372036854775807",
            "18446744073709551615",
            "18446744073709551616",
            "4294967296",
        ];
        prop_oneof![
            4 => proptest::sample::select(known.map(|word| word.as_bytes().to_vec()).to_vec()),
            1 => proptest::collection::vec(any::<u8>(), 0..12),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn any_arguments_have_keys_among_them_or_an_error(
            place in any::<proptest::sample::Index>(),
            words in proptest::collection::vec(word(), 0..12),
        ) {
            thread_local!(static COMMANDS: Commands = Commands::builtin());
            COMMANDS.with(|commands| {
                let command = commands.iter().nth(place.index(commands.len())).unwrap();
                let name = command.name.split('|').map(|part| part.as_bytes().to_vec());
                let request = Request::new(name.chain(words));
                let args = request.args();
                prop_assert!(commands.find(args).is_some());
                command.blocks(args);
                prop_assert!(pattern_keys(command, args).all(|pattern| pattern.contains(&b'*')));
                if let Ok(found) = keys(command, args) {
                    let places: Vec<usize> = found.collect();
                    prop_assert_eq!(found.len(), places.len());
                    prop_assert_eq!(found.first(), places.first().copied());
                    prop_assert_eq!(found.is_empty(), places.is_empty());
                    prop_assert!(places.iter().all(|&at| at > 0 && at < args.len()), "{places:?}");
                }
                Ok(())
            })?;
        }
    }

    fn of(line: &str) -> Result<Vec<usize>, KeysError> {
        let commands = Commands::builtin();
        let request = Request::new(line.split(' '));
        let command = commands.find(request.args()).unwrap();
        keys(command, request.args()).map(Iterator::collect)
    }

    #[test]
    fn counts_that_cannot_be_are_errors() {
        for count in ["-1", "0", "3", "x", "", "9223372036854775807", "18446744073709551616"] {
            assert_eq!(of(&format!("LMPOP {count} a LEFT")), Err(KeysError::Count), "{count}");
            assert_eq!(of(&format!("MSETEX {count} a")), Err(KeysError::Count), "{count}");
        }
        assert_eq!(of("LMPOP 2 a b"), Ok(vec![2, 3]));
        assert_eq!(of("LMPOP"), Err(KeysError::Missing));
        assert_eq!(of("GET"), Err(KeysError::Missing));
        assert_eq!(of("EVAL s 0"), Ok(vec![]));
        assert_eq!(of("MIGRATE h p k 0 1 KEYS a"), Err(KeysError::Both));
    }

    #[test]
    fn patterns_of_sort_are_those_that_read_other_keys() {
        let commands = Commands::builtin();
        for (line, wanted) in [
            ("SORT k BY nosort GET # GET data", vec![]),
            ("SORT k BY w_* GET {t}o_*->f STORE GET", vec!["w_*", "{t}o_*->f"]),
            ("sort_ro k limit by* 2 get x_*", vec!["x_*"]),
            ("SORT k STORE to* BY a*", vec!["a*"]),
            ("GET by*", vec![]),
        ] {
            let request = Request::new(line.split(' '));
            let command = commands.find(request.args()).unwrap();
            let patterns: Vec<&[u8]> = pattern_keys(command, request.args()).collect();
            let wanted: Vec<&[u8]> = wanted.into_iter().map(str::as_bytes).collect();
            assert_eq!(patterns, wanted, "{line}");
        }
    }
}
