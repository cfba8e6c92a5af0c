//! Stories of one shard, told as probes and reports, with the clock as an argument.

use super::*;
use crate::{
    config::{self, Backends, Cluster, Limits, Log, LogFormat, Member, Reads, Shard, Shutdown},
    policy::{balance::Strategy, gate::Gate},
    proto::redis::probe::Phase,
    topology::Backend,
};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

mod late;

/// A shard of one primary and `replicas` replicas, and how often workers were told of a change.
pub(super) struct Story {
    pub(super) table: Table,
    changes: Arc<AtomicUsize>,
    pub(super) now_ms: u64,
}

pub(super) fn config(replicas: u16, from: ReadFrom) -> Config {
    let member = |port: u16| Member::new(Address::Tcp { host: "10.0.0.1".to_owned(), port });
    Config {
        workers: None,
        admin: config::Admin {
            bind: "127.0.0.1:0".parse().unwrap(),
            explicit: false,
            ..config::Admin::default()
        },
        log: Log { format: LogFormat::Text, level: "info".to_owned() },
        access_log: None,
        limits: Limits { max_connections: None, memory: None },
        shutdown: Shutdown { pre_stop_delay: Duration::ZERO, drain_timeout: Duration::ZERO },
        listeners: Vec::new(),
        clusters: vec![Cluster {
            name: "cache".to_owned(),
            shards: vec![Shard {
                name: "s0".to_owned(),
                identity: "s0".to_owned(),
                weight: 1,
                primary: Some(member(1)),
                replicas: (2..2 + replicas).map(member).collect(),
            }],
            reads: Reads { from, ..Reads::default() },
            ..Cluster::default()
        }],
    }
}

impl Story {
    /// All members probed once and well: 0 is the primary.
    pub(super) fn ready(replicas: u16) -> Self {
        let mut story = Self::new(replicas, ReadFrom::PreferReplica);
        for index in 0..=usize::from(replicas) {
            story.pass(index, if index == 0 { Role::Primary } else { Role::Replica });
        }
        story
    }

    pub(super) fn new(replicas: u16, from: ReadFrom) -> Self {
        Self::of(&config(replicas, from))
    }

    fn of(config: &Config) -> Self {
        let topology = crate::control::build::build(config, 1, &[]);
        let changes = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&changes);
        let on_change = Arc::new(move || {
            counted.fetch_add(1, Relaxed);
        });
        Self { table: Table::new(config, &topology, on_change), changes, now_ms: 1_000 }
    }

    pub(super) fn pass(&mut self, index: usize, role: Role) {
        self.probe(index, Ok(Report::of(role)));
    }

    pub(super) fn fail(&mut self, index: usize) {
        self.probe(index, Err(failure()));
    }

    /// Gives the pause before the next probe.
    fn probe(&mut self, index: usize, result: Result<Report, ProbeError>) -> Duration {
        let evidence =
            Evidence { result, said: None, sent_ms: self.now_ms, took: Duration::from_millis(1) };
        self.table.probed(index, evidence, self.now_ms, 7)
    }

    fn report(&mut self, index: usize, outcome: Outcome) -> Option<Ask> {
        let backend = self.backend(index).id;
        self.table.reported(Told { backend, outcome }, self.now_ms, 7)
    }

    fn hang(&mut self, index: usize) {
        assert_eq!(self.report(index, Outcome::Suspect), Some(Ask::Suspect(index)));
        self.table.suspicion_over(index, Some(failure()), self.now_ms, 7);
    }

    fn wait(&mut self, ms: u64) {
        self.now_ms += ms;
        self.table.tick(self.now_ms, 7);
    }

    pub(super) fn backend(&self, index: usize) -> &Backend {
        self.table.watches().get(index).unwrap().backend()
    }

    pub(super) fn states(&self) -> Vec<State> {
        self.table.watches().iter().map(|watch| watch.backend().state()).collect()
    }

    pub(super) fn gate(&self, index: usize) -> Gate {
        self.backend(index).gate()
    }

    pub(super) fn newest(&self) -> String {
        let event = self.table.events().newest().last().unwrap();
        format!("{}: {} -> {}: {}", event.backend, event.from, event.to, event.cause)
    }
}

