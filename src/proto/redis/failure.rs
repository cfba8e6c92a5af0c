//! What becomes of requests that fail: moved to another backend when that is safe, else answered
//! with words that say what is known. A write whose bytes left is never sent again.

use super::{
    client::{Client, End},
    cluster,
    entry::{Entry, Owner, Patience, Reach, Tried},
    flight, functions,
    hub::Hub,
    insight::slow::{self, Moment},
    line::Progress,
    parked, reading, reply, scripts,
    tally::{Settled, requests},
    upstream::{Phase, Purpose, Upstream, UpstreamError},
};
use crate::{
    policy::{
        access::Access,
        gate::State,
        retry::{Effect, Verdict, decide},
    },
    telemetry::metrics::RetryReason,
    topology::{
        Outcome,
        pick::{self, Picker},
    },
};
use std::rc::Rc;

/// The connection is over: everything on it is moved or answered.
pub(super) fn connection_ended(hub: &Rc<Hub>, upstream: &Rc<Upstream>, error: &UpstreamError) {
    upstream.set_ended();
    hub.forget_upstream(upstream);
    let (fifo, written) = {
        let mut inner = upstream.inner();
        inner.feeder.take().iter().for_each(|feeder| feeder.resume());
        (std::mem::take(&mut inner.fifo), inner.outbox.written())
    };
    if let Some(cell) = hub.cell(&upstream.backend) {
        let lost = fifo.len() as u64;
        let reads = fifo.iter().filter(|entry| entry.access == Access::Read).count() as u64;
        cell.in_flight.sub(fifo.iter().filter(|entry| entry.is_work()).count() as u64);
        cell.reads.add(reads);
        cell.writes.add(lost - reads);
        if error.phase != Phase::Released {
            cell.failures.add(lost);
        }
    }
    let idle_close = fifo.is_empty() && error.phase == Phase::Read;
    let wanted = matches!(error.phase, Phase::Evicted | Phase::Released) || error.busy.is_some();
    if error.phase == Phase::Role {
        hub.reporter.report(&upstream.backend, Outcome::RoleMismatch);
    } else if !idle_close && !error.ours && !wanted {
        hub.reporter.report(&upstream.backend, Outcome::LocalFailure);
        upstream.backend.observe(hub.worker(), hub.now_us(), 0, true);
    }
    if error.phase == Phase::Protocol {
        tracing::warn!(cluster = %upstream.backend.cluster, "{error}; its connection is closed");
    } else {
        tracing::debug!(cluster = %upstream.backend.cluster, lost = fifo.len(), "{error}");
    }
    let tracks = |client: &Rc<Client>| !upstream.is_ear() && client.card().tracking.is_some();
    if let Some(client) = upstream.tenant().filter(tracks) {
        client.kill(End::TrackingLost);
    }
    let mut touched = Vec::new();
    cluster::abandon(hub, upstream, &mut touched);
    // Of what was released nobody wants to hear any more.
    let heard = if error.phase == Phase::Released { Default::default() } else { fifo };
    let relay = upstream.relayed_to();
    let begun = !matches!(error.phase, Phase::Connect | Phase::Handshake | Phase::Role);
    for mut entry in heard {
        if let Some(client) = relay.as_ref().filter(|_| begun) {
            // It hears what it would of the server: nothing any more.
            if matches!(entry.owner, Owner::Client(_)) {
                client.answer(hub, entry.seq, entry.part, "", b"");
            }
            continue;
        }
        let sent = entry.offset < written;
        if let (false, Some(mark)) = (sent, &mut entry.mark) {
            mark.unsent();
        }
        lost(hub, upstream, entry, sent, error, &mut touched);
    }
    upstream.inner().discharge(hub);
    flush(hub, touched);
    if let Some(client) = upstream.end_relay() {
        client.close_after_replies(End::Backend);
        client.wake();
    }
}

