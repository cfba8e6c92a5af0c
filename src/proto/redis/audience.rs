//! Who listens in the whole process: of every channel and pattern the clients of each worker, and at
//! which shards that worker's subscriber connection hears it. Not who they are: each worker's
//! `pubsub` knows its own.
//!
//! A server counts our few connections where an application expects its many clients; this table
//! knows both, so PUBLISH and PUBSUB can tell what one server would (redis.md, T8).

use super::glob;
use dashmap::DashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What one can subscribe to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    Channel,
    Pattern,
    ShardChannel,
}

impl Subject {
    /// Each once, in the order of their values.
    pub const ALL: [Self; 3] = [Self::Channel, Self::Pattern, Self::ShardChannel];

    /// The word of a message to its subscribers.
    pub(super) const fn message(self) -> &'static str {
        match self {
            Self::Channel => "message",
            Self::Pattern => "pmessage",
            Self::ShardChannel => "smessage",
        }
    }

    /// The word of the command and its confirmation, to begin (`on`) or to end.
    pub(super) const fn verb(self, on: bool) -> &'static str {
        match (self, on) {
            (Self::Channel, true) => "subscribe",
            (Self::Channel, false) => "unsubscribe",
            (Self::Pattern, true) => "psubscribe",
            (Self::Pattern, false) => "punsubscribe",
            (Self::ShardChannel, true) => "ssubscribe",
            (Self::ShardChannel, false) => "sunsubscribe",
        }
    }
}

/// The table of the process. It holds what clients have subscribed to, so their number and
/// `MOST_SUBSCRIPTIONS` bound it.
#[derive(Debug, Default)]
pub struct Audience(Vec<Listeners>);

/// Those of one cluster.
#[derive(Debug, Default)]
struct Listeners {
    /// By [`Subject`].
    topics: [DashMap<Box<[u8]>, Vec<Share>>; 3],
    /// How many topics there are, to pass by quickly where nobody listens.
    len: AtomicUsize,
}

/// What one worker has of a topic.
#[derive(Debug)]
struct Share {
    worker: usize,
    clients: u64,
    /// At the servers of which its connection is subscribed.
    shards: Vec<usize>,
}

impl Audience {
    /// Nobody listens yet, on so many clusters.
    pub fn new(clusters: usize) -> Self {
        Self((0..clusters).map(|_| Listeners::default()).collect())
    }

    /// Whether nobody listens to anything.
    pub(super) fn is_empty(&self, cluster: usize) -> bool {
        self.0.get(cluster).is_none_or(|listeners| listeners.len.load(Ordering::Relaxed) == 0)
    }

    /// A client of `worker` listens from now on.
    pub(super) fn join(&self, cluster: usize, subject: Subject, name: &[u8], worker: usize) {
        self.change(cluster, subject, name, worker, |share| share.clients += 1);
    }

    /// A client of `worker` listens no more.
    pub(super) fn leave(&self, cluster: usize, subject: Subject, name: &[u8], worker: usize) {
        let less = |share: &mut Share| share.clients = share.clients.saturating_sub(1);
        self.change(cluster, subject, name, worker, less);
    }

    /// The server of `shard` has confirmed that it sends `name` to `worker`, or that it does no
    /// longer.
    pub(super) fn hears(
        &self,
        cluster: usize,
        subject: Subject,
        name: &[u8],
        (worker, shard): (usize, usize),
        hears: bool,
    ) {
        self.change(cluster, subject, name, worker, |share| {
            share.shards.retain(|known| *known != shard);
            if hears {
                share.shards.push(shard);
            }
        });
    }

    /// How many clients listen to exactly `name`.
    pub(super) fn clients(&self, cluster: usize, subject: Subject, name: &[u8]) -> u64 {
        let topics = self.topics(cluster, subject);
        let shares = topics.and_then(|topics| topics.get(name));
        shares.map_or(0, |shares| shares.iter().map(|share| share.clients).sum())
    }

    /// What clients listen to, as far as it fits `pattern`.
    pub(super) fn names(
        &self,
        cluster: usize,
        subject: Subject,
        pattern: Option<&[u8]>,
    ) -> Vec<Box<[u8]>> {
        let topics = self.topics(cluster, subject).into_iter().flat_map(DashMap::iter);
        let heard = topics.filter(|topic| topic.value().iter().any(|share| share.clients > 0));
        let fits = |name: &[u8]| pattern.is_none_or(|pattern| glob::fits(pattern, name));
        heard.filter(|topic| fits(topic.key())).map(|topic| topic.key().clone()).collect()
    }

