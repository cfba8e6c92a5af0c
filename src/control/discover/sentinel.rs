//! Follows the Sentinels of one cluster: all are asked every ten seconds, and one that tells of
//! something at once. What they agree on is put in force. Not whom to believe: that is
//! [`super::council`].

use super::council::{Verdict, Votes};
use crate::{
    config::{self, Member},
    control::{
        membership::{self, Shape},
        plane::Plane,
        run_task,
        table::{News, Part},
    },
    net::tls,
    proto::redis::sentinel::{Known, Sentinel},
};
use std::{cell::RefCell, collections::HashSet, io, rc::Rc, sync::Arc, time::Duration};
use tokio::{sync::Notify, time::sleep};

/// The Sentinels of one cluster, and what they said.
#[derive(Debug)]
pub(in crate::control) struct Council {
    cluster: usize,
    name: Arc<str>,
    masters: Vec<Arc<str>>,
    sentinels: Vec<Sentinel>,
    inner: RefCell<Inner>,
    /// Something contradicts what they said.
    doubt: Notify,
}

#[derive(Debug)]
struct Inner {
    /// By master.
    votes: Vec<Votes>,
    /// By master: what is in force.
    verdicts: Vec<Option<Known>>,
    /// What was told once and holds still.
    told: HashSet<String>,
}

impl Council {
    /// Asks nobody yet.
    pub(in crate::control) fn new(
        cluster: usize,
        written: &config::Cluster,
        sentinel: &config::Sentinel,
        tls: Option<&tls::Client>,
    ) -> Rc<Self> {
        let masters: Vec<Arc<str>> =
            written.shards.iter().map(|shard| shard.name.as_str().into()).collect();
        let sentinels: Vec<Sentinel> = sentinel
            .addresses
            .iter()
            .map(|address| Sentinel {
                address: address.clone(),
                credentials: sentinel.credentials.clone(),
                tls: tls.cloned(),
            })
            .collect();
        let inner = Inner {
            votes: vec![Votes::new(sentinels.len()); masters.len()],
            verdicts: vec![None; masters.len()],
            told: HashSet::new(),
        };
        let name = written.name.as_str().into();
        let inner = RefCell::new(inner);
        Rc::new(Self { cluster, name, masters, sentinels, inner, doubt: Notify::new() })
    }

    /// One task for each Sentinel, for as long as control runs.
    pub(in crate::control) fn start(self: &Rc<Self>, plane: &Rc<Plane>) {
        plane.table.borrow_mut().await_members(self.cluster);
        for at in 0..self.sentinels.len() {
            let (council, plane) = (Rc::clone(self), Rc::clone(plane));
            run_task(async move { council.follow(&plane, at).await });
        }
    }

    /// A server has said that it is not what they say: they are asked at once.
    pub(in crate::control) fn ask_again(&self) {
        self.doubt.notify_waiters();
    }

    async fn follow(&self, plane: &Rc<Plane>, at: usize) {
        let Some(sentinel) = self.sentinels.get(at) else { return };
        let who = format!("sentinel {} (cluster {})", sentinel.address, self.name);
        loop {
            if let Err(error) = self.attend(plane, sentinel, at, &who).await {
                self.tell(&who, true, || format!("{error}; what the others say holds"));
            }
            sleep(RETRY).await;
        }
    }

    /// Asks and hears one Sentinel until that fails.
    async fn attend(
        &self,
        plane: &Rc<Plane>,
        sentinel: &Sentinel,
        at: usize,
        who: &str,
    ) -> io::Result<()> {
        // What happens between the answers and the events would be missed the other way round.
        let mut hearing = sentinel.hear(LIMIT).await?;
        let mut asking = sentinel.ask(LIMIT).await?;
        loop {
            let names = self.masters.iter().map(|name| &**name);
            let answers = asking.masters(names, LIMIT).await?;
            self.tell(who, false, || "it answers".to_owned());
            self.take(plane, at, who, answers);
            let pause = if self.is_calm(plane) { POLL } else { FAST_POLL };
            tokio::select! {
                news = hearing.news() => {
                    news?;
                    // What else has happened with it is asked for together.
                    sleep(MIN_GAP).await;
                }
                () = self.doubt.notified() => sleep(MIN_GAP).await,
                () = sleep(pause) => {}
            }
        }
    }

    /// Whether every shard has a primary that takes writes.
    fn is_calm(&self, plane: &Plane) -> bool {
        let topology = plane.topology();
        topology.clusters.get(self.cluster).is_some_and(|cluster| {
            let has_primary = |shard: &crate::topology::Shard| {
                shard.members.iter().any(|member| member.gate().primary())
            };
            cluster.shards.iter().all(has_primary)
        })
    }

    fn take(&self, plane: &Rc<Plane>, at: usize, who: &str, answers: Vec<Result<Known, String>>) {
        let now_ms = plane.now_ms();
        let mut changes = Vec::new();
        for (index, (master, answer)) in self.masters.iter().zip(answers).enumerate() {
            let what = format!("{who}: master {master}");
            match &answer {
                Ok(_) => self.tell(&what, false, || "known".to_owned()),
                Err(why) => self.tell(&what, true, || why.clone()),
            }
            let mut inner = self.inner.borrow_mut();
            let Inner { votes, verdicts, .. } = &mut *inner;
            let (Some(votes), Some(held)) = (votes.get_mut(index), verdicts.get_mut(index)) else {
                continue;
            };
            votes.take(at, answer.ok(), now_ms);
            let Some(Verdict { known, agree, said }) = votes.decide(now_ms) else { continue };
            let is_new = held.as_ref().is_none_or(|held| {
                (&held.primary, &held.replicas) != (&known.primary, &known.replicas)
            });
            if is_new {
                changes.push(format!(
                    "of master {master} the primary is {}, the replicas are {} (epoch {}, {agree} \
                     of {said} Sentinels)",
                    known.primary,
                    known.replicas.len(),
                    known.epoch
                ));
            }
            *held = Some(known);
        }
        if changes.is_empty() {
            return;
        }
        let parts = self.parts();
        let detail = changes.join("; ");
        let news = News { cause: "sentinel", detail: &detail };
        membership::reshape(plane, self.cluster, Shape { parts, sharding: None }, news);
    }

    fn parts(&self) -> Vec<Part> {
        let inner = self.inner.borrow();
        let each = self.masters.iter().zip(&inner.verdicts).map(|(master, known)| Part {
            name: Arc::clone(master),
            primary: known.as_ref().map(|known| Member::new(known.primary.clone())),
            replicas: known
                .iter()
                .flat_map(|known| &known.replicas)
                .map(|address| Member::new(address.clone()))
                .collect(),
        });
        each.collect()
    }

    /// Logs that something is wrong once, and that it is well again if it was not.
    fn tell(&self, what: &str, is_wrong: bool, detail: impl FnOnce() -> String) {
        let mut inner = self.inner.borrow_mut();
        if is_wrong && inner.told.insert(what.to_owned()) {
            tracing::warn!("{what}: {}", detail());
        } else if !is_wrong && inner.told.remove(what) {
            tracing::info!("{what}: {}", detail());
        }
    }
}

/// redis.md, T44.
const POLL: Duration = Duration::from_secs(10);
/// While a shard has no primary.
const FAST_POLL: Duration = Duration::from_secs(1);
/// A Sentinel that tells of much is asked no more often than this.
const MIN_GAP: Duration = Duration::from_millis(10);
/// How long a Sentinel has for an answer: it does little else.
const LIMIT: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(1);
