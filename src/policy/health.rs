//! The machine behind probes: when their results make a backend healthy or unhealthy, and how long
//! until the next one. Not the probe itself, nor its clock: that is control's.

use super::{dice::Dice, gate::Health};
use std::time::Duration;

/// How many results in a row it takes. 0 counts as 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probes {
    /// Passes that bring an unhealthy backend back.
    pub rise: u32,
    /// Failures that take a backend out.
    pub fall: u32,
}

/// What the probes of one backend have shown so far.
///
/// ```text
///           +            -               - (fall)
///  unknown ---> healthy ---> falling(k) --------> unhealthy <--.
///     |            ^ ^           | +                | +        |
///     |            | '-----------'                  v          |
///     |            '------- + (rise) ----------- rising(k) ----|
///     '-------------------- - (fall) --------------------- - --'
/// ```
///
/// From unknown one pass is enough, though `rise` is more: nothing speaks against the backend yet,
/// and a start should not wait for a second round. One failure is not: a proxy started beside its
/// backends should not tell of dead ones that are only half a second late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    probes: Probes,
    phase: Phase,
}

/// Where a machine is; the numbers are results in a row, at least 1 but for `Unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Never passed; failed so often.
    Unknown(u32),
    Healthy,
    /// Healthy still, and failed so often.
    Falling(u32),
    Unhealthy,
    /// Unhealthy still, and passed so often.
    Rising(u32),
}

/// A change that the gate has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    pub from: Health,
    pub to: Health,
}

impl Machine {
    /// A backend nobody has probed yet.
    pub const fn new(probes: Probes) -> Self {
        Self { probes, phase: Phase::Unknown(0) }
    }

    /// Takes the result of one probe.
    pub fn observe(self, passed: bool) -> (Self, Option<Transition>) {
        let phase = match (self.phase, passed) {
            (Phase::Unknown(_) | Phase::Healthy | Phase::Falling(_), true) => Phase::Healthy,
            (Phase::Unhealthy, true) => self.risen(1),
            (Phase::Rising(k), true) => self.risen(k.saturating_add(1)),
            (Phase::Unknown(k), false) => self.fallen(k.saturating_add(1), Phase::Unknown),
            (Phase::Healthy, false) => self.fallen(1, Phase::Falling),
            (Phase::Falling(k), false) => self.fallen(k.saturating_add(1), Phase::Falling),
            (Phase::Unhealthy | Phase::Rising(_), false) => Phase::Unhealthy,
        };
        let next = Self { phase, ..self };
        let (from, to) = (self.health(), next.health());
        (next, (from != to).then_some(Transition { from, to }))
    }

    /// The axis that the gate is derived from.
    pub const fn health(self) -> Health {
        match self.phase {
            Phase::Unknown(_) => Health::Unknown,
            Phase::Healthy | Phase::Falling(_) => Health::Healthy,
            Phase::Unhealthy | Phase::Rising(_) => Health::Unhealthy,
        }
    }

    /// Where it is, for the status page.
    pub const fn phase(self) -> Phase {
        self.phase
    }

    /// The time from the end of one probe to the start of the next, before [`jitter`]: `down` while
    /// unhealthy, `interval` while healthy, `fast` while something is being decided.
    pub const fn next_interval(
        &self,
        interval: Duration,
        fast: Duration,
        down: Duration,
    ) -> Duration {
        match self.phase {
            Phase::Healthy => interval,
            Phase::Unhealthy => down,
            Phase::Unknown(_) | Phase::Falling(_) | Phase::Rising(_) => fast,
        }
    }

    const fn risen(self, passes: u32) -> Phase {
        if passes < self.probes.rise { Phase::Rising(passes) } else { Phase::Healthy }
    }

    fn fallen(self, failures: u32, still: fn(u32) -> Phase) -> Phase {
        if failures < self.probes.fall { still(failures) } else { Phase::Unhealthy }
    }
}

/// The longest a backend can be dead before its probes say so, jitter left out: one whole interval,
/// then `fall` timeouts with the fast interval between them (core.md, "Probes").
pub fn worst_case(interval: Duration, fast: Duration, timeout: Duration, fall: u32) -> Duration {
    let fall = fall.max(1);
    let between = fast.saturating_mul(fall - 1);
    interval.saturating_add(between).saturating_add(timeout.saturating_mul(fall))
}

