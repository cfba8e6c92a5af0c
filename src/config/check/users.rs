//! `listeners[].redis.users`: who may come in at a Redis listener. Not what a user may do at run
//! time.

use super::listener::{Known, find_cluster, first};
use crate::{
    config::{
        RedisUser, Secret,
        file::{Node, short},
        keys::{self, Kind},
        nearest::nearest,
        section::{Reader, Section},
        values::{self, Wrong},
    },
    topology::Credentials,
};
use std::collections::{HashMap, HashSet};

/// All users of a listener; `password` says whether it has one of its own.
pub(super) fn users(
    reader: &mut Reader<'_, '_>,
    redis: &Section<'_>,
    clusters: &HashMap<&str, Known>,
    password: bool,
) -> Vec<RedisUser> {
    let items: Vec<(String, &Node)> = reader.items(redis, "users").collect();
    let mut users = Vec::new();
    let mut names = HashSet::new();
    for (path, node) in items {
        let Some(section) = reader.open(node, &keys::USER, &path, &first(node)) else { continue };
        let Some(user) = user(reader, &section, clusters) else { continue };
        let Some(field) = section.field("name") else { continue };
        if user.name == DEFAULT && password {
            let message = "`redis.password` is that user's; keep one of the two";
            reader.notes.error(&field.node.at, &field.path, message);
        }
        let has =
            ["password", "password_file", "passwords"].iter().any(|k| section.has_or_meant(k));
        if user.name != DEFAULT && !has {
            let message = "a user needs `password`, `password_file` or `passwords`";
            reader.notes.error(&field.key_at, &field.path, message);
        }
        if !names.insert(user.name.clone()) {
            let message = format!("there is a user '{}' already", short(&user.name));
            reader.notes.error(&field.node.at, &field.path, message);
        }
        users.push(user);
    }
    users
}

fn user(
    reader: &mut Reader<'_, '_>,
    section: &Section<'_>,
    clusters: &HashMap<&str, Known>,
) -> Option<RedisUser> {
    let name = reader.value(section, "name", |text, _| word(text));
    let mut passwords: Vec<Secret> = reader.password(section).map(Secret).into_iter().collect();
    passwords.extend(texts(reader, section, "passwords").into_iter().map(Secret));
    let cluster_of = |text: &str, _: &Kind| find_cluster(text, clusters);
    let cluster = match clusters.is_empty() {
        true => None,
        false => reader.value(section, "cluster", cluster_of),
    };
    if let (Some(cluster), Some(field)) = (cluster, section.field("cluster"))
        && !["", "shards", "sentinel"].contains(&cluster.source)
    {
        let message = format!(
            "a redis user needs a cluster with `shards`, this one has `{}`",
            cluster.source
        );
        reader.notes.error(&field.node.at, &field.path, message);
    }
    let mut allow = Vec::new();
    for (path, node) in reader.items(section, "allow") {
        allow.extend(reader.parse(node, &path, &Kind::Command, |text, _| values::command(text)));
    }
    let who = reader.section(section, "upstream");
    let upstream = section
        .has("upstream")
        .then(|| Credentials { user: reader.text(&who, "user"), password: reader.password(&who) });
    Some(RedisUser {
        passwords,
        commands: commands(reader, section, "commands"),
        deny: commands(reader, section, "deny"),
        allow,
        key_prefixes: texts(reader, section, "key_prefixes"),
        cluster: cluster.map(|cluster| cluster.index),
        upstream,
        name: name?,
    })
}

/// What AUTH may carry without quotes, and a log line too.
fn word(text: &str) -> Result<String, Wrong> {
    let fits =
        (1..=keys::MAX_NAME).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic());
    fits.then(|| text.to_owned()).ok_or_else(|| {
        Wrong::from(format!("'{}' is not a user: 1 to 64 characters without spaces", short(text)))
    })
}

fn texts(reader: &mut Reader<'_, '_>, section: &Section<'_>, name: &str) -> Vec<String> {
    let mut texts = Vec::new();
    for (path, node) in reader.items(section, name) {
        texts.extend(reader.parse(node, &path, &Kind::Text, |text, _| match text {
            "" => Err(Wrong::from("it is empty; leave it out".to_owned())),
            _ => Ok(text.to_owned()),
        }));
    }
    texts
}

fn commands(reader: &mut Reader<'_, '_>, section: &Section<'_>, name: &str) -> Vec<String> {
    let mut commands = Vec::new();
    for (path, node) in reader.items(section, name) {
        commands.extend(reader.parse(node, &path, &Kind::Text, |text, _| {
            let Some(category) = text.strip_prefix('@') else { return values::command(text) };
            let category = category.to_ascii_lowercase();
            if CATEGORIES.contains(&&*category) {
                return Ok(format!("@{}", category.to_ascii_uppercase()));
            }
            let meant = nearest(&category, CATEGORIES.iter().copied());
            let message = format!("there is no category '{}'", short(text));
            Err(Wrong::Value(message, meant.map(|meant| format!("@{meant}"))))
        }));
    }
    commands
}

const DEFAULT: &str = "default";
/// Redis's, as `ACL CAT` of 7.0 lists them.
const CATEGORIES: [&str; 22] = [
    "all",
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];
