//! The command table: what every command is, where its keys are, and what is done with it.
//! It looks commands up; it does not route, forward or answer them.
//!
//! The built-in rows are in `table_data`. A cluster adds its own: what the operator wrote
//! under `redis.commands` ([`Commands::with_custom`]), then what a backend's `COMMAND` knows and we
//! do not ([`Commands::learn`]).

use super::{
    args::Args,
    audience::Subject,
    flags::{flag, group},
    keys::Keys,
    names, options,
    perfect::{Perfect, same_folded},
    spec::Spec,
    table_data,
};
use crate::policy::access::Access;
use std::{borrow::Cow, collections::HashMap};

/// One command, or one subcommand of a container.
#[derive(Clone, Debug)]
pub struct Command {
    /// Upper case, `CONFIG|GET` for a subcommand.
    pub name: &'static str,
    /// As Redis counts: arguments with the name (and the subcommand's); negative means at least.
    pub arity: i16,
    pub access: Access,
    /// A read that a replica may answer. False for writes, and for reads whose answer belongs to
    /// one node: LRU data, cursors (redis.md T15, T17).
    pub replica_ok: bool,
    /// It may wait in the server; [`Command::blocks`] says whether these arguments do.
    pub blocking: bool,
    pub keys: Keys,
    pub kind: Kind,
    /// Place in the table, dense from 0: the index of per-command metrics.
    pub index: u16,
    /// Learnt from a server, and without keys: over several shards nobody told what it means, so
    /// there it is refused like an unknown command.
    pub one_shard_only: bool,
    /// Bits of [`super::flags::flag`].
    pub flags: u32,
    /// Bits of [`super::flags::group`]: the ACL categories that do not follow from the flags.
    pub groups: u32,
    /// Redis 7's key specifications, of which [`Command::keys`] is the short form.
    pub specs: Cow<'static, [Spec]>,
    /// Hints to cluster clients, as the server words them.
    pub tips: &'static [&'static str],
    /// The name without its container's: what a request's argument is compared with.
    word: &'static str,
    /// Whether that is letters and nothing else: then it need not be compared byte by byte.
    letters: bool,
    /// Its container's index + 1; 0 for a command that is no subcommand.
    scope: u16,
    /// Whether others are its subcommands.
    container: bool,
}

/// What is done with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Forwarded to the shard of its keys, which must be one (else CROSSSLOT). Without keys: a
    /// read may go to any shard, a write goes to the first.
    Keyed,
    /// Forwarded in parts, by shard, when its keys are in several.
    Split(Merge),
    /// Answered by us.
    Local(Local),
    /// Needs a connection of the session's own from here on.
    Watch,
    /// Begins or ends a transaction.
    Transaction(Step),
    /// Publishing and subscribing: `subscribe`.
    PubSub(PubSub),
    /// Asked of the primary of every shard (one after the other for `SCAN`, one for `RANDOMKEY`).
    FanOut(FanOut),
    /// Runs a script or function, or looks after them.
    Script(Script),
    /// WAIT, WAITAOF: asked of every shard that was written to, on connections of its own.
    Wait,
    /// Only its subcommands mean anything, and there was none or none that we know.
    Container,
    /// Ours to do in a later version.
    NotYet,
    /// Refused unless `redis.allow` names it: it would turn a shared connection into a stream, or
    /// destroy data (redis.md T48).
    Disabled,
    /// `POST` or `Host:`: a browser was made to send HTTP here. Close without an answer (T30).
    CrossProtocol,
}

/// How the replies to the parts of one request become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// MGET: the elements, each in its key's place.
    InOrder,
    /// MSET: `+OK` when all are.
    AllOk,
    /// DEL, UNLINK, EXISTS, TOUCH: the integers added up.
    Sum,
}

/// The commands of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Multi,
    Exec,
    Discard,
}

