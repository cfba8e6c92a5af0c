//! Sticky sessions by cookie: what the value of the cookie is, who may have written it, and until
//! when it holds. Not the header that it came in ([`super::cookie`]), and not whether its backend may
//! still be picked ([`super::gate`]). The picture of a value by mode, with times in hexadecimal:
//!
//! ```text
//! plain    web-1:80                or, with a limit, web-1:80|SEEN|ISSUED, in HAProxy's order
//! opaque   1.TOKEN                 or, with a limit, 1.TOKEN.ISSUED.SEEN
//! signed   1.TOKEN.ISSUED.SEEN.MAC
//! ```

mod attributes;
mod jar;
mod value;

pub use attributes::{Attributes, SameSite, Secure, SetCookie};
pub use jar::{Jar, Token};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::{fmt::Write, time::Duration};
use value::Times;

/// What a client is shown, and what it can change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The backend by its readable id; a client may write any other.
    Plain,
    /// A hash of the backend's id; a client may only write one that it has seen or guessed: whoever
    /// knows what addresses are like finds the id by trying them.
    Opaque,
    /// That hash and the times under a MAC; a client can change nothing.
    #[default]
    Signed,
}

/// What a [`Codec`] is made of.
#[derive(Clone, Default)]
pub struct Settings {
    pub mode: Mode,
    /// For [`Mode::Signed`]: the first signs, all verify. At least one is needed, for without a key
    /// every value is forged.
    pub keys: Vec<Vec<u8>>,
    /// Whole seconds since a client was last seen after which its session is over; `None`: never.
    pub max_idle: Option<Duration>,
    /// Whole seconds since the session began after which it is over; `None`: never.
    pub max_life: Option<Duration>,
}

/// Reads and writes the values of one cluster's cookie. The time is an argument: seconds since 1970.
#[derive(Clone, Debug)]
pub struct Codec {
    mode: Mode,
    /// Keyed once: a MAC of a short value is two blocks of SHA-256 then.
    keys: Box<[Hmac<Sha256>]>,
    /// Zero: none.
    max_idle: u64,
    /// Zero: none.
    max_life: u64,
}

/// What a value says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'v> {
    /// A session in force.
    Known(Session<'v>),
    /// One that is over.
    Expired,
    /// None of the keys signed it.
    Forged,
    /// Nothing that this mode writes.
    Malformed,
}

/// A session in force, as a value says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session<'v> {
    /// For [`Jar::index`].
    pub token: &'v [u8],
    /// When it began; the time that was given where the mode keeps none.
    pub issued: u64,
    /// The value is to be written anew, with the same `issued`: its key is an old one, or the time
    /// in it is. So a client that is always there gets four headers per `max_idle`, not one per
    /// response.
    pub reissue: bool,
}

/// How far a time may lie ahead of ours: proxies that share a cookie may have clocks that differ,
/// but one that was years ahead must not have made sessions for years.
const SKEW: u64 = 86_400;
/// The part of `max_idle` after which the time in a value is written anew.
const REISSUE: u64 = 4;

impl Codec {
    pub fn new(settings: &Settings) -> Self {
        let seconds = |limit: Option<Duration>| limit.map_or(0, |limit| limit.as_secs().max(1));
        let keyed = |key: &Vec<u8>| Hmac::new_from_slice(key).expect("HMAC takes any length");
        Self {
            mode: settings.mode,
            keys: settings.keys.iter().map(keyed).collect(),
            max_idle: seconds(settings.max_idle),
            max_life: seconds(settings.max_life),
        }
    }

    /// What stands for a backend in the values; the same in every process that gives it the same
    /// id. Hashes: make it when a cluster is made, or let a [`Jar`] do so.
    pub fn token(&self, backend_id: &str) -> Token {
        match self.mode {
            Mode::Plain => value::readable(backend_id),
            Mode::Opaque | Mode::Signed => value::hashed(backend_id),
        }
    }

