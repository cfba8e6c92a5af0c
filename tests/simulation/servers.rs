//! Fake Redis servers: real sockets, a real little store per shard, and faults on order. They run
//! in steps of the one who drives the simulation and start no task.

use super::{
    Planted,
    control::{Control, MEMBERS},
    ledger::{Ledger, parse_key, value},
    resp,
};
use sluice::policy::{access::Access, gate::Role};
use std::{
    collections::{HashMap, VecDeque},
    fs,
    io::{ErrorKind, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
};

#[derive(Debug)]
pub(crate) struct Server {
    id: usize,
    path: PathBuf,
    listener: Option<UnixListener>,
    conns: Vec<Conn>,
    pub(crate) mode: Mode,
    /// One for each of the next requests.
    pub(crate) faults: VecDeque<Fault>,
    /// What it really is, whatever control believes.
    pub(crate) is_primary: bool,
    planted: Planted,
    /// Writes that a planted bug sends once more.
    resend: Vec<Vec<Vec<u8>>>,
    /// Requests taken in by the permit of each publication.
    permits: HashMap<u32, u32>,
    /// What one read fills.
    buffer: Vec<u8>,
}

/// How a server is for some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Well,
    /// Every reply is so late, in milliseconds.
    Slow(u64),
    /// Stopped: nothing is read and nothing written.
    Hung,
    Loading,
    /// A replica that lost its primary.
    MasterDown,
    /// Nobody listens; connections that were there are gone.
    Refusing,
}

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection is reset before it is read whole.
    ResetBefore,
    /// It is executed, and the connection closed without a reply.
    CloseAfter,
    /// It is executed, half of the reply is sent, and the connection closed.
    HalfReply,
    /// It is executed, and the reply is not RESP.
    Garbage,
}

#[derive(Debug)]
struct Conn {
    stream: UnixStream,
    input: Vec<u8>,
    out: Vec<u8>,
    /// Replies that are not due yet, with when they are.
    due: VecDeque<(u64, Vec<u8>)>,
    db: u8,
    /// Control's step when it was opened.
    accepted: usize,
    /// To be closed when all is written.
    closing: bool,
    open: bool,
}

impl Server {
    pub(crate) fn new(folder: &Path, id: usize, planted: Planted) -> Self {
        let path = folder.join(format!("b{id}"));
        let mut server = Self {
            id,
            path,
            listener: None,
            conns: Vec::new(),
            mode: Mode::Well,
            faults: VecDeque::new(),
            is_primary: id.is_multiple_of(MEMBERS),
            planted,
            resend: Vec::new(),
            permits: HashMap::new(),
            buffer: vec![0; 16 * 1024],
        };
        server.set_mode(Mode::Well);
        server
    }

