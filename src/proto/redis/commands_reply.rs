//! Answers to COMMAND and its subcommands, from our own table, as Redis 7 writes them.
//! COMMAND GETKEYS names exactly the keys that requests are routed by. Not one command's entry: that is
//! `commands_entry`.

use super::{
    args::Args,
    class::Resp,
    commands_entry::{categories, entry},
    flags::{flag, group, spec_flag, words},
    keys, reply,
    table::{Command, Commands, Kind},
    wire,
};

/// Appends the answer to a request that was found to be [`super::table::Local::Command`].
pub fn command(commands: &Commands, args: Args<'_>, resp: Resp, out: &mut Vec<u8>) {
    if args.len() < 2 {
        return all(commands, resp, out);
    }
    let found = commands.find(args).filter(|found| found.name.contains('|'));
    let Some(found) = found else {
        return reply::unknown_subcommand(out, args);
    };
    if !found.arity_ok(args.len()) {
        return reply::wrong_arity(out, found.name);
    }
    let asks_much = args.len() > MOST_NAMES + 2 || args.frame.len() > LONGEST_REQUEST;
    match found.name {
        "COMMAND|GETKEYS" | "COMMAND|GETKEYSANDFLAGS" => {
            get_keys(commands, found, args, resp, out);
        }
        _ if asks_much => out.extend_from_slice(reply::TOO_MANY_NAMES),
        "COMMAND|COUNT" => wire::integer(out, top_level(commands).count()),
        "COMMAND|INFO" => info(commands, args, resp, out),
        "COMMAND|LIST" => list(commands, args, out),
        "COMMAND|DOCS" => docs(commands, args, resp, out),
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

fn all(commands: &Commands, resp: Resp, out: &mut Vec<u8>) {
    wire::array(out, top_level(commands).count());
    for command in top_level(commands) {
        entry(commands, command, resp, out);
    }
}

fn info(commands: &Commands, args: Args<'_>, resp: Resp, out: &mut Vec<u8>) {
    if args.len() == 2 {
        return all(commands, resp, out);
    }
    wire::array(out, args.len().saturating_sub(2));
    for command in named(commands, args) {
        match command {
            Some(command) => entry(commands, command, resp, out),
            None => wire::null(out, resp),
        }
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
        _ => return out.extend_from_slice(reply::SYNTAX),
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
fn docs(commands: &Commands, args: Args<'_>, resp: Resp, out: &mut Vec<u8>) {
    let listed: Vec<&Command> = if args.len() == 2 {
        top_level(commands).collect()
    } else {
        named(commands, args).flatten().collect()
    };
    wire::map(out, resp, listed.len());
    for command in listed {
        let name = command.name.to_ascii_lowercase();
        let page = name.replace('|', "-");
        let group = words(&group::NAMES, command.groups).first().copied();
        let group = match group {
            Some("keyspace") | None => "generic",
            Some("sortedset") => "sorted-set",
            Some("dangerous" | "admin") => "server",
            Some("transaction") => "transactions",
            Some(group) => group,
        };
        wire::bulk(out, name.as_bytes());
        wire::map(out, resp, 3);
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
fn get_keys(commands: &Commands, asked: &Command, args: Args<'_>, resp: Resp, out: &mut Vec<u8>) {
    let inner = Args { frame: args.frame, spans: args.spans.get(2..).unwrap_or_default() };
    let command = commands
        .find(inner)
        .filter(|c| c.kind != Kind::CrossProtocol)
        .filter(|c| inner.len() < 2 || commands.subcommands(c).next().is_none());
    let Some(command) = command else {
        return out.extend_from_slice(reply::INVALID_COMMAND);
    };
    if command.specs.iter().all(|spec| spec.flags & spec_flag::NOT_KEY != 0) {
        return out.extend_from_slice(reply::NO_KEYS);
    }
    if !command.arity_ok(inner.len()) {
        return out.extend_from_slice(reply::INVALID_ARITY);
    }
    let keys = keys::keys(command, inner).unwrap_or_default();
    if keys.is_empty() && command.flags & flag::NO_MANDATORY_KEYS == 0 {
        return out.extend_from_slice(reply::INVALID_ARGUMENTS);
    }
    if asked.name == "COMMAND|GETKEYSANDFLAGS" {
        let keys = keys::flagged(command, inner).unwrap_or_default();
        wire::array(out, keys.len());
        for (at, flags) in keys {
            let words = words(&spec_flag::NAMES, u32::from(of_request(command, flags, inner)));
            wire::array(out, 2);
            wire::bulk(out, inner.get(at).unwrap_or_default());
            wire::set(out, resp, words.len());
            words.iter().for_each(|word| wire::simple(out, word));
        }
        return;
    }
    wire::array(out, keys.len());
    for key in keys.filter_map(|at| inner.get(at)) {
        wire::bulk(out, key);
    }
}

/// db.c, setGetKeys and bitfieldGetKeys: what some commands do to their key depends on their
/// arguments.
fn of_request(command: &Command, flags: u16, args: Args<'_>) -> u16 {
    if flags & spec_flag::VARIABLE == 0 {
        return flags;
    }
    let has = |from, words: &[&[u8]]| {
        args.iter().skip(from).any(|arg| words.iter().any(|word| word.eq_ignore_ascii_case(arg)))
    };
    match command.name {
        "SET" if !has(3, &[b"GET"]) => spec_flag::OW | spec_flag::UPDATE,
        "BITFIELD" if !has(2, &[b"SET", b"INCRBY"]) => spec_flag::RO | spec_flag::ACCESS,
        _ => flags & !spec_flag::VARIABLE,
    }
}

fn help(out: &mut Vec<u8>) {
    const LINES: [&str; 8] = [
        "COMMAND [<subcommand> [<arg> [value] ...]]. Without one: all commands. Subcommands are:",
        "COUNT -- how many commands there are.",
        "DOCS [<command> ...] -- where they are documented.",
        "GETKEYS <command> [<arg> ...] -- the keys of that request.",
        "GETKEYSANDFLAGS <command> [<arg> ...] -- likewise, and what is done to them.",
        "INFO [<command> ...] -- their arity, flags and key positions.",
        "LIST [FILTERBY (MODULE <name> | ACLCAT <category> | PATTERN <pattern>)] -- their names.",
        "HELP -- this text.",
    ];
    wire::array(out, LINES.len());
    for line in LINES {
        wire::simple(out, line);
    }
}

/// More than there are commands. Each name asked for takes up to 10 KB of the answer: without a
/// bound a request of 10 MB would ask for 10 GB.
const MOST_NAMES: usize = 1024;
const LONGEST_REQUEST: usize = 64 * 1024;
