//! The table of the keys of HTTP: what a listener takes from its clients, its routes, and what a
//! cluster says of requests. Not the rules over several of them: see `check`.

use super::{
    DAY, HOUR, KIB, Kind, MAX_NETWORKS, MIB, MS_10, Scope, between, choice, key, up_to, whole,
};
use crate::config::words;

/// The most routes of a listener.
pub(in crate::config) const MAX_ROUTES: usize = 1_024;
/// The most methods and headers of one route.
const MAX_WORDS: usize = 64;

pub(in crate::config) static ROUTE: Scope = Scope {
    required: &[&["cluster"]],
    keys: &[
        key("match", Kind::Map(&MATCH), "", "What a request must have; when not given, nothing."),
        key("cluster", Kind::Cluster, "", "The cluster that answers."),
        key(
            "strip",
            Kind::Switch,
            "false",
            "For redis: the backends get the key without `key_prefix`.",
        ),
    ],
};

pub(in crate::config) static MATCH: Scope = Scope {
    required: &[],
    keys: &[
        key("host", Kind::Text, "", "example.com, or *.example.com for every name below it."),
        key(
            "path_prefix",
            Kind::Text,
            "",
            "Whole parts of the path: /a is the beginning of /a and /a/b, not of /ab.",
        ),
        key("key_prefix", Kind::Text, "", "For redis: how the key begins."),
        key("method", Kind::List(&Kind::Text, MAX_WORDS), "", "Any of these: [GET, HEAD]."),
        key(
            "header",
            Kind::Texts,
            "",
            "All of these headers with these values; the value \"*\" is any: { X-Api: \"2\" }.",
        ),
    ],
};

pub(in crate::config) static LISTENER_HTTP: Scope = Scope {
    required: &[],
    keys: &[
        key(
            "trusted",
            Kind::List(&Kind::Network, MAX_NETWORKS),
            "",
            "Proxies whose X-Forwarded-For, -Proto, -Host and Forwarded are believed; others' are thrown away.",
        ),
        key(
            "header_bytes",
            Kind::Size { min: 8 * KIB, max: MIB, auto: false },
            "64KiB",
            "The largest head of a request.",
        ),
        key("headers", whole(8, 1_024), "128", "The most header fields of a request."),
        key(
            "uri_bytes",
            Kind::Size { min: KIB, max: MIB, auto: false },
            "16KiB",
            "The longest path and query of a request.",
        ),
        key(
            "header_timeout",
            between(MS_10, HOUR),
            "10s",
            "For the whole head of a request, from its first byte on.",
        ),
        key(
            "body_idle",
            up_to(DAY),
            "30s",
            "A body of which no part moves for so long, either way, ends the connection; 0: never.",
        ),
        key("keep_alive", up_to(DAY), "75s", "Between two requests of a client; 0: for ever."),
        key("streams", whole(1, 10_000), "128", "Requests at once on one HTTP/2 connection."),
        key("via", Kind::Switch, "false", "Add Via to requests and replies."),
        key(
            "request_id",
            choice(words::REQUEST_ID_WORDS),
            "pass",
            "X-Request-Id; make: a request without one gets one.",
        ),
        key(
            "access_log",
            Kind::Switch,
            "true",
            "Whether its requests are in the access log, where the top of the file has one.",
        ),
    ],
};

pub(in crate::config) static SHARD_KEY: Scope = Scope {
    required: &[&["header", "cookie", "query", "path_segment"]],
    keys: &[
        key("header", Kind::Text, "", "The value of this header."),
        key("cookie", Kind::Text, "", "The value of this cookie."),
        key("query", Kind::Text, "", "The value of this parameter of the query."),
        key("path_segment", whole(1, 64), "", "This part of the path, the first one being 1."),
    ],
};

pub(in crate::config) static RETRY: Scope = Scope {
    required: &[],
    keys: &[key(
        "idempotent_writes",
        Kind::Switch,
        "false",
        "true: the application does not mind a PUT, DELETE or POST twice, so one without a body is tried again as a GET is.",
    )],
};
