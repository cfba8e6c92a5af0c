//! What a backend's `COMMAND` tells about commands we do not know: those of newer versions and of
//! modules. What we know ourselves is never changed by it.
//!
//! A command whose keys cannot be told from its specifications is not learnt: it stays unknown,
//! and the rule for unknown commands is safer than a guess (redis.md 2.0).

use super::{
    keys::{Begin, Find, Keys, MAX_SPECS, Spec, spec_flag},
    names,
    table::{Command, Commands, Kind, flag, group},
    tree::Value,
};
use std::borrow::Cow;

impl Commands {
    /// Adds the commands of a `COMMAND` reply (RESP2, Redis 2.8 to 8, Valkey) that we do not know.
    /// Returns how many those were; 0 also for bytes that are no such reply.
    pub fn learn(&mut self, command_reply: &[u8]) -> usize {
        let Some(Value::Array(entries)) = Value::parse(command_reply) else {
            return 0;
        };
        let mut rows = Vec::new();
        for entry in &entries {
            self.learn_one(entry, None, &mut rows);
        }
        self.add(rows)
    }

    fn learn_one(&self, entry: &Value<'_>, container: Option<&str>, rows: &mut Vec<Command>) {
        let Some(fields) = entry.array() else {
            return;
        };
        let Some(name) = fields.first().and_then(|name| full_name(name.text()?, container)) else {
            return;
        };
        let subcommands = fields.get(9).and_then(Value::array).unwrap_or_default();
        if self.by_name(name.as_bytes()).is_none()
            && let Some(row) = row(&name, fields, !subcommands.is_empty())
        {
            rows.push(row);
        }
        if container.is_none() {
            for sub in subcommands {
                self.learn_one(sub, Some(&name), rows);
            }
        }
    }
}

/// The name as we write it. `None` for what is no name: `COMMAND` writes `config|get` for a
/// subcommand, and its container must be the one it is listed in.
fn full_name(name: &str, container: Option<&str>) -> Option<String> {
    let name = name.to_ascii_uppercase();
    let word = match container {
        Some(container) => name.strip_prefix(container)?.strip_prefix('|')?,
        None => &name,
    };
    let graphic = !word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic() && b != b'|');
    graphic.then_some(name)
}

