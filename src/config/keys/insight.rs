//! The table of the keys of `redis.slowlog`. Not what is kept there.

use super::{MINUTE, Scope, key, up_to, whole};

pub(in crate::config) static SLOWLOG: Scope = Scope {
    required: &[],
    keys: &[
        key("threshold", up_to(MINUTE), "10ms", "A request that takes so long is kept; 0: none."),
        key("entries", whole(1, 100_000), "128", "How many are kept; the oldest go."),
    ],
};
