//! The keys of balancing: what they need of each other, and what they mean when they are not written.

use super::{TCP, cluster, each, file, good, tcp};
use crate::{
    policy::balance::{Failback, Strategy},
    topology::FailOpen,
};
use std::time::Duration;

#[test]
fn what_belongs_to_balancing_must_make_sense_together() {
    each(&[
        (
            tcp("failback: manual"),
            "clusters.c.failback: it belongs to `balance: failover`; this one is `p2c`",
        ),
        (
            cluster("failback: auto"),
            "clusters.c.failback: it is for a cluster with `backends`; this one has `shards`",
        ),
        (
            tcp("balance: failover, failback: later"),
            "clusters.c.failback: 'later' is not one of auto, manual",
        ),
        (
            tcp("balance: failover, sticky: { client_ip: {} }"),
            "clusters.c.sticky: beside it `balance: failover` has no say; keep one of the two",
        ),
        (
            tcp("balance: failover, slow_start: 10s"),
            "hint: clusters.c.slow_start: `failover` sends all to one backend and knows no weight",
        ),
        (
            cluster("fail_open: all_down"),
            "clusters.c.fail_open: it is `never` for `shards`: who is down may have lost its role",
        ),
        (tcp("fail_open: half"), "clusters.c.fail_open: 'half' is not one of never, all_down"),
        (
            tcp("slow_start: 2h"),
            "clusters.c.slow_start: '2h' is out of range; it is from 1ms to 1h, or 0 for none",
        ),
        (
            file(TCP, "backends: [{ address: a:1, tier: 64 }]"),
            "clusters.c.backends[0].tier: 64 is out of range; it is 0 to 63",
        ),
    ]);
    let config = good(&tcp("balance: failover, failback: manual, slow_start: 0"));
    let backends = config.clusters[0].backends.as_ref().unwrap();
    assert_eq!((backends.balance, backends.failback), (Strategy::Failover, Failback::Manual));
    assert_eq!(config.clusters[0].slow_start, Some(Duration::ZERO));
    let tiers = file(TCP, "backends: [a:1, { address: b:1, tier: 2 }], balance: client_ip");
    let config = good(&tiers);
    let backends = config.clusters[0].backends.as_ref().unwrap();
    assert_eq!(backends.members.iter().map(|one| one.tier).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(config.clusters[0].fail_open, FailOpen::AllDown);
    assert_eq!(good(&tcp("fail_open: never")).clusters[0].fail_open, FailOpen::Never);
    let config = good(&cluster("fail_open: never, slow_start: 5s, reads: { balance: peak_ewma }"));
    assert_eq!(config.clusters[0].fail_open, FailOpen::Never);
    assert_eq!(config.slow_start(0), Duration::from_secs(5));
    assert_eq!(good(&tcp("")).slow_start(0), Duration::ZERO, "databases get none by default");
}
