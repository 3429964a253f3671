//! The programs that we run for ourselves: starts, reloads and ends them, and notices when one ends.
//! In: [`Step`]s. Out: what runs, and how what ended did.
//!
//! They outlive the daemon, however it ends, and the next one finds them again: each has a folder
//! with its files, what it writes (`log`), and `child.json`, which names its process. A process is
//! known by its number and the time of its start, and watched through a pidfd: neither can be
//! mistaken for another's. Nobody waits for one that is to end: it has some seconds, then it is killed.
//! One thread owns this; it decides nothing.

mod folder;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use anywan_core::desired::Program;
use anywan_core::observed::{ChildEnd, Running};
use anywan_core::steps::Step;
use anywan_core::time::Moment;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use thiserror::Error;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::clock::since_boot;
use crate::kernel::programs::find;
use folder::{Folder, Record};

/// How long a program may take to end before it is killed: pppd says goodbye to its peer.
const GRACE: Duration = Duration::from_secs(5);

/// Why a program could not be started, reloaded or ended.
#[derive(Debug, Error)]
pub enum ChildError {
    /// There is no such program.
    #[error("{program} is not installed{}", package(program))]
    Missing {
        /// Its name.
        program: String,
    },
    /// The system refused.
    #[error("{what}")]
    Refused {
        /// The operation and its object.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What to do about a missing program.
fn package(program: &str) -> &'static str {
    match program {
        "dnsmasq" => "; on Debian: apt install dnsmasq-base",
        "pppd" | "chat" => "; on Debian: apt install ppp",
        _ => "",
    }
}

/// The programs that run for us.
#[derive(Debug)]
pub struct Children {
    folder: PathBuf,
    /// What programs keep for good is there.
    state: PathBuf,
    running: BTreeMap<String, Child>,
}

#[derive(Debug)]
struct Child {
    folder: Folder,
    pidfd: Arc<OwnedFd>,
    watched: Option<AsyncFd<Arc<OwnedFd>>>,
    record: Record,
    /// Asked to end; killed at that moment.
    ends: Option<Moment>,
    /// Ours to reap; not when an earlier daemon started it.
    process: Option<std::process::Child>,
}

impl Children {
    /// Finds what an earlier daemon left running, in the folder that belongs to this socket.
    pub fn open(socket: &Path, state: &Path) -> Children {
        let mut folder = socket.as_os_str().to_owned();
        folder.push(".children");
        let folder = PathBuf::from(folder);
        let left = folder::names(&folder).filter_map(|name| {
            let child = Child::find(Folder::new(folder.join(&name)))?;
            tracing::info!(%name, pid = child.record.pid, "found running");
            Some((name, child))
        });
        let running = left.collect();
        Children { folder, state: state.to_owned(), running }
    }

    /// What runs.
    pub fn running(&self) -> BTreeMap<String, Running> {
        self.running.iter().map(|(name, child)| (name.clone(), child.running())).collect()
    }

    /// The numbers of their processes.
    pub fn pids(&self) -> Vec<u32> {
        let pids = self.running.values().map(|child| child.record.pid);
        pids.filter_map(|pid| u32::try_from(pid).ok()).collect()
    }

    /// The folder with the files of a program.
    pub fn folder_of(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The end of what a program has written, of so many bytes at most; also of one that has ended.
    pub fn log_end(&self, name: &str, bytes: u64) -> io::Result<Vec<u8>> {
        Folder::new(self.folder_of(name)).log_end(bytes)
    }

    /// Carries out one step; others than those about programs are none of its business.
    ///
    /// # Errors
    /// When the program is missing, or the system refuses.
    pub fn apply(&mut self, step: &Step, now: Moment) -> Result<(), ChildError> {
        if let Step::StartChild { name, program } = step {
            self.start(name, program)
        } else if let Step::ReloadChild { name, program } = step {
            self.reload(name, program)
        } else if let Step::StopChild { name } = step {
            self.stop(name, now)
        } else {
            Ok(())
        }
    }

    fn start(&mut self, name: &str, program: &Program) -> Result<(), ChildError> {
        if self.running.contains_key(name) {
            return Ok(());
        }
        let folder = Folder::new(self.folder.join(name));
        let refused = |source| ChildError::Refused { what: format!("start {name}"), source };
        let mut words = program.command.iter();
        let called = words.next().map_or("", String::as_str);
        let path =
            find(called).ok_or_else(|| ChildError::Missing { program: called.to_owned() })?;
        let log = folder.prepare(program).map_err(refused)?;
        let (dir, state) = (folder.path().display().to_string(), self.state.display().to_string());
        let process = Command::new(path)
            .args(words.map(|word| word.replace("{dir}", &dir).replace("{state}", &state)))
            .env("LC_ALL", "C")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .env_remove("WATCHDOG_PID")
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(refused)?)
            .stderr(log)
            .spawn()
            .map_err(refused)?;
        let child = Child::adopt(folder, process, program.running()).map_err(refused)?;
        self.running.insert(name.to_owned(), child);
        Ok(())
    }

    fn reload(&mut self, name: &str, program: &Program) -> Result<(), ChildError> {
        let refused = |source| ChildError::Refused { what: format!("reload {name}"), source };
        let Some(child) = self.running.get_mut(name) else { return Ok(()) };
        child.folder.write(&program.reread).map_err(refused)?;
        child.send(Signal::HUP).map_err(refused)?;
        child.record.reread = program.running().reread;
        child.folder.record(&child.record).map_err(refused)
    }

