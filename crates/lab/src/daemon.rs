//! The real `anywand` in a topology's router, and the real `anywan` beside it.
//!
//! All that a daemon keeps lives in a folder of its own that vanishes with the [`Daemon`], as
//! does the process. Programs are taken from `$ANYWAND` and `$ANYWAN`, or from the folder that
//! cargo built this program into.

mod config;
mod status;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::command::{Outcome, Running};
use crate::netns::Netns;
use crate::tempdir::TempDir;
use crate::topology::{Family, Topology, Wan};
use crate::wait;

pub use config::{Config, Keys, WanConfig};
pub use status::Status;

/// For anything the daemon is waited for; it should take a fraction of it.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// How much of the log an error shows.
const LOG_TAIL_LINES: usize = 40;

/// One daemon: its process (running or not), its files, its socket.
#[derive(Debug)]
pub struct Daemon {
    running: Option<Running>,
    events: Option<Running>,
    router: Netns,
    expected: Vec<(String, Family)>,
    dir: TempDir,
}

impl Daemon {
    /// Starts it and waits until it steers.
    pub fn start(topology: &Topology, config: &Config) -> Result<Daemon> {
        let mut daemon = Daemon::prepare(topology, config)?;
        daemon.launch()?;
        Ok(daemon)
    }

    /// [`Daemon::start`], then waits until every configured WAN is up in every family it has.
    pub fn start_up(topology: &Topology, config: &Config) -> Result<Daemon> {
        let daemon = Daemon::start(topology, config)?;
        daemon.wait_all_up()?;
        Ok(daemon)
    }

    /// Writes its files and starts nothing.
    pub fn prepare(topology: &Topology, config: &Config) -> Result<Daemon> {
        let mut expected = Vec::new();
        for configured in &config.wans {
            let fits = |wan: &&Wan| wan.interface == configured.interface;
            let Some(wan) = topology.wans().iter().find(fits) else { continue };
            for family in Family::BOTH.iter().filter(|family| wan.spec.families.has(**family)) {
                expected.push((configured.name.clone(), *family));
            }
        }
        let router = topology.router().clone();
        let dir = TempDir::new()?;
        let daemon = Daemon { running: None, events: None, router, expected, dir };
        daemon.write_config(&config.to_toml())?;
        fs::create_dir(daemon.path("etc")).context("make a folder of its own")?;
        Ok(daemon)
    }

    /// A path in its folder: `anywan.toml`, `anywan.sock`, `state`, `etc`, `log`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The command line that [`Daemon::launch`] runs.
    pub fn command_line(&self) -> Result<Vec<String>> {
        let path = |name: &str| self.path(name).display().to_string();
        Ok(vec![
            program("anywand")?,
            "--config".to_owned(),
            path("anywan.toml"),
            "--socket".to_owned(),
            path("anywan.sock"),
            "--state-dir".to_owned(),
            path("state"),
            // Never this machine's, whatever namespace the router is in.
            "--resolv-conf".to_owned(),
            path("etc/resolv.conf"),
        ])
    }

    /// Starts the process, again if it was stopped, and waits until its socket answers.
    pub fn launch(&mut self) -> Result<()> {
        self.launch_unready(&[])?;
        self.wait_steering()
    }

    /// Waits until the socket of the process just started answers.
    pub fn wait_steering(&mut self) -> Result<()> {
        let socket = self.path("anywan.sock");
        let log = self.path("log");
        let tail =
            || format!("the daemon's log:\n{}", fs::read_to_string(&log).unwrap_or_default());
        let ended = wait::until(DEADLINE, "the daemon's socket", || {
            match self.running.as_mut().map(Running::ended).transpose()?.flatten() {
                Some(status) => Ok(Some(status)),
                None => UnixStream::connect(&socket).map(|_| None).context("connect to it"),
            }
        })
        .with_context(tail)?;
        ensure!(ended.is_none(), "the daemon has ended with {ended:?}; {}", tail());
        Ok(())
    }

    /// Starts the process, through the command `wrapper` if not empty, and does not wait.
    pub fn launch_unready(&mut self, wrapper: &[&str]) -> Result<()> {
        fs::create_dir_all(self.path("state"))?;
        let line = self.command_line()?;
        let line = line.iter().map(String::as_str);
        let args: Vec<&str> = wrapper.iter().copied().chain(line).collect();
        self.running = None;
        self.running = Some(self.router.spawn(&args, Some(&self.path("log")))?);
        Ok(())
    }

    /// Replaces the config file's text; the daemon is not told.
    pub fn write_config(&self, text: &str) -> Result<()> {
        let path = self.path("anywan.toml");
        fs::write(&path, text).context("write the config")?;
        // There may be secrets in it.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).context("keep it private")
    }

    /// Replaces the config and sends SIGHUP.
    pub fn reload(&self, config: &Config) -> Result<()> {
        self.write_config(&config.to_toml())?;
        self.signal(Signal::HUP)
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.running.as_ref().context("the daemon was started")?.signal(signal)
    }