/// How the shards' answers become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FanOut {
    /// DBSIZE.
    Sum,
    /// FLUSHALL, FLUSHDB.
    AllOk,
    /// KEYS.
    Concat,
    /// LASTSAVE: the oldest.
    Min,
    /// RANDOMKEY: one shard by chance, the next when it is empty.
    RandomKey,
    /// SCAN: the cursor names the shard.
    Scan,
    /// MEMORY DOCTOR and its like: texts, one below the other.
    Texts,
    /// MEMORY STATS and its like: by names, what can be added up is.
    Tree(Tree),
    /// DEBUG DIGEST: exclusive or.
    Xor,
    /// Allowed administration: asked of all, the first shard's answer is told.
    First,
    /// FUNCTION LOAD and its like: every shard must do it, the first one's answer is told.
    AllSucceed,
    /// SCRIPT EXISTS: 1 where all say so.
    And,
}

/// What is done with a script or function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// EVAL, EVAL_RO.
    Eval,
    /// EVALSHA, EVALSHA_RO.
    EvalSha,
    /// FCALL, FCALL_RO.
    Function,
    Load,
    Flush,
    /// SCRIPT KILL, FUNCTION KILL.
    Kill,
    /// FUNCTION STATS, which must be heard while a function runs.
    Stats,
    Debug,
}

/// How nested replies become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tree {
    /// MEMORY STATS: numbers are added up, the rest is the first shard's.
    Stats,
    /// LATENCY HISTOGRAM: likewise, and counts up to a bound.
    Histogram,
    /// LATENCY LATEST: of each event the newest and the largest.
    Latest,
}

/// What is done with channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PubSub {
    Subscribe(Subject),
    Unsubscribe(Subject),
    /// PUBLISH and SPUBLISH.
    Publish(Subject),
    /// PUBSUB CHANNELS and SHARDCHANNELS.
    Names(Subject),
    /// PUBSUB NUMSUB and SHARDNUMSUB.
    Counts(Subject),
    NumPat,
    Help,
}

/// What we answer ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    Ping,
    Echo,
    Quit,
    Select,
    Auth,
    Hello,
    /// COMMAND and all its subcommands, known or not: [`super::commands_reply::command`].
    Command,
    Reset,
    /// What is one server's, or the same text everywhere: the first shard speaks for all (CONFIG GET,
    /// the HELP of containers).
    AskFirst,
    Info,
    Time,
    /// ROLE: a primary, whose replicas are no client's business.
    Role,
    /// ACL WHOAMI
    WhoAmI,
    Client(OfClient),
    ClientUnblock,
    ClusterKeySlot,
    /// CLUSTER SLOTS, SHARDS, NODES, INFO, MYID.
    ClusterNode,
    /// CLUSTER COUNTKEYSINSLOT, GETKEYSINSLOT.
    ClusterOwner,
    /// SLOWLOG GET, LEN, RESET: of our own log.
    Slowlog,
    /// SLUICE and its subcommands.
    Sluice,
    Unwatch,
    /// READWRITE and READONLY: whether reads go to the primary from here on.
    Prefer {
        primary: bool,
    },
    /// `+OK` and nothing else: the state it sets has no meaning here (ASKING).
    Accept,
}

/// The subcommands of CLIENT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfClient {
    Id,
    GetName,
    SetName,
    SetInfo,
    NoEvict,
    NoTouch,
    Info,
    List,
    Kill,
    Pause,
    Unpause,
    Reply,
    Tracking,
    TrackingInfo,
    Caching,
    GetRedirect,
}

impl Command {
    /// Whether a request of `argc` arguments, the name included, has as many as it must.
    pub fn arity_ok(&self, argc: usize) -> bool {
        let wanted = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 { argc >= wanted } else { argc == wanted }
    }

    /// Whether it can wait in the server: always for BLPOP, with `BLOCK` for those of streams, XREAD
    /// and XREADGROUP.
    pub fn blocks(&self, args: Args<'_>) -> bool {
        self.blocking && (self.groups & group::STREAM == 0 || options::has_block(args))
    }

