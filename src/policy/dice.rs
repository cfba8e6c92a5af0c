//! Several numbers out of one random draw. Not a source of randomness: the draw is an argument.

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014):
/// one addition and two multiplications a number, and good from any seed, zero included.
#[derive(Clone, Copy, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The same draw gives the same numbers.
    pub const fn new(draw: u64) -> Self {
        Self(draw)
    }

    /// The next 64 bits.
    #[inline]
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 when `n` is 0. Its bias is below n / 2^64 (Lemire's multiplication).
    #[inline]
    pub const fn below(&mut self, n: u64) -> u64 {
        ((self.next() as u128 * n as u128) >> 64) as u64
    }

    /// An index below `len`; 0 when `len` is 0.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the result is below a usize")]
    pub const fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }
}

/// 64 well-mixed bits of 64 bits; a bijection.
#[inline]
pub const fn mix(bits: u64) -> u64 {
    Dice::new(bits).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_sequence() {
        // The first numbers of seed 1234567, as printed by the authors' C program.
        let mut dice = Dice::new(1_234_567);
        let first = [dice.next(), dice.next(), dice.next()];
        assert_eq!(
            first,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn below_its_bound() {
        let mut dice = Dice::new(7);
        assert_eq!(dice.below(0), 0);
        let mut seen = [false; 5];
        (0..1_000).for_each(|_| seen[dice.index(5)] = true);
        assert_eq!(seen, [true; 5]);
    }
}
