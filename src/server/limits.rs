//! The process's own limits: descriptors, clients, memory. Not a client's limits.

use crate::{
    config::{Config, Protocol},
    net::relay::MOST_PIPES,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft descriptor limit to the hard one and returns it.
pub(super) fn raise_descriptors() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!("descriptor limit stays at {current:?}: {error}");
            current
        }
    };
    let limit = limit.and_then(|n| usize::try_from(n).ok()).unwrap_or(MANY);
    tracing::info!(limit, "descriptor limit");
    limit
}

/// How many clients at once: what is configured, else what the descriptors leave when every
/// connection to a backend, every probe and the process's own files are taken off.
pub(super) fn clients(config: &Config, descriptors: usize, workers: usize) -> usize {
    let own = OWN_FILES + config.backends() * (workers + PROBES) + config.listeners.len();
    let relays = config.listeners.iter().any(|listener| listener.protocol == Protocol::Tcp);
    // A relayed client has a connection to its backend beside its own; pipes have two ends.
    let (each, pipes) = if relays { (2, 2 * MOST_PIPES * workers) } else { (1, 0) };
    let room = (descriptors.saturating_sub(own + pipes) / each).max(1);
    match config.limits.max_connections {
        Some(wanted) if wanted > room => {
            tracing::warn!(
                "limits.max_connections is {wanted}, but the descriptor limit of {descriptors} \
                 leaves room for {room}; raise it (ulimit -n, LimitNOFILE=)"
            );
            wanted
        }
        Some(wanted) => wanted,
        None => room,
    }
}

/// How many bytes may be buffered: what is configured, else three quarters of what the control
/// group allows, else no limit.
pub(super) fn memory(config: &Config) -> Option<u64> {
    config.limits.memory.or_else(|| {
        let limit = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
            .iter()
            .find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok())
            .filter(|limit| *limit < NO_LIMIT)?;
        tracing::info!(bytes = limit / 4 * 3, "limits.memory from the control group");
        Some(limit / 4 * 3)
    })
}

/// Standard streams, event loops, admin connections, the log and a reserve.
const OWN_FILES: usize = 48;
/// A probe's connection, and one more while a backend is suspect.
const PROBES: usize = 2;
/// When the kernel knows no limit.
const MANY: usize = 1 << 20;
/// What version 1 control groups say when they have no limit is near 2^63.
const NO_LIMIT: u64 = 1 << 60;
