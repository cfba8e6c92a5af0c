//! Which part of a client's address tells it from others (`client_ip`). Not the choice that is made
//! by it.

use std::net::IpAddr;

/// Leading bits that count, of an IPv4 and of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// 1 to 32.
    pub v4: u8,
    /// 1 to 128.
    pub v6: u8,
}

/// The part of an address that tells a client from others, exactly: for tables by client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey(u128);

impl Prefix {
    /// One key for all addresses with the same leading bits; those of the two families never meet.
    pub fn client(self, address: IpAddr) -> ClientKey {
        match address.to_canonical() {
            IpAddr::V4(ip) => {
                let bits = cut(ip.to_bits().into(), 32, self.v4);
                ClientKey(MAPPED | bits)
            }
            IpAddr::V6(ip) => ClientKey(cut(ip.to_bits(), 128, self.v6)),
        }
    }

    /// The same number for every address with the same leading bits, on every machine. It is not
    /// mixed: addresses that are neighbours give neighbours.
    pub fn key(self, address: IpAddr) -> u64 {
        match address.to_canonical() {
            IpAddr::V4(ip) => low(cut(ip.to_bits().into(), 32, self.v4)),
            IpAddr::V6(ip) => {
                let bits = cut(ip.to_bits(), 128, self.v6);
                low(bits >> 64) ^ low(bits).rotate_left(32)
            }
        }
    }
}

/// The prefix of IPv4 addresses among IPv6 ones (RFC 4291, 2.5.5.2).
const MAPPED: u128 = 0xffff << 32;

/// `bits`, a number of `width` bits, with only the first `keep` of them.
fn cut(bits: u128, width: u32, keep: u8) -> u128 {
    let gone = width.saturating_sub(keep.into());
    bits.checked_shr(gone).and_then(|kept| kept.checked_shl(gone)).unwrap_or_default()
}

#[expect(clippy::cast_possible_truncation, reason = "the upper half is what is cut off")]
const fn low(bits: u128) -> u64 {
    bits as u64
}

impl Default for Prefix {
    /// core.md, Balancers: a provider gives a household a /64 of IPv6.
    fn default() -> Self {
        Self { v4: 32, v6: 64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(prefix: Prefix, one: &str, other: &str) -> bool {
        let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
        let same = prefix.key(one) == prefix.key(other);
        assert_eq!(prefix.client(one) == prefix.client(other), same, "{one} {other}");
        same
    }

    #[test]
    fn addresses_are_one_client_up_to_the_prefix() {
        let default = Prefix::default();
        assert!(!same(default, "10.0.0.1", "10.0.0.2"));
        assert!(same(default, "10.0.0.1", "::ffff:10.0.0.1"));
        assert!(same(default, "2001:db8::1", "2001:db8::ffff"));
        assert!(!same(default, "2001:db8::1", "2001:db8:0:1::1"));
        let wide = Prefix { v4: 24, v6: 128 };
        assert!(same(wide, "10.0.0.1", "10.0.0.2") && !same(wide, "10.0.0.1", "10.0.1.1"));
        assert!(!same(wide, "2001:db8::1", "2001:db8::2"));
        assert!(same(Prefix { v4: 1, v6: 1 }, "10.0.0.1", "127.9.9.9"));
    }
}
