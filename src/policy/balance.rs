//! Balancing strategies over plain numbers.

/// What a strategy may know of a candidate.
pub trait Candidate {
    fn ready(&self) -> bool;
    fn in_flight(&self) -> u32;
    fn weight(&self) -> u32;
}

/// `reads.balance`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    RoundRobin,
    LeastConnections,
    #[default]
    P2c,
    Random,
    ClientIp,
}

/// A strategy with what it precomputes for a group of candidates; built off the request path.
#[derive(Clone, Debug)]
pub struct Balancer {
    strategy: Strategy,
}

impl Balancer {
    /// `weights[i]` belongs to candidate i of every later pick.
    pub fn new(strategy: Strategy, weights: &[u32]) -> Self {
        let _ = weights;
        Self { strategy }
    }

    /// The index of a ready candidate whose bit in `tried` is not set, or `None`.
    /// `key` is the hash of what `client_ip` pins; `cursor` is the session's round-robin cursor;
    /// `draw` is a fresh random number.
    pub fn pick<C: Candidate>(
        &self,
        candidates: &[C],
        key: u64,
        tried: u64,
        cursor: &mut u32,
        draw: u64,
    ) -> Option<usize> {
        let _ = (self.strategy, key, cursor, draw);
        candidates.iter().enumerate().position(|(i, c)| tried & (1 << i) == 0 && c.ready())
    }
}
