//! `access_log` at the top, and what listeners say of it. Not what a line says.

use crate::{
    config::{
        AccessLog, Listener, Protocol,
        section::{Reader, Section},
    },
    telemetry::access_log::Place,
};

/// Where lines go; `None`: there are none.
pub(super) fn access_log(reader: &mut Reader<'_, '_>, root: &Section<'_>) -> Option<AccessLog> {
    root.field("access_log")?;
    let section = reader.section(root, "access_log");
    let place = match section.field("path").map(|_| reader.text(&section, "path")) {
        Some(Some(word)) if word == "stdout" => Some(Place::Stdout),
        Some(Some(_)) => reader.path(&section, "path").map(Place::File),
        _ => None,
    };
    let query = reader.switch(&section, "query");
    Some(AccessLog { place: place?, query })
}

/// A log that nothing is written to is a slip.
pub(super) fn is_of_use(
    reader: &mut Reader<'_, '_>,
    root: &Section<'_>,
    log: Option<&AccessLog>,
    listeners: &[Listener],
) {
    let logged = |one: &Listener| one.protocol == Protocol::Http && one.http.access_log;
    if let (Some(_), Some(field), false) =
        (log, root.field("access_log"), listeners.iter().any(logged))
    {
        let message = "no listener of protocol http writes to it";
        reader.notes.hint(&field.key_at, &field.path, message);
    }
}
