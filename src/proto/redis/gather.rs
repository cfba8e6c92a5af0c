//! Puts one reply together from the replies of several shards. It knows replies, not who sent the
//! requests: [`super::split`] and [`super::fan_out`] decide that.

use super::{
    class::Resp,
    cursor::Cursor,
    digest, info, reply,
    scan::Scanner,
    spanning::{self, Spanning},
    subscribe::Published,
    table, tree_merge, wire,
};
use std::sync::Arc;

/// What is collected for one request.
#[derive(Debug)]
pub(super) struct Gather {
    merge: Merge,
    /// For the error texts: the command's name.
    command: &'static str,
    parts: u16,
    /// The first part says whether the others are asked at all.
    leads: bool,
    answered: u16,
    failed: u16,
    /// The first error: the shard that said it and its text without `-` and CRLF.
    error: Option<(String, Vec<u8>)>,
    /// Others have said something else.
    errors_differ: bool,
    sum: i64,
    /// Replies kept whole, by part.
    kept: Vec<Vec<u8>>,
    kept_bytes: usize,
    /// Of the arrays kept.
    elements: usize,
}

/// How the parts become one reply.
#[derive(Debug)]
pub(super) enum Merge {
    /// MGET: `order[i]` is the part that has the i-th element next. With `embeds` a part that
    /// failed is told in the places of its elements.
    ByPosition { order: Vec<u16>, embeds: bool },
    /// EXISTS, TOUCH, DBSIZE: reads that are added up; any error is the reply.
    Sum,
    /// DEL, UNLINK: writes that are added up.
    SumOfWrites,
    /// MSET, FLUSHALL: `+OK` when all said so.
    AllOk,
    /// LASTSAVE: the smallest.
    Min,
    /// KEYS: one array of all elements.
    Concat {
        /// More elements are an error.
        most: usize,
    },
    /// SCAN: one shard's reply, its cursor rewritten.
    Scan(Cursor),
    /// RANDOMKEY: parts come in pairs, DBSIZE and RANDOMKEY of a shard; `draw` picks by size.
    RandomKey { draw: u64 },
    /// INFO: one text, its counts added up, behind our own header.
    Info(info::Frame),
    /// MEMORY DOCTOR: the texts, each under its shard's name.
    Texts { shards: Vec<Arc<str>> },
    /// MEMORY STATS, LATENCY HISTOGRAM, LATENCY LATEST: by names.
    Tree(table::Tree, Resp),
    /// DEBUG DIGEST.
    Xor,
    /// WAIT: the least of the counts.
    Least,
    /// WAIT behind writes: of each shard its replication, a publication and a count; `streams` are
    /// those that were written to.
    Waited { streams: Vec<u64> },
    /// The first part's reply when no part failed.
    First,
    /// The client does not want to hear it.
    Nothing,
    /// SCRIPT LOAD, FUNCTION LOAD: likewise; where some have done it and others not, that is told.
    AllSucceed,
    /// SCRIPT EXISTS: arrays of 0 and 1, 1 where all say so.
    And,
    /// SCRIPT KILL: the reply of one that did it; the others had nothing to do.
    OneSucceeds,
    /// PUBLISH: the number of receivers, as we know it.
    Published(Published),
    /// EXEC of a transaction with requests to all shards.
    Spanning(Box<Spanning>),
    /// CLIENT TRACKINGINFO, of one whose client of that id is told.
    TrackingInfo(Option<u64>),
}

impl Gather {
    /// Waits for `parts` replies.
    pub(super) fn new(command: &'static str, merge: Merge, parts: u16) -> Self {
        let keeps = match merge {
            Merge::Sum | Merge::SumOfWrites | Merge::Min | Merge::AllOk => 0,
            Merge::Published(_) | Merge::Nothing => 0,
            _ => usize::from(parts),
        };
        let sum = if matches!(merge, Merge::Min) { i64::MAX } else { 0 };
        Self {
            leads: matches!(merge, Merge::Spanning(_)),
            merge,
            command,
            parts,
            answered: 0,
            failed: 0,
            error: None,
            errors_differ: false,
            sum,
            kept: vec![Vec::new(); keeps],
            elements: 0,
            kept_bytes: 0,
        }
    }

    /// Whatever comes, the client hears nothing of it.
    pub(super) fn say_nothing(&mut self) {
        self.merge = Merge::Nothing;
        self.kept = Vec::new();
    }

