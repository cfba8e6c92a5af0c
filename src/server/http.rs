//! From a configuration to what the HTTP sessions of a listener need. It contains no decision.

use crate::{
    config::{self, Config},
    net::{memory::Memory, tls},
    policy::sticky::{self, Codec, Jar, Mode, SetCookie},
    proto::http::{
        routes::{Host, Route},
        settings::{
            AccessLog, ClusterSettings, Cookie, Limits, RequestId, Settings, ShardKey, Sticky,
        },
    },
    topology::door::Door,
};
use std::sync::Arc;

/// What an HTTP listener asks of its clients and gives them.
pub(super) fn settings(
    config: &Config,
    index: usize,
    listener: &config::Listener,
    tls: Option<tls::Server>,
    clusters: Arc<[ClusterSettings]>,
    door: Arc<Door>,
    memory: Memory,
) -> Settings {
    let http = &listener.http;
    let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    Settings {
        listener: index,
        name: listener.name.as_str().into(),
        routes: listener.routes.iter().map(route).collect(),
        proxies: listener.proxy_protocol.clone(),
        tls,
        trusted: http.trusted.clone(),
        limits: Limits {
            header_bytes: bytes(http.header_bytes),
            headers: http.headers,
            uri: bytes(http.uri_bytes),
            header_time: http.header_timeout,
            body_idle: http.body_idle,
            keep_alive: http.keep_alive,
            streams: http.streams,
        },
        via: http.via,
        request_id: match http.request_id {
            config::RequestId::Pass => RequestId::Pass,
            config::RequestId::Make => RequestId::Make,
        },
        access_log: config
            .access_log
            .as_ref()
            .filter(|_| http.access_log)
            .map(|log| AccessLog { query: log.query }),
        clusters,
        door,
        memory,
    }
}

/// By cluster of the process.
pub(super) fn clusters(config: &Config) -> Arc<[ClusterSettings]> {
    config.clusters.iter().map(cluster).collect()
}

fn cluster(cluster: &config::Cluster) -> ClusterSettings {
    let http = &cluster.http;
    ClusterSettings {
        shard_key: http.shard_key.as_ref().map(|place| match place {
            config::ShardKey::Header(name) => ShardKey::Header(name.clone()),
            config::ShardKey::Cookie(name) => ShardKey::Cookie(name.clone()),
            config::ShardKey::Query(name) => ShardKey::Query(name.clone()),
            config::ShardKey::PathSegment(number) => ShardKey::PathSegment(*number),
        }),
        idempotent_writes: http.idempotent_writes,
        http2: http.http2,
        idle: http.idle,
        sticky: cluster.backends.as_ref().and_then(sticky),
    }
}

fn sticky(backends: &config::Backends) -> Option<Sticky> {
    let written = backends.sticky.as_ref()?;
    let cookie = written.cookie.as_ref().map(|cookie| {
        let codec = Codec::new(&sticky::Settings {
            mode: cookie.mode,
            keys: cookie.keys.iter().map(|key| key.0.as_bytes().to_vec()).collect(),
            max_idle: cookie.max_idle,
            max_life: cookie.max_life,
        });
        let names: Vec<String> =
            backends.members.iter().map(|member| member.address.to_string()).collect();
        let jar = Jar::new(&codec, names.iter().map(String::as_str));
        let timed = cookie.max_idle.is_some() || cookie.max_life.is_some();
        let timeless = cookie.mode != Mode::Signed && !timed;
        let set = SetCookie::new(&cookie.attributes);
        Cookie::new(codec, jar, set, written.strict, timeless, names.len())
    });
    let header = written.header.as_ref().and_then(|name| name.parse().ok());
    Some(Sticky { cookie, header, client_ip: written.client_ip })
}

fn route(route: &config::Route) -> Route {
    Route {
        host: route.host.as_deref().map(Host::parse),
        path_prefix: route.path_prefix.clone(),
        methods: route.methods.clone(),
        headers: route.headers.clone(),
        cluster: route.cluster,
    }
}
