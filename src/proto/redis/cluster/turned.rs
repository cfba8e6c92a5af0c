//! What a server of a Redis Cluster says when it does not execute a request. Not what is done then.

use crate::net::addr::Address;

/// Why a request was not executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turned {
    /// Another server owns the slot.
    Moved(Other),
    /// Another server has the keys already that this one is giving away.
    Ask(Other),
    /// Some of its keys are here and some there, or nobody serves the slot now.
    Wait,
}

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Other {
    pub(super) slot: u16,
    /// `None`: the server does not know it itself.
    pub(super) address: Option<Address>,
}

impl Turned {
    /// What an error of the server at `from` means, whose whole reply it must be: a script may say
    /// something of the kind after it has written. `None`: something else.
    pub(super) fn parse(reply: &[u8], from: &Address) -> Option<Self> {
        let line = reply.strip_suffix(b"\r\n").unwrap_or(reply);
        let line = std::str::from_utf8(line.strip_prefix(b"-")?).ok()?;
        if line.contains(['\r', '\n']) {
            return None;
        }
        let mut words = line.split(' ');
        let kind: fn(Other) -> Self = match words.next()? {
            "MOVED" => Self::Moved,
            "ASK" => Self::Ask,
            "TRYAGAIN" | "CLUSTERDOWN" => return Some(Self::Wait),
            _ => return None,
        };
        let (slot, place, rest) = (words.next()?, words.next()?, words.next());
        let slot = slot.parse().ok().filter(|slot| *slot < crate::policy::slot::SLOTS)?;
        // Names are in front of the slot in no version, and nothing is behind the address.
        let (host, port) = place.rsplit_once(':').filter(|_| rest.is_none())?;
        Some(kind(Other { slot, address: address(host, port.parse().ok()?, from) }))
    }
}

/// Where a server is that another one, at `from`, calls by that host and port. An empty host is its
/// own; `?` is one that it does not know.
pub(super) fn address(host: &str, port: u16, from: &Address) -> Option<Address> {
    if port == 0 || host == "?" || host.len() > LONGEST_HOST {
        return None;
    }
    let host = match (host, from) {
        ("", Address::Tcp { host, .. }) => host.clone(),
        ("", Address::Unix(_)) => return None,
        (host, _) if host.contains(':') && !host.starts_with('[') => format!("[{host}]"),
        (host, _) => host.to_owned(),
    };
    // As it would be written: what is no host name is no address.
    format!("{host}:{port}").parse().ok()
}

/// cluster.h, NET_HOST_STR_LEN.
const LONGEST_HOST: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(reply: &str) -> Option<Turned> {
        Turned::parse(reply.as_bytes(), &"10.0.0.9:7000".parse().unwrap())
    }

    fn other(slot: u16, address: &str) -> Other {
        Other { slot, address: address.parse().ok() }
    }

    #[test]
    fn a_server_says_where_to_go() {
        for (reply, meaning) in [
            ("-MOVED 3999 127.0.0.1:6381\r\n", Turned::Moved(other(3999, "127.0.0.1:6381"))),
            ("-ASK 0 node-1.example:6381\r\n", Turned::Ask(other(0, "node-1.example:6381"))),
            ("-MOVED 1 :6380\r\n", Turned::Moved(other(1, "10.0.0.9:6380"))),
            ("-MOVED 1 ::1:6380\r\n", Turned::Moved(other(1, "[::1]:6380"))),
            ("-MOVED 1 ?:6380\r\n", Turned::Moved(Other { slot: 1, address: None })),
            ("-ASK 1 10.0.0.1:0\r\n", Turned::Ask(Other { slot: 1, address: None })),
            ("-TRYAGAIN Multiple keys request during rehashing of slot\r\n", Turned::Wait),
            ("-CLUSTERDOWN Hash slot not served\r\n", Turned::Wait),
        ] {
            assert_eq!(parse(reply), Some(meaning), "{reply}");
        }
    }

    #[test]
    fn what_is_not_all_of_the_reply_or_makes_no_sense_is_not_followed() {
        for reply in [
            "+MOVED 3999 127.0.0.1:6381\r\n",
            "-MOVED 16384 127.0.0.1:6381\r\n",
            "-MOVED x 127.0.0.1:6381\r\n",
            "-MOVED 1 127.0.0.1\r\n",
            "-MOVED 1 127.0.0.1:70000\r\n",
            "-MOVED 1 127.0.0.1:6381 more\r\n",
            "-MOVED 1\r\n",
            "-MOVED\r\n",
            "-ERR MOVED 1 127.0.0.1:6381\r\n",
            "-MOVED 1 127.0.0.1:6381\r\n-ERR\r\n",
        ] {
            assert_eq!(parse(reply), None, "{reply}");
        }
    }
}
