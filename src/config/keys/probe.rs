//! The table of `check.http`: what an HTTP probe asks and which answer is well. Not its schedule,
//! which all kinds of probes share.

use super::{Kind, Scope, key};

/// The most ranges of `status`.
const MAX_RANGES: usize = 16;

pub(in crate::config) static CHECK_HTTP: Scope = Scope {
    required: &[],
    keys: &[
        key(
            "method",
            Kind::Choice { now: &["GET", "HEAD", "OPTIONS"], later: &[] },
            "GET",
            "GET, HEAD or OPTIONS.",
        ),
        key("path", Kind::Text, "/", "What is asked for, with its query: /healthz?full=1."),
        key("host", Kind::Text, "", "The Host header; when not given, the backend's address."),
        key(
            "status",
            Kind::List(&Kind::Text, MAX_RANGES),
            "",
            "Answers that are well: 200 or 200-299; when not given, 200-399.",
        ),
        key("headers", Kind::Texts, "", "Headers that are sent along, by name."),
        key(
            "body_contains",
            Kind::Text,
            "",
            "What the first 64KiB of the answer's body must contain.",
        ),
        key(
            "weight_header",
            Kind::Text,
            "",
            "The answer's header in which the backend says its weight, 0 to 256.",
        ),
    ],
};
