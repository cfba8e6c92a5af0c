//! Follows a Redis Cluster: asks one node after the other for the shards and their slots until two
//! agree, and puts that in force. When: twice a minute, and as soon as a worker has met something
//! that does not fit, but never more than once a second. Not what a node says: that is read by
//! `proto::redis::cluster`.

use crate::{
    config::{Member, Seeds},
    control::{
        membership::{Shape, reshape},
        plane::Plane,
        table::{News, Part},
    },
    net::addr::Address,
    policy::{
        dice::Dice,
        shard::{Sharding, SlotTable},
        slot::SLOTS,
    },
    proto::redis::cluster::{
        ask::{View, ask},
        slots::{Map, Owner},
    },
    topology::Cluster,
};
use std::{collections::HashSet, rc::Rc, sync::Arc, time::Duration};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

/// What is to be followed, and who may want it done at once.
#[derive(Debug)]
pub(in crate::control) struct Order {
    pub(in crate::control) cluster: usize,
    pub(in crate::control) seeds: Seeds,
    pub(in crate::control) wake: Rc<Notify>,
}

/// What is in force.
#[derive(Debug, Default)]
struct Known {
    map: Option<Map>,
    epoch: u64,
    /// The names of shards, and where each one's members are.
    names: Vec<(Arc<str>, HashSet<Address>)>,
    /// How many names were given.
    named: usize,
    /// Nobody could be asked the last time.
    silent: bool,
}

/// Follows one cluster for ever.
pub(in crate::control) async fn follow(plane: Rc<Plane>, order: Order, mut dice: Dice) {
    let mut known = Known::default();
    loop {
        let pause = match round(&plane, &order, &mut known, &mut dice).await {
            Ok(true) => SOON,
            Ok(false) => FULL,
            Err(why) => {
                if !std::mem::replace(&mut known.silent, true) {
                    let name = name_of(&plane, order.cluster);
                    tracing::warn!(cluster = %name, "no node tells who owns which slots: {why}");
                }
                AGAIN
            }
        };
        sleep(GAP.min(pause) + Duration::from_millis(dice.below(JITTER_MS))).await;
        let _ = timeout(pause.saturating_sub(GAP), order.wake.notified()).await;
    }
}

fn name_of(plane: &Plane, cluster: usize) -> Arc<str> {
    let topology = plane.topology();
    topology.clusters.get(cluster).map_or_else(|| "".into(), |cluster| Arc::clone(&cluster.name))
}

/// Asks until two nodes agree. Whether they say something new.
///
/// # Errors
/// Nobody has answered; why the last one has not.
async fn round(
    plane: &Rc<Plane>,
    order: &Order,
    known: &mut Known,
    dice: &mut Dice,
) -> Result<bool, String> {
    let topology = plane.topology();
    let Some(cluster) = topology.clusters.get(order.cluster).map(Arc::clone) else {
        return Ok(false);
    };
    drop(topology);
    let mut views: Vec<View> = Vec::new();
    let mut error = "there is none".to_owned();
    for address in candidates(&cluster, &order.seeds, dice) {
        match ask(&address, &cluster.credentials, cluster.tls.as_ref(), ASK).await {
            Ok(view) if view.map.shards.is_empty() => {
                error = format!("{address}: it knows no slots");
            }
            Ok(view) => {
                let same = known.map.as_ref() == Some(&view.map);
                if same && views.is_empty() || views.iter().any(|other| other.map == view.map) {
                    known.silent = false;
                    apply(plane, order.cluster, known, view);
                    return Ok(!same);
                }
                views.push(view);
            }
            Err(why) => error = format!("{address}: {why}"),
        }
    }
    // No two agree: who has seen more is right, if it has seen as much as we have.
    let newest = views.into_iter().max_by_key(|view| view.epoch);
    let newest = newest.filter(|view| known.map.is_none() || view.epoch >= known.epoch);
    let view = newest.ok_or(error)?;
    known.silent = false;
    let same = known.map.as_ref() == Some(&view.map);
    apply(plane, order.cluster, known, view);
    Ok(!same)
}

/// Whom to ask: some members in any order, then the seeds.
fn candidates(cluster: &Cluster, seeds: &Seeds, dice: &mut Dice) -> Vec<Address> {
    let members = cluster.shards.iter().flat_map(|shard| &shard.members);
    let mut members: Vec<Address> = members.map(|member| member.address.clone()).collect();
    for left in (1..members.len()).rev() {
        let at = usize::try_from(dice.below(left as u64 + 1)).unwrap_or(0);
        members.swap(left, at);
    }
    members.truncate(MOST_ASKED);
    for seed in &seeds.seeds {
        if !members.contains(seed) {
            members.push(seed.clone());
        }
    }
    members
}

