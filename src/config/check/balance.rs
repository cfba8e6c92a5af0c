//! `clusters.<name>.balance` and what belongs to it: `failback`, `slow_start`, `fail_open`. Not the
//! members and their weights: see `shard`.

use crate::{
    config::{
        file::Value,
        keys::Kind,
        section::{Reader, Section},
        values, words,
    },
    policy::balance::{Failback, Strategy},
    topology::FailOpen,
};
use std::time::Duration;

/// How one of the backends is picked, and when `failover` goes back.
pub(super) fn balance(reader: &mut Reader<'_, '_>, cluster: &Section<'_>) -> (Strategy, Failback) {
    let strategy = reader.choice(cluster, "balance", words::STRATEGY);
    let failback = reader.choice(cluster, "failback", words::FAILBACK);
    if let (Some(field), true) = (cluster.field("failback"), cluster.has("backends"))
        && strategy != Strategy::Failover
    {
        let word = words::word(words::STRATEGY, &strategy);
        let message = format!("it belongs to `balance: failover`; this one is `{word}`");
        reader.notes.error(&field.key_at, &field.path, message);
    }
    if let (Some(field), Strategy::Failover) = (cluster.field("sticky"), strategy)
        && let Value::Map(entries) = &field.node.value
        && entries.iter().any(|(key, _)| key.name == "client_ip")
    {
        let message = "beside it `balance: failover` has no say; keep one of the two";
        reader.notes.error(&field.key_at, &field.path, message);
    }
    (strategy, failback)
}

/// As written; what it is otherwise depends on who uses the cluster.
pub(super) fn slow_start(
    reader: &mut Reader<'_, '_>,
    cluster: &Section<'_>,
    strategy: Strategy,
) -> Option<Duration> {
    let slow_start = reader.value(cluster, "slow_start", values::duration)?;
    if let (Some(field), Strategy::Failover) = (cluster.field("slow_start"), strategy)
        && !slow_start.is_zero()
    {
        let message = "`failover` sends all to one backend and knows no weight; leave it out";
        reader.notes.hint(&field.key_at, &field.path, message);
    }
    Some(slow_start)
}

/// As written, else by what the members are.
pub(super) fn fail_open(reader: &mut Reader<'_, '_>, cluster: &Section<'_>) -> FailOpen {
    let has_roles = cluster.has("shards") || cluster.has("sentinel");
    let word = |text: &str, kind: &Kind| values::meaning(text, kind, words::FAIL_OPEN);
    match (reader.value(cluster, "fail_open", word), cluster.field("fail_open")) {
        (Some(FailOpen::AllDown), Some(field)) if has_roles => {
            let message = "it is `never` for `shards`: who is down may have lost its role";
            reader.notes.error(&field.node.at, &field.path, message);
            FailOpen::Never
        }
        (Some(written), _) => written,
        (None, _) => default_fail_open(has_roles),
    }
}

/// core.md: `never` for databases and every role-checked access.
pub(in crate::config) const fn default_fail_open(has_roles: bool) -> FailOpen {
    if has_roles { FailOpen::Never } else { FailOpen::AllDown }
}