fn failure() -> ProbeError {
    ProbeError {
        address: "10.0.0.1:1".to_owned(),
        phase: Phase::Ping,
        code: Code::Timeout,
        what: "no answer within 250ms".to_owned(),
    }
}

use State::{Ejected, HalfOpen, Ready, Unhealthy, Unknown, Warming};

#[test]
fn the_first_round_makes_a_shard_ready() {
    let mut story = Story::new(1, ReadFrom::PreferReplica);
    assert!(!story.table.all_probed());
    story.pass(0, Role::Primary);
    story.fail(1);
    assert!(story.table.all_probed(), "a failed probe counts: the round is over");
    assert_eq!(story.states(), [Ready, Unknown]);
    assert!(story.gate(0).open() && story.gate(0).primary() && !story.gate(1).open());
    assert_eq!(story.changes.load(Relaxed), 1);
    assert_eq!(story.newest(), "10.0.0.1:1: unknown -> ready: probe");
}

#[test]
fn three_failures_take_a_backend_out_and_two_passes_bring_it_back_with_one_event_each() {
    let mut story = Story::ready(2);
    let before = story.table.events().total();
    for _ in 0..5 {
        story.fail(2);
    }
    assert_eq!(story.states(), [Ready, Ready, Unhealthy]);
    assert!(story.gate(2).evict());
    assert_eq!(story.newest(), "10.0.0.1:3: ready -> unhealthy: probe");
    let detail = &story.table.events().newest().last().unwrap().detail;
    assert_eq!(detail, "3 probes failed: ping: no answer within 250ms");
    story.pass(2, Role::Replica);
    assert_eq!(story.states()[2], Unhealthy);
    story.pass(2, Role::Replica);
    assert_eq!(story.newest(), "10.0.0.1:3: unhealthy -> ready: probe");
    assert_eq!(story.table.events().total() - before, 2);
    assert_eq!(story.table.watches().get(2).unwrap().checks().failed, 5);
}

#[test]
fn a_hung_replica_is_ejected_once_and_comes_back_through_half_open() {
    let mut story = Story::ready(2);
    assert_eq!(story.report(1, Outcome::Suspect), Some(Ask::Suspect(1)));
    assert_eq!(story.report(1, Outcome::Suspect), None, "two reports are one suspicion");
    story.table.suspicion_over(1, Some(failure()), story.now_ms, 7);
    assert_eq!(story.states(), [Ready, Ejected, Ready]);
    assert!(story.gate(1).evict() && !story.gate(1).open());
    assert_eq!(story.newest(), "10.0.0.1:2: ready -> ejected: hung");
    assert_eq!(story.report(1, Outcome::Suspect), None, "it is known");
    // The time is over, but no probe passed since.
    story.wait(6_000);
    assert_eq!(story.states()[1], Ejected);
    story.pass(1, Role::Replica);
    assert_eq!(story.states()[1], HalfOpen);
    assert!(story.backend(1).take_permit() && !story.backend(1).take_permit());
    story.backend(1).cells[0].reads.add(1);
    story.wait(100);
    assert_eq!(story.states()[1], Ready);
    assert_eq!(story.newest(), "10.0.0.1:2: half_open -> ready: trial_passed");
    let ejections: Vec<_> = story.table.watches().get(1).unwrap().ejections().collect();
    assert_eq!(ejections, [("hung", 1)]);
}

#[test]
fn a_probe_sent_before_the_ejection_does_not_bring_a_backend_back() {
    let mut story = Story::ready(2);
    let sent_ms = story.now_ms - 1;
    story.hang(1);
    let took = Duration::from_millis(1);
    let late = Evidence { result: Ok(Report::of(Role::Replica)), said: None, sent_ms, took };
    story.table.probed(1, late, story.now_ms, 7);
    story.wait(6_000);
    assert_eq!(story.states()[1], Ejected);
}

