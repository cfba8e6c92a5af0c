//! One backend as one worker sees it: its idle connections, who waits for it, and how long its
//! replies take. Not whether it may be picked: the gate says that.

use super::{shared::Joint, upstream::Upstream, watch::Watch};
use crate::{
    net::pool::Pool,
    policy::suspicion::{Recent, is_suspect},
    topology::{Backend, Outcome, Reporter},
};
use slab::Slab;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

/// A backend on one worker.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) backend: Arc<Backend>,
    pub(super) pool: Pool<Box<Upstream>>,
    /// The one connection of a backend that is spoken to in HTTP/2.
    pub(super) joint: Joint,
    waiting: RefCell<Slab<Waiter>>,
    /// Whose reply has begun, tunnels included.
    served: RefCell<Slab<Rc<Watch>>>,
    /// How often the operator has closed its connections.
    kills: Cell<u32>,
    recent: RefCell<Recent>,
    /// When the last byte came from it.
    heard_us: Cell<u64>,
    /// When control was asked to look at it.
    suspected_us: Cell<u64>,
    /// How long until it is asked again while nothing else comes from it.
    pause_us: Cell<u64>,
}

#[derive(Debug)]
struct Waiter {
    watch: Rc<Watch>,
    /// Whether it may go to another backend.
    movable: bool,
}

/// One who waits for the head of a reply, for as long as it does.
#[derive(Debug)]
pub(super) struct Waiting<'a> {
    site: &'a Site,
    key: usize,
}

impl Site {
    pub(super) fn new(backend: Arc<Backend>) -> Self {
        Self {
            kills: Cell::new(backend.kills()),
            backend,
            pool: Pool::default(),
            joint: Joint::default(),
            waiting: RefCell::default(),
            served: RefCell::default(),
            recent: RefCell::default(),
            heard_us: Cell::new(0),
            suspected_us: Cell::new(0),
            pause_us: Cell::new(SUSPECT_AGAIN_US),
        }
    }

    /// Somebody waits for a reply from now on.
    pub(super) fn wait(&self, watch: &Rc<Watch>, movable: bool) -> Waiting<'_> {
        watch.forget_moved();
        let waiter = Waiter { watch: Rc::clone(watch), movable };
        Waiting { site: self, key: self.waiting.borrow_mut().insert(waiter) }
    }

    /// The head of a reply has come, `took_us` after its request.
    pub(super) fn replied(&self, now_us: u64, took_us: u64) {
        self.heard_us.set(now_us);
        self.recent.borrow_mut().add(took_us);
    }

    /// Bytes of a reply have come.
    pub(super) fn heard(&self, now_us: u64) {
        self.heard_us.set(now_us);
    }

    /// Older replies say less.
    pub(super) fn decay(&self) {
        self.recent.borrow_mut().decay();
    }

    /// Asks control to look at a backend that seems to hang: one that has had all of a request for
    /// too long. At most four times a second, and less often the longer it answers such questions
    /// and nothing else.
    pub(super) fn suspect(&self, now_us: u64, reporter: &Reporter) {
        let oldest = {
            let waiting = self.waiting.borrow();
            waiting.iter().filter_map(|(_, one)| one.watch.asked_us()).min()
        };
        let Some(oldest) = oldest else { return };
        let (heard_us, suspected_us) = (self.heard_us.get(), self.suspected_us.get());
        let age = now_us.saturating_sub(oldest);
        let silent = now_us.saturating_sub(heard_us).min(age);
        let same = suspected_us > heard_us.max(oldest);
        let pause_us = if same { self.pause_us.get() } else { SUSPECT_AGAIN_US };
        let asked = now_us.saturating_sub(suspected_us) < pause_us;
        if !asked && is_suspect(age, silent, self.recent.borrow().p99_us()) {
            self.suspected_us.set(now_us);
            let next_us = if same { pause_us * 2 } else { pause_us };
            self.pause_us.set(next_us.min(LONGEST_PAUSE_US));
            reporter.report(&self.backend, Outcome::Suspect);
        }
    }

    /// The backend is out: idle connections are closed, and who waits and may goes elsewhere.
    pub(super) fn evict(&self) {
        self.pool.clear();
        self.joint.close();
        let movable: Vec<_> = {
            let waiting = self.waiting.borrow();
            let movable = waiting.iter().filter(|(_, one)| one.movable);
            movable.map(|(_, one)| Rc::clone(&one.watch)).collect()
        };
        movable.iter().for_each(|watch| watch.evict());
    }

    /// The backend is to get nothing new: idle connections are closed, what is under way stays.
    pub(super) fn rest(&self) {
        self.pool.clear();
        self.joint.close();
    }

    /// A reply has begun; the key is for [`Self::leave`].
    pub(super) fn enter(&self, watch: &Rc<Watch>) -> usize {
        self.served.borrow_mut().insert(Rc::clone(watch))
    }

    /// It has ended.
    pub(super) fn leave(&self, key: usize) {
        self.served.borrow_mut().try_remove(key);
    }

    /// Whether the operator wants its connections closed; said once.
    pub(super) fn take_killed(&self) -> bool {
        let kills = self.backend.kills();
        self.kills.replace(kills) != kills
    }

    /// Closes every connection: who waits for a reply goes elsewhere or is told, who gets one loses
    /// its own connection.
    pub(super) fn kill(&self) {
        self.pool.clear();
        self.joint.close();
        let waiting: Vec<_> =
            self.waiting.borrow().iter().map(|(_, one)| Rc::clone(&one.watch)).collect();
        waiting.iter().for_each(|watch| watch.evict());
        let served: Vec<_> = self.served.borrow().iter().map(|(_, one)| Rc::clone(one)).collect();
        served.iter().for_each(|watch| watch.kill());
    }

    /// Closes idle connections whose time is over.
    pub(super) fn sweep(&self, now_us: u64) {
        self.pool.sweep(now_us);
        let used = !self.waiting.borrow().is_empty() || !self.served.borrow().is_empty();
        self.joint.sweep(now_us, used);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.site.waiting.borrow_mut().try_remove(self.key);
    }
}

const SUSPECT_AGAIN_US: u64 = 250_000;
/// As often as the ordinary probes come by default.
const LONGEST_PAUSE_US: u64 = 2_000_000;
