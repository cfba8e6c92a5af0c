//! What one session's replies must be. It runs each request as one server would, when its turn to be
//! answered has come, and holds the reply against what it would have said.

use super::{
    board::{Board, Subscription},
    data::{Data, Wanted, writes},
    wire::Frame,
};
use crate::harness::{Value, bulk};
use std::collections::BTreeMap;

pub(super) type Words = Vec<String>;

/// What may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    Fair,
    /// There are too few connections to lease.
    Crowded,
    /// Servers answer nothing for longer than a request waits.
    Stalling,
}

#[derive(Debug)]
pub(super) struct Model<'a> {
    pub(super) client: usize,
    pub(super) weather: Weather,
    pub(super) board: &'a Board,
    pub(super) data: Data,
    pub(super) session: Session,
}

/// What a new connection begins without.
#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) three: bool,
    replies: Replies,
    pub(super) subscriptions: BTreeMap<(Kind, String), Subscription>,
    queue: Option<Queue>,
    watch: Option<Watch>,
    /// Confirmations of the request that is being answered.
    confirmed: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Channel,
    Pattern,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Replies {
    #[default]
    On,
    Off,
    SkipNext,
    Skip,
}

#[derive(Debug, Default)]
struct Queue {
    asked: Vec<Words>,
    is_dirty: bool,
    /// One of them was not answered in time, when EXEC may have been on its way already.
    is_doubtful: bool,
    /// MULTI was not: it is open or not.
    may_be_none: bool,
}

#[derive(Debug)]
struct Watch {
    keys: Vec<String>,
    is_broken: bool,
    /// It may be, for all that is known of its keys.
    is_doubtful: bool,
}

