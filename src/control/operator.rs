//! What an operator asks over HTTP about clusters and backends, and what is wanted of one backend:
//! from a path and a body to the table, and back to JSON. Not who may ask: that is access.rs.

use super::{
    plane::Plane,
    status,
    table::{Table, Wish},
};
use crate::{
    config::{Period, nearest},
    policy::gate::Admin,
};
use http::StatusCode;
use serde::Deserialize;
use std::time::Duration;

/// A status and a document, or why there is none.
pub(super) type Told = Result<Vec<u8>, (StatusCode, String)>;

/// `PATCH /api/v1/backends/{id}`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    admin: String,
    ttl: Option<String>,
    #[serde(default)]
    kill: bool,
}

/// Whether there is a page of that path that can only be looked at.
pub(super) fn is_page(path: &str) -> bool {
    let page = path.strip_prefix("/api/v1/").unwrap_or_default();
    matches!(page, "status" | "clusters" | "backends") || page.starts_with("clusters/")
}

/// What lies under `/api/v1/`, to look at; `None` when there is no such page.
pub(super) fn look(plane: &Plane, path: &str) -> Option<Told> {
    let (page, rest) = path.split_once('/').unwrap_or((path, ""));
    let told = match (page, rest) {
        ("status", "") => Ok(status::page(plane)),
        ("clusters", "") => Ok(status::clusters(plane)),
        ("clusters", name) => decoded(name).and_then(|name| {
            let topology = plane.topology();
            let names = || topology.clusters.iter().map(|cluster| &*cluster.name);
            status::cluster_page(plane, &name)
                .ok_or_else(|| (StatusCode::NOT_FOUND, no_cluster(&name, names())))
        }),
        ("backends", "") => Ok(status::backends(plane)),
        ("backends", id) => {
            let index = decoded(id).and_then(|id| find(&plane.table.borrow(), &id));
            index.map(|index| status::backend_page(plane, index))
        }
        _ => return None,
    };
    Some(told)
}

/// Does to the backend `id` what `body` says; gives its new status.
pub(super) fn change(plane: &Plane, id: &str, query: Option<&str>, body: &[u8]) -> Told {
    let index = find(&plane.table.borrow(), &decoded(id)?)?;
    let wish = wish(query, body).map_err(|why| (StatusCode::BAD_REQUEST, why))?;
    let detail = detail(wish);
    plane.table.borrow_mut().wish(index, wish, plane.now_ms(), detail);
    Ok(status::backend_page(plane, index))
}

fn wish(query: Option<&str>, body: &[u8]) -> Result<Wish, String> {
    let Patch { admin, ttl, kill } = serde_json::from_slice(body).map_err(|error| {
        format!("{error}; the body is JSON such as {{\"admin\":\"drain\",\"ttl\":\"10m\"}}")
    })?;
    let kill = match query {
        None | Some("") => kill,
        Some("kill=true") => true,
        Some("kill=false") => kill,
        Some(other) => return Err(format!("'{other}' is not understood; there is ?kill=true")),
    };
    let words = Admin::ALL.map(Admin::as_str);
    let Some(wanted) = Admin::ALL.into_iter().find(|one| one.as_str() == admin) else {
        let meant = nearest(&admin, words);
        let meant = meant.map(|word| format!("; did you mean '{word}'?")).unwrap_or_default();
        return Err(format!("'{admin}' is not one of {}{meant}", words.join(", ")));
    };
    let ttl = match ttl {
        None => None,
        Some(text) => {
            let Period(ttl) = text.parse().map_err(|error| format!("ttl: {error}"))?;
            if ttl.is_zero() || ttl > MAX_TTL {
                return Err(format!("ttl: '{text}' is out of range; it is from 1ms to 365d"));
            }
            Some(ttl)
        }
    };
    match wanted {
        Admin::Ready if ttl.is_some() => {
            Err("ready has no ttl: it takes back what was asked for before".to_owned())
        }
        Admin::Ready | Admin::Drain if kill => {
            Err("kill is for disabled: ready and drain keep the connections".to_owned())
        }
        admin => Ok(Wish { admin, ttl, kill }),
    }
}

fn detail(wish: Wish) -> String {
    let mut text = match wish.admin {
        Admin::Ready => "cleared",
        Admin::Drain | Admin::Disabled => "set",
    }
    .to_owned();
    if let Some(ttl) = wish.ttl {
        text += &format!(" for {}", Period(ttl));
    }
    if wish.kill {
        text += ", its connections closed";
    }
    text
}

