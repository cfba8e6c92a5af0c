//! What is done with a command at a listener, which may refuse what is usual and allow what is not. Not
//! what a user may do: that is [`super::users`].

use super::{
    args::Args,
    dispatch::Scene,
    keys, options,
    session::Settings,
    stream::STREAMS,
    table::{Command, FanOut, Kind},
    users::User,
};

impl Scene<'_> {
    /// What is done with a command here: the listener may allow and deny.
    #[inline(always)]
    pub(super) fn kind_of(&self, command: &Command, args: Args<'_>) -> Kind {
        kind_of(self.settings, self.state.who.user.as_deref(), command, args)
    }
}

/// What is done with a command at a listener, for one of its users or whoever has its password.
#[inline(always)]
pub(super) fn kind_of(
    settings: &Settings,
    user: Option<&User>,
    command: &Command,
    args: Args<'_>,
) -> Kind {
    if !settings.deny.is_empty() && named(&settings.deny, command.name) {
        return Kind::Disabled;
    }
    let is_allowed = !settings.allow.is_empty() && named(&settings.allow, command.name)
        || user.is_some_and(|user| named(&user.allow, command.name));
    if is_allowed { allowed(command, args) } else { command.kind }
}

/// What an allowed command becomes.
fn allowed(command: &Command, args: Args<'_>) -> Kind {
    match command.kind {
        // A shared connection cannot become a stream: the session gets one of its own.
        Kind::Disabled if STREAMS.contains(&command.name) => Kind::NotYet,
        // Each has a part of the answer, or of what is to be done.
        Kind::Disabled if command.name.starts_with("CONFIG|") => Kind::FanOut(FanOut::AllOk),
        Kind::Disabled if command.name == "DEBUG" && options::is(args, 1, "DIGEST") => {
            Kind::FanOut(FanOut::Xor)
        }
        Kind::Disabled if keys::keys(command, args).is_ok_and(|keys| keys.is_empty()) => {
            Kind::FanOut(FanOut::First)
        }
        Kind::Disabled => Kind::Keyed,
        other => other,
    }
}

/// Whether a list names a command: whole, by its container, or by its subcommand.
pub(super) fn named(list: &[String], name: &str) -> bool {
    let container = name.split('|').next().unwrap_or(name);
    list.iter().any(|word| word == name || word == container)
}
