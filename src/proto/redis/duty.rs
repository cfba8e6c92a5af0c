//! What a worker does beside serving: look at the clock some twenty times a second, and at the
//! gates when control has changed one. Not the loop that calls it: that is the worker's.

use super::{
    busy,
    class::Class,
    client::End,
    entry::{Entry, Owner},
    failover, failure,
    hub::Hub,
    parked, pause, pubsub,
    upstream::Phase,
};
use crate::{
    policy::{
        access::Access,
        gate::{Admin, Role, State},
    },
    topology::{Backend, Layout, pick},
};
use std::{rc::Rc, time::Duration};

/// How often [`tick`] is to be called: a hung backend must be ejected within a second, of which
/// the wait until it is suspect and two probes take 750ms.
pub const TICK: Duration = Duration::from_millis(50);

/// Everything that time brings. `count` counts the calls.
pub fn tick(hub: &Rc<Hub>, count: u64) {
    hub.metrics.turns.add(1);
    let now_us = hub.now_us();
    pause::tick(hub, now_us);
    for upstream in hub.upstreams() {
        upstream.tick(hub, now_us);
        failure::expire(hub, &upstream, now_us);
        if count.is_multiple_of(DECAY) {
            upstream.decay();
        }
    }
    busy::tick(hub, now_us);
    if count.is_multiple_of(SECOND) {
        close_idle_clients(hub, now_us);
        close_drained(hub);
        hub.rested.sweep(now_us);
        hub.sweep_rare(now_us);
        pubsub::tick(hub, now_us);
        failover::sweep(hub);
        ask_commands(hub, now_us);
        hub.insight.decay(hub.worker());
    }
    parked::settle(hub);
    hold_back(hub);
    if hub.memory.is_used_up() {
        close_largest_client(hub);
    }
}

/// A gate has changed: what is under way on backends taken out is moved or answered.
pub fn gates_changed(hub: &Rc<Hub>) {
    for upstream in hub.upstreams() {
        if upstream.is_killed() {
            failure::evict(hub, &upstream);
            upstream.end(Phase::Evicted, why_killed(&upstream.backend));
        } else if upstream.is_relay()
            && !upstream.backend.gate().primary()
            && upstream.backend.role() == Role::Replica
        {
            upstream.end(Phase::Evicted, "no primary any more");
        } else if upstream.backend.gate().evict() {
            failure::evict(hub, &upstream);
        } else {
            upstream.follow_role(hub);
        }
    }
    close_drained(hub);
    pubsub::gates_changed(hub);
    parked::settle(hub);
    hub.failovers.gates_changed();
}

/// core.md: a drained backend keeps the connections in use; one on which nothing is under way goes.
fn close_drained(hub: &Hub) {
    for upstream in hub.upstreams() {
        let backend = &upstream.backend;
        let why = match backend.is_removed() {
            true => State::Removed.as_str(),
            false if backend.admin() == Admin::Drain => "drained",
            false => continue,
        };
        if upstream.is_quiet() && !upstream.is_leased() {
            upstream.end(Phase::Evicted, why);
            if backend.is_removed() {
                hub.forget(backend);
            }
        }
    }
}

/// Why all connections to a backend were to be closed.
pub(super) fn why_killed(backend: &Backend) -> &'static str {
    match backend.state() {
        State::Disabled => "disabled by the operator",
        State::Removed => State::Removed.as_str(),
        _ => "no primary any more",
    }
}

fn close_idle_clients(hub: &Hub, now_us: u64) {
    for client in hub.clients() {
        let limit = client.idle_limit_us();
        if limit > 0 && client.idle_since().is_some_and(|since| now_us - since.min(now_us) > limit)
        {
            client.kill(End::Idle);
        }
    }
}

/// Near `limits.memory`: clients with the most to be told are not read until it is less. What a client
/// has sent of a request does not count: it would never come to its end.
fn hold_back(hub: &Hub) {
    if !hub.memory.is_scarce() {
        if hub.holds_back.replace(false) {
            hub.clients().iter().for_each(|client| client.hold_back(false));
        }
        return;
    }
    let clients = hub.clients();
    let most = clients.iter().map(|client| client.owed()).max().unwrap_or(0);
    for client in &clients {
        if client.owed() >= WORTH_CLOSING.max(most / 2) {
            hub.holds_back.set(true);
            client.hold_back(true);
        }
    }
}

/// Over `limits.memory`: the client that holds most goes first. Those that hold little are spared:
/// the memory is elsewhere then, in requests to a slow backend, and their end would free none.
fn close_largest_client(hub: &Hub) {
    let largest = hub.clients().into_iter().max_by_key(|client| client.held());
    if let Some(client) = largest.filter(|client| client.held() >= WORTH_CLOSING) {
        tracing::warn!(
            client = client.id,
            bytes = client.held(),
            "limits.memory reached: the client holding most is closed"
        );
        client.kill(End::Memory);
    }
}