/// Control took the backend out of rotation: reads without an answer go elsewhere at once; of an
/// unhealthy backend the connection is closed too, which answers the writes.
pub(super) fn evict(hub: &Rc<Hub>, upstream: &Rc<Upstream>) {
    let moved: Vec<Entry> = {
        let mut inner = upstream.inner();
        let begun = usize::from(inner.partial > 0);
        inner
            .fifo
            .iter_mut()
            .skip(begun)
            .filter(|entry| upstream.purpose == Purpose::Shared && entry.is_movable())
            .map(|entry| Entry {
                owner: std::mem::replace(&mut entry.owner, Owner::Tombstone),
                tried: entry.tried.take(),
                block: entry.block.take(),
                mark: entry.mark.take(),
                ..*entry
            })
            .collect()
    };
    let mut touched = Vec::new();
    for entry in moved {
        let error = upstream.error(Phase::Evicted, upstream.backend.state().as_str());
        lost(hub, upstream, entry, true, &error, &mut touched);
    }
    flush(hub, touched);
    if upstream.backend.state() == State::Unhealthy {
        upstream.end(Phase::Evicted, "unhealthy");
    }
}

/// Answers what has waited longer than its timeout; late replies are swallowed. A reply of which
/// the client has got a part may take its time: a large one to a slow reader does, and of a server
/// that hangs the connection is closed.
pub(super) fn expire(hub: &Rc<Hub>, upstream: &Rc<Upstream>, now_us: u64) {
    let timeouts = upstream.timeouts;
    let mut expired = Vec::new();
    let mut ends = upstream.is_in_multi();
    let mut inner = upstream.inner();
    let mut fifo = std::mem::take(&mut inner.fifo);
    for entry in &mut fifo {
        let timeout = match (entry.patience, entry.reach) {
            (Patience::Script, _) => timeouts.script,
            (_, Reach::All) => timeouts.fan_out,
            (_, Reach::One | Reach::Part) => timeouts.request,
        };
        let age = u128::from(now_us.saturating_sub(entry.start_us));
        let timeout_us = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
        let own = entry.patience == Patience::Own;
        if own || timeout.is_zero() || age < timeout.as_micros() || entry.streamed {
            continue;
        }
        let moment = Moment { now_us, before_us: 0, bytes: 0, timed_out: true };
        if !matches!(entry.owner, Owner::Tombstone) && upstream.watch.minds(timeout_us, 0) {
            slow::note(hub, upstream, &inner, entry, moment).settled(
                hub,
                upstream.cluster,
                Settled::Failed,
            );
        }
        ends |= entry.block.as_ref().is_some_and(|block| block.is_to_follow());
        match std::mem::replace(&mut entry.owner, Owner::Tombstone) {
            Owner::Client(client) => {
                expired.push((client, (entry.seq, entry.part, entry.access)));
            }
            // Each for itself: others may have come later.
            Owner::Flight(flight) => {
                let (gone, oldest_us) = flight.expire(now_us, timeout.as_micros());
                expired
                    .extend(gone.into_iter().map(|one| (one.client, (one.seq, 0, entry.access))));
                match oldest_us {
                    Some(start_us) => {
                        entry.start_us = start_us;
                        entry.owner = Owner::Flight(flight);
                    }
                    None => inner.flights.close(&flight),
                }
            }
            Owner::Commands => hub.set_asked_commands(upstream.cluster, false),
            Owner::Functions => hub.scripts.functions.is_silent(upstream.cluster),
            Owner::Tombstone | Owner::Number => {}
        }
    }
    inner.fifo = fifo;
    drop(inner);
    if !expired.is_empty() {
        upstream.backend.observe(hub.worker(), now_us, 0, true);
        if ends {
            // What its client was told has failed is not to be executed, nor what comes next queued.
            upstream.end(Phase::Evicted, "a transaction was not queued in time");
        }
    }
    let mut touched = Vec::new();
    for (client, place) in expired {
        let mut text = Vec::new();
        reply::timed_out(&mut text, &upstream.backend.shard);
        answer_error(hub, upstream, client, place, &text, &mut touched);
    }
    flush(hub, touched);
}

