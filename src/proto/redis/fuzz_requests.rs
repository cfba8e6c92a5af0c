//! What must hold when any bytes are taken for requests. Not for replies: that is
//! [`super::fuzz_replies`].

use super::{
    args::Args,
    feed::Feed,
    frame::{DecodeError, Decoder, Frame, Limits},
    fuzzing::steps,
    inline::{parse, to_resp},
    keys::{keys as keys_of, pattern_keys},
    table::Commands,
};

/// The first byte chooses the limits. The same requests are found wherever the bytes are split, and
/// each is, byte for byte, what a client library would have written: a server takes it too.
pub fn requests(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    let limits = Limits {
        bulk: if choice & 1 == 0 { 512 << 20 } else { 8 },
        args: if choice & 2 == 0 { 1 << 20 } else { 3 },
        authenticated: choice & 4 == 0,
    };
    let whole = found(bytes, &limits, [bytes.len()]);
    assert_eq!(found(bytes, &limits, steps(bytes.len())), whole, "byte by byte");
    for cut in steps(bytes.len()) {
        assert_eq!(found(bytes, &limits, [cut, bytes.len()]), whole, "split at {cut}");
    }
}

/// A line is an error or words that a request of the same words has.
pub fn inline(line: &[u8]) {
    let Ok(words) = parse(line) else { return };
    assert!(words.iter().map(Vec::len).sum::<usize>() <= line.len());
    with_request(&words, |args| assert!(args.iter().eq(words.iter().map(Vec::as_slice))));
    let quoted: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    assert_eq!(parse(quoted.join(" ").as_bytes()), Ok(words));
}

/// Words between spaces: a command (`GET`, `ACL|CAT`) and its arguments; a command nobody knows stands
/// for some known one. The keys are arguments, in the order and number that they say.
pub fn keys(data: &[u8]) {
    thread_local!(static COMMANDS: Commands = Commands::builtin());
    COMMANDS.with(|commands| keys_in(commands, data));
}

pub(super) fn keys_in(commands: &Commands, data: &[u8]) {
    let mut words: Vec<Vec<u8>> = data.split(|byte| *byte == b' ').map(<[u8]>::to_vec).collect();
    let name = words.first().cloned().unwrap_or_default();
    let found = commands.by_name(&name).inspect(|found| {
        assert!(found.name.as_bytes().eq_ignore_ascii_case(&name), "{}", found.name);
    });
    let sum: usize = name.iter().map(|byte| usize::from(*byte)).sum();
    let some =
        found.or_else(|| commands.iter().nth(sum % commands.len())).map_or("GET", |c| c.name);
    words.splice(..1, some.split('|').map(|part| part.as_bytes().to_vec()));
    with_request(&words, |args| {
        let command = commands.find(args).expect("the command is in the table");
        command.blocks(args);
        assert!(pattern_keys(command, args).all(|pattern| pattern.contains(&b'*')));
        if let Ok(found) = keys_of(command, args) {
            let places: Vec<usize> = found.collect();
            assert_eq!(found.len(), places.len());
            assert_eq!(found.first(), places.first().copied());
            assert_eq!(found.is_empty(), places.is_empty());
            assert!(places.iter().all(|at| (1..args.len()).contains(at)), "{places:?}");
        }
    });
}

/// What a session would do next.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Request(Vec<Vec<u8>>),
    Inline(Vec<u8>),
    Nothing(usize),
    Error(DecodeError),
    /// So many bytes are left that are no whole request.
    Left(usize),
}

/// What is passed on while it comes ends where the whole request does.
fn assert_fed(frame: &[u8], words: usize, limits: &Limits) {
    let front = frame.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let mut feed = Feed::new(u32::try_from(words).expect("as announced"), limits.bulk);
    let rest = frame.get(front..).unwrap_or_default();
    for (at, byte) in rest.iter().enumerate() {
        assert!(!feed.is_over(), "over at {at} of {}", rest.len());
        assert_eq!(feed.take(&[*byte]), Ok(1));
    }
    assert!(feed.is_over());
}

/// Reads as a session does, the bytes arriving up to each of `ends` in turn.
fn found(bytes: &[u8], limits: &Limits, ends: impl IntoIterator<Item = usize>) -> Vec<Found> {
    let (mut decoder, mut start, mut all) = (Decoder::default(), 0, Vec::new());
    for end in ends {
        while start < end {
            let here = bytes.get(start..end).unwrap_or_default();
            let len = match decoder.decode(here, limits) {
                Ok(Frame::Incomplete) => break,
                Ok(Frame::Nothing(len)) => {
                    all.push(Found::Nothing(len));
                    len
                }
                Ok(Frame::Inline { len, line }) => {
                    all.push(Found::Inline(here.get(..line).expect("a line has come").to_vec()));
                    len
                }
                Ok(Frame::Request(len)) => {
                    let frame = here.get(..len).expect("a request has come");
                    let args = Args { frame, spans: decoder.spans() };
                    let words: Vec<Vec<u8>> = args.iter().map(<[u8]>::to_vec).collect();
                    let mut anew = Vec::new();
                    to_resp(&words, &mut anew);
                    assert_eq!(anew, frame, "not as a server takes it");
                    assert_fed(frame, words.len(), limits);
                    all.push(Found::Request(words));
                    len
                }
                Err(error) => {
                    all.push(Found::Error(error));
                    return all;
                }
            };
            assert!(0 < len && len <= here.len());
            start += len;
            decoder.reset();
        }
    }
    all.push(Found::Left(bytes.len() - start));
    all
}

fn with_request(words: &[Vec<u8>], then: impl FnOnce(Args<'_>)) {
    let mut frame = Vec::new();
    to_resp(words, &mut frame);
    let limits = Limits { bulk: u64::MAX, args: u32::MAX, authenticated: true };
    let mut decoder = Decoder::default();
    let whole = decoder.decode(&frame, &limits);
    if !words.is_empty() {
        assert_eq!(whole, Ok(Frame::Request(frame.len())));
        then(Args { frame: &frame, spans: decoder.spans() });
    }
}

/// As redis-cli quotes what is not printable.
fn quoted(word: &[u8]) -> String {
    let bytes: String = word.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    format!("\"{bytes}\"")
}
