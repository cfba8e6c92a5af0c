//! What a shared connection to a node of a Redis Cluster is for: a replica answers reads by itself on
//! those alone that were told so, and one that was a primary in between must not go on to, for who
//! has just been its client would read what is old.

use crate::proto::redis::{
    hub::Hub,
    upstream::{Purpose, Upstream},
};

impl Upstream {
    /// Whether the server was told of the part that it plays now.
    pub(in crate::proto::redis) fn knows_role(&self) -> bool {
        !self.follows || self.reads_only.get() == self.backend.gate().replica()
    }

    /// Tells the server when its part is another one than it was told.
    pub(in crate::proto::redis) fn follow_role(&self, hub: &Hub) {
        let gate = self.backend.gate();
        let (primary, replica) = (gate.primary(), gate.replica());
        let is_open = self.follows && self.purpose == Purpose::Shared && self.connected().is_some();
        if !is_open || primary == replica || self.reads_only.get() == replica {
            return;
        }
        self.reads_only.set(replica);
        let request: &[u8] =
            if replica { b"*1\r\n$8\r\nREADONLY\r\n" } else { b"*1\r\n$9\r\nREADWRITE\r\n" };
        self.send_unheard(hub, request);
    }
}
