//! What must hold when any bytes are taken for replies of servers, and of the replies that we make
//! of them. Not for requests: that is [`super::fuzz_requests`].

use super::{
    args::Args,
    class::Resp,
    commands_reply,
    cursor::Cursor,
    frame::{Decoder, Frame, Limits},
    fuzzing::steps,
    gather::{Gather, Merge},
    info,
    inline::to_resp,
    keys::Keys,
    reply,
    scan::{ScanError, Scanner},
    table::{Commands, Tree},
    tree::Value,
};

/// The first byte is the least piece that is passed on early. The same replies are measured wherever
/// the bytes are split, passed on in pieces or not.
pub fn replies(data: &[u8]) {
    let Some((piece, bytes)) = data.split_first() else { return };
    let (piece, never) = (usize::from(*piece), usize::MAX);
    let whole = measured(bytes, [bytes.len()], never);
    assert_eq!(measured(bytes, steps(bytes.len()), never), whole, "byte by byte");
    assert_eq!(measured(bytes, steps(bytes.len()), piece), whole, "byte by byte, in pieces");
    for cut in steps(bytes.len()) {
        assert_eq!(measured(bytes, [cut, bytes.len()], never), whole, "split at {cut}");
        assert_eq!(measured(bytes, [cut, bytes.len()], piece), whole, "pieces, split at {cut}");
    }
    let _ = Value::parse(bytes);
}

/// A reply to COMMAND, true or not, changes nothing that we know ourselves, and the table goes on
/// to answer every question with one whole reply.
pub fn learn(data: &[u8]) {
    thread_local!(static COMMANDS: Commands = Commands::builtin());
    let mut commands = COMMANDS.with(Commands::clone);
    let before = commands.len();
    let learned = commands.learn(data);
    assert_eq!(commands.len(), before + learned);
    assert_eq!(commands.by_name(b"GET").map(|get| get.keys), Some(Keys::First(1)));
    for new in commands.iter().skip(before) {
        assert_eq!(commands.by_name(new.name.as_bytes()).map(|found| found.name), Some(new.name));
        super::fuzz_requests::keys_in(&commands, format!("{} 1 a 2", new.name).as_bytes());
    }
    if learned > 0 {
        let mut request = Vec::new();
        to_resp(&["COMMAND"], &mut request);
        let mut decoder = Decoder::default();
        let limits = Limits { bulk: 64, args: 1, authenticated: true };
        assert_eq!(decoder.decode(&request, &limits), Ok(Frame::Request(request.len())));
        let mut out = Vec::new();
        let args = Args { frame: &request, spans: decoder.spans() };
        commands_reply::command(&commands, args, Resp::Three, &mut out);
        assert_one(&out);
    }
}

/// Bytes: how many shards, the shard of a pattern's tag or none; a line: the client's cursor; the
/// rest: the server's reply. The client gets one reply, whose cursor goes on where the server's does.
pub fn cursor(data: &[u8]) {
    let [shards, only, rest @ ..] = data else { return };
    let shards = u32::from(*shards) + 1;
    let only = Some(u32::from(*only)).filter(|only| *only < shards);
    let Some(at) = rest.iter().position(|byte| *byte == b'\n') else { return };
    let (text, rest) = rest.split_at(at);
    let Some(at) = Cursor::parse(text, shards, only) else { return };
    assert!(at.shard < shards);
    let Some(reply) = first_reply(rest.get(1..).unwrap_or_default()) else { return };
    let mut out = Vec::new();
    at.rewrite(reply, &mut out);
    assert_one(&out);
    let (Some(node), Some(next)) = (scan_cursor(reply), scan_cursor(&out)) else { return };
    let next = Cursor::parse(next.to_string().as_bytes(), shards, None).expect("ours");
    if node > 0 {
        assert_eq!((next.shard, next.node), (at.shard, node));
    } else {
        assert!(next.node == 0 && [0, at.shard + 1].contains(&next.shard), "{next:?}");
    }
}

