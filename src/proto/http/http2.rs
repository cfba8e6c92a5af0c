//! One client's HTTP/2 connection: its limits, the time that it and each of its streams may take.
//! Not the requests on it, which are like any other.

use super::{
    fault::Fault,
    hub::Hub,
    service::Session,
    session::{Answering, End},
    settings::Limits,
    toll::Toll,
    watch::{Phase, Watch},
};
use crate::net::early::Early;
use hyper::{server::conn::http2::Builder, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    cell::{Cell, RefCell},
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

/// Serves it until it ends.
pub(super) async fn serve(session: &Rc<Session>, io: Early) -> End {
    let (hub, settings, watch) = (&session.hub, &session.settings, &session.watch);
    let toll = Toll::new(io, Rc::clone(hub));
    let empty = toll.empty();
    let streams = Streams(Rc::new(Live {
        session: Rc::clone(session),
        newest: RefCell::new(None),
        count: Cell::new(0),
    }));
    streams.0.idle();
    let calls = streams.clone();
    let service = service_fn(move |request| {
        let watch = Watch::new(Phase::Waiting, u64::MAX);
        *calls.0.newest.borrow_mut() = Some(Rc::clone(&watch));
        Answering::new(&calls.0.session, request, Some(watch))
    });
    let mut connection =
        pin!(builder(streams, settings.limits).serve_connection(TokioIo::new(toll), service));
    let mut draining = pin!(hub.draining.cancelled());
    let (mut drained, mut told) = (false, false);
    let ended = poll_fn(|cx| {
        if !drained && draining.as_mut().poll(cx).is_ready() {
            drained = true;
            connection.as_mut().graceful_shutdown();
        }
        let polled = connection.as_mut().poll(cx);
        session.count();
        if let Poll::Ready(ended) = polled {
            return Poll::Ready(Some(ended));
        }
        let flooded = empty.get();
        if !flooded && !watch.is_over() {
            watch.remember(cx);
            return Poll::Pending;
        }
        if !told {
            told = true;
            connection.as_mut().graceful_shutdown();
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(Some(ended));
            }
            if !flooded {
                watch.enter(Phase::Idle, Hub::after(hub.now_us(), GOODBYE));
                watch.remember(cx);
                return Poll::Pending;
            }
        }
        Poll::Ready(None)
    });
    match ended.await {
        Some(Ok(())) => End::Closed,
        Some(Err(error)) => {
            if let Some(fault) = Fault::of(&error) {
                fault.count(hub, settings, &error);
            }
            End::Broken(error)
        }
        None if empty.get() => {
            let why = "it sends too many frames that carry nothing";
            Fault::Flood.count(hub, settings, why);
            End::Flood
        }
        None => End::Silent,
    }
}

fn builder(streams: Streams, limits: Limits) -> Builder<Streams> {
    let mut builder = Builder::new(streams);
    let list = limits.header_bytes.saturating_add(limits.headers.saturating_mul(FIELD_OVERHEAD));
    builder
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(list).unwrap_or(u32::MAX))
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESETS_AT_ONCE)
        .max_local_error_reset_streams(FAULTY_STREAMS);
    builder
}

/// Starts the task that hyper has for each stream, and ends it when its time is over.
#[derive(Clone)]
struct Streams(Rc<Live>);

struct Live {
    session: Rc<Session>,
    /// Of the request that hyper was handed last; its task is started next.
    newest: RefCell<Option<Rc<Watch>>>,
    count: Cell<usize>,
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, task: F) {
        let newest = self.0.newest.borrow_mut().take();
        let watch = newest.unwrap_or_else(|| Watch::new(Phase::Waiting, u64::MAX));
        let stream = Stream::new(&self.0);
        self.0.session.hub.spawn.start(async move {
            let mut task = pin!(task);
            let late = poll_fn(|cx| {
                if task.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(false);
                }
                watch.remember(cx);
                if watch.is_over() { Poll::Ready(true) } else { Poll::Pending }
            });
            // What is left of a late one goes with its task: the client gets a reset.
            if late.await && watch.phase() == Phase::Download {
                let session = &stream.0.session;
                Fault::Slow.count(&session.hub, &session.settings, "it does not take its reply");
            }
        });
    }
}

/// A stream that is counted for as long as it lives.
struct Stream(Rc<Live>);

impl Stream {
    fn new(live: &Rc<Live>) -> Self {
        live.count.set(live.count.get() + 1);
        live.session.watch.enter(Phase::Waiting, u64::MAX);
        Self(Rc::clone(live))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        if self.0.count.get() == 0 {
            self.0.idle();
        }
    }
}

impl Live {
    fn idle(&self) {
        let idle = self.session.settings.limits.keep_alive;
        self.session.watch.enter(Phase::Idle, Hub::after(self.session.hub.now_us(), idle));
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").field("count", &self.0.count).finish_non_exhaustive()
    }
}

/// Each field of a list counts for so much more than its bytes (RFC 9113, 6.5.2).
const FIELD_OVERHEAD: usize = 32;
/// Bytes of bodies that the client may send ahead of the backends, on one stream and on all of them
/// together: what hyper has for servers.
const WINDOW: u32 = 1024 * 1024;
/// The smallest that RFC 9113, 6.5.2, allows, and what everybody uses.
const MAX_FRAME: u32 = 16 * 1024;
/// Bytes of a reply that may wait for the client on each stream.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that the client resets before we have looked at them (rapid reset, CVE-2023-44487); 20 is
/// h2's own limit, said so that it stays.
const RESETS_AT_ONCE: usize = 20;
/// Streams that we reset because the client breaks the rules (CVE-2025-8671), in the life of a
/// connection: as many as it may have at once by default. h2 lets 1,024 pass.
const FAULTY_STREAMS: usize = 128;
/// For a client to see that its connection is about to be closed, and to close it.
const GOODBYE: Duration = Duration::from_secs(2);