/// Puts what a node says in force.
fn apply(plane: &Rc<Plane>, cluster: usize, known: &mut Known, view: View) {
    known.epoch = known.epoch.max(view.epoch);
    let named = assign(known, &view.map.shards);
    let parts: Vec<Part> = named
        .iter()
        .map(|(name, owner)| Part {
            name: Arc::clone(name),
            primary: Some(Member::new(owner.primary.clone())),
            replicas: owner.replicas.iter().cloned().map(Member::new).collect(),
        })
        .collect();
    let mut owners = vec![None; usize::from(SLOTS)];
    for (place, (_, owner)) in named.iter().enumerate() {
        for (first, last) in &owner.runs {
            let run = owners.get_mut(usize::from(*first)..=usize::from(*last));
            run.into_iter().for_each(|run| run.fill(Some(place)));
        }
    }
    let owner = |slot: u16| owners.get(usize::from(slot)).copied().flatten();
    let topology = plane.topology();
    let Some(old) = topology.clusters.get(cluster) else { return };
    let Some(table) = old.sharding.live() else { return };
    let stays = old.shards.len() == parts.len()
        && old.shards.iter().zip(&parts).all(|(shard, part)| shard.name == part.name);
    let next = (!stays).then(|| Sharding::Live(Arc::new(SlotTable::next(table, owner))));
    let detail = format!("epoch {}", view.epoch);
    let news = News { cause: "redis_cluster", detail: &detail };
    reshape(plane, cluster, Shape { parts, sharding: next }, news);
    if stays {
        for slot in 0..SLOTS {
            table.set(slot, owner(slot));
        }
    }
    if known.map.as_ref() != Some(&view.map) {
        let (shards, covered) = (view.map.shards.len(), view.map.covered());
        tracing::info!(cluster = %old.name, shards, slots = covered, "{detail}: the nodes have said who owns what");
    }
    known.map = Some(view.map);
}

/// Gives each shard the name that it had: a shard is who its primary was with, else any replica of
/// its own. Those that were known keep their order, new ones come behind them.
fn assign<'m>(known: &mut Known, shards: &'m [Owner]) -> Vec<(Arc<str>, &'m Owner)> {
    let mut found: Vec<Option<&Owner>> = vec![None; known.names.len()];
    let mut fresh = Vec::new();
    let by_primary = |owner: &Owner, members: &HashSet<Address>| members.contains(&owner.primary);
    let by_replica = |owner: &Owner, members: &HashSet<Address>| {
        owner.replicas.iter().any(|one| members.contains(one))
    };
    let mut rest: Vec<&Owner> = shards.iter().collect();
    for fits in [&by_primary as &dyn Fn(&Owner, &HashSet<Address>) -> bool, &by_replica] {
        rest.retain(|owner| {
            let mut free = found.iter_mut().zip(&known.names);
            match free.find(|(taken, (_, members))| taken.is_none() && fits(owner, members)) {
                Some((place, _)) => {
                    *place = Some(owner);
                    false
                }
                None => true,
            }
        });
    }
    for owner in rest {
        let name: Arc<str> = format!("s{}", known.named).into();
        known.named += 1;
        fresh.push((name, owner));
    }
    let kept = known.names.iter().zip(&found);
    let kept = kept.filter_map(|((name, _), owner)| Some((Arc::clone(name), (*owner)?)));
    let all: Vec<(Arc<str>, &Owner)> = kept.chain(fresh).collect();
    known.names = all
        .iter()
        .map(|(name, owner)| {
            let members = std::iter::once(&owner.primary).chain(&owner.replicas);
            (Arc::clone(name), members.cloned().collect())
        })
        .collect();
    all
}

/// redis.md, T18.
const FULL: Duration = Duration::from_secs(30);
const GAP: Duration = Duration::from_secs(1);
const JITTER_MS: u64 = 100;
/// After a change: another one may follow, and who has failed over may be back.
const SOON: Duration = Duration::from_secs(2);
/// While nobody answers.
const AGAIN: Duration = Duration::from_millis(500);
/// For one node: the next one may be well.
const ASK: Duration = Duration::from_secs(1);
/// In one round, before the seeds.
const MOST_ASKED: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(primary: &str, replicas: &[&str], first: u16) -> Owner {
        Owner {
            primary: primary.parse().unwrap(),
            replicas: replicas.iter().map(|one| one.parse().unwrap()).collect(),
            runs: vec![(first, first + 9)],
        }
    }

    fn names(known: &mut Known, shards: &[Owner]) -> String {
        let named = assign(known, shards);
        let shown = |(name, owner): &(Arc<str>, &Owner)| format!("{name}={}", owner.primary);
        named.iter().map(shown).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_shard_keeps_its_name_and_place_through_failovers_and_moved_slots() {
        let mut known = Known::default();
        let first = [owner("h:1", &["h:4"], 0), owner("h:2", &["h:5"], 10), owner("h:3", &[], 20)];
        assert_eq!(names(&mut known, &first), "s0=h:1 s1=h:2 s2=h:3");
        let failed = [owner("h:4", &["h:1"], 0), owner("h:3", &[], 5), owner("h:5", &[], 10)];
        assert_eq!(names(&mut known, &failed), "s0=h:4 s1=h:5 s2=h:3");
        let grown = [owner("h:9", &[], 0), owner("h:3", &[], 5), owner("h:1", &["h:4"], 10)];
        assert_eq!(names(&mut known, &grown), "s0=h:1 s2=h:3 s3=h:9");
        let replaced = [owner("h:8", &["h:9"], 0), owner("h:3", &[], 5)];
        assert_eq!(names(&mut known, &replaced), "s2=h:3 s3=h:8");
    }
}
