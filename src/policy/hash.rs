//! The hash functions that a cluster may spread its keys with. Which shard a hash belongs to is
//! [`super::shard`]'s.
//!
//! Names and results are those of twemproxy 0.5 and libmemcached, oddities included, because their
//! keys are to stay where they are: `fnv1_64` and `fnv1a_64` give their low 32 bits only, `crc32` 15
//! bits of it, and where those take a byte for a signed number, so do we. `xxh3` is neither's.

use super::slot;
use md5::{Digest, Md5};
use xxhash_rust::xxh3::xxh3_64;

/// A hash function by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hash {
    OneAtATime,
    Md5,
    Crc16,
    Crc32,
    Crc32a,
    Fnv1_64,
    #[default]
    Fnv1a64,
    Fnv1_32,
    Fnv1a32,
    Hsieh,
    Murmur,
    Jenkins,
    Xxh3,
}

impl Hash {
    /// The hash of a key: 64 bits of `xxh3`, at most 32 of all others. An empty key has 0, as with
    /// twemproxy.
    pub fn of(self, key: &[u8]) -> u64 {
        if key.is_empty() {
            return 0;
        }
        match self {
            Self::OneAtATime => u64::from(one_at_a_time(key)),
            Self::Md5 => u64::from(md5_word(key, 0)),
            Self::Crc16 => u64::from(crc16(key)),
            Self::Crc32 => u64::from((crc32(key) >> 16) & 0x7FFF),
            Self::Crc32a => u64::from(crc32(key)),
            Self::Fnv1_64 => u64::from(fnv1(FNV_64_START, FNV_64_PRIME, key)),
            Self::Fnv1a64 => u64::from(fnv1a(FNV_64_START, FNV_64_PRIME, key)),
            Self::Fnv1_32 => u64::from(fnv1(FNV_32_START, FNV_32_PRIME, key)),
            Self::Fnv1a32 => u64::from(fnv1a(FNV_32_START, FNV_32_PRIME, key)),
            Self::Hsieh => u64::from(hsieh(key)),
            Self::Murmur => u64::from(murmur2(key)),
            Self::Jenkins => u64::from(lookup3(key)),
            Self::Xxh3 => xxh3_64(key),
        }
    }
}

/// The `word`th of the four little-endian numbers in the MD5 of `bytes` (RFC 1321).
pub(super) fn md5_word(bytes: &[u8], word: usize) -> u32 {
    let digest = Md5::digest(bytes);
    let words = digest.as_chunks::<4>().0;
    words.get(word).copied().map_or(0, u32::from_le_bytes)
}

/// The low halves of the published 64-bit start and prime (draft-eastlake-fnv); the low half of a
/// product needs no more.
const FNV_64_START: u32 = 0x8422_2325;
const FNV_64_PRIME: u32 = 0x0000_01B3;
const FNV_32_START: u32 = 0x811C_9DC5;
const FNV_32_PRIME: u32 = 0x0100_0193;

fn fnv1(start: u32, prime: u32, key: &[u8]) -> u32 {
    key.iter().fold(start, |hash, byte| hash.wrapping_mul(prime) ^ signed(*byte))
}

fn fnv1a(start: u32, prime: u32, key: &[u8]) -> u32 {
    key.iter().fold(start, |hash, byte| (hash ^ signed(*byte)).wrapping_mul(prime))
}

/// A byte as C's `char` is on x86-64 and as twemproxy adds it: from 0x80 on with all high bits set.
fn signed(byte: u8) -> u32 {
    i32::from(byte.cast_signed()).cast_unsigned()
}

/// Bob Jenkins, "Hash functions", Dr. Dobb's Journal, September 1997.
fn one_at_a_time(key: &[u8]) -> u32 {
    let sum = key.iter().fold(0_u32, |hash, byte| {
        let hash = hash.wrapping_add(signed(*byte));
        let hash = hash.wrapping_add(hash << 10);
        hash ^ (hash >> 6)
    });
    let sum = sum.wrapping_add(sum << 3);
    let sum = sum ^ (sum >> 11);
    sum.wrapping_add(sum << 15)
}

/// The checksum of the slots, whose upper 16 bits are kept: they are those of the key but for its
/// last two bytes, in part.
fn crc16(key: &[u8]) -> u32 {
    key.iter().fold(0, |crc, byte| {
        let [_, _, high, _] = crc.to_be_bytes();
        (crc << 8) ^ u32::from(slot::crc16(&[high ^ byte]))
    })
}

/// CRC-32 of IEEE 802.3.
fn crc32(key: &[u8]) -> u32 {
    !key.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 0 { 0 } else { 0xEDB8_8320 }
        })
    })
}

