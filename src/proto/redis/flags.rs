//! The words of `COMMAND` as bits: flags, ACL categories, and what is done to keys. Their meaning is
//! the server's; three flags are ours.

/// What the server's `COMMAND` calls flags, as bits.
pub mod flag {
    pub const WRITE: u32 = 1;
    pub const READONLY: u32 = 1 << 1;
    pub const DENYOOM: u32 = 1 << 2;
    pub const ADMIN: u32 = 1 << 3;
    pub const PUBSUB: u32 = 1 << 4;
    pub const NOSCRIPT: u32 = 1 << 5;
    pub const BLOCKING: u32 = 1 << 6;
    pub const LOADING: u32 = 1 << 7;
    pub const STALE: u32 = 1 << 8;
    pub const SKIP_MONITOR: u32 = 1 << 9;
    pub const SKIP_SLOWLOG: u32 = 1 << 10;
    pub const ASKING: u32 = 1 << 11;
    pub const FAST: u32 = 1 << 12;
    pub const NO_AUTH: u32 = 1 << 13;
    pub const NO_MANDATORY_KEYS: u32 = 1 << 14;
    pub const NO_ASYNC_LOADING: u32 = 1 << 15;
    pub const NO_MULTI: u32 = 1 << 16;
    pub const ALLOW_BUSY: u32 = 1 << 17;
    /// Ours: it has a form, its name with `_RO`, that a replica takes, for arguments that only read.
    pub const HAS_RO: u32 = 1 << 29;
    /// Ours: a read only the primary may answer.
    pub const AT_PRIMARY: u32 = 1 << 30;
    /// Ours: it blocks although the server's flags do not say so (WAIT).
    pub const WAITS: u32 = 1 << 31;

    /// The server's words, by bit from 0.
    pub const NAMES: [&str; 18] = [
        "write",
        "readonly",
        "denyoom",
        "admin",
        "pubsub",
        "noscript",
        "blocking",
        "loading",
        "stale",
        "skip_monitor",
        "skip_slowlog",
        "asking",
        "fast",
        "no_auth",
        "no_mandatory_keys",
        "no_async_loading",
        "no_multi",
        "allow_busy",
    ];
}

/// ACL categories that are stated, not derived from the flags, as bits.
pub mod group {
    pub const KEYSPACE: u32 = 1;
    pub const SET: u32 = 1 << 1;
    pub const SORTEDSET: u32 = 1 << 2;
    pub const LIST: u32 = 1 << 3;
    pub const HASH: u32 = 1 << 4;
    pub const STRING: u32 = 1 << 5;
    pub const BITMAP: u32 = 1 << 6;
    pub const HYPERLOGLOG: u32 = 1 << 7;
    pub const GEO: u32 = 1 << 8;
    pub const STREAM: u32 = 1 << 9;
    pub const CONNECTION: u32 = 1 << 10;
    pub const TRANSACTION: u32 = 1 << 11;
    pub const SCRIPTING: u32 = 1 << 12;
    pub const DANGEROUS: u32 = 1 << 13;
    pub const ADMIN: u32 = 1 << 14;
    /// From 8.8 on.
    pub const ARRAY: u32 = 1 << 15;

    /// The server's words, by bit from 0.
    pub const NAMES: [&str; 16] = [
        "keyspace",
        "set",
        "sortedset",
        "list",
        "hash",
        "string",
        "bitmap",
        "hyperloglog",
        "geo",
        "stream",
        "connection",
        "transaction",
        "scripting",
        "dangerous",
        "admin",
        "array",
    ];
}

/// What is done to the keys of a specification, as bits.
pub mod spec_flag {
    pub const RO: u16 = 1;
    pub const RW: u16 = 1 << 1;
    pub const OW: u16 = 1 << 2;
    pub const RM: u16 = 1 << 3;
    pub const ACCESS: u16 = 1 << 4;
    pub const UPDATE: u16 = 1 << 5;
    pub const INSERT: u16 = 1 << 6;
    pub const DELETE: u16 = 1 << 7;
    pub const NOT_KEY: u16 = 1 << 8;
    pub const INCOMPLETE: u16 = 1 << 9;
    pub const VARIABLE: u16 = 1 << 10;

    /// The server's words, by bit from 0.
    pub const NAMES: [&str; 11] = [
        "RO",
        "RW",
        "OW",
        "RM",
        "access",
        "update",
        "insert",
        "delete",
        "not_key",
        "incomplete",
        "variable_flags",
    ];
}

/// The words of `bits`, in the order of their bits.
pub(super) fn words(names: &[&'static str], bits: u32) -> Vec<&'static str> {
    names.iter().zip(0..).filter(|&(_, bit)| bits & 1 << bit != 0).map(|(name, _)| *name).collect()
}

/// The bits of those words; unknown ones have none.
pub(super) fn bits(names: &[&str], words: &[&str]) -> u32 {
    names
        .iter()
        .zip(0..)
        .filter(|(name, _)| words.contains(name))
        .fold(0, |bits, (_, bit)| bits | 1 << bit)
}
