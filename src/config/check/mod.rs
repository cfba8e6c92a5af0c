//! The tree as a [`Config`]: the rules over a whole file, and every breach of them at once. Not
//! the reading of one key: see `section`.

mod cluster;
mod listener;
mod shard;

use super::{
    Admin, Config, Findings, Limits, Log, Shutdown,
    env::Env,
    file,
    finding::Notes,
    keys,
    section::{Reader, Section},
    values::{self, Wrong},
    words,
};
use crate::net::addr::Bind;
use std::{collections::HashMap, path::Path};

/// Reads `text` as a configuration; `file` is its name in the findings.
pub(super) fn check(text: &str, file: &str, env: Env<'_>) -> (Option<Config>, Findings) {
    let mut notes = Notes::new(file, text);
    let Some(root) = file::parse(text, &mut notes) else {
        if notes.errors() == 0 {
            notes.whole_file(EMPTY);
        }
        return (None, notes.finish());
    };
    if matches!(root.value, file::Value::Null) {
        notes.whole_file(EMPTY);
        return (None, notes.finish());
    }
    let folder = Path::new(file).parent().unwrap_or_else(|| Path::new(""));
    let mut reader = Reader::new(notes, env, folder);
    let config = reader.open(&root, &keys::ROOT, "", &(0..0)).map(|root| read(&mut reader, &root));
    let config = config.filter(|_| reader.notes.errors() == 0);
    (config, reader.notes.finish())
}

/// What is read is complete only if there is no error among the findings.
fn read(reader: &mut Reader<'_, '_>, root: &Section<'_>) -> Config {
    let workers = reader.integer::<usize>(root, "workers").and_then(std::num::NonZero::new);
    let (admin, log) = (admin(reader, root), log(reader, root));
    let limits = reader.section(root, "limits");
    let limits = Limits {
        max_connections: reader.integer(&limits, "max_connections"),
        memory: reader.size(&limits, "memory"),
    };
    let shutdown = reader.section(root, "shutdown");
    let shutdown = Shutdown {
        pre_stop_delay: reader.duration(&shutdown, "pre_stop_delay"),
        drain_timeout: reader.duration(&shutdown, "drain_timeout"),
    };
    let entries = reader.named(root, "clusters");
    let entries = match entries.get(keys::MAX_CLUSTERS) {
        None => entries,
        Some((key, _)) => {
            let message =
                format!("it has {} clusters; the most is {}", entries.len(), keys::MAX_CLUSTERS);
            reader.notes.error(&key.at, "clusters", message);
            entries.get(..keys::MAX_CLUSTERS).unwrap_or_default()
        }
    };
    let names: HashMap<&str, listener::Known> = entries
        .iter()
        .enumerate()
        .map(|(index, (key, node))| {
            (key.name.as_str(), listener::Known { index, source: cluster::source(node) })
        })
        .collect();
    let listeners = listener::listeners(reader, root, &names, &admin);
    if let (true, Some(field)) = (entries.is_empty(), root.field("clusters"))
        && matches!(field.node.value, file::Value::Map(_))
    {
        reader.notes.error(&field.key_at, &field.path, "it is empty; a listener needs one");
    }
    let mut clusters = Vec::new();
    for (key, node) in entries {
        clusters.extend(cluster::cluster(reader, key, node));
    }
    if reader.notes.errors() == 0 {
        for (index, (key, _)) in entries.iter().enumerate() {
            if listeners.iter().all(|listener| listener.cluster != index) {
                let path = format!("clusters.{}", key.name);
                reader.notes.hint(&key.at, &path, "no listener uses this cluster");
            }
        }
    }
    Config { workers, admin, log, limits, shutdown, listeners, clusters }
}

fn admin(reader: &mut Reader<'_, '_>, root: &Section<'_>) -> Admin {
    let section = reader.section(root, "admin");
    let default = Bind::Tcp(([127, 0, 0, 1], 9900).into());
    let bind = reader.value(&section, "bind", bind).unwrap_or(default);
    Admin { bind, explicit: section.has("bind") }
}

fn log(reader: &mut Reader<'_, '_>, root: &Section<'_>) -> Log {
    let section = reader.section(root, "log");
    Log {
        format: reader.choice(&section, "format", words::LOG_FORMAT),
        level: reader
            .value(&section, "level", |text, _| values::log_level(text))
            .unwrap_or_default(),
    }
}

fn bind(text: &str, _: &keys::Kind) -> Result<Bind, Wrong> {
    text.parse().map_err(|error| Wrong::from(format!("{error}")))
}

#[cfg(test)]
mod tests;

const EMPTY: &str = "the file is empty; `sluice config example` prints one to start from";
