//! `dedicated:` and `upstream.mode` of a cluster: what one client has for itself. Not who needs it.

use crate::{
    config::section::{Reader, Section},
    topology::Dedicated,
};

/// What a cluster says; `always` is what `upstream.mode` said.
pub(super) fn dedicated(
    reader: &mut Reader<'_, '_>,
    cluster: &Section<'_>,
    always: bool,
) -> Dedicated {
    let section = reader.section(cluster, "dedicated");
    Dedicated {
        max_per_backend: reader.integer(&section, "max_per_backend").unwrap_or_default(),
        wait: reader.duration(&section, "wait_timeout"),
        max_lease_idle: reader.duration(&section, "max_lease_idle"),
        idle: reader.duration(&section, "idle"),
        lifetime: reader.duration(&section, "lifetime"),
        min: reader.integer(&section, "min").unwrap_or_default(),
        always,
    }
}
