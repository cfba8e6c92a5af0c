//! The text of a cookie's value, cut into its parts and put together. Not whether it is true.

use super::Token;
use sha2::{Digest, Sha256};

/// What a value keeps; seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) issued: u64,
    pub(super) seen: u64,
}

/// The bytes of a MAC that a value has: half of SHA-256's (RFC 2104, 5, allows as few).
const MAC: usize = 16;
/// The bytes of a hash that stands for a backend: a cluster has at most 64.
const HASH: usize = 8;
/// What a value of the modes opaque and signed begins with.
const VERSION: &str = "1.";
/// So that a hash of ours is no hash that is used elsewhere.
const PURPOSE: &[u8] = b"sluice sticky backend 1\0";

/// A backend's id with every byte that may not stand in a cookie (RFC 6265, 4.1.1), that a value
/// has a use for, or that quotes another, as `%XX`.
pub(super) fn readable(backend_id: &str) -> Token {
    let mut text = String::with_capacity(backend_id.len());
    for byte in backend_id.bytes() {
        if byte.is_ascii_graphic() && !b"\",;\\%|".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            push_hex(&mut text, &[byte]);
        }
    }
    Token::new(text)
}

pub(super) fn hashed(backend_id: &str) -> Token {
    let hash = Sha256::new().chain_update(PURPOSE).chain_update(backend_id).finalize();
    let mut text = VERSION.to_owned();
    push_hex(&mut text, hash.get(..HASH).unwrap_or_default());
    Token::new(text)
}

pub(super) fn push_mac(out: &mut String, mac: &[u8]) {
    push_hex(out, mac.get(..MAC).unwrap_or_default());
}

/// `token` or `token|seen|issued`. What is no time there is no time.
#[inline]
pub(super) fn plain(value: &[u8]) -> (&[u8], Option<Times>) {
    let Some((token, times)) = cut(value, b'|') else { return (value, None) };
    let times = cut(times, b'|')
        .and_then(|(seen, issued)| Some(Times { issued: time(issued)?, seen: time(seen)? }));
    (token, times)
}

/// `1.token` or `1.token.issued.seen`.
pub(super) fn opaque(value: &[u8]) -> Option<(&[u8], Option<Times>)> {
    let (token, times) = value.split_at_checked(VERSION.len() + 2 * HASH)?;
    let digits = token.strip_prefix(VERSION.as_bytes())?;
    if !digits.iter().all(|byte| hex(*byte).is_some()) {
        return None;
    }
    if times.is_empty() {
        return Some((token, None));
    }
    let (issued, seen) = cut(times.strip_prefix(b".")?, b'.')?;
    Some((token, Some(Times { issued: time(issued)?, seen: time(seen)? })))
}

/// What was signed, and the MAC.
pub(super) fn signed(value: &[u8]) -> Option<(&[u8], [u8; MAC])> {
    let (payload, digits) = value.split_at_checked(value.len().checked_sub(2 * MAC)?)?;
    let mut mac = [0; MAC];
    for (byte, pair) in mac.iter_mut().zip(digits.as_chunks::<2>().0) {
        *byte = hex(pair[0])? << 4 | hex(pair[1])?;
    }
    Some((payload.strip_suffix(b".")?, mac))
}

/// Before and after the first `separator`.
fn cut(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(separator, text)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// One to sixteen hexadecimal digits.
fn time(digits: &[u8]) -> Option<u64> {
    if !(1..=16).contains(&digits.len()) {
        return None;
    }
    digits.iter().try_fold(0, |time, digit| Some(time << 4 | u64::from(hex(*digit)?)))
}

/// Lower case alone: a value is written in one way.
fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for half in bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
        text.extend(char::from_digit(half.into(), 16));
    }
}
