//! `limits:` of a listener and of a cluster, as YAML again. Not those of the whole process.

use super::{Entries, keys};
use crate::{
    config::units::RateText,
    policy::limit::Allowance,
    topology::{
        admission::BackendLimits,
        door::{DoorLimits, PerClient},
    },
};
use std::fmt::Display;

pub(super) fn listener(limits: &DoorLimits, defaults: bool) -> Entries {
    let PerClient { connections, rate, requests, prefix } = &limits.per_client;
    let set = connections.is_some() || rate.is_some() || requests.is_some();
    let mut client = Entries::new(&keys::PER_CLIENT, defaults);
    number(&mut client, "connections", *connections);
    allowance(&mut client, "rate", "burst", *rate);
    allowance(&mut client, "requests", "requests_burst", *requests);
    if set || defaults {
        client.text("v4", prefix.v4).text("v6", prefix.v6);
    }
    let mut entries = Entries::new(&keys::LISTENER_LIMITS, defaults);
    number(&mut entries, "max_connections", limits.max_connections);
    match set {
        true => entries.map("per_client", client),
        false => entries.map("per_client", unset(defaults)),
    };
    entries
}

/// Of a cluster whose requests share connections: they do not wait.
pub(super) fn shared(limits: &BackendLimits, defaults: bool) -> Entries {
    let mut entries = Entries::new(&keys::CLUSTER_LIMITS, defaults);
    number(&mut entries, "max_connections", limits.max_connections);
    number(&mut entries, "max_in_flight", limits.max_in_flight);
    entries
}

/// Of a cluster whose requests wait for room.
pub(super) fn cluster(limits: &BackendLimits, defaults: bool) -> Entries {
    let mut entries = shared(limits, defaults);
    if limits.max_in_flight.is_some() || limits.max_connections.is_some() {
        entries.text("queue", limits.queue);
    } else {
        entries.optional("queue", None);
    }
    entries
}

/// No `per_client`: its keys as comments.
fn unset(defaults: bool) -> Entries {
    let mut entries = Entries::new(&keys::PER_CLIENT, defaults);
    for key in keys::PER_CLIENT.now() {
        entries.optional(key.name, None);
    }
    entries
}

fn number(entries: &mut Entries, name: &str, value: Option<impl Display>) {
    entries.optional(name, value.map(|value| value.to_string()).as_deref());
}

fn allowance(entries: &mut Entries, rate: &str, burst: &str, allowed: Option<Allowance>) {
    let text = allowed.map(|allowed| RateText(allowed.rate).to_string());
    entries.optional(rate, text.as_deref());
    let own = allowed.filter(|allowed| entries.defaults || allowed.burst != allowed.rate.count);
    number(entries, burst, own.map(|allowed| allowed.burst));
}
