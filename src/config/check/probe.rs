//! `check.http`: what an HTTP probe asks and which answer is well. Not the schedule of probes: see
//! `cluster`.

use crate::{
    config::{
        file::{Value, join, short},
        section::{Reader, Section},
        values::{self, Wrong},
    },
    topology::HttpCheck,
};
use http::{HeaderName, HeaderValue, Method, header, uri::PathAndQuery};
use std::collections::HashSet;

/// `None` when the probes are of another kind.
pub(super) fn http(reader: &mut Reader<'_, '_>, check: &Section<'_>) -> Option<HttpCheck> {
    let section = reader.section(check, "http");
    let method = reader.value(&section, "method", values::choice).unwrap_or_default();
    let read = HttpCheck {
        method: Method::from_bytes(method.as_bytes()).unwrap_or_default(),
        path: reader
            .value(&section, "path", |text, _| path(text))
            .unwrap_or_else(|| PathAndQuery::from_static("/")),
        host: reader.value(&section, "host", |text, _| host(text)),
        status: status(reader, &section),
        headers: headers(reader, &section),
        body_contains: reader.text(&section, "body_contains"),
        weight_header: reader.value(&section, "weight_header", |text, _| name(text)),
    };
    if let (Some(_), Some(field)) = (check.field("tcp"), check.field("http")) {
        let message = "`tcp` is given too; a cluster's probes are of one kind";
        reader.notes.error(&field.key_at, &field.path, message);
    }
    if let (true, Some(field)) = (read.method == Method::HEAD, section.field("body_contains")) {
        let message = "the answer to HEAD has no body; use `method: GET`";
        reader.notes.error(&field.key_at, &field.path, message);
    }
    check.has("http").then_some(read)
}

fn path(text: &str) -> Result<PathAndQuery, Wrong> {
    let wrong = || format!("'{}' is not a path; write /healthz", short(text));
    match text.parse::<PathAndQuery>() {
        Ok(path) if text.starts_with('/') => Ok(path),
        _ => Err(wrong().into()),
    }
}

fn host(text: &str) -> Result<HeaderValue, Wrong> {
    let host =
        |text: &str| text.parse::<http::uri::Authority>().is_ok_and(|a| !a.as_str().contains('@'));
    match HeaderValue::from_str(text) {
        Ok(value) if host(text) => Ok(value),
        _ => {
            Err(format!("'{}' is not a host; write app.example or app.example:80", short(text))
                .into())
        }
    }
}

fn name(text: &str) -> Result<HeaderName, Wrong> {
    let wrong = |_| Wrong::from(format!("'{}' is not the name of a header", short(text)));
    HeaderName::from_bytes(text.as_bytes()).map_err(wrong)
}

/// `200`, or `200-399`.
fn range(text: &str) -> Result<(u16, u16), Wrong> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.trim().parse().ok().filter(|n| (100..=599).contains(n));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        _ => {
            let message =
                format!("'{}' is not a status; write 200 or 200-299, within 100-599", short(text));
            Err(message.into())
        }
    }
}

fn status(reader: &mut Reader<'_, '_>, section: &Section<'_>) -> Vec<(u16, u16)> {
    let Some(field) = section.field("status") else { return HttpCheck::default().status };
    let mut ranges = Vec::new();
    for (path, node) in reader.items(section, "status") {
        ranges.extend(reader.parse(node, &path, &crate::config::keys::Kind::Text, |t, _| range(t)));
    }
    if matches!(&field.node.value, Value::List(items) if items.is_empty()) {
        let message = "it is empty; no answer would be well";
        reader.notes.error(&field.key_at, &field.path, message);
    }
    ranges
}

fn headers(reader: &mut Reader<'_, '_>, section: &Section<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    let mut names = HashSet::new();
    for (key, node) in reader.named(section, "headers") {
        let path = join(&join(&section.path, "headers"), &key.name);
        let Ok(name) = HeaderName::from_bytes(key.name.as_bytes()) else {
            reader.notes.error(&key.at, &path, "it is not the name of a header");
            continue;
        };
        if OURS.contains(&name) {
            let message = match name {
                header::HOST => "the key `host` beside `headers` sets it",
                _ => "it says how the connection is used, which is ours to say",
            };
            reader.notes.error(&key.at, &path, message);
            continue;
        }
        if !names.insert(name.clone()) {
            let message = format!("{name} is given already; capitals make no difference");
            reader.notes.error(&key.at, &path, message);
        }
        let kind = &crate::config::keys::Kind::Text;
        let value = reader.parse(node, &path, kind, |text, _| {
            HeaderValue::from_str(text)
                .map_err(|_| Wrong::from("it has characters that no header may have".to_owned()))
        });
        let Some(mut value) = value else { continue };
        value.set_sensitive(SECRET.contains(&name));
        headers.push((name, value));
    }
    headers
}

/// Set by the one who sends the request.
const OURS: [HeaderName; 6] = [
    header::HOST,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
];
/// Not shown by `config print`.
const SECRET: [HeaderName; 3] =
    [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION];
