//! What CLUSTER answers to clients that know of clusters: as if we were the nodes. Not who the nodes
//! behind us are: those are no client's business.

use crate::{
    net::addr::Address,
    policy::{access::Access, maglev::stable_id, shard::even, slot::SLOTS},
    proto::redis::{
        args::Args,
        dispatch::{Flow, Scene},
        reply,
        table::Command,
        wire,
    },
    topology::{Follows, Spoof},
};

/// A proxy as a client is to see it.
struct Node {
    host: String,
    port: u16,
    id: String,
    first: u16,
    last: u16,
}

/// CLUSTER SLOTS, SHARDS, NODES, INFO, MYID.
pub(in crate::proto::redis) fn answer(
    scene: &Scene<'_>,
    command: &Command,
    args: Args<'_>,
) -> Flow {
    let Some(follows) = scene.cluster.follows.as_ref().filter(|one| one.spoof != Spoof::Off) else {
        return scene.say(|out| reply::not_yet(out, command.name));
    };
    if args.len() != 2 {
        return scene.say(|out| reply::wrong_arity(out, command.name));
    }
    let local = scene.client.look().map(|look| look.ends.local).unwrap_or_default();
    let nodes = nodes(follows, &local);
    let resp = scene.state.class.resp;
    match command.name {
        "CLUSTER|SLOTS" => scene.say(|out| slots(out, &nodes)),
        "CLUSTER|SHARDS" => scene.say(|out| {
            wire::array(out, nodes.len());
            for node in &nodes {
                wire::map(out, resp, 2);
                wire::bulk(out, b"slots");
                wire::array(out, 2);
                wire::integer(out, node.first);
                wire::integer(out, node.last);
                wire::bulk(out, b"nodes");
                wire::array(out, 1);
                wire::map(out, resp, 7);
                for (name, value) in [
                    ("id", node.id.as_str()),
                    ("ip", &node.host),
                    ("endpoint", &node.host),
                    ("role", "master"),
                    ("health", "online"),
                ] {
                    wire::bulk(out, name.as_bytes());
                    wire::bulk(out, value.as_bytes());
                }
                for (name, value) in [("port", u64::from(node.port)), ("replication-offset", 0)] {
                    wire::bulk(out, name.as_bytes());
                    wire::integer(out, value);
                }
            }
        }),
        "CLUSTER|NODES" => scene.say(|out| {
            let lines: String = nodes.iter().map(|node| line(node, &local)).collect();
            wire::verbatim(out, resp, lines.as_bytes());
        }),
        "CLUSTER|MYID" => scene.say(|out| {
            let own = nodes.iter().find(|node| is_own(node, &local)).or_else(|| nodes.first());
            wire::bulk(out, own.map_or(&b""[..], |node| node.id.as_bytes()));
        }),
        _ => scene.say(|out| {
            let text = format!(
                "cluster_enabled:1\r\ncluster_state:ok\r\ncluster_slots_assigned:{SLOTS}\r\n\
                 cluster_slots_ok:{SLOTS}\r\ncluster_slots_pfail:0\r\ncluster_slots_fail:0\r\n\
                 cluster_known_nodes:{0}\r\ncluster_size:{0}\r\ncluster_current_epoch:1\r\n\
                 cluster_my_epoch:1\r\n",
                nodes.len()
            );
            wire::verbatim(out, resp, text.as_bytes());
        }),
    }
}

/// CLUSTER COUNTKEYSINSLOT and GETKEYSINSLOT: the owner knows.
pub(in crate::proto::redis) fn ask_owner(
    scene: &mut Scene<'_>,
    command: &Command,
    args: Args<'_>,
) -> Flow {
    let Some(table) = scene.cluster.sharding.live() else {
        return scene.say(|out| reply::not_yet(out, command.name));
    };
    let slot = args.number(2).and_then(|slot| u16::try_from(slot).ok());
    let Some(slot) = slot.filter(|slot| *slot < SLOTS) else {
        scene.reply(reply::INVALID_SLOT);
        return Flow::Continue;
    };
    let owner = table.owner(slot).unwrap_or(usize::MAX);
    scene.send(owner, Access::Read, true, args.frame)
}

fn nodes(follows: &Follows, local: &str) -> Vec<Node> {
    let own: Vec<Address> = match follows.announce.is_empty() {
        true => local.parse().into_iter().collect(),
        false => follows.announce.clone(),
    };
    // Over a unix socket: an empty host is where the client is already.
    let none = Address::Tcp { host: String::new(), port: 0 };
    let all = if own.is_empty() { vec![none] } else { own };
    let owners = even(all.len());
    let node = |(place, address): (usize, Address)| {
        let id = stable_id(address.to_string().as_bytes());
        let Address::Tcp { host, port } = address else { return None };
        let (first, last) = owners.runs(place).first().copied()?;
        let id = format!("{id:016x}{:016x}{:08x}", id.rotate_left(32), u64::from(port));
        let host = host.trim_matches(['[', ']']).to_owned();
        Some(Node { host, port, id, first, last })
    };
    all.into_iter().enumerate().filter_map(node).collect()
}

fn slots(out: &mut Vec<u8>, nodes: &[Node]) {
    wire::array(out, nodes.len());
    for node in nodes {
        wire::array(out, 3);
        wire::integer(out, node.first);
        wire::integer(out, node.last);
        wire::array(out, 4);
        wire::bulk(out, node.host.as_bytes());
        wire::integer(out, node.port);
        wire::bulk(out, node.id.as_bytes());
        wire::array(out, 0);
    }
}

fn line(node: &Node, local: &str) -> String {
    let Node { host, port, id, first, last } = node;
    let myself = if is_own(node, local) { "myself," } else { "" };
    format!(
        "{id} {host}:{port}@{} {myself}master - 0 0 1 connected {first}-{last}\n",
        u32::from(*port) + 10_000
    )
}

fn is_own(node: &Node, local: &str) -> bool {
    let Node { host, port, .. } = node;
    format!("{host}:{port}") == local || format!("[{host}]:{port}") == local
}
