//! Addresses as operators write them: where we accept ([`Bind`]) and where a backend lives
//! ([`Address`]). Not resolution: a name is resolved where it is dialled.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

/// Where a listener accepts: `host:port` (an IP address), `[::]:port` or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Bind {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Where a backend lives: `host:port` with an IP address or a name, or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// Why a text is not an address; the text says what is wrong and what is expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(String);

impl FromStr for Bind {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.parse()? {
            Address::Unix(path) => Ok(Self::Unix(path)),
            Address::Tcp { host, port } => match host.trim_matches(['[', ']']).parse() {
                Ok(ip) => Ok(Self::Tcp(SocketAddr::new(ip, port))),
                Err(_) if host == "localhost" => Ok(Self::Tcp(([127, 0, 0, 1], port).into())),
                Err(_) => Err(AddressError(format!(
                    "'{host}' is not an IP address; bind to one, such as 127.0.0.1:{port} or [::]:{port}"
                ))),
            },
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return Err(AddressError(format!("'{text}' needs an absolute path: unix:/path")));
            }
            return Ok(Self::Unix(path.into()));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(AddressError(format!("'{text}' has no port; write host:port")));
        };
        let Ok(number) = port.parse::<u16>() else {
            return Err(AddressError(format!("port '{port}' is not a number from 0 to 65535")));
        };
        let bracketed = host.starts_with('[') && host.ends_with(']');
        if host.is_empty() {
            return Err(AddressError(format!("'{text}' has no host; write host:port")));
        }
        if host.contains(':') && !bracketed {
            return Err(AddressError(format!(
                "'{text}' looks like IPv6; put it in brackets: [address]:port"
            )));
        }
        if host.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(AddressError(format!("'{host}' is not a host name")));
        }
        Ok(Self::Tcp { host: host.to_owned(), port: number })
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What a fuzzer feeds: what is taken for an address is the same address when it is written out.
pub fn fuzz(text: &str) {
    if let Ok(address) = text.parse::<Address>() {
        assert_eq!(address.to_string().parse(), Ok(address));
    }
    if let Ok(bind) = text.parse::<Bind>() {
        assert_eq!(bind.to_string().parse(), Ok(bind));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip_and_bad_ones_teach() {
        for good in ["127.0.0.1:6379", "redis.local:6379", "[::1]:6379", "unix:/run/x.sock"] {
            assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
        }
        for (bad, hint) in [
            ("127.0.0.1:99999", "0 to 65535"),
            ("127.0.0.1", "no port"),
            ("::1:6379", "brackets"),
            (":6379", "no host"),
            ("unix:run", "absolute"),
        ] {
            assert!(bad.parse::<Address>().unwrap_err().to_string().contains(hint), "{bad}");
        }
        assert!("example.org:80".parse::<Bind>().unwrap_err().to_string().contains("IP address"));
    }
}
