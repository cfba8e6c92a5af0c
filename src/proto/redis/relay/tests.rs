//! Clients with a connection of their own for all they do, with a backend played by hand.

use crate::{
    policy::reads::ReadFrom,
    proto::redis::{
        pause::Paused,
        stage::{Peer, Stage},
    },
    topology::Dedicated,
};
use std::time::Duration;

/// One that has just come, and its connection.
async fn relayed(stage: &mut Stage) -> (Peer, Peer) {
    stage.limit_leases(8, Dedicated { always: true, ..Dedicated::default() });
    let client = stage.client();
    stage.settle().await;
    let own = stage.accept(0);
    (client, own)
}

#[tokio::test(start_paused = true)]
async fn silence_for_max_lease_idle_ends_nobodys_connection_for_life() {
    let mut stage = Stage::new(1, ReadFrom::Primary);
    let (mut client, mut own) = relayed(&mut stage).await;
    client.say("WATCH a\r\n");
    stage.settle().await;
    own.heard();
    own.say("+OK\r\n");
    stage.pass(Duration::from_secs(100)).await;
    assert!(!own.is_closed(), "the client is there, only silent");
    assert_eq!(client.heard(), "+OK\r\n");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_memory_keeps_its_code_and_spoils_the_transaction() {
    let mut stage = Stage::with_memory(1, ReadFrom::Primary, 1 << 20);
    let (mut client, mut own) = relayed(&mut stage).await;
    client.say("MULTI\r\n");
    stage.settle().await;
    stage.hub.charge(0, 1 << 20);
    client.say("GET a\r\nEXEC\r\n");
    stage.settle().await;
    let heard = own.heard();
    assert!(heard.contains("OOM sluice: memory limit\r\n") && !heard.contains("GET"), "{heard}");
    assert!(heard.ends_with("EXEC\r\n"), "{heard}");
    let aborted = "-EXECABORT Transaction discarded because of previous errors.\r\n";
    own.say(format!("+OK\r\n-ERR unknown command\r\n{aborted}"));
    stage.settle().await;
    assert_eq!(client.heard(), format!("+OK\r\n-OOM sluice: memory limit\r\n{aborted}"));
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_other_clients_does_not_hold_those_who_are_relayed() {
    let mut stage = Stage::new(1, ReadFrom::Primary);
    let (mut client, mut own) = relayed(&mut stage).await;
    stage.hub.paused.set(Some(Paused { until_us: u64::MAX, all: true }));
    client.say("SET a 1\r\n");
    stage.settle().await;
    assert!(own.heard().contains("SET"), "its server is not paused");
}
