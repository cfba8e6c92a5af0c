//! Stories of replicas that are late: which of them are read, and since when each has everything.

use super::*;
use crate::{policy::fresh::Known, topology::Consistency};

fn limited(ms: u64) -> Story {
    let mut config = config(2, ReadFrom::PreferReplica);
    config.clusters[0].reads.max_lag = Some(Duration::from_millis(ms));
    Story::of(&config)
}

fn promised() -> Story {
    let mut config = config(2, ReadFrom::PreferReplica);
    config.clusters[0].reads.consistency = Consistency::Key;
    Story::of(&config)
}

impl Story {
    /// A probe at that time tells an offset of a replication stream.
    fn tell(&mut self, index: usize, role: Role, stream: &str, offset: u64) {
        let replication_id = Some(stream.to_owned());
        let report = Report { offset: Some(offset), replication_id, ..Report::of(role) };
        self.probe(index, Ok(report));
    }

    fn known(&self, index: usize) -> Known {
        let ahead = self.table.groups.get(0).unwrap().sampling.ahead_ms;
        let known = self.backend(index).sampled.known();
        Known {
            safe_ms: known.safe_ms.saturating_sub(ahead),
            sampled_ms: known.sampled_ms.saturating_sub(ahead),
        }
    }
}

#[test]
fn who_is_too_late_is_not_read_until_it_is_within_half_of_the_limit() {
    let mut story = limited(1_000);
    story.tell(1, Role::Replica, "a", 100);
    assert!(!story.gate(1).replica(), "how late it is nobody knows yet");
    story.tell(0, Role::Primary, "a", 100);
    assert!(story.gate(1).replica(), "it has the newest offset");
    let mut seen = String::new();
    let mut offset = 100;
    for behind_ms in [0, 900, 1_200, 800, 600, 400, 0] {
        // What the primary had so long ago is what the replica has now.
        let reached = offset;
        story.now_ms += 10_000;
        offset += 1_000;
        story.tell(0, Role::Primary, "a", offset - 500);
        story.now_ms += behind_ms;
        story.tell(0, Role::Primary, "a", offset);
        let has = if behind_ms == 0 { offset } else { offset - 500 };
        assert!(has > reached);
        story.tell(1, Role::Replica, "a", has);
        seen.push(if story.gate(1).replica() { '+' } else { '-' });
    }
    assert_eq!(seen, "++---++");
    assert_eq!(story.states()[1], Ready, "it is well, but late");
    assert!(story.gate(0).primary());
}

#[test]
fn an_event_tells_how_late_it_was() {
    let mut story = limited(1_000);
    story.tell(0, Role::Primary, "a", 100);
    story.tell(1, Role::Replica, "a", 100);
    let before = story.table.events().total();
    story.now_ms += 5_000;
    story.tell(0, Role::Primary, "a", 900);
    story.tell(1, Role::Replica, "a", 150);
    assert_eq!(story.newest(), "10.0.0.1:2: replica -> replica_lagging: role");
    let event = story.table.events().newest().last().unwrap();
    let told = "it is 750 bytes and 5000ms behind its primary (reads.max_lag)";
    assert_eq!((event.detail.as_str(), event.good), (told, false));
    assert_eq!(story.backend(1).role(), Role::ReplicaLagging);
    assert_eq!(story.backend(1).lag_bytes(), Some(750));
    story.tell(1, Role::Replica, "a", 900);
    assert_eq!(story.newest(), "10.0.0.1:2: replica_lagging -> replica: role");
    assert!(story.table.events().newest().last().unwrap().good);
    assert_eq!(story.table.events().total() - before, 2);
}

#[test]
fn a_replica_has_what_its_primary_had_when_the_sample_was_sent_that_it_has_reached() {
    let mut story = promised();
    story.tell(0, Role::Primary, "a", 100);
    let first = story.now_ms;
    story.now_ms += 200;
    story.tell(1, Role::Replica, "a", 150);
    assert_eq!(story.known(1), Known { safe_ms: first, sampled_ms: first });
    story.now_ms += 200;
    story.tell(0, Role::Primary, "a", 150);
    let (second, asked) = (story.now_ms, story.now_ms - 200);
    assert_eq!(story.known(1), Known { safe_ms: second, sampled_ms: asked }, "it had that already");
    story.now_ms += 200;
    story.tell(0, Role::Primary, "a", 300);
    story.tell(1, Role::Replica, "a", 299);
    assert_eq!(story.known(1), Known { safe_ms: second, sampled_ms: story.now_ms });
}

#[test]
fn what_was_not_said_now_says_nothing_of_now() {
    let mut story = promised();
    story.tell(0, Role::Primary, "a", 100);
    story.tell(1, Role::Replica, "a", 100);
    let then = story.known(1);
    story.now_ms += 200;
    story.fail(0);
    story.tell(1, Role::Replica, "a", 100);
    assert_eq!(story.known(1), then, "the primary has not answered");
    // As a probe reports a server that a script keeps busy.
    story.probe(0, Ok(Report { replication_id: Some("a".into()), ..Report::of(Role::Primary) }));
    story.tell(1, Role::Replica, "a", 100);
    assert_eq!(story.known(1), then, "it has not said how far it is");
    story.probe(1, Ok(Report { replication_id: Some("a".into()), ..Report::of(Role::Replica) }));
    assert_eq!(story.known(1), Known::default());
}

#[test]
fn offsets_of_another_stream_and_of_another_primary_say_nothing() {
    let mut story = promised();
    story.tell(0, Role::Primary, "a", 100);
    story.tell(1, Role::Replica, "a", 100);
    story.tell(2, Role::Replica, "b", 900);
    assert_ne!(story.known(1), Known::default());
    assert_eq!(story.known(2), Known::default());
    story.tell(1, Role::Syncing, "a", 100);
    assert_eq!(story.known(1), Known::default(), "it is about to be another one's copy");
    story.tell(1, Role::Replica, "a", 100);
    // The second is promoted, and the first follows it.
    story.tell(1, Role::Primary, "c", 100);
    story.tell(0, Role::Replica, "c", 100);
    story.tell(1, Role::Primary, "c", 120);
    assert!(story.gate(1).primary());
    assert_eq!(story.known(2), Known::default(), "it follows nobody of this stream");
    assert_eq!(story.known(0), Known::default(), "it has not reached a sample");
    story.tell(0, Role::Replica, "c", 120);
    assert_ne!(story.known(0), Known::default());
}

#[test]
fn servers_are_sampled_often_where_reads_ask_for_it() {
    let pause = |story: &mut Story| story.probe(0, Ok(Report::of(Role::Primary))).as_millis();
    let (mut plain, mut promised) = (Story::new(2, ReadFrom::PreferReplica), promised());
    for story in [&mut plain, &mut promised] {
        story.pass(0, Role::Primary);
        story.pass(0, Role::Primary);
    }
    assert!(pause(&mut plain) > 1_000);
    assert!((100..=200).contains(&pause(&mut promised)));
}
