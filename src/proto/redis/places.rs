//! What a session remembers of shards by their places in its cluster: found again by their names when
//! the cluster has others, or the same in another order. Not what is remembered.

use super::session::State;
use crate::topology::Cluster;
use std::sync::Arc;

/// The order that remembered places belong to.
#[derive(Debug, Default)]
pub(super) struct Places {
    cluster: Option<usize>,
    order: Arc<[Arc<str>]>,
}

impl State {
    /// Called before each batch, with the cluster of its snapshot.
    #[inline]
    pub(super) fn find_shards(&mut self, cluster: &Cluster) {
        if !Arc::ptr_eq(&self.places.order, &cluster.order) {
            self.follow(cluster);
        }
    }

    #[cold]
    fn follow(&mut self, cluster: &Cluster) {
        let order = Arc::clone(&cluster.order);
        let before =
            std::mem::replace(&mut self.places, Places { cluster: Some(cluster.id), order });
        if before.cluster != Some(cluster.id) {
            // With another user it has another cluster, to which nothing was sent yet.
            return;
        }
        let place = |was: usize| {
            let name = before.order.get(was);
            let now = name.and_then(|name| cluster.order.iter().position(|one| one == name));
            now.unwrap_or(GONE)
        };
        if let Some(pinned) = &mut self.pinned
            && pinned.lease.upstream().cluster == cluster.id
        {
            pinned.shard = place(pinned.shard);
        }
        if let Some(open) = &mut self.transaction {
            open.shard = open.shard.map(place);
        }
        if let Some(upload) = &mut self.upload {
            upload.shard = place(upload.shard);
        }
        self.written.renumber(place);
        self.last_shard = None;
    }
}

/// The place of a shard that the cluster has no more: what is open there can be ended and nothing
/// else, for no key is found there.
const GONE: usize = usize::MAX;

#[cfg(test)]
mod tests {
    use crate::{
        policy::{
            gate::{Axes, Life, Role},
            reads::ReadFrom,
        },
        proto::redis::stage::Stage,
    };

    const PRIMARY: Axes = Axes::healthy(Role::Primary);

    #[tokio::test(start_paused = true)]
    async fn who_has_left_answers_what_is_under_way_and_gets_nothing_new() {
        let stage = Stage::new(2, ReadFrom::PreferReplica);
        let mut client = stage.client();
        client.say("GET a\r\n");
        stage.settle().await;
        let mut gone = stage.accept(1);
        assert!(gone.heard().contains("GET"));
        let removed = Axes { life: Life::Removed, ..Axes::default() };
        stage.reshape(ReadFrom::PreferReplica, &[("s0", &[0])]);
        stage.set(1, removed);
        client.say("GET b\r\n");
        stage.settle().await;
        let mut primary = stage.accept(0);
        assert!(primary.heard().contains("GET"), "what is new goes elsewhere");
        assert!(!gone.is_closed(), "something is under way on it");
        primary.say("+b\r\n");
        gone.say("+a\r\n");
        stage.settle().await;
        assert_eq!(client.heard(), "+a\r\n+b\r\n");
        stage.set(1, removed);
        stage.settle().await;
        assert!(gone.is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_at_who_has_left_goes_elsewhere_when_its_connection_breaks() {
        let stage = Stage::new(2, ReadFrom::PreferReplica);
        let mut client = stage.client();
        client.say("GET a\r\n");
        stage.settle().await;
        let mut gone = stage.accept(1);
        gone.heard();
        stage.reshape(ReadFrom::PreferReplica, &[("s0", &[0])]);
        stage.set(1, Axes { life: Life::Removed, ..Axes::default() });
        drop(gone);
        stage.settle().await;
        let mut primary = stage.accept(0);
        assert!(primary.heard().contains("GET"));
        primary.say("+a\r\n");
        stage.settle().await;
        assert_eq!(client.heard(), "+a\r\n");
    }

    /// The place of a shard meant another one from one batch to the next.
    #[tokio::test(start_paused = true)]
    async fn a_session_finds_its_shards_again_by_their_names() {
        let stage = Stage::new(2, ReadFrom::Primary);
        stage.set(1, PRIMARY);
        stage.reshape(ReadFrom::Primary, &[("a", &[0])]);
        let (mut wrote, mut watches) = (stage.client(), stage.client());
        wrote.say("SET k 1\r\n");
        watches.say("WATCH k\r\n");
        stage.settle().await;
        let (mut one, mut other) = (stage.accept(0), stage.accept(0));
        one.say("+OK\r\n");
        other.say("+OK\r\n");
        stage.settle().await;
        assert_eq!((wrote.heard().as_str(), watches.heard().as_str()), ("+OK\r\n", "+OK\r\n"));
        stage.reshape(ReadFrom::Primary, &[("b", &[1]), ("a", &[0])]);
        wrote.say("WAIT 1 0\r\n");
        stage.settle().await;
        assert!(stage.try_accept(1).is_none(), "nothing was written there");
        let mut waits = stage.accept(0);
        assert!(waits.heard().contains("WAIT"));
        watches.say("UNWATCH\r\n");
        stage.settle().await;
        let said = one.heard() + &other.heard();
        assert!(said.contains("UNWATCH"), "{said}");
        stage.reshape(ReadFrom::Primary, &[("b", &[1])]);
        let mut late = stage.client();
        late.say("GET k\r\nDBSIZE\r\n");
        stage.settle().await;
        let mut new = stage.accept(1);
        assert!(new.heard().contains("GET"));
        new.say("+v\r\n:1\r\n");
        stage.settle().await;
        assert_eq!(late.heard(), "+v\r\n:1\r\n");
    }

    /// A pattern is heard at every shard, whichever they are.
    #[tokio::test(start_paused = true)]
    async fn subscriptions_follow_the_shards() {
        let mut stage = Stage::new(2, ReadFrom::Primary);
        stage.set(1, PRIMARY);
        stage.reshape(ReadFrom::Primary, &[("s0", &[0])]);
        let mut client = stage.client();
        client.say("PSUBSCRIBE p*\r\n");
        stage.settle().await;
        let mut first = stage.accept(0);
        assert!(first.heard().contains("psubscribe"));
        let confirmed = "*3\r\n$10\r\npsubscribe\r\n$2\r\np*\r\n:1\r\n";
        first.say(confirmed);
        stage.settle().await;
        assert_eq!(client.heard(), confirmed);
        stage.reshape(ReadFrom::Primary, &[("s0", &[0]), ("s1", &[1])]);
        stage.settle().await;
        let mut second = stage.accept(1);
        assert!(second.heard().contains("psubscribe"), "at the new one too");
        second.say(confirmed);
        let message = "*4\r\n$8\r\npmessage\r\n$2\r\np*\r\n$2\r\np1\r\n$1\r\nx\r\n";
        second.say(message);
        stage.settle().await;
        assert_eq!(client.heard(), message);
        stage.reshape(ReadFrom::Primary, &[("s0", &[0])]);
        stage.pass(std::time::Duration::from_secs(1)).await;
        assert!(second.is_closed() && !first.is_closed());
        first.say(message);
        stage.settle().await;
        assert_eq!(client.heard(), message);
    }
}