    /// How many receive what was published on `channel` at `shard`, where the server says `told`:
    /// our connections do not count, their clients do.
    pub(super) fn receivers(
        &self,
        cluster: usize,
        shard: usize,
        subject: Subject,
        channel: &[u8],
        told: i64,
    ) -> i64 {
        // Of each of our connections that listen: how many clients are behind it.
        let mut clients: Vec<i64> = Vec::new();
        let mut ours = |shares: &Vec<Share>| {
            let hear = shares.iter().filter(|share| share.shards.contains(&shard));
            clients.extend(hear.map(|share| i64::try_from(share.clients).unwrap_or(i64::MAX)));
        };
        let topics = self.topics(cluster, subject);
        if let Some(shares) = topics.and_then(|topics| topics.get(channel)) {
            ours(&shares);
        }
        // Shard channels have no patterns.
        let patterns = match subject {
            Subject::ShardChannel => None,
            Subject::Channel | Subject::Pattern => self.topics(cluster, Subject::Pattern),
        };
        patterns
            .into_iter()
            .flat_map(DashMap::iter)
            .filter(|topic| glob::fits(topic.key(), channel))
            .for_each(|topic| ours(topic.value()));
        // It may have sent to fewer than listen now: one has just begun, or is just ending, and then
        // nobody is behind it.
        clients.sort_unstable_by_key(|count| std::cmp::Reverse(*count));
        let sent = usize::try_from(told).unwrap_or_default();
        let others = sent.saturating_sub(clients.len());
        let heard: i64 = clients.iter().take(sent).sum();
        heard.saturating_add(i64::try_from(others).unwrap_or(i64::MAX))
    }

    fn topics(&self, cluster: usize, subject: Subject) -> Option<&DashMap<Box<[u8]>, Vec<Share>>> {
        self.0.get(cluster)?.topics.get(subject as usize)
    }

    /// Changes what `worker` has of a topic; a topic of which nobody has anything is forgotten.
    fn change(
        &self,
        cluster: usize,
        subject: Subject,
        name: &[u8],
        worker: usize,
        change: impl FnOnce(&mut Share),
    ) {
        let Some(listeners) = self.0.get(cluster) else { return };
        let Some(topics) = listeners.topics.get(subject as usize) else { return };
        let mut topic = topics.entry(name.into()).or_insert_with(|| {
            listeners.len.fetch_add(1, Ordering::Relaxed);
            Vec::new()
        });
        let shares = topic.value_mut();
        let at = shares.iter().position(|share| share.worker == worker).unwrap_or_else(|| {
            shares.push(Share { worker, clients: 0, shards: Vec::new() });
            shares.len() - 1
        });
        if let Some(share) = shares.get_mut(at) {
            change(share);
        }
        shares.retain(|share| share.clients > 0 || !share.shards.is_empty());
        let empty = shares.is_empty();
        drop(topic);
        if empty && topics.remove_if(name, |_, shares| shares.is_empty()).is_some() {
            listeners.len.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_counts_connections_and_we_count_clients() {
        let audience = Audience::new(1);
        let channel = Subject::Channel;
        for worker in [0, 0, 0, 1] {
            audience.join(0, channel, b"news", worker);
        }
        audience.hears(0, channel, b"news", (0, 2), true);
        audience.hears(0, channel, b"news", (1, 2), true);
        audience.join(0, Subject::Pattern, b"n*", 1);
        audience.hears(0, Subject::Pattern, b"n*", (1, 2), true);
        audience.hears(0, Subject::Pattern, b"n*", (1, 0), true);
        // Our three connections and one of somebody else's.
        assert_eq!(audience.receivers(0, 2, channel, b"news", 4), 1 + 4 + 1);
        assert_eq!(audience.receivers(0, 0, channel, b"nothing", 1), 1);
        // While a worker does not hear it, its clients do not count.
        audience.hears(0, channel, b"news", (0, 2), false);
        assert_eq!(audience.receivers(0, 2, channel, b"news", 3), 1 + 1 + 1);
        audience.hears(0, channel, b"news", (0, 2), true);
        assert_eq!(audience.receivers(0, 2, channel, b"news", 3), 4 + 1);
        // The last client of a worker has left: the server may know it already, and we not.
        audience.leave(0, channel, b"news", 1);
        assert_eq!(audience.receivers(0, 2, channel, b"news", 2), 3 + 1);
        // It had sent it before it heard of one of ours.
        assert_eq!(audience.receivers(0, 2, channel, b"news", 1), 3);
        audience.join(0, channel, b"news", 1);
        assert_eq!(audience.clients(0, channel, b"news"), 4);
        assert_eq!(audience.clients(0, Subject::ShardChannel, b"news"), 0);
    }

    #[test]
    fn what_nobody_listens_to_is_forgotten() {
        let audience = Audience::new(1);
        assert!(audience.is_empty(0) && audience.is_empty(7));
        for name in [&b"a1"[..], b"a2", b"b"] {
            audience.join(0, Subject::Channel, name, 0);
            audience.hears(0, Subject::Channel, name, (0, 0), true);
        }
        let mut names = audience.names(0, Subject::Channel, Some(b"a?"));
        names.sort();
        assert_eq!(names, [Box::from(&b"a1"[..]), Box::from(&b"a2"[..])]);
        for name in [&b"a1"[..], b"a2", b"b"] {
            audience.leave(0, Subject::Channel, name, 0);
        }
        // The servers have not confirmed yet.
        assert!(!audience.is_empty(0) && audience.names(0, Subject::Channel, None).is_empty());
        for name in [&b"a1"[..], b"a2", b"b"] {
            audience.hears(0, Subject::Channel, name, (0, 0), false);
        }
        assert!(audience.is_empty(0));
    }
}
