//! What an HTTP probe asks and which answer is well. Not the asking: that is the protocol's; nor
//! when: that is control's.

use http::{HeaderName, HeaderValue, Method, uri::PathAndQuery};

/// `check.http` of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    pub method: Method,
    pub path: PathAndQuery,
    /// The Host header; `None`: the backend's address.
    pub host: Option<HeaderValue>,
    /// First and last status of each range that is well; 100 to 599.
    pub status: Vec<(u16, u16)>,
    /// Sent along. Those that carry secrets are marked as sensitive, and not printed.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What the first 64 KiB of the body must contain.
    pub body_contains: Option<String>,
    /// The reply header that says the backend's weight.
    pub weight_header: Option<HeaderName>,
}

impl HttpCheck {
    /// Whether an answer with this status is well.
    pub fn accepts(&self, status: u16) -> bool {
        self.status.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }
}

impl Default for HttpCheck {
    fn default() -> Self {
        Self {
            method: Method::GET,
            path: PathAndQuery::from_static("/"),
            host: None,
            status: vec![DEFAULT_STATUS],
            headers: Vec::new(),
            body_contains: None,
            weight_header: None,
        }
    }
}

/// A redirect to a login page is an answer of a server that works.
const DEFAULT_STATUS: (u16, u16) = (200, 399);
