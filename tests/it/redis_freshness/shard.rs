//! A primary and two replicas whose links are late, and everything that is done to them.

use super::model::Model;
use crate::harness::{Dice, Fault, FaultProxy, Redis, Sluice, eventually, fault::Way};
use std::{collections::BTreeMap, fmt, thread, time::Duration};

const SERVERS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(super) struct Trio {
    servers: Vec<Redis>,
    /// By replica and by whom it copies: what lies between them.
    links: Vec<Vec<FaultProxy>>,
    primary: usize,
    pub(super) did: Did,
}

/// How often what was done.
#[derive(Debug, Default)]
pub(super) struct Did(BTreeMap<&'static str, u64>);

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = self.0.iter().map(|(what, times)| format!("{what} {times}"));
        f.write_str(&each.collect::<Vec<_>>().join(", "))
    }
}

const fn late(ms: u64) -> Fault {
    Fault { requests: Way::Clean, replies: Way::Late(Duration::from_millis(ms)) }
}

impl Trio {
    pub(super) fn start() -> Self {
        let arguments = ["--repl-timeout", "5", "--repl-ping-replica-period", "1"];
        let servers: Vec<Redis> = (0..SERVERS).map(|_| Redis::with_args(&arguments)).collect();
        let links = (0..SERVERS).map(|replica| {
            let delay = if replica == 1 { 40 } else { 150 };
            let link = |source: &Redis| FaultProxy::start(&source.address(), late(delay));
            servers.iter().map(link).collect()
        });
        let links = links.collect();
        let trio = Self { servers, links, primary: 0, did: Did::default() };
        (1..SERVERS).for_each(|replica| trio.follow(replica, 0));
        trio.wait_for_links();
        trio
    }

    pub(super) fn as_written(&self) -> (String, Vec<String>) {
        let mut addresses = self.addresses();
        let replicas = addresses.split_off(1);
        (addresses.remove(0), replicas)
    }

    pub(super) fn addresses(&self) -> Vec<String> {
        self.servers.iter().map(Redis::address).collect()
    }

    /// GETs that replicas have answered.
    pub(super) fn gets(&self) -> u64 {
        self.replicas().map(|replica| self.servers[replica].calls("get")).sum()
    }

    fn replicas(&self) -> impl Iterator<Item = usize> {
        let primary = self.primary;
        (0..SERVERS).filter(move |server| *server != primary)
    }

    fn follow(&self, replica: usize, source: usize) {
        let address = self.links[replica][source].address();
        let (host, port) = address.split_once(':').unwrap();
        assert_eq!(self.servers[replica].cmd(&["REPLICAOF", host, port]), "OK");
    }

    fn wait_for_links(&self) {
        for replica in self.replicas() {
            eventually("the link is up", PATIENCE, || {
                let up = self.servers[replica].info("master_link_status")? == "up";
                up.then_some(())
            });
        }
    }

    /// One thing that goes wrong, and a while after it.
    pub(super) fn hurt(&mut self, dice: &mut Dice, sluice: &Sluice, model: &Model) {
        let replica = self.replicas().nth(usize::try_from(dice.below(2)).unwrap()).unwrap();
        let what = match dice.below(100) {
            0..30 => self.change_link(replica, dice),
            30..45 => {
                self.servers[replica].stop();
                thread::sleep(Duration::from_millis(100 + dice.below(700)));
                self.servers[replica].cont();
                "replica stopped"
            }
            45..62 => self.restart_replica(replica, dice),
            62..72 => {
                self.servers[self.primary].stop();
                thread::sleep(Duration::from_millis(50 + dice.below(250)));
                self.servers[self.primary].cont();
                "primary stopped"
            }
            72..80 => self.restart_primary(dice, sluice, model),
            80..90 => self.promote(replica, sluice, model),
            _ => "nothing",
        };
        *self.did.0.entry(what).or_default() += 1;
        thread::sleep(Duration::from_millis(100 + dice.below(500)));
    }

    fn change_link(&self, replica: usize, dice: &mut Dice) -> &'static str {
        let link = &self.links[replica][self.primary];
        let usual = late(20 + dice.below(280));
        match dice.below(4) {
            0 => {
                link.set(Fault { requests: Way::Clean, replies: Way::ResetAfter(0) });
                thread::sleep(Duration::from_millis(50 + dice.below(300)));
                link.set(usual);
                "link cut"
            }
            1 => {
                // It seems to be up, and nothing comes.
                link.set(late(600 + dice.below(600)));
                thread::sleep(Duration::from_millis(300 + dice.below(500)));
                link.set(usual);
                "link frozen"
            }
            _ => {
                link.set(usual);
                "delay changed"
            }
        }
    }

    /// It comes back with nothing, or with what it had when it was last saved.
    fn restart_replica(&mut self, replica: usize, dice: &mut Dice) -> &'static str {
        let saved = dice.percent(60);
        if saved {
            self.servers[replica].cmd(&["SAVE"]);
            thread::sleep(Duration::from_millis(dice.below(400)));
        }
        self.servers[replica].restart();
        thread::sleep(Duration::from_millis(dice.below(300)));
        self.follow(replica, self.primary);
        if saved { "replica restarted with an old file" } else { "replica restarted empty" }
    }

    fn restart_primary(&mut self, dice: &mut Dice, sluice: &Sluice, model: &Model) -> &'static str {
        model.disturb();
        if dice.percent(50) {
            self.servers[self.primary].cmd(&["SAVE"]);
        }
        self.servers[self.primary].restart();
        self.settle(sluice, model);
        "primary restarted"
    }

    fn promote(&mut self, replica: usize, sluice: &Sluice, model: &Model) -> &'static str {
        model.disturb();
        self.primary = replica;
        assert_eq!(self.servers[replica].cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
        self.replicas().for_each(|other| self.follow(other, replica));
        self.settle(sluice, model);
        "replica promoted"
    }

    /// Waits until writes arrive at the primary again.
    fn settle(&self, sluice: &Sluice, model: &Model) {
        let mut n = 0;
        eventually("writes go to the primary", PATIENCE, || {
            n += 1;
            let probe = format!("probe{n}");
            let mut conn = sluice.conn();
            conn.patience(PATIENCE);
            let taken = conn.try_cmd(&["SET", &probe, "1"]).is_ok_and(|reply| reply == "OK");
            let there = self.servers[self.primary].cmd(&["GET", &probe]) == "1";
            (taken && there).then_some(())
        });
        model.settle(&self.servers[self.primary]);
    }

    /// Everything as it was at first.
    pub(super) fn heal(&self) {
        for link in self.links.iter().flatten() {
            link.set(late(40));
        }
        self.wait_for_links();
    }
}
