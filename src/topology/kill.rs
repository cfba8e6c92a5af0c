//! The work of one worker that an operator may end: what runs on a backend registers here and
//! learns when its backend's connections are to be closed. Not who decides that: control does, with
//! [`Backend::kill`].

use super::Backend;
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
};

/// What runs on backends in one worker.
#[derive(Debug, Default)]
pub struct Kills {
    running: RefCell<HashMap<u64, Rc<Entry>>>,
    next: Cell<u64>,
}

/// One connection, or a group of them, from before it is opened until it is dropped.
#[derive(Debug)]
pub struct Killable {
    kills: Rc<Kills>,
    id: u64,
    entry: Rc<Entry>,
}

#[derive(Debug)]
struct Entry {
    backend: Arc<Backend>,
    /// The backend's count when this began.
    began: u32,
    waker: RefCell<Option<Waker>>,
}

impl Kills {
    /// Wakes what is to end; call it when a gate has changed.
    pub fn look(&self) {
        for entry in self.running.borrow().values().filter(|entry| entry.is_over()) {
            if let Some(waker) = entry.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }
}

impl Killable {
    /// Registers something that begins now.
    pub fn new(kills: &Rc<Kills>, backend: Arc<Backend>) -> Self {
        let entry = Rc::new(Entry { began: backend.kills(), backend, waker: RefCell::new(None) });
        let id = kills.next.replace(kills.next.get().wrapping_add(1));
        kills.running.borrow_mut().insert(id, Rc::clone(&entry));
        Self { kills: Rc::clone(kills), id, entry }
    }

    /// Resolves when it is to end.
    pub async fn killed(&self) {
        poll_fn(|cx| {
            if self.entry.is_over() {
                return Poll::Ready(());
            }
            let mut waker = self.entry.waker.borrow_mut();
            if waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        self.kills.running.borrow_mut().remove(&self.id);
    }
}

impl Entry {
    fn is_over(&self) -> bool {
        self.backend.kills() != self.began
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Context;

    #[test]
    fn what_began_before_a_kill_ends_and_what_began_after_it_does_not() {
        let backend = |id| {
            let address = format!("10.0.0.{id}:1").parse().unwrap();
            Arc::new(Backend::new(id, "c".into(), "".into(), address, 1, 1))
        };
        let (one, other) = (backend(1), backend(2));
        let kills = Rc::new(Kills::default());
        let [old, elsewhere] = [&one, &other].map(|b| Killable::new(&kills, Arc::clone(b)));
        let over = |killable: &Killable| {
            let mut killed = std::pin::pin!(killable.killed());
            killed.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
        };
        assert!(!over(&old) && !over(&elsewhere));
        one.kill();
        kills.look();
        let new = Killable::new(&kills, Arc::clone(&one));
        assert!(over(&old) && !over(&elsewhere) && !over(&new));
        drop((old, elsewhere, new));
        assert!(kills.running.borrow().is_empty(), "what has ended is forgotten");
    }
}
