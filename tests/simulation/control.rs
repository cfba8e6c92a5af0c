//! Control's part: the real machines of policy over probes and reports, the only publisher of
//! gates and snapshots, and a memory of all it ever published. It serves no request.

use super::{Planted, ledger::Ledger, servers::Server};
use sluice::{
    net::addr::Address,
    policy::{
        access::Access,
        balance::{Balancer, Strategy},
        dice::Dice,
        gate::{Admin, Axes, Gate, Health, Passive, Role, derive},
        health,
        outlier::{self, Cause},
        reads::ReadFrom,
        shard::even,
    },
    topology::{
        self, Backend, Cluster, Credentials, Outage, Outcome, Publisher, Reader, Report, Reporter,
        Shard, Timeouts, Topology,
    },
};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::sync::{Semaphore, mpsc};

pub(crate) const SHARDS: usize = 3;
pub(crate) const MEMBERS: usize = 3;

#[derive(Debug)]
pub(crate) struct Control {
    publisher: Publisher,
    reports: mpsc::Receiver<Report>,
    pub(crate) watches: Vec<Watch>,
    /// By shard: the members in force, the primary first.
    order: Vec<Vec<usize>>,
    from: ReadFrom,
    strategy: Strategy,
    timeouts: Timeouts,
    credentials: Credentials,
    planted: Planted,
    /// What was in force at each step, the newest last.
    history: Vec<Moment>,
    pub(crate) transitions: usize,
    pub(crate) snapshots: usize,
}

/// One backend as control knows it.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) backend: Arc<Backend>,
    pub(crate) shard: usize,
    pub(crate) health: health::Machine,
    pub(crate) passive: outlier::Machine,
    pub(crate) admin: Admin,
    /// When it is ready again, in milliseconds.
    admin_until_ms: u64,
    pub(crate) role: Role,
}

/// What a pick could see between two publications.
#[derive(Clone, Debug)]
struct Moment {
    gates: Vec<Gate>,
    /// Counts publications of a gate: a permit is for one of them.
    editions: Vec<u32>,
    order: Vec<Vec<usize>>,
    from: ReadFrom,
}

impl Control {
    pub(crate) fn new(
        folder: &Path,
        planted: Planted,
        timeouts: Timeouts,
        credentials: Credentials,
        dice: &mut Dice,
    ) -> (Self, Reader, Reporter) {
        let watches: Vec<Watch> = (0..SHARDS * MEMBERS)
            .map(|id| {
                let shard = id / MEMBERS;
                let backend = Backend::new(
                    u32::try_from(id).unwrap(),
                    "sim".into(),
                    format!("s{shard}").into(),
                    Address::Unix(folder.join(format!("b{id}"))),
                    1,
                    1,
                );
                let mut health = health::Machine::new(health::Probes { rise: 2, fall: 3 });
                health = health.observe(true).0;
                let role = if id % MEMBERS == 0 { Role::Primary } else { Role::Replica };
                Watch {
                    backend: Arc::new(backend),
                    shard,
                    health,
                    passive: outlier::Machine::new(0, 0),
                    admin: Admin::Ready,
                    admin_until_ms: 0,
                    role,
                }
            })
            .collect();
        let order = (0..SHARDS).map(|s| (s * MEMBERS..(s + 1) * MEMBERS).collect()).collect();
        let (reporter, reports) = Reporter::channel();
        let (publisher, reader) = topology::channel(Topology::default());
        let mut control = Self {
            publisher,
            reports,
            watches,
            order,
            from: a_policy(dice),
            strategy: a_strategy(dice),
            timeouts,
            credentials,
            planted,
            history: Vec::new(),
            transitions: 0,
            snapshots: 0,
        };
        control.history.push(Moment {
            gates: vec![Gate::default(); control.watches.len()],
            editions: vec![0; control.watches.len()],
            order: control.order.clone(),
            from: control.from,
        });
        control.publish_snapshot();
        control.snapshots = 0;
        (control, reader, reporter)
    }

    /// The number of the newest step: it names what is in force.
    pub(crate) fn step(&self) -> usize {
        self.history.len() - 1
    }

    /// Derives every gate and publishes what has changed. True when something has.
    pub(crate) fn publish_gates(&mut self, ledger: &mut Ledger) -> bool {
        let mut next = self.history.last().unwrap().clone();
        let mut changed = 0;
        for (id, watch) in self.watches.iter().enumerate() {
            let (state, gate) = derive(Axes {
                admin: watch.admin,
                health: watch.health.health(),
                passive: watch.passive.passive(),
                role: watch.role,
                ..Axes::default()
            });
            let before = (watch.backend.state(), watch.backend.gate(), watch.backend.role());
            if before == (state, gate, watch.role) || next.gates[id] == gate && !self.honest() {
                continue;
            }
            changed += 1;
            ledger.note(format!("b{id} is {} ({})", state.as_str(), watch.role.as_str()));
            next.gates[id] = gate;
            next.editions[id] += 1;
            // The planted bug: workers never hear that a backend went out.
            if self.honest() || gate.open() {
                watch.backend.publish(state, gate, watch.role, u32::from(gate.half_open()));
            }
        }
        if changed > 0 {
            self.history.push(next);
            self.transitions += changed;
        }
        changed > 0
    }