#[test]
fn a_suspicion_that_is_answered_changes_nothing() {
    let mut story = Story::ready(2);
    let before = story.table.events().total();
    story.report(1, Outcome::Suspect);
    story.table.suspicion_over(1, None, story.now_ms, 7);
    assert_eq!(story.states(), [Ready; 3]);
    assert_eq!(story.table.events().total(), before);
    assert_eq!(story.report(1, Outcome::Suspect), Some(Ask::Suspect(1)), "and may come again");
}

#[test]
fn a_primary_is_never_ejected_on_suspicion_or_failures() {
    let mut story = Story::ready(2);
    assert_eq!(story.report(0, Outcome::Suspect), None);
    for _ in 0..20 {
        story.report(0, Outcome::LocalFailure);
        story.report(0, Outcome::Error);
    }
    assert_eq!(story.states(), [Ready; 3]);
}

#[tokio::test]
async fn what_may_not_be_ejected_is_probed_at_once() {
    let mut story = Story::ready(2);
    let wake = story.table.target(0).unwrap().wake;
    let woken = async || tokio::time::timeout(Duration::ZERO, wake.notified()).await.is_ok();
    for outcome in [Outcome::LocalFailure, Outcome::LocalFailure] {
        story.report(0, outcome);
        assert!(!woken().await, "two failures are no trip");
    }
    story.report(0, Outcome::LocalFailure);
    assert!(woken().await);
    story.fail(0);
    story.report(0, Outcome::LocalFailure);
    story.report(0, Outcome::Suspect);
    assert!(!woken().await, "it is being decided at its own pace");
}

#[test]
fn at_most_half_of_a_shard_is_ejected_and_never_its_last_reader() {
    let mut story = Story::ready(4);
    for index in 1..5 {
        story.hang(index);
    }
    // Five members: three at most.
    assert_eq!(story.states(), [Ready, Ejected, Ejected, Ejected, Ready]);

    let mut replicas_only = Story::new(1, ReadFrom::Replica);
    replicas_only.pass(0, Role::Primary);
    replicas_only.pass(1, Role::Replica);
    replicas_only.hang(1);
    assert_eq!(replicas_only.states(), [Ready, Ready], "reads have nowhere else to go");
}

#[test]
fn failures_in_a_row_eject_and_a_success_between_them_forgives() {
    let mut story = Story::ready(2);
    story.report(1, Outcome::LocalFailure);
    story.report(1, Outcome::LocalFailure);
    story.backend(1).cells[0].reads.add(1);
    story.report(1, Outcome::LocalFailure);
    assert_eq!(story.states()[1], Ready);
    story.report(1, Outcome::LocalFailure);
    story.report(1, Outcome::LocalFailure);
    assert_eq!(story.newest(), "10.0.0.1:2: ready -> ejected: local_failures");
}

#[test]
fn a_lost_role_closes_the_gate_for_writes_and_a_new_primary_gets_them() {
    let mut story = Story::ready(2);
    story.pass(0, Role::Replica);
    assert!(!story.gate(0).primary() && story.gate(0).replica());
    assert_eq!(story.newest(), "10.0.0.1:1: primary -> replica: role");
    story.pass(1, Role::Primary);
    assert!(story.gate(1).primary());
    assert_eq!(story.newest(), "10.0.0.1:2: replica -> primary: role");
}

/// It answers READONLY, MASTERDOWN or LOADING itself, and REPLICAOF NO ONE must still reach it.
#[test]
fn the_only_server_of_a_shard_gets_all_whatever_it_is() {
    let mut alone = Story::ready(0);
    for role in [Role::Replica, Role::ReplicaLinkDown, Role::Syncing, Role::Loading] {
        alone.pass(0, role);
        assert!(alone.gate(0).primary(), "{role:?}");
    }
    assert_eq!(alone.newest(), "10.0.0.1:1: syncing -> loading: role");
    (0..3).for_each(|_| alone.fail(0));
    assert!(!alone.gate(0).primary());
    let mut replicas_only = Story::new(0, ReadFrom::Replica);
    replicas_only.pass(0, Role::Replica);
    assert!(replicas_only.gate(0).replica() && !replicas_only.gate(0).primary());
}