    /// Takes the reply of one part; true when it was the last one.
    pub(super) fn accept(&mut self, part: u16, from: &str, bytes: &[u8]) -> bool {
        self.answered += 1;
        let error = match bytes.strip_prefix(b"-") {
            None if !self.fits(bytes) => Some(reply::OTHER_KIND),
            None if self.overflows(bytes) => Some(reply::TOO_MANY_KEYS),
            error => error,
        };
        if let Some(error) = error {
            self.failed += 1;
            if let (Merge::ByPosition { embeds: true, .. } | Merge::Spanning(_), Some(kept)) =
                (&self.merge, self.kept.get_mut(usize::from(part)))
            {
                reply::raw_error(kept, error.trim_ascii_end());
                self.kept_bytes += kept.len();
            }
            let text = error.trim_ascii_end();
            self.errors_differ |= self.error.as_ref().is_some_and(|(_, first)| first != text);
            let idle = |error: &[u8]| error.starts_with(b"NOTBUSY");
            if self.error.as_ref().is_none_or(|(_, kept)| idle(kept) && !idle(error)) {
                self.error = Some((from.to_owned(), error.trim_ascii_end().to_vec()));
            }
        } else if let Some(kept) = self.kept.get_mut(usize::from(part)) {
            self.kept_bytes += bytes.len();
            *kept = bytes.to_vec();
        } else if let Some(number) = integer(bytes) {
            self.sum = match self.merge {
                Merge::Min => self.sum.min(number),
                _ => self.sum.saturating_add(number),
            };
        }
        if part == 0 && self.leads && !spanning::is_executed(bytes) {
            self.answered = self.parts;
        }
        self.answered == self.parts
    }

    /// Whether a part was an error.
    pub(super) fn has_failed(&self) -> bool {
        self.failed > 0
    }

    /// Whether a reply is of the kind that can be merged; where any is passed on, it is.
    fn fits(&self, bytes: &[u8]) -> bool {
        match self.merge {
            Merge::ByPosition { .. } | Merge::Concat { .. } | Merge::Tree(..) | Merge::And => {
                bytes.starts_with(b"*")
            }
            Merge::Sum | Merge::SumOfWrites | Merge::Min | Merge::Published(_) => {
                integer(bytes).is_some()
            }
            Merge::Info(_) | Merge::Texts { .. } => {
                bytes.starts_with(b"$") || bytes.starts_with(b"=")
            }
            Merge::Xor => digest::parse(bytes).is_some(),
            Merge::AllOk | Merge::Scan(_) | Merge::RandomKey { .. } | Merge::First => true,
            Merge::AllSucceed
            | Merge::OneSucceeds
            | Merge::TrackingInfo(_)
            | Merge::Spanning(_) => true,
            Merge::Least | Merge::Waited { .. } | Merge::Nothing => true,
        }
    }

    /// Whether there are more elements than may be told; then nothing of them is kept.
    fn overflows(&mut self, bytes: &[u8]) -> bool {
        let Merge::Concat { most } = self.merge else { return false };
        self.elements = self.elements.saturating_add(Elements::new(bytes).count);
        if self.elements > most {
            self.kept.iter_mut().for_each(|kept| *kept = Vec::new());
            self.kept_bytes = 0;
        }
        self.elements > most
    }

    /// Bytes held.
    pub(super) fn held(&self) -> usize {
        self.kept_bytes
    }

