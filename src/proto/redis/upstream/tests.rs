//! The end of a connection whose task is at fault.

use super::*;
use crate::{policy::reads::ReadFrom, proto::redis::stage::Stage};
use std::panic::{AssertUnwindSafe, catch_unwind};

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_fails_what_is_on_its_connection_and_nothing_else() {
    let stage = Stage::new(1, ReadFrom::Primary);
    let (mut reader, mut writer) = (stage.client(), stage.client());
    reader.say("GET a\r\n");
    writer.say("SET b 1\r\n");
    stage.settle().await;
    let upstream = stage.hub.upstreams().pop().expect("the only connection");
    let bug = catch_unwind(AssertUnwindSafe(|| {
        let _guard = EndGuard { hub: &stage.hub, upstream: &upstream };
        panic!("a bug");
    }));
    assert!(bug.is_err());
    stage.settle().await;
    assert_eq!(stage.hub.metrics.panics.get(), 1);
    assert_eq!(writer.heard(), "-ERR sluice: connection to shard s0 lost, result unknown\r\n");
    let _broken = stage.accept(0);
    let mut fresh = stage.accept(0);
    assert_eq!(fresh.heard().matches("GET").count(), 1);
    fresh.say("+value\r\n");
    stage.settle().await;
    assert_eq!(reader.heard(), "+value\r\n");
}