fn row(name: &str, fields: &[Value<'_>], container: bool) -> Option<Command> {
    let arity = i16::try_from(fields.get(1)?.integer()?).ok()?;
    let words: Vec<&str> = fields.get(2)?.array()?.iter().filter_map(Value::text).collect();
    let groups: Vec<&str> = fields
        .get(6)
        .and_then(Value::array)
        .unwrap_or_default()
        .iter()
        .filter_map(|name| name.text()?.strip_prefix('@'))
        .collect();
    let flags = bits(&flag::NAMES, &words);
    let specs = specs(fields, words.contains(&"movablekeys"))?;
    let kind = if container {
        Kind::Container
    } else if flags & flag::ADMIN != 0 {
        Kind::Disabled
    } else if flags & (flag::BLOCKING | flag::PUBSUB) != 0 || of_the_connection(&groups) {
        Kind::NotYet
    } else {
        Kind::Keyed
    };
    let (name, groups) = (names::intern(name)?, bits(&group::NAMES, &groups));
    let keys = Keys::of(&specs);
    let mut row = Command::assemble(name, arity, flags, groups, kind, keys, Cow::Owned(specs));
    row.one_shard_only = row.keys == Keys::None;
    Some(row)
}

/// It changes or reads the state of a connection, which here many clients share.
fn of_the_connection(groups: &[&str]) -> bool {
    groups.iter().any(|name| ["connection", "transaction", "blocking", "pubsub"].contains(name))
}

/// The bits of those words; unknown ones have none.
fn bits(names: &[&str], words: &[&str]) -> u32 {
    names
        .iter()
        .zip(0..)
        .filter(|(name, _)| words.contains(name))
        .fold(0, |bits, (_, bit)| bits | 1 << bit)
}

/// The key specifications, or before Redis 7 the one that first, last and step make. `None` when
/// they leave keys untold.
fn specs(fields: &[Value<'_>], movable: bool) -> Option<Vec<Spec>> {
    if let Some(told) = fields.get(8).and_then(Value::array).filter(|told| !told.is_empty()) {
        let specs: Option<Vec<Spec>> = told.iter().map(spec).collect();
        return specs.filter(|specs| specs.len() <= MAX_SPECS);
    }
    if movable {
        return None;
    }
    let number = |at: usize| i32::try_from(fields.get(at)?.integer()?).ok();
    let (first, last, step) = (number(3)?, number(4)?, number(5)?);
    if first == 0 {
        return Some(Vec::new());
    }
    Spec::legacy(first, last, step).map(|spec| vec![spec])
}

fn spec(value: &Value<'_>) -> Option<Spec> {
    let flag_words: Vec<&str> =
        value.field("flags")?.array()?.iter().filter_map(Value::text).collect();
    let flags = u16::try_from(bits(&spec_flag::NAMES, &flag_words)).ok()?;
    if flags & spec_flag::INCOMPLETE != 0 {
        return None;
    }
    let (begin, find) = (value.field("begin_search")?, value.field("find_keys")?);
    let (at, how) = (begin.field("spec")?, find.field("spec")?);
    let begin = match begin.field("type")?.text()? {
        "index" => Begin::Index(at.number("index")?),
        "keyword" => Begin::Keyword {
            word: names::intern(at.field("keyword")?.text()?)?,
            from: at.number("startfrom")?,
        },
        _ => return None,
    };
    let find = match find.field("type")?.text()? {
        "range" => Find::Range {
            last: how.number("lastkey")?,
            step: how.number("keystep")?,
            limit: how.number("limit")?,
        },
        "keynum" => Find::Counted {
            count: how.number("keynumidx")?,
            first: how.number("firstkey")?,
            step: how.number("keystep")?,
        },
        _ => return None,
    };
    Some(Spec { begin, find, flags })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A reply written as words: `[` and `]` around arrays, `:1` integers, `+x` simple strings.
    fn reply(text: &str) -> Vec<u8> {
        fn array<'a>(words: &mut impl Iterator<Item = &'a str>) -> (usize, Vec<u8>) {
            let (mut len, mut bytes) = (0, Vec::new());
            while let Some(word) = words.next() {
                match word {
                    "]" => break,
                    "[" => {
                        let (inner, elements) = array(words);
                        bytes.extend(format!("*{inner}\r\n").bytes());
                        bytes.extend(elements);
                    }
                    _ if word.starts_with([':', '+']) => {
                        bytes.extend(format!("{word}\r\n").bytes())
                    }
                    _ => bytes.extend(format!("${}\r\n{word}\r\n", word.len()).bytes()),
                }
                len += 1;
            }
            (len, bytes)
        }
        array(&mut text.split_whitespace()).1
    }

    #[test]
    fn a_module_and_a_newer_server_are_learnt() {
        let mut commands = Commands::builtin();
        let before = commands.len();
        let learnt = commands.learn(&reply(
            "[ [ get :2 [ +write ] :2 :2 :1 ]
               [ my.get :-2 [ +readonly +fast ] :1 :1 :1 [ +@read ] [ ] [ ] [ ] ]
               [ my.search :-1 [ +readonly ] :0 :0 :0 [ ] [ ] [ ] [ ] ]
               [ my.watch :-1 [ ] :1 :1 :1 [ +@connection ] [ ] [ ] [ ] ]
               [ my.admin :-1 [ +admin ] :0 :0 :0 [ ] [ ] [ ] [ ] ]
               [ my.odd :-1 [ +write +movablekeys ] :0 :0 :0 [ ] [ ] [ ] [ ] ]
               [ my.many :-3 [ +write +movablekeys ] :0 :0 :0 [ ] [ ]
                 [ [ flags [ +RW +update ] begin_search [ type index spec [ index :1 ] ]
                     find_keys [ type keynum spec [ keynumidx :0 firstkey :1 keystep :2 ] ] ] ] [ ] ]
               [ my :-2 [ ] :0 :0 :0 [ ] [ ] [ ]
                 [ [ my|set :-3 [ +write ] :2 :2 :1 [ ] [ ] [ ] [ ] ] ] ]
               [ config :-2 [ ] :0 :0 :0 [ ] [ ] [ ]
                 [ [ config|get :9 [ ] :0 :0 :0 [ ] [ ] [ ] [ ] ]
                   [ config|new :-3 [ +admin ] :0 :0 :0 [ ] [ ] [ ] [ ] ] ] ] ]",
        ));
        let seen = |name: &str| {
            let command = commands.by_name(name.as_bytes())?;
            Some((command.kind, command.access.as_str(), command.keys, command.replica_ok))
        };
        assert_eq!((learnt, commands.len()), (8, before + 8));
        assert_eq!(seen("my.get"), Some((Kind::Keyed, "read", Keys::First(1), true)));
        assert_eq!(seen("my.search"), Some((Kind::Keyed, "read", Keys::None, true)));
        assert!(commands.by_name(b"my.search").unwrap().one_shard_only);
        assert_eq!(seen("my.watch"), Some((Kind::NotYet, "write", Keys::First(1), false)));
        assert_eq!(seen("my.admin"), Some((Kind::Disabled, "write", Keys::None, false)));
        assert_eq!(seen("my.odd"), None);
        assert_eq!(seen("my.many"), Some((Kind::Keyed, "write", Keys::Specs, false)));
        assert_eq!(seen("my|set"), Some((Kind::Keyed, "write", Keys::First(2), false)));
        assert_eq!(seen("config|new"), Some((Kind::Disabled, "write", Keys::None, false)));
        assert_eq!(seen("get"), Some((Kind::Keyed, "read", Keys::First(1), true)));
        assert_eq!(commands.by_name(b"config|get").unwrap().arity, -3);
    }

    proptest! {
        #[test]
        fn any_reply_is_survived(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            words in "(\\[ |\\] |:[0-9-]{1,12} |\\+readonly |index |spec |type |flags |x\\|y |x ){0,60}",
        ) {
            let mut commands = Commands::builtin();
            commands.learn(&bytes);
            commands.learn(&reply(&words));
            prop_assert_eq!(commands.by_name(b"GET").map(|c| c.keys), Some(Keys::First(1)));
        }
    }
}
