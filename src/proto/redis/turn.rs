//! One turn of an upstream connection's task: write what sessions appended, read what came, hand
//! it to the clients, and write to each of them once. Not the connection's life: that is
//! [`super::upstream`].

use super::{
    block,
    class::Resp,
    client::Client,
    cluster,
    entry::{Entry, Owner, Reach},
    failure,
    flight::{self, Flight},
    functions,
    hub::Hub,
    insight::slow::{self, Moment},
    intake::Intake,
    redirect, reply,
    scan::Scanner,
    tally::{Settled, Tally},
    upstream::{Inner, MOST_FED, Phase, Purpose, Upstream, UpstreamError},
};
use crate::net::stream::Stream;
use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, ReadBuf};

impl Upstream {
    pub(super) async fn serve(self: &Rc<Self>, hub: &Rc<Hub>, mut stream: Stream) -> UpstreamError {
        let mut turn = Turn::new(self.hears_pushes());
        std::future::poll_fn(|cx| self.poll_turn(cx, hub, &mut stream, &mut turn)).await
    }

    /// One turn: write what sessions appended, read what came, hand it to the clients, and write to
    /// each of them once.
    fn poll_turn(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        hub: &Rc<Hub>,
        stream: &mut Stream,
        turn: &mut Turn,
    ) -> Poll<UpstreamError> {
        if let Some(error) = self.begin_turn() {
            return Poll::Ready(error);
        }
        let quiet = match self.hears_pushes() {
            true => self.poll_pushes(cx, hub, stream, turn),
            false => self.poll_quiet(cx, hub, stream),
        };
        if let Poll::Ready(error) = quiet {
            return Poll::Ready(error);
        }
        if let Err(error) = self.flush(cx, hub, stream) {
            return Poll::Ready(self.error(Phase::Write, error));
        }
        loop {
            if self.is_held_up(cx, hub) {
                return Poll::Pending;
            }
            if let Err(error) = ready!(self.poll_read(cx, hub, stream, turn)) {
                return Poll::Ready(error);
            }
        }
    }

    /// Reads once and hands out what came.
    fn poll_read(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        hub: &Rc<Hub>,
        stream: &mut Stream,
        turn: &mut Turn,
    ) -> Poll<Result<(), UpstreamError>> {
        turn.input.make_room();
        let read = tokio_util::io::poll_read_buf(Pin::new(stream), cx, &mut turn.input.bytes);
        Poll::Ready(match ready!(read) {
            Ok(0) => Err(self.error(Phase::Read, CLOSED)),
            Err(error) => Err(self.error(Phase::Read, error)),
            Ok(n) => {
                hub.cell(&self.backend).iter().for_each(|c| c.bytes_in.add(n as u64));
                let result = self.take_replies(hub, turn);
                for client in turn.touched.drain(..) {
                    client.flush(hub);
                }
                result
            }
        })
    }

    /// The same as [`Self::poll_quiet`] where the server may speak unasked: that is heard, and
    /// nothing else.
    fn poll_pushes(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        hub: &Rc<Hub>,
        stream: &mut Stream,
        turn: &mut Turn,
    ) -> Poll<UpstreamError> {
        while self.inner().is_quiet() {
            if let Err(error) = ready!(self.poll_read(cx, hub, stream, turn)) {
                return Poll::Ready(error);
            }
            if !turn.input.rest().is_empty() && !turn.is_push() && !self.is_relay() {
                return Poll::Ready(self.stray(hub, turn.input.rest()));
            }
        }
        Poll::Pending
    }

    /// While no reply is due, looks before anything is sent: what has come must not be taken for
    /// the reply to a request that leaves in this turn, nor that one be counted as sent to a server
    /// that has closed. Costs no system call unless the event loop has said that there is something.
    fn poll_quiet(
        &self,
        cx: &mut Context<'_>,
        hub: &Hub,
        stream: &mut Stream,
    ) -> Poll<UpstreamError> {
        if !self.inner().is_quiet() || self.is_relay() {
            return Poll::Pending;
        }
        let mut bytes = [0; SHOWN];
        let mut bytes = ReadBuf::new(&mut bytes);
        let result = ready!(Pin::new(stream).poll_read(cx, &mut bytes));
        Poll::Ready(match (result, bytes.filled()) {
            (Ok(()), []) => self.error(Phase::Read, CLOSED),
            (Ok(()), bytes) => self.stray(hub, bytes),
            (Err(error), _) => self.error(Phase::Read, error),
        })
    }

