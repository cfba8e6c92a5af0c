//! An origin of our own: it reads requests strictly, counts each one it believes it got, and answers
//! as their path says. What it gets that is no HTTP/1.1 is kept as garbage: through a proxy there
//! must be none.

use super::{
    super::{PATIENCE, eventually, port::Port},
    wire::{Body, Broken, Framing, Head, read_body, read_request},
};
use std::{
    fmt,
    io::{self, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// A request that came whole.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Counted from 0 over all that this origin saw; the answer's `X-Count`.
    pub(crate) count: usize,
    /// Which connection it came on, counted from 0.
    pub(crate) connection: usize,
    /// Counted from 0 over its connection.
    pub(crate) number: usize,
    pub(crate) head: Head,
    pub(crate) body: Body,
}

/// What the origin does about a request, in order.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Send(Vec<u8>),
    Wait(Duration),
    /// So many zeros, or until nobody takes them.
    Flood(u64),
    /// Sends back what comes until it ends.
    Echo,
    Close,
    /// Closes with a reset.
    Reset,
}

/// Answers by the path; what it does not know is answered 200 with `METHOD TARGET LENGTH`:
///
/// | path | answer |
/// |---|---|
/// | `/status/N` | that status |
/// | `/slow/MS` | 200 after so many milliseconds |
/// | `/close`, `/reset` | none |
/// | `/half` | the connection is closed after half of the body |
/// | `/bytes/N` | a body of N bytes |
/// | `/endless` | a chunked body without an end |
/// | `/chunked` | `a`, `bc` in chunks, with the trailer `X-Sum: 3` |
/// | `/upgrade` | 101, then every byte comes back |
/// | `/keep-alive` | 200, `Keep-Alive: timeout=2` |
/// | `/last` | 200, `Connection: close`, and the connection is closed |
/// | `/echo` | 200 with the request's head as it came, a line each |
///
/// `/health` is not counted. A request with `Expect: 100-continue` gets `100 Continue`, but `417` for
/// the path `/expect-no`, and nothing for `/expect-nothing`. One with a script asks that first.
#[derive(Debug)]
pub(crate) struct Origin {
    port: Port,
    shared: Arc<Shared>,
}

/// What a test has an origin answer instead; `None`: as its path says.
type Script = Box<dyn Fn(&Seen) -> Option<Vec<Act>> + Send + Sync>;

#[derive(Default)]
struct Shared {
    name: String,
    script: Option<Script>,
    /// Of the running generation; an older one's threads end.
    listening: Mutex<Option<Arc<AtomicBool>>>,
    sockets: Mutex<Vec<TcpStream>>,
    connections: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
    begun: AtomicUsize,
    /// Of those, whose body is still awaited.
    reading: AtomicUsize,
    garbage: Mutex<Vec<String>>,
    sick: AtomicBool,
}

impl Origin {
    pub(crate) fn start(name: &str) -> Self {
        Self::of(Shared { name: name.to_owned(), ..Shared::default() })
    }

    /// One that answers by `script` where that gives something.
    pub(crate) fn scripted(
        name: &str,
        script: impl Fn(&Seen) -> Option<Vec<Act>> + Send + Sync + 'static,
    ) -> Self {
        let script: Option<Script> = Some(Box::new(script));
        Self::of(Shared { name: name.to_owned(), script, ..Shared::default() })
    }

    fn of(shared: Shared) -> Self {
        let shared = Arc::new(shared);
        let origin = Self { port: Port::free(), shared };
        origin.restart();
        origin
    }

    pub(crate) fn address(&self) -> String {
        self.port.address()
    }

    /// Every request that came whole.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// How many requests came whole.
    pub(crate) fn count(&self) -> usize {
        self.shared.seen.lock().unwrap().len()
    }

    /// How many heads of requests came, those among them whose body did not come whole.
    pub(crate) fn begun(&self) -> usize {
        self.shared.begun.load(Ordering::SeqCst)
    }

    /// How many requests are read just now: their heads came, and they are neither whole nor cut.
    pub(crate) fn reading(&self) -> usize {
        self.shared.reading.load(Ordering::SeqCst)
    }

    /// How many connections were made, those of probes among them.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// What came and was no HTTP/1.1.
    pub(crate) fn garbage(&self) -> Vec<String> {
        self.shared.garbage.lock().unwrap().clone()
    }

