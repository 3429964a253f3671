//! The programs that we run for ourselves, as the daemon finds them: they outlive it, so which run
//! is read, not remembered.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A program of ours that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Running {
    /// The fingerprint of its command, and of the files that it reads only at its start.
    pub program: u64,
    /// The fingerprint of the files that it has read last and reads again when told to.
    pub reread: u64,
    /// It was asked to end, and has not ended yet.
    pub stopping: bool,
}

/// A program of ours ended though nobody asked it to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildEnd {
    /// Our name for it.
    pub name: String,
    /// Its exit code; unknown when a signal ended it, or when an earlier daemon had started it.
    pub status: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The last lines that it wrote.
    pub said: String,
    /// How long it ran.
    pub lived: Duration,
}
