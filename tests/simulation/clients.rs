//! Fake clients: each pipelines random requests over a real socket and judges every reply. They
//! run in steps of the one who drives the simulation and start no task.

use super::{
    ledger::{Fate, Ledger, value, wire_key, write_of},
    resp::{self, Reply},
};
use sluice::policy::dice::Dice;
use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
};

pub(crate) const KEYS: usize = 24;

#[derive(Debug)]
pub(crate) struct FakeClient {
    number: usize,
    stream: UnixStream,
    db: u8,
    out: Vec<u8>,
    input: Vec<u8>,
    /// What one read fills.
    buffer: Vec<u8>,
    waiting: VecDeque<Waiting>,
    /// It reads nothing until then, in milliseconds.
    pub(crate) deaf_until_ms: u64,
    /// When the newest reply came, or it began to listen again.
    last_ms: u64,
    pub(crate) gone: bool,
}

#[derive(Debug)]
struct Waiting {
    ask: Ask,
    sent_ms: u64,
}

/// A request; the numbers are mentions of keys.
#[derive(Debug)]
enum Ask {
    Select,
    Ping,
    Echo(String),
    Get(usize),
    Set(usize),
    MGet(Vec<usize>),
    MSet(Vec<usize>),
    Exists(Vec<usize>),
}

impl FakeClient {
    /// A client of database 0 or 1.
    pub(crate) fn new(number: usize, stream: UnixStream, dice: &mut Dice, now_ms: u64) -> Self {
        stream.set_nonblocking(true).unwrap();
        let mut client = Self {
            number,
            stream,
            db: u8::from(dice.below(4) == 0),
            out: Vec::new(),
            input: Vec::new(),
            buffer: vec![0; 16 * 1024],
            waiting: VecDeque::new(),
            deaf_until_ms: 0,
            last_ms: now_ms,
            gone: false,
        };
        if client.db > 0 {
            client.push(Ask::Select, &resp::request(&["SELECT", "1"]), now_ms);
        }
        client
    }

    /// Requests without a reply.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Pipelines some requests.
    pub(crate) fn ask(&mut self, count: usize, step: usize, dice: &mut Dice, ledger: &mut Ledger) {
        for _ in 0..count {
            let db = self.db;
            let mut mention =
                |write, dice: &mut Dice| ledger.mention(dice.index(KEYS), db, write, step);
            let many = 2 + dice.index(6);
            let ask = match dice.below(16) {
                0 => Ask::Ping,
                1 => Ask::Echo(format!("{}-{}", self.number, dice.next())),
                2..=6 => Ask::Get(mention(false, dice)),
                7..=10 => Ask::Set(mention(true, dice)),
                11 | 12 => Ask::MGet((0..many).map(|_| mention(false, dice)).collect()),
                13 | 14 => Ask::MSet((0..many).map(|_| mention(true, dice)).collect()),
                _ => Ask::Exists((0..many).map(|_| mention(false, dice)).collect()),
            };
            let bytes = ask.encode(ledger);
            self.push(ask, &bytes, ledger.now_ms);
        }
    }

    fn push(&mut self, ask: Ask, bytes: &[u8], now_ms: u64) {
        self.out.extend_from_slice(bytes);
        self.waiting.push_back(Waiting { ask, sent_ms: now_ms });
    }

    /// Hangs up with whatever is under way.
    pub(crate) fn hang_up(&mut self, ledger: &mut Ledger) {
        self.gone = true;
        for waiting in std::mem::take(&mut self.waiting) {
            waiting.ask.writes().iter().for_each(|id| ledger.told(*id, Fate::Unknown));
        }
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// Whether it may have something to do without an answer.
    pub(crate) fn is_busy(&self) -> bool {
        !self.out.is_empty() || self.deaf_until_ms > 0
    }

    /// Sends what is to be sent and judges what came.
    pub(crate) fn pump(&mut self, ledger: &mut Ledger) {
        if self.gone {
            return;
        }
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(n) => drop(self.out.drain(..n)),
                Err(_) => break,
            }
        }
        if ledger.now_ms < self.deaf_until_ms {
            self.last_ms = self.deaf_until_ms;
            return;
        }
        self.deaf_until_ms = 0;
        loop {
            match self.stream.read(&mut self.buffer) {
                Ok(n) if n > 0 => {
                    self.input.extend_from_slice(&self.buffer[..n]);
                    // Progress of a long reply counts.
                    self.last_ms = ledger.now_ms;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Ok(_) | Err(_) => {
                    self.take_replies(ledger);
                    return self.closed(ledger);
                }
            }
        }
        self.take_replies(ledger);
    }