impl Model<'_> {
    /// Whether nothing at all answers that request.
    pub(super) fn is_silent(&self, words: &[String]) -> bool {
        let quiet = matches!(self.session.replies, Replies::Off | Replies::Skip);
        match words[0].as_str() {
            "RESET" => false,
            verb if verb.ends_with("SUBSCRIBE") && self.session.queue.is_none() => false,
            _ if self.is_restricted() => quiet,
            "CLIENT" => words[2] != "ON",
            _ => quiet,
        }
    }

    /// The keys one of which must be given something, or else that request waits for ever.
    pub(super) fn awaits(&self, words: &[String]) -> Option<Words> {
        let waits = ["BLPOP", "BRPOP", "BZPOPMIN"].contains(&words[0].as_str())
            && words.last().is_some_and(|timeout| timeout == "0");
        if !waits || self.session.queue.is_some() || self.is_restricted() {
            return None;
        }
        let keys = &words[1..words.len() - 1];
        keys.iter().all(|key| self.data.may_be_empty(key)).then(|| keys.to_vec())
    }

    /// A message that came.
    pub(super) fn hear(&mut self, frame: &Frame) -> Result<(), String> {
        if frame.push != self.session.three || frame.two && frame.three {
            return Err("a message in the other version".to_owned());
        }
        let items = frame.value.items();
        let kind = if items[0] == "message" { Kind::Channel } else { Kind::Pattern };
        let name = items[1].text();
        let channel = items[items.len() - 2].text();
        let subscription = self.session.subscriptions.get_mut(&(kind, name.clone()));
        let subscription = subscription.ok_or("a message that it has not subscribed to")?;
        if channel != subscription.channel {
            return Err("a message of another channel".to_owned());
        }
        subscription.hears(&items[items.len() - 1].text())?;
        self.board.count("messages");
        Ok(())
    }

    /// Nobody answered that request, for the session wants no replies.
    pub(super) fn pass(&mut self, words: &[String]) {
        self.board.count("silent");
        if words[0].ends_with("SUBSCRIBE") {
            return self.refuse_queued();
        }
        let stalls = self.weather == Weather::Stalling && self.touches_servers(words);
        let is_unsure = stalls || self.is_blocking(words);
        self.run(words, None);
        if is_unsure {
            self.data.doubt(writes(words));
        }
        self.is_over();
    }

    /// Holds a reply against what it must be; gives whether it was the last one to that request.
    pub(super) fn judge(&mut self, words: &[String], frame: &Frame) -> Result<bool, String> {
        let is_last = match words[0].as_str() {
            _ if self.is_excused(words, &frame.value) => {
                self.board.count("errors");
                self.has_failed(words, frame.value.error());
                true
            }
            "SUBSCRIBE" | "PSUBSCRIBE" => self.subscribed(words, frame)?,
            "UNSUBSCRIBE" | "PUNSUBSCRIBE" => self.unsubscribed(words, frame)?,
            _ => {
                let wanted = self.run(words, Some(&frame.value));
                if !wanted.fits(self.client, &frame.value) {
                    return Err(format!("wanted {wanted:?}"));
                }
                if frame.push {
                    return Err("a reply as a push".to_owned());
                }
                true
            }
        };
        if if self.session.three { frame.two } else { frame.three } {
            return Err("in the other version of the protocol".to_owned());
        }
        if is_last {
            self.is_over();
        }
        Ok(is_last)
    }

    /// It leaves: whatever was not answered may have been done, may be done later, or never.
    pub(super) fn leave<'w>(&mut self, unanswered: impl Iterator<Item = &'w Words>) {
        let session = std::mem::take(&mut self.session);
        let mut is_unsure = session.queue.is_some_and(|queue| {
            queue.asked.iter().for_each(|words| self.data.doubt(writes(words)));
            queue.asked.iter().any(|words| words[0] == "PUBLISH")
        });
        for words in unanswered {
            self.data.doubt(writes(words));
            is_unsure |= words[0] == "PUBLISH";
        }
        if is_unsure {
            self.board.abandon(self.client);
        }
        session.subscriptions.into_values().for_each(|gone| self.board.unsubscribe(gone));
    }

    fn is_over(&mut self) {
        self.session.replies = match self.session.replies {
            Replies::SkipNext => Replies::Skip,
            Replies::Skip => Replies::On,
            other => other,
        };
    }

    /// Whether only subscriptions may be spoken of now.
    fn is_restricted(&self) -> bool {
        !self.session.three && !self.session.subscriptions.is_empty()
    }

    fn is_blocking(&self, words: &[String]) -> bool {
        self.session.queue.is_none() && words[0].starts_with('B') && !self.is_restricted()
    }

    fn touches_servers(&self, words: &[String]) -> bool {
        // From WATCH on the server has the queue, and what is not queued for want of MULTI.
        let is_queued = self.session.watch.is_some() && words[0] != "CLIENT";
        is_queued
            || words[0].ends_with("SUBSCRIBE")
            || !self.is_restricted()
                && !["ECHO", "PING", "CLIENT", "HELLO", "RESET", "QUIT"]
                    .contains(&words[0].as_str())
    }

    /// Whether the weather is to blame for that reply.
    fn is_excused(&self, words: &[String], reply: &Value) -> bool {
        let Value::Error(text) = reply else { return false };
        match self.weather {
            Weather::Fair => false,
            // The first transaction at a server needs one to see whether MULTI is ours to use.
            Weather::Crowded => {
                let needs_one = self.is_blocking(words) || words[0] == "WATCH";
                text == NO_LEASE && (needs_one || words[0] == "EXEC")
            }
            Weather::Stalling => {
                let is_dirty = self.session.queue.as_ref().is_some_and(|queue| queue.is_dirty);
                let aborted = words[0] == "EXEC" && text.starts_with("EXECABORT ") && !is_dirty;
                self.touches_servers(words) && (text.contains("sluice") || aborted)
            }
        }
    }

    /// It failed; what it was to do may have been done all the same.
    fn has_failed(&mut self, words: &[String], text: &str) {
        // What was pushed for who waits may have come before or after what it asked next.
        let is_done =
            text != NO_LEASE && !text.starts_with("CLUSTERDOWN ") || self.is_blocking(words);
        match words[0].as_str() {
            "EXEC" => {
                self.session.watch = None;
                let queue = self.session.queue.take().unwrap_or_default();
                if is_done && !text.starts_with("EXECABORT ") {
                    queue.asked.iter().for_each(|words| self.data.doubt(writes(words)));
                }
            }
            "DISCARD" => (self.session.queue, self.session.watch) = (None, None),
            // The connection is its own all the same.
            "WATCH" if self.weather == Weather::Stalling => {
                let keys = words[1..].to_vec();
                self.session.watch = Some(Watch { keys, is_broken: false, is_doubtful: true });
            }
            "MULTI" => {
                self.session.queue = Some(Queue { may_be_none: true, ..Queue::default() });
            }
            _ => match &mut self.session.queue {
                Some(queue) => {
                    queue.is_doubtful = true;
                    queue.asked.push(words.to_vec());
                    if queue.may_be_none {
                        self.data.doubt(writes(words));
                    }
                }
                None if is_done => self.data.doubt(writes(words)),
                None => {}
            },
        }
    }

    fn subscribed(&mut self, words: &[String], frame: &Frame) -> Result<bool, String> {
        let kind = if words[0] == "SUBSCRIBE" { Kind::Channel } else { Kind::Pattern };
        if self.is_queueing(words, Some(&frame.value)) {
            self.refuse_queued();
            let refused = Wanted::Error("not allowed inside MULTI").fits(self.client, &frame.value);
            return if refused { Ok(true) } else { Err("wanted a refusal".to_owned()) };
        }
        let name = &words[1 + self.session.confirmed];
        let channel = name.trim_end_matches('*');
        let subscriptions = &mut self.session.subscriptions;
        let board = self.board;
        subscriptions.entry((kind, name.clone())).or_insert_with(|| board.subscribe(channel));
        let count = i64::try_from(subscriptions.len()).unwrap();
        let verb = bulk(words[0].to_lowercase());
        self.confirmed(frame, &[verb, bulk(name), Value::Int(count)])?;
        self.session.confirmed = (self.session.confirmed + 1) % (words.len() - 1);
        Ok(self.session.confirmed == 0)
    }

    fn unsubscribed(&mut self, words: &[String], frame: &Frame) -> Result<bool, String> {
        let kind = if words[0] == "UNSUBSCRIBE" { Kind::Channel } else { Kind::Pattern };
        let of_kind = |session: &Session| {
            session.subscriptions.keys().filter(|(its, _)| *its == kind).count()
        };
        let verb = bulk(words[0].to_lowercase());
        let Value::Array(items) = &frame.value else { return Err("no confirmation".to_owned()) };
        let name = match items.get(1) {
            Some(Value::Bulk(name)) => String::from_utf8_lossy(name).into_owned(),
            _ => String::new(),
        };
        let left = self.session.subscriptions.len();
        if words.len() == 1 && of_kind(&self.session) == 0 {
            let count = i64::try_from(left).unwrap();
            self.confirmed(frame, &[verb, Value::Nil, Value::Int(count)])?;
            return Ok(true);
        }
        let gone = self.session.subscriptions.remove(&(kind, name.clone()));
        let is_known = gone.is_some();
        gone.into_iter().for_each(|gone| self.board.unsubscribe(gone));
        let count = i64::try_from(self.session.subscriptions.len()).unwrap();
        if words.len() == 1 {
            if !is_known {
                return Err("it had not subscribed to that".to_owned());
            }
            self.confirmed(frame, &[verb, bulk(&name), Value::Int(count)])?;
            return Ok(of_kind(&self.session) == 0);
        }
        let wanted = &words[1 + self.session.confirmed];
        self.confirmed(frame, &[verb, bulk(wanted), Value::Int(count)])?;
        self.session.confirmed = (self.session.confirmed + 1) % (words.len() - 1);
        Ok(self.session.confirmed == 0)
    }

    fn confirmed(&self, frame: &Frame, wanted: &[Value]) -> Result<(), String> {
        self.board.count("confirmations");
        if frame.value != Value::Array(wanted.to_vec()) || frame.push != self.session.three {
            return Err(format!("wanted the confirmation {wanted:?}"));
        }
        Ok(())
    }

    fn refuse_queued(&mut self) {
        self.session.queue.iter_mut().for_each(|queue| queue.is_dirty = true);
    }

    /// Whether MULTI is open; where that is not known, the reply tells.
    fn is_queueing(&mut self, words: &[String], reply: Option<&Value>) -> bool {
        if let (Some(queue), Some(reply)) = (&mut self.session.queue, reply)
            && queue.may_be_none
        {
            let is_open = match reply {
                Value::Error(text) => !text.ends_with("without MULTI"),
                Value::Simple(text) => text == "QUEUED",
                _ => words[0] == "EXEC",
            };
            queue.may_be_none = !is_open || reply.is_error();
            if !is_open {
                self.session.queue = None;
            }
        }
        self.session.queue.is_some()
    }

    /// What a server says to that request, which it executes. The reply decides what only the
    /// server can know.
    fn run(&mut self, words: &[String], reply: Option<&Value>) -> Wanted {
        let ok = || Wanted::Exactly(Value::Simple("OK".to_owned()));
        if words.len() == 1 && words[0] == "GET" {
            self.refuse_queued();
            return Wanted::Error("ERR wrong number of arguments for 'get' command");
        }
        if self.is_restricted() {
            match words[0].as_str() {
                "PING" => return Wanted::Exactly(Value::Array(vec![bulk("pong"), bulk("")])),
                "QUIT" | "RESET" => {}
                _ => return Wanted::Error("only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING"),
            }
        }
        self.is_queueing(words, reply);
        match words[0].as_str() {
            "RESET" => {
                let session = std::mem::take(&mut self.session);
                let gone = session.subscriptions.into_values();
                gone.for_each(|gone| self.board.unsubscribe(gone));
                return Wanted::Exactly(Value::Simple("RESET".to_owned()));
            }
            "QUIT" => return ok(),
            "EXEC" => return self.exec(reply),
            "DISCARD" => {
                (self.session.queue, self.session.watch) = (None, None);
                return ok();
            }
            _ => {}
        }
        if let Some(queue) = &mut self.session.queue {
            queue.asked.push(words.to_vec());
            return Wanted::Exactly(Value::Simple("QUEUED".to_owned()));
        }
        match words[0].as_str() {
            "MULTI" => self.session.queue = Some(Queue::default()),
            "WATCH" => {
                // A lease that is lost in a stall takes what it watched with it.
                let is_doubtful = self.weather == Weather::Stalling;
                let keys = words[1..].to_vec();
                self.session.watch = Some(Watch { keys, is_broken: false, is_doubtful });
            }
            "UNWATCH" => self.session.watch = None,
            "CLIENT" => {
                self.session.replies = match words[2].as_str() {
                    "ON" => Replies::On,
                    "OFF" => Replies::Off,
                    _ if self.session.replies == Replies::Off => Replies::Off,
                    _ => Replies::SkipNext,
                };
            }
            "HELLO" => {
                self.session.three = words[1] == "3";
                return Wanted::Any;
            }
            _ => return self.execute(words),
        }
        ok()
    }

    fn exec(&mut self, reply: Option<&Value>) -> Wanted {
        let watch = self.session.watch.take();
        let Some(queue) = self.session.queue.take() else {
            return Wanted::Error("ERR EXEC without MULTI");
        };
        if queue.is_dirty {
            self.board.count("aborted");
            return Wanted::Error("EXECABORT Transaction discarded");
        }
        let is_broken = watch.as_ref().is_some_and(|watch| watch.is_broken);
        let is_doubtful = watch.is_some_and(|watch| watch.is_doubtful);
        if queue.is_doubtful && matches!(reply, Some(Value::Error(_))) {
            return Wanted::Error("EXECABORT Transaction discarded");
        }
        if is_broken || is_doubtful && reply == Some(&Value::Nil) {
            self.board.count("broken");
            return Wanted::Exactly(Value::Nil);
        }
        self.board.count("executed");
        Wanted::Items(queue.asked.iter().map(|words| self.execute(words)).collect())
    }

    /// A request that is not about the session.
    fn execute(&mut self, words: &[String]) -> Wanted {
        match words[0].as_str() {
            "PUBLISH" => {
                self.board.published(&words[1], &words[2]);
                let channel = (Kind::Channel, words[1].clone());
                // In a stall the connection on which messages come may be lost.
                let hears = self.session.subscriptions.contains_key(&channel)
                    && self.weather != Weather::Stalling;
                return Wanted::Between(i64::from(hears), 1_000);
            }
            "PING" => return Wanted::Exactly(Value::Simple("PONG".to_owned())),
            _ => {}
        }
        let (wanted, changed) = self.data.run(words);
        if let Some(watch) = &mut self.session.watch {
            for key in changed.iter().filter(|key| watch.keys.contains(key)) {
                watch.is_doubtful |= self.data.is_doubtful(key);
                watch.is_broken |= !self.data.is_doubtful(key);
            }
        }
        wanted
    }
}

const NO_LEASE: &str = "ERR sluice: no dedicated connection free";
