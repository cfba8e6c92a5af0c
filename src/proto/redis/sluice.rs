//! `SLUICE`: what an operator asks from redis-cli about the proxy itself. Not what a request would
//! do: that is [`super::explain`]; nor the status page, which tells more.

use super::{
    args::Args,
    class::Resp,
    dispatch::{Flow, Scene},
    explain, reply, wire,
};
use crate::{
    telemetry::metrics::{ClusterMetrics, ListenerMetrics, RequestMetrics, WorkerMetrics},
    topology::{Backend, Cluster, Layout},
};

/// Answers a subcommand.
pub(super) fn answer(scene: &Scene<'_>, args: Args<'_>) -> Flow {
    let word = args.get(1).unwrap_or_default().to_ascii_uppercase();
    match word.as_slice() {
        b"CLIENTS" => scene.say(|out| clients(scene, out)),
        b"CLUSTERS" => scene.say(|out| clusters(scene, out)),
        b"SHARDS" => scene.say(|out| shards(scene.cluster, scene.state.class.resp, out)),
        b"HOTKEYS" => hot_keys(scene, args),
        b"EXPLAIN" => scene.say(|out| explain::explain(scene, args, out)),
        _ => scene.say(help),
    }
}

fn help(out: &mut Vec<u8>) {
    const LINES: [&str; 7] = [
        "SLUICE <subcommand> [<arg> ...]. Subcommands are:",
        "CLIENTS -- the clients of this listener and of each worker.",
        "CLUSTERS -- the clusters of Redis servers, and how many requests they had.",
        "EXPLAIN <command> [<arg> ...] -- where that request would go, and why; it is not sent.",
        "HOTKEYS [<count>] -- the keys that are asked for most, per second, sampled.",
        "SHARDS -- the shards of this listener's cluster with their slots and backends.",
        "HELP -- this text.",
    ];
    wire::array(out, LINES.len());
    LINES.iter().for_each(|line| wire::simple(out, line));
}

/// A name and a number.
fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    wire::bulk(out, name.as_bytes());
    wire::integer(out, value);
}

/// A name and a text.
fn text(out: &mut Vec<u8>, name: &str, value: &str) {
    wire::bulk(out, name.as_bytes());
    wire::bulk(out, value.as_bytes());
}

fn clients(scene: &Scene<'_>, out: &mut Vec<u8>) {
    let resp = scene.state.class.resp;
    let workers = &scene.hub.memory.workers;
    let total = |pick: fn(&ListenerMetrics) -> u64| -> u64 {
        workers.iter().filter_map(|w| w.listeners.get(scene.settings.listener)).map(pick).sum()
    };
    wire::map(out, resp, 7);
    text(out, "listener", &scene.settings.name);
    number(out, "id", scene.client.id);
    number(out, "active", total(|listener| listener.active.get()));
    number(out, "accepted", total(|listener| listener.accepted.get()));
    number(out, "bytes_in", total(|listener| listener.bytes_in.get()));
    number(out, "bytes_out", total(|listener| listener.bytes_out.get()));
    wire::bulk(out, b"workers");
    wire::array(out, workers.len());
    for worker in workers.iter() {
        wire::map(out, resp, 2);
        number(out, "clients", worker.clients.get());
        number(out, "buffered_bytes", worker.buffered.get());
    }
}

fn clusters(scene: &Scene<'_>, out: &mut Vec<u8>) {
    let resp = scene.state.class.resp;
    // Clusters of other protocols have no shards of Redis.
    let of_redis = scene.clusters.iter().filter(|one| matches!(one.layout, Layout::Shards));
    wire::array(out, of_redis.clone().count());
    for cluster in of_redis {
        let workers = &scene.hub.memory.workers;
        let total = |pick: fn(&ClusterMetrics) -> u64| {
            let of = |worker: &WorkerMetrics| worker.clusters.get(cluster.id).map_or(0, pick);
            workers.iter().map(|worker| of(worker)).sum()
        };
        let members = || cluster.shards.iter().flat_map(|shard| &shard.members);
        let ready = members().filter(|backend| backend.gate().open()).count();
        wire::map(out, resp, 10);
        text(out, "name", &cluster.name);
        number(out, "shards", cluster.shards.len() as u64);
        number(out, "backends", members().count() as u64);
        number(out, "backends_ready", ready as u64);
        number(out, "reads", total(|counted| all(&counted.reads)));
        number(out, "writes", total(|counted| all(&counted.writes)));
        number(
            out,
            "backend_errors",
            total(|counted| {
                counted.reads.backend_errors.get() + counted.writes.backend_errors.get()
            }),
        );
        number(
            out,
            "proxy_errors",
            total(|counted| counted.reads.proxy_errors.get() + counted.writes.proxy_errors.get()),
        );
        number(out, "coalesced", total(|counted| counted.coalesced.get()));
        number(out, "in_flight", members().map(|backend| backend.in_flight()).sum());
    }
}

fn all(counted: &RequestMetrics) -> u64 {
    counted.ok.get() + counted.backend_errors.get() + counted.proxy_errors.get()
}

fn shards(cluster: &Cluster, resp: Resp, out: &mut Vec<u8>) {
    wire::array(out, cluster.shards.len());
    for (index, shard) in cluster.shards.iter().enumerate() {
        wire::map(out, resp, 3);
        text(out, "name", &shard.name);
        text(out, "slots", &slots(cluster, index));
        wire::bulk(out, b"backends");
        wire::array(out, shard.members.len());
        shard.members.iter().for_each(|member| backend(member, resp, out));
    }
}

fn backend(member: &Backend, resp: Resp, out: &mut Vec<u8>) {
    let lag = member.lag_bytes();
    wire::map(out, resp, if lag.is_some() { 7 } else { 6 });
    text(out, "address", &member.name);
    text(out, "role", member.role().as_str());
    text(out, "state", member.state().as_str());
    text(out, "admin", member.admin().as_str());
    number(out, "weight", u64::from(member.weight()));
    number(out, "in_flight", member.in_flight());
    if let Some(lag) = lag {
        number(out, "lag_bytes", lag);
    }
}

/// The runs of slots that a shard owns: `0-8191,9000`.
fn slots(cluster: &Cluster, shard: usize) -> String {
    let run = |(first, last): &(u16, u16)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    let runs = cluster.sharding.runs(shard);
    runs.iter().map(run).collect::<Vec<_>>().join(",")
}

/// `SLUICE HOTKEYS [count]`: of this listener's cluster.
fn hot_keys(scene: &Scene<'_>, args: Args<'_>) -> Flow {
    if args.len() > 3 {
        return scene.say(|out| reply::wrong_arity(out, "SLUICE|HOTKEYS"));
    }
    let count = match args.get(2) {
        None => DEFAULT_COUNT,
        Some(text) => match std::str::from_utf8(text).map(str::parse::<usize>) {
            Ok(Ok(count)) => count,
            _ => return scene.say(|out| out.extend_from_slice(reply::NOT_INTEGER)),
        },
    };
    let resp = scene.state.class.resp;
    scene.say(|out| {
        let keys = scene.hub.insight.hot_keys(scene.cluster.id, count);
        wire::array(out, keys.len());
        for one in keys {
            wire::map(out, resp, 3);
            wire::bulk(out, b"key");
            wire::bulk(out, &one.key);
            number(out, "requests_per_second", one.per_second);
            number(out, "error", one.error);
        }
    })
}

const DEFAULT_COUNT: usize = 10;
