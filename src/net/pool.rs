//! Connections to one backend that one request at a time has for itself: those that nobody has now,
//! the one used last on top. Not how they are made, nor how many there may be.

use std::cell::RefCell;

/// The idle connections of one worker to one backend. Times are in microseconds from any fixed start.
#[derive(Debug)]
pub struct Pool<C> {
    /// The one given back last is at the end.
    idle: RefCell<Vec<Idle<C>>>,
}

#[derive(Debug)]
struct Idle<C> {
    connection: C,
    since_us: u64,
    until_us: u64,
}

impl<C> Default for Pool<C> {
    fn default() -> Self {
        Self { idle: RefCell::default() }
    }
}

impl<C> Pool<C> {
    /// The connection that was used last, unless its time is over or it has been idle for longer
    /// than `freshness_us`.
    pub fn take(&self, now_us: u64, freshness_us: u64) -> Option<C> {
        let mut idle = self.idle.borrow_mut();
        let newest = idle.last()?;
        if newest.until_us <= now_us || now_us.saturating_sub(newest.since_us) > freshness_us {
            return None;
        }
        idle.pop().map(|idle| idle.connection)
    }

    /// Keeps a connection for `life_us` from now. Beyond a thousand or so the one unused longest is
    /// closed.
    pub fn give(&self, connection: C, now_us: u64, life_us: u64) {
        let oldest = {
            let mut idle = self.idle.borrow_mut();
            let oldest = (idle.len() >= MOST_IDLE).then(|| idle.remove(0));
            let until_us = now_us.saturating_add(life_us);
            idle.push(Idle { connection, since_us: now_us, until_us });
            oldest
        };
        drop(oldest);
    }

    /// Closes those whose time is over.
    pub fn sweep(&self, now_us: u64) {
        let over: Vec<_> =
            self.idle.borrow_mut().extract_if(.., |idle| idle.until_us <= now_us).collect();
        drop(over);
    }

    /// Closes those whose time is over, but for the newest `min`, which have time from then on.
    pub fn sweep_beyond(&self, now_us: u64, min: usize) {
        let mut idle = self.idle.borrow_mut();
        let spared = idle.len().saturating_sub(min);
        if let Some(newest) = idle.get_mut(spared..) {
            newest.iter_mut().for_each(|idle| idle.until_us = u64::MAX);
        }
        let over: Vec<_> = idle.extract_if(.., |idle| idle.until_us <= now_us).collect();
        drop(idle);
        drop(over);
    }

    /// Closes all.
    pub fn clear(&self) {
        let all = std::mem::take(&mut *self.idle.borrow_mut());
        drop(all);
    }

    /// How many are idle.
    pub fn len(&self) -> usize {
        self.idle.borrow().len()
    }

    /// Whether none is idle.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// As many as one worker's clients can have used at once and come back to: with 16 KiB of buffers
/// each, 16 MiB.
const MOST_IDLE: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn the_one_used_last_is_taken_first_and_none_after_its_time() {
        let (pool, start) = (Pool::default(), 5);
        pool.give('a', start, 4 * SECOND);
        pool.give('b', start + SECOND, 2 * SECOND);
        assert_eq!(pool.take(start + SECOND, SECOND), Some('b'));
        assert_eq!(pool.take(start + 2 * SECOND, SECOND), None, "idle for longer than a second");
        assert_eq!(pool.take(start + 2 * SECOND, 9 * SECOND), Some('a'));
        pool.give('c', start, SECOND);
        assert_eq!(pool.take(start + SECOND, 9 * SECOND), None, "its time is over");
        pool.sweep(start + SECOND);
        assert!(pool.is_empty());
    }

    #[test]
    fn as_many_as_wanted_are_kept_beyond_their_time() {
        let (pool, start) = (Pool::default(), 5);
        ['a', 'b', 'c'].into_iter().for_each(|name| pool.give(name, start, SECOND));
        pool.sweep_beyond(start + SECOND, 2);
        assert_eq!(pool.len(), 2);
        assert_eq!(pool.take(start + 9 * SECOND, u64::MAX), Some('c'));
        pool.sweep_beyond(start + 9 * SECOND, 0);
        assert_eq!(pool.len(), 1, "it was promised to stay");
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let (pool, start) = (Pool::default(), 5);
        (0..=MOST_IDLE).for_each(|i| pool.give(i, start, SECOND));
        assert_eq!(pool.len(), MOST_IDLE);
        while let Some(i) = pool.take(start, SECOND) {
            assert_ne!(i, 0, "the oldest one was closed");
        }
        pool.give(1, start, SECOND);
        pool.clear();
        assert!(pool.is_empty());
    }
}
