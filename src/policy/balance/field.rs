//! The candidates of one pick: which of them are open, what each one costs, and draws among them.
//! Not a strategy: those are the parent's.

use super::Candidate;
use crate::policy::{dice::Dice, latency::Pace};
use std::cmp::Ordering;

/// The candidates of one pick.
pub(super) struct Field<'a, C> {
    pub(super) candidates: &'a [C],
    pub(super) tried: u64,
}

/// What sending a request to a candidate costs, by one way of counting.
pub(super) trait Cost: Copy {
    fn of<C: Candidate>(candidate: &C) -> Self;
    /// What nobody costs.
    fn none() -> Self;
    fn compare(self, other: Self) -> Ordering;
}

/// By what is under way.
#[derive(Clone, Copy)]
pub(super) struct Busy {
    pub(super) in_flight: u64,
    weight: u64,
}

/// By how long its queue will take.
#[derive(Clone, Copy)]
pub(super) struct Slow {
    pace: Pace,
    busy: Busy,
}

impl Cost for Busy {
    #[inline]
    fn of<C: Candidate>(candidate: &C) -> Self {
        Self {
            in_flight: u64::from(candidate.in_flight()),
            weight: u64::from(candidate.weight()).max(1),
        }
    }

    fn none() -> Self {
        Self { in_flight: 0, weight: 1 }
    }

    /// By (in_flight + 1) / weight, without dividing; idle ones are equal. (Counted as 1 / weight
    /// they would not be, and the heaviest of a quiet group would get everything; HAProxy's
    /// `fwlc_queue_srv` makes the same exception.)
    #[inline]
    fn compare(self, other: Self) -> Ordering {
        let cost = |load: Self| if load.in_flight == 0 { 0 } else { load.in_flight + 1 };
        (cost(self) * other.weight).cmp(&(cost(other) * self.weight))
    }
}

impl Cost for Slow {
    #[inline]
    fn of<C: Candidate>(candidate: &C) -> Self {
        Self { pace: candidate.pace(), busy: Busy::of(candidate) }
    }

    fn none() -> Self {
        Self { pace: Pace { us: 0.0, is_failing: false }, busy: Busy::none() }
    }

    /// core.md: latency x (in_flight + 1) / weight; of two idle ones the latency alone, for the
    /// reason given at [`Busy`]. One that is failing has at least as long a queue as the other: its
    /// own is short because it fails, and from four requests under way elsewhere on it would win.
    #[inline]
    fn compare(self, other: Self) -> Ordering {
        let idle = self.busy.in_flight == 0 && other.busy.in_flight == 0;
        let cost = |one: Self, other: Self| {
            let least = if one.pace.is_failing { other.busy.in_flight } else { 0 };
            let share = (one.busy.in_flight.max(least) + 1) * other.busy.weight;
            one.pace.us * if idle { 1.0 } else { share as f64 }
        };
        cost(self, other).total_cmp(&cost(other, self))
    }
}

impl<C: Candidate> Field<'_, C> {
    #[inline]
    pub(super) fn ready(&self, i: usize) -> bool {
        self.candidates.get(i).is_some_and(C::ready)
    }

    #[inline]
    pub(super) fn open(&self, i: usize) -> bool {
        self.tried >> i & 1 == 0 && self.ready(i)
    }

    /// A bit for each candidate that is open.
    pub(super) fn mask(&self) -> u64 {
        (0..self.candidates.len()).fold(0, |mask, i| mask | u64::from(self.open(i)) << i)
    }

    #[inline]
    pub(super) fn cost<L: Cost>(&self, i: usize) -> L {
        self.candidates.get(i).map_or_else(L::none, L::of)
    }

    /// One of `mask`, drawn by weight.
    pub(super) fn by_weight(&self, mask: u64, dice: &mut Dice) -> Option<usize> {
        let weights = || {
            let open = self.candidates.iter().enumerate().filter(|(i, _)| mask >> i & 1 == 1);
            open.map(|(i, c)| (i, u64::from(c.weight()).max(1)))
        };
        let mut left = dice.below(weights().map(|(_, weight)| weight).sum());
        for (i, weight) in weights() {
            match left.checked_sub(weight) {
                None => return Some(i),
                Some(rest) => left = rest,
            }
        }
        None
    }

    /// An open one that is not `than`, drawn evenly.
    #[inline]
    pub(super) fn another(&self, than: usize, dice: &mut Dice) -> Option<usize> {
        let len = self.candidates.len();
        let others = len.checked_sub(1).filter(|others| *others > 0)?;
        let i = wrap(than + 1 + dice.index(others), len);
        if self.open(i) {
            return Some(i);
        }
        let mut mask = self.mask() & !(1 << than);
        for _ in 0..dice.below(mask.count_ones().into()) {
            mask &= mask - 1;
        }
        usize::try_from(mask.trailing_zeros()).ok().filter(|i| *i < len)
    }

    /// Whether `a` was picked longer ago than `b`, if picks go around: `cursor` is the place behind
    /// the last one.
    #[inline]
    pub(super) fn longer_ago(&self, a: usize, b: usize, cursor: u32) -> bool {
        let len = self.candidates.len();
        let start = usize::try_from(cursor).unwrap_or_default();
        // Our own cursor is never above `len`; a session's first may be anything.
        let start = if start > len { start % len.max(1) } else { start };
        wrap(a + len - start, len) < wrap(b + len - start, len)
    }
}

/// `i` modulo `len` for an `i` below twice `len`: a division would be the dearest part of a pick.
#[inline]
const fn wrap(i: usize, len: usize) -> usize {
    if i >= len { i - len } else { i }
}