    fn take_replies(&mut self, ledger: &mut Ledger) {
        let mut at = 0;
        loop {
            match resp::reply(&self.input[at..]) {
                Ok(None) => break,
                Ok(Some((reply, len))) => {
                    at += len;
                    self.last_ms = ledger.now_ms;
                    let Some(waiting) = self.waiting.pop_front() else {
                        let text =
                            format!("client {} got a reply too many: {reply:?}", self.number);
                        return ledger.violation(text);
                    };
                    ledger.replies += 1;
                    if let Err(why) = judge(&waiting.ask, &reply, ledger) {
                        let text = format!("client {}: {:?}: {why}", self.number, waiting.ask);
                        ledger.violation(text);
                    }
                }
                Err(error) => {
                    let text = format!("client {} was sent nonsense: {error}", self.number);
                    ledger.violation(text);
                    self.gone = true;
                    break;
                }
            }
        }
        self.input.drain(..at);
    }

    /// The proxy hung up: it may, when a reply that it had begun to pass on was cut.
    fn closed(&mut self, ledger: &mut Ledger) {
        let begun = !self.input.is_empty();
        if !begun && !self.waiting.is_empty() {
            let text =
                format!("client {}: closed, {} replies due", self.number, self.waiting.len());
            ledger.violation(text);
        }
        ledger.note(format!("client {} was closed in a reply", self.number));
        self.hang_up(ledger);
    }

    /// Holds the oldest request against the clock: it was dispatched when the reply before it
    /// left, at the latest.
    pub(crate) fn check_deadline(&mut self, limit_ms: u64, ledger: &mut Ledger) {
        if let Some(oldest) = self.waiting.front()
            && ledger.now_ms > oldest.sent_ms.max(self.last_ms) + limit_ms
            && !self.gone
        {
            let text = format!("client {}: {:?} hangs", self.number, oldest.ask);
            ledger.violation(text);
            self.hang_up(ledger);
        }
    }
}

impl Ask {
    fn encode(&self, ledger: &Ledger) -> Vec<u8> {
        let key = |id: &usize| wire_key(ledger.get(*id).unwrap().key, *id);
        let with = |name: &str, ids: &[usize]| {
            let words: Vec<Vec<u8>> =
                std::iter::once(name.into()).chain(ids.iter().map(key)).collect();
            resp::request(&words)
        };
        let pairs = |name: &str, ids: &[usize]| {
            let mut words: Vec<Vec<u8>> = vec![name.into()];
            for id in ids {
                let mention = ledger.get(*id).unwrap();
                words.push(key(id));
                words.push(value(mention.key, mention.db, *id));
            }
            resp::request(&words)
        };
        match self {
            Self::Select => resp::request(&["SELECT", "1"]),
            Self::Ping => resp::request(&["PING"]),
            Self::Echo(text) => resp::request(&["ECHO", text]),
            Self::Get(id) => with("GET", &[*id]),
            Self::Set(id) => pairs("SET", &[*id]),
            Self::MGet(ids) => with("MGET", ids),
            Self::MSet(ids) => pairs("MSET", ids),
            Self::Exists(ids) => with("EXISTS", ids),
        }
    }

    fn writes(&self) -> &[usize] {
        match self {
            Self::Set(id) => std::slice::from_ref(id),
            Self::MSet(ids) => ids,
            _ => &[],
        }
    }
}