    /// From now on `/health` is answered 503, or no longer.
    pub(crate) fn sicken(&self, sick: bool) {
        self.shared.sick.store(sick, Ordering::SeqCst);
    }

    /// Its port is closed and every connection reset.
    pub(crate) fn kill(&self) {
        if let Some(on) = self.shared.listening.lock().unwrap().take() {
            on.store(false, Ordering::SeqCst);
            let _ = TcpStream::connect(self.port.address());
        }
        for socket in self.shared.sockets.lock().unwrap().drain(..) {
            reset(&socket);
        }
    }

    /// Listens again on the same port.
    pub(crate) fn restart(&self) {
        let listener = eventually("the port is free again", PATIENCE, || {
            TcpListener::bind(self.port.address()).ok()
        });
        let on = Arc::new(AtomicBool::new(true));
        *self.shared.listening.lock().unwrap() = Some(Arc::clone(&on));
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || {
            for socket in listener.incoming() {
                if !on.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(socket) = socket else { continue };
                let connection = shared.connections.fetch_add(1, Ordering::SeqCst);
                shared.sockets.lock().unwrap().push(socket.try_clone().unwrap());
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.serve(connection, &socket));
            }
        });
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Shared {
    fn serve(&self, connection: usize, socket: &TcpStream) {
        let _ = socket.set_nodelay(true);
        let mut reader = BufReader::new(socket);
        for number in 0.. {
            let (head, framing) = match read_request(&mut reader) {
                Ok(request) => request,
                Err(broken) => {
                    self.told(socket, &broken);
                    break;
                }
            };
            let (_, target, version) = head.request();
            let health = target == "/health";
            if !health {
                self.begun.fetch_add(1, Ordering::SeqCst);
            }
            if !self.wants_body(socket, &head, framing) {
                break;
            }
            self.reading.fetch_add(1, Ordering::SeqCst);
            let read = read_body(&mut reader, framing);
            let acts = match read {
                Ok(_) if health && self.sick.load(Ordering::SeqCst) => {
                    Ok(respond("503 Sick", "", b"sick"))
                }
                Ok(_) if health => Ok(respond("200 OK", "", b"ok")),
                Ok(body) => {
                    let mut all = self.seen.lock().unwrap();
                    let head = head.clone();
                    let seen = Seen { count: all.len(), connection, number, head, body };
                    let scripted = self.script.as_ref().and_then(|script| script(&seen));
                    let acts = scripted.unwrap_or_else(|| self.answer(&seen));
                    all.push(seen);
                    Ok(acts)
                }
                Err(broken) => Err(broken),
            };
            self.reading.fetch_sub(1, Ordering::SeqCst);
            let acts = match acts {
                Ok(acts) => acts,
                Err(broken) => {
                    self.told(socket, &broken);
                    break;
                }
            };
            let last = version == "HTTP/1.0" || head.says("connection", "close");
            if !act(socket, &mut reader, &acts) || last {
                break;
            }
        }
        let _ = socket.shutdown(Shutdown::Both);
    }

    /// Keeps what was wrong with a connection, and refuses it.
    fn told(&self, mut socket: &TcpStream, broken: &Broken) {
        if let Broken::Garbage(what) = broken {
            self.garbage.lock().unwrap().push(what.clone());
            let _ = socket.write_all(b"HTTP/1.1 400 Garbage\r\nContent-Length: 0\r\n\r\n");
        }
    }

    /// Says that the body may come, where that is asked.
    fn wants_body(&self, mut socket: &TcpStream, head: &Head, framing: Framing) -> bool {
        let asked =
            head.get("expect").is_some_and(|expect| expect.eq_ignore_ascii_case("100-continue"));
        if !asked || framing == Framing::None {
            return true;
        }
        if head.request().1 == "/expect-no" {
            let _ = socket.write_all(&join(&respond("417 No", "Connection: close\r\n", b"no")));
            return false;
        }
        head.request().1 == "/expect-nothing"
            || socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").is_ok()
    }

    fn answer(&self, seen: &Seen) -> Vec<Act> {
        let Seen { count, head, body, .. } = seen;
        let (method, target, _) = head.request();
        let own = format!("X-Origin: {}\r\nX-Count: {count}\r\n", self.name);
        let path = target.split('?').next().unwrap_or_default();
        let path = path.strip_prefix("http://test").unwrap_or(path);
        let (first, rest) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
        let number = |text: &str| text.parse().unwrap_or_default();
        let default = format!("{method} {target} {}", body.length);
        let plain = |status: &str| respond(status, &own, default.as_bytes());
        let send = |text: String| Act::Send(text.into_bytes());
        let acts = match (first.trim_start_matches('/'), rest) {
            ("status", code) => plain(&format!("{code} As Asked")),
            ("slow", ms) => {
                [vec![Act::Wait(Duration::from_millis(number(ms)))], plain("200 OK")].concat()
            }
            ("close", "") => vec![Act::Close],
            ("reset", "") => vec![Act::Reset],
            ("half", "") => {
                vec![
                    send(format!("HTTP/1.1 200 OK\r\n{own}Content-Length: 8\r\n\r\nhalf")),
                    Act::Close,
                ]
            }
            ("bytes", length) => {
                let head = format!("HTTP/1.1 200 OK\r\n{own}Content-Length: {length}\r\n\r\n");
                vec![send(head), Act::Flood(number(length))]
            }
            ("endless", "") => {
                let size = u64::MAX >> 8;
                let head = format!(
                    "HTTP/1.1 200 OK\r\n{own}Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n"
                );
                vec![send(head), Act::Flood(size)]
            }
            ("chunked", "") => vec![send(format!(
                "HTTP/1.1 200 OK\r\n{own}Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
                 1\r\na\r\n2\r\nbc\r\n0\r\nX-Sum: 3\r\n\r\n"
            ))],
            ("upgrade", "") => vec![
                send(format!(
                    "HTTP/1.1 101 Switching Protocols\r\n{own}Connection: Upgrade\r\nUpgrade: echo\r\n\r\n"
                )),
                Act::Echo,
            ],
            ("keep-alive", "") => {
                respond("200 OK", &format!("{own}Keep-Alive: timeout=2\r\n"), default.as_bytes())
            }
            ("last", "") => {
                let acts =
                    respond("200 OK", &format!("{own}Connection: close\r\n"), default.as_bytes());
                [acts, vec![Act::Close]].concat()
            }
            ("echo", "") => {
                let fields = head.fields.iter().map(|(name, value)| format!("{name}: {value}\n"));
                let text = format!("{}\n{}", head.line, fields.collect::<String>());
                respond("200 OK", &own, text.as_bytes())
            }
            _ if method == "CONNECT" => plain("405 No Tunnels"),
            _ => plain("200 OK"),
        };
        if method == "HEAD" { without_body(acts) } else { acts }
    }
}