    fn flush(&self, cx: &mut Context<'_>, hub: &Hub, stream: &mut Stream) -> io::Result<()> {
        let mut inner = self.inner();
        if !inner.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            inner.waker = Some(cx.waker().clone());
        }
        let before = inner.outbox.written();
        while inner.outbox.is_pending() || stream.unsent() > 0 {
            let n = inner.outbox.write(&hub.buffers, stream)?;
            hub.cell(&self.backend).iter().for_each(|c| c.bytes_out.add(n));
            if !inner.outbox.is_pending() && stream.unsent() == 0 {
                break;
            }
            match stream.poll_write_ready(cx) {
                Poll::Ready(result) => result?,
                Poll::Pending => break,
            }
        }
        let blocked = inner.outbox.is_pending();
        if std::mem::replace(&mut inner.blocked, blocked) {
            let written = inner.outbox.written();
            inner.delays.left(before, written, hub.now_us());
        }
        if inner.outbox.pending() <= MOST_FED
            && let Some(feeder) = inner.feeder.take()
        {
            feeder.resume();
        }
        inner.charge(hub);
        Ok(())
    }

    /// Whether the client of the reply under way reads too slowly for it to be read on. Nobody new
    /// is to wait behind it then: the connection is retired (redis.md, T33).
    fn is_held_up(self: &Rc<Self>, cx: &Context<'_>, hub: &Hub) -> bool {
        if let Some(client) = self.relayed_to() {
            return self.waits_for(&client, cx, hub);
        }
        let mut inner = self.inner();
        let is_slow = match inner.fifo.front() {
            Some(Entry { owner: Owner::Client(client), streamed: true, .. })
                if client.backlog() > PAUSE_BACKLOG =>
            {
                client.wake_when_drained(cx.waker());
                true
            }
            Some(Entry { owner: Owner::Flight(flight), streamed: true, .. }) => {
                let slow = flight.slow(PAUSE_BACKLOG);
                slow.iter().for_each(|client| client.wake_when_drained(cx.waker()));
                !slow.is_empty()
            }
            _ => false,
        };
        if !is_slow {
            inner.held_up = None;
            return false;
        }
        inner.held_up = inner.held_up.or_else(|| Some(hub.now_us()));
        if self.purpose == Purpose::Shared && !std::mem::replace(&mut inner.retired, true) {
            for entry in &inner.fifo {
                match &entry.owner {
                    Owner::Client(client) => client.wait_for_all(),
                    Owner::Flight(flight) => flight.wait_for_all(),
                    Owner::Tombstone | Owner::Commands | Owner::Number | Owner::Functions => {}
                }
            }
            hub.retire(self);
        }
        true
    }

    /// Of a relay: whether its client reads too slowly, whatever it is that comes.
    fn waits_for(&self, client: &Client, cx: &Context<'_>, hub: &Hub) -> bool {
        let slow = client.backlog() > PAUSE_BACKLOG;
        if slow {
            client.wake_when_drained(cx.waker());
        }
        self.inner().held_up = slow.then(|| hub.now_us());
        slow
    }

    /// Of a relay: bytes that answer nothing, or that nobody can count, go to its client as they are.
    fn pass_on(&self, hub: &Hub, turn: &mut Turn, client: &Client) {
        turn.scanner = Scanner::new(self.class.resp);
        turn.is_begun = false;
        let bytes = turn.input.rest();
        let passable = self.raw.passable(bytes);
        if passable > 0 {
            client.stream(hub, bytes.get(..passable).unwrap_or_default());
        }
        if passable < bytes.len() && !self.is_raw() {
            turn.input.start = turn.input.bytes.len();
            client.set_unfinished(false);
            client.resume();
        } else {
            turn.input.start += passable;
        }
        self.inner().partial = 0;
    }

    /// Of a relay: what comes are no replies any more; nothing is due from here on.
    fn stop_counting(&self, hub: &Hub, client: &Client) {
        self.go_raw();
        let fifo = std::mem::take(&mut self.inner().fifo);
        for entry in fifo {
            if entry.is_work() {
                hub.cell(&self.backend).iter().for_each(|c| c.in_flight.sub(1));
            }
            if matches!(entry.owner, Owner::Client(_)) {
                client.answer(hub, entry.seq, entry.part, "", b"");
            }
        }
    }

    fn take_replies(self: &Rc<Self>, hub: &Rc<Hub>, turn: &mut Turn) -> Result<(), UpstreamError> {
        let now_us = hub.now_us();
        self.inner().last_byte_us = now_us;
        let mut tally = Tally::new(now_us);
        let before_us = turn.replied_us;
        let relay = self.relayed_to();
        let result = loop {
            if relay.is_some() && self.inner().fifo.is_empty() {
                break Ok(());
            }
            let bytes = turn.input.bytes.get(turn.input.start..).unwrap_or_default();
            match turn.scanner.measure(bytes) {
                Err(error) => match &relay {
                    Some(client) => {
                        self.stop_counting(hub, client);
                        break Ok(());
                    }
                    None => break Err(self.error(Phase::Protocol, error)),
                },
                Ok(None) => break Ok(()),
                Ok(Some(len)) if turn.is_push() => {
                    let push = bytes.get(..len).unwrap_or_default();
                    self.hand_out_push(hub, push, &mut turn.touched);
                    turn.input.start += len;
                }
                Ok(Some(len)) => {
                    let reply = bytes.get(..len).unwrap_or_default();
                    turn.input.start += len;
                    turn.is_begun = false;
                    let mut entry = match self.pop(hub, reply) {
                        Due::Entry(entry) => entry,
                        Due::More => continue,
                        Due::Nothing => match &relay {
                            Some(client) => {
                                turn.input.start -= len;
                                self.stop_counting(hub, client);
                                break Ok(());
                            }
                            None => break Err(self.stray(hub, bytes)),
                        },
                    };
                    if self.follows {
                        cluster::passed(hub, self, &entry, reply, &mut turn.touched);
                    }
                    let (access, start_us) = (entry.access, entry.counted_us());
                    let bytes = len as u64 + std::mem::take(&mut turn.passed);
                    let us = if entry.is_work() { now_us.saturating_sub(start_us) } else { 0 };
                    let moment = Moment { now_us, before_us, bytes, timed_out: false };
                    let minds = self.watch.minds(us, bytes);
                    let note = minds.then(|| slow::note(hub, self, &self.inner(), &entry, moment));
                    let settled = match entry.block.take() {
                        Some(block) if !entry.streamed => {
                            match block::settle(hub, self, entry, *block, reply, &mut turn.touched)
                            {
                                Ok(settled) => settled,
                                Err(error) => break Err(error),
                            }
                        }
                        _ => self.settle(hub, entry, reply, &mut turn.touched),
                    };
                    turn.replied_us = now_us;
                    if let Some(note) = note {
                        note.settled(hub, self.cluster, settled);
                    }
                    tally.count(hub, self, access, start_us, settled);
                }
            }
        };
        tally.write(hub, self);
        cluster::advance(hub, self);
        if let Some(client) = relay.filter(|_| self.inner().fifo.is_empty()) {
            self.pass_on(hub, turn, &client);
        }
        result.and_then(|()| self.pass_on_piece(hub, turn))?;
        let mut inner = self.inner();
        let inner = &mut *inner;
        inner.partial = turn.input.rest().len();
        if inner.partial > 0 && inner.fifo.is_empty() && !turn.is_push() && !self.is_relay() {
            return Err(self.error(Phase::Protocol, "bytes that nobody asked for"));
        }
        let needed = inner.fifo.front().map_or(u64::MAX, |entry| entry.offset);
        inner.outbox.answered(&hub.buffers, needed);
        inner.charge(hub);
        if inner.retired && inner.fifo.is_empty() {
            return Err(self.error(Phase::Released, "its replies are read"));
        }
        Ok(())
    }

    /// What the server says unasked is for the session whose own connection this is; on a connection
    /// that many share it is for nobody.
    fn hand_out_push(&self, hub: &Hub, push: &[u8], touched: &mut Vec<Rc<Client>>) {
        match self.tenant() {
            Some(client) => {
                let touches = match self.is_ear() {
                    true => redirect::tell(hub, &client, push),
                    false => redirect::tell_own(hub, &client, push),
                };
                if touches {
                    touched.push(client);
                }
            }
            None => {
                let metrics = hub.metrics.clusters.get(self.cluster);
                metrics.iter().for_each(|m| m.stray_pushes.add(1));
            }
        }
    }

    /// The end of a connection that sent what nobody asked for: from here on nobody could tell
    /// whose a reply is (T50).
    fn stray(&self, hub: &Hub, bytes: &[u8]) -> UpstreamError {
        let metrics = hub.metrics.clusters.get(self.cluster);
        metrics.iter().for_each(|m| m.stray_replies.add(1));
        let shown = reply::printable(bytes.trim_ascii_end());
        self.error(Phase::Protocol, format!("a reply that nobody asked for: {shown}"))
    }

    /// The entry that the next reply belongs to. A reply to a request that was not written whole
    /// yet belongs to nobody.
    fn pop(&self, hub: &Hub, reply: &[u8]) -> Due {
        let mut inner = self.inner();
        let written = inner.outbox.written();
        let Some(front) = inner.fifo.front_mut() else { return Due::Nothing };
        // The server answers the first requests of a block while the others are being written.
        if let Some(block) = &mut front.block
            && front.offset < written
            && block.takes(reply)
        {
            return Due::More;
        }
        if front.offset + u64::from(front.len) > written {
            return Due::Nothing;
        }
        if front.is_work() {
            hub.cell(&self.backend).iter().for_each(|c| c.in_flight.sub(1));
        }
        let mut entry = inner.fifo.pop_front();
        if let Some(mark) = entry.as_mut().and_then(|entry| entry.mark.as_mut()) {
            mark.answered();
        }
        entry.map_or(Due::Nothing, Due::Entry)
    }

    fn settle(
        self: &Rc<Self>,
        hub: &Rc<Hub>,
        entry: Entry,
        reply: &[u8],
        touched: &mut Vec<Rc<Client>>,
    ) -> Settled {
        if reply.first() == Some(&b'-') && !entry.streamed {
            return failure::error_reply(hub, self, entry, reply, touched);
        }
        match entry.owner {
            Owner::Client(client) => {
                let shard = &self.backend.shard;
                match client.answer(hub, entry.seq, entry.part, shard, reply) {
                    Some(answered) => {
                        if answered.first {
                            touched.push(client);
                        }
                        Settled::of(answered.progress)
                    }
                    None => Settled::No,
                }
            }
            Owner::Flight(shared) => flight::settle(hub, self, &shared, reply, touched),
            Owner::Tombstone => Settled::No,
            Owner::Number => {
                self.learn_number(reply);
                Settled::No
            }
            Owner::Functions => {
                functions::told(hub, self.cluster, reply);
                Settled::No
            }
            Owner::Commands => {
                hub.learn_commands(self.cluster, reply);
                Settled::No
            }
        }
    }

    /// A long reply at the head of its client's line is passed on while it arrives.
    fn pass_on_piece(&self, hub: &Hub, turn: &mut Turn) -> Result<(), UpstreamError> {
        let available = turn.input.rest().len();
        if available < PIECE || turn.is_push() {
            return Ok(());
        }
        let whom = {
            let mut inner = self.inner();
            let inner = &mut *inner;
            let Some(front) = inner.fifo.front_mut() else { return Ok(()) };
            let passable = front.block.as_ref().is_none_or(|block| block.is_passable());
            match &front.owner {
                Owner::Client(client)
                    if front.reach == Reach::One && passable && client.takes_pieces(front.seq) =>
                {
                    let client = Rc::clone(client);
                    front.streamed = true;
                    Whom::Client(client)
                }
                Owner::Flight(flight) if flight.takes_pieces() => {
                    let flight = Rc::clone(flight);
                    front.streamed = true;
                    inner.flights.close_long(&flight);
                    Whom::Flight(flight)
                }
                Owner::Tombstone => Whom::Nobody,
                Owner::Client(_)
                | Owner::Flight(_)
                | Owner::Commands
                | Owner::Number
                | Owner::Functions => {
                    return Ok(());
                }
            }
        };
        let n = turn.scanner.passable(available);
        let piece = turn.input.rest().get(..n).unwrap_or_default();
        match whom {
            Whom::Client(client) => client.stream(hub, piece),
            Whom::Flight(flight) => flight.stream(hub, piece),
            Whom::Nobody => {}
        }
        turn.passed += n as u64;
        turn.input.start += n;
        turn.is_begun |= n > 0;
        turn.scanner.consumed(n);
        Ok(())
    }
}

