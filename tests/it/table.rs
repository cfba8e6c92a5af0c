//! The command table held against a real redis-server: its `COMMAND`, its `COMMAND GETKEYS` and
//! its inline commands. Nothing here goes through a proxy.

use crate::harness::{Dice, PATIENCE, Redis as Server};
use redis::{Connection, ConnectionLike, Value};
use sluice::{
    policy::access::Access,
    proto::redis::{
        args::{Args, Span},
        class::Resp,
        commands_reply, inline,
        keys::{KeysError, keys},
        table::{Commands, Kind},
    },
};
use std::collections::{BTreeMap, BTreeSet};

/// What asks for ourselves.
const OURS: [&str; 7] = [
    "SLUICE",
    "SLUICE|CLIENTS",
    "SLUICE|CLUSTERS",
    "SLUICE|EXPLAIN",
    "SLUICE|HELP",
    "SLUICE|HOTKEYS",
    "SLUICE|SHARDS",
];

/// What we know and Redis 7.0 does not: 7.2, 7.4, 8 (to 8.10), Valkey, and Sentinel's.
const NEWER: &str = "\
    WAITAOF CLIENT|NO-TOUCH CLIENT|SETINFO CLUSTER|MYSHARDID HEXPIRE HPEXPIRE HEXPIREAT \
    HPEXPIREAT HPERSIST HTTL HPTTL HEXPIRETIME HPEXPIRETIME SFLUSH HGETDEL HGETEX HSETEX \
    XACKDEL XDELEX XCFGSET DELEX DELIFEQ DIGEST MSETEX VADD VREM VSETATTR VCARD VDIM VEMB \
    VGETATTR VINFO VISMEMBER VLINKS VRANDMEMBER VRANGE VSIM ARCOUNT ARDEL ARDELRANGE ARGET \
    ARGETRANGE ARGREP ARINFO ARINSERT ARLASTITEMS ARLEN ARMGET ARMSET ARNEXT AROP ARRING \
    ARSCAN ARSEEK ARSET INCREX SUNIONCARD SDIFFCARD XIDMPRECORD XNACK LMOVEM BLMOVEM \
    CLUSTER|MIGRATION BACKUP BACKUP|ABORT BACKUP|CLEANUP BACKUP|LIST BACKUP|SEAL BACKUP|START \
    BACKUP|STATUS BACKUP|HELP HOTKEYS HOTKEYS|GET HOTKEYS|RESET HOTKEYS|START HOTKEYS|STOP \
    HOTKEYS|HELP HIMPORT HIMPORT|DISCARD HIMPORT|DISCARDALL HIMPORT|PREPARE HIMPORT|SET \
    CLIENT|CAPA CLUSTER|SLOT-STATS SCRIPT|SHOW SENTINEL SENTINEL|CKQUORUM SENTINEL|CONFIG \
    SENTINEL|DEBUG SENTINEL|FAILOVER SENTINEL|FLUSHCONFIG SENTINEL|GET-MASTER-ADDR-BY-NAME \
    SENTINEL|GET-PRIMARY-ADDR-BY-NAME SENTINEL|HELP SENTINEL|INFO-CACHE \
    SENTINEL|IS-MASTER-DOWN-BY-ADDR SENTINEL|IS-PRIMARY-DOWN-BY-ADDR SENTINEL|MASTER \
    SENTINEL|MASTERS SENTINEL|MONITOR SENTINEL|MYID SENTINEL|PENDING-SCRIPTS \
    SENTINEL|PRIMARIES SENTINEL|PRIMARY SENTINEL|REMOVE SENTINEL|REPLICAS SENTINEL|RESET \
    SENTINEL|SENTINELS SENTINEL|SET SENTINEL|SIMULATE-FAILURE SENTINEL|SLAVES";

#[test]
fn every_command_of_the_server_is_in_the_table_as_the_server_tells_it() {
    let server = Server::start();
    let commands = Commands::builtin();
    let theirs = entries(&ask(&server, &["COMMAND"]));
    let ours = entries(&answer(&commands, &["COMMAND"]));
    for (name, entry) in &theirs {
        assert_eq!(ours.get(name), Some(entry), "{name}");
    }
    let beyond: BTreeSet<&str> =
        ours.keys().filter(|name| !theirs.contains_key(*name)).map(String::as_str).collect();
    let newer: Vec<String> = NEWER.split_whitespace().chain(OURS).map(str::to_lowercase).collect();
    assert_eq!(beyond, newer.iter().map(String::as_str).collect());
}

