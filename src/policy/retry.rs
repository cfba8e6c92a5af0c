//! Whether a failed request may be tried on another backend, and the budget that keeps retries from
//! becoming a storm. Not where it goes next, nor when: that is the session's.

use super::{
    access::Access,
    window::{SECONDS, Window},
};

/// Retries of one request, on top of its first try (core.md, "Admission, retries, limits" 4).
pub const MAX_RETRIES: u8 = 2;

/// What to do with a request whose try has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Try another backend, if the [`Budget`] and the request's deadline allow it.
    Retry,
    /// Tell the client.
    Fail(Effect),
}

/// What a failed request may have done to the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: not a byte was sent, or it was a read.
    None,
    /// A write was sent and its reply never came: it may have been executed or not.
    Unknown,
}

/// Judges a try that failed before any byte of its reply was forwarded (after that a client can
/// only be disconnected, and nobody may ask here).
///
/// `sent`: at least one byte of the request reached the backend's socket. `attempts`: tries made so
/// far, the failed one included. A write that was sent is never tried again, for a second INCR
/// counts twice.
pub const fn decide(sent: bool, access: Access, attempts: u8) -> Verdict {
    match access {
        Access::Write if sent => Verdict::Fail(Effect::Unknown),
        Access::Read | Access::Write if attempts > MAX_RETRIES => Verdict::Fail(Effect::None),
        Access::Read | Access::Write => Verdict::Retry,
    }
}

/// How many retries a worker may still make: 20 % of the requests of the last 10s, and 3 per second
/// on top so that a quiet proxy can retry too (core.md; linkerd's `retryBudget` has the same shape).
/// A value: the clock is an argument, in milliseconds from any fixed start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Requests and retries.
    window: Window,
}

/// One retry for so many requests: 20 %.
const REQUESTS_PER_RETRY: u64 = 5;
/// Retries that need no requests: 3 for each second of the window.
const FLOOR: u64 = 3 * SECONDS as u64;

impl Budget {
    /// Counts `n` requests. Retries are not requests.
    pub fn on_request(&mut self, now_ms: u64, n: u64) {
        self.window.add(now_ms, [n, 0]);
    }

    /// Takes one retry; false when the budget is spent.
    pub fn try_retry(&mut self, now_ms: u64) -> bool {
        let [requests, retries] = self.window.sums(now_ms);
        let allowed = retries < FLOOR.saturating_add(requests / REQUESTS_PER_RETRY);
        if allowed {
            self.window.add(now_ms, [0, 1]);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_write_that_was_sent_is_never_tried_again() {
        for attempts in 0..=u8::MAX {
            let verdict = decide(true, Access::Write, attempts);
            assert_eq!(verdict, Verdict::Fail(Effect::Unknown), "{attempts} tries");
        }
    }

    #[test]
    fn reads_and_what_was_not_sent_get_two_retries() {
        for (sent, access) in [(false, Access::Read), (true, Access::Read), (false, Access::Write)]
        {
            let verdicts = [1, 2, 3].map(|attempts| decide(sent, access, attempts));
            assert_eq!(verdicts, [Verdict::Retry, Verdict::Retry, Verdict::Fail(Effect::None)]);
        }
    }

    fn retries(budget: &mut Budget, now_ms: u64) -> usize {
        (0..10_000).take_while(|_| budget.try_retry(now_ms)).count()
    }

    #[test]
    fn a_quiet_proxy_may_retry_three_times_a_second() {
        let mut budget = Budget::default();
        assert_eq!(retries(&mut budget, 0), 30);
        assert_eq!(retries(&mut budget, 9_999), 0);
        assert_eq!(retries(&mut budget, 10_000), 30);
    }

    #[test]
    fn a_busy_proxy_may_retry_one_in_five() {
        let mut budget = Budget::default();
        for second in 0..10 {
            budget.on_request(second * 1_000, 100);
        }
        assert_eq!(retries(&mut budget, 9_500), 200 + 30);
        // The requests of the first second leave the window, the retries do not yet.
        assert_eq!(retries(&mut budget, 10_500), 0);
        assert_eq!(retries(&mut budget, 19_500), 30);
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let mut budget = Budget::default();
        assert_eq!(retries(&mut budget, 50_000), 30);
        assert_eq!(retries(&mut budget, 1_000), 0);
        assert_eq!(retries(&mut budget, 50_001), 0);
    }

    proptest! {
        #[test]
        fn never_more_than_the_budget_in_any_window(
            steps in prop::collection::vec((0_u64..3_000, 0_u64..50, 0_usize..40), 1..60),
        ) {
            let mut budget = Budget::default();
            let mut now = 0;
            let mut log: Vec<(u64, u64, u64)> = Vec::new();
            for (pause, requests, tries) in steps {
                now += pause;
                budget.on_request(now, requests);
                log.push((now, requests, 0));
                for _ in 0..tries {
                    let window = log.iter().filter(|(at, ..)| at / 1_000 + 10 > now / 1_000);
                    let (requests, retries) =
                        window.fold((0, 0), |(q, r), (_, dq, dr)| (q + dq, r + dr));
                    let allowed = retries < 30 + requests / 5;
                    prop_assert_eq!(budget.try_retry(now), allowed);
                    log.push((now, 0, u64::from(allowed)));
                }
            }
        }
    }
}
