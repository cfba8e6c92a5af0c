//! How the users of a Redis listener are printed: as they would be written, without passwords.

use super::{Entries, Out, SET};
use crate::config::{Config, RedisUser, keys};

/// All users.
pub(super) fn users(config: &Config, users: &[RedisUser], defaults: bool) -> Vec<Out> {
    users.iter().map(|one| user(config, one, defaults)).collect()
}

fn user(config: &Config, user: &RedisUser, defaults: bool) -> Out {
    let cluster = user.cluster.and_then(|index| config.clusters.get(index));
    let mut entries = Entries::new(&keys::USER, defaults);
    let more: Vec<String> = user.passwords.iter().skip(1).map(|_| SET.to_owned()).collect();
    entries
        .optional("name", Some(&*user.name))
        .optional("password", user.passwords.first().map(|_| SET))
        .row("passwords", &more)
        .row("commands", &user.commands)
        .row("deny", &user.deny)
        .row("allow", &user.allow)
        .row("key_prefixes", &user.key_prefixes)
        .optional("cluster", cluster.map(|cluster| &*cluster.name));
    if let Some(upstream) = &user.upstream {
        let mut who = Entries::new(&keys::WHO, defaults);
        who.optional("user", upstream.user.as_deref())
            .optional("password", upstream.password.as_ref().map(|_| SET));
        entries.map("upstream", who);
    }
    Out::Map(entries.list)
}
