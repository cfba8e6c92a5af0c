//! A TCP port that no other test will choose while it is held, also while its server is down.
//! It does not hold 127.0.0.1:PORT itself: that is for the server.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
    time::SystemTime,
};

/// The reservation is a listener on an address that only tests use.
const RESERVED: Ipv4Addr = Ipv4Addr::new(127, 93, 77, 1);

#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) number: u16,
    _held: TcpListener,
}

impl Port {
    /// A free port below the kernel's ephemeral range, so that no outgoing connection takes it
    /// while a killed server is to come back on it.
    pub(crate) fn free() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let low = 10_000;
        let span = ephemeral_start().clamp(low + 2_000, 60_000) - low;
        let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        // Tests that start at once, each in a process of its own, begin in different places.
        let start = u64::from(clock.subsec_micros()) + u64::from(std::process::id()) * 7_919;
        for _ in 0..span {
            let step = u64::from(NEXT.fetch_add(1, Ordering::Relaxed));
            let number = low + u16::try_from((start + step) % u64::from(span)).unwrap();
            let Ok(held) = TcpListener::bind((RESERVED, number)) else { continue };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Self { number, _held: held };
            }
        }
        panic!("no free port from {low} to {}", low + span);
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

fn ephemeral_start() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(32_768)
}
