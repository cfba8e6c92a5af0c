//! Big requests and replies: counted by command, and one a second told in the log. Nothing is done
//! about them: the limits are elsewhere.

use super::super::{
    args::Args, dispatch::Scene, entry::Entry, hub::Hub, keys, reply, table::Command,
    upstream::Upstream,
};

/// Notes a request of at least 64 KiB, if its cluster calls it big.
pub(in super::super) fn request(scene: &Scene<'_>, command: &Command, args: Args<'_>) {
    let (hub, cluster) = (scene.hub, scene.cluster.id);
    if args.frame.len() < hub.insight.options(cluster).big {
        return;
    }
    if let Some(counter) = hub.metrics.big_requests.get(usize::from(command.index)) {
        counter.add(1);
    }
    let keys = keys::keys(command, args).unwrap_or_default();
    let key = keys.first().and_then(|at| args.get(at)).unwrap_or_default();
    let name = &*scene.cluster.name;
    tell(hub, (cluster, name), "request", (command.name, key), args.frame.len() as u64);
}

/// Notes a request that was passed on while it came; its key has gone.
pub(in super::super) fn upload(scene: &Scene<'_>, command: u16, bytes: u64) {
    let (hub, cluster) = (scene.hub, scene.cluster.id);
    if bytes < u64::try_from(hub.insight.options(cluster).big).unwrap_or(u64::MAX) {
        return;
    }
    if let Some(counter) = hub.metrics.big_requests.get(usize::from(command)) {
        counter.add(1);
    }
    let told = (hub.command_name(cluster, command), &b""[..]);
    tell(hub, (cluster, &scene.cluster.name), "request", told, bytes);
}

/// Notes a reply that its cluster calls big. `key` is empty when it is not known.
pub(super) fn reply(hub: &Hub, upstream: &Upstream, entry: &Entry, key: &[u8], bytes: u64) {
    if let Some(counter) = hub.metrics.big_replies.get(usize::from(entry.command)) {
        counter.add(1);
    }
    let name = hub.command_name(upstream.cluster, entry.command);
    tell(hub, (upstream.cluster, &upstream.backend.cluster), "reply", (name, key), bytes);
}

fn tell(
    hub: &Hub,
    (cluster, name): (usize, &str),
    what: &str,
    (command, key): (&str, &[u8]),
    bytes: u64,
) {
    if !hub.may_tell_of_big() {
        return;
    }
    let redact = hub.insight.options(cluster).redact;
    let key = if redact { "(redacted)".to_owned() } else { reply::printable(key) };
    tracing::info!(
        cluster = name,
        command,
        key,
        bytes,
        "a big {what} (one a second is told, the metric counts all)"
    );
}
