//! One command as an element of the answer to COMMAND, in Redis 7's ten fields. Which commands are
//! listed is [`super::commands_reply`]'s matter.

use super::{
    class::Resp,
    flags::{flag, group, spec_flag, words},
    spec::{Begin, Find, Spec},
    table::{Command, Commands},
    wire,
};

/// One command with its subcommands, which do not nest further.
pub(super) fn entry(commands: &Commands, command: &Command, resp: Resp, out: &mut Vec<u8>) {
    let (first, last, step) = range_of_old(&command.specs);
    wire::array(out, 10);
    wire::bulk(out, command.name.to_ascii_lowercase().as_bytes());
    wire::integer(out, command.arity);
    simple_set(out, resp, &flag_words(command), "");
    for number in [first, last, step] {
        wire::integer(out, number);
    }
    simple_set(out, resp, &categories(command), "@");
    wire::set(out, resp, command.tips.len());
    for tip in command.tips {
        wire::bulk(out, tip.as_bytes());
    }
    wire::set(out, resp, command.specs.len());
    for spec in command.specs.iter() {
        key_spec(spec, resp, out);
    }
    match commands.subcommands(command).count() {
        // Redis: a set while there are none, else an array.
        0 => wire::set(out, resp, 0),
        count => wire::array(out, count),
    }
    for sub in commands.subcommands(command) {
        entry(commands, sub, resp, out);
    }
}

fn simple_set(out: &mut Vec<u8>, resp: Resp, words: &[&str], prefix: &str) {
    wire::set(out, resp, words.len());
    for word in words {
        wire::simple(out, &format!("{prefix}{word}"));
    }
}

fn flag_words(command: &Command) -> Vec<&'static str> {
    let mut words = words(&flag::NAMES, command.flags);
    if keys_move(&command.specs) {
        words.push("movablekeys");
    }
    words
}

/// The ACL categories: those stated, and those that follow from the flags (Redis's
/// `setImplicitACLCategories`).
pub(super) fn categories(command: &Command) -> Vec<&'static str> {
    let has = |flag| command.flags & flag != 0;
    let mut words = words(&group::NAMES, command.groups);
    let implied = [
        (has(flag::WRITE), "write"),
        (has(flag::READONLY) && command.groups & group::SCRIPTING == 0, "read"),
        (has(flag::ADMIN), "admin"),
        (has(flag::ADMIN), "dangerous"),
        (has(flag::PUBSUB), "pubsub"),
        (has(flag::FAST), "fast"),
        (!has(flag::FAST), "slow"),
        (has(flag::BLOCKING), "blocking"),
    ];
    for (_, word) in implied.into_iter().filter(|&(so, _)| so) {
        if !words.contains(&word) {
            words.push(word);
        }
    }
    // Redis's own order; categories that it has not come last, as in our table.
    words.sort_by_key(|word| ORDER.iter().position(|first| first == word).unwrap_or(ORDER.len()));
    words
}

/// acl.c, `ACLCommandCategories`.
const ORDER: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// First key, last key and step as before Redis 7 (its `populateCommandLegacyRangeSpec`).
fn range_of_old(specs: &[Spec]) -> (i64, i64, i64) {
    if let [Spec { begin: Begin::Index(at), find: Find::Range { last, step, .. }, .. }] = specs {
        let last = i64::from(*last);
        let last = if last >= 0 { last + i64::from(*at) } else { last };
        return (i64::from(*at), last, i64::from(*step));
    }
    let (mut first, mut last) = (None, 0);
    for spec in specs {
        let Some((from, to)) = joins(spec, last) else {
            continue;
        };
        first = Some(first.map_or(from, |first: i64| first.min(from)));
        last = if to < 0 || last < 0 { to.min(last) } else { to.max(last) };
    }
    first.map_or((0, 0, 0), |first| (first, last, 1))
}

/// The range of a specification, when it can go on from one that ended at `last` (0: none did).
fn joins(spec: &Spec, last: i64) -> Option<(i64, i64)> {
    let (Begin::Index(at), Find::Range { last: to, step: 1, .. }) = (spec.begin, spec.find) else {
        return None;
    };
    let (at, to) = (i64::from(at), i64::from(to));
    (last == 0 || last == at - 1).then_some((at, if to >= 0 { at + to } else { to }))
}

/// Whether first, last and step leave keys out.
fn keys_move(specs: &[Spec]) -> bool {
    if let [Spec { begin: Begin::Index(_), find: Find::Range { .. }, flags }] = specs {
        return flags & spec_flag::INCOMPLETE != 0;
    }
    let mut last = 0;
    specs.iter().any(|spec| match joins(spec, last) {
        Some((_, to)) => {
            last = to;
            spec.flags & spec_flag::INCOMPLETE != 0
        }
        None => true,
    })
}

fn key_spec(spec: &Spec, resp: Resp, out: &mut Vec<u8>) {
    wire::map(out, resp, 3);
    wire::bulk(out, b"flags");
    simple_set(out, resp, &words(&spec_flag::NAMES, u32::from(spec.flags)), "");
    wire::bulk(out, b"begin_search");
    match spec.begin {
        Begin::Index(at) => typed(out, resp, "index", &[("index", i64::from(at))], None),
        Begin::Keyword { word, from } => {
            typed(out, resp, "keyword", &[("startfrom", i64::from(from))], Some(word));
        }
        Begin::Unknown => typed(out, resp, "unknown", &[], None),
    }
    wire::bulk(out, b"find_keys");
    match spec.find {
        Find::Range { last, step, limit } => {
            let (last, step, limit) = (i64::from(last), i64::from(step), i64::from(limit));
            typed(
                out,
                resp,
                "range",
                &[("lastkey", last), ("keystep", step), ("limit", limit)],
                None,
            );
        }
        Find::Counted { count, first, step } => {
            let (count, first, step) = (i64::from(count), i64::from(first), i64::from(step));
            let numbers = [("keynumidx", count), ("firstkey", first), ("keystep", step)];
            typed(out, resp, "keynum", &numbers, None);
        }
        Find::Unknown => typed(out, resp, "unknown", &[], None),
    }
}

/// `type`, its name, `spec`, and what it consists of.
fn typed(
    out: &mut Vec<u8>,
    resp: Resp,
    name: &str,
    numbers: &[(&str, i64)],
    keyword: Option<&str>,
) {
    wire::map(out, resp, 2);
    for word in ["type", name, "spec"] {
        wire::bulk(out, word.as_bytes());
    }
    wire::map(out, resp, numbers.len() + usize::from(keyword.is_some()));
    if let Some(keyword) = keyword {
        wire::bulk(out, b"keyword");
        wire::bulk(out, keyword.as_bytes());
    }
    for (name, number) in numbers {
        wire::bulk(out, name.as_bytes());
        wire::integer(out, *number);
    }
}
