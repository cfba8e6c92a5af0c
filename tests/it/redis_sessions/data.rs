//! What the keys of one client hold, as the replies so far tell, and what a server would answer.

use crate::harness::{Value, bulk};
use std::collections::{BTreeMap, HashMap, VecDeque};

#[derive(Debug)]
pub(super) struct Data {
    client: usize,
    keys: HashMap<String, Held>,
    /// How often a name was given up for a new one.
    renewed: HashMap<String, u64>,
    tags: u64,
}

#[derive(Clone, Debug)]
enum Held {
    /// Something may have been done to it, or will be yet.
    Doubtful,
    Text(String),
    List(VecDeque<String>),
    Scores(BTreeMap<u64, String>),
}

/// A right reply.
#[derive(Debug)]
pub(super) enum Wanted {
    Exactly(Value),
    Between(i64, i64),
    /// An error with this text in it.
    Error(&'static str),
    /// Nothing, or values that this client has made, however many.
    Own,
    Items(Vec<Self>),
    Any,
}

impl Wanted {
    pub(super) fn fits(&self, client: usize, reply: &Value) -> bool {
        match (self, reply) {
            (Self::Exactly(wanted), _) => wanted == reply,
            (Self::Between(low, high), Value::Int(got)) => (low..=high).contains(&got),
            (Self::Error(text), Value::Error(got)) => got.contains(text),
            (Self::Own, _) => is_own(client, reply),
            (Self::Items(items), Value::Array(got)) => {
                let mut pairs = items.iter().zip(got);
                items.len() == got.len() && pairs.all(|(item, got)| item.fits(client, got))
            }
            (Self::Any, Value::Array(_)) => true,
            _ => false,
        }
    }
}

/// A tag, a key or a score of that client: what it made begins with its number.
fn is_own(client: usize, reply: &Value) -> bool {
    match reply {
        Value::Nil => true,
        Value::Bulk(bytes) => {
            let text = String::from_utf8_lossy(bytes);
            text.starts_with(&format!("{client}/"))
                || text.starts_with(&format!("c{client}:"))
                || text.starts_with(&format!("{{c{client}}}:"))
                || text.parse::<u64>().is_ok()
        }
        Value::Array(items) => items.iter().all(|item| is_own(client, item)),
        _ => false,
    }
}

/// The keys that a request may change.
pub(super) fn writes(words: &[String]) -> &[String] {
    match words[0].as_str() {
        "SET" | "APPEND" | "RPUSH" | "LPUSH" | "LPOP" | "RPOP" | "ZADD" | "ZPOPMIN" => &words[1..2],
        "DEL" | "MSET" => &words[1..],
        "BLPOP" | "BRPOP" | "BZPOPMIN" => &words[1..words.len() - 1],
        _ => &[],
    }
}

impl Data {
    pub(super) fn new(client: usize) -> Self {
        Self { client, keys: HashMap::new(), renewed: HashMap::new(), tags: 0 }
    }

    /// A value that nobody else makes, and its number.
    pub(super) fn tag(&mut self) -> (u64, String) {
        self.tags += 1;
        (self.tags, format!("{}/{}", self.client, self.tags))
    }

    /// The name that is in use for a key.
    pub(super) fn name(&self, key: &str) -> String {
        match self.renewed.get(key) {
            Some(times) => format!("{key}~{times}"),
            None => key.to_owned(),
        }
    }

    /// Gives up the names of which nothing is known.
    pub(super) fn renew(&mut self) {
        let doubtful = |held: &Held| matches!(held, Held::Doubtful);
        let given_up: Vec<_> = self.keys.extract_if(|_, held| doubtful(held)).collect();
        for (name, _) in given_up {
            let key = name.split('~').next().unwrap_or_default();
            *self.renewed.entry(key.to_owned()).or_default() += 1;
        }
    }

    pub(super) fn doubt(&mut self, names: &[String]) {
        for name in names.iter().filter(|name| name.contains(':')) {
            self.keys.insert(name.clone(), Held::Doubtful);
        }
    }

    pub(super) fn is_doubtful(&self, name: &str) -> bool {
        matches!(self.keys.get(name), Some(Held::Doubtful))
    }

    pub(super) fn may_be_empty(&self, name: &str) -> bool {
        matches!(self.keys.get(name), None | Some(Held::Doubtful))
    }

