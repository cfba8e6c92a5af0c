//! When the files of a certificate are read again: after they have changed and then stayed as they
//! are, for a certificate and its key are written one after the other. Not the reading.

use super::files::{FileError, Stamp};

/// What is known of the files of one [`super::Server`] or [`super::Client`].
#[derive(Debug)]
pub struct Follower {
    /// As they were when they were read last.
    used: Stamp,
    /// As they were at the last look.
    seen: Stamp,
}

/// What a look at the files led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Nothing new, or not yet settled.
    None,
    /// What they hold is in use for new connections.
    Taken,
    /// What they hold cannot be used; what was in use stays. Told once.
    Refused(FileError),
}

impl Follower {
    pub(super) fn new(stamp: Stamp) -> Self {
        Self { used: stamp.clone(), seen: stamp }
    }

    /// Takes the files as they are `now`, and has `load` read them when it is time to.
    pub(super) fn look(
        &mut self,
        now: Stamp,
        load: impl FnOnce() -> Result<(), FileError>,
    ) -> Renewal {
        let settled = self.seen == now;
        self.seen = now;
        if !settled || self.used == self.seen {
            return Renewal::None;
        }
        self.used = self.seen.clone();
        load().map_or_else(Renewal::Refused, |()| Renewal::Taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};
    use tempfile::TempDir;

    #[test]
    fn files_are_read_once_when_they_have_settled() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("x");
        fs::write(&file, "1").unwrap();
        let stamp = || Stamp::of([file.as_path()]);
        let mut follower = Follower::new(stamp());
        assert_eq!(follower.look(stamp(), || panic!("nothing changed")), Renewal::None);
        fs::write(&file, "12").unwrap();
        assert_eq!(follower.look(stamp(), || panic!("not settled")), Renewal::None);
        fs::write(&file, "123").unwrap();
        assert_eq!(follower.look(stamp(), || panic!("not settled")), Renewal::None);
        assert_eq!(follower.look(stamp(), || Ok(())), Renewal::Taken);
        assert_eq!(follower.look(stamp(), || panic!("nothing changed")), Renewal::None);
        fs::remove_file(&file).unwrap();
        let error = FileError::new(Path::new("x"), "gone");
        assert_eq!(follower.look(stamp(), || panic!("not settled")), Renewal::None);
        let refused = follower.look(stamp(), || Err(error.clone()));
        assert_eq!(refused, Renewal::Refused(error));
        assert_eq!(follower.look(stamp(), || panic!("told already")), Renewal::None);
    }
}