    /// A row of the table; what follows from the others is derived here.
    pub(super) const fn new(
        name: &'static str,
        arity: i16,
        flags: u32,
        groups: u32,
        kind: Kind,
        specs: &'static [Spec],
    ) -> Self {
        let keys = Keys::of(specs);
        Self::assemble(name, arity, flags, groups, kind, keys, Cow::Borrowed(specs))
    }

    /// The same row with a rule of its own for keys that no specification can tell.
    pub(super) const fn special(mut self, keys: Keys) -> Self {
        self.keys = keys;
        self
    }

    /// The same row with hints to cluster clients.
    pub(super) const fn tips(mut self, tips: &'static [&'static str]) -> Self {
        self.tips = tips;
        self
    }

    /// [`Command::new`] for keys that are already told.
    pub(super) const fn assemble(
        name: &'static str,
        arity: i16,
        flags: u32,
        groups: u32,
        kind: Kind,
        keys: Keys,
        specs: Cow<'static, [Spec]>,
    ) -> Self {
        let read = flags & flag::READONLY != 0
            || (flags & flag::WRITE == 0 && matches!(kind, Kind::Local(_) | Kind::FanOut(_)));
        Self {
            name,
            arity,
            access: if read { Access::Read } else { Access::Write },
            replica_ok: read
                && flags & flag::AT_PRIMARY == 0
                && !matches!(kind, Kind::Local(_) | Kind::FanOut(_)),
            blocking: flags & (flag::BLOCKING | flag::WAITS) != 0,
            keys,
            kind,
            index: 0,
            one_shard_only: false,
            flags,
            groups,
            specs,
            tips: &[],
            word: name,
            letters: false,
            scope: 0,
            container: false,
        }
    }
}

/// A command of the operator's, from `redis.commands`.
#[derive(Clone, Copy, Debug)]
pub struct Custom<'a> {
    /// `MY.GET`, or `MY|GET` for a subcommand.
    pub name: &'a str,
    pub access: Access,
    /// First key, last key (negative: from the end), step; `None`: no keys.
    pub keys: Option<(i32, i32, i32)>,
}

/// The table of one cluster.
#[derive(Clone, Debug)]
pub struct Commands {
    list: Vec<Command>,
    lookup: Perfect,
}

impl Commands {
    /// The commands we know ourselves.
    pub fn builtin() -> Self {
        let mut this = Self { list: Vec::new(), lookup: Perfect::default() };
        this.add(table_data::COMMANDS.iter().cloned());
        this
    }