/// A backend answered with an error. The transient ones say that nothing was executed: reads then
/// go to another backend. Every other error is the client's.
pub(super) fn error_reply(
    hub: &Rc<Hub>,
    upstream: &Rc<Upstream>,
    entry: Entry,
    error: &[u8],
    touched: &mut Vec<Rc<Client>>,
) -> Settled {
    let Some(entry) = cluster::turned(hub, upstream, entry, error, touched) else {
        return Settled::No;
    };
    let entry = match entry.keeps {
        true => match scripts::failed(hub, upstream, entry, error) {
            Some(entry) => entry,
            None => return Settled::No,
        },
        false => entry,
    };
    if code(error) == b"-UNBLOCKED" {
        // The server closes it, if it did that by itself.
        upstream.spoil();
    }
    let scripted = entry.patience == Patience::Script;
    let entry = if !scripted && blame(hub, upstream, error) {
        let moved = match entry.access {
            Access::Read => retry(hub, upstream, entry, false),
            Access::Write => Err(entry),
        };
        match moved.or_else(|entry| parked::reroute(hub, upstream, entry, error)) {
            Ok(()) => return Settled::No,
            Err(entry) => entry,
        }
    } else {
        entry
    };
    let client = match entry.owner {
        Owner::Client(client) => client,
        Owner::Flight(flight) => return flight::settle(hub, upstream, &flight, error, touched),
        Owner::Functions => {
            functions::told(hub, upstream.cluster, error);
            return Settled::No;
        }
        Owner::Tombstone | Owner::Commands | Owner::Number => return Settled::No,
    };
    let shard = &upstream.backend.shard;
    let Some(answered) = client.answer(hub, entry.seq, entry.part, shard, error) else {
        return Settled::No;
    };
    if answered.first {
        touched.push(client);
    }
    if answered.progress == Progress::Waiting { Settled::No } else { Settled::Failed }
}

/// Reports a backend whose error says that it is not fit to execute what it was sent. Whether that
/// is what the error says.
pub(super) fn blame(hub: &Hub, upstream: &Upstream, error: &[u8]) -> bool {
    let outcome = match code(error) {
        b"-LOADING" | b"-MASTERDOWN" | b"-CLUSTERDOWN" => Outcome::Error,
        b"-READONLY" => Outcome::RoleMismatch,
        _ => return false,
    };
    hub.reporter.report(&upstream.backend, outcome);
    upstream.backend.observe(hub.worker(), hub.now_us(), 0, true);
    hub.cell(&upstream.backend).iter().for_each(|c| c.failures.add(1));
    true
}

/// The first word of an error, its `-` included.
pub(super) fn code(error: &[u8]) -> &[u8] {
    error.split(|b| *b == b' ' || *b == b'\r').next().unwrap_or_default()
}

fn lost(
    hub: &Rc<Hub>,
    upstream: &Rc<Upstream>,
    entry: Entry,
    sent: bool,
    error: &UpstreamError,
    touched: &mut Vec<Rc<Client>>,
) {
    if entry.streamed {
        match entry.owner {
            Owner::Client(client) => client.kill(End::ReplyCut),
            Owner::Flight(flight) => flight.cut(),
            Owner::Tombstone | Owner::Commands | Owner::Number | Owner::Functions => {}
        }
        return;
    }
    let entry = match &error.busy {
        Some(_) => entry,
        None => match retry(hub, upstream, entry, sent) {
            Ok(()) => return,
            Err(entry) => entry,
        },
    };
    let attempts = entry.tried.as_ref().map_or(1, |tried| tried.attempts);
    let mut text = Vec::new();
    let effect = decide(sent, entry.access, attempts);
    match effect {
        _ if error.busy.is_some() => text.extend(error.busy.iter().flatten()),
        Verdict::Fail(Effect::Unknown) => reply::unknown_result(&mut text, &upstream.backend.shard),
        Verdict::Fail(Effect::None) | Verdict::Retry => reply::cluster_down(
            &mut text,
            &format!("shard {}: {error}; tried {attempts}", upstream.backend.shard),
        ),
    }
    let is_undone = error.busy.is_none() && effect != Verdict::Fail(Effect::Unknown);
    let entry = match is_undone {
        true => match parked::park(hub, upstream, entry, &text) {
            Ok(()) => return,
            Err(entry) => entry,
        },
        false => entry,
    };
    answer_all(hub, upstream, entry, &text, touched);
}

/// Answers everybody who waits for a request with that error.
pub(super) fn answer_all(
    hub: &Hub,
    upstream: &Upstream,
    entry: Entry,
    text: &[u8],
    touched: &mut Vec<Rc<Client>>,
) {
    let waiting = match entry.owner {
        Owner::Client(client) => vec![(client, entry.seq, entry.part)],
        Owner::Flight(flight) => {
            flight.land().into_iter().map(|one| (one.client, one.seq, 0)).collect()
        }
        Owner::Tombstone | Owner::Commands | Owner::Number | Owner::Functions => return,
    };
    for (client, seq, part) in waiting {
        answer_error(hub, upstream, client, (seq, part, entry.access), text, touched);
    }
}

