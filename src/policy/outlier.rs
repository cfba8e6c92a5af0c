//! The machine behind passive ejection: when the outcomes of real requests take a backend out of
//! rotation, and how it comes back. Not probes: that is [`super::health`].

use super::{gate::Passive, health::jitter, window::Window};
use std::time::Duration;

/// Local failures (connect, timeout, reset, protocol garbage) in a row that eject (core.md,
/// "Passive ejection").
pub const LOCAL_FAILURES: u32 = 3;
/// Errors (LOADING, MASTERDOWN, CLUSTERDOWN) in a row that eject (core.md; Envoy's
/// `consecutive_5xx` has 5 too).
pub const ERRORS: u32 = 5;
/// Requests in ten seconds from which on the success ratio is judged (core.md).
pub const RATIO_REQUESTS: u64 = 20;
/// One request in so many must succeed: a ratio of 0.5 (core.md).
pub const RATIO_DIVISOR: u64 = 2;
/// The first ejection, in milliseconds (core.md).
pub const FIRST_EJECTION_MS: u64 = 5_000;
/// The longest ejection before its jitter, in milliseconds (core.md; Envoy's `max_ejection_time`).
pub const LONGEST_EJECTION_MS: u64 = 300_000;
/// What makes one ejection shorter again, in milliseconds spent closed (core.md: "per clean
/// minute").
pub const CLEAN_MS: u64 = 60_000;
/// After so many ejections one is as long as it gets: 5s x 2^6 is more than 300s. Counting on
/// would only make a backend that has long been well start from there.
pub const MOST_EJECTIONS: u32 = 7;
/// A half-open permit whose request has not ended by then is lost (its client went away), and a new
/// one is given, in milliseconds: the default deadline of a request (operations.md).
pub const PERMIT_MS: u64 = 30_000;

/// What real requests have shown of one backend so far. A value: the clock is an argument, in
/// milliseconds from any fixed start, and so are the dice.
///
/// ```text
///            trip                  over, and probe passed
///   closed --------> ejected(n+1) -----------------------> half_open
///     ^                   ^                                  |    |
///     |                   '------------ failure -------------'    |
///     '---------------------------- success ----------------------'
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    phase: Phase,
    /// n: how long the next ejection is.
    ejections: u32,
    /// Successes and failures of the last ten seconds.
    window: Window,
    /// Totals as of the newest sample.
    totals: [u64; 2],
    local_failures: u32,
    errors: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// `clean_ms` is where the minute under way began.
    Closed { clean_ms: u64 },
    /// `passed`: the newest probe since the trip did.
    Ejected { until_ms: u64, passed: bool },
    /// `permit_ms` is when the newest permit was given.
    HalfOpen { permit_ms: u64 },
}

/// What a machine is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The backend's counters now; they never fall. `failed` counts local failures and errors.
    /// Sample before every other event, so that successes between failures are seen.
    Sample { ok_total: u64, failed_total: u64 },
    /// Connect, handshake, timeout, reset or protocol garbage.
    LocalFailure,
    /// The server said that it cannot serve now: LOADING, MASTERDOWN, CLUSTERDOWN.
    Error,
    /// Out, for a cause found elsewhere.
    Trip(Cause),
    /// A probe begun after the newest trip has ended.
    Probe { passed: bool },
    /// Time has passed.
    Tick,
}

/// Why a backend went out or came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    LocalFailures,
    Errors,
    SuccessRatio,
    /// Found by suspicion: requests wait and no byte comes.
    Hung,
    /// The request of a half-open permit failed.
    TrialFailed,
    /// The time was over and the newest probe passed.
    TimeOver,
    /// Nobody told how the request of a permit ended.
    TrialLost,
    /// The request of a half-open permit succeeded.
    TrialPassed,
}

/// A change that the gate has to know. From half-open to half-open means one thing: one more
/// permit; it is no news for an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    pub from: Passive,
    pub to: Passive,
    pub cause: Cause,
}

impl Machine {
    /// A backend in rotation whose counters stand at these totals.
    pub fn new(ok_total: u64, failed_total: u64) -> Self {
        Self {
            phase: Phase::Closed { clean_ms: 0 },
            ejections: 0,
            window: Window::default(),
            totals: [ok_total, failed_total],
            local_failures: 0,
            errors: 0,
        }
    }

    /// Takes one event. `may_eject` is the group's word ([`may_eject`]); what trips without it
    /// trips at the next failure with it. It does not bind what is half open: that is out already.
    pub fn observe(
        self,
        now_ms: u64,
        event: Event,
        may_eject: bool,
        draw: u64,
    ) -> (Self, Option<Transition>) {
        let (before, mut next) = (self.totals, self);
        if let Event::Sample { ok_total, failed_total } = event {
            next.totals = [ok_total, failed_total];
        }
        let [ok, failed] = grown(before, next.totals);
        match self.phase {
            Phase::Closed { .. } => {
                next.count(now_ms, event, [ok, failed]);
                let cause = next.trips(now_ms, event).filter(|_| may_eject);
                cause.map_or((next, None), |cause| next.eject(now_ms, cause, draw))
            }
            Phase::Ejected { until_ms, passed } => {
                let passed = if let Event::Probe { passed } = event { passed } else { passed };
                next.phase = Phase::Ejected { until_ms, passed };
                if now_ms >= until_ms && passed {
                    return next.to(Phase::HalfOpen { permit_ms: now_ms }, Cause::TimeOver);
                }
                (next, None)
            }
            Phase::HalfOpen { permit_ms } => match event {
                Event::Trip(cause) => next.eject(now_ms, cause, draw),
                Event::LocalFailure | Event::Error => next.eject(now_ms, Cause::TrialFailed, draw),
                Event::Sample { .. } if failed > 0 => next.eject(now_ms, Cause::TrialFailed, draw),
                Event::Sample { .. } if ok > 0 => next.close(now_ms),
                _ if now_ms.saturating_sub(permit_ms) >= PERMIT_MS => {
                    next.to(Phase::HalfOpen { permit_ms: now_ms }, Cause::TrialLost)
                }
                _ => (next, None),
            },
        }
    }