pub(crate) fn respond(status: &str, fields: &str, body: &[u8]) -> Vec<Act> {
    let head = format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
    vec![Act::Send([head.as_bytes(), body].concat())]
}

/// What is sent, of a HEAD's answer: the head.
fn without_body(acts: Vec<Act>) -> Vec<Act> {
    let bytes = join(&acts);
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
    let waits =
        acts.into_iter().filter(|act| matches!(act, Act::Wait(_) | Act::Close | Act::Reset));
    waits.chain([Act::Send(bytes[..end].to_vec())]).collect()
}

fn join(acts: &[Act]) -> Vec<u8> {
    let sent = acts.iter().filter_map(|act| match act {
        Act::Send(bytes) => Some(bytes.as_slice()),
        _ => None,
    });
    sent.flatten().copied().collect()
}

/// False when the connection is over.
fn act(mut socket: &TcpStream, reader: &mut impl Read, acts: &[Act]) -> bool {
    acts.iter().all(|act| match act {
        Act::Send(bytes) => socket.write_all(bytes).is_ok(),
        Act::Wait(time) => {
            thread::sleep(*time);
            true
        }
        Act::Flood(bytes) => flood(socket, *bytes).is_ok(),
        Act::Echo => {
            let _ = io::copy(reader, &mut socket);
            false
        }
        Act::Close => false,
        Act::Reset => {
            reset(socket);
            false
        }
    })
}

fn flood(mut socket: &TcpStream, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; 64 << 10];
    let mut left = bytes;
    while left > 0 {
        let some = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
        socket.write_all(&zeros[..some])?;
        left -= some as u64;
    }
    Ok(())
}

fn reset(socket: &TcpStream) {
    let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
    let _ = socket.shutdown(Shutdown::Both);
}
