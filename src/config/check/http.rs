//! What only HTTP has: a listener's `routes` and `http`, a cluster's `shard_key` and `retry`. Not
//! where requests go at run time.

use super::listener::{Known, find_cluster, first, network};
use crate::config::{
    HttpCluster, HttpListener, Route, ShardKey,
    file::{Node, Value, join, short},
    keys::{self, Kind},
    section::{Reader, Section},
    values::Wrong,
    words,
};
use http::{HeaderName, HeaderValue, Method};
use std::collections::HashMap;

/// `routes`, in order; `first_wins` when the order says which one a request takes.
pub(super) fn routes(
    reader: &mut Reader<'_, '_>,
    listener: &Section<'_>,
    clusters: &HashMap<&str, Known>,
    first_wins: bool,
) -> Vec<Route> {
    let items: Vec<(String, &Node)> = reader.items(listener, "routes").collect();
    if let (true, Some(field)) = (items.is_empty(), listener.field("routes"))
        && matches!(field.node.value, Value::List(_))
    {
        reader.notes.error(&field.key_at, &field.path, "it is empty; no request would be answered");
    }
    let mut routes: Vec<Route> = Vec::new();
    let mut all: Option<String> = None;
    for (path, node) in items {
        let Some(section) = reader.open(node, &keys::ROUTE, &path, &first(node)) else { continue };
        if let (Some(all), true) = (&all, first_wins) {
            let message = format!("no request comes here: {all} is for every request");
            reader.notes.error(&first(node), &path, message);
        }
        let found = route(reader, &section, clusters);
        if let Some(route) = found {
            if route.takes_all() && all.is_none() {
                all = Some(path);
            }
            routes.push(route);
        }
    }
    routes
}

fn route(
    reader: &mut Reader<'_, '_>,
    section: &Section<'_>,
    clusters: &HashMap<&str, Known>,
) -> Option<Route> {
    let wanted = reader.section(section, "match");
    let host = reader.value(&wanted, "host", host);
    let path_prefix = reader.value(&wanted, "path_prefix", path_prefix);
    let mut methods = Vec::new();
    for (path, node) in reader.items(&wanted, "method") {
        methods.extend(reader.parse(node, &path, &Kind::Text, method));
    }
    let headers = headers(reader, &wanted);
    if clusters.is_empty() {
        return None;
    }
    let cluster_of = |text: &str, _: &Kind| find_cluster(text, clusters);
    let cluster = reader.value(section, "cluster", cluster_of)?.index;
    let key_prefix = reader.text(&wanted, "key_prefix");
    let strip = reader.switch(section, "strip");
    Some(Route { host, path_prefix, methods, headers, key_prefix, strip, cluster })
}

fn headers(
    reader: &mut Reader<'_, '_>,
    wanted: &Section<'_>,
) -> Vec<(HeaderName, Option<HeaderValue>)> {
    let mut headers = Vec::new();
    for (key, node) in reader.named(wanted, "header") {
        let path = join(&join(&wanted.path, "header"), &key.name);
        let Ok(name) = HeaderName::from_bytes(key.name.as_bytes()) else {
            reader.notes.error(&key.at, &path, "it is not the name of a header");
            continue;
        };
        let value = reader.parse(node, &path, &Kind::Text, |text, _| match text {
            "*" => Ok(None),
            text => HeaderValue::from_str(text)
                .map(Some)
                .map_err(|_| Wrong::from("it is not the value of a header".to_owned())),
        });
        headers.extend(value.map(|value| (name, value)));
    }
    headers
}

fn host(text: &str, _: &Kind) -> Result<String, Wrong> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._[:]".contains(c);
    let port = name.rsplit_once(':').is_some_and(|(name, _)| !name.contains(':'));
    if name.is_empty() || !name.chars().all(fits) || port {
        let text = short(text);
        return Err(format!("'{text}' is not a host; write example.com or *.example.com").into());
    }
    Ok(text.to_ascii_lowercase())
}

fn path_prefix(text: &str, _: &Kind) -> Result<String, Wrong> {
    if text.starts_with('/') && !text.contains(['?', '#']) {
        return Ok(text.to_owned());
    }
    Err(format!("'{}' is not the beginning of a path; write /search", short(text)).into())
}

fn method(text: &str, _: &Kind) -> Result<Method, Wrong> {
    let wrong = || Wrong::from(format!("'{}' is not a method; write GET", short(text)));
    if text.chars().any(|c| c.is_ascii_lowercase()) {
        return Err(format!("methods are in capitals; write {}", text.to_ascii_uppercase()).into());
    }
    Method::from_bytes(text.as_bytes()).map_err(|_| wrong())
}

/// `http` of a listener.
pub(super) fn listener(reader: &mut Reader<'_, '_>, listener: &Section<'_>) -> HttpListener {
    let section = reader.section(listener, "http");
    let mut trusted = Vec::new();
    for (path, node) in reader.items(&section, "trusted") {
        trusted.extend(reader.parse(node, &path, &Kind::Network, |text, _| network(text)));
    }
    HttpListener {
        trusted,
        header_bytes: reader.size(&section, "header_bytes").unwrap_or_default(),
        headers: reader.integer(&section, "headers").unwrap_or_default(),
        uri_bytes: reader.size(&section, "uri_bytes").unwrap_or_default(),
        header_timeout: reader.duration(&section, "header_timeout"),
        body_idle: reader.duration(&section, "body_idle"),
        keep_alive: reader.duration(&section, "keep_alive"),
        streams: reader.integer(&section, "streams").unwrap_or_default(),
        via: reader.switch(&section, "via"),
        request_id: reader.choice(&section, "request_id", words::REQUEST_ID),
        access_log: reader.switch(&section, "access_log"),
    }
}

/// What a cluster says of requests.
pub(super) fn cluster(
    reader: &mut Reader<'_, '_>,
    cluster: &Section<'_>,
    upstream: &Section<'_>,
) -> HttpCluster {
    let retry = reader.section(cluster, "retry");
    HttpCluster {
        shard_key: shard_key(reader, cluster),
        idempotent_writes: reader.switch(&retry, "idempotent_writes"),
        http2: reader.switch(upstream, "http2"),
        idle: reader.duration(upstream, "idle"),
    }
}

fn shard_key(reader: &mut Reader<'_, '_>, cluster: &Section<'_>) -> Option<ShardKey> {
    let section = reader.section(cluster, "shard_key");
    let field = cluster.field("shard_key")?;
    let places = ["header", "cookie", "query", "path_segment"];
    let written: Vec<_> = places.iter().filter(|name| section.has(name)).collect();
    if written.len() > 1 {
        let message = format!("it has {} of {}; it takes one", written.len(), places.join(", "));
        reader.notes.error(&field.key_at, &field.path, message);
    }
    let name = |text: &str, _: &Kind| {
        let wrong = || Wrong::from(format!("'{}' is not the name of a header", short(text)));
        HeaderName::from_bytes(text.as_bytes()).map_err(|_| wrong())
    };
    if section.has("header") {
        return reader.value(&section, "header", name).map(ShardKey::Header);
    }
    if section.has("cookie") {
        return reader.text(&section, "cookie").map(ShardKey::Cookie);
    }
    if section.has("query") {
        return reader.text(&section, "query").map(ShardKey::Query);
    }
    reader.integer(&section, "path_segment").map(ShardKey::PathSegment)
}