/// What a reply is for.
enum Due {
    /// It ends this one.
    Entry(Entry),
    /// One that has more replies to come.
    More,
    Nothing,
}

impl Inner {
    /// Whether no byte of a request has left whose reply is due.
    fn is_quiet(&self) -> bool {
        self.fifo.front().is_none_or(|oldest| oldest.offset >= self.outbox.written())
    }
}

/// What one connection's task keeps between reads.
#[derive(Debug)]
struct Turn {
    input: Intake,
    scanner: Scanner,
    /// Bytes of the current reply that were passed on.
    passed: u64,
    /// When the newest reply was complete.
    replied_us: u64,
    /// A part of the reply whose rest stands at `start` has been passed on.
    is_begun: bool,
    touched: Vec<Rc<Client>>,
}

impl Turn {
    fn new(hears_pushes: bool) -> Self {
        let resp = if hears_pushes { Resp::Three } else { Resp::Two };
        Self {
            input: Intake::default(),
            scanner: Scanner::new(resp),
            passed: 0,
            replied_us: 0,
            is_begun: false,
            touched: Vec::new(),
        }
    }

    /// Whether what comes next was not asked for: it answers no request (redis.md, T9).
    fn is_push(&self) -> bool {
        !self.is_begun && self.input.rest().first() == Some(&b'>')
    }
}

/// Who gets a piece of a reply.
enum Whom {
    Client(Rc<Client>),
    Flight(Rc<Flight>),
    Nobody,
}

const CLOSED: &str = "connection closed by the server";
/// As much of a stray reply as a log line shows.
const SHOWN: usize = 64;
/// redis.md, T33: a reply over 64 KiB is streamed.
const PIECE: usize = 64 * 1024;
/// redis.md, T33: while its client has more than 1 MiB unsent the upstream is not read.
pub(super) const PAUSE_BACKLOG: usize = 1024 * 1024;

#[cfg(test)]
mod tests;
