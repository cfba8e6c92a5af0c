//! How slow a backend is for its next request: a moving average that follows peaks at once, forgets
//! with time, and takes a failure for a very slow answer. Not the choice: [`super::balance`] does
//! that.
//!
//! The average is Finagle's (`PeakEwma.scala`) with its two absolute numbers made relative to what
//! is usual in the cluster: a penalty of seconds would shut a backend of 0.2ms out for a minute
//! (core.md, "Balancers").

/// What one worker knows of one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// Microseconds; 0 when nothing is known.
    pub peak_us: f64,
    /// The average of successes alone, of which [`median`] makes what is usual. Microseconds.
    pub good_us: f64,
    /// When the newest sample came, in microseconds on the workers' clock.
    pub at_us: u64,
}

/// What a balancer needs to know of it now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Microseconds for one request; above 0.
    pub us: f64,
    /// It has failed lately: that nothing is under way there does not speak for it.
    pub is_failing: bool,
}

/// In so many microseconds a difference falls to 1/e (core.md).
pub const DECAY_US: f64 = 2_000_000.0;
/// A sample counts as so many times the usual at most (core.md).
pub const LONGEST: f64 = 10.0;
/// A failure counts as so many times the usual (core.md).
pub const FAILURE: f64 = 20.0;
/// What is taken for usual, in microseconds, when the first answer of all is a failure: between the
/// 0.2ms of a database and the 100ms of an application.
const UNKNOWN_US: f64 = 10_000.0;
/// The part of the usual that a silent backend comes down to: less than that of its neighbours, so
/// that it is asked again, and not nothing, which would send it everything.
const FORGOTTEN: f64 = 0.5;
/// The part that a success has in the average of successes.
const SHARE: f64 = 0.125;

impl Latency {
    /// With the answer that took `took_us` and came at `now_us`; `usual_us` is the cluster's median,
    /// 0 when there is none.
    #[must_use]
    pub fn after(self, now_us: u64, took_us: u64, failed: bool, usual_us: f64) -> Self {
        let took_us = float(took_us).max(1.0);
        let took_us = if usual_us > 0.0 { took_us.min(LONGEST * usual_us) } else { took_us };
        let good_us = match (failed, self.good_us) {
            (true, good_us) => good_us,
            (false, 0.0) => took_us,
            (false, good_us) => good_us + (took_us - good_us) * SHARE,
        };
        let usual_us = if usual_us > 0.0 { usual_us } else { UNKNOWN_US };
        let sample_us = if failed { FAILURE * usual_us } else { took_us };
        let faded_us = fade(self.peak_us, sample_us, now_us.saturating_sub(self.at_us));
        Self { peak_us: faded_us.max(sample_us), good_us, at_us: now_us.max(self.at_us) }
    }

    /// Microseconds as of `now_us`; 0 when nothing is known. The longer nothing has come, the nearer
    /// to half of what is usual, if it was above that; and never more than a failure counts.
    #[inline]
    pub fn as_of(self, now_us: u64, usual_us: f64) -> f64 {
        let rest_us = FORGOTTEN * usual_us;
        if self.peak_us <= rest_us {
            return self.peak_us;
        }
        let faded_us = fade(self.peak_us, rest_us, now_us.saturating_sub(self.at_us));
        if usual_us > 0.0 { faded_us.min(FAILURE * usual_us) } else { faded_us }
    }
}

impl Pace {
    /// Of what [`Latency::as_of`] says; what nobody knows is taken for usual. No sample alone is as
    /// long as what counts as failing.
    pub fn new(us: f64, usual_us: f64) -> Self {
        let is_failing = usual_us > 0.0 && us > LONGEST * usual_us;
        Self { us: if us > 0.0 { us } else { usual_us.max(1.0) }, is_failing }
    }
}

