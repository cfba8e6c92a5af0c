//! The table of the keys of a Redis listener's users. Not the rules over several of them: see
//! `check`.

use super::{Kind, MAX_COMMANDS, Scope, key};

/// The most users of a listener.
pub(in crate::config) const MAX_USERS: usize = 1_024;
/// The most passwords of a user, and beginnings of its keys.
const MAX_OF_ONE: usize = 64;

pub(in crate::config) static USER: Scope = Scope {
    required: &[&["name"]],
    keys: &[
        key(
            "name",
            Kind::Text,
            "",
            "What the client says in AUTH; default: whoever says only a password.",
        ),
        key("password", Kind::Secret, "", "What the client must send with it."),
        key("password_file", Kind::Path, "", "A file that holds the password."),
        key(
            "passwords",
            Kind::List(&Kind::Secret, MAX_OF_ONE),
            "",
            "Further passwords, any of which will do: an old and a new one.",
        ),
        key(
            "commands",
            Kind::List(&Kind::Text, MAX_COMMANDS),
            "",
            "The only commands it may run: GET, \"CONFIG|GET\", \"@read\"; when not given, all.",
        ),
        key(
            "deny",
            Kind::List(&Kind::Text, MAX_COMMANDS),
            "",
            "Commands it may not run, likewise.",
        ),
        key(
            "allow",
            Kind::List(&Kind::Command, MAX_COMMANDS),
            "",
            "Commands allowed to it in spite of being refused by default.",
        ),
        key(
            "key_prefixes",
            Kind::List(&Kind::Text, MAX_OF_ONE),
            "",
            "All its keys begin with one of these; when not given, any key.",
        ),
        key("cluster", Kind::Cluster, "", "Its cluster; when not given, the listener's."),
        key("upstream", Kind::Map(&WHO), "", "Who we are to the backends on its behalf."),
    ],
};

pub(in crate::config) static WHO: Scope = Scope {
    required: &[&["password", "password_file"]],
    keys: &[
        key("user", Kind::Text, "", "The ACL user; when not given, the default user."),
        key("password", Kind::Secret, "", "The password we send."),
        key("password_file", Kind::Path, "", "A file that holds the password."),
    ],
};