/// Paul Hsieh's SuperFastHash (azillionmonkeys.com/qed/hash.html), started at 0.
fn hsieh(key: &[u8]) -> u32 {
    let (blocks, rest) = key.as_chunks::<4>();
    let mut hash = blocks.iter().fold(0_u32, |hash, &[a, b, c, d]| {
        let hash = hash.wrapping_add(pair(a, b));
        let hash = (hash << 16) ^ (pair(c, d) << 11) ^ hash;
        hash.wrapping_add(hash >> 11)
    });
    match *rest {
        [a, b, c] => {
            hash = hash.wrapping_add(pair(a, b));
            hash ^= hash << 16;
            hash ^= signed(c) << 18;
            hash = hash.wrapping_add(hash >> 11);
        }
        [a, b] => {
            hash = hash.wrapping_add(pair(a, b));
            hash ^= hash << 11;
            hash = hash.wrapping_add(hash >> 17);
        }
        [a] => {
            hash = hash.wrapping_add(u32::from(a));
            hash ^= hash << 10;
            hash = hash.wrapping_add(hash >> 1);
        }
        _ => {}
    }
    for (left, right) in [(3, 5), (4, 17), (25, 6)] {
        hash ^= hash << left;
        hash = hash.wrapping_add(hash >> right);
    }
    hash
}

fn pair(low: u8, high: u8) -> u32 {
    u32::from(u16::from_le_bytes([low, high]))
}

/// Austin Appleby's MurmurHash2 with the seed that libmemcached takes: a multiple of the length.
fn murmur2(key: &[u8]) -> u32 {
    const MULTIPLIER: u32 = 0x5BD1_E995;
    let len = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let (blocks, rest) = key.as_chunks::<4>();
    let hash = blocks.iter().fold(0xDEAD_BEEF_u32.wrapping_mul(len) ^ len, |hash, block| {
        let block = u32::from_le_bytes(*block).wrapping_mul(MULTIPLIER);
        let block = (block ^ (block >> 24)).wrapping_mul(MULTIPLIER);
        hash.wrapping_mul(MULTIPLIER) ^ block
    });
    let hash = match rest {
        [] => hash,
        rest => (hash ^ little_endian(rest)).wrapping_mul(MULTIPLIER),
    };
    let hash = (hash ^ (hash >> 13)).wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

/// Bob Jenkins's lookup3, `hashlittle` (burtleburtle.net/bob/c/lookup3.c), started as libmemcached
/// does.
fn lookup3(key: &[u8]) -> u32 {
    const START: u32 = 13;
    let len = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let first = 0xDEAD_BEEF_u32.wrapping_add(len).wrapping_add(START);
    let mut state = [first; 3];
    // The last block, whole or not, is mixed in another way.
    let last = key.len().saturating_sub(1) / 12 * 12;
    let (body, tail) = key.split_at(last);
    for block in body.chunks(12) {
        state = mix(add(state, block));
    }
    let [a, b, c] = add(state, tail);
    let c = (c ^ b).wrapping_sub(b.rotate_left(14));
    let a = (a ^ c).wrapping_sub(c.rotate_left(11));
    let b = (b ^ a).wrapping_sub(a.rotate_left(25));
    let c = (c ^ b).wrapping_sub(b.rotate_left(16));
    let a = (a ^ c).wrapping_sub(c.rotate_left(4));
    let b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

/// Up to twelve bytes, as three numbers, added to the state.
fn add([a, b, c]: [u32; 3], block: &[u8]) -> [u32; 3] {
    let mut words = block.chunks(4).map(little_endian).chain([0; 3]);
    let mut next = |word: u32| word.wrapping_add(words.next().unwrap_or_default());
    [next(a), next(b), next(c)]
}

fn mix([a, b, c]: [u32; 3]) -> [u32; 3] {
    let (a, c) = (a.wrapping_sub(c) ^ c.rotate_left(4), c.wrapping_add(b));
    let (b, a) = (b.wrapping_sub(a) ^ a.rotate_left(6), a.wrapping_add(c));
    let (c, b) = (c.wrapping_sub(b) ^ b.rotate_left(8), b.wrapping_add(a));
    let (a, c) = (a.wrapping_sub(c) ^ c.rotate_left(16), c.wrapping_add(b));
    let (b, a) = (b.wrapping_sub(a) ^ a.rotate_left(19), a.wrapping_add(c));
    let (c, b) = (c.wrapping_sub(b) ^ b.rotate_left(4), b.wrapping_add(a));
    [a, b, c]
}

/// Up to four bytes.
fn little_endian(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, byte| (word << 8) | u32::from(*byte))
}

#[cfg(test)]
mod tests;
