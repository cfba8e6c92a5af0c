//! A real Redis Cluster: primaries and replicas that `redis-cli --cluster create` has put together.

use super::{PATIENCE, Redis, Setup, eventually, said};
use std::{process::Command, thread};

#[derive(Debug)]
pub(crate) struct RedisCluster {
    pub(crate) nodes: Vec<Redis>,
}

impl RedisCluster {
    /// So many primaries, each with so many replicas, of which every node knows that all is well.
    pub(crate) fn start(primaries: usize, replicas: usize) -> Self {
        Self::with_args(primaries, replicas, &[])
    }

    /// With options that every server gets.
    pub(crate) fn with_args(primaries: usize, replicas: usize, arguments: &[&str]) -> Self {
        let own = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
        let all = [&own[..], &["--cluster-replica-validity-factor", "0"], arguments].concat();
        let nodes: Vec<Redis> = thread::scope(|scope| {
            let starts: Vec<_> = (0..primaries * (replicas + 1))
                .map(|_| scope.spawn(|| Redis::with_args(&all)))
                .collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]).args(nodes.iter().map(Redis::address));
        create.args(["--cluster-replicas", &replicas.to_string(), "--cluster-yes"]);
        said(&mut create).unwrap();
        let cluster = Self { nodes };
        cluster.wait_until_well();
        cluster.wait_until_known();
        cluster
    }

    /// Waits until CLUSTER SLOTS tells of every node: of replicas that have nothing to follow yet it
    /// does not.
    fn wait_until_known(&self) {
        for primary in self.primaries() {
            let keys = (0..).map(|n: u32| n.to_string());
            let mut own = keys.filter(|key| self.nodes[primary].cmd(&["SET", key, "1"]) == "OK");
            let key = own.next().unwrap();
            self.nodes[primary].cmd(&["DEL", &key]);
        }
        for node in &self.nodes {
            eventually("every node is told of", PATIENCE, || {
                let slots = node.cmd(&["CLUSTER", "SLOTS"]);
                let told: usize = slots.items().iter().map(|run| run.items().len() - 2).sum();
                (told == self.nodes.len()).then_some(())
            });
        }
    }

    /// Waits until every node that answers sees all slots served and every link up.
    pub(crate) fn wait_until_well(&self) {
        for node in &self.nodes {
            eventually("every node says that all is well", PATIENCE, || {
                let info = node.cmd(&["CLUSTER", "INFO"]).text();
                let well = info.contains("cluster_state:ok")
                    && info.contains("cluster_slots_ok:16384")
                    && info.contains(&format!("cluster_known_nodes:{}", self.nodes.len()));
                let linked = node.info("master_link_status").is_none_or(|link| link == "up");
                (well && linked).then_some(())
            });
        }
    }

    /// In front of it, with one seed.
    pub(crate) fn setup(&self) -> Setup {
        Setup::redis_cluster(&[self.nodes[0].address()], self.nodes.len())
    }

    /// The nodes that say that they are primaries, in the order of their start.
    pub(crate) fn primaries(&self) -> Vec<usize> {
        let mut all = 0..self.nodes.len();
        let is = |at: &usize| self.nodes[*at].info("role").is_some_and(|role| role == "master");
        all.by_ref().filter(is).collect()
    }

    /// Which node owns a slot, as that node says itself.
    pub(crate) fn owner(&self, slot: u16) -> usize {
        let owns = |node: &Redis| {
            let nodes = node.cmd(&["CLUSTER", "NODES"]).text();
            let mine = nodes.lines().find(|line| line.contains("myself")).unwrap().to_owned();
            mine.contains("master") && mine.split(' ').skip(8).any(|run| contains(run, slot))
        };
        self.nodes.iter().position(owns).unwrap()
    }

    /// Its name among the nodes.
    pub(crate) fn id(&self, node: usize) -> String {
        self.nodes[node].cmd(&["CLUSTER", "MYID"]).text()
    }
}

fn contains(run: &str, slot: u16) -> bool {
    let (first, last) = run.split_once('-').unwrap_or((run, run));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) => (first..=last).contains(&slot),
        // A slot on its way.
        _ => false,
    }
}