/// The middle one of those that are known, 0 when none is; of an even number the lower one, for the
/// upper may be the sick one of two.
pub fn median(good_us: &mut Vec<f64>) -> f64 {
    good_us.retain(|us| *us > 0.0);
    good_us.sort_unstable_by(f64::total_cmp);
    good_us.get(good_us.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

#[inline]
fn fade(from: f64, to: f64, for_us: u64) -> f64 {
    to + (from - to) * (-float(for_us) / DECAY_US).exp()
}

/// A day in microseconds has 37 bits, a `f64` holds 53.
#[inline]
const fn float(us: u64) -> f64 {
    us as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const USUAL: f64 = 1_000.0;
    const SECOND: u64 = 1_000_000;

    /// The outcomes one millisecond apart: `.` took the usual, `s` 50 times as long, `F` failed.
    fn told(outcomes: &str) -> Latency {
        outcomes.chars().zip(1..).fold(Latency::default(), |latency, (outcome, ms)| {
            let took_us = if outcome == 's' { 50_000 } else { 1_000 };
            latency.after(ms * 1_000, took_us, outcome == 'F', USUAL)
        })
    }

    #[test]
    fn a_peak_counts_at_once_and_is_clamped_and_a_failure_counts_twice_that() {
        assert_eq!(told("...").peak_us, 1_000.0);
        assert_eq!(told("...s").peak_us, 10_000.0);
        assert_eq!(told("...F").peak_us, 20_000.0);
        assert_eq!(told("sF").peak_us, 20_000.0);
        assert_eq!(told("F").good_us, 0.0, "a failure is never usual");
        assert!(told("...F....").peak_us > 19_900.0, "some good answers excuse no failure");
    }

    #[test]
    fn a_peak_falls_to_a_third_within_two_seconds() {
        let failed = told("F");
        let later = failed.after(failed.at_us + 2 * SECOND, 1_000, false, USUAL);
        let expected = 1_000.0 + 19_000.0 / std::f64::consts::E;
        assert!((later.peak_us - expected).abs() < 1.0, "{later:?}");
    }

    #[test]
    fn who_was_slow_long_ago_is_asked_again_and_who_is_fast_stays_so() {
        let failed = told("...F");
        let as_of = |latency: Latency, s| latency.as_of(latency.at_us + s * SECOND, USUAL);
        assert!(as_of(failed, 0) == 20_000.0 && as_of(failed, 4) > 2_000.0);
        assert!(as_of(failed, 8) < USUAL, "{}", as_of(failed, 8));
        assert!(as_of(failed, 1_000) >= 500.0, "not nothing: it would get everything");
        let fast = Latency { peak_us: 10.0, ..failed };
        assert_eq!(as_of(fast, 1_000), 10.0);
        assert_eq!(Latency::default().as_of(5, USUAL), 0.0);
    }

    #[test]
    fn the_usual_is_the_lower_middle_of_what_is_known() {
        let of = |us: &[f64]| median(&mut us.to_vec());
        assert_eq!(of(&[]), 0.0);
        assert_eq!(of(&[0.0, 0.0]), 0.0);
        assert_eq!(of(&[0.0, 900.0, 5.0]), 5.0);
        assert_eq!(of(&[3.0, 1.0, 900.0]), 3.0);
    }

    proptest! {
        #[test]
        fn any_story_stays_between_nothing_and_a_failure(
            story in prop::collection::vec((0_u64..9_000_000, any::<u32>(), any::<bool>()), 1..50),
            ask in 0_u64..20_000_000,
        ) {
            let (mut latency, mut now_us) = (Latency::default(), 0);
            for (wait_us, took_us, failed) in story {
                now_us += wait_us;
                latency = latency.after(now_us, took_us.into(), failed, USUAL);
                prop_assert!((1.0..=FAILURE * USUAL).contains(&latency.peak_us), "{latency:?}");
                prop_assert!(latency.good_us <= LONGEST * USUAL);
                let later = latency.as_of(now_us + ask, USUAL);
                prop_assert!(later <= latency.peak_us && later >= latency.peak_us.min(500.0));
            }
        }
    }
}
