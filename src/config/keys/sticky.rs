//! The table of the keys under `clusters.<name>.sticky`: what keeps a client at its backend. Not the
//! rules over several of them: see `check`.

use super::{DAY, Kind, Scope, choice, key, later, whole};
use crate::config::words;
use std::time::Duration;

/// The most keys of a cookie: the one that signs and those that are on their way out.
const MAX_KEYS: usize = 8;
/// Idle and life limits are kept in whole seconds.
const LIMIT: Kind =
    Kind::Duration { min: Duration::from_secs(1), max: DAY.saturating_mul(400), or_none: true };

pub(in crate::config) static STICKY: Scope = Scope {
    required: &[],
    keys: &[
        key("cookie", Kind::Map(&COOKIE), "", "A cookie of ours names the backend, for http."),
        key(
            "header",
            Kind::Text,
            "",
            "Without a cookie: this header of a request, such as X-Session-Id; the same value, the same backend while it is ready.",
        ),
        key(
            "client_ip",
            Kind::Map(&CLIENT_IP),
            "",
            "Without both: the client's address; the same one, the same backend while it is ready.",
        ),
        key(
            "strict",
            Kind::Switch,
            "false",
            "A session whose backend is gone is answered 503 instead of moving to another.",
        ),
        later("session_id"),
        later("trusted"),
    ],
};

pub(in crate::config) static COOKIE: Scope = Scope {
    required: &[&["name"]],
    keys: &[
        key("name", Kind::Text, "", "The cookie's name, one for each cluster of a site."),
        key(
            "mode",
            choice(words::COOKIE_MODE_WORDS),
            "signed",
            "signed: nobody else can write it; opaque: a hash of the backend's address; plain: the address itself.",
        ),
        key(
            "keys",
            Kind::List(&Kind::Secret, MAX_KEYS),
            "",
            "Secrets of 16 bytes or more for the mode signed: the first signs, all verify.",
        ),
        key("keys_file", Kind::Path, "", "A file that holds the keys, one a line."),
        key("max_idle", LIMIT, "0", "A client not seen this long begins anew; 0: never."),
        key("max_life", LIMIT, "0", "After this long a session begins anew; 0: never."),
        key("http_only", Kind::Switch, "true", "Scripts of a page do not see the cookie."),
        key(
            "same_site",
            choice(words::SAME_SITE_WORDS),
            "lax",
            "From where a browser sends it: strict, lax or none, which is everywhere.",
        ),
        key(
            "secure",
            choice(words::SECURE_WORDS),
            "auto",
            "Whether a browser sends it over TLS alone; auto: when it came over TLS.",
        ),
        key("path", Kind::Text, "/", "The paths it is sent for."),
        key("domain", Kind::Text, "", "The domain it is sent to; when not given, this host alone."),
    ],
};

pub(in crate::config) static CLIENT_IP: Scope = Scope {
    required: &[],
    keys: &[
        key("v4", whole(1, 32), "32", "Leading bits of an IPv4 address that tell clients apart."),
        key("v6", whole(1, 128), "64", "Leading bits of an IPv6 address that tell clients apart."),
    ],
};
