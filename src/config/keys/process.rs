//! The tables of what concerns the process: its admin address, log, limits and end. Not of listeners
//! and clusters.

use super::{DAY, HOUR, Kind, MIB, Scope, TIB, between, choice, key, later, up_to};
use crate::config::words;
use std::time::Duration;

pub(in crate::config) static ADMIN: Scope = Scope {
    required: &[],
    keys: &[
        key(
            "bind",
            Kind::Bind,
            "127.0.0.1:9900",
            "Where status and metrics are served; when not given, a taken port is only a warning.",
        ),
        key(
            "socket",
            Kind::Text,
            "",
            "A unix socket with the same pages, for its owner alone, on which backends may be changed: /run/sluice/admin.sock. When not given, one is made in /run/sluice or $XDG_RUNTIME_DIR where there is one.",
        ),
        key(
            "token",
            Kind::Secret,
            "",
            "What `Authorization: Bearer` must say to change something over TCP; without one nothing is changed there.",
        ),
        key("token_file", Kind::Path, "", "A file that holds the token."),
        later("tls"),
    ],
};

pub(in crate::config) static LOG: Scope = Scope {
    required: &[],
    keys: &[
        key("format", choice(words::LOG_FORMAT_WORDS), "text", "One line of text or of JSON."),
        key(
            "level",
            Kind::LogLevel,
            "info",
            "off, error, warn, info, debug or trace, also by target: info,sluice=debug; the variable SLUICE_LOG wins.",
        ),
    ],
};

pub(in crate::config) static LIMITS: Scope = Scope {
    required: &[],
    keys: &[
        key(
            "max_connections",
            Kind::Integer { min: 1, max: 100_000_000, auto: true },
            "auto",
            "Clients at once; auto: from the descriptor limit.",
        ),
        key(
            "memory",
            Kind::Size { min: MIB, max: 1_024 * TIB, auto: true },
            "auto",
            "Buffered bytes; auto: from the cgroup when it has a limit, else none.",
        ),
    ],
};

pub(in crate::config) static SHUTDOWN: Scope = Scope {
    required: &[],
    keys: &[
        key("pre_stop_delay", up_to(HOUR), "0", "How long to go on accepting after SIGTERM."),
        key(
            "drain_timeout",
            between(Duration::ZERO, DAY),
            "25s",
            "When clients that are still there are closed by force.",
        ),
        later("mode"),
    ],
};
