//! Where the access log's lines end: a file, which is opened again when it was moved away, or stdout.
//! Not when they come.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Stdout,
    File(PathBuf),
}

/// The place, open.
#[derive(Debug)]
pub(super) struct Sink {
    output: Output,
    /// When it was last said that lines are lost.
    complained: Option<Instant>,
}

#[derive(Debug)]
enum Output {
    Stdout(io::Stdout),
    File(Appended),
}

/// A file at its path.
#[derive(Debug)]
struct Appended {
    path: PathBuf,
    file: File,
    /// Its device and inode: another file at the path has others.
    id: (u64, u64),
    /// When the path was last looked at.
    looked: Instant,
}

impl Sink {
    pub(super) fn open(place: &Place) -> io::Result<Self> {
        let output = match place {
            Place::Stdout => Output::Stdout(io::stdout()),
            Place::File(path) => Output::File(Appended::open(path)?),
        };
        Ok(Self { output, complained: None })
    }

    /// Writes all of `text`.
    pub(super) fn write(&mut self, text: &[u8]) -> io::Result<()> {
        match &mut self.output {
            Output::Stdout(stdout) => {
                let mut stdout = stdout.lock();
                stdout.write_all(text)?;
                stdout.flush()
            }
            Output::File(appended) => {
                appended.follow();
                appended.file.write_all(text)
            }
        }
    }

    /// Says why lines are lost, at most once a minute.
    pub(super) fn complain(&mut self, error: &io::Error) {
        if self.complained.is_none_or(|at| at.elapsed() >= COMPLAIN_AGAIN) {
            self.complained = Some(Instant::now());
            tracing::warn!(
                "access log: {error}; lines are lost (told once a minute; \
                 sluice_access_log_dropped_total counts them)"
            );
        }
    }
}

impl Appended {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(MODE).open(path)?;
        let id = id(&file.metadata()?);
        Ok(Self { path: path.to_owned(), file, id, looked: Instant::now() })
    }

    /// Goes on in the file at the path when that is another one now, or none. A path at which none
    /// can be made is left, and the file that is open is written to.
    fn follow(&mut self) {
        if self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        if fs::metadata(&self.path).is_ok_and(|now| id(&now) == self.id) {
            return;
        }
        match Self::open(&self.path) {
            Ok(opened) => *self = opened,
            Err(error) => tracing::debug!("access log {}: {error}", self.path.display()),
        }
    }
}

#[cfg(test)]
impl Sink {
    /// The next write looks at the path.
    pub(super) fn look_now(&mut self) {
        if let Output::File(appended) = &mut self.output {
            appended.looked = Instant::now().checked_sub(LOOK).unwrap();
        }
    }
}

fn id(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Paths hold what clients asked for: the owner's and the group's business.
const MODE: u32 = 0o640;
/// How often the path is looked at, when there is something to write.
const LOOK: Duration = Duration::from_secs(1);
const COMPLAIN_AGAIN: Duration = Duration::from_secs(60);
