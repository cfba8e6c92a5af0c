//! Names of commands that are learnt while running, kept for the life of the process so that a
//! command's name is `&'static str` whoever told us of it. Not the table.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

/// Names kept at most, and the longest: what a backend answers must not fill our memory.
const MAX_NAMES: usize = 16_384;
const MAX_NAME_LEN: usize = 128;

static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// The kept copy of `name`; the same text is kept once. `None` when it is empty or over a bound.
pub(super) fn intern(name: &str) -> Option<&'static str> {
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(kept) = names.get(name) {
        return Some(kept);
    }
    if name.is_empty() || name.len() > MAX_NAME_LEN || names.len() >= MAX_NAMES {
        return None;
    }
    let kept: &'static str = Box::leak(name.into());
    names.insert(kept);
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_is_kept_once() {
        let (a, b) = (intern("MY.NAME").unwrap(), intern(&["MY", "NAME"].join(".")).unwrap());
        assert!(std::ptr::eq(a, b));
        assert_eq!((intern(""), intern(&"X".repeat(129))), (None, None));
    }
}