    /// The axis that the gate is derived from.
    pub const fn passive(self) -> Passive {
        match self.phase {
            Phase::Closed { .. } => Passive::Closed,
            Phase::Ejected { .. } => Passive::Ejected,
            Phase::HalfOpen { .. } => Passive::HalfOpen,
        }
    }

    /// When its ejection is over, in milliseconds; `None` when it is not ejected. A timer's hint.
    pub const fn until_ms(self) -> Option<u64> {
        match self.phase {
            Phase::Ejected { until_ms, .. } => Some(until_ms),
            Phase::Closed { .. } | Phase::HalfOpen { .. } => None,
        }
    }

    /// n of the newest ejection less its clean minutes; 0 to [`MOST_EJECTIONS`].
    pub const fn ejections(self) -> u32 {
        self.ejections
    }

    /// Keeps the streaks and the window.
    fn count(&mut self, now_ms: u64, event: Event, [ok, failed]: [u64; 2]) {
        self.forgive(now_ms);
        self.window.add(now_ms, [ok, failed]);
        if ok > 0 {
            (self.local_failures, self.errors) = (0, 0);
        }
        match event {
            Event::LocalFailure => self.local_failures = self.local_failures.saturating_add(1),
            Event::Error => self.errors = self.errors.saturating_add(1),
            Event::Sample { .. } | Event::Trip(_) | Event::Probe { .. } | Event::Tick => {}
        }
    }

    /// One ejection is forgotten for each clean minute.
    fn forgive(&mut self, now_ms: u64) {
        if let Phase::Closed { clean_ms } = &mut self.phase {
            let minutes = now_ms.saturating_sub(*clean_ms) / CLEAN_MS;
            *clean_ms += minutes * CLEAN_MS;
            self.ejections =
                self.ejections.saturating_sub(u32::try_from(minutes).unwrap_or(u32::MAX));
        }
    }

    fn trips(&mut self, now_ms: u64, event: Event) -> Option<Cause> {
        let [ok, failed] = self.window.sums(now_ms);
        let requests = ok.saturating_add(failed);
        match event {
            Event::Trip(cause) => Some(cause),
            Event::LocalFailure if self.local_failures >= LOCAL_FAILURES => {
                Some(Cause::LocalFailures)
            }
            Event::Error if self.errors >= ERRORS => Some(Cause::Errors),
            Event::Sample { .. }
                if requests >= RATIO_REQUESTS && ok.saturating_mul(RATIO_DIVISOR) < requests =>
            {
                Some(Cause::SuccessRatio)
            }
            _ => None,
        }
    }

    fn eject(mut self, now_ms: u64, cause: Cause, draw: u64) -> (Self, Option<Transition>) {
        self.ejections = (self.ejections + 1).min(MOST_EJECTIONS);
        let length = ejection_ms(self.ejections, draw);
        self.to(Phase::Ejected { until_ms: now_ms.saturating_add(length), passed: false }, cause)
    }

    /// Begins anew: what was counted before the ejection speaks of another time.
    fn close(self, now_ms: u64) -> (Self, Option<Transition>) {
        let [ok_total, failed_total] = self.totals;
        let fresh = Self::new(ok_total, failed_total);
        let (next, transition) = self.to(Phase::Closed { clean_ms: now_ms }, Cause::TrialPassed);
        (Self { phase: next.phase, ejections: self.ejections, ..fresh }, transition)
    }

    fn to(self, phase: Phase, cause: Cause) -> (Self, Option<Transition>) {
        let next = Self { phase, ..self };
        (next, Some(Transition { from: self.passive(), to: next.passive(), cause }))
    }
}

impl Cause {
    /// The word of metrics, logs and the status API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LocalFailures => "local_failures",
            Self::Errors => "errors",
            Self::SuccessRatio => "success_ratio",
            Self::Hung => "hung",
            Self::TrialFailed => "trial_failed",
            Self::TimeOver => "time_over",
            Self::TrialLost => "trial_lost",
            Self::TrialPassed => "trial_passed",
        }
    }
}

/// Whether one more ready member of a group (a cluster's `backends`, or one shard's primary and
/// replicas) may be ejected: at most half of it, rounded up, and never the last ready one
/// (core.md).
///
/// `out`: members ejected or half open now. `ready`: members in rotation now, this one included,
/// that can do what this one does: a shard's only primary is the last ready one for its writes.
pub const fn may_eject(group_size: usize, out: usize, ready: usize) -> bool {
    out < group_size.div_ceil(2) && ready >= 2
}

/// How long the n-th ejection in a row lasts, in milliseconds: 5s x 2^(n-1) up to 300s, give or
/// take 10 % so that those ejected together do not all come back together.
fn ejection_ms(n: u32, draw: u64) -> u64 {
    let doubled = FIRST_EJECTION_MS.saturating_mul(1 << (n.clamp(1, MOST_EJECTIONS) - 1));
    let length = jitter(Duration::from_millis(doubled.min(LONGEST_EJECTION_MS)), draw);
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// Successes and failures between two samples.
fn grown([ok, failed]: [u64; 2], [ok_now, failed_now]: [u64; 2]) -> [u64; 2] {
    [ok_now.saturating_sub(ok), failed_now.saturating_sub(failed)]
}

#[cfg(test)]
mod tests;
