//! What the process uses of the machine, from `/proc/self`. What cannot be read is
//! left out. Not what the workers count.

use std::fs;

/// As the kernel says at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_fds: Option<u64>,
    pub(super) max_fds: Option<u64>,
}

/// Reads it now; a few file reads of the kernel's own memory.
pub(super) fn read() -> Usage {
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    Usage {
        cpu_seconds: fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_seconds),
        resident_bytes: fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident),
        // One of them is the folder that is read here.
        open_fds: fs::read_dir("/proc/self/fd")
            .ok()
            .and_then(|folder| u64::try_from(folder.count().saturating_sub(1)).ok()),
        max_fds: limits.current,
    }
}

/// utime and stime, fields 14 and 15 of proc(5), counted after the name in parentheses.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// USER_HZ, which Linux shows to programs as 100 on every architecture that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_process_names_do_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 5 1 1";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds(""), None);
        assert_eq!(resident("Name: x\nVmRSS:\t    12 kB\n"), Some(12 * 1024));
    }

    #[test]
    fn this_process_uses_something() {
        let usage = read();
        assert!(usage.resident_bytes > Some(1 << 20) && usage.open_fds > Some(2), "{usage:?}");
    }
}
