//! What requests get while nobody of their shard can take them. Not who does again: that is
//! control's to find out.

use std::time::Duration;

/// What a cluster's requests get while nobody of their shard can take them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// How long what needs a primary waits for a shard's next one; default 3s, zero: not at all.
    pub wait: Duration,
    /// How many clients of the process wait for that at a time; default 4,096.
    pub queue: u32,
}

impl Default for Outage {
    fn default() -> Self {
        Self { wait: Duration::from_secs(3), queue: 4096 }
    }
}

impl Outage {
    /// A shard without a primary for longer than this has no failover under way: nobody waits for it
    /// any more.
    pub const fn longest(&self) -> Duration {
        self.wait.saturating_mul(10)
    }
}
