//! The tree as a [`Config`]: the rules over a whole file, and every breach of them at once. Not
//! the reading of one key: see `section`.

mod access_log;
pub(super) mod balance;
mod cluster;
mod dedicated;
mod http;
mod insight;
mod limits;
mod listener;
mod probe;
mod reads;
mod redis_cluster;
mod routes;
mod sentinel;
mod shard;
pub(super) mod sharding;
mod sticky;
mod tls;
mod users;

use super::{
    Admin, Cluster, Config, Findings, Limits, Listener, Log, Protocol, Secret, Shutdown,
    env::Env,
    file,
    finding::Notes,
    keys,
    section::{Reader, Section},
    values::{self, Wrong},
    words,
};
use crate::net::addr::{Address, Bind};
use std::{
    collections::HashMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

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
    let access_log = access_log::access_log(reader, root);
    let listeners = listener::listeners(reader, root, &names, &admin);
    let protocols = protocols(reader, entries, &listeners);
    if let (true, Some(field)) = (entries.is_empty(), root.field("clusters"))
        && matches!(field.node.value, file::Value::Map(_))
    {
        reader.notes.error(&field.key_at, &field.path, "it is empty; a listener needs one");
    }
    let mut clusters = Vec::new();
    for ((key, node), protocol) in entries.iter().zip(protocols) {
        clusters.extend(cluster::cluster(reader, key, node, protocol));
    }
    if reader.notes.errors() == 0 {
        access_log::is_of_use(reader, root, access_log.as_ref(), &listeners);
        for (index, ((key, node), cluster)) in entries.iter().zip(&clusters).enumerate() {
            let uses = |listener: &Listener| listener.clusters().contains(&index);
            let own = || listeners.iter().filter(|listener| uses(listener));
            limits::of_protocol(reader, (key, node), cluster, own(), workers);
            own().for_each(|one| sticky::only_over_http(reader, (&key.name, node), one));
            for (listener, address) in
                own().filter_map(|one| Some((one, asked_back(one, cluster)?)))
            {
                let path = format!("clusters.{}", key.name);
                let message = format!(
                    "'{address}' is where listener '{}' accepts for this cluster: Sluice would ask itself",
                    listener.name
                );
                reader.notes.error(&key.at, &path, message);
            }
            if own().next().is_none() {
                let path = format!("clusters.{}", key.name);
                reader.notes.hint(&key.at, &path, "no listener uses this cluster");
            }
        }
    }
    Config { workers, admin, log, access_log, limits, shutdown, listeners, clusters }
}

/// What each cluster is spoken to in: what its listeners speak.
fn protocols(
    reader: &mut Reader<'_, '_>,
    entries: &[(file::Key, file::Node)],
    listeners: &[Listener],
) -> Vec<Option<Protocol>> {
    let of = |(index, (key, _)): (usize, &(file::Key, file::Node))| {
        let mut own = listeners.iter().filter(|listener| listener.clusters().contains(&index));
        let first = own.next()?;
        if let Some(other) = own.find(|other| other.protocol != first.protocol) {
            let message = format!(
                "listener '{}' speaks {} and listener '{}' {}; each needs a cluster of its own",
                first.name,
                first.protocol.as_str(),
                other.name,
                other.protocol.as_str()
            );
            reader.notes.error(&key.at, &format!("clusters.{}", key.name), message);
        }
        Some(first.protocol)
    };
    entries.iter().enumerate().map(of).collect()
}

/// The member of a cluster that is the listener itself.
fn asked_back<'c>(listener: &Listener, cluster: &'c Cluster) -> Option<&'c Address> {
    let members =
        cluster.shards.iter().flat_map(crate::config::Shard::members).map(|member| &member.address);
    members.into_iter().find(|address| match (&listener.bind, address) {
        (Bind::Unix(bind), Address::Unix(path)) => bind == path,
        (Bind::Tcp(bind), Address::Tcp { host, port }) => {
            let host = host.trim_matches(['[', ']']);
            let ip = if host == "localhost" { "127.0.0.1" } else { host }.parse::<IpAddr>();
            let here =
                |ip: IpAddr| ip == bind.ip() || bind.ip().is_unspecified() && ip.is_loopback();
            *port == bind.port() && ip.is_ok_and(here)
        }
        _ => false,
    })
}

fn admin(reader: &mut Reader<'_, '_>, root: &Section<'_>) -> Admin {
    let section = reader.section(root, "admin");
    let bind = reader.value(&section, "bind", bind).unwrap_or_else(|| Admin::default().bind);
    let socket = reader.value(&section, "socket", |text, _| socket(text));
    if let (Bind::Unix(path), Some(field)) = (&bind, section.field("socket"))
        && socket.as_ref() == Some(path)
    {
        let message = "`bind` says the same; keep one of the two";
        reader.notes.error(&field.node.at, &field.path, message);
    }
    let token = reader.secret(&section, "token", "token_file").map(Secret);
    if let Some(Err(_)) = token.as_ref().map(|token| ::http::HeaderValue::from_str(&token.0)) {
        let message = "it has characters that no header may have";
        reader.notes.error(&section.at, &section.path, message);
    }
    Admin { bind, explicit: section.has("bind"), socket, token }
}

/// `/path`, or `unix:/path` as a listener has it.
fn socket(text: &str) -> Result<PathBuf, Wrong> {
    let path = text.strip_prefix("unix:").unwrap_or(text);
    if !path.starts_with('/') {
        let message = format!("'{text}' is not an absolute path; write /run/sluice/admin.sock");
        return Err(message.into());
    }
    if path.len() > MAX_SOCKET {
        let message =
            format!("it has {} bytes; a socket's path has at most {MAX_SOCKET}", path.len());
        return Err(message.into());
    }
    Ok(path.into())
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

/// `sun_path` of unix(7), its last zero left out.
const MAX_SOCKET: usize = 107;
const EMPTY: &str = "the file is empty; `sluice config example` prints one to start from";