    /// A snapshot of what is wanted now, in force from the next batch on.
    fn publish_snapshot(&mut self) {
        let shards = self.order.iter().enumerate().map(|(shard, members)| {
            let weights = vec![1; members.len()];
            Shard {
                name: format!("s{shard}").into(),
                members: members.iter().map(|id| Arc::clone(&self.watches[*id].backend)).collect(),
                replicas: Balancer::new(self.strategy, &weights[1..]),
                any: Balancer::new(self.strategy, &weights),
                pinned: None,
                fail_open: Default::default(),
                present: Default::default(),
            }
        });
        let shards: Vec<Shard> = shards.collect();
        let cluster = Cluster {
            follows: None,
            id: 0,
            name: "sim".into(),
            order: Cluster::order(&shards),
            shards,
            layout: Default::default(),
            sharding: even(SHARDS),
            reads: self.from,
            read_rules: None,
            keyless: 0,
            shebang_reads: false,
            timeouts: self.timeouts,
            credentials: self.credentials.clone(),
            tls: None,
            queue: None,
            asks_role: false,
            dedicated: Default::default(),
            outage: Outage { wait: Duration::ZERO, queue: 1 },
            turns: None,
            heirs: Arc::new(Semaphore::new(1)),
        };
        self.publisher.publish(Topology { clusters: vec![Arc::new(cluster)] });
        let newest = self.history.last().unwrap();
        let next = Moment { order: self.order.clone(), from: self.from, ..newest.clone() };
        self.history.push(next);
        self.snapshots += 1;
    }

    /// Another policy for reads, another list of replicas, or another primary.
    pub(crate) fn change_topology(
        &mut self,
        servers: &mut [Server],
        dice: &mut Dice,
        ledger: &mut Ledger,
    ) {
        let shard = dice.index(SHARDS);
        let members = &mut self.order[shard];
        match dice.below(4) {
            0 | 1 => {
                self.from = a_policy(dice);
                self.strategy = a_strategy(dice);
                ledger.note(format!("snapshot: reads from {:?}, {:?}", self.from, self.strategy));
            }
            2 if members.len() > 1 => {
                let gone = members.remove(1 + dice.index(members.len() - 1));
                ledger.note(format!("snapshot: b{gone} removed"));
            }
            2 => {
                let missing =
                    (shard * MEMBERS..(shard + 1) * MEMBERS).find(|id| !members.contains(id));
                members.extend(missing);
                ledger.note(format!("snapshot: shard {shard} is {members:?}"));
            }
            _ if members.len() > 1 => {
                let heir = 1 + dice.index(members.len() - 1);
                servers[members[0]].is_primary = false;
                members.swap(0, heir);
                servers[members[0]].is_primary = true;
                ledger.note(format!("snapshot: b{} is the primary of shard {shard}", members[0]));
            }
            _ => {}
        }
        self.publish_snapshot();
    }

    /// Gives writes back to the server that says it is the primary, when control has noticed.
    pub(crate) fn follow_roles(&mut self, ledger: &mut Ledger) {
        for shard in 0..SHARDS {
            let members = &mut self.order[shard];
            let role = |id: usize| self.watches[id].role;
            let heir = members.iter().position(|id| role(*id) == Role::Primary);
            if let Some(heir @ 1..) = heir
                && role(members[0]) != Role::Primary
            {
                members.swap(0, heir);
                ledger.note(format!("snapshot: b{} leads shard {shard}", members[0]));
                self.publish_snapshot();
            }
        }
    }

    /// Takes an axis of a backend somewhere else.
    pub(crate) fn disturb(&mut self, id: usize, now_ms: u64, dice: &mut Dice, ledger: &mut Ledger) {
        let draw = dice.next();
        let is_first = self.order[self.watches[id].shard][0] == id;
        let watch = &mut self.watches[id];
        match dice.below(4) {
            0 => {
                watch.admin = if dice.below(2) == 0 { Admin::Drain } else { Admin::Disabled };
                watch.admin_until_ms = now_ms + 20 + dice.below(500);
            }
            1 if !is_first => {
                let trip = outlier::Event::Trip(Cause::Hung);
                watch.passive = watch.passive.observe(now_ms, trip, true, draw).0;
            }
            1 | 2 => (0..3).for_each(|_| watch.health = watch.health.observe(false).0),
            _ => watch.role = Role::Unknown,
        }
        ledger.note(format!("control disturbs b{id}"));
    }

