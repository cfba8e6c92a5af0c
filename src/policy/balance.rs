//! Which of several backends gets a request: the strategies over plain numbers. Not where a request
//! may go at all: readiness is the gate's ([`super::gate`]), the order of sources is
//! [`super::reads`]'.

use super::{
    dice::{Dice, mix},
    maglev::Maglev,
    wrr,
};
use std::cmp::Ordering;

/// What a strategy may know of a candidate.
pub trait Candidate {
    /// Takes new requests.
    fn ready(&self) -> bool;
    /// Requests under way.
    fn in_flight(&self) -> u32;
    /// Its share of the traffic, relative to the others'; 0 counts as 1.
    fn weight(&self) -> u32;
}

/// `reads.balance`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// The smooth weighted order of nginx; what is not ready is stepped over.
    RoundRobin,
    /// The least loaded of all; of 33 candidates or more, of four drawn.
    LeastConnections,
    /// The less loaded of two drawn.
    #[default]
    P2c,
    /// Drawn by weight.
    Random,
    /// The same key, the same candidate while it is ready; others keep theirs when one goes.
    ClientIp,
}

/// A strategy with what it precomputes for a group of candidates; built off the request path.
#[derive(Clone, Debug)]
pub struct Balancer {
    strategy: Strategy,
    /// The smooth weighted order: round robin walks it, a draw from it is a draw by weight.
    order: Box<[u8]>,
    /// All weights are the same.
    even: bool,
    /// Of `client_ip` alone.
    table: Option<Maglev>,
}

/// More candidates than this are not looked at: `tried` has a bit for each.
pub const MOST_CANDIDATES: usize = 64;

/// Up to so many candidates `least_connections` looks at all (core.md, "Balancers").
const SCAN_LIMIT: usize = 32;

/// Draws of `least_connections` beyond [`SCAN_LIMIT`] (core.md, "Balancers").
const DRAWS: usize = 4;

/// Entries of the order that round robin looks at before it draws instead: every entry of three
/// members up to weight 40, a microsecond at the worst.
const LOOK_LIMIT: usize = 128;

/// How often `client_ip` hashes again past what is not ready. With half of all out, one key in 256
/// comes to the end of it, and is then spread by weight.
const REHASHES: usize = 8;

impl Balancer {
    /// `weights[i]` belongs to candidate i of every later pick, which `client_ip` knows by its
    /// place. Some milliseconds at most.
    pub fn new(strategy: Strategy, weights: &[u32]) -> Self {
        let ids: Vec<u64> = (0..).take(weights.len()).collect();
        Self::with_ids(strategy, weights, &ids)
    }

    /// As [`Self::new`]; `client_ip` knows candidate i by `ids[i]`, so that a candidate keeps its
    /// keys when the list around it changes, and every proxy with the same ids agrees.
    pub fn with_ids(strategy: Strategy, weights: &[u32], ids: &[u64]) -> Self {
        let members = || ids.iter().copied().zip(weights.iter().copied());
        Self {
            strategy,
            order: wrr::order(weights.get(..MOST_CANDIDATES).unwrap_or(weights)),
            even: weights.windows(2).all(|pair| matches!(pair, [a, b] if a == b)),
            table: (strategy == Strategy::ClientIp).then(|| Maglev::new(members())),
        }
    }

    /// The index of a ready candidate whose bit in `tried` is not set, or `None`.
    ///
    /// `key` is the hash of what `client_ip` pins; `cursor` is the session's, one per balancer it
    /// uses, started anywhere; `draw` is a fresh random number. No allocation, no lock. A candidate
    /// beyond the 64th is never picked.
    #[inline]
    pub fn pick<C: Candidate>(
        &self,
        candidates: &[C],
        key: u64,
        tried: u64,
        cursor: &mut u32,
        draw: u64,
    ) -> Option<usize> {
        let candidates = candidates.get(..MOST_CANDIDATES).unwrap_or(candidates);
        let field = Field { candidates, tried };
        let mut dice = Dice::new(draw);
        match self.strategy {
            Strategy::RoundRobin => self.next_in_order(&field, cursor, &mut dice),
            Strategy::LeastConnections if candidates.len() <= SCAN_LIMIT => {
                self.least_of_all(&field, &mut dice)
            }
            Strategy::LeastConnections => self.least_of(DRAWS, &field, cursor, &mut dice),
            Strategy::P2c => self.least_of(2, &field, cursor, &mut dice),
            Strategy::Random => self.by_weight(&field, &mut dice),
            Strategy::ClientIp => self.by_key(&field, key),
        }
    }

