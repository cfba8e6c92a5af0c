//! Stories of a cluster whose members change while it runs.

use super::{
    super::tests::{Story, config},
    *,
};
use crate::{
    net::addr::Address,
    policy::{gate::Health, reads::ReadFrom},
};

const NEWS: News<'_> = News { cause: "sentinel", detail: "as Sentinel says" };

fn member(port: u16) -> Member {
    Member::new(Address::Tcp { host: "10.0.0.1".to_owned(), port })
}

/// The shard `s0` of these ports, the primary first; 0 is no primary.
fn part(ports: &[u16]) -> Part {
    let replicas = ports.iter().skip(1).map(|port| member(*port)).collect();
    let primary = ports.first().filter(|port| **port > 0).map(|port| member(*port));
    Part { name: "s0".into(), primary, replicas }
}

fn mould() -> Mould {
    Mould::new(&config(0, ReadFrom::PreferReplica).clusters[0], None, 1)
}

fn reshape(story: &mut Story, parts: &[Part]) -> Reshaped {
    story.table.reshape(0, parts, &mould(), NEWS, story.now_ms)
}

fn ports(done: &Reshaped) -> Vec<Vec<String>> {
    let port = |one: &Arc<Backend>| one.name.rsplit(':').next().unwrap().to_owned();
    done.shards.iter().map(|(_, members)| members.iter().map(port).collect()).collect()
}

fn removed(done: &Reshaped) -> Vec<&str> {
    done.removed.iter().map(|one| &*one.name).collect()
}

#[test]
fn who_stays_keeps_its_state_and_its_counters_and_who_is_new_is_probed_before_it_serves() {
    let mut story = Story::ready(2);
    story.fail(2);
    let kept = Arc::clone(&story.table.watches().get(1).unwrap().backend);
    let done = reshape(&mut story, &[part(&[1, 2, 9])]);
    assert!(done.changed);
    assert_eq!(
        (ports(&done), done.born.clone()),
        (vec![vec!["1".into(), "2".into(), "9".into()]], vec![3])
    );
    assert_eq!(removed(&done), ["10.0.0.1:3"]);
    assert!(done.demoted.is_empty(), "the primary is who it was");
    assert!(Arc::ptr_eq(&done.shards[0].1[1], &kept));
    assert_eq!(kept.state(), State::Ready);
    let gone = &done.removed[0];
    assert_eq!((gone.state(), gone.gate()), (State::Removed, Gate::default()));
    assert!(story.table.watches().get(2).is_none(), "nobody watches it");
    assert_eq!(story.newest(), "10.0.0.1:3: ready -> removed: sentinel");
    assert!(!story.gate(3).open() && !story.table.all_probed());
    story.pass(3, Role::Replica);
    assert!(story.gate(3).open() && story.gate(3).replica() && story.table.all_probed());
    assert_eq!(story.newest(), "10.0.0.1:9: unknown -> ready: probe");
}

#[test]
fn what_is_said_again_changes_nothing() {
    let mut story = Story::ready(1);
    let first = reshape(&mut story, &[part(&[1, 2])]);
    assert!(!first.changed && first.born.is_empty() && first.demoted.is_empty());
    let events = story.table.events().total();
    let again = reshape(&mut story, &[part(&[1, 2, 2, 1])]);
    assert!(!again.changed, "an address that is told twice is one");
    assert_eq!((story.table.events().total(), ports(&again)[0].len()), (events, 2));
}

/// Nothing that came for one backend is taken for another's.
#[test]
fn what_comes_for_who_has_left_is_nobodys() {
    let mut story = Story::ready(2);
    reshape(&mut story, &[part(&[1, 2])]);
    let done = reshape(&mut story, &[part(&[1, 2, 3])]);
    assert_eq!(done.born, [3], "it is another one, though its address is the same");
    assert_eq!(done.shards[0].1[2].state(), State::Unknown);
    let events = story.table.events().total();
    (0..9).for_each(|_| story.fail(2));
    assert_eq!(story.table.watches().get(3).unwrap().health.health(), Health::Unknown);
    assert_eq!(story.table.events().total(), events);
    assert!(story.table.target(2).is_none());
}

