//! What is rarer than plain requests and travels among them: transactions, with and without a
//! connection of their own, commands that wait on leased connections, and messages. Each tells whose
//! it is and which.

use super::{CLIENTS, Tally};
use crate::harness::{Conn, Dice, Sluice, Value, bulk, request};
use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// EXEC with the values of a block.
    Block,
    /// EXEC behind WATCH, on a leased connection.
    Watched,
    /// BLPOP.
    Pop,
    /// Messages; an error is a subscription that was refused, a cut a listener that left.
    Message,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Block, Self::Watched, Self::Pop, Self::Message];
}

/// Values, errors and cuts of each kind.
#[derive(Debug, Default)]
pub(super) struct Counts([[AtomicU64; 3]; 4]);

impl Counts {
    pub(super) fn of(&self, kind: Kind) -> [u64; 3] {
        self.0[kind as usize].each_ref().map(|count| count.load(Relaxed))
    }

    fn add(&self, kind: Kind, which: Which) {
        self.0[kind as usize][which as usize].fetch_add(1, Relaxed);
    }
}

#[derive(Clone, Copy)]
enum Which {
    Value,
    Error,
    Cut,
}

/// A reply that is due: the bytes that are right, or an error.
struct Due {
    kind: Option<Kind>,
    right: Vec<u8>,
    /// Right as well, when what came before it failed.
    or: Vec<u8>,
}

/// What one pipeline sends and what it must hear.
struct Pipeline<'a> {
    client: u64,
    tag: &'a mut u64,
    bytes: Vec<u8>,
    due: Vec<Due>,
}

impl Pipeline<'_> {
    /// A key of this client's shard, different each time.
    fn key(&mut self) -> String {
        *self.tag += 1;
        format!("{{{:03}}}{:015}", self.client, *self.tag)
    }

    fn ask(&mut self, words: &[&str], kind: Option<Kind>, right: &Value, or: &Value) {
        self.bytes.extend(request(words));
        self.due.push(Due { kind, right: right.encode(), or: or.encode() });
    }

    fn plain(&mut self) {
        let key = self.key();
        self.ask(&["GET", &key], None, &bulk(&key), &bulk(&key));
    }

    fn block(&mut self, values: u64, watches: bool) {
        let simple = |text: &str| Value::Simple(text.to_owned());
        let kind = if watches { Kind::Watched } else { Kind::Block };
        if watches {
            let key = self.key();
            self.ask(&["WATCH", &key], None, &simple("OK"), &simple("OK"));
        }
        self.ask(&["MULTI"], None, &simple("OK"), &simple("OK"));
        let keys: Vec<String> = (0..values).map(|_| self.key()).collect();
        for key in &keys {
            // Where MULTI failed on a connection of its own it is a plain request.
            let alone = if watches { bulk(key) } else { simple("QUEUED") };
            self.ask(&["GET", key], None, &simple("QUEUED"), &alone);
        }
        let items = Value::Array(keys.iter().map(bulk).collect());
        // A lost connection has lost what it watched.
        let lost = if watches { Value::Array(Vec::new()) } else { items.clone() };
        self.ask(&["EXEC"], Some(kind), &items, &lost);
        if let Some(due) = self.due.last_mut().filter(|_| watches) {
            due.or = b"*-1\r\n".to_vec();
        }
    }

    fn pop(&mut self) {
        let key = self.key();
        let popped = Value::Array(vec![bulk(&key), bulk(&key)]);
        self.ask(&["BLPOP", &key, "0"], Some(Kind::Pop), &popped, &popped);
    }

    fn publish(&mut self) {
        *self.tag += 1;
        let text = format!("{:03}-{:015}", self.client, *self.tag);
        let none = Value::Int(0);
        self.ask(&["PUBLISH", &channel(self.client), &text], None, &none, &none);
    }
}

fn channel(client: u64) -> String {
    format!("{{{client:03}}}news")
}

