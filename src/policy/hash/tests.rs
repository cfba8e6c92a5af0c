use super::*;
use proptest::prelude::*;

/// All of them over the text of the check value of the catalogue of CRCs.
#[test]
fn known_vectors() {
    let key = b"123456789";
    for (hash, expected) in [
        // Catalogue of parametrised CRC algorithms: CRC-32/ISO-HDLC, and its CRC-16/XMODEM in the
        // lower half.
        (Hash::Crc32a, 0xCBF4_3926),
        (Hash::Crc32, 0xCBF4 & 0x7FFF),
        // draft-eastlake-fnv: 0xBB86B11C for 32 bits of FNV-1a over this text.
        (Hash::Fnv1a32, 0xBB86_B11C),
        // RFC 1321: 25f9e794323b453885f5181f1b624d0b.
        (Hash::Md5, 0x94E7_F925),
    ] {
        assert_eq!(hash.of(key), expected, "{hash:?}");
    }
    assert_eq!(Hash::Crc16.of(key) & 0xFFFF, 0x31C3);
    assert_eq!(Hash::Fnv1a64.of(b"foobar"), 0x8594_4171_F739_67E8 & 0xFFFF_FFFF);
    assert_eq!(Hash::Xxh3.of(b"a"), 0xE6C6_32B6_1E96_4E1F);
}

#[test]
fn an_empty_key_has_no_hash() {
    for hash in ALL {
        assert_eq!(hash.of(b""), 0, "{hash:?}");
    }
}

const ALL: [Hash; 13] = [
    Hash::OneAtATime,
    Hash::Md5,
    Hash::Crc16,
    Hash::Crc32,
    Hash::Crc32a,
    Hash::Fnv1_64,
    Hash::Fnv1a64,
    Hash::Fnv1_32,
    Hash::Fnv1a32,
    Hash::Hsieh,
    Hash::Murmur,
    Hash::Jenkins,
    Hash::Xxh3,
];

proptest! {
    #[test]
    fn every_function_takes_any_key(key in prop::collection::vec(any::<u8>(), 0..200)) {
        for hash in ALL {
            let value = hash.of(&key);
            prop_assert!(hash == Hash::Xxh3 || value <= u64::from(u32::MAX), "{:?}", hash);
        }
    }
}