#[test]
fn reads_and_writes_are_what_the_server_flags_as_such() {
    let server = Server::start();
    let commands = Commands::builtin();
    for (name, entry) in entries(&ask(&server, &["COMMAND"])) {
        let command = commands.by_name(name.as_bytes()).unwrap();
        let (writes, reads) = (entry.flags.contains("write"), entry.flags.contains("readonly"));
        if writes || reads {
            assert_eq!(command.access == Access::Read, reads, "{name}");
        }
        // Neither: not for a replica, whatever it is.
        assert!(reads || !command.replica_ok, "{name}");
        assert!(command.blocking || !entry.flags.contains("blocking"), "{name}");
        if entry.flags.contains("admin") {
            assert!(!matches!(command.kind, Kind::Keyed | Kind::Split(_)), "{name}");
        }
    }
}

#[test]
fn keys_are_the_servers_for_generated_arguments() {
    let server = Server::start();
    let mut connection = connect(&server);
    let commands = Commands::builtin();
    let newer: BTreeSet<&str> = NEWER.split_whitespace().collect();
    let mut dice = Dice::new(0x5EED);
    let keyed: Vec<_> = commands
        .iter()
        .filter(|command| !command.specs.is_empty() && !newer.contains(command.name))
        .collect();
    assert!(keyed.len() > 180, "{}", keyed.len());
    for command in keyed {
        let requests: Vec<Vec<String>> =
            (0..400).map(|_| generate(command.name, command.arity, &mut dice)).collect();
        let mut pipeline = redis::pipe();
        for request in &requests {
            pipeline.cmd("COMMAND").arg("GETKEYS").arg(request);
        }
        let packed = pipeline.get_packed_pipeline();
        let theirs = connection.req_packed_commands(&packed, 0, requests.len()).unwrap();
        let mut with_keys = 0;
        for (request, theirs) in requests.iter().zip(theirs) {
            let mut asked = vec!["COMMAND", "GETKEYS"];
            asked.extend(request.iter().map(String::as_str));
            let ours = outcome(answer(&commands, &asked));
            let theirs = outcome(theirs);
            with_keys += usize::from(theirs.is_ok());
            assert_eq!(ours, theirs, "ours and the server's keys of {request:?}");
        }
        // SPUBLISH and its like name channels, which GETKEYS does not count as keys.
        let channels = ["SPUBLISH", "SSUBSCRIBE", "SUNSUBSCRIBE"].contains(&command.name);
        assert!(
            channels || with_keys >= 20,
            "{}: only {with_keys} requests with keys",
            command.name
        );
    }
}

#[test]
fn getkeysandflags_tells_what_the_server_tells() {
    let server = Server::start();
    let commands = Commands::builtin();
    for line in [
        "SET k v",
        "SET k v EX 10 GET",
        "SET get get",
        "MSET a 1 b 2",
        "LMOVE a b LEFT RIGHT",
        "SORT a",
        "SORT a BY w_* STORE b",
        "BITFIELD k GET u8 0",
        "BITFIELD k GET u8 0 SET u8 0 1",
        "ZINTERSTORE d 2 a b",
        "GEORADIUS k 0 0 1 m STORE d",
        "EVAL s 2 a b c",
        "XREAD COUNT 1 STREAMS a b 0 0",
        "DEL a b",
        "COPY a b",
        "PING",
        "nosuch k",
        "GET k k",
    ] {
        let mut asked = vec!["COMMAND", "GETKEYSANDFLAGS"];
        asked.extend(line.split(' '));
        assert_eq!(answer(&commands, &asked), ask(&server, &asked), "{line}");
    }
}