    /// What a server says to that request, and the keys that it changes.
    pub(super) fn run(&mut self, words: &[String]) -> (Wanted, Vec<String>) {
        let (names, ok) = (&words[1..], || Wanted::Exactly(Value::Simple("OK".to_owned())));
        let mut changed: Vec<String> = writes(words).to_vec();
        let wanted = match words[0].as_str() {
            "ECHO" => Wanted::Exactly(bulk(&words[1])),
            "SET" => {
                self.put(&words[1], Held::Text(words[2].clone()));
                ok()
            }
            "MSET" => {
                names.chunks(2).for_each(|pair| self.put(&pair[0], Held::Text(pair[1].clone())));
                ok()
            }
            "GET" => self.get(&words[1]),
            "MGET" => Wanted::Items(names.iter().map(|name| self.get(name)).collect()),
            "APPEND" => self.append(&words[1], &words[2]),
            "EXISTS" => self.count(names),
            "DEL" => {
                // A key is there to be deleted once.
                changed.sort_unstable();
                changed.dedup();
                let count = self.count(&changed);
                changed.retain(|name| self.keys.contains_key(name));
                let doubtful = |held: &Held| matches!(held, Held::Doubtful);
                self.keys.retain(|name, held| doubtful(held) || !names.contains(name));
                count
            }
            "RPUSH" | "LPUSH" => self.push(&words[1], &words[2], words[0] == "RPUSH"),
            "LPOP" | "RPOP" => {
                changed.retain(|name| self.keys.contains_key(name));
                match self.pop(&words[1], words[0] == "LPOP") {
                    Some(value) => Wanted::Exactly(value),
                    None => Wanted::Own,
                }
            }
            "LLEN" | "ZCARD" => self.len(&words[1]),
            "LRANGE" => match self.keys.get(&words[1]) {
                None => Wanted::Exactly(Value::Array(Vec::new())),
                Some(Held::List(list)) => {
                    Wanted::Exactly(Value::Array(list.iter().map(bulk).collect()))
                }
                Some(_) => Wanted::Own,
            },
            "ZADD" => self.score(&words[1], words[2].parse().unwrap(), &words[3]),
            "ZPOPMIN" => {
                changed.retain(|name| self.keys.contains_key(name));
                match self.least(&words[1]) {
                    Some(items) => Wanted::Exactly(Value::Array(items)),
                    None => Wanted::Own,
                }
            }
            "BLPOP" | "BRPOP" | "BZPOPMIN" => {
                // The first that has something.
                changed.retain(|name| self.keys.contains_key(name));
                changed.truncate(1);
                self.take(words[0].as_str(), &words[1..words.len() - 1])
            }
            other => panic!("the model does not know {other}"),
        };
        (wanted, changed)
    }

    fn put(&mut self, name: &str, held: Held) {
        match self.keys.get(name) {
            Some(Held::Doubtful) => {}
            _ => drop(self.keys.insert(name.to_owned(), held)),
        }
    }

    fn get(&self, name: &str) -> Wanted {
        match self.keys.get(name) {
            None => Wanted::Exactly(Value::Nil),
            Some(Held::Text(text)) => Wanted::Exactly(bulk(text)),
            Some(_) => Wanted::Own,
        }
    }

    fn append(&mut self, name: &str, more: &str) -> Wanted {
        let held = self.keys.entry(name.to_owned()).or_insert_with(|| Held::Text(String::new()));
        let Held::Text(text) = held else { return SOME };
        text.push_str(more);
        exactly(text.len())
    }

    fn count(&self, names: &[String]) -> Wanted {
        let held = |name: &String| self.keys.get(name);
        let known = |name: &&String| held(name).is_some_and(|h| !matches!(h, Held::Doubtful));
        let known = names.iter().filter(known).count();
        let all = names.iter().filter(|name| held(name).is_some()).count();
        Wanted::Between(i64::try_from(known).unwrap(), i64::try_from(all).unwrap())
    }

    fn len(&self, name: &str) -> Wanted {
        match self.keys.get(name) {
            None => exactly(0),
            Some(Held::List(list)) => exactly(list.len()),
            Some(Held::Scores(scores)) => exactly(scores.len()),
            Some(_) => SOME,
        }
    }

    /// What is pushed is there to be popped.
    pub(super) fn push(&mut self, name: &str, element: &str, at_end: bool) -> Wanted {
        let held = self.keys.entry(name.to_owned()).or_insert_with(|| Held::List(VecDeque::new()));
        let Held::List(list) = held else { return SOME };
        match at_end {
            true => list.push_back(element.to_owned()),
            false => list.push_front(element.to_owned()),
        }
        exactly(list.len())
    }

    pub(super) fn score(&mut self, name: &str, score: u64, member: &str) -> Wanted {
        let held = self.keys.entry(name.to_owned());
        let held = held.or_insert_with(|| Held::Scores(BTreeMap::new()));
        let Held::Scores(scores) = held else { return SOME };
        scores.insert(score, member.to_owned());
        exactly(1)
    }

    /// `None`: who knows.
    fn pop(&mut self, name: &str, at_front: bool) -> Option<Value> {
        let popped = match self.keys.get_mut(name) {
            None => return Some(Value::Nil),
            Some(Held::List(list)) if at_front => list.pop_front(),
            Some(Held::List(list)) => list.pop_back(),
            Some(_) => return None,
        };
        if matches!(self.keys.get(name), Some(Held::List(list)) if list.is_empty()) {
            self.keys.remove(name);
        }
        popped.map(bulk)
    }

    /// The member with the least score, and that; `None`: who knows.
    fn least(&mut self, name: &str) -> Option<Vec<Value>> {
        let popped = match self.keys.get_mut(name) {
            None => return Some(Vec::new()),
            Some(Held::Scores(scores)) => scores.pop_first(),
            Some(_) => return None,
        };
        if matches!(self.keys.get(name), Some(Held::Scores(scores)) if scores.is_empty()) {
            self.keys.remove(name);
        }
        popped.map(|(score, member)| vec![bulk(member), bulk(score.to_string())])
    }

    /// From the first key that has something; nothing when none has, for its time is over then.
    fn take(&mut self, command: &str, names: &[String]) -> Wanted {
        let Some(name) = names.iter().find(|name| self.keys.contains_key(*name)) else {
            return Wanted::Exactly(Value::Nil);
        };
        if names.iter().any(|name| matches!(self.keys.get(name), Some(Held::Doubtful))) {
            self.doubt(names);
            return Wanted::Own;
        }
        let items = match command {
            "BZPOPMIN" => self.least(name).unwrap_or_default(),
            _ => self.pop(name, command == "BLPOP").into_iter().collect(),
        };
        Wanted::Exactly(Value::Array([vec![bulk(name)], items].concat()))
    }
}

fn exactly(count: usize) -> Wanted {
    Wanted::Exactly(Value::Int(i64::try_from(count).unwrap()))
}

/// How many nobody knows.
const SOME: Wanted = Wanted::Between(0, i64::MAX);
