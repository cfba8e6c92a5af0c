//! A perfect hash over command names that ignores case: one place looked at for any word, no
//! probing. It says where a word would be; whether it is that word is the caller's comparison.
//!
//! Hash and displace (Belazzougui, Botelho, Dietzfelbinger, ESA 2009): a first hash names a bucket,
//! the bucket's displacement turns the same hash into a slot of its own.

/// The places of a fixed set of (scope, word) pairs.
#[derive(Clone, Debug)]
pub(super) struct Perfect {
    seed: u64,
    /// One per bucket; a power of two of them.
    displacements: Box<[u16]>,
    /// Positions in the set, a power of two of them; [`NONE`] where there is none.
    slots: Box<[u16]>,
}

const NONE: u16 = u16::MAX;
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15; // 2^64 / golden ratio (Knuth, 6.4)

impl Perfect {
    /// The hash over `words`; of two that differ in nothing but what is folded, the first counts.
    pub(super) fn new<'a>(words: impl Iterator<Item = (u16, &'a [u8])>) -> Self {
        let words: Vec<_> = words.take(usize::from(NONE)).collect();
        let buckets = (words.len() / 2).max(1).next_power_of_two();
        let slots = (words.len() * 2).max(2).next_power_of_two();
        // Each seed fails with a small probability; a set that fails them all does not exist,
        // but the loop has an end anyway, and then finds nothing.
        (1..=64u64)
            .find_map(|seed| Self::try_seed(&words, seed.wrapping_mul(MULTIPLIER), buckets, slots))
            .unwrap_or_default()
    }

    fn try_seed(words: &[(u16, &[u8])], seed: u64, buckets: usize, slots: usize) -> Option<Self> {
        let mut by_bucket: Vec<Vec<(u64, u16)>> = vec![Vec::new(); buckets];
        for (&(scope, word), place) in words.iter().zip(0u16..) {
            let hash = hash(seed, scope, word);
            let bucket = by_bucket.get_mut(bucket_of(hash, buckets))?;
            if !bucket.iter().any(|&(other, _)| other == hash) {
                bucket.push((hash, place));
            }
        }
        let mut order: Vec<usize> = (0..buckets).collect();
        order.sort_by_key(|&b| std::cmp::Reverse(by_bucket.get(b).map_or(0, Vec::len)));
        let mut this =
            Self { seed, displacements: vec![0; buckets].into(), slots: vec![NONE; slots].into() };
        for b in order {
            let bucket = by_bucket.get(b)?;
            let displacement = (0..NONE).find(|&d| this.place(bucket, d))?;
            *this.displacements.get_mut(b)? = displacement;
        }
        Some(this)
    }

    /// Puts a whole bucket into free slots, or nothing of it.
    fn place(&mut self, bucket: &[(u64, u16)], displacement: u16) -> bool {
        for (done, &(hash, place)) in bucket.iter().enumerate() {
            let slot = slot_of(hash, displacement, self.slots.len());
            match self.slots.get_mut(slot) {
                Some(free) if *free == NONE => *free = place,
                _ => {
                    for &(hash, _) in bucket.iter().take(done) {
                        let slot = slot_of(hash, displacement, self.slots.len());
                        if let Some(taken) = self.slots.get_mut(slot) {
                            *taken = NONE;
                        }
                    }
                    return false;
                }
            }
        }
        true
    }

    /// The one position where that word can be; past the end of the set when it is in none.
    #[inline]
    pub(super) fn get(&self, scope: u16, word: &[u8]) -> usize {
        let hash = hash(self.seed, scope, word);
        let bucket = bucket_of(hash, self.displacements.len());
        let displacement = self.displacements.get(bucket).copied().unwrap_or(0);
        let slot = slot_of(hash, displacement, self.slots.len());
        usize::from(self.slots.get(slot).copied().unwrap_or(NONE))
    }
}

