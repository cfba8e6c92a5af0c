//! The subscriber connection of one worker to the primary of one shard: it is opened again when it
//! is lost, wherever the primary is then. What it hears goes to [`super::pubsub`], which knows who
//! wants it; no request of a client goes over it.
//!
//! It speaks RESP2 with every server: a message then has the very bytes that a client of RESP2 is to
//! get, and for one of RESP3 only the first one differs.

use super::{
    audience::Subject,
    class::Class,
    client::Client,
    duty, handshake,
    hub::Hub,
    intake::Intake,
    message::{Parsed, Said, parse},
    pubsub, route,
    topics::{Name, Ticket},
    wire,
};
use crate::{
    net::{
        dial::{Opening, dial},
        outgoing::Outgoing,
        stream::Stream,
    },
    policy::{access::Access, gate::Role, reads::ReadFrom},
    topology::{Backend, Cluster, Shard},
};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

/// One connection, or the tries to open it; its task runs until nothing is wanted of it.
#[derive(Debug)]
pub(super) struct Tap {
    pub(super) cluster: usize,
    pub(super) shard: usize,
    /// How many topics are to be heard over it.
    pub(super) topics: Cell<usize>,
    inner: RefCell<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Whom it is connected to, and its count of kills then.
    backend: Option<(Arc<Backend>, u32)>,
    out: Outgoing,
    /// What was asked and is not answered, in order.
    asked: VecDeque<Asked>,
    waker: Option<Waker>,
    doomed: Option<String>,
    /// Since when messages may be missed.
    lost_us: Option<u64>,
    /// How many topics are being subscribed to again.
    restoring: usize,
    last_byte_us: u64,
    pinged: bool,
    /// Since when no topic is wanted.
    idle_us: Option<u64>,
    charged: usize,
}

/// A command whose answer is due.
#[derive(Debug)]
pub(super) enum Asked {
    Subscribe {
        subject: Subject,
        name: Name,
        /// Which of the topics that had this name it was for.
        topic: u64,
        /// After a connection was lost.
        again: bool,
    },
    /// Whoever waits for the end hears of it then.
    Unsubscribe {
        subject: Subject,
        name: Name,
        ticket: Option<Rc<Ticket>>,
    },
    Ping,
}

impl Tap {
    /// Starts connecting.
    pub(super) fn start(hub: &Rc<Hub>, cluster: usize, shard: usize) -> Rc<Self> {
        let tap = Rc::new(Self { cluster, shard, topics: Cell::new(0), inner: RefCell::default() });
        let (hub, this) = (Rc::clone(hub), Rc::clone(&tap));
        hub.clone().start(async move {
            let guard = Guard { hub: &hub, tap: &this };
            this.run(&hub).await;
            drop(guard);
        });
        tap
    }

    /// Whether it has a connection.
    pub(super) fn is_connected(&self) -> bool {
        self.inner.borrow().backend.is_some()
    }

    /// Subscribes, when it is connected; else it will, to all that is wanted then.
    pub(super) fn subscribe(&self, subject: Subject, name: &Name, topic: u64) {
        let mut inner = self.inner.borrow_mut();
        if inner.backend.is_some() {
            inner.subscribe(subject, name, topic, false);
        }
    }

    /// Unsubscribes. False when there is nothing to wait for, for there is no connection.
    pub(super) fn unsubscribe(
        &self,
        subject: Subject,
        name: &Name,
        ticket: Option<&Rc<Ticket>>,
    ) -> bool {
        let mut inner = self.inner.borrow_mut();
        if inner.backend.is_none() {
            return false;
        }
        inner.say(&[subject.verb(false).as_bytes(), name]);
        let (name, ticket) = (Rc::clone(name), ticket.map(Rc::clone));
        inner.asked.push_back(Asked::Unsubscribe { subject, name, ticket });
        true
    }

    /// Ends the connection when its server is not the one to hear from any more.
    pub(super) fn look(&self, cluster: Option<&Cluster>) {
        let mut inner = self.inner.borrow_mut();
        let Some((backend, kills)) = &inner.backend else { return };
        let shard = cluster.and_then(|cluster| cluster.shards.get(self.shard));
        let is_here = |shard: &Shard| shard.members.iter().any(|one| one.id == backend.id);
        let reason = if backend.kills() != *kills {
            duty::why_killed(backend)
        } else if !shard.is_some_and(is_here) {
            "no member of its shard any more"
        } else if backend.role() != Role::Primary && !backend.gate().primary() {
            "no primary any more"
        } else if backend.gate().evict() {
            backend.state().as_str()
        } else {
            return;
        };
        inner.doomed = Some(reason.to_owned());
        inner.wake();
    }

