//! The bodies of scripts that clients have shown, by their SHA1, so that a server that lost one is
//! told it again. Not when that is done: see `scripts`.
//!
//! One for the process, not one a worker: a script is loaded by one client, once, and called by
//! others on every worker. Workers come here only when a connection meets a script for the first
//! time, so the lock is not on the way of a call.

use sha1::{Digest, Sha1};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// The name of a script.
pub type Sha = [u8; 20];

/// The bodies of all clusters; the least recently used go when there are too many bytes of them.
#[derive(Debug)]
pub struct Library {
    /// How many bytes they may be together.
    most: usize,
    shelves: Mutex<Shelves>,
    losses: AtomicU64,
}

#[derive(Debug, Default)]
struct Shelves {
    bodies: HashMap<Key, Kept>,
    /// Oldest use first.
    by_use: BTreeMap<u64, Key>,
    uses: u64,
    bytes: usize,
}

/// The cluster and the script.
type Key = (usize, Sha);

#[derive(Debug)]
struct Kept {
    body: Arc<[u8]>,
    used: u64,
}

impl Default for Library {
    fn default() -> Self {
        Self { most: MOST_BYTES, shelves: Mutex::default(), losses: AtomicU64::default() }
    }
}

impl Library {
    /// Keeps the body of a script of `cluster`, unless it is larger than all may be.
    pub fn remember(&self, cluster: usize, body: &[u8]) {
        let sha = sha(body);
        let mut shelves = self.lock();
        if shelves.find((cluster, sha)).is_some() || body.len() > self.most {
            return;
        }
        shelves.put((cluster, sha), body);
        let mut lost = false;
        while shelves.bytes > self.most
            && let Some((_, oldest)) = shelves.by_use.pop_first()
        {
            shelves.remove(oldest);
            lost = true;
        }
        if lost {
            self.losses.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The body of a script of `cluster`.
    pub fn find(&self, cluster: usize, sha: Sha) -> Option<Arc<[u8]>> {
        self.lock().find((cluster, sha))
    }

    /// Forgets a script that is none: it does not compile.
    pub fn forget(&self, cluster: usize, sha: Sha) {
        self.lock().remove((cluster, sha));
        self.losses.fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets all scripts of `cluster`.
    pub fn clear(&self, cluster: usize) {
        let mut shelves = self.lock();
        let keys: Vec<Key> =
            shelves.bodies.keys().filter(|key| key.0 == cluster).copied().collect();
        keys.into_iter().for_each(|key| shelves.remove(key));
        self.losses.fetch_add(1, Ordering::Relaxed);
    }

    /// Changes when something was forgotten: who remembers what is here must look again.
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelves {
    fn find(&mut self, key: Key) -> Option<Arc<[u8]>> {
        let kept = self.bodies.get_mut(&key)?;
        self.by_use.remove(&kept.used);
        self.uses += 1;
        kept.used = self.uses;
        self.by_use.insert(self.uses, key);
        Some(Arc::clone(&kept.body))
    }

    fn put(&mut self, key: Key, body: &[u8]) {
        self.uses += 1;
        self.bytes += body.len() + OVERHEAD;
        self.by_use.insert(self.uses, key);
        self.bodies.insert(key, Kept { body: body.into(), used: self.uses });
    }

    fn remove(&mut self, key: Key) {
        if let Some(kept) = self.bodies.remove(&key) {
            self.by_use.remove(&kept.used);
            self.bytes -= kept.body.len() + OVERHEAD;
        }
    }
}

/// The name that Redis gives a script.
pub fn sha(body: &[u8]) -> Sha {
    Sha1::digest(body).into()
}

/// A script's name as clients write it: 40 hexadecimal digits in any case.
pub fn parse(text: &[u8]) -> Option<Sha> {
    let mut sha = Sha::default();
    if text.len() != 2 * sha.len() {
        return None;
    }
    for (byte, pair) in sha.iter_mut().zip(text.as_chunks::<2>().0) {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| !pair.starts_with('+'))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(sha)
}

/// Applications have dozens of scripts of a few KiB; 16 MiB holds thousands, and bounds one that
/// makes a new script for every call.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// What one script costs beside its body.
const OVERHEAD: usize = 160;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_have_the_names_that_redis_gives_them() {
        // SCRIPT LOAD "return 1" on Redis 7.0.15.
        let name = parse(b"e0e1f9fabfc9d4800c877a703b823ac0578FF8DB").unwrap();
        assert_eq!(name, sha(b"return 1"));
        for wrong in ["", "e0e1", "+0e1f9fabfc9d4800c877a703b823ac0578ff8db", &"x".repeat(40)] {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn the_least_used_go_first_and_the_bytes_are_bounded() {
        let library = Library { most: 16_000, ..Library::default() };
        let body = |n: usize| format!("return {n} --{}", "x".repeat(800)).into_bytes();
        let is_there = |n: usize| library.find(0, sha(&body(n))).is_some();
        library.remember(1, &body(0));
        for n in 0..30 {
            library.remember(0, &body(n));
            assert!(is_there(0), "it is used all the time");
        }
        assert!(is_there(29) && !is_there(1));
        assert_eq!(library.find(1, sha(&body(0))), None);
        assert!(library.lock().bytes <= 16_000 && library.losses() > 0);
        library.remember(0, &[b'x'; 16_001]);
        assert!(is_there(29), "what could never fit drives nothing out");
        library.clear(0);
        assert!(!is_there(29));
        let shelves = library.lock();
        assert_eq!((shelves.bytes, shelves.by_use.len()), (0, 0));
    }
}
