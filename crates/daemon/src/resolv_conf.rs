//! The file that tells this machine's programs whom to ask for names: reads whose it is, replaces it,
//! and puts back what was there. In: [`Step`]s. Out: [`Found`]. It decides nothing.
//!
//! What was there is kept in the state directory, as it was: `resolv.conf.before` is the file with its
//! mode, or the link, and `resolv.conf.json` says where it belongs. It is written to disk before the
//! file is touched, because it has to outlive a kill and a reboot. Nothing is taken that could not be
//! given back.
//!
//! Replaced is by renaming, so nobody ever reads half a file. A file that is mounted by itself, as in
//! many containers, cannot be renamed over: that one is written in place.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anywan_core::observed::{ResolvConf as Found, ResolvFile, Writer};
use anywan_core::steps::Step;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where C libraries look.
const FILE: &str = "/etc/resolv.conf";
/// A file larger than this is none of the kind.
const BYTES_MAX: u64 = 64 * 1024;
/// Programs of all users read it.
const MODE: u32 = 0o644;
/// In the state directory: what was there, and where.
const BEFORE: &str = "resolv.conf.before";
const NOTE: &str = "resolv.conf.json";
/// What stands ready to be linked to where nothing was kept.
const MANAGERS: [&str; 3] = [
    "/run/systemd/resolve/stub-resolv.conf",
    "/run/resolvconf/resolv.conf",
    "/run/NetworkManager/resolv.conf",
];

/// Why the file could not be replaced.
#[derive(Debug, Error)]
pub enum ResolvConfError {
    /// What was there could not be kept, so it was left alone.
    #[error("{path} is left as it is, because it could not be kept for later")]
    NotKept {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It could not be written.
    #[error("{path} could not be replaced")]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What is noted of the time before us.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Note {
    path: PathBuf,
    writer: Writer,
    /// There was no file.
    absent: bool,
}

/// The file of one machine.
#[derive(Debug)]
pub struct ResolvConf {
    /// `None`: it is none of our business.
    path: Option<PathBuf>,
    state: PathBuf,
    note: Option<Note>,
}

impl ResolvConf {
    /// The file that was named, else this machine's, if the network namespace is the machine's too: one
    /// that is made for something else shares the file with everybody.
    pub fn open(named: Option<&Path>, state: &Path) -> ResolvConf {
        let path = match named {
            Some(path) => Some(path.to_owned()),
            None => in_first_namespace().then(|| PathBuf::from(FILE)),
        };
        let note = noted(state).filter(|note| Some(&note.path) == path.as_ref());
        ResolvConf { path, state: state.to_owned(), note }
    }

    /// The file that was named, else the one that an earlier daemon has taken.
    pub fn left(named: Option<&Path>, state: &Path) -> ResolvConf {
        let taken = noted(state).map(|note| note.path);
        ResolvConf::open(named.or(taken.as_deref()), state)
    }

    /// Whose it is.
    pub fn read(&self) -> Found {
        let before = self.note.as_ref().map(|note| note.writer);
        let file = self.path.as_deref().map_or(ResolvFile::Untouchable, look);
        Found { file, before }
    }

    /// Carries out one step; others than those about the file are none of its business.
    ///
    /// # Errors
    /// When what was there cannot be kept, or the file cannot be written.
    pub fn apply(&mut self, step: &Step) -> Result<(), ResolvConfError> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        let refused = |source| ResolvConfError::Refused { path: path.clone(), source };
        if let Step::TakeResolvConf { text } = step {
            if let ResolvFile::Others(writer) = look(&path) {
                let kept = self.keep(&path, writer);
                kept.map_err(|source| ResolvConfError::NotKept { path: path.clone(), source })?;
            }
            put(&path, text.as_bytes(), MODE).map_err(refused)?;
            tracing::info!(path = %path.display(), "names ours as this machine's DNS");
        } else if *step == Step::GiveBackResolvConf {
            if let ResolvFile::Ours(_) = look(&path) {
                self.give_back(&path).map_err(refused)?;
                tracing::info!(path = %path.display(), "is what it was before");
            }
            self.note = None;
            // What is left of it tells of a file that is not ours any more.
            let _ = fs::remove_file(self.state.join(NOTE));
            let _ = fs::remove_file(self.state.join(BEFORE));
        }
        Ok(())
    }

