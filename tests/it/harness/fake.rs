//! A server that says what a test wants of it, and passes for a healthy primary meanwhile.
//! It stores nothing.

use super::{
    port::Port,
    resp::{Value, bulk},
};
use std::{
    io::{BufReader, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// A request that is not a probe's or a handshake's.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Which connection it came on, counted from 0 over all that were opened.
    pub(crate) connection: usize,
    /// Counted from 0 over its connection.
    pub(crate) number: usize,
    pub(crate) words: Vec<String>,
}

/// What the server does about it.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Send(Vec<u8>),
    Wait(Duration),
    Close,
}

impl Step {
    pub(crate) fn reply(value: &Value) -> Vec<Self> {
        vec![Self::Send(value.encode())]
    }
}

#[derive(Debug)]
pub(crate) struct FakeServer {
    port: Port,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    done: AtomicBool,
    /// What it says to ROLE; a healthy primary otherwise.
    role: Option<Value>,
    sockets: Mutex<Vec<TcpStream>>,
    seen: Mutex<Vec<Request>>,
}

impl FakeServer {
    /// `answer` is asked about each request; what it gives is done in order on that connection.
    pub(crate) fn start(answer: impl Fn(&Request) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::with_role(None, answer)
    }

    /// One that says this to ROLE, and passes for a healthy primary in all else.
    pub(crate) fn with_role(
        role: Option<Value>,
        answer: impl Fn(&Request) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let port = Port::free();
        let listener = TcpListener::bind(port.address()).unwrap();
        let shared = Arc::new(Shared { role, ..Shared::default() });
        let serving = Arc::clone(&shared);
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for (connection, socket) in listener.incoming().enumerate() {
                let Ok(socket) = socket else { continue };
                if serving.done.load(Ordering::Relaxed) {
                    return;
                }
                socket.set_nodelay(true).unwrap();
                serving.sockets.lock().unwrap().push(socket.try_clone().unwrap());
                let (shared, answer) = (Arc::clone(&serving), Arc::clone(&answer));
                thread::spawn(move || shared.serve(connection, &socket, &*answer));
            }
        });
        Self { port, shared }
    }

    pub(crate) fn address(&self) -> String {
        self.port.address()
    }

    /// The requests so far that were not a probe's or a handshake's.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.shared.seen.lock().unwrap().clone()
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.shared.done.store(true, Ordering::Relaxed);
        // Wakes the accept.
        let _ = TcpStream::connect(self.address());
        for socket in self.shared.sockets.lock().unwrap().iter() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn serve(&self, connection: usize, socket: &TcpStream, answer: &dyn Fn(&Request) -> Vec<Step>) {
        let mut reader = BufReader::new(socket);
        let mut writer = socket;
        let mut number = 0;
        while let Ok(value) = Value::read(&mut reader) {
            let words: Vec<String> = value.items().iter().map(Value::text).collect();
            let own = self.role.clone().filter(|_| words[0].eq_ignore_ascii_case("ROLE"));
            let steps = match own.or_else(|| small_talk(&words)) {
                Some(value) => Step::reply(&value),
                None => {
                    let request = Request { connection, number, words };
                    number += 1;
                    let steps = answer(&request);
                    self.seen.lock().unwrap().push(request);
                    steps
                }
            };
            for step in steps {
                match step {
                    Step::Send(bytes) if writer.write_all(&bytes).is_err() => return,
                    Step::Send(_) => {}
                    Step::Wait(time) => thread::sleep(time),
                    Step::Close => {
                        let _ = socket.shutdown(Shutdown::Both);
                        return;
                    }
                }
            }
        }
    }
}

/// What probes and handshakes ask, answered as by a healthy primary of 7.0.15.
fn small_talk(words: &[String]) -> Option<Value> {
    let ok = Value::Simple("OK".to_owned());
    Some(match words[0].to_ascii_uppercase().as_str() {
        "AUTH" | "SELECT" | "CLIENT" | "READONLY" => ok,
        "PING" => Value::Simple("PONG".to_owned()),
        "HELLO" => Value::Error("NOPROTO unsupported protocol version".to_owned()),
        "COMMAND" | "CONFIG" => Value::Array(Vec::new()),
        "ROLE" => Value::Array(vec![bulk("master"), Value::Int(1), Value::Array(Vec::new())]),
        "INFO" => bulk(
            "# Server\r\nredis_version:7.0.15\r\n# Persistence\r\nloading:0\r\n# Replication\r\n\
             role:master\r\nconnected_slaves:0\r\nmaster_failover_state:no-failover\r\n\
             master_replid:8371b4fb1155b71f4a04d3e1bc3e18c4a990aeeb\r\nmaster_repl_offset:1\r\n\
             second_repl_offset:-1\r\nrepl_backlog_active:0\r\n",
        ),
        _ => return None,
    })
}
