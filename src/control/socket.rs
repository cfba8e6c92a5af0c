//! The admin address's unix sockets: made for their owner alone, and taken away again when they are
//! still ours. Not what is said on them.

use crate::net::addr::Bind;
use socket2::{Domain, SockAddr, Socket as Raw, Type};
use std::{
    env, fs, io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

/// A listening socket whose file goes when it is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: Option<UnixListener>,
    path: PathBuf,
    /// Device and inode of the file that we made.
    file: (u64, u64),
}

impl Socket {
    /// Listens at `path`, which nobody but our user may open. The file of a dead process is
    /// replaced.
    ///
    /// # Errors
    /// When somebody listens there, when something else lies there, or when the kernel says so.
    pub fn bind(path: &Path) -> io::Result<Self> {
        remove_dead(path)?;
        let raw = Raw::new(Domain::UNIX, Type::STREAM, None)?;
        // Linux gives the file the mode of the socket, so there is no moment in which others may
        // open it.
        let file = fs::File::from(OwnedFd::from(raw));
        file.set_permissions(fs::Permissions::from_mode(OWNER_ONLY))?;
        let raw = Raw::from(OwnedFd::from(file));
        raw.bind(&SockAddr::unix(path)?)?;
        let made = fs::symlink_metadata(path)?;
        raw.listen(BACKLOG)?;
        raw.set_nonblocking(true)?;
        let listener = Some(OwnedFd::from(raw).into());
        Ok(Self { listener, path: path.to_owned(), file: (made.dev(), made.ino()) })
    }

    /// One in a folder for such things, named after the admin address, which no other process can
    /// have; `None` when there is no such folder, or it is not ours.
    pub fn by_default(bind: &Bind) -> Option<Self> {
        default_paths(bind).into_iter().find_map(|path| match Self::bind(&path) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::debug!("admin: no socket at {}: {error}", path.display());
                None
            }
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The listener, for an event loop; once.
    pub(super) fn take(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Somebody may have put another one in its place.
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.file);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Where the socket of a process with this admin address may lie when the configuration does not
/// say it. The command line looks there too.
pub fn default_paths(bind: &Bind) -> Vec<PathBuf> {
    let Bind::Tcp(address) = bind else { return Vec::new() };
    let name = format!("sluice-{}-{}.sock", address.ip(), address.port());
    let own = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    [Some(PathBuf::from(SYSTEM_FOLDER)), own]
        .into_iter()
        .flatten()
        .filter(|folder| folder.is_dir())
        .map(|folder| folder.join(&name))
        .collect()
}

fn remove_dead(path: &Path) -> io::Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        let what = "something that is no socket lies there; choose another path";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
    }
    match UnixStream::connect(path) {
        // The kernel's word that nobody has it open (connect(2)); any other error proves nothing.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(_) => {
            let what = "a process listens there; is Sluice running already?";
            Err(io::Error::new(io::ErrorKind::AddrInUse, what))
        }
        Err(error) => Err(error),
    }
}

/// systemd's `RuntimeDirectory=sluice`.
const SYSTEM_FOLDER: &str = "/run/sluice";
const OWNER_ONLY: u32 = 0o600;
/// People and scripts.
const BACKLOG: i32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_for_its_owner_and_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let socket = Socket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(Socket::bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_socket_is_replaced_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let ours = Socket::bind(&path).unwrap();
        // Somebody else takes the place: our end leaves theirs alone.
        fs::remove_file(&path).unwrap();
        let _theirs = UnixListener::bind(&path).unwrap();
        drop(ours);
        assert!(path.exists());
        let file = folder.path().join("f");
        fs::write(&file, "precious").unwrap();
        assert_eq!(Socket::bind(&file).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }
}
