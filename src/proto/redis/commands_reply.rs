//! Answers to COMMAND and its subcommands, from our own table, in RESP2 as Redis 7 writes them.
//! COMMAND GETKEYS names exactly the keys that requests are routed by.

use super::{
    args::Args,
    keys::{self, Begin, Find, Spec, spec_flag},
    table::{Command, Commands, Kind, flag, group},
    wire,
};

/// Appends the answer to a request that was found to be [`super::table::Local::Command`].
pub fn command(commands: &Commands, args: Args<'_>, out: &mut Vec<u8>) {
    let Some(sub) = args.get(1) else {
        return all(commands, out);
    };
    let found = commands.find(args).filter(|found| found.name.contains('|'));
    let Some(found) = found else {
        let sub = String::from_utf8_lossy(sub.get(..sub.len().min(128)).unwrap_or(sub));
        let sub = sub.replace(['\r', '\n'], " ");
        let text = format!("ERR unknown subcommand '{sub}'. Try COMMAND HELP.");
        return wire::error(out, &text);
    };
    if !found.arity_ok(args.len()) {
        let name = found.name.to_ascii_lowercase();
        let text = format!("ERR wrong number of arguments for '{name}' command");
        return wire::error(out, &text);
    }
    match found.name {
        "COMMAND|COUNT" => wire::integer(out, top_level(commands).count()),
        "COMMAND|INFO" => info(commands, args, out),
        "COMMAND|LIST" => list(commands, args, out),
        "COMMAND|DOCS" => docs(commands, args, out),
        "COMMAND|GETKEYS" => get_keys(commands, args, out),
        _ => help(out),
    }
}

/// The commands that `COMMAND` lists: those that are no subcommands, and are commands at all.
fn top_level(commands: &Commands) -> impl Iterator<Item = &Command> {
    commands.iter().filter(|c| !c.name.contains('|') && c.kind != Kind::CrossProtocol)
}

/// The commands that were asked for by name: what is unknown stays in the answer as `None`.
fn named<'a>(commands: &'a Commands, args: Args<'a>) -> impl Iterator<Item = Option<&'a Command>> {
    args.iter().skip(2).map(|name| commands.by_name(name).filter(|c| c.kind != Kind::CrossProtocol))
}

fn all(commands: &Commands, out: &mut Vec<u8>) {
    wire::array(out, top_level(commands).count());
    for command in top_level(commands) {
        entry(commands, command, out);
    }
}

fn info(commands: &Commands, args: Args<'_>, out: &mut Vec<u8>) {
    if args.len() == 2 {
        return all(commands, out);
    }
    wire::array(out, args.len().saturating_sub(2));
    for command in named(commands, args) {
        match command {
            Some(command) => entry(commands, command, out),
            None => wire::null_array(out),
        }
    }
}

/// One command with its subcommands, which do not nest further.
fn entry(commands: &Commands, command: &Command, out: &mut Vec<u8>) {
    let (first, last, step) = range_of_old(&command.specs);
    wire::array(out, 10);
    wire::bulk(out, command.name.to_ascii_lowercase().as_bytes());
    wire::integer(out, command.arity);
    simple_set(out, &flag_words(command), "");
    for number in [first, last, step] {
        wire::integer(out, number);
    }
    simple_set(out, &categories(command), "@");
    wire::array(out, command.tips.len());
    for tip in command.tips {
        wire::bulk(out, tip.as_bytes());
    }
    wire::array(out, command.specs.len());
    for spec in command.specs.iter() {
        key_spec(spec, out);
    }
    wire::array(out, commands.subcommands(command).count());
    for sub in commands.subcommands(command) {
        entry(commands, sub, out);
    }
}

fn simple_set(out: &mut Vec<u8>, words: &[&str], prefix: &str) {
    wire::array(out, words.len());
    for word in words {
        wire::simple(out, &format!("{prefix}{word}"));
    }
}

fn flag_words(command: &Command) -> Vec<&'static str> {
    let mut words = words_of(&flag::NAMES, command.flags);
    if keys_move(&command.specs) {
        words.push("movablekeys");
    }
    words
}

/// The ACL categories: those stated, and those that follow from the flags (Redis's
/// `setImplicitACLCategories`).
fn categories(command: &Command) -> Vec<&'static str> {
    let has = |flag| command.flags & flag != 0;
    let mut words = words_of(&group::NAMES, command.groups);
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
    words
}

