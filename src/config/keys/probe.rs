//! The table of `check.http`: what an HTTP probe asks and which answer is well. Not its schedule,
//! which all kinds of probes share.

use super::{HOUR, Kind, MINUTE, MS, MS_10, Scope, between, key, later, whole};
use std::time::Duration;

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

pub(in crate::config) static CHECK: Scope = Scope {
    required: &[],
    keys: &[
        key("interval", between(MS_10, HOUR), "2s", "Between two probes of a healthy backend."),
        key(
            "fast_interval",
            between(MS_10, HOUR),
            "500ms",
            "Between two probes while rising, falling or unknown.",
        ),
        key("down_interval", between(MS_10, HOUR), "1s", "Between two probes while unhealthy."),
        key("timeout", between(MS, MINUTE), "1s", "After which a probe has failed."),
        key("rise", whole(1, 100), "2", "Passed probes in a row that make a backend healthy."),
        key("fall", whole(1, 100), "3", "Failed probes in a row that make it unhealthy."),
        key(
            "startup_grace",
            between(Duration::ZERO, HOUR),
            "5s",
            "How long traffic waits for the first round of probes.",
        ),
        key(
            "tcp",
            Kind::Map(&CHECK_TCP),
            "",
            "A probe is a connection that is made and closed; the kind that backends have.",
        ),
        key(
            "http",
            Kind::Map(&CHECK_HTTP),
            "",
            "A probe is a request, and its answer must be well.",
        ),
        later("redis"),
        later("jitter"),
    ],
};

/// There is nothing to say yet; `{}` names the kind.
pub(in crate::config) static CHECK_TCP: Scope = Scope { required: &[], keys: &[later("port")] };
