//! How often something may happen: a rate, and the token bucket that holds one client to it. Not
//! who is held, nor what is said to them.

use std::time::Duration;

/// So many in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At least 1.
    pub count: u32,
    /// Not zero.
    pub period: Duration,
}

/// A rate and how many may come at once before it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    pub rate: Rate,
    /// The size of the bucket, at least 1.
    pub burst: u32,
}

/// A token bucket of one client, as one number: when it will be full again, in nanoseconds from any
/// fixed start. This is the virtual scheduling form of the generic cell rate algorithm (ITU-T I.371),
/// which allows what a leaky or token bucket of the same size does and needs no refill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    full_at: u64,
}

impl Rate {
    /// The time between two at this rate in nanoseconds, rounded up so that the rate is never
    /// exceeded.
    fn each(self) -> u64 {
        let each = self.period.as_nanos().div_ceil(self.count.max(1).into());
        u64::try_from(each).unwrap_or(u64::MAX).max(1)
    }
}

impl Bucket {
    /// Takes a token.
    ///
    /// # Errors
    /// How long until there is one; nothing was taken then.
    pub fn take(&mut self, now: u64, allowed: Allowance) -> Result<(), Duration> {
        let each = allowed.rate.each();
        let full_at = self.full_at.max(now);
        // All but the one that is taken now may be missing.
        let room = each.saturating_mul(u64::from(allowed.burst.max(1)) - 1);
        match (full_at - now).checked_sub(room) {
            None | Some(0) => {
                self.full_at = full_at.saturating_add(each);
                Ok(())
            }
            Some(wait) => Err(Duration::from_nanos(wait)),
        }
    }

    /// Whether nothing is missing, so that forgetting it changes nothing.
    pub fn is_full(self, now: u64) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn allowed(count: u32, burst: u32) -> Allowance {
        Allowance { rate: Rate { count, period: Duration::from_secs(1) }, burst }
    }

    /// Who gets through, coming at these tenths of a second.
    fn story(tenths: &[u64], allowed: Allowance) -> String {
        let mut bucket = Bucket::default();
        let mut one = |at: &u64| bucket.take(at * SECOND / 10, allowed).is_ok();
        tenths.iter().map(|at| if one(at) { '+' } else { '-' }).collect()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        assert_eq!(story(&[0, 0, 0, 0, 0], allowed(10, 3)), "+++--");
        assert_eq!(story(&[0, 0, 0, 0, 1, 1, 2, 3, 9, 9, 9, 9], allowed(10, 3)), "+++-+-+++++-");
        assert_eq!(story(&[0, 1, 2, 3], allowed(10, 1)), "++++");
        assert_eq!(story(&[0, 4, 5, 9, 10], allowed(2, 1)), "+-+-+");
    }

    #[test]
    fn who_is_refused_is_told_when_to_come_again() {
        let (mut bucket, allowed) = (Bucket::default(), allowed(4, 1));
        assert_eq!(bucket.take(0, allowed), Ok(()));
        assert_eq!(bucket.take(0, allowed), Err(Duration::from_millis(250)));
        assert_eq!(bucket.take(SECOND / 10, allowed), Err(Duration::from_millis(150)));
        assert!(!bucket.is_full(SECOND / 10) && bucket.is_full(SECOND / 4));
    }

    proptest! {
        /// In no stretch of time do more pass than the burst and what the rate gives meanwhile, and
        /// the wait that is told is exact.
        #[test]
        fn no_window_exceeds_the_burst_and_the_rate(
            gaps in prop::collection::vec(0u64..3_000_000_000, 1..60),
            count in 1u32..2_000,
            burst in 1u32..20,
            millis in 1u64..3_000,
        ) {
            let rate = Rate { count, period: Duration::from_millis(millis) };
            let allowed = Allowance { rate, burst };
            let (mut bucket, mut now, mut passed) = (Bucket::default(), 0, Vec::new());
            for gap in gaps {
                now += gap / u64::from(count);
                match bucket.take(now, allowed) {
                    Ok(()) => passed.push(now),
                    Err(wait) => {
                        let wait = u64::try_from(wait.as_nanos()).unwrap();
                        let at = |later| { let mut copy = bucket; copy.take(now + later, allowed).is_ok() };
                        prop_assert!(at(wait) && !at(wait - 1));
                    }
                }
            }
            for (i, from) in passed.iter().enumerate() {
                for (n, to) in (1u128..).zip(&passed[i..]) {
                    let given = u128::from(to - from) * u128::from(count) / rate.period.as_nanos();
                    prop_assert!(n <= u128::from(burst) + given, "{n} from {from} to {to}");
                }
            }
        }

        /// A bucket that is left alone for long enough is as good as new.
        #[test]
        fn a_full_bucket_is_a_new_one(count in 1u32..100, burst in 1u32..50) {
            let allowed = allowed(count, burst);
            let mut bucket = Bucket::default();
            while bucket.take(0, allowed).is_ok() {}
            let mut at = 0;
            while !bucket.is_full(at) { at += SECOND / 100; }
            let passes = |mut bucket: Bucket| {
                (0..).take_while(|_| bucket.take(at, allowed).is_ok()).count()
            };
            prop_assert_eq!(passes(bucket), passes(Bucket::default()));
        }
    }
}