/// Asks one primary of each cluster for the commands that we do not know, until one has told.
fn ask_commands(hub: &Rc<Hub>, now_us: u64) {
    let mut topology = hub.topology();
    for cluster in &topology.snapshot().clusters {
        // Web servers have primaries too.
        if !matches!(cluster.layout, Layout::Shards) || hub.has_asked_commands(cluster.id) {
            continue;
        }
        let Some(primary) = cluster.shards.iter().find_map(pick::primary) else { continue };
        hub.set_asked_commands(cluster.id, true);
        let entry = Entry::new(Owner::Commands, 0, Access::Read, now_us);
        hub.upstream(cluster, primary, Class::default(), |upstream| {
            upstream.send(hub, entry, |out| out.extend_from_slice(b"*1\r\n$7\r\nCOMMAND\r\n"));
        });
    }
}

/// Four buffers.
const WORTH_CLOSING: usize = 64 * 1024;
/// In ticks.
const SECOND: u64 = 20;
const DECAY: u64 = 10 * SECOND;

#[cfg(test)]
mod tests {
    use super::{
        super::{
            client::{Client, Limits},
            multi::Rules,
            session::{self, Settings},
            testing,
        },
        *,
    };
    use crate::{
        net::stream::Stream,
        policy::{
            gate::{Axes, Health, Role},
            reads::ReadFrom,
        },
        proto::redis::stage::Stage,
    };
    use std::task::{Context, Waker};

    fn settings(idle: Duration) -> Rc<Settings> {
        Rc::new(Settings {
            listener: 0,
            name: "l".into(),
            cluster: 0,
            password: None,
            users: Vec::new(),
            passthrough: false,
            routes: Vec::new(),
            max_bulk: 64,
            limits: Limits { output: 64, pipeline: 64, idle, grace: Duration::from_secs(1) },
            split_writes: true,
            mget_embeds: false,
            allow: Vec::new(),
            deny: Vec::new(),
            keys_max: 1_000,
            strict_order: false,
            multi: Rules::default(),
            tls: None,
        })
    }

    /// Requests to a backend that was being connected to were no part of `limits.memory`.
    #[test]
    fn requests_that_wait_for_a_connection_are_counted() {
        let hub = testing::hub();
        let cluster = testing::cluster();
        hub.upstream(&cluster, &cluster.shards[0].members[0], Class::default(), |upstream| {
            let entry = Entry::new(Owner::Tombstone, 0, Access::Write, 0);
            upstream.send_owned(&hub, entry, vec![0; 1 << 20]);
        });
        tick(&hub, 1);
        assert_eq!(hub.metrics.buffered.get(), 1 << 20);
    }

    /// When slow backends held the memory, every client was closed, twenty a second.
    #[tokio::test]
    async fn clients_that_hold_little_are_not_closed_for_memory() {
        let hub = testing::hub();
        let client = |id| {
            let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
            let limits = settings(Duration::ZERO).limits;
            let client = Client::new(id, 0, Stream::Unix(ours), limits);
            hub.register(&client);
            (client, theirs)
        };
        let (small, large) = (client(1), client(2));
        small.0.flush_batch(&hub, WORTH_CLOSING - 1, 0);
        large.0.flush_batch(&hub, WORTH_CLOSING, 0);
        for _ in 0..2 {
            close_largest_client(&hub);
            large.0.flush_batch(&hub, 0, 0);
        }
        let mut context = Context::from_waker(Waker::noop());
        let mut ended =
            |client: &Client| client.poll(&mut context, &hub, &mut Vec::new(), true).is_ready();
        assert!(ended(&large.0) && !ended(&small.0));
    }

    /// Its silence was counted from when the worker started.
    #[tokio::test]
    async fn a_client_that_has_just_come_is_not_idle() {
        let hub = testing::hub();
        let idle = Duration::from_millis(300);
        tokio::time::sleep(2 * idle).await;
        let (ours, _theirs) = tokio::net::UnixStream::pair().unwrap();
        let mut session =
            Box::pin(session::serve(Rc::clone(&hub), settings(idle), Stream::Unix(ours), None));
        let mut context = Context::from_waker(Waker::noop());
        assert!(session.as_mut().poll(&mut context).is_pending());
        tick(&hub, 0);
        assert!(session.as_mut().poll(&mut context).is_pending());
        tokio::time::sleep(2 * idle).await;
        tick(&hub, 0);
        assert_eq!(session.await, End::Idle);
    }

    const ASKS: &str = "*1\r\n$7\r\nCOMMAND\r\n";