impl Default for Perfect {
    fn default() -> Self {
        Self { seed: 0, displacements: [0].into(), slots: [NONE, NONE].into() }
    }
}

#[inline]
fn bucket_of(hash: u64, buckets: usize) -> usize {
    low_bits(hash >> 40) & (buckets - 1)
}

#[inline]
fn slot_of(hash: u64, displacement: u16, slots: usize) -> usize {
    let mixed = (hash ^ u64::from(displacement)).wrapping_mul(MULTIPLIER);
    low_bits(mixed >> 32) & (slots - 1)
}

#[inline]
fn low_bits(x: u64) -> usize {
    usize::from((x & 0xFFFF) as u16)
}

/// Letters lose their case by losing bit 5. Other bytes lose it too, which is harmless here.
const FOLD: u64 = 0xDFDF_DFDF_DFDF_DFDF;

#[inline]
fn hash(seed: u64, scope: u16, word: &[u8]) -> u64 {
    // Multiplied, not xored: "O...." and "L....." would differ in length and letter alike.
    let mut h = seed.wrapping_mul(1 + (u64::from(scope) << 32) + word.len() as u64);
    let (chunks, tail) = word.as_chunks::<8>();
    for chunk in chunks {
        h = mix(h, u64::from_le_bytes(*chunk));
    }
    mix(h, tail_word(tail))
}

/// Whether two words are the same but for the case of their letters, and, which matters only where
/// there are other bytes than letters, for bit 5 of those.
#[inline]
pub(super) fn same_folded(a: &[u8], b: &[u8]) -> bool {
    let ((chunks_a, tail_a), (chunks_b, tail_b)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let same = |a, b| (a ^ b) & FOLD == 0;
    a.len() == b.len()
        && same(tail_word(tail_a), tail_word(tail_b))
        && chunks_a
            .iter()
            .zip(chunks_b)
            .all(|(a, b)| same(u64::from_le_bytes(*a), u64::from_le_bytes(*b)))
}

#[inline]
fn mix(h: u64, word: u64) -> u64 {
    let h = (h ^ (word & FOLD)).wrapping_mul(MULTIPLIER);
    h ^ (h >> 29)
}

/// Up to seven bytes as one word, by loads that overlap instead of a loop.
#[inline]
fn tail_word(tail: &[u8]) -> u64 {
    if let (Some(first), Some(last)) = (tail.first_chunk::<4>(), tail.last_chunk::<4>()) {
        return u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32;
    }
    match *tail {
        [a, b, c] => u64::from(a) | u64::from(b) << 8 | u64::from(c) << 16,
        [a, b] => u64::from(a) | u64::from(b) << 8,
        [a] => u64::from(a),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        // Each case makes a whole table.
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn every_word_has_its_own_place(
            words in proptest::collection::hash_set("[A-Z.]{1,20}", 0..600),
        ) {
            let words: Vec<String> = words.into_iter().collect();
            let perfect = Perfect::new(words.iter().map(|w| (0, w.as_bytes())));
            for (place, word) in words.iter().enumerate() {
                prop_assert_eq!(perfect.get(0, word.as_bytes()), place);
                prop_assert_eq!(perfect.get(0, word.to_ascii_lowercase().as_bytes()), place);
            }
        }

        #[test]
        fn any_bytes_are_answered(word in proptest::collection::vec(any::<u8>(), 0..64)) {
            let perfect = Perfect::new([(0, b"GET".as_slice()), (3, b"GET")].into_iter());
            let place = perfect.get(3, &word);
            prop_assert!(place <= 1 || place == usize::from(NONE));
        }
    }

    #[test]
    fn scopes_are_apart() {
        let words = [(0, b"LIST".as_slice()), (1, b"LIST"), (2, b"LIST")];
        let perfect = Perfect::new(words.into_iter());
        assert_eq!((0..3).map(|s| perfect.get(s, b"list")).collect::<Vec<_>>(), [0, 1, 2]);
    }
}
