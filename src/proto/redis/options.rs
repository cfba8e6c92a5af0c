//! Commands whose options are walked as the server walks them, because a word's meaning depends on
//! what stands before it. What no walk is needed for is in [`super::keys`].

use super::{
    args::Args,
    keys::{KeyIndexes, Keys, KeysError, Run},
    table::Command,
};

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

pub(super) fn sort(store: bool, args: Args<'_>) -> Result<KeyIndexes, KeysError> {
    let mut found = KeyIndexes::of(Run::one(1, args.len())?);
    let last = sort_options(args).filter(|&(option, _)| option == SortOption::Store).last();
    if let Some((_, at)) = last.filter(|_| store) {
        found.push(Run::one(at + 1, args.len())?);
    }
    Ok(found)
}

/// The patterns of a SORT that read other keys than its own: `BY weight_*`, `GET obj_*->field`.
/// Not `BY nosort` and not `GET #`. With several shards every one must have a hash tag without
/// `*` that hashes to the slot of the key (redis.md T26), else the request must be refused.
pub fn pattern_keys<'a>(command: &Command, args: Args<'a>) -> impl Iterator<Item = &'a [u8]> {
    let sorts = matches!(command.keys, Keys::Sort { .. });
    let options = sorts.then(|| sort_options(args)).into_iter().flatten();
    options
        .filter(|&(option, _)| option == SortOption::Pattern)
        .filter_map(move |(_, at)| args.get(at + 1))
        .filter(|pattern| pattern.contains(&b'*'))
}

pub(super) fn geo_radius(options: usize, args: Args<'_>) -> Result<KeyIndexes, KeysError> {
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

pub(super) fn migrate(args: Args<'_>) -> Result<KeyIndexes, KeysError> {
    let mut at = 6;
    while at < args.len() {
        if is(args, at, "KEYS") {
            if args.get(3) != Some(b"") {
                return Err(KeysError::Both);
            }
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

pub(super) fn debug(args: Args<'_>) -> Result<KeyIndexes, KeysError> {
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
    block(args).is_some()
}

/// Where that option is.
pub(super) fn block(args: Args<'_>) -> Option<usize> {
    let mut at = 1;
    while at < args.len() {
        if is(args, at, "BLOCK") {
            return Some(at);
        }
        at += if is(args, at, "STREAMS") {
            return None;
        } else if is(args, at, "GROUP") {
            3
        } else if is(args, at, "NOACK") {
            1
        } else {
            2
        };
    }
    None
}

/// Whether the argument at `at` is that word, in any case.
pub(super) fn is(args: Args<'_>, at: usize, word: &str) -> bool {
    args.get(at).is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
}