    /// What time brings, once a second: a silent connection is tried, one that stays silent or that
    /// nobody wants is closed.
    pub(super) fn tick(&self, now_us: u64, stall: Duration) {
        let mut inner = self.inner.borrow_mut();
        let idle_us = match self.topics.get() {
            0 => Some(inner.idle_us.unwrap_or(now_us)),
            _ => None,
        };
        inner.idle_us = idle_us;
        if inner.backend.is_none() {
            return;
        }
        let silent_us = now_us.saturating_sub(inner.last_byte_us);
        if idle_us.is_some_and(|since| now_us.saturating_sub(since) >= REST_US) {
            inner.doomed = Some("nobody listens".to_owned());
            inner.wake();
        } else if inner.pinged && u128::from(silent_us) >= stall.as_micros() {
            inner.doomed = Some("no byte for timeouts.stall after a PING".to_owned());
            inner.wake();
        } else if !inner.pinged && silent_us >= PING_US {
            inner.pinged = true;
            inner.say(&[b"PING"]);
            inner.asked.push_back(Asked::Ping);
        }
    }

    async fn run(self: &Rc<Self>, hub: &Rc<Hub>) {
        let mut pause = FIRST_PAUSE;
        while self.topics.get() > 0 {
            match self.connect(hub).await {
                Ok((backend, stream)) => {
                    pause = FIRST_PAUSE;
                    let cell = hub.cell(&backend);
                    cell.iter().for_each(|c| c.connections.add(1));
                    self.begin(hub, &backend);
                    let error = self.serve(hub, &backend, stream).await;
                    cell.iter().for_each(|c| c.connections.sub(1));
                    tracing::debug!(
                        cluster = %backend.cluster,
                        topics = self.topics.get(),
                        "backend {}: subscriptions: {error}",
                        backend.name
                    );
                    self.lost(hub);
                }
                Err(text) => pubsub::unreachable(hub, self, &text),
            }
            if self.topics.get() > 0 {
                let jitter = hub.draw() % u64::try_from(pause.as_millis()).unwrap_or(1).max(1);
                tokio::time::sleep(pause + Duration::from_millis(jitter)).await;
                pause = LONGEST_PAUSE.min(2 * pause);
            }
        }
    }

    /// # Errors
    /// Why nobody can be heard now, for clients.
    async fn connect(&self, hub: &Hub) -> Result<(Arc<Backend>, Stream), String> {
        let found = {
            let mut topology = hub.topology();
            let cluster = topology.snapshot().clusters.get(self.cluster).map(Arc::clone);
            cluster.ok_or("no such cluster")?
        };
        let shard = found.shards.get(self.shard).ok_or("no such shard")?;
        let backend = primary(shard)
            .ok_or_else(|| route::why_not(shard, Access::Write, ReadFrom::Primary))?;
        let limit = found.timeouts.connect;
        let opened = async {
            let mut stream =
                dial(&backend.address, Opening::tls(found.tls.as_ref()), limit).await?;
            handshake::greet(&mut stream, &found.credentials, Class::default(), limit).await?;
            Ok::<_, io::Error>(stream)
        };
        let opened = opened.await;
        if let Some(cell) = hub.cell(backend) {
            let counter = if opened.is_ok() { &cell.connects_ok } else { &cell.connects_failed };
            counter.add(1);
        }
        match opened {
            Ok(stream) => Ok((Arc::clone(backend), stream)),
            Err(error) => Err(format!("shard {}: backend {}: {error}", shard.name, backend.name)),
        }
    }

