//! One client's line: a place for every request that waits for its reply, so that replies leave in
//! the order of the requests whatever order the backends answer in. It does no I/O.

use super::gather::{Gather, Merge};
use crate::net::outgoing::Outgoing;
use std::collections::VecDeque;

/// The places of one client and the bytes ready to be written to it.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Replies in order, ready to be written.
    pub out: Outgoing,
    /// The sequence number of the first place.
    head: u32,
    places: VecDeque<Place>,
    /// Early replies, copied here until their turn comes.
    parked: Vec<u8>,
    parked_places: usize,
    /// Bytes of replies kept on their own.
    kept: usize,
    /// Bytes held by gathers under way.
    gathered: usize,
    /// A part of the front's reply has been passed on: nothing may come between.
    is_begun: bool,
    /// Pushes that came meanwhile.
    late: Vec<u8>,
    /// Pushes that leave right behind the places with these numbers.
    behind: VecDeque<(u32, Vec<u8>)>,
    behind_bytes: usize,
    /// Places from the front to the last one of which something has come.
    begun: usize,
    /// Requests whose errors its session is to learn of.
    heed: Option<Heed>,
    /// The client knows that all keys have changed, and has got no reply since.
    is_flushed: bool,
    /// The client does not want to hear the replies to the requests that come now.
    pub is_muted: bool,
}

/// What became of a request and of all behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heed {
    pub(super) seq: u32,
    /// It was answered with an error, or a part of it was.
    pub(super) failed: bool,
    /// It was, or any behind it.
    pub(super) any_failed: bool,
}

/// How far a request is after one more reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Others of its parts are missing.
    Waiting,
    Done,
    /// All parts are there, and at least one is an error.
    Failed,
}

#[derive(Debug)]
enum Place {
    Waiting,
    /// A reply that lies in `parked`.
    Parked {
        start: usize,
        len: usize,
    },
    /// A reply for which there was no room there.
    Kept(Vec<u8>),
    Gather(Box<Gather>),
}

impl Line {
    /// How many requests wait.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether no request waits.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Opens a place at the end; the number names it in [`Self::answer`].
    #[inline(always)]
    pub(super) fn open(&mut self) -> u32 {
        if self.is_muted {
            return self.open_gather(Gather::new("", Merge::Nothing, 1));
        }
        self.push(Place::Waiting)
    }

    /// Opens a place whose reply is put together from several.
    pub(super) fn open_gather(&mut self, mut gather: Gather) -> u32 {
        if self.is_muted {
            gather.say_nothing();
        }
        self.push(Place::Gather(Box::new(gather)))
    }

    /// A reply of our own, behind all that wait.
    pub(super) fn reply(&mut self, bytes: &[u8]) {
        if self.is_muted {
            return;
        }
        if self.places.is_empty() {
            self.out.extend(bytes);
        } else {
            let place = self.park(bytes);
            self.push(place);
            self.begun = self.places.len();
        }
    }

    /// Remembers from now on whether `seq` or any request behind it is answered with an error.
    pub(super) fn heed(&mut self, seq: u32) {
        self.heed = Some(Heed { seq, failed: false, any_failed: false });
    }

    /// What came of that.
    pub(super) fn heeded(&self) -> Option<Heed> {
        self.heed
    }

    /// Whether `seq` is at the front and waits for one plain reply.
    pub(super) fn is_plain_head(&self, seq: u32) -> bool {
        seq == self.head && matches!(self.places.front(), Some(Place::Waiting))
    }

    /// Passes on the first bytes of the front's reply; [`Self::answer`] with the rest ends it.
    pub(super) fn stream(&mut self, bytes: &[u8]) {
        self.out.extend(bytes);
        self.is_begun = true;
    }

    /// What nobody asked for: it takes no place, and leaves before every reply that is still to come.
    pub(super) fn push_out(&mut self, bytes: &[u8]) {
        if self.is_begun {
            self.late.extend_from_slice(bytes);
        } else {
            self.out.extend(bytes);
        }
    }

