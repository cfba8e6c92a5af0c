//! Who a client is at a listener, and what it may do there: its password, the commands, the
//! beginnings of keys, and the cluster that it reaches. Not who we are to the servers on its behalf:
//! that is `identity`.

use super::{
    args::Args,
    client::End,
    commands_entry::categories,
    dispatch::{Flow, Scene},
    flags::{flag, spec_flag},
    identity::{self, Identity, Verdict},
    keys,
    relay::Own,
    reply,
    table::Command,
};
use crate::topology::Credentials;
use std::{fmt, rc::Rc, sync::Arc};

/// A user of a listener, as the configuration has it.
#[derive(Clone, Debug)]
pub struct User {
    pub name: String,
    /// Any of them lets in; none at all, and everybody is this user from the start: only of
    /// `default`.
    pub passwords: Vec<Password>,
    /// The only commands it may run, `GET`, `CONFIG|GET` or `@READ`, upper case; empty: all.
    pub commands: Vec<String>,
    /// Commands it may not run, likewise.
    pub deny: Vec<String>,
    /// Commands it may run although they are refused by default.
    pub allow: Vec<String>,
    /// Its keys begin with one of these; empty: any key.
    pub key_prefixes: Vec<String>,
    /// Its cluster's place in the snapshot; `None`: the listener's.
    pub cluster: Option<usize>,
    /// Who we are to the servers on its behalf; `None`: as for everybody.
    pub upstream: Option<Credentials>,
}

/// A password that no message prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(set)")
    }
}

/// What a session knows of who its client is.
#[derive(Debug, Default)]
pub(super) struct Who {
    /// Somebody with rules; `None`: whoever has the listener's own password.
    pub user: Option<Arc<User>>,
    /// The name that was given.
    pub name: Vec<u8>,
    /// Keeps the connections in that name.
    pub identity: Option<Rc<Identity>>,
    /// The server is being asked whether the password is right.
    pub asked: Option<Rc<identity::Question>>,
}

/// What came of a name and a password.
pub(super) enum LogIn {
    Right,
    Wrong,
    /// Asked of a server: the request is to be looked at again.
    Later,
    /// A server's own words.
    Refused(Vec<u8>),
}

/// The user that everybody is from the start, and whether nobody need log in.
pub(super) fn at_first(settings: &super::session::Settings) -> (bool, Who) {
    let user = settings.users.iter().find(|user| user.name == DEFAULT).map(Arc::clone);
    let open = match &user {
        _ if settings.passthrough => false,
        Some(user) => user.passwords.is_empty(),
        None => settings.password.is_none() && settings.users.is_empty(),
    };
    let user = user.filter(|_| open);
    (open, Who { user, name: DEFAULT.into(), ..Who::default() })
}

/// Whether `AUTH password` makes no sense here: the default user has none.
pub(super) fn is_open(settings: &super::session::Settings) -> bool {
    at_first(settings).0
}

/// Lets a client in as `name`, when the password is right. Without any password at the listener any
/// will do, as for Redis's `nopass` user.
pub(super) fn log_in(scene: &mut Scene<'_>, name: &[u8], password: &[u8]) -> LogIn {
    // Its own connections may have to go: only where there are users can it become another one, and
    // only there AUTH is never answered aside, at EXEC, where it could not wait.
    if scene.has_users() && !scene.client.is_settled() {
        scene.client.wait_for_all();
        return LogIn::Later;
    }
    if scene.settings.passthrough {
        return match identity::ask(scene, name, password) {
            Verdict::Right(identity) => {
                enter(scene, None, name, Some(identity));
                LogIn::Right
            }
            Verdict::Later => LogIn::Later,
            Verdict::Wrong(words) => {
                rejected(scene);
                LogIn::Refused(words)
            }
        };
    }
    let user = scene.settings.users.iter().find(|user| user.name.as_bytes() == name);
    let right = match user {
        Some(user) => is_one_of(user.passwords.iter().map(|one| &*one.0), password),
        None if name != DEFAULT.as_bytes() => false,
        None => match &scene.settings.password {
            Some(expected) => is_one_of([&**expected], password),
            None => scene.settings.users.is_empty(),
        },
    };
    if !right {
        rejected(scene);
        return LogIn::Wrong;
    }
    let user = user.map(Arc::clone);
    let upstream = user.as_ref().and_then(|user| user.upstream.clone());
    let identity = match upstream {
        Some(credentials) => match scene.hub.identities.of(credentials) {
            Some(identity) => Some(identity),
            None => return LogIn::Refused(reply::TOO_MANY_USERS.to_vec()),
        },
        None => None,
    };
    enter(scene, user, name, identity);
    LogIn::Right
}