    /// The connection is there: all that is wanted is asked for.
    fn begin(&self, hub: &Rc<Hub>, backend: &Arc<Backend>) {
        let mut inner = self.inner.borrow_mut();
        inner.backend = Some((Arc::clone(backend), backend.kills()));
        inner.last_byte_us = hub.now_us();
        inner.pinged = false;
        let again = inner.lost_us.is_some();
        let wanted = hub.pubsub.topics_of(self.cluster, self.shard);
        if again {
            inner.restoring = wanted.len();
            let metrics = hub.metrics.clusters.get(self.cluster);
            metrics.iter().for_each(|m| m.resubscriptions.add(wanted.len() as u64));
        }
        for (subject, name, topic) in wanted {
            inner.subscribe(subject, &name, topic, again);
        }
        inner.end_gap(hub, self.cluster);
    }

    async fn serve(
        self: &Rc<Self>,
        hub: &Rc<Hub>,
        backend: &Backend,
        mut stream: Stream,
    ) -> String {
        let mut turn = Turn::default();
        std::future::poll_fn(|cx| self.poll_turn(cx, hub, backend, &mut stream, &mut turn)).await
    }

    /// One turn: write what was asked, read what came, hand it to the clients, and write to each of
    /// them once.
    fn poll_turn(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        hub: &Rc<Hub>,
        backend: &Backend,
        stream: &mut Stream,
        turn: &mut Turn,
    ) -> Poll<String> {
        if let Err(error) = self.inner.borrow_mut().flush(cx, hub, backend, stream) {
            return Poll::Ready(error);
        }
        loop {
            turn.input.make_room();
            match tokio_util::io::poll_read_buf(Pin::new(&mut *stream), cx, &mut turn.input.bytes) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Poll::Ready("closed by the server".to_owned()),
                Poll::Ready(Err(error)) => return Poll::Ready(error.to_string()),
                Poll::Ready(Ok(n)) => {
                    hub.cell(backend).iter().for_each(|c| c.bytes_in.add(n as u64));
                    let result = self.take(hub, turn);
                    turn.touched.drain(..).for_each(|client| client.flush(hub));
                    if let Err(error) = result {
                        return Poll::Ready(error);
                    }
                }
            }
        }
        // A confirmation may have been followed by another question.
        match self.inner.borrow_mut().flush(cx, hub, backend, stream) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(error),
        }
    }

    fn take(self: &Rc<Self>, hub: &Rc<Hub>, turn: &mut Turn) -> Result<(), String> {
        {
            let mut inner = self.inner.borrow_mut();
            inner.last_byte_us = hub.now_us();
            inner.charge(hub, turn.input.bytes.capacity());
        }
        while turn.input.rest().len() >= turn.needed.max(1) {
            let bytes = turn.input.rest();
            match parse(bytes) {
                Ok(Parsed::Partial(needed)) => turn.needed = needed,
                Ok(Parsed::Whole(len, said)) => {
                    let frame = bytes.get(..len).unwrap_or_default();
                    match said {
                        Said::Message { subject, topic } => {
                            pubsub::deliver(hub, self, subject, topic, frame, &mut turn.touched);
                        }
                        said => self.answered(hub, said, &mut turn.touched)?,
                    }
                    turn.input.start += len;
                    turn.needed = 0;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    /// Something that is no message: the answer to the oldest question.
    fn answered(
        self: &Rc<Self>,
        hub: &Rc<Hub>,
        said: Said<'_>,
        touched: &mut Vec<Rc<Client>>,
    ) -> Result<(), String> {
        let asked = {
            let mut inner = self.inner.borrow_mut();
            if let Said::Confirmed { subject: Subject::ShardChannel, on: false, name } = said
                && !inner.asked.front().is_some_and(|asked| asked.is_answered_by(said))
            {
                // Its slot has moved away: it is asked for again, where it belongs now.
                drop(inner);
                pubsub::taken_away(hub, self, name);
                return Ok(());
            }
            let asked = inner.asked.pop_front().ok_or("an answer to no question")?;
            if !asked.is_answered_by(said) {
                return Err("the answer to another question".to_owned());
            }
            match &asked {
                Asked::Ping => inner.pinged = false,
                Asked::Subscribe { again: true, .. } => {
                    inner.restoring = inner.restoring.saturating_sub(1);
                    inner.end_gap(hub, self.cluster);
                }
                Asked::Subscribe { .. } | Asked::Unsubscribe { .. } => {}
            }
            asked
        };
        match said {
            Said::Error(text) => pubsub::refused(hub, self, asked, text, touched),
            _ => pubsub::answered(hub, self, asked, touched),
        }
        Ok(())
    }

    /// The connection is over: the server has forgotten what it was asked.
    fn lost(self: &Rc<Self>, hub: &Rc<Hub>) {
        let asked = {
            let mut inner = self.inner.borrow_mut();
            inner.backend = None;
            inner.doomed = None;
            inner.out = Outgoing::default();
            inner.restoring = 0;
            inner.charge(hub, 0);
            if self.topics.get() > 0 {
                inner.lost_us.get_or_insert_with(|| hub.now_us());
            }
            std::mem::take(&mut inner.asked)
        };
        pubsub::lost(hub, self, asked);
    }
}

impl Asked {
    fn is_answered_by(&self, said: Said<'_>) -> bool {
        match (self, said) {
            (Self::Ping, Said::Pong) => true,
            (
                Self::Subscribe { subject, name, .. },
                Said::Confirmed { subject: of, on: true, name: told },
            )
            | (
                Self::Unsubscribe { subject, name, .. },
                Said::Confirmed { subject: of, on: false, name: told },
            ) => *subject == of && **name == *told,
            (_, Said::Error(_)) => true,
            _ => false,
        }
    }
}

impl Inner {
    fn subscribe(&mut self, subject: Subject, name: &Name, topic: u64, again: bool) {
        self.say(&[subject.verb(true).as_bytes(), name]);
        self.asked.push_back(Asked::Subscribe { subject, name: Rc::clone(name), topic, again });
    }

    fn say(&mut self, words: &[&[u8]]) {
        let mut request = Vec::new();
        wire::array(&mut request, words.len());
        words.iter().for_each(|word| wire::bulk(&mut request, word));
        self.out.extend(&request);
        self.wake();
    }

    fn wake(&self) {
        self.waker.iter().for_each(Waker::wake_by_ref);
    }

    fn flush(
        &mut self,
        cx: &mut Context<'_>,
        hub: &Hub,
        backend: &Backend,
        stream: &mut Stream,
    ) -> Result<(), String> {
        if let Some(reason) = self.doomed.take() {
            return Err(reason);
        }
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
        while !self.out.is_empty() || stream.unsent() > 0 {
            let n = self.out.write(&hub.buffers, stream).map_err(|error| error.to_string())?;
            hub.cell(backend).iter().for_each(|c| c.bytes_out.add(n as u64));
            if self.out.is_empty() && stream.unsent() == 0 {
                break;
            }
            match stream.poll_write_ready(cx) {
                Poll::Ready(result) => result.map_err(|error| error.to_string())?,
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// All that was heard before the connection was lost is heard again.
    fn end_gap(&mut self, hub: &Hub, cluster: usize) {
        if self.restoring == 0
            && let Some(since) = self.lost_us.take()
            && let Some(metrics) = hub.metrics.clusters.get(cluster)
        {
            metrics.subscriber_gap_us.add(hub.now_us().saturating_sub(since));
        }
    }

    fn charge(&mut self, hub: &Hub, held: usize) {
        hub.charge(self.charged, held);
        self.charged = held;
    }
}

/// The primary as it serves now; a permit of one on trial is for requests.
pub(super) fn primary(shard: &Shard) -> Option<&Arc<Backend>> {
    let ready = |backend: &&Arc<Backend>| backend.gate().primary() && backend.gate().open();
    shard.members.iter().find(ready)
}

/// If the task panics, another one begins anew.
struct Guard<'a> {
    hub: &'a Rc<Hub>,
    tap: &'a Rc<Tap>,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.hub.metrics.panics.add(1);
            self.tap.lost(self.hub);
            self.hub.pubsub.replace(self.hub, self.tap);
        } else {
            self.hub.pubsub.forget(self.tap);
        }
    }
}

/// What the task keeps between reads.
#[derive(Debug, Default)]
struct Turn {
    input: Intake,
    /// Of the rest, how many must be there before it is worth a look.
    needed: usize,
    touched: Vec<Rc<Client>>,
}

/// Between tries to connect: a failover takes seconds, and there are others that try.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A connection that nobody wants is kept for whoever comes next.
const REST_US: u64 = 30_000_000;
/// A silent server is asked whether it is there.
const PING_US: u64 = 5_000_000;