#[test]
fn two_that_claim_to_be_the_primary_are_told_apart_by_who_was_first() {
    let mut story = Story::ready(2);
    story.pass(1, Role::Primary);
    assert!(story.gate(0).primary() && !story.gate(1).primary());
    assert_eq!(story.newest(), "10.0.0.1:2: primary -> primary: split_brain");
    let told = story.table.events().total();
    story.pass(1, Role::Primary);
    assert_eq!(story.table.events().total(), told, "said once");
    // The first one dies: the other one is what is left.
    (0..3).for_each(|_| story.fail(0));
    assert!(story.gate(1).primary());
    // It comes back as it was: now it is the one that is too many.
    (0..2).for_each(|_| story.pass(0, Role::Primary));
    assert!(story.gate(1).primary() && !story.gate(0).primary());
}

#[test]
fn before_its_first_probe_the_configured_primary_keeps_its_place() {
    let mut story = Story::new(1, ReadFrom::PreferReplica);
    story.pass(1, Role::Primary);
    assert!(!story.gate(1).primary(), "a stray empty server must not get the writes");
    story.pass(0, Role::Primary);
    assert!(story.gate(0).primary() && !story.gate(1).primary());
}

#[test]
fn lag_is_published_in_bytes() {
    let mut story = Story::ready(1);
    let at = |role, offset| {
        let replication_id = Some("a".to_owned());
        Ok(Report { offset: Some(offset), replication_id, ..Report::of(role) })
    };
    story.probe(0, at(Role::Primary, 500));
    story.probe(1, at(Role::Replica, 420));
    assert_eq!(story.backend(1).lag_bytes(), Some(80));
    assert_eq!(story.backend(0).lag_bytes(), None);
    story.probe(1, at(Role::Syncing, 0));
    assert_eq!(story.backend(1).lag_bytes(), None);
}

#[test]
fn probes_are_fast_while_something_is_being_decided() {
    let mut story = Story::ready(1);
    let near = |pause: Duration, ms: u64| {
        let around = Duration::from_millis(ms);
        assert!(pause <= around && pause >= around * 4 / 5, "{pause:?} is not up to {around:?}");
    };
    near(story.probe(1, Ok(Report::of(Role::Replica))), 2_000);
    near(story.probe(1, Ok(Report::of(Role::Syncing))), 500);
    near(story.probe(1, Ok(Report::of(Role::Replica))), 2_000);
    near(story.probe(1, Err(failure())), 500);
    near(story.probe(1, Err(failure())), 500);
    near(story.probe(1, Err(failure())), 1_000);
    // Nobody takes writes now: a promotion must be seen soon.
    near(story.probe(0, Ok(Report::of(Role::Replica))), 500);
    near(story.probe(1, Err(failure())), 500);
}

fn wish(admin: Admin, ttl: Option<Duration>, kill: bool) -> Wish {
    Wish { admin, ttl, kill }
}

impl Story {
    fn ask(&mut self, index: usize, admin: Admin) {
        self.table.wish(index, wish(admin, None, false), self.now_ms, "set".to_owned());
    }
}

#[test]
fn an_operator_drains_for_a_time_and_every_change_is_told_once() {
    let mut story = Story::ready(1);
    let before = story.table.events().total();
    let ttl = Some(Duration::from_secs(10));
    story.table.wish(1, wish(Admin::Drain, ttl, false), story.now_ms, "set for 10s".to_owned());
    assert_eq!(story.states(), [Ready, State::Drain]);
    assert!(story.gate(1).sticky() && !story.gate(1).open());
    assert_eq!(story.backend(1).admin(), Admin::Drain);
    assert_eq!(story.newest(), "10.0.0.1:2: ready -> drain: api");
    story.wait(9_900);
    assert_eq!(story.states()[1], State::Drain);
    story.wait(100);
    assert_eq!(story.states()[1], Ready);
    assert_eq!(story.newest(), "10.0.0.1:2: drain -> ready: api");
    assert_eq!(story.table.events().total() - before, 2);
    // Of one that something else keeps out it is told as well.
    (0..3).for_each(|_| story.fail(1));
    story.ask(1, Admin::Drain);
    assert_eq!(story.states()[1], Unhealthy);
    assert_eq!(story.newest(), "10.0.0.1:2: ready -> drain: api");
    let detail = &story.table.events().newest().last().unwrap().detail;
    assert_eq!(detail, "set; it stays unhealthy");
    (0..2).for_each(|_| story.pass(1, Role::Replica));
    assert_eq!(story.newest(), "10.0.0.1:2: unhealthy -> drain: probe");
}

