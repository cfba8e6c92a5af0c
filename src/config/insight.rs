//! What a cluster says of Redis requests beside where they go. Not how it is read: that is
//! `check::insight`.

use std::time::Duration;

/// What a cluster says of Redis requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedisCluster {
    /// A request that takes so long is in the slow log; default 10ms, zero: none.
    pub slow: Duration,
    /// Requests that the slow log keeps; default 128.
    pub slow_entries: usize,
    /// Bytes of a request or reply that counts as big; default 1 MiB, at least 64 KiB.
    pub big: u64,
    /// Whether keys and values are told to nobody; default false.
    pub redact: bool,
    /// Whether equal GETs under way are asked once; default false.
    pub coalesce: bool,
}

impl Default for RedisCluster {
    fn default() -> Self {
        Self {
            slow: Duration::from_millis(10),
            slow_entries: 128,
            big: 1 << 20,
            redact: false,
            coalesce: false,
        }
    }
}