/// The backend that is called `cluster/address`, or has that id.
fn find(table: &Table, id: &str) -> Result<usize, (StatusCode, String)> {
    let missing = |why| Err((StatusCode::NOT_FOUND, why));
    let all = || table.watches().numbered().map(|(index, watch)| (index, watch.backend()));
    if let Ok(number) = id.parse::<u32>() {
        let found = all().find(|(_, backend)| backend.id == number);
        return found.map(|(index, _)| Ok(index)).unwrap_or_else(|| {
            missing(format!("there is no backend {number}; /api/v1/backends lists them"))
        });
    }
    let Some((cluster, name)) = id.split_once('/') else {
        return missing(format!(
            "'{id}' names no backend; write CLUSTER/ADDRESS, such as cache/10.0.0.1:6379"
        ));
    };
    if all().all(|(_, backend)| &*backend.cluster != cluster) {
        return missing(no_cluster(cluster, all().map(|(_, backend)| &*backend.cluster)));
    }
    let own = || all().filter(|(_, backend)| &*backend.cluster == cluster);
    let found: Vec<_> = own().filter(|(_, backend)| &*backend.name == name).collect();
    match found.as_slice() {
        [] => {
            let names = own().map(|(_, backend)| &*backend.name);
            missing(format!("cluster '{cluster}' has no backend '{name}'{}", meant(name, names)))
        }
        [(index, _)] => Ok(*index),
        several => {
            let ids: Vec<_> =
                several.iter().map(|(_, b)| format!("{} ({})", b.id, b.shard)).collect();
            let ids = ids.join(", ");
            let why = format!("'{id}' is in several shards; say which by its id: {ids}");
            Err((StatusCode::BAD_REQUEST, why))
        }
    }
}

fn no_cluster<'a>(name: &str, names: impl Iterator<Item = &'a str> + Clone) -> String {
    format!("there is no cluster '{name}'{}", meant(name, names))
}

/// `; did you mean 'a'?`, or else what there is.
fn meant<'a>(name: &str, names: impl Iterator<Item = &'a str> + Clone) -> String {
    match nearest(name, names.clone()) {
        Some(meant) => format!("; did you mean '{meant}'?"),
        None => {
            let mut names: Vec<&str> = names.collect();
            names.dedup();
            let more = if names.len() > MAX_NAMED { ", ..." } else { "" };
            names.truncate(MAX_NAMED);
            format!("; there is {}{more}", names.join(", "))
        }
    }
}

/// RFC 3986, section 2.1.
fn decoded(text: &str) -> Result<String, (StatusCode, String)> {
    let wrong = || (StatusCode::BAD_REQUEST, "the path is not percent-encoded text".to_owned());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let both = digit().zip(digit()).map(|(high, low)| high * 16 + low);
                both.and_then(|value| u8::try_from(value).ok()).ok_or_else(wrong)?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

/// Longer than anybody remembers why.
const MAX_TTL: Duration = Duration::from_secs(365 * 86_400);
/// An error names at most so many.
const MAX_NAMED: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_read_and_bad_ones_teach() {
        let good = |body: &str| wish(None, body.as_bytes()).unwrap();
        let drain = Wish { admin: Admin::Drain, ttl: None, kill: false };
        assert_eq!(good(r#"{"admin":"drain"}"#), drain);
        let ttl = Some(Duration::from_secs(600));
        assert_eq!(good(r#"{"admin":"drain","ttl":"10m","kill":false}"#), Wish { ttl, ..drain });
        let disabled = Wish { admin: Admin::Disabled, ttl: None, kill: true };
        assert_eq!(good(r#"{"admin":"disabled","kill":true}"#), disabled);
        assert_eq!(wish(Some("kill=true"), br#"{"admin":"disabled"}"#), Ok(disabled));
        for (body, part) in [
            ("", "the body is JSON such as {\"admin\":\"drain\""),
            ("[]", "the body is JSON"),
            (r#"{"ttl":"1s"}"#, "missing field `admin`"),
            (r#"{"admin":"drain","tll":"1s"}"#, "unknown field `tll`"),
            (
                r#"{"admin":"drian"}"#,
                "'drian' is not one of ready, drain, disabled; did you mean 'drain'?",
            ),
            (r#"{"admin":"drain","ttl":"10"}"#, "ttl: '10' has no unit"),
            (r#"{"admin":"drain","ttl":"0"}"#, "ttl: '0' is out of range"),
            (r#"{"admin":"drain","ttl":"366d"}"#, "it is from 1ms to 365d"),
            (r#"{"admin":"ready","ttl":"1s"}"#, "ready has no ttl"),
            (r#"{"admin":"drain","kill":true}"#, "kill is for disabled"),
        ] {
            let why = wish(None, body.as_bytes()).unwrap_err();
            assert!(why.contains(part), "{body}: {why}");
        }
        assert!(wish(Some("force"), br#"{"admin":"drain"}"#).unwrap_err().contains("?kill=true"));
    }

    #[test]
    fn paths_are_decoded() {
        assert_eq!(decoded("cache%2F10.0.0.1%3A6379").unwrap(), "cache/10.0.0.1:6379");
        for bad in ["%", "%2", "%zz", "%ff"] {
            assert_eq!(decoded(bad).unwrap_err().0, StatusCode::BAD_REQUEST, "{bad}");
        }
    }
}
