//! Replies before requests: a worker with many requests under way takes up new ones only behind the
//! replies that have come by then. So a crowd of clients keeps few connections to the backends busy,
//! the same ones over and over, whose state is still in the processor's caches. Not a limit: who
//! waits here waits for what the event loop has ready, and for no backend.

use crate::net::spawn::Spawn;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    task::{Context, Waker},
};

/// The line of one worker.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Requests that a backend has and has not answered.
    asked: Cell<usize>,
    waiting: RefCell<VecDeque<Waker>>,
    /// Whether a task lets them in.
    runs: Cell<bool>,
}

/// A request that a backend has, until its reply begins.
#[derive(Debug)]
pub(super) struct Asked<'a>(&'a Order);

impl Order {
    /// A backend is asked.
    pub(super) fn ask(&self) -> Asked<'_> {
        self.asked.set(self.asked.get() + 1);
        Asked(self)
    }

    /// Whether a new request is to wait for its turn.
    pub(super) fn is_busy(&self) -> bool {
        self.asked.get() >= MANY
    }

    /// Wakes the task of `cx` when it is its turn.
    pub(super) fn line_up(self: &Rc<Self>, spawn: &Spawn, cx: &Context<'_>) {
        self.waiting.borrow_mut().push_back(cx.waker().clone());
        if !self.runs.replace(true) {
            let order = Rc::clone(self);
            spawn.start(async move { order.run().await });
        }
    }

    /// Lets those in who wait, a few each time that all that was ready has had its turn and the event
    /// loop has looked for more, until nobody waits.
    async fn run(&self) {
        loop {
            tokio::task::yield_now().await;
            let room = MANY.saturating_sub(self.asked.get()).max(FEW);
            for _ in 0..room {
                let next = self.waiting.borrow_mut().pop_front();
                let Some(next) = next else {
                    self.runs.set(false);
                    return;
                };
                next.wake();
            }
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.asked.set(self.0.asked.get() - 1);
    }
}

/// So many requests under way keep a backend's event loop and ours busy.
const MANY: usize = 64;
/// How many are let in at once however many are under way: what a look at the event loop costs is
/// little for each of them.
const FEW: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::poll_fn, task::Poll};
    use tokio::task::{LocalSet, yield_now};

    #[tokio::test]
    async fn replies_that_are_there_come_first_and_nobody_waits_for_others() {
        let (order, log) = (Rc::new(Order::default()), Rc::new(RefCell::new(Vec::new())));
        let tasks = Rc::new(LocalSet::new());
        let set = Rc::clone(&tasks);
        let spawn = Spawn::new(move |task| drop(set.spawn_local(task)));
        let newcomer = |name: usize| {
            let (order, log, spawn) = (Rc::clone(&order), Rc::clone(&log), spawn.clone());
            async move {
                let mut lined_up = false;
                poll_fn(|cx| {
                    if order.is_busy() && !std::mem::replace(&mut lined_up, true) {
                        order.line_up(&spawn, cx);
                        return Poll::Pending;
                    }
                    Poll::Ready(())
                })
                .await;
                log.borrow_mut().push(name);
            }
        };
        let asked: Vec<_> = (1..MANY).map(|_| order.ask()).collect();
        tasks.run_until(newcomer(0)).await;
        let last = order.ask();
        let newcomers: Vec<_> =
            (1..=3 * FEW).map(|name| tasks.spawn_local(newcomer(name))).collect();
        for _ in 0..MANY {
            let log = Rc::clone(&log);
            tasks.spawn_local(async move { log.borrow_mut().push(usize::MAX) });
        }
        tasks
            .run_until(async {
                for one in newcomers {
                    one.await.unwrap();
                }
            })
            .await;
        let replies = [usize::MAX; MANY];
        let expected: Vec<_> = [0].into_iter().chain(replies).chain(1..=3 * FEW).collect();
        assert_eq!(*log.borrow(), expected, "with as many under way all the while");
        drop((asked, last));
        tasks.run_until(async { (yield_now().await, yield_now().await) }).await;
        assert!(!order.is_busy() && !order.runs.get());
    }
}
