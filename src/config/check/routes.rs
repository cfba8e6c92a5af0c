//! The routes of a listener against its protocol: HTTP matches requests, Redis the beginning of a
//! key. Not the reading of one: see `http`.

use super::listener::Known;
use crate::config::{
    Protocol, Route,
    section::{Reader, Section},
};
use std::collections::{HashMap, HashSet};

/// Tells what a protocol cannot match, and what no request would reach.
pub(super) fn fit(
    reader: &mut Reader<'_, '_>,
    listener: &Section<'_>,
    protocol: Protocol,
    routes: &[Route],
    clusters: &HashMap<&str, Known>,
) {
    let Some(field) = listener.field("routes") else { return };
    let mut tell = |index: Option<usize>, message: &str| {
        let path = index.map_or_else(|| field.path.clone(), |at| format!("{}[{at}]", field.path));
        reader.notes.error(&field.key_at, &path, message);
    };
    if protocol == Protocol::Http {
        for (index, _) in
            routes.iter().enumerate().filter(|(_, one)| one.key_prefix.is_some() || one.strip)
        {
            tell(Some(index), "`key_prefix` and `strip` are for redis");
        }
    }
    if protocol != Protocol::Redis {
        return;
    }
    let mut prefixes = HashSet::new();
    for (index, route) in routes.iter().enumerate() {
        let http = Route { key_prefix: None, strip: false, ..route.clone() };
        if !http.takes_all() {
            tell(Some(index), "only an http listener matches host, path_prefix, method and header");
        }
        if route.strip && route.key_prefix.is_none() {
            tell(Some(index), "`strip` needs `match: { key_prefix }`");
        }
        if route.key_prefix.as_ref().is_some_and(|prefix| !prefixes.insert(prefix)) {
            tell(Some(index), "another route has that key_prefix");
        }
        let source = clusters.values().find(|known| known.index == route.cluster);
        if source.is_some_and(|known| !["", "shards", "sentinel"].contains(&known.source)) {
            tell(Some(index), "a redis listener needs a cluster with `shards`");
        }
    }
    if !routes.is_empty() && !routes.iter().any(Route::takes_all) {
        tell(None, "a route without `match` is missing: where do other keys go?");
    }
}
