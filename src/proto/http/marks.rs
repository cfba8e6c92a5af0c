//! Which fields a head has of those that we would look for: one look at each name costs less than a
//! look-up for each that is not there. Not what they say.

use super::{
    client::X_FORWARDED_FOR,
    head::{KEEP_ALIVE, PROXY_CONNECTION, X_FORWARDED_HOST, X_FORWARDED_PROTO},
};
use http::{
    HeaderMap, HeaderName,
    header::{CONNECTION, COOKIE, EXPECT, FORWARDED, TE, TRANSFER_ENCODING, UPGRADE},
};

/// What a head has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks(u16);

impl Marks {
    pub(super) const CONNECTION: Self = Self(1);
    pub(super) const UPGRADE: Self = Self(2);
    pub(super) const TE: Self = Self(4);
    pub(super) const TRANSFER_ENCODING: Self = Self(8);
    pub(super) const KEEP_ALIVE: Self = Self(16);
    pub(super) const PROXY_CONNECTION: Self = Self(32);
    pub(super) const COOKIE: Self = Self(64);
    pub(super) const EXPECT: Self = Self(128);
    /// One of those that say for whom somebody asks.
    pub(super) const FORWARDED: Self = Self(256);
    /// Those that are for one connection alone.
    pub(super) const HOP: Self = Self(63);

    /// Those of a head.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self(headers.keys().fold(0, |marks, name| marks | mark(name).0))
    }

    /// Whether there is one of `those`.
    pub(super) fn any(self, those: Self) -> bool {
        self.0 & those.0 != 0
    }
}

fn mark(name: &HeaderName) -> Marks {
    match *name {
        CONNECTION => Marks::CONNECTION,
        UPGRADE => Marks::UPGRADE,
        TE => Marks::TE,
        TRANSFER_ENCODING => Marks::TRANSFER_ENCODING,
        COOKIE => Marks::COOKIE,
        EXPECT => Marks::EXPECT,
        FORWARDED => Marks::FORWARDED,
        _ => match name.as_str().len() {
            10 if *name == KEEP_ALIVE => Marks::KEEP_ALIVE,
            16 if *name == PROXY_CONNECTION => Marks::PROXY_CONNECTION,
            15 if *name == X_FORWARDED_FOR => Marks::FORWARDED,
            17 if *name == X_FORWARDED_PROTO => Marks::FORWARDED,
            16 if *name == X_FORWARDED_HOST => Marks::FORWARDED,
            _ => Marks::default(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_of_interest_has_its_mark() {
        let of = |names: &[&str]| {
            let mut headers = HeaderMap::new();
            for name in names {
                headers.append(HeaderName::try_from(*name).unwrap(), "a".parse().unwrap());
            }
            Marks::of(&headers)
        };
        for (name, mark) in [
            ("Connection", Marks::CONNECTION),
            ("Upgrade", Marks::UPGRADE),
            ("TE", Marks::TE),
            ("Transfer-Encoding", Marks::TRANSFER_ENCODING),
            ("Keep-Alive", Marks::KEEP_ALIVE),
            ("Proxy-Connection", Marks::PROXY_CONNECTION),
            ("Cookie", Marks::COOKIE),
            ("Expect", Marks::EXPECT),
            ("Forwarded", Marks::FORWARDED),
            ("X-Forwarded-For", Marks::FORWARDED),
            ("X-Forwarded-Proto", Marks::FORWARDED),
            ("X-Forwarded-Host", Marks::FORWARDED),
        ] {
            assert_eq!(of(&["Host", name, "X-Forwarded-Hosts"]), mark, "{name}");
            assert_eq!(of(&[name, "Upgrade"]), Marks(mark.0 | Marks::UPGRADE.0), "{name}");
        }
        assert_eq!(of(&["Host", "Keep-Alives", "x-forwarded-port"]), Marks::default());
        assert!(!of(&["Cookie"]).any(Marks::HOP) && of(&["Keep-Alive"]).any(Marks::HOP));
    }
}
