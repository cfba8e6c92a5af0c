//! CLIENT REPLY: which replies a client wants to hear. Not how those are dropped that it does not:
//! that is [`super::line`]'s.

use super::{
    args::Args,
    dispatch::{Flow, Scene},
    reply,
};

/// What a client hears; pushes it hears always (redis.md, T12).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Replies {
    #[default]
    On,
    Off,
    /// Everything but the reply to the next request.
    SkipNext,
    /// Everything but the reply to this request.
    Skip,
}

impl Scene<'_> {
    /// `CLIENT REPLY ON | OFF | SKIP`
    pub(super) fn client_reply(&mut self, args: Args<'_>) -> Flow {
        if args.is(2, "ON") {
            self.hear(Replies::On);
            self.reply(reply::OK);
        } else if args.is(2, "OFF") {
            self.hear(Replies::Off);
        } else if !args.is(2, "SKIP") {
            self.reply(reply::SYNTAX);
        } else if self.state.replies != Replies::Off {
            self.hear(Replies::SkipNext);
        }
        Flow::Continue
    }

    /// A request is over, as far as the client's say in its reply goes.
    pub(super) fn request_is_over(&mut self) {
        match self.state.replies {
            Replies::On | Replies::Off => {}
            Replies::SkipNext => self.hear(Replies::Skip),
            Replies::Skip => self.hear(Replies::On),
        }
    }

    /// Runs what is answered by pushes.
    pub(super) fn aloud(&mut self, run: impl FnOnce(&mut Self) -> Flow) -> Flow {
        self.client.mute(false);
        let flow = run(self);
        self.hear(self.state.replies);
        flow
    }

    /// From the next reply on.
    pub(super) fn hear(&mut self, replies: Replies) {
        self.state.replies = replies;
        self.client.mute(matches!(replies, Replies::Off | Replies::Skip));
    }
}
