//! The demo's temporary folder, removed with all that is in it when dropped. Not what is in it.

use super::DemoError;
use std::{
    fs::{self, DirBuilder},
    hash::{BuildHasher, RandomState},
    io::ErrorKind,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// A folder that only its owner may enter.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Creates one that was not there before.
    ///
    /// # Errors
    /// When the system's temporary folder (`TMPDIR`) cannot be written.
    pub(super) fn create() -> Result<Self, DemoError> {
        for attempt in 0..ATTEMPTS {
            let random = RandomState::new().hash_one(attempt);
            let path = std::env::temp_dir().join(format!("sluice-demo-{random:016x}"));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(DemoError::io(format!("create {}", path.display()), error));
                }
            }
        }
        Err(DemoError::told("no free name for a temporary folder"))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const ATTEMPTS: u32 = 10;