/// Sends a pipeline of all kinds and reads what it must be told, or leaves in the middle. False when
/// the connection is gone.
pub(super) fn pipeline(
    socket: &mut TcpStream,
    buffer: &mut Vec<u8>,
    client: u64,
    tag: &mut u64,
    dice: &mut Dice,
    tally: &Tally,
) -> bool {
    let mut pipeline = Pipeline { client, tag, bytes: Vec::new(), due: Vec::new() };
    for _ in 0..=dice.below(30) {
        match dice.below(10) {
            0..=3 => pipeline.plain(),
            4..=6 => pipeline.block(1 + dice.below(6), false),
            7 => pipeline.block(1 + dice.below(3), true),
            8 => pipeline.pop(),
            _ => pipeline.publish(),
        }
    }
    let Pipeline { bytes, due, .. } = pipeline;
    if dice.below(8) == 0 {
        let cut = usize::try_from(dice.below(bytes.len() as u64)).unwrap();
        let _ = socket.write_all(&bytes[..cut]);
        thread::sleep(Duration::from_micros(dice.below(3_000)));
        let kinds = due.iter().filter_map(|due| due.kind);
        kinds.for_each(|kind| tally.kinds.add(kind, Which::Cut));
        return false;
    }
    if socket.write_all(&bytes).is_err() {
        return false;
    }
    for (number, due) in due.iter().enumerate() {
        let Some(reply) = next(socket, buffer, due) else {
            due.kind.into_iter().for_each(|kind| tally.kinds.add(kind, Which::Error));
            let _ = socket.shutdown(Shutdown::Both);
            return false;
        };
        let shown = || format!("client {client}, reply {number}: {}", reply.escape_ascii());
        let is_error = reply.starts_with(b"-");
        if is_error {
            let text = String::from_utf8_lossy(&reply);
            let known = text.contains("sluice")
                || text.starts_with("-EXECABORT ")
                || text.starts_with("-ERR EXEC without MULTI");
            assert!(known, "{}", shown());
            tally.errors.fetch_add(1, Relaxed);
        } else if due.right == b":0\r\n" {
            assert!(reply.starts_with(b":"), "{}", shown());
        } else {
            let wanted = due.right.escape_ascii();
            assert!(reply == due.right || reply == due.or, "{}, wanted {wanted}", shown());
            tally.values.fetch_add(1, Relaxed);
        }
        let which = if is_error || reply != due.right { Which::Error } else { Which::Value };
        due.kind.into_iter().for_each(|kind| tally.kinds.add(kind, which));
    }
    true
}

/// The next reply, whatever it is; `None`: the connection was closed, in the middle of one or not.
fn next(socket: &mut TcpStream, buffer: &mut Vec<u8>, due: &Due) -> Option<Vec<u8>> {
    loop {
        if let Some(len) = length(buffer, due) {
            return Some(buffer.drain(..len).collect());
        }
        let mut piece = [0; 4 << 10];
        match socket.read(&mut piece) {
            Ok(0) => return None,
            Ok(n) => buffer.extend_from_slice(&piece[..n]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
            Err(error) => {
                panic!("{error}; {} due after {}", due.right.escape_ascii(), buffer.escape_ascii())
            }
        }
    }
}

/// Of what is right, or of a line; what is wrong is cut where it shows.
fn length(buffer: &[u8], due: &Due) -> Option<usize> {
    for right in [&due.right, &due.or] {
        if buffer.starts_with(right) {
            return Some(right.len());
        }
        if right.starts_with(buffer) {
            return None;
        }
    }
    buffer.iter().position(|byte| *byte == b'\n').map(|end| end + 1)
}

/// A listener: subscribes to some clients' channels, hears messages, each of its channel's owner and
/// newer than the last, leaves and comes again.
pub(super) fn listen(sluice: &Sluice, number: u64, tally: &Tally) {
    let mut dice = Dice::new(number << 50);
    while !tally.done.load(Relaxed) {
        let mut conn = sluice.conn();
        let owners: Vec<u64> = (0..4).map(|_| dice.below(CLIENTS)).collect();
        let names: Vec<String> = owners.iter().map(|owner| channel(*owner)).collect();
        conn.send(&request(&[vec!["SUBSCRIBE".to_owned()], names.clone()].concat()));
        if !is_subscribed(&mut conn, names.len()) {
            tally.kinds.add(Kind::Message, Which::Error);
            continue;
        }
        hear(&mut conn, &names, 50 + dice.below(400), tally);
        tally.kinds.add(Kind::Message, Which::Cut);
    }
}

/// False when a server was not there to confirm.
fn is_subscribed(conn: &mut Conn, mut due: usize) -> bool {
    while due > 0 {
        match conn.read() {
            Value::Error(text) => {
                assert!(text.contains("sluice"), "{text}");
                return false;
            }
            value if value.items()[0] == "subscribe" => due -= 1,
            // What comes between the confirmations of one request is of those before.
            value => panic!("{value:?} before all was confirmed"),
        }
    }
    true
}

fn hear(conn: &mut Conn, names: &[String], most: u64, tally: &Tally) {
    conn.patience(Duration::from_millis(500));
    let mut last = std::collections::HashMap::new();
    for _ in 0..most {
        let Ok(value) = conn.try_read() else { return };
        let [verb, name, text] = value.items() else { panic!("{value:?} is no message") };
        let (name, text) = (name.text(), text.text());
        assert!(*verb == "message" && names.contains(&name), "{value:?} for {names:?}");
        let (owner, number) = text.split_once('-').unwrap();
        assert_eq!(name, format!("{{{owner}}}news"), "{value:?}");
        let number: u64 = number.parse().unwrap();
        // Two connections of one client have no order.
        let before = last.insert((name, number / super::TAGS), number).unwrap_or(0);
        assert!(number > before, "{value:?} after {before}");
        tally.kinds.add(Kind::Message, Which::Value);
    }
}
