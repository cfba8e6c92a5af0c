//! What HTTP adds to the printed configuration: a listener's routes, and what a cluster says of
//! requests. Not the rest of either.

use super::{Entries, Out, keys, word, words};
use crate::{
    config::{AccessLog, Cluster, Config, HttpListener, Listener, Route, ShardKey, Size},
    telemetry::access_log::Place,
};

/// `cluster`, or `routes` when there is more to say.
pub(super) fn routes(entries: &mut Entries, config: &Config, listener: &Listener) {
    let name = |index: usize| config.clusters.get(index).map(|cluster| &*cluster.name);
    if listener.routes.iter().all(Route::takes_all) {
        entries.optional("cluster", name(listener.cluster));
        return;
    }
    let routes = listener.routes.iter().map(|one| route(one, name(one.cluster), entries.defaults));
    let routes = routes.collect();
    entries.push("routes", Out::List(routes));
}

fn route(route: &Route, cluster: Option<&str>, defaults: bool) -> Out {
    let mut wanted = Entries::new(&keys::MATCH, defaults);
    wanted
        .optional("host", route.host.as_deref())
        .optional("path_prefix", route.path_prefix.as_deref())
        .optional("key_prefix", route.key_prefix.as_deref());
    let methods: Vec<String> = route.methods.iter().map(ToString::to_string).collect();
    wanted.row("method", &methods);
    let headers = route.headers.iter().map(|(name, value)| {
        let value = value.as_ref().map_or("*", |value| value.to_str().unwrap_or_default());
        (name.to_string(), Out::Text(value.to_owned()))
    });
    let headers: Vec<_> = headers.collect();
    if defaults || !headers.is_empty() {
        wanted.push("header", Out::Map(headers));
    }
    let mut entries = Entries::new(&keys::ROUTE, defaults);
    entries.map("match", wanted).optional("cluster", cluster).text("strip", route.strip);
    Out::Map(entries.list)
}

/// Where requests are logged.
pub(super) fn access_log(log: &AccessLog, defaults: bool) -> Entries {
    let mut entries = Entries::new(&keys::ACCESS_LOG, defaults);
    match &log.place {
        Place::Stdout => entries.text("path", "stdout"),
        Place::File(path) => entries.text("path", path.display()),
    };
    entries.text("query", log.query);
    entries
}

/// `http` of a listener.
pub(super) fn listener(http: &HttpListener, defaults: bool) -> Entries {
    let trusted: Vec<String> = http.trusted.iter().map(ToString::to_string).collect();
    let mut entries = Entries::new(&keys::LISTENER_HTTP, defaults);
    entries
        .row("trusted", &trusted)
        .text("header_bytes", Size(http.header_bytes))
        .text("headers", http.headers)
        .text("uri_bytes", Size(http.uri_bytes))
        .period("header_timeout", http.header_timeout)
        .period("body_idle", http.body_idle)
        .period("keep_alive", http.keep_alive)
        .text("streams", http.streams)
        .text("via", http.via)
        .text("request_id", word(words::REQUEST_ID, &http.request_id))
        .text("access_log", http.access_log);
    entries
}

/// What a cluster says of requests.
pub(super) fn cluster(entries: &mut Entries, cluster: &Cluster) {
    let http = &cluster.http;
    let mut key = Entries::new(&keys::SHARD_KEY, entries.defaults);
    let place = http.shard_key.as_ref();
    let number = place.and_then(|place| match place {
        ShardKey::PathSegment(number) => Some(number.to_string()),
        _ => None,
    });
    let named = |name: &str| match (name, place?) {
        ("header", ShardKey::Header(header)) => Some(header.as_str()),
        ("cookie", ShardKey::Cookie(text)) | ("query", ShardKey::Query(text)) => Some(&**text),
        _ => None,
    };
    if place.is_some() {
        key.optional("header", named("header"))
            .optional("cookie", named("cookie"))
            .optional("query", named("query"))
            .optional("path_segment", number.as_deref());
    }
    let mut retry = Entries::new(&keys::RETRY, entries.defaults);
    retry.text("idempotent_writes", http.idempotent_writes);
    entries.map("shard_key", key).map("retry", retry);
}

/// How a cluster's backends are spoken to.
pub(super) fn upstream(entries: &mut Entries, cluster: &Cluster) {
    entries.text("http2", cluster.http.http2).period("idle", cluster.http.idle);
}