    /// What a value says at `now`. It allocates nothing.
    #[inline]
    pub fn read<'v>(&self, value: &'v [u8], now: u64) -> Verdict<'v> {
        match self.mode {
            Mode::Plain => self.at(value::plain(value), now),
            Mode::Opaque => match value::opaque(value) {
                Some(read) => self.at(read, now),
                None => Verdict::Malformed,
            },
            Mode::Signed => self.signed(value, now),
        }
    }

    /// Appends the value for a backend: `issued` is `now` for a new session, and what
    /// [`Self::read`] gave for one that goes on.
    pub fn write(&self, token: &Token, issued: u64, now: u64, out: &mut String) {
        let start = out.len();
        out.push_str(token.as_str());
        let written = match (self.mode, self.has_limit()) {
            (Mode::Plain, true) => write!(out, "|{now:x}|{issued:x}"),
            (Mode::Opaque, true) | (Mode::Signed, _) => write!(out, ".{issued:x}.{now:x}"),
            (Mode::Plain | Mode::Opaque, false) => Ok(()),
        };
        written.expect("a string takes whatever is written");
        if let (Mode::Signed, Some(key)) = (self.mode, self.keys.first()) {
            let mac = key.clone().chain_update(out.get(start..).unwrap_or_default());
            out.push('.');
            value::push_mac(out, &mac.finalize().into_bytes());
        }
    }

    fn signed<'v>(&self, value: &'v [u8], now: u64) -> Verdict<'v> {
        let Some((payload, mac)) = value::signed(value) else { return Verdict::Malformed };
        let Some((token, times @ Some(_))) = value::opaque(payload) else {
            return Verdict::Malformed;
        };
        // The comparison takes the same time wherever the first difference is.
        let wrote = |key: &Hmac<Sha256>| {
            key.clone().chain_update(payload).verify_truncated_left(&mac).is_ok()
        };
        let Some(key) = self.keys.iter().position(wrote) else { return Verdict::Forged };
        match self.at((token, times), now) {
            Verdict::Known(session) => {
                Verdict::Known(Session { reissue: session.reissue || key > 0, ..session })
            }
            other => other,
        }
    }

    fn at<'v>(&self, (token, times): (&'v [u8], Option<Times>), now: u64) -> Verdict<'v> {
        let Some(Times { issued, seen }) = times else {
            // From before there was a limit: it begins now.
            return Verdict::Known(Session { token, issued: now, reissue: self.has_limit() });
        };
        let over = |since: u64, limit: u64| limit != 0 && now.saturating_sub(since) > limit;
        let ahead = issued.max(seen) > now.saturating_add(SKEW);
        if self.has_limit() && ahead || over(issued, self.max_life) || over(seen, self.max_idle) {
            return Verdict::Expired;
        }
        let stale = now.saturating_sub(seen) > self.max_idle / REISSUE;
        Verdict::Known(Session { token, issued, reissue: self.max_idle != 0 && stale })
    }

    fn has_limit(&self) -> bool {
        self.max_idle != 0 || self.max_life != 0
    }
}

/// Keys are not shown.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("mode", &self.mode)
            .field("keys", &self.keys.len())
            .field("max_idle", &self.max_idle)
            .field("max_life", &self.max_life)
            .finish()
    }
}

/// What a fuzzer feeds: no value of a stranger is signed, and what is read as a session of a backend
/// can be written again and reads back as the same.
pub fn fuzz(data: &[u8]) {
    const NOW: u64 = 0x6561_0000;
    let limit = Some(Duration::from_secs(600));
    for (mode, max_idle) in [Mode::Plain, Mode::Opaque, Mode::Signed]
        .into_iter()
        .flat_map(|mode| [(mode, None), (mode, limit)])
    {
        let keys = vec![b"a key that nobody can guess".to_vec()];
        let codec = Codec::new(&Settings { mode, keys, max_idle, max_life: None });
        let jar = Jar::new(&codec, ["10.0.0.1:80", "web 2"]);
        let Verdict::Known(session) = codec.read(data, NOW) else { continue };
        assert!(mode != Mode::Signed, "forged");
        let Some(token) = jar.index(session.token).and_then(|index| jar.token(index)) else {
            continue;
        };
        let mut again = String::new();
        codec.write(token, session.issued, NOW, &mut again);
        let read = codec.read(again.as_bytes(), NOW);
        // Without a limit no time is kept.
        let issued = if max_idle.is_some() { session.issued } else { NOW };
        assert_eq!(read, Verdict::Known(Session { issued, reissue: false, ..session }));
    }
}

#[cfg(test)]
mod tests;
