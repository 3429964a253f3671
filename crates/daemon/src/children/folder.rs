//! The folder of one program: the files that it reads, what it writes, and the record by which the
//! next daemon finds it. Secrets are readable by root alone; the rest by everybody, because programs
//! give up root and read their files again.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anywan_core::desired::{Program, Text};
use serde::{Deserialize, Serialize};

/// A log that has grown larger than this is begun anew.
const LOG_BYTES_MAX: u64 = 256 * 1024;
/// How much of the end of a log says why a program ended.
const WORDS: u64 = 400;
/// How many lines of it.
const LINES: usize = 3;
/// A record is larger than this only when it is none.
const RECORD_BYTES_MAX: u64 = 4096;
/// The kernel counts starts in these (`USER_HZ`, proc(5)).
const TICKS_A_SECOND: u64 = 100;

/// What runs, as the next daemon reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The number of its process.
    pub(super) pid: i32,
    /// When that started, in ticks since the machine did.
    pub(super) started: u64,
    /// See [`Running`](anywan_core::observed::Running).
    pub(super) program: u64,
    pub(super) reread: u64,
}

#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Folder {
        Folder { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder with all the files of a program, and an empty log, which is returned.
    pub(super) fn prepare(&self, program: &Program) -> io::Result<File> {
        fs::create_dir_all(&self.path)?;
        let above = self.path.parent().unwrap_or(&self.path);
        for folder in [above, &self.path] {
            fs::set_permissions(folder, Permissions::from_mode(0o755))?;
        }
        self.write(&program.files)?;
        self.write(&program.reread)?;
        let log = self.path.join("log");
        File::options().create(true).write(true).truncate(true).mode(0o640).open(&log)?;
        // Appended to, so that it can be cut while the program writes.
        File::options().append(true).open(log)
    }

    /// Writes files; one that is read meanwhile is the old or the new one, never a half.
    pub(super) fn write(&self, files: &BTreeMap<String, Text>) -> io::Result<()> {
        files.iter().try_for_each(|(name, text)| {
            let mode = if text.secret { 0o600 } else { 0o644 };
            self.replace(name, text.text.as_bytes(), mode)
        })
    }

    fn replace(&self, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        let (new, path) = (self.path.join(format!("{name}.new")), self.path.join(name));
        let _ = fs::remove_file(&new);
        let mut file = File::options().create_new(true).write(true).mode(mode).open(&new)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        fs::rename(new, path)
    }

    pub(super) fn record(&self, record: &Record) -> io::Result<()> {
        self.replace("child.json", &serde_json::to_vec(record)?, 0o644)
    }

    pub(super) fn recorded(&self) -> Option<Record> {
        let mut text = Vec::new();
        let file = File::open(self.path.join("child.json")).ok()?;
        file.take(RECORD_BYTES_MAX).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// There is nothing to find here any more; the log stays.
    pub(super) fn forget(&self) {
        let _ = fs::remove_file(self.path.join("child.json"));
    }

    /// Removes everything, and the folder above with the last of all.
    pub(super) fn remove(&self) {
        let _ = fs::remove_dir_all(&self.path);
        let _ = self.path.parent().map(fs::remove_dir);
    }

    /// The end of the log, of so many bytes at most.
    pub(super) fn log_end(&self, bytes: u64) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.path.join("log"))?;
        let start = file.metadata()?.len().saturating_sub(bytes);
        file.seek(SeekFrom::Start(start))?;
        let mut end = Vec::new();
        file.take(bytes).read_to_end(&mut end)?;
        Ok(end)
    }

    /// The last lines of the log, on one line.
    pub(super) fn last_words(&self) -> String {
        let bytes = self.log_end(WORDS).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).replace(char::REPLACEMENT_CHARACTER, "");
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        lines[lines.len().saturating_sub(LINES)..].join("; ")
    }

    /// Cuts a log that has grown too long.
    pub(super) fn bound_log(&self) {
        let log = self.path.join("log");
        if fs::metadata(&log).is_ok_and(|m| m.len() > LOG_BYTES_MAX) {
            let _ = File::options().write(true).open(log).and_then(|file| file.set_len(0));
        }
    }
}

/// The names of the folders in `folder`.
pub(super) fn names(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// When a process started, in ticks since the machine did (proc_pid_stat(5), field 22); nothing when
/// there is none, or it has ended and waits to be reaped.
pub(super) fn started(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's own name, with whatever it likes in it.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let start = fields.nth(18)?.parse().ok()?;
    (state != "Z").then_some(start)
}

/// A time in ticks.
pub(super) fn since_boot_of(ticks: u64) -> Duration {
    Duration::from_millis(ticks.saturating_mul(1000 / TICKS_A_SECOND))
}
