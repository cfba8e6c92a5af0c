//! Redis's 16,384 hash slots: the slot of a key, bit for bit as a Redis server computes it. Not who
//! owns a slot: that is [`super::shard`].

/// How many slots there are (Redis Cluster specification, "Key distribution model").
pub const SLOTS: u16 = 16_384;

/// The slot of a key, with Redis's `{tag}` rule. Always below [`SLOTS`].
pub fn slot(key: &[u8]) -> u16 {
    crc16(hash_tag(key)) & (SLOTS - 1)
}

/// The part of a key that is hashed: what stands between the first `{` and the first `}` after it;
/// the whole key when there is no such pair or nothing in it (Redis Cluster specification, "Hash
/// tags"; `keyHashSlot` of Redis's cluster.c).
pub fn hash_tag(key: &[u8]) -> &[u8] {
    tag_between([b'{', b'}'], key)
}

/// As [`hash_tag`] with two other bytes around it, which may be the same.
#[inline]
pub fn tag_between([open, close]: [u8; 2], key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(open, key) else { return key };
    let after = key.get(open + 1..).unwrap_or_default();
    match memchr::memchr(close, after) {
        None | Some(0) => key,
        Some(close) => after.get(..close).unwrap_or_default(),
    }
}

/// CRC-16/XMODEM: polynomial 0x1021, start 0, not reflected (Redis Cluster specification, appendix
/// A). Eight bytes a step, for a byte a step is most of the cost of finding a key's shard.
pub fn crc16(bytes: &[u8]) -> u16 {
    let (eights, rest) = bytes.as_chunks::<8>();
    let crc = eights.iter().fold(0, |crc, chunk| step8(crc, *chunk));
    let (fours, rest) = rest.as_chunks::<4>();
    let crc = fours.iter().fold(crc, |crc, chunk| step4(crc, *chunk));
    rest.iter().fold(crc, |crc, byte| {
        let [high, low] = crc.to_be_bytes();
        at(0, high ^ byte) ^ u16::from_be_bytes([low, 0])
    })
}

#[inline]
fn step8(crc: u16, [a, b, c, d, e, f, g, h]: [u8; 8]) -> u16 {
    let [high, low] = crc.to_be_bytes();
    let first = at(7, high ^ a) ^ at(6, low ^ b) ^ at(5, c) ^ at(4, d);
    first ^ at(3, e) ^ at(2, f) ^ at(1, g) ^ at(0, h)
}

#[inline]
fn step4(crc: u16, [a, b, c, d]: [u8; 4]) -> u16 {
    let [high, low] = crc.to_be_bytes();
    at(3, high ^ a) ^ at(2, low ^ b) ^ at(1, c) ^ at(0, d)
}

/// What `byte` adds to the checksum when `zeros` more bytes follow it.
#[inline]
#[expect(clippy::indexing_slicing, reason = "`zeros` is a literal below 8, a u8 is below 256")]
fn at(zeros: usize, byte: u8) -> u16 {
    TABLES[zeros][usize::from(byte)]
}

/// `TABLES[k][b]` is the checksum of the byte b followed by k zero bytes; 4 KiB in all.
static TABLES: [[u16; 256]; 8] = tables();

#[expect(clippy::indexing_slicing, reason = "runs in the compiler, which would report it")]
const fn tables() -> [[u16; 256]; 8] {
    let mut tables = [[0_u16; 256]; 8];
    // The checksum is linear: the entries of the powers of two, of which the first is the
    // polynomial itself and each next one a shift of it, give all others.
    let mut crc = POLYNOMIAL;
    let mut bit = 1;
    while bit < 256 {
        let mut i = 0;
        while i < bit {
            tables[0][bit + i] = tables[0][i] ^ crc;
            i += 1;
        }
        crc = (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { POLYNOMIAL };
        bit *= 2;
    }
    let mut k = 1;
    while k < 8 {
        let mut b = 0;
        while b < 256 {
            let [high, low] = tables[k - 1][b].to_be_bytes();
            tables[k][b] = tables[0][high as usize] ^ u16::from_be_bytes([low, 0]);
            b += 1;
        }
        k += 1;
    }
    tables
}

const POLYNOMIAL: u16 = 0x1021;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, one bit at a time.
    fn crc16_by_bits(bytes: &[u8]) -> u16 {
        bytes.iter().fold(0, |crc, byte| {
            (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc: u16, _| {
                (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 }
            })
        })
    }

    #[test]
    fn known_vectors() {
        // Redis Cluster specification, appendix A; the slots are a server's CLUSTER KEYSLOT.
        assert_eq!(crc16(b"123456789"), 0x31C3);
        for (key, expected) in [
            (&b""[..], 0),
            (b"foo", 12_182),
            (b"bar", 5_061),
            (b"hello", 866),
            (b"123456789", 12_739),
            (b"{foo}bar", 12_182),
            (b"user:{foo}:1", 12_182),
        ] {
            assert_eq!(slot(key), expected, "{}", key.escape_ascii());
        }
    }

    #[test]
    fn the_hash_tag_is_redis_s() {
        for (key, tag) in [
            ("plain", "plain"),
            ("{user1000}.following", "user1000"),
            ("foo{}{bar}", "foo{}{bar}"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
            ("foo{bar", "foo{bar"),
            ("foo}bar{", "foo}bar{"),
            ("foo}{bar}", "bar"),
            ("{}", "{}"),
            ("{", "{"),
            ("", ""),
        ] {
            assert_eq!(hash_tag(key.as_bytes()), tag.as_bytes(), "{key}");
        }
    }

    proptest! {
        #[test]
        fn the_tables_give_what_the_bits_give(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(crc16(&bytes), crc16_by_bits(&bytes));
            prop_assert!(slot(&bytes) < SLOTS);
        }

        #[test]
        fn keys_with_one_tag_share_a_slot(tag in "[^{}]+", before in "[^{]*", after in ".*") {
            let key = format!("{before}{{{tag}}}{after}");
            prop_assert_eq!(slot(key.as_bytes()), slot(tag.as_bytes()));
        }
    }
}