    /// Adds the operator's commands; one that we know already gets the operator's access and keys,
    /// and is forwarded.
    #[must_use]
    pub fn with_custom<'a>(mut self, custom: impl IntoIterator<Item = Custom<'a>>) -> Self {
        for custom in custom {
            if let Some((container, _)) = custom.name.split_once('|')
                && self.by_name(container.as_bytes()).is_none()
                && let Some(name) = names::intern(&container.to_ascii_uppercase())
            {
                self.add([Command::new(name, -2, 0, 0, Kind::Container, &[])]);
            }
            self.add(custom_row(custom));
        }
        self
    }

    /// The command of a request: by its name, then, for a container, by its subcommand. A
    /// container whose subcommand is missing or unknown is itself the answer
    /// ([`Kind::Container`]). No case matters. `None`: unknown.
    #[inline]
    pub fn find(&self, args: Args<'_>) -> Option<&Command> {
        let command = self.look_up(0, args.get(0)?)?;
        if !command.container {
            return Some(command);
        }
        let sub = args.get(1).and_then(|word| self.look_up(command.index + 1, word));
        Some(sub.unwrap_or(command))
    }

    /// The command of that full name, `GET` or `CONFIG|GET`, in any case.
    pub fn by_name(&self, name: &[u8]) -> Option<&Command> {
        match memchr::memchr(b'|', name).and_then(|bar| name.split_at_checked(bar)) {
            Some((container, rest)) => {
                self.look_up(self.look_up(0, container)?.index + 1, rest.get(1..)?)
            }
            None => self.look_up(0, name),
        }
    }

    /// The subcommands of `command`, in the table's order.
    pub fn subcommands(&self, command: &Command) -> impl Iterator<Item = &Command> {
        let scope = command.index + 1;
        self.list.iter().filter(move |sub| sub.scope == scope)
    }

    /// All commands, subcommands included, by [`Command::index`].
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Command> {
        self.list.iter()
    }

    /// How many there are, subcommands included.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Never true for a table that began with [`Commands::builtin`].
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds or replaces commands and makes the look-up anew. A container must come before its
    /// subcommands. Returns how many names are new; over [`MAX_COMMANDS`] they are left out.
    pub(super) fn add(&mut self, rows: impl IntoIterator<Item = Command>) -> usize {
        let before = self.list.len();
        let mut places: HashMap<&'static str, usize> =
            self.list.iter().enumerate().map(|(place, c)| (c.name, place)).collect();
        for mut row in rows {
            if let Some((container, word)) = row.name.split_once('|') {
                let Some(container) = places.get(container).and_then(|&p| self.list.get_mut(p))
                else {
                    continue;
                };
                container.container = true;
                (row.word, row.scope) = (word, container.index + 1);
            }
            row.letters = row.word.bytes().all(|byte| byte.is_ascii_alphabetic());
            if let Some(old) = places.get(row.name).and_then(|&p| self.list.get_mut(p)) {
                (row.index, row.container) = (old.index, old.container);
                *old = row;
            } else if let Some(index) = next_index(self.list.len()) {
                row.index = index;
                places.insert(row.name, self.list.len());
                self.list.push(row);
            }
        }
        self.lookup = Perfect::new(self.list.iter().map(|c| (c.scope, c.word.as_bytes())));
        self.list.len() - before
    }

    #[inline]
    fn look_up(&self, scope: u16, word: &[u8]) -> Option<&Command> {
        let command = self.list.get(self.lookup.get(scope, word))?;
        let same = command.scope == scope
            && same_folded(command.word.as_bytes(), word)
            && (command.letters || command.word.as_bytes().eq_ignore_ascii_case(word));
        same.then_some(command)
    }
}

/// What one table may hold; the largest modules have some hundred commands.
const MAX_COMMANDS: usize = 4_096;

fn next_index(len: usize) -> Option<u16> {
    u16::try_from(len).ok().filter(|_| len < MAX_COMMANDS)
}

