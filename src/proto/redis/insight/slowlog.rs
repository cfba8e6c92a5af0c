//! The slow log of a cluster and `SLOWLOG`: the newest slow requests of all its clients, in the shape
//! that clients of Redis know, with where the time went behind the arguments. Not the measuring: that
//! is [`super::slow`].

use super::super::{
    args::Args,
    dispatch::{Flow, Scene},
    reply, wire,
};
use std::{collections::VecDeque, fmt::Write, sync::Arc};

/// One slow request.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Slow {
    pub unix_s: u64,
    /// From the last byte of the request to its reply.
    pub total_us: u64,
    /// Of that with us: until it was sent.
    pub queue_us: u64,
    /// Of that sent, and behind others on its connection.
    pub behind_us: u64,
    /// Its address; empty when it has gone.
    pub peer: Arc<str>,
    /// What it has called itself.
    pub name: Vec<u8>,
    pub args: Vec<Vec<u8>>,
    pub shard: Arc<str>,
    pub backend: Arc<str>,
    pub tries: u8,
    pub timed_out: bool,
}

/// The newest of them.
#[derive(Debug, Default)]
pub(in super::super) struct SlowLog {
    most: usize,
    next: u64,
    /// The newest first.
    entries: VecDeque<(u64, Slow)>,
}

impl SlowLog {
    /// A log of so many.
    pub(in super::super) fn new(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    /// How many there were, those included that are gone.
    pub(super) fn total(&self) -> u64 {
        self.next
    }

    pub(super) fn push(&mut self, slow: Slow) {
        self.entries.truncate(self.most.saturating_sub(1));
        if self.most > 0 {
            self.entries.push_front((self.next, slow));
        }
        self.next += 1;
    }
}

impl Slow {
    /// Where the time went, as the last argument.
    fn way(&self) -> String {
        let upstream = self.total_us.saturating_sub(self.queue_us);
        let mut text = format!(
            "(queue {}us, upstream {upstream}us of which {}us behind others, shard {}, backend {}",
            self.queue_us,
            self.behind_us.min(upstream),
            self.shard,
            self.backend,
        );
        if self.tries > 1 {
            let _ = write!(text, ", try {}", self.tries);
        }
        text.push_str(if self.timed_out { ", timed out)" } else { ")" });
        text
    }
}

/// `SLOWLOG GET [count]`, `LEN`, `RESET`.
pub(in super::super) fn answer(scene: &Scene<'_>, args: Args<'_>) -> Flow {
    let Some(mut log) = scene.hub.insight.slowlog(scene.cluster.id) else {
        return scene.say(|out| wire::array(out, 0));
    };
    let word = args.get(1).unwrap_or_default();
    if word.eq_ignore_ascii_case(b"LEN") {
        return scene.say(|out| wire::integer(out, log.entries.len()));
    }
    if word.eq_ignore_ascii_case(b"RESET") {
        log.entries.clear();
        return scene.say(|out| out.extend_from_slice(reply::OK));
    }
    if args.len() > 3 {
        return scene.say(|out| reply::wrong_arity(out, "SLOWLOG|GET"));
    }
    let count = match args.get(2).map(|text| std::str::from_utf8(text).map(str::parse::<i64>)) {
        None => DEFAULT_COUNT,
        Some(Ok(Ok(-1))) => usize::MAX,
        Some(Ok(Ok(count))) => match usize::try_from(count) {
            Ok(count) => count,
            Err(_) => return scene.say(|out| out.extend_from_slice(reply::SLOWLOG_COUNT)),
        },
        Some(_) => return scene.say(|out| out.extend_from_slice(reply::NOT_INTEGER)),
    };
    scene.say(|out| write(&log, count, out))
}

/// slowlog.c: six elements each. No further ones: a client that counts would lose its place.
fn write(log: &SlowLog, count: usize, out: &mut Vec<u8>) {
    wire::array(out, log.entries.len().min(count));
    for (id, slow) in log.entries.iter().take(count) {
        wire::array(out, 6);
        wire::integer(out, *id);
        wire::integer(out, slow.unix_s);
        wire::integer(out, slow.total_us);
        wire::array(out, slow.args.len() + 1);
        slow.args.iter().for_each(|arg| wire::bulk(out, arg));
        wire::bulk(out, slow.way().as_bytes());
        wire::bulk(out, slow.peer.as_bytes());
        wire::bulk(out, &slow.name);
    }
}

/// The arguments as slowlog.c keeps them: 32 of 128 bytes each, and how much is missing. Of a request
/// whose bytes are gone, or with `redact`, the command's `name` alone.
pub(super) fn trimmed(args: Args<'_>, name: &str, redact: bool) -> Vec<Vec<u8>> {
    if redact || args.is_empty() {
        let why = if redact { "(redacted)" } else { "(its arguments are not kept)" };
        return vec![name.to_ascii_lowercase().into(), why.into()];
    }
    let more = args.len().saturating_sub(MOST_ARGS);
    let kept = if more > 0 { MOST_ARGS - 1 } else { args.len() };
    let mut trimmed: Vec<Vec<u8>> = args
        .iter()
        .take(kept)
        .map(|arg| match arg.split_at_checked(LONGEST_ARG) {
            Some((head, rest)) if !rest.is_empty() => {
                [head, format!("... ({} more bytes)", rest.len()).as_bytes()].concat()
            }
            _ => arg.to_vec(),
        })
        .collect();
    if more > 0 {
        trimmed.push(format!("... ({} more arguments)", more + 1).into());
    }
    trimmed
}

const DEFAULT_COUNT: usize = 10;
const MOST_ARGS: usize = 32;
const LONGEST_ARG: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::redis::testing::Request;

    #[test]
    fn the_newest_are_kept_and_numbered() {
        let mut log = SlowLog::new(2);
        for total_us in 1..=5 {
            log.push(Slow { total_us, ..Slow::default() });
        }
        let kept: Vec<_> = log.entries.iter().map(|(id, slow)| (*id, slow.total_us)).collect();
        assert_eq!(kept, [(4, 5), (3, 4)]);
    }

    #[test]
    fn arguments_are_cut_as_redis_cuts_them() {
        let request = Request::new((0..40).map(|n| "x".repeat(n * 10)));
        let kept = trimmed(request.args(), "GET", false);
        assert_eq!(kept.len(), 32);
        assert_eq!(kept[31], b"... (9 more arguments)");
        assert_eq!(kept[12].len(), 120);
        assert!(kept[13].ends_with(b"x... (2 more bytes)"), "{}", kept[13].escape_ascii());
        let told = trimmed(request.args(), "GET", true);
        assert_eq!(told, [b"get".to_vec(), b"(redacted)".to_vec()]);
    }
}
