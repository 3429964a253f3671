//! Network namespaces with unique names that vanish, with all that runs in them, on drop.
//!
//! [`Namespaces`] owns a set, [`Netns`] is a cheap handle to one. A namespace belongs to a
//! thread: work inside one runs on a thread of its own, and what that thread starts stays there.
//! Names carry our process id, so that a later run can remove what a killed one left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::command::{self, Outcome, Running};

/// Where iproute2 keeps the names.
const DIR: &str = "/run/netns";

/// A handle to one namespace; valid (for work inside) even after its name is gone.
#[derive(Debug, Clone)]
pub struct Netns {
    name: Arc<str>,
    file: Arc<File>,
}

impl Netns {
    /// Its name under /run/netns.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace of this program itself.
    pub fn own() -> Result<Netns> {
        let file = File::open("/proc/self/ns/net").context("open our own namespace")?;
        // `ip` takes a process in the place of a name.
        Ok(Netns { name: std::process::id().to_string().into(), file: Arc::new(file) })
    }

    /// Opens an existing namespace by name, without owning it.
    pub fn open(name: &str) -> Result<Netns> {
        let file = File::open(Path::new(DIR).join(name))
            .with_context(|| format!("open the namespace {name}"))?;
        Ok(Netns { name: name.into(), file: Arc::new(file) })
    }

    /// Runs `work` inside, on a thread of its own, and waits for it. A panic passes through.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| self.enter().map(|()| work()));
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a thread that lives inside. Whoever holds the handle must stop it.
    pub fn thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<Result<T>> {
        let own = self.clone();
        thread::spawn(move || own.enter().map(|()| work()))
    }

    fn enter(&self) -> Result<()> {
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("enter the namespace {}", self.name))
    }

    /// Runs a command line (split at blanks) that must succeed; returns its output.
    pub fn run(&self, line: &str) -> Result<String> {
        let args: Vec<&str> = line.split_whitespace().collect();
        self.inside(|| command::run_ok(&args, ""))?.with_context(|| self.name.to_string())
    }

    /// Runs a command to its end, whatever its exit status.
    pub fn try_run(&self, args: &[&str]) -> Result<Outcome> {
        self.inside(|| command::run(args, ""))?
    }

    /// Carries out many `ip` commands, one a line, in one process; stops at the first failure.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        self.inside(|| command::run_ok(&["ip", "-batch", "-"], lines))?
            .with_context(|| self.name.to_string())?;
        Ok(())
    }

    /// Loads nft commands in one transaction; returns the output.
    pub fn nft(&self, text: &str) -> Result<String> {
        self.inside(|| command::run_ok(&["nft", "-f", "-"], text))?
            .with_context(|| self.name.to_string())
    }

    /// Starts a program inside; see [`Running::start`].
    pub fn spawn(&self, args: &[&str], log: Option<&Path>) -> Result<Running> {
        self.inside(|| Running::start(args, log))?
    }

    /// Reads `net.…`, in dots or slashes.
    pub fn sysctl(&self, key: &str) -> Result<String> {
        let path = sysctl_path(key);
        let text = self.inside(|| fs::read_to_string(&path))?;
        Ok(text.with_context(|| path.clone())?.trim().to_owned())
    }

    /// Sets `net.…` keys, in dots or slashes.
    pub fn set_sysctls(&self, pairs: &[(&str, &str)]) -> Result<()> {
        self.inside(|| {
            for (key, value) in pairs {
                let path = sysctl_path(key);
                fs::write(&path, value).with_context(|| format!("write {value} to {path}"))?;
            }
            Ok(())
        })?
    }
}

fn sysctl_path(key: &str) -> String {
    let slashes = if key.contains('/') { key.to_owned() } else { key.replace('.', "/") };
    format!("/proc/sys/{slashes}")
}

/// A set of namespaces, owned: dropped, everything in them is killed and they are deleted.
#[derive(Debug)]
pub struct Namespaces {
    by_role: BTreeMap<String, Netns>,
    /// Not ours: they stay.
    lent: BTreeMap<String, Netns>,
}

