//! The sticky session of one request: whose it is by its cookie, and the cookie that its reply sets.
//! Not whether the backend may be picked: see [`super::choice`].

use super::{marks::Marks, settings::Cookie};
use crate::policy::{
    cookie::{self, Stripped},
    sticky::Verdict,
};
use http::{
    HeaderMap, HeaderValue,
    header::{CACHE_CONTROL, COOKIE, SET_COOKIE},
};
use std::time::{SystemTime, UNIX_EPOCH};

/// What the cookie of a request says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stickiness {
    /// The place of its backend in the group.
    pub(super) place: Option<usize>,
    /// When the session began, in seconds since 1970.
    pub(super) issued: u64,
    /// The cookie is to be written anew although the backend is the same.
    reissue: bool,
    now: u64,
}

impl Stickiness {
    /// Reads the cookie of a request and takes it off: the backend is not to see it.
    pub(super) fn take(settings: &Cookie, marks: Marks, headers: &mut HeaderMap) -> Self {
        let name = settings.set.name().as_bytes();
        let now = if settings.constant.is_some() { 0 } else { now() };
        let mut found = Self { now, issued: now, ..Self::default() };
        if !marks.any(Marks::COOKIE) {
            return found;
        }
        let mut values = headers.get_all(COOKIE).iter();
        let Some(value) = values.find_map(|value| cookie::find(value.as_bytes(), name)) else {
            return found;
        };
        if let Verdict::Known(session) = settings.codec.read(value, now)
            && let Some(place) = settings.jar.index(session.token)
        {
            found.place = Some(place);
            found.issued = session.issued;
            found.reissue = session.reissue;
        }
        strip(headers, name);
        found
    }

    /// Tells the client where it is now, unless it knows.
    pub(super) fn tell(
        self,
        settings: &Cookie,
        place: usize,
        secure: bool,
        headers: &mut HeaderMap,
    ) -> Told {
        let same = self.place == Some(place);
        if same && !self.reissue {
            return Told::Kept;
        }
        let issued = if same { self.issued } else { self.now };
        if let Some(value) = settings.value(place, secure, issued, self.now) {
            headers.append(SET_COOKIE, value);
            // A cache that gave it to others would give them our client's session.
            headers.append(CACHE_CONTROL, HeaderValue::from_static("private"));
        }
        match (same, self.place) {
            (true, _) => Told::Kept,
            (false, None) => Told::New,
            (false, Some(from)) => Told::Moved { from },
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What became of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It is where it was.
    Kept,
    /// It began.
    New,
    /// It had to go to another backend than the one at that place.
    Moved { from: usize },
}

fn strip(headers: &mut HeaderMap, name: &[u8]) {
    let left: Vec<HeaderValue> = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| match cookie::strip(value.as_bytes(), name) {
            Stripped::Same => Some(value.clone()),
            Stripped::Nothing => None,
            Stripped::Rest(rest) => HeaderValue::from_maybe_shared(bytes::Bytes::from(rest)).ok(),
        })
        .collect();
    headers.remove(COOKIE);
    headers.extend(left.into_iter().map(|value| (COOKIE, value)));
}
