//! The table of a listener's keys. Not of those that one protocol alone has.

use super::{
    Kind, LISTENER_HTTP, LISTENER_LIMITS, LISTENER_REDIS, MAX_NETWORKS, ROUTE, Scope, choice, key,
    later, tls,
};
use crate::config::words;

pub(in crate::config) static LISTENER: Scope = Scope {
    required: &[&["bind"], &["protocol"], &["cluster", "routes"]],
    keys: &[
        key("name", Kind::Name, "", "Its name in metrics and logs; when not given, its bind."),
        key("bind", Kind::Bind, "", "host:port, [::]:port or unix:/path."),
        key(
            "protocol",
            choice(words::PROTOCOL_WORDS),
            "",
            "What clients speak; tcp: anything, passed on as it is.",
        ),
        key(
            "cluster",
            Kind::Cluster,
            "",
            "The cluster that answers: with shards for redis, with backends for tcp, either for http.",
        ),
        key("redis", Kind::Map(&LISTENER_REDIS), "", "What only the protocol redis has."),
        key(
            "proxy_protocol",
            Kind::Map(&PROXY_PROTOCOL),
            "",
            "Whose connections begin with a PROXY protocol header, for tcp and http.",
        ),
        key(
            "routes",
            Kind::List(&Kind::Map(&ROUTE), super::http::MAX_ROUTES),
            "",
            "Instead of cluster: for http the first that matches a request says which cluster answers, for redis the longest beginning of its key.",
        ),
        key(
            "tls",
            Kind::Map(&tls::LISTENER),
            "",
            "What is shown to and asked of clients under TLS.",
        ),
        key(
            "limits",
            Kind::Map(&LISTENER_LIMITS),
            "",
            "How many connections it takes, and of one client address.",
        ),
        later("users"),
        later("trusted"),
        key("http", Kind::Map(&LISTENER_HTTP), "", "What only the protocol http has."),
        later("tcp"),
        later("idle_timeout"),
    ],
};

pub(in crate::config) static PROXY_PROTOCOL: Scope = Scope {
    required: &[&["trusted"]],
    keys: &[key(
        "trusted",
        Kind::List(&Kind::Network, MAX_NETWORKS),
        "",
        "Proxies: their connections must begin with a header, others' are taken as they are.",
    )],
};
