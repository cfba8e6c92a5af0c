//! Where the time of a request went: measured when its reply is there, from what its connection
//! knows anyway. Not where that is kept: that is [`super::slowlog`].

use super::{
    super::{
        args::Args,
        entry::{Entry, Owner},
        frame::{Decoder, Frame, Limits},
        hub::Hub,
        keys,
        tally::Settled,
        upstream::{Inner, Upstream},
    },
    big,
    slowlog::{Slow, trimmed},
};
use std::{collections::VecDeque, sync::Arc};

/// Of one connection: from when on a request is slow and a reply big.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Watch {
    slow_us: u64,
    big: u64,
}

impl Watch {
    /// As a cluster's configuration says.
    pub(in super::super) fn new(hub: &Hub, cluster: usize) -> Self {
        let options = hub.insight.options(cluster);
        let slow_us = u64::try_from(options.slow.as_micros()).unwrap_or(u64::MAX);
        Self {
            slow_us: if slow_us == 0 { u64::MAX } else { slow_us },
            big: u64::try_from(options.big).unwrap_or(u64::MAX),
        }
    }

    /// Whether requests are timed: then their bytes are kept until they are answered.
    pub(in super::super) fn is_on(&self) -> bool {
        self.slow_us < u64::MAX
    }

    /// Whether a reply of so many bytes that came after so long is worth a note.
    pub(in super::super) fn minds(&self, us: u64, bytes: u64) -> bool {
        us >= self.slow_us || bytes >= self.big
    }
}

/// Bytes that left later than they were appended, because the connection was not open yet or took no
/// more.
#[derive(Clone, Copy, Debug)]
struct Late {
    from: u64,
    to: u64,
    us: u64,
}

/// When the newest late bytes left; everything else left at once.
#[derive(Debug, Default)]
pub(in super::super) struct Delays(VecDeque<Late>);

impl Delays {
    /// Bytes `from` to `to` left at `us`, and had waited.
    pub(in super::super) fn left(&mut self, from: u64, to: u64, us: u64) {
        if to > from {
            if self.0.len() == MOST_DELAYS {
                self.0.pop_front();
            }
            self.0.push_back(Late { from, to, us });
        }
    }

    /// How long a request waited that began at `start_us` and whose last byte is the one before
    /// `end`.
    fn of(&self, end: u64, start_us: u64) -> u64 {
        let late = self.0.iter().find(|late| late.from < end && end <= late.to);
        late.map_or(0, |late| late.us.saturating_sub(start_us))
    }
}

/// What was seen of one request; told once it is settled, for a request that goes on elsewhere is
/// not over.
pub(in super::super) struct Note {
    slow: Option<Slow>,
}

/// When a reply came.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Moment {
    pub now_us: u64,
    /// The reply before it on the same connection.
    pub before_us: u64,
    /// Bytes of the reply.
    pub bytes: u64,
    /// The client did not wait for it any longer.
    pub timed_out: bool,
}

/// Looks at a request whose reply [`Watch::minds`].
pub(in super::super) fn note(
    hub: &Hub,
    upstream: &Upstream,
    inner: &Inner,
    entry: &Entry,
    moment: Moment,
) -> Note {
    let watch = upstream.watch;
    let frame = inner.outbox.request(entry.offset, entry.len as usize).unwrap_or_default();
    let mut decoder = Decoder::default();
    let limits = Limits { bulk: u64::MAX, args: u32::MAX, authenticated: true };
    let whole = matches!(decoder.decode(frame, &limits), Ok(Frame::Request(_)));
    // Of a transaction it would be MULTI, whatever came behind.
    let whole = whole && entry.block.is_none();
    let args = Args { frame, spans: if whole { decoder.spans() } else { &[] } };
    if moment.bytes >= watch.big {
        let commands = hub.commands(upstream.cluster);
        let command = commands.as_ref().and_then(|commands| commands.find(args));
        let keys = command.and_then(|command| keys::keys(command, args).ok()).unwrap_or_default();
        let key = keys.first().and_then(|at| args.get(at)).unwrap_or_default();
        big::reply(hub, upstream, entry, key, moment.bytes);
    }
    let total_us = moment.now_us.saturating_sub(entry.start_us);
    if total_us < watch.slow_us {
        return Note { slow: None };
    }
    let client = match &entry.owner {
        Owner::Client(client) => Some(client),
        _ => None,
    };
    let queue_us = inner.delays.of(entry.offset + u64::from(entry.len), entry.start_us);
    let sent_us = entry.start_us.saturating_add(queue_us);
    let redact = hub.insight.options(upstream.cluster).redact;
    let name = hub.command_name(upstream.cluster, entry.command);
    Note {
        slow: Some(Slow {
            unix_s: hub.unix_s(),
            total_us,
            queue_us,
            behind_us: moment.before_us.saturating_sub(sent_us),
            peer: client.map(|client| client.peer()).unwrap_or_default(),
            name: client.map(|client| client.card().name.clone()).unwrap_or_default(),
            args: trimmed(args, name, redact),
            shard: Arc::clone(&upstream.backend.shard),
            backend: Arc::clone(&upstream.backend.name),
            tries: entry.tried.as_ref().map_or(1, |tried| tried.attempts.saturating_add(1)),
            timed_out: moment.timed_out,
        }),
    }
}

impl Note {
    /// Keeps it, if the client's request is settled with it.
    pub(in super::super) fn settled(self, hub: &Hub, cluster: usize, settled: Settled) {
        if settled != Settled::No
            && let Some(slow) = self.slow
            && let Some(mut log) = hub.insight.slowlog(cluster)
        {
            log.push(slow);
        }
    }
}

/// A connection that is late all the time forgets the oldest of them: their requests count as sent
/// at once.
const MOST_DELAYS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_left_late_has_waited() {
        let mut delays = Delays::default();
        delays.left(0, 100, 50);
        delays.left(100, 100, 60);
        delays.left(300, 400, 90);
        let waited: Vec<u64> =
            [1, 100, 101, 300, 301, 400, 401].map(|end| delays.of(end, 20)).into();
        assert_eq!(waited, [30, 30, 0, 0, 70, 70, 0]);
        for n in 0..1_000 {
            delays.left(n * 10, n * 10 + 5, n);
        }
        assert_eq!(delays.0.len(), MOST_DELAYS);
    }
}
