//! How much of its weight a backend has: all of it, or a part that grows while it is warming after
//! it was out. Not the balancers, which follow what is published here.

use crate::policy::gate::{Life, State};
use std::time::Duration;

/// The weight of one backend and the way it has to go to have all of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Warming {
    weight: u32,
    window_ms: u64,
    since_ms: Option<u64>,
    /// It has been out of rotation and not come back yet.
    was_out: bool,
}

impl Warming {
    /// A backend of the process's start: it has all of its weight at once.
    pub(super) fn new(weight: u32, window: Duration) -> Self {
        Self { weight, window_ms: super::events::millis(window), since_ms: None, was_out: false }
    }

    pub(super) const fn life(&self) -> Life {
        if self.since_ms.is_some() { Life::Warming } else { Life::Steady }
    }

    pub(super) const fn weight(&self) -> u32 {
        self.weight
    }

    /// Takes another weight, at least 1 and at most 1,000. True when it is another one.
    pub(super) fn set_weight(&mut self, weight: u32) -> bool {
        let weight = weight.clamp(1, HEAVIEST);
        std::mem::replace(&mut self.weight, weight) != weight
    }

    /// Takes the state that its other axes give. A backend that was out begins to warm when it is
    /// in again; one that goes out while it is warming begins anew.
    pub(super) fn follow(&mut self, state: State, now_ms: u64) {
        match state {
            State::Unhealthy | State::Ejected | State::HalfOpen | State::Disabled => {
                self.was_out = true;
                self.since_ms = None;
            }
            State::Ready | State::Warming if self.was_out => {
                self.was_out = false;
                self.since_ms = (self.window_ms > 0).then_some(now_ms);
            }
            State::Ready | State::Warming | State::Unknown | State::Drain | State::Removed => {}
        }
    }

    /// Whether its time is over with this.
    pub(super) fn is_over(&mut self, now_ms: u64) -> bool {
        let over =
            self.since_ms.is_some_and(|since| now_ms.saturating_sub(since) >= self.window_ms);
        if over {
            self.since_ms = None;
        }
        over
    }

    /// The tenths of its weight that count now: 1 at first, 10 when its time is over, in even steps,
    /// since balancers are built anew for each.
    pub(super) fn tenths(&self, now_ms: u64) -> u32 {
        let Some(since_ms) = self.since_ms else { return TENTHS };
        let steps = u64::from(TENTHS - 1) * now_ms.saturating_sub(since_ms) / self.window_ms.max(1);
        u32::try_from(steps + 1).map_or(TENTHS, |tenths| tenths.min(TENTHS))
    }

    pub(super) const fn window_ms(&self) -> u64 {
        self.window_ms
    }
}

const TENTHS: u32 = 10;
/// The most that a weight can be in the configuration.
const HEAVIEST: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_comes_back_in_ten_steps() {
        let mut warming = Warming::new(3, Duration::from_secs(9));
        warming.follow(State::Ready, 0);
        assert_eq!(warming.tenths(0), 10, "not at the start");
        warming.follow(State::Ejected, 500);
        warming.follow(State::HalfOpen, 900);
        warming.follow(State::Ready, 1_000);
        assert_eq!(warming.life(), Life::Warming);
        let tenths: Vec<_> = (0..10).map(|s| warming.tenths(1_000 + s * 1_000)).collect();
        assert_eq!(tenths, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(warming.tenths(1_999), 1);
        assert!(!warming.is_over(9_999) && warming.is_over(10_000));
        assert_eq!((warming.life(), warming.tenths(10_000)), (Life::Steady, 10));
    }

    #[test]
    fn who_goes_out_while_warming_begins_anew_and_a_drain_costs_nothing() {
        let mut warming = Warming::new(1, Duration::from_secs(9));
        warming.follow(State::Unhealthy, 0);
        warming.follow(State::Ready, 0);
        warming.follow(State::Drain, 8_000);
        warming.follow(State::Ready, 8_100);
        assert_eq!(warming.tenths(8_100), 9);
        warming.follow(State::Unhealthy, 8_200);
        warming.follow(State::Ready, 9_000);
        assert_eq!(warming.tenths(9_000), 1);
        let mut never = Warming::new(1, Duration::ZERO);
        never.follow(State::Disabled, 0);
        never.follow(State::Ready, 1);
        assert_eq!((never.life(), never.tenths(1)), (Life::Steady, 10));
    }

    #[test]
    fn a_weight_that_is_none_is_bounded() {
        let mut warming = Warming::new(5, Duration::ZERO);
        assert!(!warming.set_weight(5));
        assert!(warming.set_weight(0) && warming.weight() == 1);
        assert!(warming.set_weight(u32::MAX) && warming.weight() == 1_000);
    }
}