fn words_of(names: &[&'static str], bits: u32) -> Vec<&'static str> {
    names.iter().zip(0..).filter(|&(_, bit)| bits & 1 << bit != 0).map(|(name, _)| *name).collect()
}

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

fn key_spec(spec: &Spec, out: &mut Vec<u8>) {
    wire::array(out, 6);
    wire::bulk(out, b"flags");
    simple_set(out, &words_of(&spec_flag::NAMES, u32::from(spec.flags)), "");
    wire::bulk(out, b"begin_search");
    match spec.begin {
        Begin::Index(at) => typed(out, "index", &[("index", i64::from(at))], None),
        Begin::Keyword { word, from } => {
            typed(out, "keyword", &[("startfrom", i64::from(from))], Some(word));
        }
        Begin::Unknown => typed(out, "unknown", &[], None),
    }
    wire::bulk(out, b"find_keys");
    match spec.find {
        Find::Range { last, step, limit } => {
            let (last, step, limit) = (i64::from(last), i64::from(step), i64::from(limit));
            typed(out, "range", &[("lastkey", last), ("keystep", step), ("limit", limit)], None);
        }
        Find::Counted { count, first, step } => {
            let (count, first, step) = (i64::from(count), i64::from(first), i64::from(step));
            let numbers = [("keynumidx", count), ("firstkey", first), ("keystep", step)];
            typed(out, "keynum", &numbers, None);
        }
        Find::Unknown => typed(out, "unknown", &[], None),
    }
}

/// `type`, its name, `spec`, and what it consists of.
fn typed(out: &mut Vec<u8>, name: &str, numbers: &[(&str, i64)], keyword: Option<&str>) {
    wire::array(out, 4);
    for word in ["type", name, "spec"] {
        wire::bulk(out, word.as_bytes());
    }
    wire::array(out, 2 * (numbers.len() + usize::from(keyword.is_some())));
    if let Some(keyword) = keyword {
        wire::bulk(out, b"keyword");
        wire::bulk(out, keyword.as_bytes());
    }
    for (name, number) in numbers {
        wire::bulk(out, name.as_bytes());
        wire::integer(out, *number);
    }
}

/// COMMAND LIST, with or without one filter.
fn list(commands: &Commands, args: Args<'_>, out: &mut Vec<u8>) {
    let word = |at| args.get(at).unwrap_or_default();
    let filter = word(3).to_ascii_uppercase();
    let by = word(4);
    let wanted: Box<dyn Fn(&Command) -> bool> = match (args.len(), filter.as_slice()) {
        (2, _) => Box::new(|_| true),
        // Which commands a backend's modules brought is not kept.
        (5, b"MODULE") if is_filter(word(2)) => Box::new(|_| false),
        (5, b"ACLCAT") if is_filter(word(2)) => Box::new(move |command| {
            categories(command).iter().any(|name| name.as_bytes().eq_ignore_ascii_case(by))
        }),
        (5, b"PATTERN") if is_filter(word(2)) => {
            Box::new(move |command| glob(by, command.name.as_bytes()))
        }
        _ => return wire::error(out, "ERR syntax error"),
    };
    let all = commands.iter().filter(|c| c.kind != Kind::CrossProtocol && wanted(c));
    let names: Vec<String> = all.map(|command| command.name.to_ascii_lowercase()).collect();
    wire::array(out, names.len());
    for name in names {
        wire::bulk(out, name.as_bytes());
    }
}

fn is_filter(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"FILTERBY")
}

/// Whether `text` fits `pattern` of `*`, `?` and letters of any case. Linear in their product.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        let here = pattern.get(p).copied();
        if here == Some(b'*') {
            star = Some((p + 1, t));
            p += 1;
        } else if here
            .is_some_and(|c| c == b'?' || text.get(t).is_some_and(|l| l.eq_ignore_ascii_case(&c)))
        {
            (p, t) = (p + 1, t + 1);
        } else if let Some((after, from)) = star {
            star = Some((after, from + 1));
            (p, t) = (after, from + 1);
        } else {
            return false;
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|&c| c == b'*'))
}

/// COMMAND DOCS: of each command its group and where it is documented; the texts are Redis's.
fn docs(commands: &Commands, args: Args<'_>, out: &mut Vec<u8>) {
    let listed: Vec<&Command> = if args.len() == 2 {
        top_level(commands).collect()
    } else {
        named(commands, args).flatten().collect()
    };
    wire::array(out, listed.len() * 2);
    for command in listed {
        let name = command.name.to_ascii_lowercase();
        let page = name.replace('|', "-");
        let group = words_of(&group::NAMES, command.groups).first().copied();
        let group = match group {
            Some("keyspace") | None => "generic",
            Some("sortedset") => "sorted-set",
            Some("dangerous" | "admin") => "server",
            Some("transaction") => "transactions",
            Some(group) => group,
        };
        wire::bulk(out, name.as_bytes());
        wire::array(out, 6);
        for (field, value) in [
            ("summary", format!("See https://redis.io/docs/latest/commands/{page}/")),
            ("since", String::new()),
            ("group", group.to_owned()),
        ] {
            wire::bulk(out, field.as_bytes());
            wire::bulk(out, value.as_bytes());
        }
    }
}

/// COMMAND GETKEYS.
fn get_keys(commands: &Commands, args: Args<'_>, out: &mut Vec<u8>) {
    let inner = Args { frame: args.frame, spans: args.spans.get(2..).unwrap_or_default() };
    let command = commands
        .find(inner)
        .filter(|c| c.kind != Kind::CrossProtocol)
        .filter(|c| inner.len() < 2 || commands.subcommands(c).next().is_none());
    let Some(command) = command else {
        return wire::error(out, "ERR Invalid command specified");
    };
    if command.specs.iter().all(|spec| spec.flags & spec_flag::NOT_KEY != 0) {
        return wire::error(out, "ERR The command has no key arguments");
    }
    if !command.arity_ok(inner.len()) {
        return wire::error(out, "ERR Invalid number of arguments specified for command");
    }
    let keys = keys::keys(command, inner).unwrap_or_default();
    if keys.is_empty() && command.flags & flag::NO_MANDATORY_KEYS == 0 {
        return wire::error(out, "ERR Invalid arguments specified for command");
    }
    wire::array(out, keys.len());
    for key in keys.filter_map(|at| inner.get(at)) {
        wire::bulk(out, key);
    }
}

fn help(out: &mut Vec<u8>) {
    const LINES: [&str; 7] = [
        "COMMAND [<subcommand> [<arg> [value] ...]]. Without one: all commands. Subcommands are:",
        "COUNT -- how many commands there are.",
        "DOCS [<command> ...] -- where they are documented.",
        "GETKEYS <command> [<arg> ...] -- the keys of that request.",
        "INFO [<command> ...] -- their arity, flags and key positions.",
        "LIST [FILTERBY (MODULE <name> | ACLCAT <category> | PATTERN <pattern>)] -- their names.",
        "HELP -- this text.",
    ];
    wire::array(out, LINES.len());
    for line in LINES {
        wire::simple(out, line);
    }
}
