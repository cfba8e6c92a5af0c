//! A TCP proxy that hurts: it slices, delays, cuts and swallows what passes, either way. It does
//! not know what the bytes mean.

use super::port::Port;
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// What happens to the bytes of each direction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fault {
    pub(crate) requests: Way,
    pub(crate) replies: Way,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Way {
    #[default]
    Clean,
    /// In writes of one to three bytes.
    Slices,
    /// Each piece this much later.
    Late(Duration),
    /// Swallowed; the connection stays.
    Hole,
    /// So many bytes, counted from when the fault was set, then a clean close.
    CloseAfter(usize),
    /// So many bytes, then a reset.
    ResetAfter(usize),
}

/// Accepts on [`FaultProxy::address`] and connects each client to its target.
#[derive(Debug)]
pub(crate) struct FaultProxy {
    port: Port,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: String,
    fault: Mutex<(u64, Fault)>,
    sockets: Mutex<Vec<TcpStream>>,
    done: AtomicBool,
}

impl FaultProxy {
    pub(crate) fn start(target: &str, fault: Fault) -> Self {
        let port = Port::free();
        let listener = TcpListener::bind(port.address()).unwrap();
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            fault: Mutex::new((0, fault)),
            sockets: Mutex::default(),
            done: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || serving.serve(&listener));
        Self { port, shared }
    }

    pub(crate) fn address(&self) -> String {
        self.port.address()
    }

    /// Changes the fault, also for the connections there are.
    pub(crate) fn set(&self, fault: Fault) {
        let mut current = self.shared.fault.lock().unwrap();
        *current = (current.0 + 1, fault);
    }
}

impl Drop for FaultProxy {
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
    fn serve(self: Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.done.load(Ordering::Relaxed) {
                return;
            }
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(&self.target)) else {
                continue;
            };
            for socket in [&client, &server] {
                socket.set_nodelay(true).unwrap();
                self.sockets.lock().unwrap().push(socket.try_clone().unwrap());
            }
            let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let reset = Arc::new(AtomicBool::new(false));
            let (shared, other) = (Arc::clone(&self), Arc::clone(&reset));
            thread::spawn(move || shared.pump(from, to, &other, |fault| fault.requests));
            let shared = Arc::clone(&self);
            thread::spawn(move || shared.pump(server, client, &reset, |fault| fault.replies));
        }
    }

    /// Copies one direction until it ends. `reset` is set by the direction that resets both.
    fn pump(
        &self,
        mut from: TcpStream,
        mut to: TcpStream,
        reset: &AtomicBool,
        way: impl Fn(&Fault) -> Way,
    ) {
        let mut buffer = [0; 16 << 10];
        let (mut since, mut passed) = (0, 0);
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let (now, way) = {
                let current = self.fault.lock().unwrap();
                (current.0, way(&current.1))
            };
            if now != since {
                (since, passed) = (now, 0);
            }
            let limit = match way {
                Way::CloseAfter(limit) | Way::ResetAfter(limit) => limit,
                _ => usize::MAX,
            };
            let pass = &buffer[..count.min(limit - passed)];
            let written = match way {
                Way::Hole => Ok(()),
                Way::Slices => slices(&mut to, pass),
                Way::Late(time) => {
                    thread::sleep(time);
                    to.write_all(pass)
                }
                _ => to.write_all(pass),
            };
            passed += pass.len();
            if passed == limit && matches!(way, Way::ResetAfter(_)) {
                reset.store(true, Ordering::Relaxed);
                self.make_reset(&[&from, &to]);
            }
            if passed == limit || written.is_err() {
                break;
            }
        }
        if !reset.load(Ordering::Relaxed) {
            let _ = from.shutdown(Shutdown::Read);
            let _ = to.shutdown(Shutdown::Write);
        }
    }

    /// Makes the last close of these sockets a reset, and every other holder let go of them.
    fn make_reset(&self, sockets: &[&TcpStream]) {
        for socket in sockets {
            let _ = socket2::SockRef::from(*socket).set_linger(Some(Duration::ZERO));
        }
        let peers: Vec<_> = sockets.iter().map(|socket| socket.peer_addr().ok()).collect();
        self.sockets.lock().unwrap().retain(|socket| !peers.contains(&socket.peer_addr().ok()));
        for socket in sockets {
            // Ends the other direction's read without a FIN.
            let _ = socket.shutdown(Shutdown::Read);
        }
    }
}

fn slices(to: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let mut rest = bytes;
    let mut size = 1;
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(size.min(rest.len()));
        to.write_all(piece)?;
        // Gives the reader its chance to see the piece alone.
        thread::yield_now();
        rest = more;
        size = size % 3 + 1;
    }
    Ok(())
}