/// Bytes: how replies are merged, of how many parts, a number; the rest: the parts' replies. They
/// become one whole reply, of no more bytes than they had, with some for our own words.
pub fn gather(data: &[u8]) {
    let [how, parts, number, rest @ ..] = data else { return };
    let parts = u16::from(parts % 8) + 1;
    let merge = match how % 18 {
        0 => Merge::ByPosition {
            order: (0..u16::from(*number)).map(|i| i * 7 % parts).collect(),
            embeds: number % 2 == 1,
        },
        1 => Merge::Sum,
        2 => Merge::SumOfWrites,
        3 => Merge::AllOk,
        4 => Merge::Min,
        5 => Merge::Concat { most: 100 },
        6 => match Cursor::parse(number.to_string().as_bytes(), 3, None) {
            Some(cursor) => Merge::Scan(cursor),
            None => return,
        },
        7 => Merge::RandomKey { draw: u64::from(*number) << 56 },
        8 => Merge::Info(info::Frame {
            header: Some("# Sluice\r\n".to_owned()),
            clients: 1,
            paused: 1,
        }),
        9 => Merge::Texts { shards: (0..parts).map(|part| format!("s{part}").into()).collect() },
        10 => Merge::Tree(Tree::Stats, Resp::Two),
        11 => Merge::Tree(Tree::Histogram, Resp::Two),
        12 => Merge::Tree(Tree::Latest, Resp::Two),
        13 => Merge::Xor,
        14 => Merge::And,
        15 => Merge::AllSucceed,
        16 => Merge::OneSucceeds,
        _ => Merge::First,
    };
    let mut gather = Gather::new("MSET", merge, parts);
    let mut rest = rest;
    for part in 0..parts {
        let reply = first_reply(rest).unwrap_or(b":1\r\n");
        rest = rest.get(reply.len()..).unwrap_or_default();
        assert_eq!(gather.accept(part, "s0", reply), part + 1 == parts);
    }
    // An error of ours may stand in a part's place.
    assert!(gather.held() <= data.len() + (reply::OTHER_KIND.len() + 4) * usize::from(parts));
    let mut out = Vec::new();
    gather.finish(&mut out);
    assert_one(&out);
    // Bytes that are no UTF-8 take three; each database's line may have a longer number.
    assert!(out.len() <= 2048 + 8 * data.len(), "{} of {}", out.len(), data.len());
}

/// Reads as an upstream connection does, and passes on pieces of at least `piece` bytes. The length
/// of each reply, and what was wrong.
fn measured(
    bytes: &[u8],
    ends: impl IntoIterator<Item = usize>,
    piece: usize,
) -> (Vec<usize>, Option<ScanError>) {
    let (mut scanner, mut lens) = (Scanner::default(), Vec::new());
    // Where the current reply begins, and where what was not passed on does.
    let (mut begin, mut start) = (0, 0);
    for end in ends {
        loop {
            let here = bytes.get(start..end).unwrap_or_default();
            match scanner.measure(here) {
                Ok(Some(len)) => {
                    assert!(len <= here.len() && start + len > begin);
                    start += len;
                    lens.push(start - begin);
                    begin = start;
                }
                Ok(None) => {
                    if here.len() >= piece {
                        let passed = scanner.passable(here.len());
                        assert!(passed <= here.len());
                        scanner.consumed(passed);
                        start += passed;
                    }
                    break;
                }
                Err(error) => return (lens, Some(error)),
            }
        }
    }
    (lens, None)
}

fn first_reply(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(..Scanner::default().measure(bytes).ok()??)
}

fn assert_one(reply: &[u8]) {
    let len = Scanner::default().measure(reply);
    assert_eq!(len, Ok(Some(reply.len())), "not one reply: {}", reply.escape_ascii());
}

/// The cursor of a reply to SCAN.
fn scan_cursor(reply: &[u8]) -> Option<u64> {
    Value::parse(reply)?.array()?.first()?.text()?.parse().ok()
}
