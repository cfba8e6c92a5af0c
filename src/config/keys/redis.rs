//! The tables of what only Redis listeners and clusters have. Not of users: see `users`.

use super::{
    GIB, HOUR, KIB, Kind, MAX_COMMANDS, Scope, TIB, USER, choice, insight, key, later, up_to, whole,
};
use crate::config::words;

pub(in crate::config) static LISTENER_REDIS: Scope = Scope {
    required: &[],
    keys: &[
        key("password", Kind::Secret, "", "What clients must send with AUTH or HELLO."),
        key("password_file", Kind::Path, "", "A file that holds the password."),
        key("max_pipeline", whole(1, 1_000_000), "1024", "Requests of one client in flight."),
        key(
            "max_bulk",
            Kind::Size { min: KIB, max: GIB, auto: false },
            "512MiB",
            "The largest argument.",
        ),
        key(
            "client_output_limit",
            Kind::Size { min: 64 * KIB, max: TIB, auto: false },
            "32MiB",
            "Bytes a client may leave unread before it is closed.",
        ),
        key(
            "allow",
            Kind::List(&Kind::Command, MAX_COMMANDS),
            "",
            "Commands allowed in spite of being refused by default: DEBUG, \"CONFIG|SET\".",
        ),
        key("deny", Kind::List(&Kind::Command, MAX_COMMANDS), "", "Commands refused, likewise."),
        key(
            "keys_max",
            whole(1, 1_000_000_000),
            "1000000",
            "The most keys that KEYS tells of several shards; over it, an error.",
        ),
        key(
            "slow_client_grace",
            up_to(HOUR),
            "1s",
            "How long others wait behind the reply to a client that does not read it, before it is closed.",
        ),
        key(
            "split_writes",
            Kind::Switch,
            "true",
            "Whether MSET, DEL and UNLINK over several shards are split; false: CROSSSLOT.",
        ),
        key(
            "mget_partial",
            choice(words::MGET_WORDS),
            "fail",
            "What MGET answers when a shard fails; embed: its error in the place of each of its keys.",
        ),
        key(
            "users",
            Kind::List(&Kind::Map(&USER), super::users::MAX_USERS),
            "",
            "Who may come in, and what each may do.",
        ),
        key(
            "auth",
            choice(words::AUTH_WORDS),
            "listener",
            "passthrough: the backends say who may come in, and each client is to them who it says it is.",
        ),
        key(
            "multi",
            choice(words::MULTI_WORDS),
            "buffered",
            "Transactions are kept until EXEC and sent in one piece; pinned: each has a connection of its own, and errors while queueing come at once.",
        ),
        later("cross_shard_multi"),
        key("multi_max_commands", whole(1, 100_000_000), "1000000", "Requests in one transaction."),
        key(
            "multi_max_bytes",
            Kind::Size { min: KIB, max: TIB, auto: false },
            "1GiB",
            "Bytes of the requests in one transaction.",
        ),
        key(
            "strict_order",
            Kind::Switch,
            "false",
            "A request for another shard waits until the shard before it has replied.",
        ),
        later("cluster_spoof"),
        later("keyless_shard"),
        later("script_shebang_reads"),
    ],
};

pub(in crate::config) static CLUSTER_REDIS: Scope = Scope {
    required: &[],
    keys: &[
        key(
            "commands",
            Kind::Named(&COMMAND),
            "",
            "Commands that we do not know or should see otherwise.",
        ),
        key("slowlog", Kind::Map(&insight::SLOWLOG), "", "Which requests SLOWLOG tells of."),
        key(
            "big",
            Kind::Size { min: 64 * KIB, max: TIB, auto: false },
            "1MiB",
            "A request or reply of so many bytes is counted by its command and told in the log.",
        ),
        key(
            "redact",
            Kind::Switch,
            "false",
            "Keys and values are left out of SLOWLOG, SLUICE HOTKEYS, the status page and the log.",
        ),
        key(
            "keyless_shard",
            Kind::Name,
            "",
            "The shard that runs scripts and takes other requests without a key; when not given, the first.",
        ),
        key(
            "script_shebang_reads",
            Kind::Switch,
            "false",
            "Scripts that begin with `#!lua flags=no-writes` are reads.",
        ),
    ],
};

/// One of a command's key positions.
pub(in crate::config) static POSITION: Kind = whole(-1_000_000, 1_000_000);

pub(in crate::config) static COMMAND: Scope = Scope {
    required: &[&["access"]],
    keys: &[
        key("access", choice(words::ACCESS_WORDS), "", "read or write."),
        key(
            "keys",
            Kind::List(&POSITION, 3),
            "",
            "First key, last key (negative: from the end), step; when not given, no keys.",
        ),
    ],
};
