//! What time brings to an upstream connection: suspicion, stalls, the patience with a client that does
//! not read. Not who calls when: that is `duty`.

use super::{
    super::{
        client::End,
        entry::{Entry, Owner, Patience},
        hub::Hub,
        turn::PAUSE_BACKLOG,
    },
    Inner, Phase, Upstream,
};
use crate::{policy::suspicion::is_suspect, topology::Outcome};
use std::{rc::Rc, time::Duration};

impl Upstream {
    /// Looks at the clock: suspicion, stalls. Called some twenty times a second.
    pub fn tick(&self, hub: &Hub, now_us: u64) {
        // Its gate may have changed while it was opened.
        self.follow_role(hub);
        let mut inner = self.inner.borrow_mut();
        // What is appended while it connects is counted nowhere else.
        inner.charge(hub);
        if let Some(since_us) = inner.held_up {
            inner.last_byte_us = now_us;
            return inner.end_patience(now_us.saturating_sub(since_us));
        }
        let silent_us = now_us.saturating_sub(inner.last_byte_us);
        let Some(oldest) = inner.fifo.front() else {
            drop(inner);
            if self.leased.get() && self.silence_us.get() > 0 && silent_us >= self.silence_us.get()
            {
                self.end(Phase::Released, "its client is silent for dedicated.max_lease_idle");
            }
            return;
        };
        let allowed = match oldest.patience {
            Patience::Own => {
                drop(inner);
                if (1..=now_us).contains(&self.deadline_us.get()) {
                    let late = "no answer 5s after the time that the command gave itself";
                    self.end(Phase::Read, late);
                }
                return;
            }
            // A server that runs a script is silent, and no less well for it.
            Patience::Script if self.timeouts.script.is_zero() => return,
            Patience::Script => self.timeouts.script,
            Patience::Usual => Duration::ZERO,
        };
        let oldest_us = now_us.saturating_sub(oldest.start_us);
        let due = now_us.saturating_sub(inner.suspected_us) >= SUSPECT_AGAIN_US;
        if due && allowed.is_zero() && is_suspect(oldest_us, silent_us, inner.recent.p99_us()) {
            inner.suspected_us = now_us;
            hub.reporter.report(&self.backend, Outcome::Suspect);
        }
        let stalled = u128::from(silent_us) >= (self.timeouts.stall + allowed).as_micros();
        drop(inner);
        if stalled {
            self.end(Phase::Read, "no byte for timeouts.stall with requests outstanding");
        }
    }

    /// Forgets half of what it knows of its own speed; called every ten seconds.
    pub fn decay(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.recent.decay();
        inner.flights.forget_long();
    }
}

impl Inner {
    /// Closes the client that does not read its reply when others have waited behind it for long
    /// enough. When nobody waits, it may take its time.
    fn end_patience(&self, waited_us: u64) {
        let waiting: Vec<_> = self.fifo.iter().flat_map(|entry| entry.owner.clients()).collect();
        let slow = match self.fifo.front() {
            Some(Entry { owner: Owner::Flight(flight), .. }) => flight.slow(PAUSE_BACKLOG),
            _ => waiting.iter().take(1).map(Rc::clone).collect(),
        };
        for slow in slow {
            if waited_us >= slow.grace_us() && waiting.iter().any(|client| client.id != slow.id) {
                tracing::info!(
                    client = slow.id,
                    "a client that does not read its reply is closed: others wait behind it"
                );
                slow.kill(End::SlowReader);
            }
        }
    }
}

/// A backend that was suspected is suspected again at the earliest after this.
const SUSPECT_AGAIN_US: u64 = 500_000;
