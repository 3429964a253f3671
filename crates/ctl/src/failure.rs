//! Why a command has failed: what, what to do about it, and the exit status.

use std::fmt;
use std::io;

/// A failure, shown on standard error.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// Something did not work.
    Failed {
        /// What, without a full stop.
        what: String,
        /// What to do; may be empty.
        hint: String,
    },
    /// The command line or a file is wrong; the text is shown as it is.
    Bad {
        /// With a line end.
        text: String,
    },
    /// No daemon answers.
    NoDaemon {
        /// What was tried, without a full stop.
        what: String,
        /// What to do.
        hint: String,
    },
    /// Whoever reads our output has had enough. No failure at all.
    BrokenPipe,
}

impl Failure {
    /// Something did not work.
    pub fn failed(what: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure::Failed { what: what.into(), hint: hint.into() }
    }

    /// The exit status of the program.
    pub fn exit(&self) -> u8 {
        match self {
            Failure::BrokenPipe => 0,
            Failure::Failed { .. } => 1,
            Failure::Bad { .. } => 2,
            Failure::NoDaemon { .. } => 3,
        }
    }

    /// Standard output could not be written.
    pub fn output(error: &io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::BrokenPipe;
        }
        Failure::failed(format!("write the output: {error}"), "is the disk full?")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::BrokenPipe => Ok(()),
            Failure::Bad { text } => f.write_str(text),
            Failure::Failed { what, hint } | Failure::NoDaemon { what, hint } => {
                writeln!(f, "error: {what}")?;
                if hint.is_empty() { Ok(()) } else { writeln!(f, "hint: {hint}") }
            }
        }
    }
}