/// Sends the request to another backend of its shard, or to the same one over a new connection
/// when there is no other. Gives the entry back when that is not allowed or nobody is ready.
pub(super) fn retry(
    hub: &Rc<Hub>,
    upstream: &Rc<Upstream>,
    mut entry: Entry,
    sent: bool,
) -> Result<(), Entry> {
    match &entry.owner {
        Owner::Client(_) if upstream.purpose != Purpose::Shared => return Err(entry),
        Owner::Client(_) => {}
        // From here on its order is that of another connection.
        Owner::Flight(flight) => upstream.inner().flights.close(flight),
        Owner::Commands => {
            hub.set_asked_commands(upstream.cluster, false);
            return Err(entry);
        }
        Owner::Functions => {
            hub.scripts.functions.is_silent(upstream.cluster);
            return Err(entry);
        }
        Owner::Tombstone | Owner::Number => return Err(entry),
    }
    let mut topology = hub.topology();
    let Some((cluster, shard, member)) =
        topology.snapshot().clusters.get(upstream.cluster).and_then(|c| {
            let shard = c.shards.iter().find(|shard| shard.name == upstream.backend.shard)?;
            // It may have left: then any other one will do.
            let member = shard.members.iter().position(|b| b.id == upstream.backend.id);
            Some((c, shard, member.map_or(0, |member| 1 << member)))
        })
    else {
        return Err(entry);
    };
    let mut tried = entry.tried.as_deref().copied().unwrap_or_default();
    tried.members |= member;
    tried.attempts += 1;
    let attempts = tried.attempts;
    entry.tried = Some(Box::new(Tried { ..tried }));
    if decide(sent, entry.access, attempts) != Verdict::Retry {
        return Err(entry);
    }
    let Some(bytes) =
        upstream.inner().outbox.request(entry.offset, entry.len as usize).map(<[u8]>::to_vec)
    else {
        return Err(entry);
    };
    let from = entry.source(cluster.reads);
    let barred = reading::barred(hub, cluster, shard, upstream.class, &entry);
    let cursor = u32::try_from(hub.draw() >> 32).unwrap_or(0);
    let mut picker = Picker { cursor, key: 0, now_us: hub.now_us() };
    let mut another = |tried| {
        let tried = tried | barred;
        let index = pick::select(shard, entry.access, from, &mut picker, tried, || hub.draw())?;
        shard.members.get(index)
    };
    // The same one again must still be fit: it may have lost its role since the first try.
    let again = attempts == 1 && !is_open(hub, upstream);
    let target = another(tried.members)
        .or_else(|| if again { another(tried.members & !member) } else { None });
    let Some(target) = target else { return Err(entry) };
    // An earlier one of its client's waits for a primary: this one would overtake it there.
    let waits = || entry.owner.clients().iter().any(|client| client.is_on_detour());
    let overtakes = target.gate().primary() && waits();
    let is_proven = entry.block.is_none() || hub.is_proven(target.id);
    if overtakes || !is_proven || !hub.try_retry(upstream.cluster) {
        if target.gate().half_open() {
            target.give_permit();
        }
        return Err(entry);
    }
    if let Some(metrics) = hub.metrics.clusters.get(upstream.cluster) {
        let reason = if sent { RetryReason::Lost } else { RetryReason::Connect };
        requests(metrics, entry.access).retried(reason);
    }
    hub.upstream(cluster, target, upstream.class, |next| next.send_owned(hub, entry, bytes));
    Ok(())
}

/// Whether this very connection still serves: then the same backend would be asked on it again.
fn is_open(hub: &Hub, upstream: &Rc<Upstream>) -> bool {
    hub.upstreams().iter().any(|open| Rc::ptr_eq(open, upstream))
}

fn answer_error(
    hub: &Hub,
    upstream: &Upstream,
    client: Rc<Client>,
    (seq, part, access): (u32, u16, Access),
    text: &[u8],
    touched: &mut Vec<Rc<Client>>,
) {
    if let Some(metrics) = hub.metrics.clusters.get(upstream.cluster) {
        requests(metrics, access).proxy_errors.add(1);
    }
    let answered = client.answer(hub, seq, part, &upstream.backend.shard, text);
    if answered.is_some_and(|answered| answered.first) {
        touched.push(client);
    }
}

pub(super) fn flush(hub: &Hub, touched: Vec<Rc<Client>>) {
    for client in touched {
        client.flush(hub);
    }
}

#[cfg(test)]
mod tests;