/// From here on the session is that user's.
fn enter(
    scene: &mut Scene<'_>,
    user: Option<Arc<User>>,
    name: &[u8],
    identity: Option<Rc<Identity>>,
) {
    let cluster = user.as_ref().and_then(|user| user.cluster).unwrap_or(scene.settings.cluster);
    let who = Who { user, name: name.to_vec(), identity, asked: None };
    let number = who.identity.as_ref().map_or(0, |identity| identity.number);
    let state = &mut scene.state;
    if (state.class.identity, state.cluster) != (number, cluster) {
        // What is under way is on other connections.
        state.let_go();
        if !state.tracked.is_empty() {
            // Nobody would tell it any more of the keys that it knows.
            scene.client.close_after_replies(End::TrackingLost);
        }
        state.tracked.clear();
        state.own = Own::default();
        scene.client.wait_for_all();
        scene.is_stale = true;
    }
    state.class.identity = number;
    state.cluster = cluster;
    state.authenticated = true;
    state.who = who;
}

/// The session is whose it was at first.
pub(super) fn leave(scene: &mut Scene<'_>) {
    let (open, who) = at_first(scene.settings);
    let cluster = who.user.as_ref().and_then(|user| user.cluster);
    let cluster = cluster.unwrap_or(scene.settings.cluster);
    scene.is_stale |= scene.state.cluster != cluster;
    scene.state.cluster = cluster;
    (scene.state.authenticated, scene.state.who) = (open, who);
}

fn rejected(scene: &Scene<'_>) {
    if let Some(metrics) = scene.hub.metrics.listeners.get(scene.settings.listener) {
        metrics.rejected_auth.add(1);
    }
}

/// All are looked at, so that the time tells nothing.
fn is_one_of<'p>(passwords: impl IntoIterator<Item = &'p str>, given: &[u8]) -> bool {
    let mut passwords = passwords.into_iter().peekable();
    if passwords.peek().is_none() {
        return true;
    }
    passwords.fold(false, |found, one| found | equal_in_constant_time(one.as_bytes(), given))
}

fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

impl User {
    /// Why it may not run that command on those keys, in Redis's words.
    pub(super) fn refuses(&self, command: &Command, args: Args<'_>) -> Option<Vec<u8>> {
        if command.flags & flag::NO_AUTH != 0 {
            return None;
        }
        let mut text = Vec::new();
        if !self.may_run(command) {
            reply::may_not_run(&mut text, command.name);
        } else if !self.may_touch(command, args) {
            text.extend_from_slice(reply::MAY_NOT_TOUCH);
        } else {
            return None;
        }
        Some(text)
    }

    /// [`Self::refuses`] for a command that is in no table: nobody knows its keys.
    pub(super) fn refuses_unknown(&self, name: &[u8]) -> bool {
        let named =
            |list: &[String]| list.iter().any(|word| word.as_bytes().eq_ignore_ascii_case(name));
        !self.key_prefixes.is_empty()
            || !(self.commands.is_empty() || named(&self.commands))
            || named(&self.deny)
    }

    fn may_run(&self, command: &Command) -> bool {
        let container = command.name.split('|').next().unwrap_or(command.name);
        let is_in = |list: &[String]| {
            list.iter().any(|word| match word.strip_prefix('@') {
                Some("ALL") => true,
                Some(category) => {
                    categories(command).iter().any(|one| one.eq_ignore_ascii_case(category))
                }
                None => word == command.name || word == container,
            })
        };
        (self.commands.is_empty() || is_in(&self.commands)) && !is_in(&self.deny)
    }