    /// The cursor goes past the entries stepped over, so that the share of what is out falls to
    /// all others by their weights and not to its successor alone.
    fn next_in_order<C: Candidate>(
        &self,
        field: &Field<'_, C>,
        cursor: &mut u32,
        dice: &mut Dice,
    ) -> Option<usize> {
        for _ in 0..self.order.len().min(LOOK_LIMIT) {
            let at = usize::try_from(*cursor).unwrap_or_default() % self.order.len();
            *cursor = cursor.wrapping_add(1);
            if let Some(i) = self.order.get(at).copied().map(usize::from)
                && field.open(i)
            {
                return Some(i);
            }
        }
        field.by_weight(field.mask(), dice)
    }

    /// Starts at a draw by weight, which wins every tie: idle candidates share by weight.
    fn least_of_all<C: Candidate>(&self, field: &Field<'_, C>, dice: &mut Dice) -> Option<usize> {
        let start = self.by_weight(field, dice)?;
        let mut best = (start, field.load(start));
        let others = (start + 1..field.candidates.len()).chain(0..start);
        for i in others {
            if best.1.in_flight == 0 {
                break;
            }
            if field.open(i) {
                let load = field.load(i);
                if load.compare(best.1) == Ordering::Less {
                    best = (i, load);
                }
            }
        }
        Some(best.0)
    }

    /// The first is drawn by weight, else a heavy one among many light ones could not get its
    /// share; each next one evenly from the others.
    fn least_of<C: Candidate>(
        &self,
        draws: usize,
        field: &Field<'_, C>,
        cursor: &mut u32,
        dice: &mut Dice,
    ) -> Option<usize> {
        let first = self.by_weight(field, dice)?;
        let mut best = (first, field.load(first));
        for _ in 1..draws {
            let Some(i) = field.another(best.0, dice) else { break };
            let load = field.load(i);
            // One branch, not three: which way it goes is by chance, and a wrong guess costs more
            // than all of the arithmetic.
            let order = load.compare(best.1);
            let older = self.even & field.longer_ago(i, best.0, *cursor);
            let wins = (order == Ordering::Less) | ((order == Ordering::Equal) & older);
            if wins {
                best = (i, load);
            }
        }
        *cursor = u32::try_from(best.0 + 1).unwrap_or_default();
        Some(best.0)
    }

    /// One look in the order when what is drawn is ready, else a draw from what is.
    fn by_weight<C: Candidate>(&self, field: &Field<'_, C>, dice: &mut Dice) -> Option<usize> {
        let drawn = self.order.get(dice.index(self.order.len())).copied().map(usize::from);
        drawn.filter(|i| field.open(*i)).or_else(|| field.by_weight(field.mask(), dice))
    }

    fn by_key<C: Candidate>(&self, field: &Field<'_, C>, key: u64) -> Option<usize> {
        let mut hash = key;
        for _ in 0..REHASHES {
            hash = mix(hash);
            if let Some(i) = self.table.as_ref().and_then(|table| table.get(hash))
                && field.open(i)
            {
                return Some(i);
            }
        }
        field.by_weight(field.mask(), &mut Dice::new(hash))
    }
}

/// The candidates of one pick.
struct Field<'a, C> {
    candidates: &'a [C],
    tried: u64,
}

impl<C: Candidate> Field<'_, C> {
    #[inline]
    fn open(&self, i: usize) -> bool {
        self.tried >> i & 1 == 0 && self.candidates.get(i).is_some_and(C::ready)
    }

    /// A bit for each candidate that is open.
    fn mask(&self) -> u64 {
        (0..self.candidates.len()).fold(0, |mask, i| mask | u64::from(self.open(i)) << i)
    }

    #[inline]
    fn load(&self, i: usize) -> Load {
        self.candidates.get(i).map_or(Load { in_flight: 0, weight: 1 }, |c| Load {
            in_flight: u64::from(c.in_flight()),
            weight: u64::from(c.weight()).max(1),
        })
    }

    /// One of `mask`, drawn by weight.
    fn by_weight(&self, mask: u64, dice: &mut Dice) -> Option<usize> {
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
    fn another(&self, than: usize, dice: &mut Dice) -> Option<usize> {
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
    fn longer_ago(&self, a: usize, b: usize, cursor: u32) -> bool {
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

#[derive(Clone, Copy)]
struct Load {
    in_flight: u64,
    weight: u64,
}

impl Load {
    /// By (in_flight + 1) / weight, without dividing; idle ones are equal. (Counted as 1 / weight
    /// they would not be, and the heaviest of a quiet group would get everything; HAProxy's
    /// `fwlc_queue_srv` makes the same exception.)
    fn compare(self, other: Self) -> Ordering {
        let cost = |load: Self| if load.in_flight == 0 { 0 } else { load.in_flight + 1 };
        (cost(self) * other.weight).cmp(&(cost(other) * self.weight))
    }
}

#[cfg(test)]
mod tests;
