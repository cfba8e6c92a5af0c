//! A child process that does not outlive its guard. Not what it does.

use super::DemoError;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    ffi::OsStr,
    fs::File,
    io::{self, ErrorKind},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// A running child; killed and reaped when dropped.
#[derive(Debug)]
pub(super) struct Process(Child);

impl Process {
    /// Starts `program` in `folder`, which its output goes to as `log`.
    ///
    /// # Errors
    /// When it cannot be started; of a server, where to get it.
    pub(super) fn start<A: AsRef<OsStr>>(
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        folder: &Path,
        log: &str,
    ) -> Result<Self, DemoError> {
        let what = || format!("start {}", program.display());
        let log = folder.join(log);
        let out = File::options().create(true).append(true).open(&log);
        let out = out.map_err(|error| DemoError::io(format!("create {}", log.display()), error))?;
        let errors = out.try_clone().map_err(|error| DemoError::io(what(), error))?;
        Command::new(program)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(errors)
            // Ctrl-C goes to the whole group of a terminal: the servers would end before the load.
            .process_group(0)
            .spawn()
            .map(Self)
            .map_err(|error| match error.kind() {
                ErrorKind::NotFound => DemoError::told(format!(
                    "{0} is not installed: apt-get install {0}, or run ./deploy/demo.sh, which does \
                     that",
                    program.display()
                )),
                _ => DemoError::io(what(), error),
            })
    }

    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it still runs.
    pub(super) fn runs(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// SIGKILL, and waits for it to be gone.
    pub(super) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// SIGTERM, and waits for it to be gone for at most `patience`.
    pub(super) fn end(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        if kill_process(Pid::from_child(&self.0), Signal::TERM).is_ok() {
            while self.runs() && Instant::now() < deadline {
                sleep(POLL);
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of a log, for an error that says why a child ended.
pub(super) fn last_lines(log: &Path) -> io::Result<String> {
    let text = std::fs::read_to_string(log)?;
    let lines: Vec<&str> = text.lines().rev().take(LAST_LINES).collect();
    Ok(lines.into_iter().rev().map(|line| format!("\n  {line}")).collect())
}

const POLL: Duration = Duration::from_millis(5);
const LAST_LINES: usize = 5;