/// The row of an operator's command.
fn custom_row(custom: Custom<'_>) -> Option<Command> {
    let name = names::intern(&custom.name.to_ascii_uppercase())?;
    let flags = match custom.access {
        Access::Read => flag::READONLY,
        Access::Write => flag::WRITE,
    };
    let spec = custom.keys.and_then(|(first, last, step)| Spec::legacy(first, last, step));
    let specs: Vec<Spec> = spec.into_iter().collect();
    let keys = Keys::of(&specs);
    Some(Command::assemble(name, -1, flags, 0, Kind::Keyed, keys, Cow::Owned(specs)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::redis::{keys::keys, testing::Request};

    fn request(line: &str) -> Request {
        Request::new(line.split(' '))
    }

    fn find(commands: &Commands, line: &str) -> Option<String> {
        let request = request(line);
        let args = request.args();
        let command = commands.find(args)?;
        let keys: Vec<&[u8]> = keys(command, args).ok()?.filter_map(|i| args.get(i)).collect();
        let keys: Vec<_> = keys.iter().map(|k| String::from_utf8_lossy(k)).collect();
        Some(format!("{} {} [{}]", command.name, command.access.as_str(), keys.join(" ")))
    }

    #[test]
    fn commands_are_found_with_their_keys() {
        let commands = Commands::builtin();
        for (line, wanted) in [
            ("get k", "GET read [k]"),
            ("MSET a 1 b 2", "MSET write [a b]"),
            ("oBject ENCODING k", "OBJECT|ENCODING read [k]"),
            ("object nonsense k", "OBJECT write []"),
            ("config get save", "CONFIG|GET read []"),
            ("config", "CONFIG write []"),
            ("XREADGROUP GROUP streams c STREAMS k1 k2 > >", "XREADGROUP write [k1 k2]"),
            ("GEORADIUS k 1 2 3 m COUNT 3 STOREDIST STORE", "GEORADIUS write [k STORE]"),
            ("SORT k BY store GET store STORE to", "SORT write [k to]"),
            ("ZUNIONSTORE to 2 a b WEIGHTS 1 2", "ZUNIONSTORE write [to a b]"),
            ("EVAL x 0 a", "EVAL write []"),
            ("MSETEX 2 a 1 b 2 EX 3", "MSETEX write [a b]"),
            ("LCS a b LEN", "LCS read [a b]"),
            ("BLPOP a b 0", "BLPOP write [a b]"),
        ] {
            assert_eq!(find(&commands, line).as_deref(), Some(wanted), "{line}");
        }
        for unknown in ["nonsense k", "", "GE", "GETT k", "G\u{5}T k", "BITFIELD\u{7f}RO k", "|"] {
            assert_eq!(find(&commands, unknown), None, "{unknown:?}");
        }
    }

    #[test]
    fn the_operator_adds_and_overrides() {
        let custom = |name, access, keys| Custom { name, access, keys };
        let commands = Commands::builtin().with_custom([
            custom("my.get", Access::Read, Some((2, -1, 1))),
            custom("GET", Access::Write, Some((1, 1, 1))),
            custom("MY|STATS", Access::Read, None),
        ]);
        for (line, wanted) in [
            ("My.Get x a b", "MY.GET read [a b]"),
            ("get k", "GET write [k]"),
            ("my stats", "MY|STATS read []"),
        ] {
            assert_eq!(find(&commands, line).as_deref(), Some(wanted), "{line}");
        }
        assert_eq!(commands.len(), Commands::builtin().len() + 3);
    }

    #[test]
    fn every_command_finds_itself_and_has_its_own_index() {
        let commands = Commands::builtin();
        for (index, command) in commands.iter().enumerate() {
            assert_eq!(usize::from(command.index), index);
            let found = commands.by_name(command.name.to_ascii_lowercase().as_bytes());
            assert_eq!(found.map(|c| c.name), Some(command.name));
        }
    }

    #[test]
    fn what_belongs_to_one_node_is_not_read_from_a_replica() {
        let commands = Commands::builtin();
        let on_replica = |name: &str| commands.by_name(name.as_bytes()).unwrap().replica_ok;
        for name in [
            "OBJECT|FREQ",
            "TOUCH",
            "MEMORY|USAGE",
            "HSCAN",
            "SSCAN",
            "ZSCAN",
            "SCAN",
            "KEYS",
            "RANDOMKEY",
            "DBSIZE",
            "PING",
            "SORT",
            "GEORADIUS",
            "BITFIELD",
            "GETEX",
            "SPOP",
            "EVAL",
            "PUBLISH",
            "XREADGROUP",
        ] {
            assert!(!on_replica(name), "{name}");
        }
        for name in ["GET", "MGET", "EXISTS", "PFCOUNT", "SORT_RO", "XREAD", "EVAL_RO", "DUMP"] {
            assert!(on_replica(name), "{name}");
        }
    }

    #[test]
    fn xread_blocks_only_by_its_option() {
        let commands = Commands::builtin();
        for (line, wanted) in [
            ("XREAD COUNT 2 STREAMS block 0", false),
            ("XREAD COUNT 2 block 0 STREAMS k 0", true),
            ("XREADGROUP GROUP block block NOACK STREAMS k >", false),
            ("XREADGROUP GROUP g c NOACK BLOCK 5 STREAMS k >", true),
            ("BLPOP k 0", true),
            ("WAIT 1 0", true),
            ("LPOP k", false),
        ] {
            let request = request(line);
            let args = request.args();
            assert_eq!(commands.find(args).unwrap().blocks(args), wanted, "{line}");
        }
    }
}