#[tokio::test]
async fn a_disabled_one_is_left_alone_and_must_pass_a_probe_to_come_back() {
    let mut story = Story::ready(1);
    story.ask(1, Admin::Disabled);
    assert!(story.table.is_paused(1) && !story.table.is_paused(0));
    assert_eq!(story.states()[1], State::Disabled);
    assert!(!story.gate(1).evict() && !story.gate(1).sticky(), "what it has stays");
    assert_eq!(story.report(1, Outcome::Suspect), None);
    let wake = story.table.target(1).unwrap().wake;
    let woken = async || tokio::time::timeout(Duration::ZERO, wake.notified()).await.is_ok();
    assert!(!woken().await);
    story.ask(1, Admin::Ready);
    assert!(woken().await, "it is probed at once");
    assert_eq!(story.states()[1], Unknown);
    assert!(!story.gate(1).open(), "nobody has looked yet");
    story.pass(1, Role::Replica);
    assert_eq!(story.states()[1], Ready);
}

#[test]
fn connections_are_killed_when_asked_for_and_the_workers_are_told() {
    let mut story = Story::ready(1);
    story.ask(1, Admin::Disabled);
    assert_eq!(story.backend(1).kills(), 0);
    let changes = story.changes.load(Relaxed);
    story.table.wish(1, wish(Admin::Disabled, None, true), story.now_ms, "set".to_owned());
    assert_eq!((story.backend(1).kills(), story.backend(0).kills()), (1, 0));
    assert!(story.changes.load(Relaxed) > changes, "though the gate is as it was");
}

#[test]
fn the_first_round_does_not_wait_for_those_that_the_configuration_disables() {
    let mut config = config(1, ReadFrom::PreferReplica);
    config.clusters[0].shards[0].replicas[0].admin = Admin::Disabled;
    config.clusters[0].shards[0].primary.as_mut().unwrap().admin = Admin::Drain;
    let topology = crate::control::build::build(&config, 1, &[]);
    let members = topology.clusters[0].shards[0].members.clone();
    let mut table = Table::new(&config, &topology, Arc::new(|| {}));
    let states = || members.iter().map(|member| member.state()).collect::<Vec<_>>();
    assert_eq!(states(), [State::Drain, State::Disabled], "before any probe");
    let told: Vec<_> = table.events().newest().map(|e| (e.to, e.cause)).collect();
    assert_eq!(told, [("drain", "config"), ("disabled", "config")]);
    assert!(!table.all_probed());
    let took = Duration::from_millis(1);
    let evidence = Evidence { result: Ok(Report::of(Role::Primary)), said: None, sent_ms: 0, took };
    table.probed(0, evidence, 1, 7);
    assert!(table.all_probed());
    assert_eq!(states(), [State::Drain, State::Disabled]);
    assert_eq!(table.events().total(), 2);
}

/// Two web servers alike, the first one with weight 4.
fn group(slow_start: Duration) -> Story {
    let mut config = config(0, ReadFrom::Any);
    let member = |port, weight| {
        let address = Address::Tcp { host: "10.0.0.1".to_owned(), port };
        Member { weight, ..Member::new(address) }
    };
    config.clusters[0] = Cluster {
        name: "web".to_owned(),
        backends: Some(Backends {
            members: vec![member(1, 4), member(2, 1)],
            balance: Strategy::PeakEwma,
            failback: Default::default(),
            sticky: None,
            send_proxy: None,
        }),
        slow_start: Some(slow_start),
        ..Cluster::default()
    };
    let mut story = Story::of(&config);
    (0..2).for_each(|index| story.pass(index, Role::None));
    story
}

