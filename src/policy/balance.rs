//! Which of several backends gets a request: the strategies over plain numbers. Not where a request
//! may go at all: readiness is the gate's ([`super::gate`]), the order of sources is
//! [`super::reads`]'.

mod field;
mod level;

use super::{dice::Dice, latency::Pace};
use field::{Busy, Field, Slow};
use level::Level;

/// What a strategy may know of a candidate.
pub trait Candidate {
    /// Takes new requests.
    fn ready(&self) -> bool;
    /// Requests under way.
    fn in_flight(&self) -> u32;
    /// Its share of the traffic, relative to the others'; 0 counts as 1.
    fn weight(&self) -> u32;
    /// How long it takes for a request. Only `peak_ewma` asks.
    fn pace(&self) -> Pace;
}

/// `balance` and `reads.balance`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// The smooth weighted order of nginx; what is not ready is stepped over.
    RoundRobin,
    /// The least loaded of all; of 33 candidates or more, of four drawn.
    LeastConnections,
    /// The less loaded of two drawn.
    #[default]
    P2c,
    /// Of two drawn the one that will be done sooner, by its latency and what is under way.
    PeakEwma,
    /// Drawn by weight.
    Random,
    /// The same key, the same candidate while it is ready; others keep theirs when one goes. The
    /// key is the client's address.
    ClientIp,
    /// The same of a key of the request.
    Maglev,
    /// The first that is ready, as written.
    Failover,
}

/// When `failover` goes back to one that stands before the present one and is ready again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failback {
    /// At once.
    #[default]
    Auto,
    /// When the present one fails, or is taken out.
    Manual,
}

/// Everything but the weights that a group of candidates is balanced by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    pub strategy: Strategy,
    pub failback: Failback,
    /// `maglev` and `client_ip` know candidate i by `ids[i]`, so that a candidate keeps its keys
    /// when the list around it changes, and every proxy with the same ids agrees. Where there is
    /// none, by its place.
    pub ids: Vec<u64>,
    /// Candidate i is picked when none of a lower tier can be; 0 where there is none.
    pub tiers: Vec<u8>,
}

/// A strategy with what it precomputes for a group of candidates; built off the request path.
#[derive(Clone, Debug)]
pub struct Balancer {
    rules: Rules,
    /// One of each tier, the lowest first; of `failover` one for all.
    levels: Box<[Level]>,
}

/// More candidates than this are not looked at: `tried` has a bit for each.
pub const MOST_CANDIDATES: usize = 64;

/// Up to so many candidates `least_connections` looks at all (core.md, "Balancers").
const SCAN_LIMIT: usize = 32;

/// Draws of `least_connections` beyond [`SCAN_LIMIT`] (core.md, "Balancers").
const DRAWS: usize = 4;

impl Balancer {
    /// `weights[i]` belongs to candidate i of every later pick. Some milliseconds at most.
    pub fn new(strategy: Strategy, weights: &[u32]) -> Self {
        Self::with(Rules { strategy, ..Rules::default() }, weights)
    }

    /// As [`Self::new`], by these rules.
    pub fn with(rules: Rules, weights: &[u32]) -> Self {
        let member = |(place, weight): (u8, &u32)| {
            let at = usize::from(place);
            let id = rules.ids.get(at).copied().unwrap_or_else(|| place.into());
            let tier = rules.tiers.get(at).copied().unwrap_or_default();
            (tier, (place, id, *weight))
        };
        let mut members: Vec<_> = (0..64).zip(weights).map(member).collect();
        members.sort_by_key(|(tier, _)| *tier);
        let one = rules.strategy == Strategy::Failover;
        let tiers = members.chunk_by(|(a, _), (b, _)| one || a == b);
        let lists = tiers.map(|tier| tier.iter().map(|(_, member)| *member).collect());
        let levels = lists.map(|list: Vec<_>| Level::new(rules.strategy, &list));
        let mut levels: Vec<Level> = levels.collect();
        match levels.split_first_mut() {
            Some((first, others)) => first.take_all_but(others),
            None => levels.push(Level::new(rules.strategy, &[])),
        }
        Self { rules, levels: levels.into() }
    }

    /// The same rules for other weights.
    #[must_use]
    pub fn reweighted(&self, weights: &[u32]) -> Self {
        Self::with(self.rules.clone(), weights)
    }

    /// Whether its cursor is one for all sessions of all workers: it says who is the present one.
    #[inline]
    pub fn shares_cursor(&self) -> bool {
        self.rules.strategy == Strategy::Failover && self.rules.failback == Failback::Manual
    }

    /// The index of a ready candidate whose bit in `tried` is not set, or `None`.
    ///
    /// `key` is the hash of what `client_ip` and `maglev` pin; `cursor` is the session's, one per
    /// balancer it uses, started anywhere (unless [`Self::shares_cursor`]); `draw` is a fresh random
    /// number. No allocation, no lock. A candidate beyond the 64th is never picked.
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
        match &*self.levels {
            [all] => self.pick_of(all, &Field { candidates, tried }, key, cursor, draw),
            _ => self.pick_by_tier(candidates, key, tried, cursor, draw),
        }
    }

    /// Apart, so that a pick without tiers is one piece of code: it takes a third of the time.
    #[inline(never)]
    fn pick_by_tier<C: Candidate>(
        &self,
        candidates: &[C],
        key: u64,
        tried: u64,
        cursor: &mut u32,
        draw: u64,
    ) -> Option<usize> {
        self.levels.iter().find_map(|level| {
            let field = Field { candidates, tried: tried | !level.members };
            self.pick_of(level, &field, key, cursor, draw)
        })
    }

    #[inline(always)]
    fn pick_of<C: Candidate>(
        &self,
        level: &Level,
        field: &Field<'_, C>,
        key: u64,
        cursor: &mut u32,
        draw: u64,
    ) -> Option<usize> {
        let mut dice = Dice::new(draw);
        match self.rules.strategy {
            Strategy::RoundRobin => level.next_in_order(field, cursor, &mut dice),
            Strategy::LeastConnections if field.candidates.len() <= SCAN_LIMIT => {
                level.least_of_all(field, &mut dice)
            }
            Strategy::LeastConnections => {
                level.least_of::<C, Busy>(DRAWS, field, cursor, &mut dice)
            }
            Strategy::P2c => level.least_of::<C, Busy>(2, field, cursor, &mut dice),
            Strategy::PeakEwma => level.least_of::<C, Slow>(2, field, cursor, &mut dice),
            Strategy::Random => level.by_weight(field, &mut dice),
            Strategy::ClientIp | Strategy::Maglev => level.by_key(field, key),
            Strategy::Failover => level.in_line(field, self.rules.failback, cursor),
        }
    }
}

#[cfg(test)]
mod tests;