    fn keep(&mut self, path: &Path, writer: Writer) -> io::Result<()> {
        let copy = self.state.join(BEFORE);
        let beside = with_suffix(&copy, ".new");
        let absent = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(error),
            Ok(is) if is.is_symlink() => {
                discard(&beside)?;
                symlink(fs::read_link(path)?, &beside)?;
                fs::rename(&beside, &copy)?;
                false
            }
            Ok(is) if is.is_file() && is.len() <= BYTES_MAX => {
                write_new(&beside, &fs::read(path)?, is.mode())?;
                fs::rename(&beside, &copy)?;
                false
            }
            Ok(_) => return Err(io::Error::other("it is no file of that kind")),
        };
        let note = Note { path: path.to_owned(), writer, absent };
        let (file, text) = (self.state.join(NOTE), serde_json::to_vec_pretty(&note)?);
        let beside = with_suffix(&file, ".new");
        write_new(&beside, &text, 0o600)?;
        fs::rename(&beside, &file)?;
        File::open(&self.state)?.sync_all()?;
        self.note = Some(note);
        Ok(())
    }

    fn give_back(&self, path: &Path) -> io::Result<()> {
        let copy = self.state.join(BEFORE);
        match &self.note {
            Some(note) if note.absent => remove(path),
            Some(_) => match fs::symlink_metadata(&copy) {
                Ok(is) if is.is_symlink() => link(path, &fs::read_link(&copy)?),
                Ok(is) => put(path, &fs::read(&copy)?, is.mode()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => guess(path),
                Err(error) => Err(error),
            },
            None => guess(path),
        }
    }
}

/// What stands in for a file of which nothing was kept: some manager's, else an empty one, which
/// nobody takes for ours.
fn guess(path: &Path) -> io::Result<()> {
    match MANAGERS.iter().map(Path::new).find(|file| file.exists()) {
        Some(file) => link(path, file),
        None => put(path, b"# What was here before anywan was not kept.\n", MODE),
    }
}

fn look(path: &Path) -> ResolvFile {
    let target = fs::read_link(path).ok();
    let target = target.as_ref().map(|target| target.to_string_lossy());
    let mut text = Vec::new();
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let read = opened.and_then(|file| file.take(BYTES_MAX).read_to_end(&mut text));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound && target.is_none() => {
            ResolvFile::Others(Writer::Nobody)
        }
        // A link that leads nowhere, and what cannot be read, is still somebody's.
        Ok(_) | Err(_) => ResolvFile::of(target.as_deref(), &String::from_utf8_lossy(&text)),
    }
}

/// Has `path` be a file with this text.
fn put(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let beside = with_suffix(path, ".anywan");
    let renamed = write_new(&beside, text, mode).and_then(|()| fs::rename(&beside, path));
    let Err(error) = renamed else { return Ok(()) };
    let _ = fs::remove_file(&beside);
    // Where there is no room for a new file, there is none in the old one once it was emptied.
    let no_other_way = [
        ErrorKind::ResourceBusy,
        ErrorKind::ReadOnlyFilesystem,
        ErrorKind::PermissionDenied,
        ErrorKind::CrossesDevices,
    ];
    if !no_other_way.contains(&error.kind()) {
        return Err(error);
    }
    // Mounted by itself, or the only thing in its folder that may be written. Not through a link: that
    // would write somebody else's file.
    let mut options = File::options();
    let file = options.write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let Ok(mut file) = file else { return Err(error) };
    file.write_all(text)?;
    file.set_len(text.len() as u64)?;
    // Where only the owner may, the mode stays.
    let _ = file.set_permissions(Permissions::from_mode(mode & 0o7777));
    file.sync_all()
}

/// Has `path` be a link.
fn link(path: &Path, target: &Path) -> io::Result<()> {
    let beside = with_suffix(path, ".anywan");
    discard(&beside)?;
    symlink(target, &beside)?;
    fs::rename(&beside, path).inspect_err(|_| drop(fs::remove_file(&beside)))
}

/// Has nothing be there; where that cannot be, nothing in it.
fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path).or_else(|_| put(path, b"", MODE))
}

/// A new file with this text, on disk.
fn write_new(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    discard(path)?;
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.set_permissions(Permissions::from_mode(mode & 0o7777))?;
    file.sync_all()
}

fn discard(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn noted(state: &Path) -> Option<Note> {
    let path = state.join(NOTE);
    let fits = fs::metadata(&path).is_ok_and(|m| m.len() <= BYTES_MAX);
    let text = if fits { fs::read(&path).ok()? } else { return None };
    let note = serde_json::from_slice(&text);
    note.inspect_err(|error| {
        tracing::warn!(path = %path.display(), %error, "what was noted is not readable");
    })
    .ok()
}

/// Whether this thread's network namespace is that of process 1, to whose machine the file belongs.
/// Every namespace has files of its own here, and comparing them needs no privilege, unlike comparing
/// the namespaces themselves.
fn in_first_namespace() -> bool {
    let number = |path: &str| fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    let (first, own) = (number("/proc/1/net/dev"), number("/proc/thread-self/net/dev"));
    first.is_some() && first == own
}

#[cfg(test)]
mod tests;