    /// Writes the reply.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        if matches!(self.merge, Merge::Nothing) {
            return;
        }
        // INFO tells of the shards that answer: a client that looks whether we are there asks it.
        let partial = matches!(
            self.merge,
            Merge::Info(_) | Merge::OneSucceeds | Merge::ByPosition { embeds: true, .. }
        ) && self.failed < self.parts
            || matches!(self.merge, Merge::Spanning(_));
        if self.failed > 0 && !partial {
            return self.fail(out);
        }
        match &self.merge {
            Merge::ByPosition { order, .. } => by_position(order, &self.kept, out),
            Merge::Sum | Merge::SumOfWrites | Merge::Min => wire::integer(out, self.sum),
            Merge::Published(published) => wire::integer(out, published.receivers(self.sum)),
            Merge::AllOk => out.extend_from_slice(reply::OK),
            Merge::Concat { .. } => concat(&self.kept, out),
            Merge::Scan(cursor) => cursor.rewrite(self.kept.first().map_or(&b""[..], |k| k), out),
            Merge::RandomKey { draw } => random_key(*draw, &self.kept, out),
            Merge::Info(frame) => info::merge(frame, &self.kept, out),
            Merge::Texts { shards } => texts(shards, &self.kept, out),
            Merge::Tree(how, resp) => tree_merge::merge(*how, *resp, &self.kept, out),
            Merge::Xor => digest::xor(&self.kept, out),
            Merge::Least => super::wait::least(self.kept.iter().map(Vec::as_slice), out),
            Merge::Waited { streams } => super::wait::waited(streams, &self.kept, out),
            Merge::Nothing => {}
            Merge::Spanning(spanning) => spanning.finish(&self.kept, out),
            Merge::First | Merge::AllSucceed | Merge::OneSucceeds => {
                let told = self.kept.iter().find(|kept| !kept.is_empty());
                out.extend_from_slice(told.map_or(&b""[..], |kept| kept));
            }
            Merge::And => and(&self.kept, out),
            Merge::TrackingInfo(client) => super::redirect::info(*client, &self.kept, out),
        }
    }

    fn fail(&self, out: &mut Vec<u8>) {
        let Some((shard, error)) = &self.error else { return };
        if self.failed == self.parts && !self.errors_differ {
            // As one server would say it: nothing was done anywhere.
            return reply::raw_error(out, error);
        }
        match self.merge {
            Merge::AllOk | Merge::SumOfWrites => reply::partial_write(
                out,
                self.command,
                self.failed,
                self.parts,
                shard,
                &String::from_utf8_lossy(error),
            ),
            Merge::AllSucceed if self.failed < self.parts => reply::partly_done(
                out,
                self.command,
                self.failed,
                self.parts,
                shard,
                &String::from_utf8_lossy(error),
            ),
            _ => reply::raw_error(out, error),
        }
    }
}

/// 1 in each place where every part has it.
fn and(parts: &[Vec<u8>], out: &mut Vec<u8>) {
    let mut parts: Vec<Elements<'_>> = parts.iter().map(|part| Elements::new(part)).collect();
    let count = parts.iter().map(|part| part.count).min().unwrap_or(0);
    wire::array(out, count);
    for _ in 0..count {
        let others =
            parts.iter_mut().filter_map(|part| part.next().filter(|one| *one != b":1\r\n"));
        let all = others.count() == 0;
        wire::integer(out, i64::from(all));
    }
}

/// The elements of every part's array, taken in the order of the keys asked for.
fn by_position(order: &[u16], parts: &[Vec<u8>], out: &mut Vec<u8>) {
    let mut cursors: Vec<Elements<'_>> = parts.iter().map(|part| Elements::new(part)).collect();
    wire::array(out, order.len());
    for part in order {
        let error = parts.get(usize::from(*part)).filter(|part| part.starts_with(b"-"));
        let element = match error {
            Some(error) => Some(error.as_slice()),
            None => cursors.get_mut(usize::from(*part)).and_then(Iterator::next),
        };
        out.extend_from_slice(element.unwrap_or(reply::NULL));
    }
}

fn concat(parts: &[Vec<u8>], out: &mut Vec<u8>) {
    let total = parts.iter().map(|part| Elements::new(part).count).sum();
    wire::array(out, total);
    for part in parts {
        out.extend_from_slice(Elements::new(part).rest);
    }
}

/// Each text under a line with its shard's name.
fn texts(shards: &[Arc<str>], parts: &[Vec<u8>], out: &mut Vec<u8>) {
    let mut all = String::new();
    for (shard, part) in shards.iter().zip(parts) {
        let text = info::text(part);
        all.push_str(&format!("# shard {shard}\n{}\n", text.trim_end()));
    }
    let verbatim = parts.iter().any(|part| part.starts_with(b"="));
    let resp = if verbatim { Resp::Three } else { Resp::Two };
    wire::verbatim(out, resp, all.as_bytes());
}

