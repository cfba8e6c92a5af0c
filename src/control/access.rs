//! Who may ask the admin address what: the unix socket's file says who may open it, over TCP a
//! token allows changes and a browser's page of another origin gets nothing. Not what is asked.

use http::{
    HeaderMap,
    header::{AUTHORIZATION, HOST, ORIGIN},
    uri::Authority,
};
use std::{hint::black_box, net::IpAddr};

/// Where a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// Whoever could open it is its owner.
    Unix,
    /// `loopback`: only this machine can reach it, a browser on it included.
    Tcp { loopback: bool },
}

/// Whether a request may be answered; `changes`: it is more than a look. `token` is what the
/// configuration says.
///
/// # Errors
/// Why not, and what to do about it.
pub(super) fn may(
    door: Door,
    headers: &HeaderMap,
    changes: bool,
    token: Option<&str>,
) -> Result<(), String> {
    let Door::Tcp { loopback } = door else { return Ok(()) };
    let host = headers.get(HOST).map(|host| host.to_str().unwrap_or_default());
    // A page of elsewhere whose name was made to lead here still says its own name. Beyond
    // loopback there are scrapers that know us by a name; they change nothing.
    if let Some(host) = host.filter(|host| (changes || loopback) && !is_own(host)) {
        return Err(format!(
            "Host '{}' is not an address: ask by one, such as 127.0.0.1, or by localhost",
            shown(host)
        ));
    }
    if let Some(origin) = headers.get(ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        let own = origin.strip_prefix("http://");
        if !own.zip(host).is_some_and(|(own, host)| own.eq_ignore_ascii_case(host)) {
            let origin = shown(origin);
            return Err(format!("a page of another origin, '{origin}', may not ask here"));
        }
    }
    if !changes {
        return Ok(());
    }
    let Some(token) = token else {
        return Err("over TCP nothing is changed: use the unix socket (admin.socket), or set \
                    admin.token and send Authorization: Bearer TOKEN"
            .to_owned());
    };
    let given = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
    let given = given.and_then(|value| match value.split_at_checked(BEARER.len()) {
        Some((scheme, given)) if scheme.eq_ignore_ascii_case(BEARER) => Some(given),
        _ => None,
    });
    match given {
        Some(given) if same(given, token.as_bytes()) => Ok(()),
        Some(_) => Err("the token is not the one of admin.token".to_owned()),
        None => {
            Err("a change needs the header Authorization: Bearer TOKEN with admin.token's token"
                .to_owned())
        }
    }
}

/// An address or localhost, with or without a port.
fn is_own(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    !host.contains('@') && (is_address || name.eq_ignore_ascii_case("localhost"))
}

/// Compares in a time that depends on the lengths alone.
fn same(given: &[u8], own: &[u8]) -> bool {
    let differ = given.iter().zip(own).fold(0u8, |differ, (a, b)| black_box(differ | (a ^ b)));
    given.len() == own.len() && differ == 0
}

/// What a client says is shown, but not all of it.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect()
}

const BEARER: &[u8] = b"Bearer ";
const MAX_SHOWN: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    const HERE: Door = Door::Tcp { loopback: true };
    const ANYWHERE: Door = Door::Tcp { loopback: false };

    fn asked(door: Door, headers: &[(HeaderName, &str)], changes: bool) -> &'static str {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(name, HeaderValue::from_str(value).unwrap());
        }
        match may(door, &map, changes, Some("secret")) {
            Ok(()) => "yes",
            Err(why) if why.starts_with("Host") => "host",
            Err(why) if why.contains("origin") => "origin",
            Err(_) => "token",
        }
    }

    #[test]
    fn who_may_look_and_who_may_change() {
        let token = (AUTHORIZATION, "Bearer secret");
        let host = |name| (HOST, name);
        for (door, headers, look, change) in [
            (Door::Unix, vec![], "yes", "yes"),
            (Door::Unix, vec![host("evil.example"), (ORIGIN, "null")], "yes", "yes"),
            (HERE, vec![host("127.0.0.1:9900")], "yes", "token"),
            (HERE, vec![host("127.0.0.1:9900"), token.clone()], "yes", "yes"),
            (HERE, vec![host("LocalHost"), token.clone()], "yes", "yes"),
            (HERE, vec![host("[::1]:9900"), token.clone()], "yes", "yes"),
            (HERE, vec![token.clone()], "yes", "yes"),
            (HERE, vec![host("[::1]"), (AUTHORIZATION, "bearer secret")], "yes", "yes"),
            (HERE, vec![host("[::1]"), (AUTHORIZATION, "Bearer secre")], "yes", "token"),
            (HERE, vec![host("[::1]"), (AUTHORIZATION, "Bearer secrets")], "yes", "token"),
            (HERE, vec![host("[::1]"), (AUTHORIZATION, "Bearer ")], "yes", "token"),
            (HERE, vec![host("[::1]"), (AUTHORIZATION, "Basic secret")], "yes", "token"),
            (HERE, vec![host("evil.example:9900"), token.clone()], "host", "host"),
            (HERE, vec![host("127.0.0.1.evil.example"), token.clone()], "host", "host"),
            (HERE, vec![host("127.0.0.1@evil.example"), token.clone()], "host", "host"),
            (HERE, vec![host("a b"), token.clone()], "host", "host"),
            (ANYWHERE, vec![host("sluice.example"), token.clone()], "yes", "host"),
            (
                HERE,
                vec![host("127.0.0.1:9900"), (ORIGIN, "http://127.0.0.1:9900"), token.clone()],
                "yes",
                "yes",
            ),
            (
                HERE,
                vec![host("127.0.0.1:9900"), (ORIGIN, "http://127.0.0.1:3000"), token.clone()],
                "origin",
                "origin",
            ),
            (HERE, vec![host("[::1]"), (ORIGIN, "null"), token.clone()], "origin", "origin"),
            (HERE, vec![(ORIGIN, "http://evil.example"), token], "origin", "origin"),
        ] {
            assert_eq!(asked(door, &headers, false), look, "looks: {door:?} {headers:?}");
            assert_eq!(asked(door, &headers, true), change, "changes: {door:?} {headers:?}");
        }
        let nobody = may(HERE, &HeaderMap::new(), true, None).unwrap_err();
        assert!(nobody.contains("admin.socket") && nobody.contains("admin.token"), "{nobody}");
    }
}