impl Story {
    /// The share of a backend now, and whether its cluster got new balancers for it.
    fn share(&mut self, index: usize) -> (u32, bool) {
        let told = !self.table.take_reweighed().is_empty();
        (self.backend(index).effective_weight(), told)
    }
}

#[test]
fn a_backend_that_comes_back_warms_up_in_steps_and_none_at_the_start() {
    let mut story = group(Duration::from_secs(9));
    assert_eq!(story.states(), [Ready, Ready]);
    assert_eq!(story.share(0), (40, false));
    (0..3).for_each(|_| story.fail(0));
    assert_eq!(story.share(0), (40, false), "who is out keeps its place in the balancers");
    let changes = story.changes.load(Relaxed);
    (0..2).for_each(|_| story.pass(0, Role::None));
    assert_eq!(story.states(), [Warming, Ready]);
    assert!(story.gate(0).open() && story.gate(0).sticky());
    assert_eq!(story.changes.load(Relaxed), changes + 1);
    assert_eq!(story.newest(), "10.0.0.1:1: unhealthy -> warming: probe");
    assert_eq!(story.share(0), (4, true), "10% before its first request");
    for step in 2..=9 {
        story.wait(950);
        story.wait(50);
        assert_eq!(story.share(0), (step * 4, true));
        story.wait(0);
        assert_eq!(story.share(0), (step * 4, false), "nothing new, no new balancers");
    }
    story.wait(1_000);
    assert_eq!(story.states(), [Ready, Ready]);
    assert_eq!(story.share(0), (40, true));
    assert_eq!(story.newest(), "10.0.0.1:1: warming -> ready: slow_start");
}

#[test]
fn an_ejected_backend_warms_up_after_its_trial() {
    let mut story = group(Duration::from_secs(9));
    (0..5).for_each(|_| assert_eq!(story.report(1, Outcome::Error), None));
    assert_eq!(story.states(), [Ready, Ejected]);
    story.wait(6_000);
    story.pass(1, Role::None);
    assert_eq!((story.states()[1], story.share(1)), (HalfOpen, (10, false)));
    story.backend(1).cells[0].reads.add(1);
    story.wait(100);
    assert_eq!((story.states()[1], story.share(1)), (Warming, (1, true)));
    (0..5).for_each(|_| assert_eq!(story.report(1, Outcome::Error), None));
    assert_eq!((story.states()[1], story.share(1)), (Ejected, (10, true)));
}

#[test]
fn without_slow_start_a_backend_is_back_at_once() {
    let mut story = group(Duration::ZERO);
    (0..3).for_each(|_| story.fail(0));
    (0..2).for_each(|_| story.pass(0, Role::None));
    assert_eq!((story.states()[0], story.share(0)), (Ready, (40, false)));
}

#[test]
fn a_weight_set_at_run_time_counts_at_once_and_in_a_warming_backend_by_its_part() {
    let mut story = group(Duration::from_secs(9));
    story.table.set_weight(0, 4, "test", story.now_ms);
    assert_eq!(story.share(0), (40, false), "it is what it was");
    story.table.set_weight(0, 7, "test", story.now_ms);
    assert_eq!((story.backend(0).weight(), story.share(0)), (7, (70, true)));
    (0..3).for_each(|_| story.fail(0));
    (0..2).for_each(|_| story.pass(0, Role::None));
    assert_eq!(story.share(0), (7, true));
    story.table.set_weight(0, 5_000, "test", story.now_ms);
    assert_eq!((story.backend(0).weight(), story.share(0)), (1_000, (1_000, true)));
    story.table.set_weight(9, 5, "test", story.now_ms);
}

#[test]
fn what_is_usual_is_told_to_those_who_ask() {
    let mut story = group(Duration::ZERO);
    assert_eq!(story.backend(1).pace(0).us, 1.0);
    story.backend(0).observe(0, 0, 300, false);
    story.wait(100);
    assert_eq!(story.backend(1).pace(0).us, 300.0, "nobody has asked it: it is as usual");
    story.backend(1).observe(0, 0, 10, true);
    assert_eq!(story.backend(1).pace(0).us, 6_000.0, "a failure is 20 times that");
}
