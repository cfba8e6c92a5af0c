//! The candidates of one tier and what a strategy precomputes for them. Not which tier is in use:
//! that is the parent's.

use super::{
    Strategy,
    field::{Busy, Cost, Field},
};
use crate::policy::{
    balance::{Candidate, Failback},
    dice::{Dice, mix},
    maglev::Maglev,
    wrr,
};
use std::cmp::Ordering;

/// Candidates among which a strategy decides.
#[derive(Clone, Debug)]
pub(super) struct Level {
    /// A bit for each of them.
    pub(super) members: u64,
    /// The smooth weighted order: round robin walks it, a draw from it is a draw by weight. Of
    /// `failover` the members as they were written.
    order: Box<[u8]>,
    /// All weights are the same.
    even: bool,
    /// Of `client_ip` and `maglev` alone.
    table: Option<Maglev>,
}

/// One of the level's members: place in the list of candidates, stable id, weight.
pub(super) type Member = (u8, u64, u32);

/// Entries of the order that round robin looks at before it draws instead: every entry of three
/// members up to weight 40, a microsecond at the worst.
const LOOK_LIMIT: usize = 128;

/// How often `maglev` hashes again past what is not ready. With half of all out, one key in 256
/// comes to the end of it, and is then spread by weight.
const REHASHES: usize = 8;

impl Level {
    pub(super) fn new(strategy: Strategy, list: &[Member]) -> Self {
        let weights: Vec<u32> = list.iter().map(|(_, _, weight)| *weight).collect();
        let place = |at: u8| list.get(usize::from(at)).map(|(place, ..)| *place);
        let order = match strategy {
            Strategy::Failover => list.iter().map(|(place, ..)| *place).collect(),
            _ => wrr::order(&weights).iter().filter_map(|at| place(*at)).collect(),
        };
        let hashes = matches!(strategy, Strategy::ClientIp | Strategy::Maglev);
        Self {
            members: list.iter().fold(0, |mask, (place, ..)| mask | 1 << place),
            order,
            even: weights.windows(2).all(|pair| matches!(pair, [a, b] if a == b)),
            table: hashes.then(|| {
                let wide = |(place, id, weight): &Member| (u16::from(*place), *id, *weight);
                Maglev::of_places(list.iter().map(wide))
            }),
        }
    }

    /// Candidates that nobody told us of are of the lowest tier.
    pub(super) fn take_all_but(&mut self, others: &[Self]) {
        self.members = !others.iter().fold(0, |mask, level| mask | level.members);
    }

    /// The cursor goes past the entries stepped over, so that the share of what is out falls to
    /// all others by their weights and not to its successor alone.
    #[inline(always)]
    pub(super) fn next_in_order<C: Candidate>(
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
    #[inline]
    pub(super) fn least_of_all<C: Candidate>(
        &self,
        field: &Field<'_, C>,
        dice: &mut Dice,
    ) -> Option<usize> {
        let start = self.by_weight(field, dice)?;
        let mut best = (start, field.cost::<Busy>(start));
        let others = (start + 1..field.candidates.len()).chain(0..start);
        for i in others {
            if best.1.in_flight == 0 {
                break;
            }
            if field.open(i) {
                let cost = field.cost::<Busy>(i);
                if cost.compare(best.1) == Ordering::Less {
                    best = (i, cost);
                }
            }
        }
        Some(best.0)
    }

    /// The first is drawn by weight, else a heavy one among many light ones could not get its
    /// share; each next one evenly from the others.
    #[inline(always)]
    pub(super) fn least_of<C: Candidate, L: Cost>(
        &self,
        draws: usize,
        field: &Field<'_, C>,
        cursor: &mut u32,
        dice: &mut Dice,
    ) -> Option<usize> {
        let first = self.by_weight(field, dice)?;
        let mut best = (first, field.cost::<L>(first));
        for _ in 1..draws {
            let Some(i) = field.another(best.0, dice) else { break };
            let cost = field.cost::<L>(i);
            // One branch, not three: which way it goes is by chance, and a wrong guess costs more
            // than all of the arithmetic.
            let order = cost.compare(best.1);
            let older = self.even & field.longer_ago(i, best.0, *cursor);
            let wins = (order == Ordering::Less) | ((order == Ordering::Equal) & older);
            if wins {
                best = (i, cost);
            }
        }
        *cursor = u32::try_from(best.0 + 1).unwrap_or_default();
        Some(best.0)
    }

    /// One look in the order when what is drawn is ready, else a draw from what is.
    #[inline(always)]
    pub(super) fn by_weight<C: Candidate>(
        &self,
        field: &Field<'_, C>,
        dice: &mut Dice,
    ) -> Option<usize> {
        let drawn = self.order.get(dice.index(self.order.len())).copied().map(usize::from);
        drawn.filter(|i| field.open(*i)).or_else(|| field.by_weight(field.mask(), dice))
    }

    #[inline(always)]
    pub(super) fn by_key<C: Candidate>(&self, field: &Field<'_, C>, key: u64) -> Option<usize> {
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

    /// The first of the line that is ready. With `manual` the one at `cursor` keeps its place until
    /// it is not ready; that it was tried moves this request alone.
    #[inline(always)]
    pub(super) fn in_line<C: Candidate>(
        &self,
        field: &Field<'_, C>,
        failback: Failback,
        cursor: &mut u32,
    ) -> Option<usize> {
        let line = || self.order.iter().copied().map(usize::from);
        if failback == Failback::Manual {
            let present = usize::try_from(*cursor).unwrap_or(usize::MAX);
            if field.ready(present) {
                if field.open(present) {
                    return Some(present);
                }
            } else if let Some(next) = line().find(|i| field.ready(*i)) {
                *cursor = u32::try_from(next).unwrap_or_default();
            }
        }
        let unknown = 0..field.candidates.len();
        line().find(|i| field.open(*i)).or_else(|| unknown.into_iter().find(|i| field.open(*i)))
    }
}