#[test]
fn keys_of_newer_commands_are_where_their_documentation_says() {
    let commands = Commands::builtin();
    for (line, wanted) in [
        ("MSETEX 2 a 1 b 2 EX 10", "a b"),
        ("HEXPIRE k 10 FIELDS 1 f", "k"),
        ("HGETEX k FIELDS 1 f", "k"),
        ("XACKDEL k g IDS 1 0-1", "k"),
        ("VSIM k ELE e", "k"),
        ("DELEX k IFEQ v", "k"),
        ("DELIFEQ k v", "k"),
        ("SUNIONCARD 2 a b LIMIT 3", "a b"),
        ("LMOVEM a b LEFT RIGHT COUNT 2 BULK", "a b"),
        ("HIMPORT SET k fields v", "k"),
        ("ARSET k 0 v", "k"),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let wanted: Vec<&str> = wanted.split(' ').collect();
        let asked = [&["COMMAND", "GETKEYS"], words.as_slice()].concat();
        assert_eq!(outcome(answer(&commands, &asked)), Ok(sorted(&wanted)), "{line}");
    }
}

/// `KeysError` promises that it does not matter where such a request goes.
#[test]
fn the_server_refuses_what_has_no_keys_for_us() {
    let server = Server::start();
    let commands = Commands::builtin();
    let mut refused = 0;
    for count in ["-1", "9", "x", "", "99999999999999999999", "9223372036854775807", "1 ", "1.0"] {
        for (line, place) in [
            ("EVAL s N k", 2),
            ("EVALSHA_RO s N k", 2),
            ("FCALL f N k", 2),
            ("LMPOP N k LEFT", 1),
            ("ZMPOP N k MIN", 1),
            ("SINTERCARD N k", 1),
            ("ZUNION N k", 1),
            ("ZDIFFSTORE to N k", 2),
            ("ZUNIONSTORE to N k WEIGHTS 1", 2),
            ("BLMPOP 0.01 N k LEFT", 2),
        ] {
            let mut words: Vec<&str> = line.split(' ').collect();
            words[place] = count;
            let (frame, spans) = request(&words);
            let args = Args { frame: &frame, spans: &spans };
            let command = commands.find(args).unwrap();
            assert_eq!(keys(command, args), Err(KeysError::Count), "{words:?}");
            let reply = ask(&server, &words);
            assert!(matches!(reply, Value::ServerError(_)), "{words:?}: {reply:?}");
            refused += 1;
        }
    }
    assert_eq!(refused, 80);
}

#[test]
fn inline_commands_are_split_as_the_server_splits_them() {
    let server = Server::start();
    let mut dice = Dice::new(0x111E);
    const PIECES: &str = "a|bc| |  |\t|\"|\"|'|'|\\|\\\\|\\x41|\\xfF|\\xg|\\n|\\'|\\\"|\u{b}|#|é";
    let pieces: Vec<&str> = PIECES.split('|').collect();
    let (mut split, mut unbalanced) = (0, 0);
    for _ in 0..1_500 {
        // DEL's keys are all its arguments, so that GETKEYS tells how the line was split.
        let mut line = String::from("COMMAND GETKEYS DEL ");
        for _ in 0..pick(&mut dice, 10) {
            line.push_str(pieces[pick(&mut dice, pieces.len())]);
        }
        let theirs = inline_reply(&server, &line);
        match inline::parse(line.as_bytes()) {
            Ok(words) if words.len() > 3 => {
                let mut wanted = Vec::new();
                inline::to_resp(&words[3..], &mut wanted);
                assert_eq!(text(&theirs), text(&wanted), "{line:?}");
                split += 1;
            }
            Ok(_) => assert!(text(&theirs).contains("wrong number of arguments"), "{line:?}"),
            Err(error) => {
                assert_eq!(text(&theirs), format!("-ERR Protocol error: {error}\r\n"), "{line:?}");
                unbalanced += 1;
            }
        }
    }
    assert!(split > 300 && unbalanced > 100, "{split} {unbalanced}");
}

#[test]
fn nothing_is_learnt_from_a_server_of_a_version_we_know() {
    let server = Server::start();
    let reply = raw(&server, b"*1\r\n$7\r\nCOMMAND\r\n");
    assert!(reply.len() > 50_000, "{}", reply.len());
    let mut commands = Commands::builtin();
    assert_eq!(commands.learn(&reply), 0);
}

