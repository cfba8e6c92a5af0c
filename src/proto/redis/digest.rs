//! DEBUG DIGEST over several shards: the exclusive or of theirs, as Redis makes its own over its keys.
//! It is not that of one server with all the keys, for each has mixed its databases' numbers in; but it
//! changes when any key does, and the same keys spread alike have the same one.

use super::wire;

/// The twenty bytes of a `+hex` reply.
pub(super) fn parse(reply: &[u8]) -> Option<[u8; 20]> {
    let text = std::str::from_utf8(reply.strip_prefix(b"+")?.trim_ascii_end()).ok()?;
    let mut digest = [0; 20];
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    if pairs.len() != digest.len() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(pairs) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

/// Writes that of all parts.
pub(super) fn xor(parts: &[Vec<u8>], out: &mut Vec<u8>) {
    let mut all = [0u8; 20];
    for digest in parts.iter().filter_map(|part| parse(part)) {
        all.iter_mut().zip(digest).for_each(|(one, other)| *one ^= other);
    }
    let hex: String = all.iter().map(|byte| format!("{byte:02x}")).collect();
    wire::simple(out, &hex);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_added_without_carry() {
        let parts = [[0x0f; 20], [0xf1; 20]].map(|digest: [u8; 20]| {
            let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("+{hex}\r\n").into_bytes()
        });
        let mut out = Vec::new();
        xor(&parts, &mut out);
        assert_eq!(out, format!("+{}\r\n", "fe".repeat(20)).into_bytes());
        for odd in [&b"+OK\r\n"[..], b":1\r\n", b"+zz\r\n", &[b'+'; 41]] {
            assert_eq!(parse(odd), None);
        }
    }
}