    /// What nobody asked for and speaks of keys that have changed: it leaves behind every reply that
    /// has come, or the client would keep the old value that one of them tells. That all keys have
    /// changed is told once as long as the client gets no reply.
    pub(super) fn push_behind(&mut self, push: &[u8]) {
        if let Some(seq) = self.last_begun() {
            match self.behind.back_mut().filter(|(last, _)| *last == seq) {
                Some((_, pushes)) if push == FLUSH && pushes.ends_with(FLUSH) => return,
                Some((_, pushes)) => pushes.extend_from_slice(push),
                None => self.behind.push_back((seq, push.to_vec())),
            }
            self.behind_bytes += push.len();
        } else if push != FLUSH || self.is_begun || !std::mem::replace(&mut self.is_flushed, true) {
            self.push_out(push);
        }
    }

    /// The last place of which something has come that has not left.
    fn last_begun(&self) -> Option<u32> {
        #[expect(clippy::cast_possible_truncation, reason = "sequence numbers wrap on purpose")]
        let index = self.begun.checked_sub(1)? as u32;
        Some(self.head.wrapping_add(index))
    }

    /// Something has come for the place at `index`, which waits on.
    fn begin(&mut self, index: usize) {
        self.begun = self.begun.max(index + 1);
    }

    /// Answers the place `seq`.
    /// `part` says which part of a gather this is, `from` the shard that answered.
    pub(super) fn answer(&mut self, seq: u32, part: u16, from: &str, bytes: &[u8]) -> Progress {
        let index = seq.wrapping_sub(self.head) as usize;
        if let Some(heed) = &mut self.heed
            && bytes.first() == Some(&b'-')
        {
            heed.failed |= heed.seq == seq;
            heed.any_failed |= seq.wrapping_sub(heed.seq) <= u32::MAX / 2;
        }
        match self.places.get_mut(index) {
            Some(Place::Waiting) if index == 0 => {
                self.out.extend(bytes);
                self.pop_front();
            }
            Some(Place::Waiting) => {
                let place = self.park(bytes);
                self.set(index, place);
                self.begin(index);
            }
            Some(Place::Gather(gather)) => {
                let before = gather.held();
                let done = gather.accept(part, from, bytes);
                self.gathered = (self.gathered + gather.held()).saturating_sub(before);
                if !done {
                    self.begin(index);
                    return Progress::Waiting;
                }
                let failed = gather.has_failed();
                self.finish_gather(index);
                return if failed { Progress::Failed } else { Progress::Done };
            }
            Some(Place::Parked { .. } | Place::Kept(_)) | None => return Progress::Waiting,
        }
        Progress::Done
    }

    /// Bytes held for this client beside its input.
    pub(super) fn held(&self) -> usize {
        let late = self.late.capacity() + self.behind_bytes;
        self.out.held() + self.parked.capacity() + self.kept + self.gathered + late
    }

    /// Bytes of replies that the client has not taken yet, those included whose turn has not come.
    pub(super) fn pending(&self) -> usize {
        self.out.len() + self.parked.len() + self.kept + self.late.len() + self.behind_bytes
    }

    /// Gives back what an idle line does not need.
    pub(super) fn shrink(&mut self) {
        if self.places.is_empty() && self.places.capacity() > KEPT_PLACES {
            self.places = VecDeque::new();
        }
    }