#[test]
fn the_small_questions_are_answered_as_the_server_answers_them() {
    let server = Server::start();
    let commands = Commands::builtin();
    for line in [
        "COMMAND INFO nosuch",
        "COMMAND LIST FILTERBY PATTERN config|*",
        "COMMAND LIST FILTERBY PATTERN x?e*D",
        "COMMAND LIST FILTERBY ACLCAT geo",
        "COMMAND LIST FILTERBY ACLCAT nosuch",
        "COMMAND LIST FILTERBY MODULE nosuch",
        "COMMAND LIST FILTERBY nosuch x",
        "COMMAND LIST nosuch",
        "COMMAND COUNT 3",
        "COMMAND GETKEYS",
        "COMMAND GETKEYS PING x",
        "COMMAND GETKEYS nosuch x",
        "COMMAND GETKEYS OBJECT nosuch k",
        "COMMAND GETKEYS EVAL s 0",
        "COMMAND GETKEYS GET k k",
        "COMMAND GETKEYS ZUNION 5 a",
        "COMMAND nosuch",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(canonical(answer(&commands, &words)), canonical(ask(&server, &words)), "{line}");
    }
}

// What COMMAND tells of one command, in no order.

#[derive(Debug, PartialEq)]
struct Entry {
    arity: i64,
    flags: BTreeSet<String>,
    range: [i64; 3],
    categories: BTreeSet<String>,
    tips: BTreeSet<String>,
    specs: Vec<String>,
    container: bool,
}

/// The entries by name, subcommands beside their containers.
fn entries(reply: &Value) -> BTreeMap<String, Entry> {
    let mut found = BTreeMap::new();
    for entry in array(reply) {
        let fields = array(entry);
        assert_eq!(fields.len(), 10);
        let name = word(&fields[0]);
        found.extend(entries(&fields[9]));
        let entry = Entry {
            arity: integer(&fields[1]),
            flags: words(&fields[2]),
            range: [integer(&fields[3]), integer(&fields[4]), integer(&fields[5])],
            categories: words(&fields[6]),
            tips: words(&fields[7]),
            specs: array(&fields[8]).iter().map(spec).collect(),
            container: !array(&fields[9]).is_empty(),
        };
        assert!(found.insert(name, entry).is_none());
    }
    found
}

/// A key specification without its notes, which are prose.
fn spec(value: &Value) -> String {
    let mut fields: Vec<&[Value]> = array(value).chunks(2).collect();
    fields.retain(|field| word(&field[0]) != "notes");
    format!("{:?}", fields.iter().map(|field| canonical(field[1].clone())).collect::<Vec<_>>())
}

/// Lists of words in alphabetical order, everything else as it is.
fn canonical(value: Value) -> Value {
    match value {
        Value::Array(values) => {
            let mut values: Vec<Value> = values.into_iter().map(canonical).collect();
            let flat = values.iter().all(|v| matches!(v, Value::SimpleString(_)));
            let names = values.iter().all(|v| matches!(v, Value::BulkString(_)));
            if flat || names {
                values.sort_by_key(|value| format!("{value:?}"));
            }
            Value::Array(values)
        }
        other => other,
    }
}

fn array(value: &Value) -> &[Value] {
    match value {
        Value::Array(values) => values,
        other => panic!("not an array: {other:?}"),
    }
}

fn integer(value: &Value) -> i64 {
    match value {
        Value::Int(number) => *number,
        other => panic!("not an integer: {other:?}"),
    }
}

fn word(value: &Value) -> String {
    match value {
        Value::SimpleString(text) => text.clone(),
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).unwrap(),
        other => panic!("not a word: {other:?}"),
    }
}

fn words(value: &Value) -> BTreeSet<String> {
    array(value).iter().map(word).collect()
}

fn sorted(words: &[&str]) -> Vec<String> {
    let mut words: Vec<String> = words.iter().map(|&w| w.to_owned()).collect();
    words.sort();
    words
}

/// The keys, in no order, or the server's words.
fn outcome(reply: Value) -> Result<Vec<String>, String> {
    match reply {
        Value::Array(values) => {
            let mut keys: Vec<String> = values.iter().map(word).collect();
            keys.sort();
            Ok(keys)
        }
        Value::ServerError(error) => Err(format!("{error:?}")),
        other => panic!("neither keys nor an error: {other:?}"),
    }
}

