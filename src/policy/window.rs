//! Two counts over the last ten seconds, exact to a second. Not a rate and not a limit: those are
//! of whoever asks ([`super::retry`], [`super::outlier`]).

/// Ten buckets of one second each, the newest first (core.md). A value: the clock is an argument,
/// in milliseconds from any fixed start; one that goes backwards counts as standing still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    buckets: [[u64; 2]; SECONDS],
    /// The second of the newest bucket.
    second: u64,
}

/// How long a count is remembered.
pub const SECONDS: usize = 10;

impl Window {
    /// Adds to the two counts.
    pub fn add(&mut self, now_ms: u64, [first, second]: [u64; 2]) {
        self.advance(now_ms);
        let [[a, b], ..] = &mut self.buckets;
        *a = a.saturating_add(first);
        *b = b.saturating_add(second);
    }

    /// The two counts over the second of `now_ms` and the nine before it.
    pub fn sums(&mut self, now_ms: u64) -> [u64; 2] {
        self.advance(now_ms);
        let sum =
            |[a, b]: [u64; 2], [c, d]: &[u64; 2]| [a.saturating_add(*c), b.saturating_add(*d)];
        self.buckets.iter().fold([0, 0], sum)
    }

    fn advance(&mut self, now_ms: u64) {
        let passed = (now_ms / 1_000).saturating_sub(self.second);
        let passed = usize::try_from(passed).unwrap_or(SECONDS).min(SECONDS);
        if passed > 0 {
            self.buckets.rotate_right(passed);
            self.buckets.iter_mut().take(passed).for_each(|bucket| *bucket = [0, 0]);
            self.second = now_ms / 1_000;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_clock_that_goes_back_forgets_nothing() {
        let mut window = Window::default();
        window.add(50_000, [1, 2]);
        window.add(1_000, [1, 0]);
        assert_eq!(window.sums(0), [2, 2]);
        assert_eq!(window.sums(59_999), [2, 2]);
        assert_eq!(window.sums(60_000), [0, 0]);
        assert_eq!(window.sums(u64::MAX), [0, 0]);
    }

    proptest! {
        #[test]
        fn as_a_list_of_all_that_was_added(
            steps in prop::collection::vec((0_u64..4_000, 0_u64..9, 0_u64..9), 1..80),
        ) {
            let mut window = Window::default();
            let mut now = 0;
            let mut all = Vec::new();
            for (pause, a, b) in steps {
                now += pause;
                window.add(now, [a, b]);
                all.push((now / 1_000, a, b));
                let fresh = all.iter().filter(|(second, ..)| second + 10 > now / 1_000);
                let sums = fresh.fold([0, 0], |[x, y], (_, a, b)| [x + a, y + b]);
                prop_assert_eq!(window.sums(now), sums);
            }
        }
    }
}
