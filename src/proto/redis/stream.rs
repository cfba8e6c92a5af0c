//! MONITOR, SYNC and PSYNC where clients share connections: a session that is to hear a stream has a
//! connection of its own from there to its end, over which all passes as it is. Not the passing: that
//! is [`super::relay`].

use super::{
    args::Args,
    dispatch::{Flow, Scene},
    reply,
    table::Command,
};

impl Scene<'_> {
    /// Does so, in front of one shard, for who may do everything.
    pub(super) fn become_stream(&mut self, command: &Command, args: Args<'_>) -> Flow {
        let open = !self.has_users() && self.settings.routes.is_empty();
        if self.cluster.shards.len() > 1 || !open || self.state.class.identity != 0 {
            return self.say(|out| reply::not_yet(out, command.name));
        }
        if !self.client.is_settled() {
            self.client.wait_for_all();
            return Flow::Hold;
        }
        self.state.let_go();
        self.relay(args)
    }
}

/// Commands that turn a connection into a stream.
pub(super) const STREAMS: &[&str] = &["MONITOR", "SYNC", "PSYNC", "REPLCONF"];