    fn stop(&mut self, name: &str, now: Moment) -> Result<(), ChildError> {
        let Some(child) = self.running.get_mut(name) else { return Ok(()) };
        child.ends = Some(now + GRACE);
        child.send(Signal::TERM).map_err(|source| {
            let what = format!("stop {name}");
            ChildError::Refused { what, source }
        })
    }

    /// When [`Children::mind`] has something to do.
    pub fn next(&self) -> Option<Moment> {
        self.running.values().filter_map(|child| child.ends).min()
    }

    /// Kills what should have ended by now.
    pub fn mind(&mut self, now: Moment) {
        for (name, child) in &mut self.running {
            if child.ends.is_some_and(|ends| ends <= now) {
                tracing::warn!(%name, "did not end by itself and is killed");
                // Whatever ends it, its end is noticed. It may take a while, in the kernel's hands.
                let _ = child.send(Signal::KILL);
                child.ends = Some(now + GRACE);
            }
        }
    }

    /// Keeps logs within bounds.
    pub fn bound_logs(&self) {
        for child in self.running.values() {
            child.folder.bound_log();
        }
    }

    /// Waits until some program has ended, for ever while none runs; says how those ended that
    /// nobody had asked to.
    pub async fn ended(&mut self) -> Vec<ChildEnd> {
        poll_fn(|context| {
            let mut any = false;
            for child in self.running.values_mut() {
                let Ok(watched) = child.watched() else { continue };
                any |= watched.poll_read_ready(context).is_ready();
            }
            if any { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        self.reap()
    }

    /// Whether there is something to take out.
    pub fn has_ended(&self) -> bool {
        self.running.values().any(|child| child.is_over(Duration::ZERO))
    }

    /// Takes out what has ended; says how those did that nobody had asked to.
    pub fn reap(&mut self) -> Vec<ChildEnd> {
        let over: Vec<String> = self
            .running
            .iter()
            .filter(|(_, child)| child.is_over(Duration::ZERO))
            .map(|(name, _)| name.clone())
            .collect();
        over.into_iter().filter_map(|name| self.running.remove(&name)?.end(name)).collect()
    }

    /// Waits until all that were asked to end have; they are killed when their time is over. Blocks.
    pub fn wait(&mut self) {
        for child in self.running.values_mut().filter(|child| child.ends.is_some()) {
            if !child.is_over(GRACE) {
                let _ = child.send(Signal::KILL);
                child.is_over(GRACE);
            }
        }
        drop(self.reap());
    }
}

impl Child {
    /// What this folder's record says runs, if it still does.
    fn find(folder: Folder) -> Option<Child> {
        let record = folder.recorded()?;
        let pidfd = pidfd_open(Pid::from_raw(record.pid)?, PidfdFlags::empty()).ok()?;
        // Only now: a number that was given to another process later has another start.
        let same = folder::started(record.pid) == Some(record.started);
        let (pidfd, watched, ends, process) = (Arc::new(pidfd), None, None, None);
        same.then_some(Child { folder, pidfd, watched, record, ends, process })
    }

    fn adopt(
        folder: Folder,
        mut process: std::process::Child,
        running: Running,
    ) -> io::Result<Child> {
        let pidfd = match pidfd_open(Pid::from_child(&process), PidfdFlags::empty()) {
            Ok(pidfd) => Arc::new(pidfd),
            Err(error) => {
                process.kill()?;
                process.wait()?;
                return Err(error.into());
            }
        };
        let pid = Pid::from_child(&process).as_raw_nonzero().get();
        let Running { program, reread, .. } = running;
        let started = folder::started(pid).unwrap_or_default();
        let record = Record { pid, started, program, reread };
        if let Err(error) = folder.record(&record) {
            // It runs, and works; only the next daemon will not find it.
            tracing::warn!(%error, folder = %folder.path().display(), "cannot be recorded");
        }
        let (watched, ends) = (None, None);
        Ok(Child { folder, pidfd, watched, record, ends, process: Some(process) })
    }

    fn running(&self) -> Running {
        let Record { program, reread, .. } = self.record;
        Running { program, reread, stopping: self.ends.is_some() }
    }

    fn send(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, signal) {
            // It has ended just now; that is noticed elsewhere.
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    #[expect(unsafe_code, reason = "tokio cannot know that a descriptor stays open")]
    fn watched(&mut self) -> io::Result<&AsyncFd<Arc<OwnedFd>>> {
        match &mut self.watched {
            Some(watched) => Ok(watched),
            none => {
                let fd = Arc::clone(&self.pidfd);
                // SAFETY: the AsyncFd has a share in the descriptor, which stays open with it.
                let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
                Ok(none.insert(watched))
            }
        }
    }

    /// Whether it has ended, or does within `time`.
    fn is_over(&self, time: Duration) -> bool {
        let time = Timespec::try_from(time).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
        let mut fds = [PollFd::new(&*self.pidfd, PollFlags::IN)];
        poll(&mut fds, Some(&time)).is_ok_and(|ready| ready > 0)
    }

    /// Buries it; says how it ended, unless it had been asked to.
    fn end(mut self, name: String) -> Option<ChildEnd> {
        let status = self.process.as_mut().and_then(|process| process.wait().ok());
        if self.ends.is_some() {
            self.folder.remove();
            return None;
        }
        let said = self.folder.last_words();
        self.folder.forget();
        Some(ChildEnd {
            name,
            status: status.as_ref().and_then(ExitStatus::code),
            signal: status.as_ref().and_then(ExitStatus::signal),
            said,
            lived: since_boot().saturating_sub(folder::since_boot_of(self.record.started)),
        })
    }
}

#[cfg(test)]
mod tests;