/// `around` give or take 10 % (core.md, "Probes"), so that probes of many backends and proxies do
/// not fall into step. Above 292 years it is cut to that.
pub fn jitter(around: Duration, draw: u64) -> Duration {
    let nanos = u64::try_from(around.as_nanos()).unwrap_or(u64::MAX).min(u64::MAX / 2);
    let spread = Dice::new(draw).below(nanos / 10 * 2 + 1);
    Duration::from_nanos(nanos - nanos / 10 + spread)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);
    const FAST: Duration = Duration::from_millis(500);

    /// One letter for the phase after each probe: `u`nknown, `H`ealthy, `f`alling, `U`nhealthy,
    /// `r`ising.
    fn phases(rise: u32, fall: u32, probes: &str) -> String {
        let mut machine = Machine::new(Probes { rise, fall });
        probes
            .chars()
            .map(|probe| {
                let before = machine.health();
                let (next, transition) = machine.observe(probe == '+');
                let moved = transition.map(|t| (t.from, t.to));
                let expected = (before, next.health());
                assert_eq!(moved, Some(expected).filter(|(from, to)| from != to));
                machine = next;
                match machine.phase() {
                    Phase::Unknown(_) => 'u',
                    Phase::Healthy => 'H',
                    Phase::Falling(_) => 'f',
                    Phase::Unhealthy => 'U',
                    Phase::Rising(_) => 'r',
                }
            })
            .collect()
    }

    #[test]
    fn stories() {
        for (rise, fall, probes, expected) in [
            // A start: one pass is enough, one failure is not.
            (2, 3, "+", "H"),
            (2, 3, "--+", "uuH"),
            (2, 3, "---", "uuU"),
            // Two failures are forgiven, three in a row are not; then it takes two passes.
            (2, 3, "+--+---", "HffHffU"),
            (2, 3, "---+-++", "uuUrUrH"),
            (2, 3, "----++--+", "uuUUrHffH"),
            (1, 1, "+-+-", "HUHU"),
            (0, 0, "-+-", "UHU"),
            (3, 2, "--++-+++", "uUrrUrrH"),
        ] {
            assert_eq!(phases(rise, fall, probes), expected, "rise {rise} fall {fall}: {probes}");
        }
    }

    #[test]
    fn the_next_probe_is_soon_while_something_is_being_decided() {
        let mut machine = Machine::new(Probes { rise: 2, fall: 3 });
        let mut intervals = Vec::new();
        for probe in "+---++".chars() {
            intervals.push(machine.next_interval(2 * SECOND, FAST, SECOND).as_millis());
            machine = machine.observe(probe == '+').0;
        }
        assert_eq!(intervals, [500, 2_000, 500, 500, 1_000, 500]);
    }

    #[test]
    fn the_worst_case_with_defaults() {
        assert_eq!(worst_case(2 * SECOND, FAST, SECOND, 3), 6 * SECOND);
        assert_eq!(worst_case(2 * SECOND, FAST, SECOND, 1), 3 * SECOND);
        assert_eq!(worst_case(Duration::MAX, FAST, SECOND, u32::MAX), Duration::MAX);
    }

    /// Lives through a death at the worst moment, as control would.
    #[test]
    fn the_worst_case_is_what_happens() {
        let (interval, fast, timeout, down) = (2 * SECOND, FAST, SECOND, SECOND);
        for fall in 1..6 {
            let mut machine = Machine::new(Probes { rise: 2, fall }).observe(true).0;
            // Dead right behind a pass; a failed probe takes its whole timeout.
            let mut dead_for = Duration::ZERO;
            while machine.health() == Health::Healthy {
                dead_for += machine.next_interval(interval, fast, down) + timeout;
                machine = machine.observe(false).0;
            }
            assert_eq!(dead_for, worst_case(interval, fast, timeout, fall), "fall {fall}");
        }
    }

    #[test]
    fn jitter_reaches_both_ends() {
        let draws: Vec<_> = (0..10_000).map(|draw| jitter(SECOND, draw).as_millis()).collect();
        assert_eq!(draws.iter().min(), Some(&900));
        assert_eq!(draws.iter().max(), Some(&1_099));
    }

    proptest! {
        #[test]
        fn jitter_stays_within_ten_percent(nanos in 0..u64::MAX / 4, draw: u64) {
            let (around, jittered) = (Duration::from_nanos(nanos), jitter(Duration::from_nanos(nanos), draw));
            prop_assert!(jittered.abs_diff(around) <= around / 10);
        }

        #[test]
        fn the_last_results_decide(
            rise in 1_u32..5,
            fall in 1_u32..5,
            probes in prop::collection::vec(any::<bool>(), 0..60),
        ) {
            let mut machine = Machine::new(Probes { rise, fall });
            for passed in &probes {
                machine = machine.observe(*passed).0;
            }
            let ends_with = |passed, n: u32| {
                probes.iter().rev().take_while(|p| **p == passed).count() >= n as usize
            };
            if ends_with(true, rise) {
                prop_assert_eq!(machine.health(), Health::Healthy);
            }
            if ends_with(false, fall) {
                prop_assert_eq!(machine.health(), Health::Unhealthy);
            }
            let ever = probes.iter().any(|passed| *passed);
            prop_assert!(ever || machine.health() != Health::Healthy);
        }
    }
}