    /// Its process id.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.running.as_ref().context("the daemon was started")?.pid())
    }

    /// Kills it as `kill -9` does; it can be launched again.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// Asks it to end and waits for that; returns its exit status.
    pub fn terminate(&mut self) -> Result<i32> {
        self.signal(Signal::TERM)?;
        self.wait_end()
    }

    /// Waits until it ends by itself; returns its exit status.
    pub fn wait_end(&mut self) -> Result<i32> {
        let running = self.running.as_mut().context("the daemon was started")?;
        let status = wait::until(DEADLINE, "the daemon's end", || {
            running.ended()?.context("it is still running")
        })?;
        self.running = None;
        Ok(status)
    }

    /// Whether the process is there.
    pub fn is_running(&mut self) -> Result<bool> {
        match &mut self.running {
            Some(running) => Ok(running.ended()?.is_none()),
            None => Ok(false),
        }
    }

    /// Runs `anywan --socket … ARGS` in the router.
    pub fn cli(&self, args: &[&str]) -> Result<Outcome> {
        self.cli_by(&[], args)
    }

    /// The same, run by other programs.
    pub fn cli_by(&self, others: &[&str], args: &[&str]) -> Result<Outcome> {
        let (anywan, socket) = (program("anywan")?, self.path("anywan.sock"));
        let socket = socket.display().to_string();
        let line: Vec<&str> = [others, &[&*anywan, "--socket", &socket], args].concat();
        self.router.try_run(&line)
    }

    /// `anywan status --json`.
    pub fn status(&self) -> Result<Status> {
        let outcome = self.cli(&["status", "--json"])?;
        let Outcome { status, stdout, stderr } = &outcome;
        let value = serde_json::from_str(stdout)
            .with_context(|| format!("status --json gave {status}: {stderr}{stdout}"))?;
        Ok(Status(value))
    }

    /// Waits until the status satisfies `fits`.
    pub fn wait_status(&self, what: &str, fits: impl Fn(&Status) -> bool) -> Result<Status> {
        wait::until(DEADLINE, what, || {
            let status = self.status()?;
            ensure!(fits(&status), "{}", status.summary());
            Ok(status)
        })
        .with_context(|| format!("the daemon's log:\n{}", self.log_tail()))
    }

    /// Waits until a WAN's family is in one of `states`.
    pub fn wait_state(&self, name: &str, family: Family, states: &[&str]) -> Result<Status> {
        let what = format!("{name} {family:?} to be {states:?}");
        self.wait_status(&what, |status| states.contains(&status.state(name, family)))
    }

    /// Waits until every WAN of the first config is up in every family it has.
    pub fn wait_all_up(&self) -> Result<Status> {
        self.wait_status("all WANs to be up", |status| {
            self.expected.iter().all(|(name, family)| status.state(name, *family) == "up")
        })
    }

    /// Follows `anywan events --json` into a file from now on; read with [`Daemon::events`].
    pub fn follow_events(&mut self) -> Result<()> {
        let (anywan, socket) = (program("anywan")?, self.path("anywan.sock"));
        let socket = socket.display().to_string();
        let line = [&*anywan, "--socket", &socket, "events", "--json"];
        self.events = Some(self.router.spawn(&line, Some(&self.path("events")))?);
        Ok(())
    }

    /// The events so far.
    pub fn events(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.path("events")).context("the events followed")?;
        // The last line may be half written.
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// When it first chose other WANs of this family after `since`, as its log tells.
    pub fn chose_after(&self, since: Instant, family: Family) -> Result<Instant> {
        let text = fs::read_to_string(self.path("log"))?;
        let (now, wall) = (Instant::now(), SystemTime::now());
        let word = format!("kind=\"choice\" wan= family={}", family.key()).to_lowercase();
        for line in text.lines().filter(|line| line.to_lowercase().contains(&word)) {
            let told: Timestamp = line.split(' ').next().unwrap_or_default().parse()?;
            let at = wall.duration_since(told.into()).ok().and_then(|age| now.checked_sub(age));
            if let Some(at) = at.filter(|at| *at > since) {
                return Ok(at);
            }
        }
        bail!("no {word} since: {}", self.log_tail())
    }

    /// The last lines it wrote to its standard output and error.
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.path("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }
}

/// Programs that run for the daemon outlive it, however it ends; not this value.
impl Drop for Daemon {
    fn drop(&mut self) {
        self.running = None;
        let folders = fs::read_dir(self.path("anywan.sock.children")).into_iter().flatten();
        for folder in folders.flatten() {
            if let Ok(pid) = child_in(&folder.path()) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// The process of the program that runs for a daemon and has this folder.
pub fn child_in(folder: &Path) -> Result<Pid> {
    let record: Value = serde_json::from_slice(&fs::read(folder.join("child.json"))?)?;
    let pid = record["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    pid.and_then(Pid::from_raw).context("a process in the record")
}

/// The path of one of our programs.
pub fn program(name: &str) -> Result<String> {
    if let Ok(path) = std::env::var(name.to_uppercase()) {
        return Ok(path);
    }
    let own = std::env::current_exe().context("the path of this program")?;
    // Test programs are in `deps`, one below.
    for folder in own.ancestors().skip(1).take(2) {
        let path = folder.join(name);
        if path.is_file() {
            return Ok(path.display().to_string());
        }
    }
    bail!(
        "no {name} beside {}\n  hint: build it with the same profile (`cargo build -p \
         anywan-daemon -p anywan`), or set {}",
        own.display(),
        name.to_uppercase()
    )
}