#[test]
fn another_primary_gets_the_writes_when_it_says_so_itself_and_the_old_one_none_whatever_it_says() {
    let mut story = Story::ready(2);
    reshape(&mut story, &[part(&[1, 2, 3])]);
    let done = reshape(&mut story, &[part(&[2, 1, 3])]);
    let demoted: Vec<_> = done.demoted.iter().map(|one| &*one.name).collect();
    assert_eq!((ports(&done)[0][0].as_str(), demoted), ("2", vec!["10.0.0.1:1"]));
    assert_eq!(story.newest(), "10.0.0.1:2: replica -> primary: sentinel");
    let writes = |story: &Story| (0..3).filter(|at| story.gate(*at).primary()).collect::<Vec<_>>();
    assert_eq!(
        writes(&story),
        [] as [usize; 0],
        "neither the old one nor who says it is a replica"
    );
    story.pass(0, Role::Primary);
    assert_eq!(writes(&story), [] as [usize; 0]);
    story.pass(1, Role::Primary);
    assert_eq!(writes(&story), [1]);
    let events = story.table.events().total();
    story.pass(0, Role::Primary);
    assert_eq!((writes(&story), story.table.events().total()), (vec![1], events), "told already");
    story.pass(0, Role::Replica);
    assert_eq!(writes(&story), [1]);
    (0..9).for_each(|_| story.fail(1));
    story.pass(0, Role::Primary);
    assert_eq!(writes(&story), [] as [usize; 0], "it is Sentinel that says who is next");
}

/// Alone or not, one that says it is a replica is no primary.
#[test]
fn a_primary_that_says_it_is_a_replica_gets_no_writes() {
    let mut story = Story::new(0, ReadFrom::Primary);
    reshape(&mut story, &[part(&[1])]);
    story.pass(0, Role::Replica);
    assert!(!story.gate(0).primary() && story.gate(0).replica());
    story.pass(0, Role::Primary);
    assert!(story.gate(0).primary());
}

#[test]
fn a_primary_that_has_left_is_no_primary_any_more() {
    let mut story = Story::ready(1);
    reshape(&mut story, &[part(&[1, 2])]);
    let done = reshape(&mut story, &[part(&[2])]);
    assert_eq!((removed(&done), done.demoted.len()), (vec!["10.0.0.1:1"], 1));
    story.pass(1, Role::Primary);
    assert!(story.gate(1).primary());
    let done = reshape(&mut story, &[part(&[0, 2])]);
    assert_eq!(done.demoted.len(), 1);
    assert!(!story.gate(1).primary(), "nobody is");
}

#[test]
fn shards_come_and_go() {
    let mut story = Story::ready(1);
    let named = |name: &str, ports: &[u16]| Part { name: name.into(), ..part(ports) };
    let done = reshape(&mut story, &[named("a", &[5, 6]), part(&[1, 2])]);
    assert_eq!(done.born, [2, 3]);
    let names: Vec<_> = done.shards.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["a", "s0"]);
    story.pass(2, Role::Primary);
    assert!(story.gate(2).primary() && story.gate(0).primary());
    let done = reshape(&mut story, &[named("a", &[5, 6])]);
    assert_eq!(removed(&done), ["10.0.0.1:1", "10.0.0.1:2"]);
    assert!(done.changed && done.shards.len() == 1);
    let none = reshape(&mut story, &[]);
    assert!(none.changed && none.shards.is_empty());
    story.table.tick(9_000, 1);
    assert!(story.table.all_probed());
}

#[test]
fn a_shard_has_at_most_as_many_members_as_a_mask_has_bits() {
    let mut story = Story::ready(0);
    let many: Vec<u16> = (1..=200).collect();
    let done = reshape(&mut story, &[part(&many)]);
    assert_eq!(done.shards[0].1.len(), 64);
}

#[test]
fn a_seat_is_taken_again_when_nobody_has_it_any_more_and_an_id_never() {
    let mut story = Story::ready(1);
    let done = reshape(&mut story, &[part(&[1])]);
    let held = Arc::clone(&done.removed[0]);
    drop(done);
    let done = reshape(&mut story, &[part(&[1, 7])]);
    assert_eq!((done.shards[0].1[1].id, done.shards[0].1[1].seat), (2, 2), "someone still has it");
    drop(held);
    let done = reshape(&mut story, &[part(&[1, 7, 8])]);
    assert_eq!((done.shards[0].1[2].id, done.shards[0].1[2].seat), (3, 1));
}

#[test]
fn the_first_round_waits_for_who_the_members_are() {
    let mut story = Story::ready(0);
    assert!(story.table.all_probed());
    story.table.await_members(0);
    assert!(!story.table.all_probed());
    reshape(&mut story, &[part(&[1])]);
    assert!(story.table.all_probed());
}
