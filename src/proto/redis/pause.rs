//! CLIENT PAUSE: all clients of the process wait with their requests, or with those that may write.
//! Not the waiting itself: that is `client`'s.

use super::{
    args::Args,
    dispatch::{Flow, Scene},
    flags::flag,
    hub::Hub,
    peers::Question,
    reply, scripts,
    table::{Command, Kind, Step},
};

/// What waits, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pause {
    ms: u64,
    /// Reads too.
    all: bool,
}

/// A worker's own, with the end on its own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Paused {
    pub(super) until_us: u64,
    pub(super) all: bool,
}

impl Scene<'_> {
    /// Whether a request must wait: the client is woken when it need no more. Clients whose requests
    /// go on as they are wait in their server, when that was told to pause.
    pub(super) fn must_pause(&self, command: &Command, args: Args<'_>) -> bool {
        let Some(paused) = self.hub.paused.get() else { return false };
        if self.relays() {
            return false;
        }
        let waits = paused.all
            || match self.state.transaction.as_deref() {
                Some(open) => {
                    let writes = |name: &Vec<u8>| !self.writes_nothing(name);
                    command.kind == Kind::Transaction(Step::Exec)
                        && (open.writes() || open.functions.iter().any(writes))
                }
                None => self.may_write(command, args),
            };
        if waits {
            self.client.pause(self.hub);
        }
        waits
    }

    /// Whether a request is held while writes are paused; a script or function is not that says it writes
    /// nothing.
    pub(super) fn may_write(&self, command: &Command, args: Args<'_>) -> bool {
        command.flags & flag::WRITE != 0
            || MAY_REPLICATE.contains(&command.name) && !scripts::is_read_only(self, command, args)
    }

    /// `CLIENT PAUSE timeout [WRITE | ALL]`
    pub(super) fn client_pause(&mut self, args: Args<'_>) -> Flow {
        let all = match args.get(3) {
            None => true,
            Some(_) if args.len() > 4 => {
                return self.say(|out| reply::wrong_subcommand(out, args));
            }
            Some(word) if word.eq_ignore_ascii_case(b"ALL") => true,
            Some(word) if word.eq_ignore_ascii_case(b"WRITE") => false,
            Some(_) => {
                self.reply(reply::PAUSE_MODE);
                return Flow::Continue;
            }
        };
        let ms = args.number(2);
        let ms = match ms.map(u64::try_from) {
            Some(Ok(ms)) => ms,
            Some(Err(_)) => {
                self.reply(reply::TIMEOUT_NEGATIVE);
                return Flow::Continue;
            }
            None => {
                self.reply(reply::TIMEOUT_NOT_INTEGER);
                return Flow::Continue;
            }
        };
        self.ask_workers(&Question::Pause(Pause { ms, all }), |_| reply::OK.to_vec())
    }

    /// `CLIENT UNPAUSE`
    pub(super) fn client_unpause(&mut self) -> Flow {
        self.ask_workers(&Question::Unpause, |_| reply::OK.to_vec())
    }
}

/// Redis's `pauseClients`: of two, the later end and the stricter kind hold.
pub(super) fn pause(hub: &Hub, pause: Pause) {
    let until_us = hub.now_us().saturating_add(pause.ms.saturating_mul(1000));
    let before = hub.paused.get();
    let until_us = before.map_or(until_us, |before| before.until_us.max(until_us));
    let all = pause.all || before.is_some_and(|before| before.all);
    hub.paused.set(Some(Paused { until_us, all }));
    hub.scripts.functions.forget();
}

/// Ends a pause whose time is over; called some twenty times a second.
pub(super) fn tick(hub: &Hub, now_us: u64) {
    if hub.paused.get().is_some_and(|paused| paused.until_us <= now_us) {
        unpause(hub);
    }
}

/// Everybody goes on.
pub(super) fn unpause(hub: &Hub) {
    if hub.paused.take().is_some() {
        hub.scripts.functions.forget();
        hub.clients().iter().for_each(|client| client.go_on(hub));
    }
}

/// Redis's flag `may_replicate`, which its COMMAND does not tell.
const MAY_REPLICATE: &[&str] = &["EVAL", "EVALSHA", "FCALL", "PFCOUNT", "PUBLISH", "SPUBLISH"];
