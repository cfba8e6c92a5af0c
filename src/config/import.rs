//! twemproxy's configuration file as one of ours: the same keys at the same servers. What has no
//! counterpart is told; what would move keys or answer otherwise is refused.

use super::{
    file::{self, Node, Value, join, short},
    finding::{Findings, Notes, Span},
    keys::is_name,
    nearest::nearest,
    words::{self, word},
};
use crate::policy::hash::Hash;
use std::fmt::Write;

/// The text of our file, and what was found; `None` when there is an error among it. `file` is the
/// name in the findings.
pub fn twemproxy(text: &str, file: &str) -> (Option<String>, Findings) {
    let mut notes = Notes::new(file, text);
    let Some(root) = file::parse(text, &mut notes) else { return (None, notes.finish()) };
    let Value::Map(entries) = &root.value else {
        notes.whole_file("it has no pools: a map of names is expected");
        return (None, notes.finish());
    };
    let pools: Vec<Pool> =
        entries.iter().filter_map(|(key, node)| pool(&mut notes, key, node)).collect();
    if notes.errors() > 0 {
        return (None, notes.finish());
    }
    let mut out = format!("# From {} of twemproxy.\nlisteners:\n", short(file));
    pools.iter().for_each(|pool| pool.listener(&mut out));
    out.push_str("clusters:\n");
    pools.iter().for_each(|pool| pool.cluster(&mut out));
    (Some(out), notes.finish())
}

#[derive(Debug, Default)]
struct Pool {
    name: String,
    bind: String,
    distribution: &'static str,
    hash: Hash,
    hash_tag: Option<String>,
    timeout_ms: Option<u64>,
    client_connections: Option<u64>,
    password: Option<String>,
    servers: Vec<Server>,
}

#[derive(Debug)]
struct Server {
    address: String,
    weight: u64,
    name: Option<String>,
}

impl Server {
    /// What twemproxy's ring knows it by.
    fn identity(&self) -> &str {
        let known = self.name.as_deref().unwrap_or(&self.address);
        known.strip_suffix(":11211").filter(|_| self.name.is_none()).unwrap_or(known)
    }
}

impl Pool {
    fn listener(&self, out: &mut String) {
        let name = quoted(&self.name);
        let _ = writeln!(out, "  - name: {name}\n    bind: {}", quoted(&self.bind));
        let _ = writeln!(out, "    protocol: redis\n    cluster: {name}");
        if let Some(most) = self.client_connections {
            let _ = writeln!(out, "    limits: {{ max_connections: {most} }}");
        }
        if let Some(password) = &self.password {
            let _ = writeln!(out, "    redis: {{ password: {} }}", quoted(password));
        }
    }

    fn cluster(&self, out: &mut String) {
        let _ = writeln!(out, "  {}:\n    shards:", quoted(&self.name));
        for Server { address, weight, name } in &self.servers {
            let name =
                name.as_ref().map_or(String::new(), |name| format!("name: {}, ", quoted(name)));
            let weight = if *weight == 1 { String::new() } else { format!(", weight: {weight}") };
            let _ = writeln!(out, "      - {{ {name}primary: {}{weight} }}", quoted(address));
        }
        let tag = self.hash_tag.as_ref();
        let tag = tag.map_or(String::new(), |tag| format!(", hash_tag: {}", quoted(tag)));
        let hash = word(words::HASH, &self.hash);
        let _ = writeln!(out, "    sharding: {{ by: {}, hash: {hash}{tag} }}", self.distribution);
        if let Some(ms) = self.timeout_ms {
            let _ = writeln!(out, "    timeouts: {{ connect: {ms}ms, request: {ms}ms }}");
        }
        if let Some(password) = &self.password {
            let _ = writeln!(out, "    upstream: {{ password: {} }}", quoted(password));
        }
    }
}

fn quoted(text: &str) -> String {
    // `${` would be a variable's beginning.
    serde_json::Value::String(text.replace("${", "$${")).to_string()
}

fn pool(notes: &mut Notes<'_>, key: &file::Key, node: &Node) -> Option<Pool> {
    let path = key.name.clone();
    if !is_name(&key.name) {
        notes.error(
            &key.at,
            &path,
            "a cluster's name has 1 to 64 of A-Z a-z 0-9 _ . -; rename the pool",
        );
    }
    let Value::Map(entries) = &node.value else {
        notes.error(&key.at, &path, "a pool is a map of keys and values");
        return None;
    };
    let mut pool = Pool { name: key.name.clone(), distribution: "ketama", ..Pool::default() };
    let mut is_redis = false;
    for (key, node) in entries {
        let path = join(&path, &key.name);
        if key.name == "servers" {
            servers(notes, &mut pool, node, &path);
            continue;
        }
        let Value::Scalar(text) = &node.value else {
            notes.error(&key.at, &path, "a text or a number is expected");
            continue;
        };
        match key.name.as_str() {
            "redis" => is_redis = text == "true",
            _ => setting(notes, &mut pool, (&key.name, &key.at), (text, &node.at), &path),
        }
    }
    if !is_redis {
        notes.error(
            &key.at,
            &path,
            "it is for memcached, which is not supported yet (redis: true is not there)",
        );
    }
    if pool.bind.is_empty() {
        notes.error(&key.at, &path, "`listen` is missing");
    }
    if entries.iter().all(|(key, _)| key.name != "servers") {
        notes.error(&key.at, &path, "`servers` is missing");
    }
    if pool.hash == Hash::Crc32 && pool.distribution == "ketama" {
        let message = "crc32 of twemproxy has 15 bits: nearly all keys are in one shard";
        notes.hint(&key.at, &path, message);
    }
    // twemproxy numbers its servers so; modula and equal points depend on it.
    pool.servers.sort_by(|a, b| {
        let order = |server: &Server| (server.identity().len(), server.identity().to_owned());
        order(a).cmp(&order(b))
    });
    Some(pool)
}

