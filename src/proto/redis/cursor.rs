//! The cursor of a SCAN over several shards: `node cursor << bits | shard`, with the fewest bits
//! that hold the shards (redis.md, T16). Nothing is remembered between calls.

use super::{reply, wire};

/// Which shard a SCAN is at, and what its cursor there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub shard: u32,
    pub node: u64,
    shards: u32,
    /// The keys asked for can only be on this shard.
    only: Option<u32>,
}

impl Cursor {
    /// Reads a client's cursor. `only`: the shard that a pattern's hash tag names.
    /// `None`: not a cursor of ours.
    pub(super) fn parse(text: &[u8], shards: u32, only: Option<u32>) -> Option<Self> {
        let value: u64 = std::str::from_utf8(text).ok()?.parse().ok()?;
        let bits = bits(shards);
        let shard = u32::try_from(value & ((1 << bits) - 1)).ok()?;
        let node = value >> bits;
        if shard >= shards {
            return None;
        }
        let shard = if value == 0 { only.unwrap_or(0) } else { shard };
        Some(Self { shard, node, shards, only })
    }

    /// Writes the shard's reply with the cursor that goes on from there.
    pub(super) fn rewrite(&self, reply: &[u8], out: &mut Vec<u8>) {
        let Some((node, rest)) = split(reply) else {
            return out.extend_from_slice(reply::NO_SCAN_REPLY);
        };
        match self.after(node) {
            Some(cursor) => {
                wire::array(out, 2);
                wire::bulk(out, itoa::Buffer::new().format(cursor).as_bytes());
                out.extend_from_slice(rest);
            }
            None => out.extend_from_slice(reply::CURSOR_TOO_LARGE),
        }
    }

    /// The client's next cursor when the server's is `node`; 0 ends the scan. `None`: more than
    /// 63 bits, which some clients cannot hold.
    fn after(&self, node: u64) -> Option<u64> {
        let bits = bits(self.shards);
        if node != 0 {
            let cursor = node.checked_mul(1 << bits)? | u64::from(self.shard);
            return (cursor < 1 << 63).then_some(cursor);
        }
        let next = self.shard + 1;
        Some(if self.only.is_some() || next >= self.shards { 0 } else { u64::from(next) })
    }
}

/// The hash tag of a pattern that only keys with that tag can match: nothing in front of the tag
/// and nothing in it is a wildcard.
pub(super) fn fixed_tag(pattern: &[u8]) -> Option<&[u8]> {
    let open = memchr::memchr(b'{', pattern)?;
    let (before, rest) = pattern.split_at_checked(open)?;
    let rest = rest.get(1..)?;
    let tag = rest.get(..memchr::memchr(b'}', rest)?)?;
    let wild = |bytes: &[u8]| bytes.iter().any(|b| b"*?[]\\".contains(b));
    (!tag.is_empty() && !wild(before) && !wild(tag)).then_some(tag)
}

fn bits(shards: u32) -> u32 {
    u32::BITS - shards.saturating_sub(1).leading_zeros()
}

/// The cursor of a SCAN reply, which was measured before, and what follows it.
fn split(reply: &[u8]) -> Option<(u64, &[u8])> {
    let rest = reply.strip_prefix(b"*2\r\n$")?;
    let (len, rest) = rest.split_at_checked(memchr::memchr(b'\r', rest)?)?;
    let len = std::str::from_utf8(len).ok()?.parse().ok()?;
    let (cursor, rest) = rest.strip_prefix(b"\r\n")?.split_at_checked(len)?;
    let cursor = std::str::from_utf8(cursor).ok()?.parse().ok()?;
    Some((cursor, rest.strip_prefix(b"\r\n")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_visits_every_shard_once() {
        for shards in 1..9 {
            let mut cursor = 0u64;
            let mut seen = Vec::new();
            loop {
                let at = Cursor::parse(cursor.to_string().as_bytes(), shards, None).unwrap();
                seen.push((at.shard, at.node));
                cursor = at.after(if at.node == 0 { 7 } else { 0 }).unwrap();
                if cursor == 0 {
                    break;
                }
            }
            let expected: Vec<_> = (0..shards).flat_map(|s| [(s, 0), (s, 7)]).collect();
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn a_tag_names_the_shard_and_other_patterns_do_not() {
        assert_eq!(fixed_tag(b"{user1}:*"), Some(&b"user1"[..]));
        assert_eq!(fixed_tag(b"a{user1}*"), Some(&b"user1"[..]));
        for pattern in [&b"*{user1}"[..], b"{user*}:x", b"{}x", b"user", b"{user", b"a?{b}"] {
            assert_eq!(fixed_tag(pattern), None);
        }
        let only = Cursor::parse(b"0", 3, Some(2)).unwrap();
        assert_eq!((only.shard, only.after(0), only.after(1)), (2, Some(0), Some(6)));
    }

    #[test]
    fn odd_cursors_are_refused() {
        for text in [&b"3"[..], b"-1", b"x", b"", b"99999999999999999999"] {
            assert_eq!(Cursor::parse(text, 3, None), None);
        }
        let mut out = Vec::new();
        let cursor = Cursor::parse(b"1", 3, None).unwrap();
        cursor.rewrite(b"*2\r\n$20\r\n18446744073709551615\r\n*0\r\n", &mut out);
        assert!(out.starts_with(b"-ERR sluice"));
        out.clear();
        cursor.rewrite(b"*2\r\n$1\r\n5\r\n*1\r\n$1\r\na\r\n", &mut out);
        assert_eq!(out, b"*2\r\n$2\r\n21\r\n*1\r\n$1\r\na\r\n");
    }

    /// What followed a broken cursor went to the client as if it were replies.
    #[test]
    fn a_reply_that_is_not_of_scan_becomes_an_error() {
        let cursor = Cursor::parse(b"1", 3, None).unwrap();
        for reply in [
            &b"*2\r\n$7\r\n5\r\n:1\r\n\r\n:2\r\n"[..],
            b"*2\r\n$-1\r\n+5\r\n",
            b"*3\r\n$1\r\n5\r\n*0\r\n*0\r\n",
            b"*0\r\n",
            b"+OK\r\n",
        ] {
            let mut out = Vec::new();
            cursor.rewrite(reply, &mut out);
            assert!(out.starts_with(b"-ERR sluice"), "{}", out.escape_ascii());
        }
    }
}