fn random_key(draw: u64, parts: &[Vec<u8>], out: &mut Vec<u8>) {
    let shards = || {
        parts.chunks_exact(2).filter_map(|pair| match pair {
            [size, key] if !is_null(key) => {
                Some((integer(size).and_then(|n| u64::try_from(n).ok()).unwrap_or(0).max(1), key))
            }
            _ => None,
        })
    };
    let total: u128 = shards().map(|(size, _)| u128::from(size)).sum();
    let mut left = if total == 0 { 0 } else { u128::from(draw) % total };
    for (size, key) in shards() {
        let size = u128::from(size);
        if left < size {
            out.extend_from_slice(key);
            return;
        }
        left -= size;
    }
    // The null of the version that the shards speak.
    out.extend_from_slice(parts.iter().find(|part| is_null(part)).map_or(reply::NULL, |null| null));
}

fn is_null(reply: &[u8]) -> bool {
    matches!(reply, b"$-1\r\n" | b"_\r\n")
}

/// The number of a `:n` reply.
pub(super) fn integer(bytes: &[u8]) -> Option<i64> {
    std::str::from_utf8(bytes.strip_prefix(b":")?).ok()?.trim_end().parse().ok()
}

/// The elements of an array reply that was measured before.
struct Elements<'a> {
    count: usize,
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    fn new(array: &'a [u8]) -> Self {
        let end = memchr::memchr(b'\n', array).map_or(array.len(), |end| end + 1);
        let header = array.get(1..end).unwrap_or_default().trim_ascii_end();
        let count = std::str::from_utf8(header).ok().and_then(|n| n.parse().ok()).unwrap_or(0);
        Self { count, rest: array.get(end..).unwrap_or_default() }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let len = Scanner::default().measure(self.rest).ok().flatten()?;
        let (element, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(element)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(merge: Merge, parts: &[&[u8]]) -> String {
        let mut gather = Gather::new("MSET", merge, u16::try_from(parts.len()).unwrap());
        for (i, part) in parts.iter().enumerate() {
            let done = gather.accept(u16::try_from(i).unwrap(), &format!("s{i}"), part);
            assert_eq!(done, i + 1 == parts.len());
        }
        let mut out = Vec::new();
        gather.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn parts_merge_as_the_command_wants() {
        let order = vec![1, 0, 1];
        let parts: [&[u8]; 2] = [b"*1\r\n$1\r\nb\r\n", b"*2\r\n$-1\r\n$1\r\nc\r\n"];
        assert_eq!(
            gathered(Merge::ByPosition { order, embeds: false }, &parts),
            "*3\r\n$-1\r\n$1\r\nb\r\n$1\r\nc\r\n"
        );
        assert_eq!(
            gathered(Merge::Concat { most: 3 }, &parts),
            "*3\r\n$1\r\nb\r\n$-1\r\n$1\r\nc\r\n"
        );
        let parts: [&[u8]; 2] = [b"*1\r\n_\r\n", b"*2\r\n$1\r\nb\r\n_\r\n"];
        let order = vec![1, 0, 1];
        let merge = Merge::ByPosition { order, embeds: false };
        assert_eq!(gathered(merge, &parts), "*3\r\n$1\r\nb\r\n_\r\n_\r\n");
        assert_eq!(gathered(Merge::Sum, &[b":2\r\n", b":40\r\n"]), ":42\r\n");
        assert_eq!(gathered(Merge::AllOk, &[b"+OK\r\n", b"+OK\r\n"]), "+OK\r\n");
    }

    #[test]
    fn scripts_are_there_when_all_have_them_and_killed_when_one_was() {
        let parts: [&[u8]; 3] =
            [b"*3\r\n:1\r\n:0\r\n:1\r\n", b"*3\r\n:1\r\n:1\r\n:0\r\n", b"-NOTBUSY idle\r\n"];
        assert_eq!(gathered(Merge::And, &parts[..2]), "*3\r\n:1\r\n:0\r\n:0\r\n");
        assert_eq!(gathered(Merge::And, &parts), "-NOTBUSY idle\r\n");
        assert_eq!(gathered(Merge::OneSucceeds, &[parts[2], b"+OK\r\n"]), "+OK\r\n");
        assert_eq!(
            gathered(Merge::OneSucceeds, &[parts[2], b"-UNKILLABLE\r\n"]),
            "-UNKILLABLE\r\n"
        );
        assert_eq!(gathered(Merge::AllSucceed, &[b"$1\r\nf\r\n", b"$1\r\nf\r\n"]), "$1\r\nf\r\n");
        assert_eq!(gathered(Merge::AllSucceed, &[parts[2], parts[2]]), "-NOTBUSY idle\r\n");
        assert_eq!(
            gathered(Merge::AllSucceed, &[parts[2], b"$1\r\nf\r\n"]),
            "-ERR sluice: MSET failed on 1 of 2 shards (shard s0: NOTBUSY idle); the others have done it\r\n"
        );
    }

    #[test]
    fn a_read_gets_the_error_and_a_write_hears_what_was_written() {
        let parts: [&[u8]; 2] = [b"+OK\r\n", b"-OOM no memory\r\n"];
        assert_eq!(gathered(Merge::Sum, &[b":1\r\n", parts[1]]), "-OOM no memory\r\n");
        assert_eq!(
            gathered(Merge::AllOk, &parts),
            "-ERR sluice: MSET failed on 1 of 2 shards (shard s1: OOM no memory); other keys were written\r\n"
        );
    }

    #[test]
    fn an_error_stands_in_the_places_of_its_keys_when_asked_for() {
        let parts: [&[u8]; 2] = [b"-ERR gone\r\n", b"*1\r\n$1\r\nc\r\n"];
        let merge = |embeds| Merge::ByPosition { order: vec![0, 1, 0], embeds };
        assert_eq!(gathered(merge(false), &parts), "-ERR gone\r\n");
        let told = "*3\r\n-ERR gone\r\n$1\r\nc\r\n-ERR gone\r\n";
        assert_eq!(gathered(merge(true), &parts), told);
    }

    #[test]
    fn a_random_key_comes_from_a_shard_that_has_one() {
        let parts: [&[u8]; 4] = [b":0\r\n", b"$-1\r\n", b":3\r\n", b"$1\r\nk\r\n"];
        for draw in 0..5 {
            assert_eq!(gathered(Merge::RandomKey { draw }, &parts), "$1\r\nk\r\n");
        }
        for null in ["$-1\r\n", "_\r\n"] {
            let empty = [b":0\r\n", null.as_bytes()];
            assert_eq!(gathered(Merge::RandomKey { draw: 1 }, &empty), null);
        }
    }

    /// Merged by its length alone, `:5` became an array of five elements that never came.
    #[test]
    fn a_reply_of_another_kind_becomes_an_error() {
        let order = vec![0, 0];
        for reply in [&b":5\r\n"[..], b"$5\r\nhello\r\n", b"+OK\r\n"] {
            let order = order.clone();
            for merge in [Merge::Concat { most: 9 }, Merge::ByPosition { order, embeds: false }] {
                assert!(gathered(merge, &[reply]).starts_with("-ERR sluice: "));
            }
        }
        assert!(gathered(Merge::Sum, &[b":1\r\n", b"+OK\r\n"]).starts_with("-ERR sluice: "));
        assert!(gathered(Merge::SumOfWrites, &[b":1\r\n", b"+OK\r\n"]).contains("on 1 of 2"));
    }

    #[test]
    fn too_many_keys_are_an_error_and_are_not_kept() {
        let parts: [&[u8]; 2] = [b"*1\r\n$1\r\nb\r\n", b"*2\r\n$-1\r\n$1\r\nc\r\n"];
        let told = gathered(Merge::Concat { most: 2 }, &parts);
        assert!(told.starts_with("-ERR sluice: more than redis.keys_max"), "{told}");
        let mut gather = Gather::new("KEYS", Merge::Concat { most: 2 }, 3);
        for part in [0, 1, 2] {
            gather.accept(part, "s", parts[1]);
        }
        assert_eq!(gather.held(), 0);
    }

    #[test]
    fn texts_stand_under_the_names_of_their_shards() {
        let shards = vec!["a".into(), "b".into()];
        let told = gathered(Merge::Texts { shards }, &[b"$2\r\nhi\r\n", b"$3\r\nyou\r\n"]);
        assert_eq!(told, "$27\r\n# shard a\nhi\n# shard b\nyou\n\r\n");
    }

    #[test]
    fn sizes_that_no_server_has_do_not_overflow() {
        let parts: [&[u8]; 6] =
            [&b":9223372036854775807\r\n"[..], b"$1\r\nk\r\n"].repeat(3).try_into().unwrap();
        assert_eq!(gathered(Merge::RandomKey { draw: u64::MAX }, &parts), "$1\r\nk\r\n");
    }
}