    fn push(&mut self, place: Place) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "sequence numbers wrap on purpose")]
        let seq = self.head.wrapping_add(self.places.len() as u32);
        self.places.push_back(place);
        seq
    }

    fn set(&mut self, index: usize, place: Place) {
        if let Some(slot) = self.places.get_mut(index) {
            *slot = place;
        }
    }

    fn park(&mut self, bytes: &[u8]) -> Place {
        if self.parked.len() + bytes.len() > MOST_PARKED {
            self.kept += bytes.len();
            return Place::Kept(bytes.to_vec());
        }
        let start = self.parked.len();
        self.parked.extend_from_slice(bytes);
        self.parked_places += 1;
        Place::Parked { start, len: bytes.len() }
    }

    fn finish_gather(&mut self, index: usize) {
        let Some(Place::Gather(gather)) = self.places.get_mut(index) else { return };
        self.gathered -= gather.held();
        if index == 0 {
            gather.finish(self.out.tail());
            self.pop_front();
        } else {
            let mut reply = Vec::new();
            gather.finish(&mut reply);
            self.kept += reply.len();
            self.set(index, Place::Kept(reply));
            self.begin(index);
        }
    }

    /// Removes the front, which is answered, and moves out the replies parked right behind it.
    fn pop_front(&mut self) {
        self.leave();
        if std::mem::take(&mut self.is_begun) {
            self.out.extend(&std::mem::take(&mut self.late));
        }
        loop {
            match self.places.front() {
                Some(Place::Parked { start, len }) => {
                    let reply = self.parked.get(*start..start + len).unwrap_or_default();
                    self.out.extend(reply);
                    self.parked_places -= 1;
                }
                Some(Place::Kept(reply)) => {
                    self.out.extend(reply);
                    self.kept -= reply.len();
                }
                Some(Place::Waiting | Place::Gather(_)) | None => break,
            }
            self.leave();
        }
        if self.parked_places == 0 && self.parked.capacity() > 0 {
            if self.places.is_empty() {
                self.parked = Vec::new();
            } else {
                self.parked.clear();
            }
        }
    }

    /// The reply at the front has left; now what was to leave right behind it.
    #[inline(always)]
    fn leave(&mut self) {
        let seq = self.head;
        self.places.pop_front();
        self.head = seq.wrapping_add(1);
        self.begun = self.begun.saturating_sub(1);
        self.is_flushed = false;
        if self.behind.front().is_some_and(|(last, _)| *last == seq)
            && let Some((_, pushes)) = self.behind.pop_front()
        {
            self.out.extend(&pushes);
            self.behind_bytes -= pushes.len();
            self.is_flushed = pushes.ends_with(FLUSH);
        }
    }
}

