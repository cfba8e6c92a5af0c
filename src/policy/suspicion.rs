//! Finds hung backends before the probes' rounds do: a request that waits far longer than usual
//! while not a byte comes. Not the verdict: a suspect is probed at once.

/// How long the newest requests took: a histogram by powers of two that forgets.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    buckets: [u32; 32],
    total: u32,
}

impl Recent {
    /// Counts one request of `us` microseconds.
    pub fn add(&mut self, us: u64) {
        let index = (u64::BITS - us.leading_zeros()).min(31) as usize;
        if let Some(bucket) = self.buckets.get_mut(index) {
            *bucket = bucket.saturating_add(1);
            self.total = self.total.saturating_add(1);
        }
    }

    /// Halves every count; call it every ten seconds or so.
    pub fn decay(&mut self) {
        self.buckets.iter_mut().for_each(|bucket| *bucket /= 2);
        self.total = self.buckets.iter().sum();
    }

    /// An upper bound of the 99th percentile in microseconds (within a factor of two); 0 when
    /// nothing was counted.
    pub fn p99_us(&self) -> u64 {
        let mut above = self.total / 100;
        for (index, count) in self.buckets.iter().enumerate().rev() {
            if *count > above {
                return 1u64 << index;
            }
            above -= count;
        }
        0
    }
}

/// Whether a backend whose oldest request is `oldest_us` old, and which has sent no byte for
/// `silent_us`, is to be probed at once (core.md: 4 x its p99, at least 250ms).
pub fn is_suspect(oldest_us: u64, silent_us: u64, p99_us: u64) -> bool {
    let limit = p99_us.saturating_mul(P99_FACTOR).max(MIN_WAIT_US);
    oldest_us > limit && silent_us > limit
}

const P99_FACTOR: u64 = 4;
const MIN_WAIT_US: u64 = 250_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_p99_is_bounded_from_above_and_fades() {
        let mut recent = Recent::default();
        assert_eq!(recent.p99_us(), 0);
        (0..990).for_each(|_| recent.add(100));
        (0..10).for_each(|_| recent.add(50_000));
        assert_eq!(recent.p99_us(), 128);
        (0..10).for_each(|_| recent.add(50_000));
        assert_eq!(recent.p99_us(), 65_536);
        (0..12).for_each(|_| recent.decay());
        assert_eq!(recent.p99_us(), 0);
    }

    #[test]
    fn slow_is_not_hung_while_bytes_come() {
        assert!(!is_suspect(200_000, 200_000, 100));
        assert!(is_suspect(260_000, 260_000, 100));
        assert!(!is_suspect(260_000, 10_000, 100));
        assert!(!is_suspect(900_000, 900_000, 300_000));
    }
}
