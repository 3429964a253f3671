//! The state directory: who may use it, and what is kept in it between runs: WANs and their
//! numbers, those that retire or are drained, PINs that were refused (their fingerprints; only root
//! may read them). Where it is full anywan still routes; it only forgets between runs, and says so.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anywan_core::engine::KeptLease;
use anywan_core::facts::Kept;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::clock::Clock;

/// A file larger than this is not ours: a WAN with many targets takes some KiB, and there are 62, with
/// those that retire.
const KEPT_BYTES_MAX: u64 = 1024 * 1024;

/// Why the state directory cannot be used.
#[derive(Debug, Error)]
pub enum StateError {
    /// Another daemon holds it.
    #[error("another anywand uses the state directory {0}")]
    Taken(PathBuf),
    /// It cannot be made or written to.
    #[error("the state directory {path} cannot be used")]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// What the last run has left in a state directory, which a daemon may be using; nothing when there
/// was none or the file makes no sense.
pub fn read(directory: &Path) -> Kept {
    let path = directory.join("wans.json");
    let fits = fs::metadata(&path).is_ok_and(|m| m.len() <= KEPT_BYTES_MAX);
    let text = if fits { fs::read(&path).unwrap_or_default() } else { Vec::new() };
    match serde_json::from_slice(&text) {
        Ok(kept) => kept,
        Err(error) => {
            if path.exists() {
                tracing::warn!(path = %path.display(), %error, "what was kept is not readable");
            }
            Kept::default()
        }
    }
}

/// A lease as it is kept: with the wall clock's time, as nothing else outlives a run.
#[derive(Debug, Serialize, Deserialize)]
struct StoredLease {
    #[serde(flatten)]
    kept: KeptLease,
    /// When it is over, in seconds since 1970; `None`: never.
    ends: Option<u64>,
}

/// The state directory, locked for as long as this lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Makes the directory if it is missing, and locks it.
    ///
    /// # Errors
    /// When another daemon holds it, or it cannot be used at all.
    pub fn open(path: &Path) -> Result<StateDir, StateError> {
        let unusable = |source| StateError::Unusable { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(unusable)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            // Who may not open it cannot lock it.
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(unusable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(StateDir { path: path.to_owned(), _lock: lock }),
            Err(Errno::WOULDBLOCK) => Err(StateError::Taken(path.to_owned())),
            Err(errno) => Err(unusable(errno.into())),
        }
    }

    /// What the last run left; nothing when there was none or the file makes no sense.
    pub fn kept(&self) -> Kept {
        read(&self.path)
    }

    /// Keeps something for the next run.
    ///
    /// # Errors
    /// When they cannot be written; the old ones are then still there.
    pub fn keep(&self, kept: &Kept) -> io::Result<()> {
        if self.kept() == *kept {
            return Ok(());
        }
        self.write_beside("wans.json", &serde_json::to_vec_pretty(kept)?)?.sync_all()?;
        self.put_in_place("wans.json")?;
        File::open(&self.path)?.sync_all()
    }

    /// The leases that the last run had, as far as they are not over.
    pub fn leases(&self, clock: &Clock) -> BTreeMap<String, KeptLease> {
        let path = self.path.join("leases.json");
        let fits = fs::metadata(&path).is_ok_and(|m| m.len() <= KEPT_BYTES_MAX);
        let text = if fits { fs::read(&path).unwrap_or_default() } else { Vec::new() };
        let stored: BTreeMap<String, StoredLease> =
            serde_json::from_slice(&text).unwrap_or_default();
        let now = clock.unix();
        let alive = stored.into_iter().filter(|(_, s)| s.ends.is_none_or(|ends| ends > now));
        alive
            .map(|(name, StoredLease { mut kept, ends })| {
                let left = ends.map(|ends| Duration::from_secs(ends.saturating_sub(now)));
                kept.lease.until = left.map(|left| clock.now() + left);
                (name, kept)
            })
            .collect()
    }

    /// Keeps leases for the next run.
    ///
    /// # Errors
    /// When they cannot be written; the old ones are then still there.
    pub fn keep_leases(
        &self,
        leases: &BTreeMap<String, KeptLease>,
        clock: &Clock,
    ) -> io::Result<()> {
        let stored: BTreeMap<&String, StoredLease> = leases
            .iter()
            .map(|(name, kept)| {
                let ends =
                    kept.lease.until.map(|until| clock.unix() + clock.until(until).as_secs());
                (name, StoredLease { kept: kept.clone(), ends })
            })
            .collect();
        // Not on disk at once, which may take seconds: a server gives what it gave before.
        self.write_beside("leases.json", &serde_json::to_vec_pretty(&stored)?)?;
        self.put_in_place("leases.json")
    }

    fn put_in_place(&self, name: &str) -> io::Result<()> {
        fs::rename(self.path.join(format!("{name}.new")), self.path.join(name))
    }

    /// Writes what is to take the place of a file.
    fn write_beside(&self, name: &str, text: &[u8]) -> io::Result<File> {
        let new = self.path.join(format!("{name}.new"));
        // Also what would let a PIN be guessed.
        let mut options = File::options();
        let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(text)?;
        Ok(file)
    }
}
