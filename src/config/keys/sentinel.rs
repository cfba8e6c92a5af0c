//! The table of the keys of `sentinel`. Not of what the servers are told: see `cluster`.

use super::{Kind, MAX_SHARDS, Scope, key, tls};

/// The most Sentinels; there are three or five.
const MAX_SENTINELS: usize = 32;

pub(in crate::config) static SENTINEL: Scope = Scope {
    required: &[&["addresses"], &["masters"]],
    keys: &[
        key(
            "addresses",
            Kind::List(&Kind::Address, MAX_SENTINELS),
            "",
            "The Sentinels, all of which are asked; any one of them is enough.",
        ),
        key(
            "masters",
            Kind::List(&Kind::Name, MAX_SHARDS),
            "",
            "What the Sentinels call the masters; each is a shard of that name, in this order.",
        ),
        key(
            "user",
            Kind::Text,
            "",
            "The ACL user of the Sentinels; when not given, the default user.",
        ),
        key(
            "password",
            Kind::Secret,
            "",
            "The Sentinels' own password; upstream has the servers'.",
        ),
        key("password_file", Kind::Path, "", "A file that holds the password."),
        key(
            "tls",
            Kind::Map(&tls::UPSTREAM),
            "",
            "Speak TLS to the Sentinels; {} believes the authorities that this machine trusts.",
        ),
    ],
};
