//! A whole set of real servers: shards, each a primary and its replicas, links up.

use super::{PATIENCE, Redis, Setup, eventually};
use std::thread;

#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) shards: Vec<Shard>,
}

#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) primary: Redis,
    pub(crate) replicas: Vec<Redis>,
}

impl Cluster {
    /// `shards` primaries with `replicas` replicas each, all started at once.
    pub(crate) fn start(shards: usize, replicas: usize) -> Self {
        Self::with_args(shards, replicas, &[])
    }

    /// With options that every server gets.
    pub(crate) fn with_args(shards: usize, replicas: usize, arguments: &[&str]) -> Self {
        let mut servers: Vec<Redis> = thread::scope(|scope| {
            let starts: Vec<_> = (0..shards * (replicas + 1))
                .map(|_| scope.spawn(|| Redis::with_args(arguments)))
                .collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        let shards = (0..shards)
            .map(|_| Shard {
                primary: servers.pop().unwrap(),
                replicas: servers.split_off(servers.len() - replicas),
            })
            .collect();
        let cluster = Self { shards };
        for shard in &cluster.shards {
            shard.replicas.iter().for_each(|replica| replica.follow(&shard.primary));
        }
        cluster.wait_for_links();
        cluster
    }

    /// Waits until every replica has its primary's data.
    pub(crate) fn wait_for_links(&self) {
        for shard in &self.shards {
            shard.wait_for_links();
        }
    }

    /// Waits until every replica has what its primary has now.
    pub(crate) fn wait_for_replicas(&self) {
        for shard in &self.shards {
            let offset: u64 = shard.primary.info("master_repl_offset").unwrap().parse().unwrap();
            for replica in &shard.replicas {
                eventually("the replica has caught up", PATIENCE, || {
                    let seen: u64 = replica.info("slave_repl_offset")?.parse().unwrap();
                    (seen >= offset).then_some(())
                });
            }
        }
    }

    /// The shard that owns `key`.
    pub(crate) fn owner(&self, key: &str) -> &Shard {
        &self.shards[self.owner_index(key)]
    }

    /// The slots are cut as `redis-cli --cluster create` cuts them.
    pub(crate) fn owner_index(&self, key: &str) -> usize {
        let slot = f64::from(sluice::policy::slot::slot(key.as_bytes()));
        let each = 16_384.0 / self.shards.len() as f64;
        (1..).position(|end| slot < (each * f64::from(end)).round()).unwrap()
    }

    /// A key, beginning with `prefix`, that shard `index` owns.
    pub(crate) fn key_of(&self, index: usize, prefix: &str) -> String {
        let mut names = (0..).map(|n| format!("{prefix}{n}"));
        names.find(|name| self.owner_index(name) == index).unwrap()
    }

    /// Every server, primaries first within their shards.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &Redis> {
        self.shards.iter().flat_map(|shard| std::iter::once(&shard.primary).chain(&shard.replicas))
    }

    /// Sluice in front of them, to be adjusted and started.
    pub(crate) fn sluice(&self) -> Setup {
        let shards = self.shards.iter().map(|shard| {
            let replicas: Vec<_> = shard.replicas.iter().map(Redis::address).collect();
            (shard.primary.address(), replicas)
        });
        Setup::shards(shards)
    }
}

impl Shard {
    fn wait_for_links(&self) {
        for replica in &self.replicas {
            eventually("the replica's link is up", PATIENCE, || {
                (replica.info("master_link_status")? == "up").then_some(())
            });
        }
        eventually("the primary sees its replicas online", PATIENCE, || {
            let online = (0..self.replicas.len()).all(|i| {
                let seen = self.primary.info(&format!("slave{i}"));
                seen.is_some_and(|line| line.contains("state=online"))
            });
            online.then_some(())
        });
    }
}