    fn may_touch(&self, command: &Command, args: Args<'_>) -> bool {
        // Channels are no keys.
        let channels = command.specs.iter().any(|spec| spec.flags & spec_flag::NOT_KEY != 0);
        if self.key_prefixes.is_empty() || channels {
            return true;
        }
        let own =
            |key: &[u8]| self.key_prefixes.iter().any(|prefix| key.starts_with(prefix.as_bytes()));
        // Where keys are not what they must be, the server does nothing.
        let found = keys::keys(command, args).unwrap_or_default();
        let patterns = keys::pattern_keys(command, args)
            .map(|pattern| pattern.split(|byte| *byte == b'*').next().unwrap_or_default());
        found.filter_map(|at| args.get(at)).chain(patterns).all(own)
    }
}

impl Scene<'_> {
    /// Why the user may not run that command.
    pub(super) fn refusal(&self, command: &Command, args: Args<'_>) -> Option<Vec<u8>> {
        self.state.who.user.as_ref()?.refuses(command, args)
    }

    /// Whether who logs in may change what is done with requests.
    pub(super) fn has_users(&self) -> bool {
        self.settings.passthrough || !self.settings.users.is_empty()
    }

    /// Whether the user may not run that command, which is then answered.
    pub(super) fn is_refused(&self, command: &Command, args: Args<'_>) -> Option<Flow> {
        let text = self.refusal(command, args)?;
        self.reply(&text);
        Some(Flow::Continue)
    }
}

const DEFAULT: &str = "default";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::redis::{table::Commands, testing::Request};

    fn user(commands: &[&str], deny: &[&str], prefixes: &[&str]) -> User {
        let list = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        User {
            name: "u".into(),
            passwords: vec![Password("secret".into())],
            commands: list(commands),
            deny: list(deny),
            allow: Vec::new(),
            key_prefixes: list(prefixes),
            cluster: None,
            upstream: None,
        }
    }

    fn heard(user: &User, line: &str) -> &'static str {
        let commands = Commands::builtin();
        let request = Request::new(line.split(' '));
        let command = commands.find(request.args()).unwrap();
        match user.refuses(command, request.args()) {
            None => "ok",
            Some(text) if text == reply::MAY_NOT_TOUCH => "keys",
            Some(_) => "command",
        }
    }

    #[test]
    fn users_run_what_they_may_on_keys_that_are_theirs() {
        let reader = user(&["@READ", "SET", "CONFIG|GET"], &["KEYS"], &["app:", "{app}"]);
        for (line, wanted) in [
            ("GET app:1", "ok"),
            ("get other", "keys"),
            ("MGET app:1 {app}2", "ok"),
            ("MGET app:1 b", "keys"),
            ("SET app:1 v", "ok"),
            ("DEL app:1", "command"),
            ("KEYS *", "command"),
            ("CONFIG GET x", "ok"),
            ("CONFIG SET x y", "command"),
            ("AUTH x", "ok"),
            ("HELLO 2", "ok"),
            ("SORT_RO app:l BY app:w_* GET #", "ok"),
            ("SORT_RO app:l BY w_*", "keys"),
            ("XREAD STREAMS app:x other 0 0", "keys"),
            ("EVAL_RO x 1 other", "command"),
        ] {
            assert_eq!(heard(&reader, line), wanted, "{line}");
        }
        let all = user(&[], &["@DANGEROUS", "CLIENT"], &[]);
        for (line, wanted) in [
            ("SET a b", "ok"),
            ("FLUSHALL", "command"),
            ("CLIENT ID", "command"),
            ("EVAL x 0", "ok"),
        ] {
            assert_eq!(heard(&all, line), wanted, "{line}");
        }
        assert!(reader.refuses_unknown(b"nonsense") && !all.refuses_unknown(b"nonsense"));
    }

    #[test]
    fn no_password_is_printed() {
        assert!(!format!("{:?}", user(&[], &[], &[])).contains("secret"));
    }
}