    /// A round of probes; some are late, so that control believes what is no longer so.
    pub(crate) fn probe(&mut self, servers: &[Server], now_ms: u64, dice: &mut Dice) {
        for (watch, server) in self.watches.iter_mut().zip(servers) {
            if dice.below(3) == 0 {
                continue;
            }
            let answer = server.probe();
            watch.health = watch.health.observe(answer.is_some()).0;
            watch.role = answer.unwrap_or(watch.role);
            let event = outlier::Event::Probe { passed: answer.is_some() };
            watch.passive = watch.passive.observe(now_ms, event, true, dice.next()).0;
        }
    }

    /// What workers reported, their counters, and time.
    pub(crate) fn listen(&mut self, now_ms: u64, dice: &mut Dice) {
        while let Ok(report) = self.reports.try_recv() {
            let id = usize::try_from(report.backend).unwrap();
            match report.outcome {
                Outcome::LocalFailure => {
                    self.observe(id, outlier::Event::LocalFailure, now_ms, dice)
                }
                Outcome::Error => self.observe(id, outlier::Event::Error, now_ms, dice),
                Outcome::Suspect
                    if self.watches[id].role != Role::Primary && dice.below(3) == 0 =>
                {
                    self.observe(id, outlier::Event::Trip(Cause::Hung), now_ms, dice);
                }
                Outcome::RoleMismatch | Outcome::Suspect | Outcome::Moved => {}
            }
        }
        for id in 0..self.watches.len() {
            if now_ms >= self.watches[id].admin_until_ms {
                self.watches[id].admin = Admin::Ready;
            }
            self.observe(id, outlier::Event::Tick, now_ms, dice);
        }
    }

    fn observe(&mut self, id: usize, event: outlier::Event, now_ms: u64, dice: &mut Dice) {
        let group = self.watches[id].shard;
        let out = self
            .watches
            .iter()
            .filter(|watch| watch.shard == group && watch.passive.passive() != Passive::Closed);
        let may_eject = out.count() * 2 < MEMBERS;
        let watch = &mut self.watches[id];
        let cell = &watch.backend.cells[0];
        let failed_total = cell.failures.get();
        let ok_total = (cell.reads.get() + cell.writes.get()).saturating_sub(failed_total);
        let sample = outlier::Event::Sample { ok_total, failed_total };
        for event in [sample, event] {
            watch.passive = watch.passive.observe(now_ms, event, may_eject, dice.next()).0;
        }
    }

    /// Everything is well again.
    pub(crate) fn heal(&mut self, servers: &[Server]) {
        for (watch, server) in self.watches.iter_mut().zip(servers) {
            watch.admin = Admin::Ready;
            watch.health = health::Machine::new(health::Probes { rise: 2, fall: 3 });
            watch.health = watch.health.observe(true).0;
            watch.passive = outlier::Machine::new(0, 0);
            watch.role = server.probe().unwrap();
            assert_eq!(watch.health.health(), Health::Healthy);
        }
    }

    /// Whether a pick between two steps (both included) could have chosen this backend.
    pub(crate) fn could_pick(&self, steps: (usize, usize), id: usize, access: Access) -> bool {
        let shard = self.watches[id].shard;
        self.history[steps.0..=steps.1].iter().any(|moment| {
            let gate = moment.gates[id];
            let members = &moment.order[shard];
            let primary = members.iter().find(|id| moment.gates[**id].primary());
            let as_primary = primary == Some(&id);
            let as_replica = members.contains(&id) && gate.replica();
            let fits = match (access, moment.from) {
                (Access::Write, _) | (Access::Read, ReadFrom::Primary) => as_primary,
                (Access::Read, ReadFrom::Replica) => as_replica,
                (Access::Read, ReadFrom::PreferReplica) => as_primary || as_replica,
                (Access::Read, ReadFrom::Any) => {
                    as_replica || members.contains(&id) && gate.primary()
                }
            };
            fits && (gate.open() || gate.half_open())
        })
    }

    /// The publication whose permit a pick between two steps must have taken; `None` when it may
    /// have needed none, or one of several.
    pub(crate) fn permit(&self, steps: (usize, usize), id: usize) -> Option<u32> {
        let edition = self.history[steps.0].editions[id];
        let all = self.history[steps.0..=steps.1].iter();
        let same = all.clone().all(|moment| moment.editions[id] == edition);
        (same && self.history[steps.0].gates[id].half_open()).then_some(edition)
    }

    fn honest(&self) -> bool {
        self.planted != Planted::DeafWorkers
    }
}

fn a_policy(dice: &mut Dice) -> ReadFrom {
    [ReadFrom::Primary, ReadFrom::PreferReplica, ReadFrom::Replica, ReadFrom::Any][dice.index(4)]
}

fn a_strategy(dice: &mut Dice) -> Strategy {
    use Strategy::{ClientIp, LeastConnections, P2c, Random, RoundRobin};
    [RoundRobin, LeastConnections, P2c, Random, ClientIp][dice.index(5)]
}
