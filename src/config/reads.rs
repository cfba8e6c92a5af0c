//! `clusters.<name>.reads` as it is meant. Not how it is read from a file: that is `check`.

use crate::{
    policy::{balance::Strategy, reads::ReadFrom},
    topology::{Consistency, Override},
};
use std::time::Duration;

/// Where reads go, and how old what they read may be.
#[derive(Clone, Debug, PartialEq)]
pub struct Reads {
    pub from: ReadFrom,
    pub balance: Strategy,
    pub consistency: Consistency,
    /// Of [`Consistency::Window`]: 500ms to 1h, else zero.
    pub window: Duration,
    /// A replica that is further behind is not read; 100ms to 1d; default `None`.
    pub max_lag: Option<Duration>,
    /// The first that a request fits decides.
    pub overrides: Vec<Override>,
    /// Scripts name every key that they touch; default true.
    pub scripts_declare_keys: bool,
}

impl Default for Reads {
    fn default() -> Self {
        Self {
            from: ReadFrom::default(),
            balance: Strategy::default(),
            consistency: Consistency::default(),
            window: Duration::ZERO,
            max_lag: None,
            overrides: Vec::new(),
            scripts_declare_keys: true,
        }
    }
}

impl Reads {
    /// How often servers are asked how far they are; `None`: as often as they are probed anyway.
    /// Promises are kept by samples: the newer they are, the sooner a replica is read again after a
    /// write. A limit needs some of them within its time.
    pub fn sampling(&self) -> Option<Duration> {
        let promised = (self.consistency != Consistency::Eventual).then_some(PROMISED);
        let limited = self.max_lag.map(|most| (most / 4).clamp(OFTEN, SELDOM));
        promised.into_iter().chain(limited).min()
    }

    /// Whether any read may go to a replica.
    pub fn leaves_primary(&self) -> bool {
        let mut each = self.overrides.iter().map(|one| one.from).chain([self.from]);
        each.any(|from| from != ReadFrom::Primary)
    }
}

/// redis.md, T43: every 100 to 500ms.
const PROMISED: Duration = Duration::from_millis(200);
const OFTEN: Duration = Duration::from_millis(100);
const SELDOM: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_asked_as_often_as_what_is_promised_needs() {
        let every = |consistency, max_lag: Option<u64>| {
            let max_lag = max_lag.map(Duration::from_millis);
            let every = Reads { consistency, max_lag, ..Reads::default() }.sampling();
            every.map(|every| every.as_millis())
        };
        assert_eq!(every(Consistency::Eventual, None), None);
        assert_eq!(every(Consistency::Key, None), Some(200));
        assert_eq!(every(Consistency::Eventual, Some(10_000)), Some(500));
        assert_eq!(every(Consistency::Eventual, Some(1_000)), Some(250));
        assert_eq!(every(Consistency::Session, Some(100)), Some(100));
    }
}