/// A request of 10 MB asked for an answer of 10 GB.
#[test]
fn command_info_and_docs_answer_a_bounded_number_of_names() {
    let commands = Commands::builtin();
    let asked = |sub: &'static str, names: usize| {
        let words: Vec<&str> = ["COMMAND", sub].into_iter().chain(vec!["config"; names]).collect();
        answer(&commands, &words)
    };
    for sub in ["INFO", "DOCS"] {
        assert!(matches!(asked(sub, 1024), Value::Array(_)), "{sub}");
        assert!(matches!(asked(sub, 1025), Value::ServerError(_)), "{sub}");
    }
    let words: Vec<&str> =
        ["COMMAND", "GETKEYS", "MGET"].into_iter().chain(vec!["k"; 2000]).collect();
    assert!(matches!(answer(&commands, &words), Value::Array(keys) if keys.len() == 2000));
}

// Requests.

/// The bytes of a request and the places of its arguments.
fn request(words: &[&str]) -> (Vec<u8>, Vec<Span>) {
    let mut frame = format!("*{}\r\n", words.len()).into_bytes();
    let mut spans = Vec::new();
    for word in words {
        frame.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        let number = |n: usize| u32::try_from(n).unwrap();
        spans.push(Span { start: number(frame.len()), len: number(word.len()) });
        frame.extend_from_slice(word.as_bytes());
        frame.extend_from_slice(b"\r\n");
    }
    (frame, spans)
}

/// Our answer to it.
fn answer(commands: &Commands, words: &[&str]) -> Value {
    let (frame, spans) = request(words);
    let mut out = Vec::new();
    commands_reply::command(commands, Args { frame: &frame, spans: &spans }, Resp::Two, &mut out);
    redis::parse_redis_value(&out).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Arguments for a command: often good, sometimes not, with words that mean something elsewhere.
fn generate(name: &str, arity: i16, dice: &mut Dice) -> Vec<String> {
    let mut request: Vec<String> = name.split('|').map(str::to_owned).collect();
    let least = usize::from(arity.unsigned_abs());
    let length = if arity < 0 { least + pick(dice, 6) } else { least };
    let mut fill = |request: &mut Vec<String>, count: usize| {
        const WORDS: [&str; 16] = [
            "a", "b", "k1", "{t}x", "streams", "STORE", "KEYS", "2", "1", "0", "get", "BLOCK",
            "limit", "by", "COUNT", "",
        ];
        for _ in 0..count {
            request.push(WORDS[pick(dice, WORDS.len())].to_owned());
        }
    };
    fill(&mut request, length.saturating_sub(name.split('|').count()));
    // One stream and no id: the server's GETKEYS names arguments at random (7.0.15).
    if name.starts_with("XREAD") {
        request.extend(["k".to_owned(), "0".to_owned()]);
    }
    // Of two STOREs the server's GETKEYS names another one than the command writes to (GEORADIUS),
    // or takes a key named STORE for the option (SORT): we follow the commands.
    if name.starts_with("GEORADIUS") || name == "SORT" {
        let stores = request.iter_mut().skip(2).filter(|word| *word == "STORE");
        stores.skip(1).for_each(|word| "COUNT".clone_into(word));
    }
    // A KEYS that nothing follows is refused, but GETKEYS takes it for no KEYS at all.
    if name == "MIGRATE" && request.last().is_some_and(|word| word == "KEYS") {
        request.push("k".to_owned());
    }
    request
}

/// One of so many.
fn pick(dice: &mut Dice, count: usize) -> usize {
    usize::try_from(dice.below(count as u64)).unwrap()
}

fn connect(server: &Server) -> Connection {
    let client = redis::Client::open(format!("redis://{}", server.address())).unwrap();
    let connection = client.get_connection().unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    connection
}

fn ask(server: &Server, words: &[&str]) -> Value {
    redis::parse_redis_value(&raw(server, &request(words).0)).unwrap()
}

/// The bytes of the reply to one request.
fn raw(server: &Server, request: &[u8]) -> Vec<u8> {
    let mut conn = server.conn();
    conn.send(&[request, b"QUIT\r\n"].concat());
    conn.read_to_close().strip_suffix(b"+OK\r\n").expect("the answer to QUIT").to_vec()
}

/// The reply to a line as it is typed. After a protocol error the server closes, and would reset
/// the connection if a QUIT were left unread.
fn inline_reply(server: &Server, line: &str) -> Vec<u8> {
    let mut conn = server.conn();
    conn.send(format!("{line}\r\n").as_bytes());
    conn.finish_sending();
    conn.read_to_close()
}
