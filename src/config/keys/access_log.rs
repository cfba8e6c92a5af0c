//! The table of the keys of `access_log`. Not what a line says: see `telemetry`.

use super::{Kind, Scope, key};

pub(in crate::config) static ACCESS_LOG: Scope = Scope {
    required: &[&["path"]],
    keys: &[
        key(
            "path",
            Kind::Path,
            "",
            "A file, which is opened again when it was moved away; or the word stdout.",
        ),
        key("query", Kind::Switch, "true", "Whether paths are logged with their query."),
    ],
};
