//! What an operator asks of a backend: the admin axis moves, the gate follows, and it is told once.
//! Not who may ask: that is the admin address's.

use super::{Table, Trigger, event};
use crate::policy::{
    admin::{Event, Source, Transition},
    gate::Admin,
    health::{Machine, Probes},
};
use std::time::Duration;

/// A wish of the admin API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) struct Wish {
    pub(in crate::control) admin: Admin,
    /// After which it is taken back; `None`: until another one comes.
    pub(in crate::control) ttl: Option<Duration>,
    /// Close its connections too.
    pub(in crate::control) kill: bool,
}

impl Table {
    /// Takes what the admin API wants of a backend in the place of what it wanted before; `detail`
    /// is for the event.
    pub(in crate::control) fn wish(
        &mut self,
        index: usize,
        wish: Wish,
        now_ms: u64,
        detail: String,
    ) {
        let ttl = wish.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let until_ms = ttl.map(|ttl| now_ms.saturating_add(ttl));
        let set = Event::Set { source: Source::Api, to: wish.admin, until_ms };
        self.administer(index, set, now_ms, detail);
        if !wish.kill {
            return;
        }
        // After the gate: what begins from now on is not the operator's to end.
        if let Some(watch) = self.watches.get(index) {
            watch.backend.kill();
            (self.on_change)();
        }
    }

    /// What the configuration wants, which the first snapshot says already.
    pub(super) fn obey_configuration(&mut self, index: usize, admin: Admin) {
        let Some(watch) = self.watches.get_mut(index) else { return };
        let set = Event::Set { source: Source::Config, to: admin, until_ms: None };
        watch.admin = watch.admin.observe(0, set).0;
        let words = [Admin::Ready.as_str(), admin.as_str(), Source::Config.as_str()];
        let told = event(watch, words, "as the configuration says".to_owned(), true);
        self.events.push(told);
    }

    /// Takes back what the admin API wanted for a time that is over.
    pub(super) fn take_back(&mut self, index: usize, now_ms: u64) {
        self.administer(index, Event::Tick, now_ms, "its time is over".to_owned());
    }

    /// Whether a backend is not to be probed now.
    pub(in crate::control) fn is_paused(&self, index: usize) -> bool {
        self.watches.get(index).is_some_and(|watch| watch.admin.admin() == Admin::Disabled)
    }

    fn administer(&mut self, index: usize, asked: Event, now_ms: u64, detail: String) {
        let Some(watch) = self.watches.get_mut(index) else { return };
        let (admin, moved) = watch.admin.observe(now_ms, asked);
        watch.admin = admin;
        let Some(Transition { from, to, source, .. }) = moved else { return };
        watch.backend.publish_admin(to);
        if from == Admin::Disabled && to != Admin::Disabled {
            // Nobody has looked for a while: what was known says nothing any more.
            watch.health = Machine::new(Probes { rise: watch.check.rise, fall: watch.check.fall });
            watch.returning = true;
            watch.wake.notify_one();
        }
        let (group, before) = (watch.group, watch.backend.state());
        let cause = source.as_str();
        let trigger = Trigger { index, cause, detail: detail.clone(), refill: false };
        self.settle(group, Some(trigger), now_ms);
        let Some(watch) = self.watches.get(index) else { return };
        let state = watch.backend.state();
        if state == before {
            // Something stricter keeps it where it is.
            let detail = match state.as_str() {
                state if state == to.as_str() => detail,
                state => format!("{detail}; it stays {state}"),
            };
            let words = [from.as_str(), to.as_str(), cause];
            let told = event(watch, words, detail, true);
            self.events.push(told);
        }
    }
}
