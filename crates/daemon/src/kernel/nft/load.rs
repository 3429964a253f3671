//! Loads the text of our table with `nft -f -`: the only child process of the kernel adapter. In:
//! text. Out: loaded in one transaction (or only checked, with `-c`), or what nft said. Owns the
//! child, and kills it at the deadline.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::super::error::KernelError;
use super::super::programs::find;

/// Loading takes 16 ms and 39 ms with 5,000 elements; a Raspberry Pi 2 under load some ten times
/// that.
const DEADLINE: Duration = Duration::from_secs(10);
/// How much of nft's words goes into an error.
const WORDS: u64 = 4096;

/// Runs `nft -f -` on a text.
pub(crate) fn load(text: &str) -> Result<(), KernelError> {
    feed(&["-f", "-"], text)
}

/// Has nft and the kernel look at a text without loading it.
pub(crate) fn check(text: &str) -> Result<(), KernelError> {
    feed(&["-c", "-f", "-"], text)
}

fn feed(args: &[&str], text: &str) -> Result<(), KernelError> {
    // Files in memory, not pipes: neither side can block the other.
    let run = || -> io::Result<(Option<ExitStatus>, String)> {
        let mut input = File::from(memfd_create("anywan-table", MemfdFlags::CLOEXEC)?);
        input.write_all(text.as_bytes())?;
        input.rewind()?;
        let errors = File::from(memfd_create("anywan-nft-errors", MemfdFlags::CLOEXEC)?);
        let nft = find("nft").ok_or(io::ErrorKind::NotFound)?;
        let mut child = spawn(&nft, args, &input, &errors)?;
        let status = wait(&mut child)?;
        Ok((status, words(errors)?))
    };
    match run().map_err(|source| KernelError::NftRun { source })? {
        (Some(status), _) if status.success() => Ok(()),
        (Some(status), stderr) if stderr.is_empty() => {
            Err(KernelError::NftRefused { stderr: status.to_string() })
        }
        (Some(_), stderr) => Err(KernelError::NftRefused { stderr }),
        (None, _) => Err(KernelError::NftDeadline { seconds: DEADLINE.as_secs() }),
    }
}

fn spawn(program: &Path, args: &[&str], input: &File, errors: &File) -> io::Result<Child> {
    Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(input.try_clone()?)
        .stdout(errors.try_clone()?)
        .stderr(errors.try_clone()?)
        .spawn()
}

/// Waits for the child until the deadline; `None` when it had to be killed.
fn wait(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + DEADLINE;
    let watched = pidfd_open(Pid::from_child(child), PidfdFlags::empty());
    let exited = watched.map_err(io::Error::from).and_then(|pidfd| {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
            match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
                Err(rustix::io::Errno::INTR) => {}
                other => return Ok(other? > 0),
            }
        }
    });
    if let Ok(true) = exited {
        return child.wait().map(Some);
    }
    child.kill()?;
    child.wait()?;
    exited.map(|_| None)
}

fn words(mut errors: File) -> io::Result<String> {
    errors.rewind()?;
    let mut bytes = Vec::new();
    errors.take(WORDS).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}
