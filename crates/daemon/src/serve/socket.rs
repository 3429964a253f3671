//! The socket's file: made where there is none or a dead daemon's, left alone where another one
//! answers, and removed at the end if it still is ours.

use std::fs;
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

/// Who may talk to the daemon: its user and group.
const MODE: u32 = 0o660;

/// A directory made by us is open to all: the socket itself says who may use it.
const DIR_MODE: u32 = 0o755;

/// Connections that wait to be accepted; together with those open enough for any household.
const BACKLOG: i32 = 64;

/// How often a folder that is locked is tried again, and how soon: another daemon is done within a
/// few milliseconds.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// There is a daemon already.
    #[error(
        "another anywand answers on {0}\n\nhint: stop it first, or give this one another --socket"
    )]
    Taken(PathBuf),
    /// There is something else at the path.
    #[error("{0} is in the way: it is not a socket\n\nhint: remove it, or give another --socket")]
    InTheWay(PathBuf),
    /// The system says no.
    #[error("listen on {path}")]
    Listen {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The file of a socket of ours.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode: whatever has the name later may be somebody else's.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // If it cannot be removed, the next daemon finds it dead and replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Listens on `path`, in a directory that is made if there is none.
pub(super) fn listen(path: &Path) -> Result<(UnixListener, SocketFile), ServeError> {
    let failed = |source| ServeError::Listen { path: path.to_owned(), source };
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(directory).map_err(failed)?;
    // Two daemons starting at once would both find the same dead socket and both replace it.
    let guard = fs::File::open(directory).map_err(failed)?;
    lock(&guard).map_err(|error| failed(error.into()))?;
    make_room(path)?;
    bind(path).map_err(failed)
}

/// Locks a folder, if nobody keeps it: everybody may lock it, and nobody is to keep us from starting.
fn lock(folder: &fs::File) -> Result<(), Errno> {
    for _ in 0..LOCK_TRIES {
        match flock(folder, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
            other => return other,
        }
    }
    Ok(())
}

/// Removes what a dead daemon has left.
fn make_room(path: &Path) -> Result<(), ServeError> {
    let failed = |source| ServeError::Listen { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
        Ok(file) if !file.file_type().is_socket() => Err(ServeError::InTheWay(path.to_owned())),
        Ok(_) if is_dead(path).map_err(failed)? => fs::remove_file(path).map_err(failed),
        Ok(_) => Err(ServeError::Taken(path.to_owned())),
    }
}

fn is_dead(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(false),
        // Its queue is full: it is alive, if not well.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(true),
        Err(error) => Err(error),
    }
}

fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile { path: path.to_owned(), identity: identity(path)? };
    // Before it listens, so that nobody gets in while the mode is another.
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)?;
    Ok((socket.into(), file))
}