/// Whether that is a right reply.
fn judge(ask: &Ask, reply: &Reply, ledger: &mut Ledger) -> Result<(), String> {
    if let Reply::Error(text) = reply {
        ledger.errors += 1;
        return judge_error(ask, text, ledger);
    }
    let wrong = || Err(format!("answered {}", shown(reply)));
    match (ask, reply) {
        (Ask::Select, Reply::Simple(text)) if text == "OK" => {}
        (Ask::Ping, Reply::Simple(text)) if text == "PONG" => {}
        (Ask::Echo(sent), Reply::Bulk(Some(got))) if sent.as_bytes() == got => {}
        (Ask::Get(id), element @ Reply::Bulk(_)) => judge_value(*id, element, ledger)?,
        (Ask::MGet(ids), Reply::Array(elements)) if ids.len() == elements.len() => {
            for (id, element) in ids.iter().zip(elements) {
                judge_value(*id, element, ledger)?;
            }
        }
        (Ask::Set(_) | Ask::MSet(_), Reply::Simple(text)) if text == "OK" => {
            ask.writes().iter().for_each(|id| ledger.told(*id, Fate::Done));
        }
        (Ask::Exists(ids), Reply::Integer(count)) => {
            let (least, most) = ledger.existing(ids);
            let count = usize::try_from(*count).unwrap_or(usize::MAX);
            if !(least..=most).contains(&count) {
                return wrong();
            }
        }
        _ => return wrong(),
    }
    Ok(())
}

fn judge_value(id: usize, reply: &Reply, ledger: &mut Ledger) -> Result<(), String> {
    let Reply::Bulk(bytes) = reply else { return Err(format!("has {}", shown(reply))) };
    let Some(bytes) = bytes else {
        ledger.seen(id, None);
        return Ok(());
    };
    let (key, db) = ledger.get(id).map(|mention| (mention.key, mention.db)).unwrap();
    match write_of(bytes) {
        Some(write) if *bytes == value(key, db, write) => {
            ledger.seen(id, Some(write));
            Ok(())
        }
        _ => Err(format!("k{key}/{db} has {}", shown(reply))),
    }
}

/// What an error says about the data must be so.
fn judge_error(ask: &Ask, text: &str, ledger: &mut Ledger) -> Result<(), String> {
    let untouched = ["CLUSTERDOWN sluice: ", "READONLY ", "LOADING ", "MASTERDOWN "];
    let unknown = text.starts_with("ERR sluice: ") && text.ends_with("result unknown");
    let partly = text.strip_prefix("ERR sluice: MSET failed on ");
    match (ask, partly) {
        (Ask::Select | Ask::Ping | Ask::Echo(_), _) => return Err(format!("answered {text}")),
        (Ask::MSet(ids), Some(rest)) => {
            let mut numbers = rest.split(" shards").next().unwrap_or_default().split(" of ");
            let mut number = || numbers.next().and_then(|n| n.parse::<usize>().ok());
            let (Some(failed), Some(parts)) = (number(), number()) else {
                return Err(format!("answered {text}"));
            };
            let applied = |id: &usize| ledger.get(*id).is_some_and(|m| m.applied == 1);
            let written = ids.iter().filter(|id| applied(id)).count();
            if failed > parts || written < parts - failed {
                return Err(format!("{written} of {} keys were written: {text}", ids.len()));
            }
            ids.iter().for_each(|id| ledger.told(*id, Fate::Unknown));
        }
        _ if untouched.iter().any(|start| text.starts_with(start)) => {
            ask.writes().iter().for_each(|id| ledger.told(*id, Fate::Untouched));
        }
        _ if unknown => ask.writes().iter().for_each(|id| ledger.told(*id, Fate::Unknown)),
        _ => return Err(format!("answered {text}")),
    }
    Ok(())
}

fn shown(reply: &Reply) -> String {
    format!("{reply:?}").chars().take(120).collect()
}
