//! What a client's connection (over HTTP/2: one stream of it) waits for, and until when. Not the
//! clock: the hub looks at all of them some five times a second, which costs a request no timer.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Waker},
};

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The first byte of a request.
    Idle,
    /// The rest of a request's head.
    Head,
    /// The next part of a request's body.
    Upload,
    /// The head of the reply.
    Waiting,
    /// The next part of the reply's body.
    Reply,
    /// A client that takes the reply's body.
    Download,
}

/// One wait, moved from phase to phase.
#[derive(Debug)]
pub(super) struct Watch {
    phase: Cell<Phase>,
    /// In the hub's microseconds; `u64::MAX`: never.
    deadline_us: Cell<u64>,
    due: Cell<bool>,
    /// The backend is out: a request that may be is to go to another one.
    moved: Cell<bool>,
    body_broke: Cell<bool>,
    /// The operator wants the connections of its backend closed.
    killed: Cell<bool>,
    /// Since when the backend has had all of the request; `u64::MAX`: it has not.
    asked_us: Cell<u64>,
    /// The head of the reply has come: no other reply can be given.
    replied: Cell<bool>,
    /// Bytes of the request's body that came, and of the reply's that went.
    pub(super) received: Cell<u64>,
    pub(super) sent: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

impl Watch {
    pub(super) fn new(phase: Phase, deadline_us: u64) -> Rc<Self> {
        Rc::new(Self {
            phase: Cell::new(phase),
            deadline_us: Cell::new(deadline_us),
            due: Cell::new(false),
            moved: Cell::new(false),
            body_broke: Cell::new(false),
            killed: Cell::new(false),
            asked_us: Cell::new(u64::MAX),
            replied: Cell::new(false),
            received: Cell::new(0),
            sent: Cell::new(0),
            waker: RefCell::new(None),
        })
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Waits for something else now, until `deadline_us`.
    pub(super) fn enter(&self, phase: Phase, deadline_us: u64) {
        self.phase.set(phase);
        self.deadline_us.set(deadline_us);
        self.due.set(false);
    }

    /// A request begins: nothing was counted, nobody moved it, and no time is set.
    pub(super) fn begin(&self) {
        self.enter(Phase::Waiting, u64::MAX);
        self.moved.set(false);
        self.body_broke.set(false);
        self.killed.set(false);
        self.replied.set(false);
        self.received.set(0);
        self.sent.set(0);
    }

    /// The wait has been too long, or is not to go on.
    pub(super) fn is_due(&self) -> bool {
        self.due.get() || self.killed.get()
    }

    /// The head of the reply has come.
    pub(super) fn reply(&self) {
        self.replied.set(true);
    }

    /// Whether it has.
    pub(super) fn has_replied(&self) -> bool {
        self.replied.get()
    }

    /// The backend has all of the request since then; `u64::MAX`: it is still being sent.
    pub(super) fn ask(&self, now_us: u64) {
        self.asked_us.set(now_us);
    }

    /// Since when the backend alone is waited for, if it is.
    pub(super) fn asked_us(&self) -> Option<u64> {
        Some(self.asked_us.get()).filter(|us| *us != u64::MAX)
    }

    /// The wait has been too long and nobody but the connection can end it: before its head has come
    /// whole, a request has nobody else, and after the head of its reply neither.
    pub(super) fn is_over(&self) -> bool {
        let asks = matches!(self.phase.get(), Phase::Upload | Phase::Waiting);
        self.is_due() && (self.replied.get() || !asks)
    }

    /// The backend broke off within its reply by saying nothing more.
    pub(super) fn is_late_reply(&self) -> bool {
        self.due.get() && self.phase.get() == Phase::Reply
    }

    /// The connection to the backend that has replied is to be closed.
    pub(super) fn is_killed(&self) -> bool {
        self.killed.get()
    }

    /// Wakes the task because its connection is to be closed.
    pub(super) fn kill(&self) {
        if !self.killed.replace(true) {
            self.wake();
        }
    }

    /// The backend is out, said once.
    pub(super) fn take_moved(&self) -> bool {
        self.moved.replace(false)
    }

    /// What was said of an earlier backend does not count for the next one.
    pub(super) fn forget_moved(&self) {
        self.moved.set(false);
    }

    /// The body of the request broke off, or was no HTTP.
    pub(super) fn break_body(&self) {
        self.body_broke.set(true);
    }

    /// Whether it did: then no backend is to blame for what follows.
    pub(super) fn body_broke(&self) -> bool {
        self.body_broke.get()
    }

    /// Remembers whom to wake; the task of a connection or a stream stays the same.
    pub(super) fn remember(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Wakes the task when its time is over.
    pub(super) fn look(&self, now_us: u64) {
        if self.deadline_us.get() <= now_us && !self.due.replace(true) {
            self.wake();
        }
    }

    /// Wakes the task because its backend is out.
    pub(super) fn evict(&self) {
        if !self.moved.replace(true) {
            self.wake();
        }
    }

    /// Wakes the task.
    pub(super) fn wake(&self) {
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
