//! A control group that limits memory (cgroups(7), version 1 or 2), made for one test and removed
//! with it. It needs root, or a group that is delegated to the user.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
};

/// A hierarchy's folder, the controller's name in /proc/self/cgroup, and the files that limit
/// memory and swap, and that count what was killed.
const VERSIONS: [(&str, &str, &str, &str, &str); 2] = [
    (
        "/sys/fs/cgroup/memory",
        "memory",
        "memory.limit_in_bytes",
        "memory.memsw.limit_in_bytes",
        "memory.oom_control",
    ),
    ("/sys/fs/cgroup", "", "memory.max", "memory.swap.max", "memory.events"),
];

#[derive(Debug)]
pub(crate) struct Cgroup {
    folder: PathBuf,
    events: &'static str,
}

impl Cgroup {
    /// Inside of this process's own group, else of one around it; `Err` says why there can be none.
    pub(crate) fn of_memory(limit: u64) -> Result<Self, String> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("sluice-test-{}-{number}", std::process::id());
        let mut refused = Vec::new();
        for (root, controller, memory, swap, events) in VERSIONS {
            for around in groups(&own, root, controller) {
                let group = Self { folder: around.join(&name), events };
                match group.make(memory, swap, limit) {
                    Ok(()) => return Ok(group),
                    Err(error) => refused.push(format!("{}: {error}", group.folder.display())),
                }
            }
        }
        Err(refused.join("; "))
    }

    /// A limit file that is not there is not created: such files come from the kernel.
    fn make(&self, memory: &str, swap: &str, limit: u64) -> io::Result<()> {
        fs::create_dir(&self.folder)?;
        let write = |file: &str, value: u64| {
            let mut options = fs::OpenOptions::new();
            let mut file = options.write(true).open(self.folder.join(file))?;
            io::Write::write_all(&mut file, value.to_string().as_bytes())
        };
        write(memory, limit)?;
        // Without swap there is no such file; version 1 counts memory and swap together.
        let _ = write(swap, if swap.contains("memsw") { limit } else { 0 });
        let entered = enter(&self.members()).arg("true").stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&entered.stderr).into_owned();
        if entered.status.success() { Ok(()) } else { Err(io::Error::other(said)) }
    }

    /// The file that takes the ids of its processes.
    pub(crate) fn members(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    /// How many of its processes the kernel killed because they used too much.
    #[track_caller]
    pub(crate) fn killed(&self) -> u64 {
        let events = fs::read_to_string(self.folder.join(self.events)).unwrap();
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.unwrap_or_else(|| panic!("oom_kill is not in {events}")).parse().unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

/// What runs the program that is its next argument in the group with this file of members.
pub(crate) fn enter(members: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "echo $$ >\"$0\" && exec \"$@\""]).arg(members);
    command
}

/// The folders of this process's group and of those around it, the nearest first.
fn groups(own: &str, root: &str, controller: &str) -> Vec<PathBuf> {
    let group = own.lines().find_map(|line| {
        let (controllers, group) = line.split_once(':')?.1.split_once(":/")?;
        controllers.split(',').any(|one| one == controller).then_some(group)
    });
    let Some(group) = group else { return Vec::new() };
    let own = Path::new(root).join(group);
    own.ancestors().take_while(|folder| folder.starts_with(root)).map(Path::to_owned).collect()
}