/// A server's word that all keys have changed.
const FLUSH: &[u8] = b">2\r\n$10\r\ninvalidate\r\n_\r\n";
/// 64 places of 24 bytes are kept by an idle line: the first window of a pipelining client.
const KEPT_PLACES: usize = 64;
/// Beyond this early replies are kept each on its own, so that what is parked cannot grow while
/// some of it is always waiting.
const MOST_PARKED: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever order replies come in, they leave in the order of the requests.
        #[test]
        fn replies_leave_in_order(order in Just((0u32..40).collect::<Vec<_>>()).prop_shuffle(), local in proptest::collection::vec(any::<bool>(), 40)) {
            let mut line = Line::default();
            let mut seqs = Vec::new();
            for (i, local) in local.iter().enumerate() {
                if *local {
                    line.reply(format!("[{i}]").as_bytes());
                } else {
                    seqs.push((i, line.open()));
                }
            }
            for i in order {
                if let Some((n, seq)) = seqs.iter().find(|(n, _)| *n == i as usize) {
                    line.answer(*seq, 0, "s0", format!("[{n}]").as_bytes());
                }
            }
            let expected: String = (0..40).map(|i| format!("[{i}]")).collect();
            prop_assert_eq!(String::from_utf8(line.out.bytes()).unwrap(), expected);
            prop_assert!(line.is_empty());
            prop_assert_eq!(line.parked.len(), 0);
        }
    }

    #[test]
    fn a_push_does_not_cut_a_reply_in_two() {
        let mut line = Line::default();
        let (long, next) = (line.open(), line.open());
        line.push_out(b">1\r\n+a\r\n");
        line.stream(b"$4\r\nab");
        line.push_out(b">1\r\n+b\r\n");
        line.answer(next, 0, "s0", b"+next\r\n");
        line.answer(long, 0, "s0", b"cd\r\n");
        line.push_out(b">1\r\n+c\r\n");
        let out = String::from_utf8(line.out.bytes()).unwrap();
        assert_eq!(out, ">1\r\n+a\r\n$4\r\nabcd\r\n>1\r\n+b\r\n+next\r\n>1\r\n+c\r\n");
    }

    /// A reply that waits for another shard's is older than what its own shard says next.
    #[test]
    fn a_change_is_told_behind_the_replies_that_it_may_speak_of() {
        const CHANGED: &[u8] = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n";
        let mut line = Line::default();
        line.push_behind(FLUSH);
        line.push_behind(FLUSH);
        assert_eq!(std::mem::take(&mut line.out).bytes(), FLUSH);
        let [slow, old, many, next] = [(); 4].map(|()| line.open());
        line.answer(old, 0, "s1", b"+old\r\n");
        line.push_behind(CHANGED);
        line.push_behind(FLUSH);
        line.push_behind(FLUSH);
        assert!(line.out.is_empty());
        line.answer(slow, 0, "s0", b"+slow\r\n");
        line.push_behind(FLUSH);
        let both = [&b"+slow\r\n+old\r\n"[..], CHANGED, FLUSH].concat();
        assert_eq!(std::mem::take(&mut line.out).bytes(), both);
        line.answer(many, 0, "s0", b"+many\r\n");
        line.push_behind(FLUSH);
        line.answer(next, 0, "s0", b"+next\r\n");
        let rest = [&b"+many\r\n"[..], FLUSH, b"+next\r\n"].concat();
        assert_eq!(line.out.bytes(), rest);
        assert!(line.behind.is_empty() && line.behind_bytes == 0);
    }

    /// Each was told by a walk over all places behind: a hundred thousand of them took minutes.
    #[test]
    fn a_change_is_told_at_the_same_cost_however_many_requests_wait() {
        let mut line = Line::default();
        let (slow, fast) = (line.open(), line.open());
        let waiting: Vec<u32> = (0..100_000).map(|_| line.open()).collect();
        line.answer(fast, 0, "s1", b"+fast\r\n");
        let start = std::time::Instant::now();
        for key in 0..100_000 {
            line.push_behind(format!("[{key}]").as_bytes());
            assert!(line.pending() > 0 && line.held() > 0);
        }
        let took = start.elapsed();
        assert!(took.as_secs() < 10, "{took:?}");
        line.answer(slow, 0, "s0", b"+slow\r\n");
        let told = String::from_utf8(std::mem::take(&mut line.out).bytes()).unwrap();
        assert!(told.starts_with("+slow\r\n+fast\r\n[0][1]") && told.ends_with("[99999]"));
        waiting.into_iter().for_each(|seq| _ = line.answer(seq, 0, "s0", b"+next\r\n"));
        assert_eq!((line.behind_bytes, line.begun), (0, 0));
    }

    #[test]
    fn who_heeds_a_request_learns_of_its_error_and_of_later_ones() {
        let mut line = Line::default();
        let [before, multi, queued] = [(); 3].map(|()| line.open());
        line.heed(multi);
        line.answer(before, 0, "s0", b"-ERR not this one\r\n");
        assert_eq!(line.heeded().map(|heed| (heed.failed, heed.any_failed)), Some((false, false)));
        line.answer(queued, 0, "s0", b"-ERR later\r\n");
        assert_eq!(line.heeded().map(|heed| (heed.failed, heed.any_failed)), Some((false, true)));
        line.answer(multi, 0, "s0", b"-ERR refused\r\n");
        assert_eq!(line.heeded().map(|heed| (heed.failed, heed.any_failed)), Some((true, true)));
    }

    #[test]
    fn a_change_is_told_behind_a_reply_of_which_a_part_has_come() {
        let mut line = Line::default();
        let sum = line.open_gather(Gather::new("EXISTS", Merge::Sum, 2));
        line.answer(sum, 0, "s0", b":1\r\n");
        line.push_behind(FLUSH);
        assert!(line.out.is_empty());
        line.answer(sum, 1, "s1", b":1\r\n");
        assert_eq!(line.out.bytes(), [b":2\r\n", FLUSH].concat());
    }

    /// A client that sends without a pause always has an early reply waiting; all of them were kept.
    #[test]
    fn early_replies_are_let_go_while_others_wait() {
        let reply = |round: u32| format!("+{round:0200}\r\n");
        let mut line = Line::default();
        let mut slow = line.open();
        let fast = line.open();
        line.answer(fast, 0, "s1", reply(0).as_bytes());
        for round in 1..10_000 {
            let (next, fast) = (line.open(), line.open());
            line.answer(fast, 0, "s1", reply(round).as_bytes());
            line.answer(slow, 0, "s0", b"+slow\r\n");
            let out = std::mem::take(&mut line.out).bytes();
            assert_eq!(String::from_utf8(out), Ok("+slow\r\n".to_owned() + &reply(round - 1)));
            assert!(line.held() < 4 * MOST_PARKED, "{} bytes after {round}", line.held());
            slow = next;
        }
    }
}