impl Namespaces {
    /// Makes one namespace for each role, with its loopback up.
    ///
    /// # Errors
    /// Without the needed privilege or programs, with a hint.
    pub fn create(roles: &[String]) -> Result<Namespaces> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        ready()?;
        let set = COUNTER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("aw{}-{set}-", std::process::id());
        let names: Vec<String> = roles.iter().map(|role| format!("{prefix}{role}")).collect();
        let lines: String = names.iter().map(|name| format!("netns add {name}\n")).collect();
        // Owned before they are opened, so that a failure half way removes what is there.
        let added = command::run_ok(&["ip", "-batch", "-"], &lines);
        let mut spaces = Namespaces { by_role: BTreeMap::new(), lent: BTreeMap::new() };
        for (role, name) in roles.iter().zip(&names) {
            if let Ok(space) = Netns::open(name) {
                spaces.by_role.insert(role.clone(), space);
            }
        }
        added.context(HINT)?;
        for space in spaces.by_role.values() {
            space.run("ip link set lo up")?;
        }
        Ok(spaces)
    }

    /// Gives a role a namespace that was there before, and stays with all that is in it.
    pub fn lend(&mut self, role: &str, space: Netns) {
        self.lent.insert(role.to_owned(), space);
    }

    /// The namespace of a role given to [`Namespaces::create`] or [`Namespaces::lend`].
    ///
    /// # Panics
    /// If there is no such role.
    pub fn get(&self, role: &str) -> &Netns {
        let space = self.by_role.get(role).or_else(|| self.lent.get(role));
        space.unwrap_or_else(|| panic!("no namespace for the role {role}"))
    }

    /// All of them, lent ones too.
    pub fn all(&self) -> impl Iterator<Item = &Netns> {
        self.by_role.values().chain(self.lent.values())
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        let inodes =
            self.by_role.values().filter_map(|space| Some(space.file.metadata().ok()?.ino()));
        kill_inside(&inodes.collect());
        // One at a time, so that one that somebody removed does not keep the others.
        for space in self.by_role.values() {
            let _ = command::run(&["ip", "netns", "del", &space.name], "");
        }
    }
}

/// Kills every process that lives in one of the namespaces, found by inode, except ourselves.
fn kill_inside(inodes: &BTreeSet<u64>) {
    let Ok(entries) = fs::read_dir("/proc") else { return };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let lives_there = fs::metadata(entry.path().join("ns/net"))
            .is_ok_and(|space| inodes.contains(&space.ino()));
        if lives_there && pid.unsigned_abs() != std::process::id() {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
    }
}

const HINT: &str = "the lab needs root and network namespaces\n  \
    hint: run as root, best through `crates/lab/run-isolated COMMAND`, which also gives the test \
    namespaces of its own;\n        an ordinary user may try the same script, where user \
    namespaces are allowed";

/// Checks once that the lab can work here, and removes what killed runs have left.
fn ready() -> Result<()> {
    static READY: OnceLock<Result<(), String>> = OnceLock::new();
    READY
        .get_or_init(|| check().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|error| anyhow!(error))
}

fn check() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(HINT);
    }
    for program in ["ip", "nft"] {
        command::run(&[program, "-V"], "")
            .with_context(|| format!("hint: apt-get install iproute2 nftables ({program})"))?;
    }
    raise_file_limit();
    remove_leftovers();
    Ok(())
}

/// Thousands of open connections, both ends in one process, need more than the usual 1,024.
fn raise_file_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // If refused, the test that needs more files will say so itself.
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
}

/// Deletes namespaces whose name carries the id of a process that is no more.
fn remove_leftovers() {
    let Ok(entries) = fs::read_dir(DIR) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((pid, _)) = name.strip_prefix("aw").and_then(|rest| rest.split_once('-')) else {
            continue;
        };
        let dead = pid.parse::<u32>().is_ok_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        if dead {
            let _ = command::run(&["ip", "netns", "del", &name], "");
        }
    }
}
