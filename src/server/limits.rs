//! The process's own limits: descriptors, clients, memory. Not a client's limits.

use crate::{
    config::{Config, Protocol},
    net::relay::MOST_PIPES,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::{Path, PathBuf};

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
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let limit = memory_files(&own)
            .filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok())
            .filter(|limit| *limit < NO_LIMIT)
            .min()?;
        tracing::info!(bytes = limit / 4 * 3, "limits.memory from the control group");
        Some(limit / 4 * 3)
    })
}

/// The files that may limit the process's memory, by the text of /proc/self/cgroup: those of its
/// own group and of every group around it (cgroups(7)), in version 2 and in version 1.
fn memory_files(own: &str) -> impl Iterator<Item = PathBuf> {
    let group = |wanted: &str| {
        let found = own.lines().find_map(|line| {
            let (controllers, group) = line.split_once(':')?.1.split_once(":/")?;
            controllers.split(',').any(|one| one == wanted).then_some(group)
        });
        found.unwrap_or_default()
    };
    around("/sys/fs/cgroup", group(""), "memory.max").chain(around(
        "/sys/fs/cgroup/memory",
        group("memory"),
        "memory.limit_in_bytes",
    ))
}

/// The file of a group and of each group around it, up to the hierarchy's root.
fn around(root: &str, group: &str, file: &str) -> impl Iterator<Item = PathBuf> {
    let root = Path::new(root);
    let own = root.join(group);
    let folders = own.ancestors().take_while(|folder| folder.starts_with(root));
    folders.map(|folder| folder.join(file)).collect::<Vec<_>>().into_iter()
}

/// Standard streams, event loops, admin connections, the log and a reserve.
const OWN_FILES: usize = 48;
/// A probe's connection, and one more while a backend is suspect.
const PROBES: usize = 2;
/// When the kernel knows no limit.
const MANY: usize = 1 << 20;
/// What version 1 control groups say when they have no limit is near 2^63.
const NO_LIMIT: u64 = 1 << 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_around_the_process_may_limit_it() {
        let files = |own| memory_files(own).map(|f| f.display().to_string()).collect::<Vec<_>>();
        let old = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
        assert_eq!(files(""), ["/sys/fs/cgroup/memory.max", old]);
        assert_eq!(
            files("1:cpu:/x\n0::/system.slice/sluice.service\n"),
            [
                "/sys/fs/cgroup/system.slice/sluice.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
                old
            ]
        );
        assert_eq!(
            files("4:cpu,memory:/pods/one\n0::/\n"),
            [
                "/sys/fs/cgroup/memory.max",
                "/sys/fs/cgroup/memory/pods/one/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/pods/memory.limit_in_bytes",
                old
            ]
        );
    }
}
