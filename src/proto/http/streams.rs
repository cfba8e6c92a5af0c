//! The streams of a client's HTTP/2 connection: each runs in a task of its own, which ends when its
//! time is over. Not what a stream does: that is the session's.

use super::{
    hub::{Hub, Watched},
    watch::{Phase, Watch},
};
use hyper::rt::Executor;
use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

/// The streams of one connection; the clones are the same ones.
#[derive(Clone, Debug)]
pub(super) struct Streams(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    hub: Rc<Hub>,
    /// The connection's, which waits as long as no stream is under way.
    connection: Rc<Watch>,
    keep_alive: Duration,
    /// Of the request that hyper was given and whose task it starts next.
    newest: RefCell<Option<Stream>>,
    open: Cell<usize>,
}

/// One stream under way.
#[derive(Debug)]
struct Stream {
    of: Rc<Shared>,
    watch: Rc<Watch>,
    _watched: Watched,
}

impl Streams {
    /// `connection`: what the connection waits for; `keep_alive`: how long without a stream.
    pub(super) fn new(hub: Rc<Hub>, connection: Rc<Watch>, keep_alive: Duration) -> Self {
        let (newest, open) = (RefCell::default(), Cell::new(0));
        Self(Rc::new(Shared { hub, connection, keep_alive, newest, open }))
    }

    /// A request has come: what it waits for. hyper starts its task before it takes another one.
    pub(super) fn begin(&self) -> Rc<Watch> {
        let of = Rc::clone(&self.0);
        let watch = Watch::new(Phase::Waiting, u64::MAX);
        let watched = of.hub.watch(Rc::clone(&watch));
        of.open.set(of.open.get() + 1);
        of.connection.enter(Phase::Waiting, u64::MAX);
        let stream = Stream { of, watch: Rc::clone(&watch), _watched: watched };
        let before = self.0.newest.replace(Some(stream));
        drop(before);
        watch
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Streams {
    fn execute(&self, task: F) {
        let stream = self.0.newest.take();
        let Some(stream) = stream else { return self.0.hub.spawn.start(task) };
        self.0.hub.spawn.start(async move {
            let mut task = pin!(task);
            poll_fn(|cx| {
                // Dropped when its time is over, it is reset: its window stays shut, or its backend
                // has stopped.
                if task.as_mut().poll(cx).is_ready() || stream.watch.is_over() {
                    return Poll::Ready(());
                }
                stream.watch.remember(cx);
                Poll::Pending
            })
            .await;
        });
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let of = &self.of;
        of.open.set(of.open.get().saturating_sub(1));
        if of.open.get() == 0 {
            of.hub.look_at_clock();
            of.connection.enter(Phase::Idle, Hub::after(of.hub.now_us(), of.keep_alive));
        }
    }
}
