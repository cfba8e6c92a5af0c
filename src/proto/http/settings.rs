//! What a listener and the clusters behind it say of HTTP. Values only.

use super::routes::Route;
use crate::{
    net::{memory::Memory, prefix::Prefix, tls},
    policy::sticky::{Codec, Jar, SetCookie},
    topology::door::Door,
};
use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use std::{net::IpAddr, sync::Arc, time::Duration};

/// What a listener asks of its clients and does for them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its place among the process's listeners.
    pub listener: usize,
    pub name: Arc<str>,
    /// The first that matches says where a request goes.
    pub routes: Vec<Route>,
    /// Whose connections begin with a PROXY protocol header.
    pub proxies: Vec<IpNet>,
    /// `None`: in clear.
    pub tls: Option<tls::Server>,
    /// Whose word is taken for who the client is (`X-Forwarded-For`).
    pub trusted: Vec<IpNet>,
    pub limits: Limits,
    /// `Via` is added to requests and replies.
    pub via: bool,
    pub request_id: RequestId,
    /// `None`: its requests are not logged.
    pub access_log: Option<AccessLog>,
    /// By cluster of the process.
    pub clusters: Arc<[ClusterSettings]>,
    pub door: Arc<Door>,
    /// When it is used up, requests are refused.
    pub memory: Memory,
}

/// What is logged of each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Whether paths are logged with their query.
    pub query: bool,
}

/// What a client may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head; default 64 KiB.
    pub header_bytes: usize,
    /// Fields of a head; default 128.
    pub headers: usize,
    /// Bytes of a URI; default 16 KiB.
    pub uri: usize,
    /// For the whole head of a request; default 10s.
    pub header_time: Duration,
    /// For the next part of a body; default 30s.
    pub body_idle: Duration,
    /// Between requests; default 75s.
    pub keep_alive: Duration,
    /// Requests at once on one HTTP/2 connection; default 128.
    pub streams: u32,
}

/// `request_id`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestId {
    /// What the client sends is passed on.
    #[default]
    Pass,
    /// A request without one gets one.
    Make,
}

/// What a cluster says of HTTP.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    /// Where the key that chooses the shard is.
    pub shard_key: Option<ShardKey>,
    /// PUT, DELETE and POST are tried again like reads.
    pub idempotent_writes: bool,
    /// Backends are spoken to in HTTP/2.
    pub http2: bool,
    /// How long an idle connection is kept; default 4s.
    pub idle: Duration,
    pub sticky: Option<Sticky>,
}

/// What keeps a client at its backend: the first of these that a request has.
#[derive(Clone, Debug)]
pub struct Sticky {
    pub cookie: Option<Cookie>,
    pub header: Option<HeaderName>,
    pub client_ip: Option<Prefix>,
}

/// The cookie that names a backend.
#[derive(Clone, Debug)]
pub struct Cookie {
    pub codec: Codec,
    /// By the place of the backend in its group.
    pub jar: Jar,
    pub set: SetCookie,
    /// A session whose backend is gone gets an error instead of another backend.
    pub strict: bool,
    /// What each backend's sessions are told, in clear and over TLS, where it is always the same.
    pub constant: Option<Box<[[HeaderValue; 2]]>>,
}

impl Cookie {
    /// `timeless`: no value has a time or a signature in it. `backends`: how many there are.
    pub fn new(
        codec: Codec,
        jar: Jar,
        set: SetCookie,
        strict: bool,
        timeless: bool,
        backends: usize,
    ) -> Self {
        let mut cookie = Self { codec, jar, set, strict, constant: None };
        if timeless {
            let told = |place| [false, true].map(|secure| cookie.value(place, secure, 0, 0));
            let told = (0..backends).map(told).map(|[clear, secure]| Some([clear?, secure?]));
            cookie.constant = told.collect();
        }
        cookie
    }

    /// What the clients of the backend at `place` are told; times in seconds since 1970.
    pub(super) fn value(
        &self,
        place: usize,
        secure: bool,
        issued: u64,
        now: u64,
    ) -> Option<HeaderValue> {
        if let Some(constant) = &self.constant {
            return constant.get(place)?.get(usize::from(secure)).cloned();
        }
        let token = self.jar.token(place)?;
        let header = self.set.header(secure, |out| self.codec.write(token, issued, now, out));
        HeaderValue::try_from(header).ok()
    }
}

/// Where the key of a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardKey {
    Header(HeaderName),
    Cookie(String),
    /// A parameter of the query.
    Query(String),
    /// A part of the path, the first one being 1.
    PathSegment(usize),
}

impl Settings {
    /// Whether what `peer` says of its clients is believed.
    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        contains(&self.trusted, peer)
    }

    /// Whether connections from `peer` begin with a PROXY protocol header.
    pub fn is_proxy(&self, peer: IpAddr) -> bool {
        contains(&self.proxies, peer)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 64 * 1024,
            headers: 128,
            uri: 16 * 1024,
            header_time: Duration::from_secs(10),
            body_idle: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
            streams: 128,
        }
    }
}

fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

impl Settings {
    /// A listener with nothing set but whom it trusts; for tests and fuzzing.
    pub(super) fn bare(trusted: Vec<IpNet>) -> Self {
        Self {
            listener: 0,
            name: "web".into(),
            routes: Vec::new(),
            proxies: Vec::new(),
            tls: None,
            trusted,
            limits: Limits::default(),
            via: false,
            request_id: RequestId::Pass,
            access_log: None,
            clusters: Arc::new([]),
            door: Arc::new(Door::new("".into(), Default::default())),
            memory: Memory::default(),
        }
    }
}