    #[tokio::test(start_paused = true)]
    async fn the_primary_is_asked_for_its_commands_until_it_has_told_them() {
        let mut stage = Stage::new(1, ReadFrom::Primary);
        stage.pass(Duration::from_secs(1)).await;
        let mut primary = stage.accept(0);
        assert_eq!(primary.heard(), ASKS);
        primary.say("-LOADING Redis is loading the dataset in memory\r\n");
        stage.pass(Duration::from_secs(1)).await;
        assert_eq!(primary.heard(), ASKS, "it was loading: asked again");
        drop(primary);
        stage.pass(Duration::from_secs(1)).await;
        let mut primary = stage.accept(0);
        assert_eq!(primary.heard(), ASKS, "the connection was lost: asked again");
        primary.say("*1\r\n*6\r\n$6\r\nmy.get\r\n:2\r\n*1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n");
        stage.pass(Duration::from_secs(5)).await;
        assert_eq!(primary.heard(), "");
        assert!(stage.hub.commands(0).unwrap().by_name(b"MY.GET").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_idle_when_nothing_of_it_is_under_way() {
        let mut stage = Stage::new(1, ReadFrom::Primary);
        stage.limits = Limits { idle: Duration::from_secs(3), ..stage.limits };
        let (mut idle, mut waits) = (stage.client(), stage.client());
        idle.say("PING\r\n");
        waits.say("GET slow\r\n");
        stage.settle().await;
        let mut primary = stage.accept(0);
        assert_eq!(idle.heard(), "+PONG\r\n");
        stage.pass(Duration::from_secs(2)).await;
        assert!(!idle.is_closed());
        stage.pass(Duration::from_secs(2)).await;
        assert!(idle.is_closed());
        assert!(!waits.is_closed());
        primary.heard();
        primary.say("+value\r\n");
        stage.settle().await;
        assert_eq!(waits.heard(), "+value\r\n");
    }

    #[tokio::test(start_paused = true)]
    async fn over_the_memory_limit_the_client_that_holds_most_is_closed() {
        let mut stage = Stage::with_memory(1, ReadFrom::Primary, 512 * 1024);
        let (mut greedy, mut modest) = (stage.client(), stage.client());
        modest.say("*2\r\n$4\r\nECHO\r\n$5\r\nhe");
        // It asks for much and reads nothing.
        for _ in 0..20 {
            greedy.say(format!("*2\r\n$4\r\nECHO\r\n$50000\r\n{}\r\n", "x".repeat(50_000)));
            stage.settle().await;
        }
        stage.pass(TICK).await;
        assert!(greedy.heard().len() < 1_000_000);
        assert!(greedy.is_closed());
        modest.say("llo\r\n");
        stage.settle().await;
        assert_eq!(modest.heard(), "$5\r\nhello\r\n");
    }

    /// It asks for more and more and reads nothing: near the limit it is asked to wait, not closed.
    #[tokio::test(start_paused = true)]
    async fn near_the_memory_limit_the_client_that_is_owed_most_is_not_read() {
        let mut stage = Stage::with_memory(1, ReadFrom::Primary, 2 << 20);
        let (mut greedy, mut modest) = (stage.client(), stage.client());
        let echo = format!("*2\r\n$4\r\nECHO\r\n$50000\r\n{}\r\n", "x".repeat(50_000));
        let mut asked = 0;
        while !stage.hub.memory.is_scarce() {
            greedy.say(&*echo);
            stage.settle().await;
            asked += 1;
            assert!(asked < 1_000);
        }
        stage.pass(TICK).await;
        let before = stage.hub.memory.used();
        greedy.say("PING\r\n");
        modest.say("PING\r\n");
        stage.settle().await;
        stage.pass(TICK).await;
        assert_eq!(modest.heard(), "+PONG\r\n");
        assert!(stage.hub.memory.used() <= before);
        let mut heard = greedy.heard();
        assert!(!heard.ends_with("+PONG\r\n"));
        while !heard.ends_with("+PONG\r\n") {
            stage.pass(TICK).await;
            heard += &greedy.heard();
        }
        assert_eq!(heard.len(), asked * (50_000 + "$50000\r\n\r\n".len()) + 7);
    }

    #[tokio::test(start_paused = true)]
    async fn gates_that_close_move_reads_at_once() {
        let stage = Stage::new(2, ReadFrom::PreferReplica);
        let mut client = stage.client();
        client.say("GET a\r\n");
        stage.settle().await;
        let _replica = stage.accept(1);
        let axes = Axes { health: Health::Unhealthy, role: Role::Replica, ..Axes::default() };
        stage.set(1, axes);
        stage.settle().await;
        stage.accept(0).say("+a\r\n");
        stage.settle().await;
        assert_eq!(client.heard(), "+a\r\n");
    }
}