/// One key of a pool but `redis` and `servers`.
fn setting(
    notes: &mut Notes<'_>,
    pool: &mut Pool,
    (name, key_at): (&str, &Span),
    (text, at): (&str, &Span),
    path: &str,
) {
    let number = |notes: &mut Notes<'_>| {
        let number = text.parse().ok();
        if number.is_none() {
            notes.error(at, path, format!("'{}' is not a number", short(text)));
        }
        number
    };
    match name {
        "listen" => {
            let (address, mode) = text.split_once(' ').unwrap_or((text, ""));
            pool.bind = if address.starts_with('/') { format!("unix:{address}") } else { address.to_owned() };
            if !mode.is_empty() {
                notes.hint(at, path, "the socket's mode is not imported");
            }
        }
        "hash" => match words::HASH.iter().find(|(word, hash)| word == &text && *hash != Hash::Xxh3) {
            Some((_, hash)) => {
                pool.hash = *hash;
            }
            None => {
                let known = words::HASH.iter().map(|(word, _)| *word);
                notes.mistaken(at, path, format!("'{}' is no hash", short(text)), nearest(text, known));
            }
        },
        "distribution" => match text {
            "ketama" => pool.distribution = "ketama",
            "modula" => pool.distribution = "modulo",
            "random" => notes.error(at, path, "random has no counterpart: a key would be anywhere"),
            _ => notes.error(at, path, format!("'{}' is no distribution", short(text))),
        },
        "hash_tag" if text.len() == 2 => pool.hash_tag = Some(text.to_owned()),
        "hash_tag" => notes.error(at, path, format!("'{}' is not two characters", short(text))),
        "timeout" => pool.timeout_ms = number(notes).filter(|ms| *ms > 0),
        "client_connections" => pool.client_connections = number(notes).filter(|most| *most > 0),
        "redis_auth" => pool.password = Some(text.to_owned()),
        "redis_db" if text != "0" => {
            notes.error(at, path, "there is no database for all clients; they say SELECT");
        }
        "auto_eject_hosts" if text == "true" => notes.hint(
            at,
            path,
            "it is not imported: keys of a dead server get an error until it is back, and are not elsewhere meanwhile",
        ),
        "server_connections" if text != "1" => {
            notes.hint(at, path, "it is not imported: each worker has one connection to a server");
        }
        "backlog" | "tcpkeepalive" | "reuseport" | "preconnect" | "redis_db" | "auto_eject_hosts"
        | "server_connections" | "server_retry_timeout" | "server_failure_limit" => {}
        _ => notes.error(key_at, path, "twemproxy has no such key"),
    }
}

fn servers(notes: &mut Notes<'_>, pool: &mut Pool, node: &Node, path: &str) {
    let Value::List(items) = &node.value else {
        notes.error(&node.at, path, "a list is expected");
        return;
    };
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Value::Scalar(text) = &item.value else {
            notes.error(&item.at, &path, "host:port:weight is expected");
            continue;
        };
        match server(text) {
            Ok(server) => pool.servers.push(server),
            Err(message) => notes.error(&item.at, &path, message),
        }
    }
}

/// `host:port:weight name` or `/path:weight name`; the name may be left out.
fn server(text: &str) -> Result<Server, String> {
    let (address, name) = match text.split_once(' ') {
        Some((address, name)) => (address, Some(name.trim().to_owned())),
        None => (text, None),
    };
    if let Some(name) = name.as_ref().filter(|name| !is_name(name)) {
        return Err(format!(
            "'{}' cannot be a shard's name, which has 1 to 64 of A-Z a-z 0-9 _ . -; with another its keys would move",
            short(name)
        ));
    }
    let wrong = || format!("'{}' is not host:port:weight", short(text));
    let (address, weight) = address.rsplit_once(':').ok_or_else(wrong)?;
    let weight: u64 = weight.parse().map_err(|_| wrong())?;
    if !(1..=1_000).contains(&weight) {
        return Err(format!("a weight is 1 to 1,000, not {weight}"));
    }
    if address.starts_with('/') {
        if name.is_none() {
            return Err(
                "a unix socket without a name has none in our ring; its keys would move".to_owned()
            );
        }
        return Ok(Server { address: format!("unix:{address}"), weight, name });
    }
    // The ring is made of the text: 07001 is another server than 7001.
    let is_plain = |text: &str| text.parse::<u16>().is_ok_and(|port| port.to_string() == text);
    if !address.rsplit_once(':').is_some_and(|(_, port)| is_plain(port)) {
        return Err(wrong());
    }
    Ok(Server { address: address.to_owned(), weight, name })
}