    pub(crate) fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
        if mode == Mode::Refusing {
            self.conns.clear();
            if self.listener.take().is_some() {
                fs::remove_file(&self.path).unwrap();
            }
        } else if self.listener.is_none() {
            let listener = UnixListener::bind(&self.path).unwrap();
            listener.set_nonblocking(true).unwrap();
            self.listener = Some(listener);
        }
    }

    /// What a probe would learn now; `None` when it would fail.
    pub(crate) fn probe(&self) -> Option<Role> {
        match self.mode {
            Mode::Hung | Mode::Refusing => None,
            Mode::Loading => Some(Role::Loading),
            Mode::MasterDown if !self.is_primary => Some(Role::ReplicaLinkDown),
            Mode::Well | Mode::Slow(_) | Mode::MasterDown => {
                Some(if self.is_primary { Role::Primary } else { Role::Replica })
            }
        }
    }

    /// Sends a reply that nobody asked for on a connection where nothing is under way. While
    /// something is, it could not be told from the reply that is due.
    pub(crate) fn send_surplus(&mut self) -> bool {
        let idle =
            |conn: &&mut Conn| conn.input.is_empty() && conn.out.is_empty() && conn.due.is_empty();
        let well = self.mode == Mode::Well;
        let Some(conn) = self.conns.iter_mut().find(idle).filter(|_| well) else { return false };
        conn.stream.write_all(b"+SURPLUS\r\n").is_ok()
    }

    /// Whether it may have something to do without being asked.
    pub(crate) fn is_busy(&self) -> bool {
        self.conns.iter().any(|conn| !conn.due.is_empty() || !conn.out.is_empty())
    }

    /// Takes what came and sends what is due; new connections only when some were dialled.
    pub(crate) fn pump(&mut self, dialled: bool, control: &Control, ledger: &mut Ledger) {
        let listener = || self.listener.as_ref().filter(|_| dialled);
        while let Some(Ok((stream, _))) = listener().map(UnixListener::accept) {
            stream.set_nonblocking(true).unwrap();
            self.conns.push(Conn {
                stream,
                input: Vec::new(),
                out: Vec::new(),
                due: VecDeque::new(),
                db: 0,
                accepted: control.step(),
                closing: false,
                open: true,
            });
        }
        if self.mode == Mode::Hung {
            return;
        }
        let mut conns = std::mem::take(&mut self.conns);
        for conn in &mut conns {
            self.take(conn, control, ledger);
            conn.send(ledger.now_ms);
        }
        conns.retain(|conn| conn.open);
        self.conns = conns;
    }

    fn take(&mut self, conn: &mut Conn, control: &Control, ledger: &mut Ledger) {
        if conn.closing {
            return;
        }
        let reset = self.faults.front() == Some(&Fault::ResetBefore);
        loop {
            // What is left unread makes a reset of the close.
            let room = if reset { &mut self.buffer[..1] } else { &mut self.buffer[..] };
            match conn.stream.read(room) {
                Ok(n) if n > 0 && !reset => conn.input.extend_from_slice(&self.buffer[..n]),
                Ok(1) => {
                    ledger.note(format!("b{} resets a connection", self.id));
                    self.faults.pop_front();
                    conn.open = false;
                    return;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Ok(_) | Err(_) => {
                    conn.open = false;
                    return;
                }
            }
        }
        let mut at = 0;
        let mut replies = 0;
        while !conn.closing {
            match resp::words(&conn.input[at..]) {
                Ok(None) => break,
                Ok(Some((words, len))) => {
                    at += len;
                    self.answer(conn, &words, control, ledger);
                    replies += 1;
                }
                Err(error) => {
                    ledger.violation(format!("b{} was sent nonsense: {error}", self.id));
                    conn.open = false;
                    return;
                }
            }
        }
        conn.input.drain(..at);
        if self.planted == Planted::SwappedReplies && replies > 1 && at.is_multiple_of(3) {
            let last = conn.due.len() - 1;
            let (a, b) = (conn.due[last].1.clone(), conn.due[last - 1].1.clone());
            (conn.due[last].1, conn.due[last - 1].1) = (b, a);
        }
    }

    fn answer(
        &mut self,
        conn: &mut Conn,
        words: &[Vec<u8>],
        control: &Control,
        ledger: &mut Ledger,
    ) {
        let delay = if let Mode::Slow(ms) = self.mode { ms } else { 0 };
        let mut due = ledger.now_ms + delay;
        due = due.max(conn.due.back().map_or(0, |(due, _)| *due));
        let mut out = Vec::new();
        match words[0].as_slice() {
            b"AUTH" => out.extend_from_slice(b"+OK\r\n"),
            b"SELECT" => {
                conn.db = String::from_utf8_lossy(&words[1]).parse().unwrap();
                out.extend_from_slice(b"+OK\r\n");
            }
            b"COMMAND" => out.extend_from_slice(b"*0\r\n"),
            _ => {
                for words in std::mem::take(&mut self.resend) {
                    self.execute(conn.db, &words, ledger, &mut Vec::new());
                }
                self.check(conn, words, control, ledger);
                self.execute(conn.db, words, ledger, &mut out);
                let fault = self.faults.pop_front();
                if let Some(fault) = fault {
                    ledger.note(format!("b{}: {fault:?} on {}", self.id, shown(words)));
                }
                match fault {
                    Some(Fault::CloseAfter) => {
                        out.clear();
                        conn.closing = true;
                    }
                    Some(Fault::HalfReply) => {
                        out.truncate(out.len() / 2);
                        conn.closing = true;
                    }
                    Some(Fault::Garbage) => out = b"?garbage\r\n".to_vec(),
                    Some(Fault::ResetBefore) | None => {}
                }
                if conn.closing && self.planted == Planted::ResentWrite && is_write(words) {
                    self.resend.push(words.to_vec());
                }
            }
        }
        conn.due.push_back((due, out));
    }

    /// Holds a request against the ledger: was it sent to this one, and could it be?
    fn check(&mut self, conn: &Conn, words: &[Vec<u8>], control: &Control, ledger: &mut Ledger) {
        let access = if is_write(words) { Access::Write } else { Access::Read };
        let mut sent = None;
        for (key, id) in keys(words) {
            match ledger.get(id) {
                Some(mention)
                    if (mention.key, mention.db) == (key, conn.db)
                        && mention.write == (access == Access::Write) =>
                {
                    sent = Some(mention.sent_step);
                }
                other => {
                    let text = format!("b{} got {} for {other:?}", self.id, shown(words));
                    ledger.violation(text);
                }
            }
        }
        let Some(sent) = sent else {
            return ledger.violation(format!("b{} got {}", self.id, shown(words)));
        };
        // A pick came after the request, and at the earliest with the connection it went over.
        let steps = (sent.max(conn.accepted), control.step());
        if !control.could_pick(steps, self.id, access) {
            let text = format!("b{} got {} with its gate closed", self.id, shown(words));
            ledger.violation(text);
        }
        if let Some(edition) = control.permit(steps, self.id) {
            let taken = self.permits.entry(edition).or_default();
            *taken += 1;
            if *taken > 1 {
                let text = format!("b{} got {} requests for one permit", self.id, *taken);
                ledger.violation(text);
            }
        }
    }

    fn execute(&self, db: u8, words: &[Vec<u8>], ledger: &mut Ledger, out: &mut Vec<u8>) {
        if self.mode == Mode::Loading {
            out.extend_from_slice(b"-LOADING Redis is loading the dataset in memory\r\n");
            return;
        }
        if is_write(words) && !self.is_primary {
            out.extend_from_slice(b"-READONLY You can't write against a read only replica.\r\n");
            return;
        }
        if self.mode == Mode::MasterDown && !self.is_primary {
            out.extend_from_slice(b"-MASTERDOWN Link with MASTER is down\r\n");
            return;
        }
        let found =
            |key: usize, ledger: &Ledger| ledger.current(db, key).map(|id| value(key, db, id));
        let one = |out: &mut Vec<u8>, value: Option<Vec<u8>>| match value {
            Some(value) => resp::bulk(out, &value),
            None => out.extend_from_slice(b"$-1\r\n"),
        };
        match words[0].as_slice() {
            b"SET" | b"MSET" => {
                keys(words).for_each(|(_, id)| ledger.apply(id, self.id));
                out.extend_from_slice(b"+OK\r\n");
            }
            b"GET" => keys(words).for_each(|(key, _)| one(out, found(key, ledger))),
            b"MGET" => {
                out.extend_from_slice(format!("*{}\r\n", words.len() - 1).as_bytes());
                keys(words).for_each(|(key, _)| one(out, found(key, ledger)));
            }
            b"EXISTS" => {
                let count = keys(words).filter(|(key, _)| ledger.current(db, *key).is_some());
                out.extend_from_slice(format!(":{}\r\n", count.count()).as_bytes());
            }
            _ => ledger.violation(format!("b{} got {}", self.id, shown(words))),
        }
    }
}

impl Conn {
    fn send(&mut self, now_ms: u64) {
        while let Some((_, bytes)) = self.due.pop_front_if(|(due, _)| *due <= now_ms) {
            self.out.extend_from_slice(&bytes);
        }
        while self.open && !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(n) => drop(self.out.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.open = false,
            }
        }
        self.open &= !self.closing || !self.due.is_empty();
    }
}

fn is_write(words: &[Vec<u8>]) -> bool {
    matches!(words[0].as_slice(), b"SET" | b"MSET")
}

/// The keys of a request with the numbers that they carry.
fn keys(words: &[Vec<u8>]) -> impl Iterator<Item = (usize, usize)> {
    let step = if is_write(words) { 2 } else { 1 };
    words[1..].iter().step_by(step).filter_map(|word| parse_key(word))
}

fn shown(words: &[Vec<u8>]) -> String {
    let short = |word: &Vec<u8>| String::from_utf8_lossy(&word[..word.len().min(20)]).into_owned();
    words.iter().map(short).collect::<Vec<_>>().join(" ")
}
