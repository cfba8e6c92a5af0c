//! A server whose value of a key is that key, also in transactions and for those who wait, and which
//! passes messages on; a healthy primary to those who look. It stalls, slices, cuts in two and resets.

use super::KEY;
use crate::harness::{Dice, Value, bulk, port::Port};
use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

/// Who is to be sent messages: connections by number.
type Subscribers = Mutex<HashMap<String, HashMap<u64, Arc<Mutex<TcpStream>>>>>;

/// One connection of a server.
struct Connection {
    number: u64,
    writer: Arc<Mutex<TcpStream>>,
    subscribers: Arc<Subscribers>,
    dice: Dice,
    /// The replies that EXEC will give.
    queued: Option<Vec<Value>>,
}

/// Starts one and gives its address.
pub(super) fn mirror(seed: u64) -> String {
    let port = Port::free();
    let address = port.address();
    let listener = TcpListener::bind(&address).unwrap();
    let connections = Arc::new(AtomicU64::new(0));
    let subscribers = Arc::new(Subscribers::default());
    thread::spawn(move || {
        let _port = port;
        for socket in listener.incoming() {
            let socket = socket.unwrap();
            let number = connections.fetch_add(1, Relaxed);
            let connection = Connection {
                number,
                writer: Arc::new(Mutex::new(socket.try_clone().unwrap())),
                subscribers: Arc::clone(&subscribers),
                dice: Dice::new(seed << 32 | number),
                queued: None,
            };
            thread::spawn(move || connection.reflect(socket));
        }
    });
    address
}

const INFO: &str = "# Replication\r\nrole:master\r\nmaster_repl_offset:0\r\nloading:0\r\n";

impl Connection {
    fn reflect(mut self, mut socket: TcpStream) -> Option<()> {
        socket.set_nodelay(true).unwrap();
        let (mut input, mut start) = (Vec::new(), 0);
        let mut piece = vec![0; 64 << 10];
        let mut out = Vec::new();
        loop {
            let n = socket.read(&mut piece).ok().filter(|n| *n > 0)?;
            input.extend_from_slice(&piece[..n]);
            while let Some(len) = whole(&input[start..]) {
                let request = &input[start..start + len];
                if self.queued.is_none() && request.starts_with(GET) {
                    out.extend_from_slice(&request[13..]);
                } else {
                    self.answer(&words(request), &mut out)?;
                }
                start += len;
            }
            input.drain(..start);
            start = 0;
            match self.dice.below(2_000) {
                0 => thread::sleep(Duration::from_millis(200)),
                1 => {
                    let _ = self.write(&out[..out.len() / 2]);
                    return None;
                }
                2 => return None,
                3..=40 => {
                    let (front, back) = out.split_at(out.len() / 3);
                    self.write(front)?;
                    thread::sleep(Duration::from_micros(self.dice.below(2_000)));
                    self.write(back)?;
                    out.clear();
                }
                _ => {}
            }
            self.write(&out)?;
            out.clear();
        }
    }

    fn write(&self, bytes: &[u8]) -> Option<()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).write_all(bytes).ok()
    }

    /// Answers a request that is not one of the many; nothing: the connection is to end.
    fn answer(&mut self, words: &[String], out: &mut Vec<u8>) -> Option<()> {
        let simple = |text: &str| Value::Simple(text.to_owned());
        let verb = words[0].to_uppercase();
        let reply = match (verb.as_str(), &mut self.queued) {
            ("EXEC", queued) => Value::Array(queued.take().unwrap_or_default()),
            (_, Some(queued)) => {
                queued.push(bulk(&words[1]));
                simple("QUEUED")
            }
            ("MULTI", queued) => {
                *queued = Some(Vec::new());
                simple("OK")
            }
            ("GET", _) => bulk(&words[1]),
            ("WATCH" | "UNWATCH", _) => {
                self.fail(50, out)?;
                simple("OK")
            }
            ("BLPOP", _) => {
                thread::sleep(Duration::from_micros(self.dice.below(1_500)));
                let popped = Value::Array(vec![bulk(&words[1]), bulk(&words[1])]);
                self.fail(50, &popped.encode())?;
                popped
            }
            ("PUBLISH", _) => self.publish(&words[1], &words[2]),
            ("SUBSCRIBE" | "UNSUBSCRIBE", _) => {
                for name in &words[1..] {
                    let mut subscribers = self.subscribers.lock().unwrap();
                    let channel = subscribers.entry(name.clone()).or_default();
                    if verb == "SUBSCRIBE" {
                        channel.insert(self.number, Arc::clone(&self.writer));
                    } else {
                        channel.remove(&self.number);
                    }
                    drop(subscribers);
                    let confirmed = [bulk(verb.to_lowercase()), bulk(name), Value::Int(1)];
                    out.extend(Value::Array(confirmed.to_vec()).encode());
                }
                return Some(());
            }
            ("INFO", _) => bulk(INFO),
            ("PING", _) => simple("PONG"),
            _ => Value::Array(Vec::new()),
        };
        out.extend(reply.encode());
        Some(())
    }

    /// One time in so many: stalls, or ends the connection with a part of `reply` sent.
    fn fail(&mut self, one_in: u64, reply: &[u8]) -> Option<()> {
        match self.dice.below(one_in * 3) {
            0 => thread::sleep(Duration::from_millis(100)),
            1 => {
                let _ = self.write(&reply[..reply.len() / 2]);
                return None;
            }
            2 => return None,
            _ => {}
        }
        Some(())
    }

    /// Passes a message on; sometimes a subscriber's connection ends in the middle of it.
    fn publish(&mut self, channel: &str, text: &str) -> Value {
        let message = Value::Array(vec![bulk("message"), bulk(channel), bulk(text)]).encode();
        let mut subscribers = self.subscribers.lock().unwrap();
        let Some(sockets) = subscribers.get_mut(channel) else { return Value::Int(0) };
        let mut ended = Vec::new();
        for (number, socket) in &*sockets {
            let mut socket = socket.lock().unwrap_or_else(PoisonError::into_inner);
            let cut = self.dice.below(300) == 0;
            let bytes = if cut { &message[..message.len() / 2] } else { &message[..] };
            if socket.write_all(bytes).is_err() || cut {
                let _ = socket.shutdown(Shutdown::Both);
                ended.push(*number);
            }
        }
        let count = i64::try_from(sockets.len()).unwrap();
        sockets.retain(|number, _| !ended.contains(number));
        Value::Int(count)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.values_mut().for_each(|sockets| drop(sockets.remove(&self.number)));
        let socket = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = socket.shutdown(Shutdown::Both);
    }
}

const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$18\r\n";

fn words(request: &[u8]) -> Vec<String> {
    Value::read(&mut &*request).unwrap().items().iter().map(Value::text).collect()
}

/// The length of the request at the front, when all of it is there.
fn whole(bytes: &[u8]) -> Option<usize> {
    const LEN: usize = GET.len() + KEY + 2;
    if bytes.starts_with(GET) {
        return (bytes.len() >= LEN).then_some(LEN);
    }
    let mut at = bytes.iter().position(|byte| *byte == b'\n')? + 1;
    let count: usize = std::str::from_utf8(&bytes[1..at - 2]).ok()?.parse().ok()?;
    for _ in 0..count {
        let end = at + bytes.get(at..)?.iter().position(|byte| *byte == b'\n')?;
        let len: usize = std::str::from_utf8(&bytes[at + 1..end - 1]).ok()?.parse().ok()?;
        at = end + 1 + len + 2;
    }
    (bytes.len() >= at).then_some(at)
}
