//! What a service manager hears, on a socket of the test's own: no systemd is needed. That systemd
//! likes it is shown by `tests/systemd.rs`.

use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use anywan_lab::{Config, Daemon, Family, Fault, Proto, Spec, Topology, until};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use crate::common::DEADLINE;

/// A time to watch that nothing is said; signs of life would come each second.
const SILENCE: Duration = Duration::from_secs(4);
const WATCHDOG_USEC: &str = "WATCHDOG_USEC=3000000";

/// The service manager: the daemon's socket, and all that came.
struct Ear {
    socket: UnixDatagram,
    lines: Vec<String>,
}

impl Ear {
    /// Listens on a path.
    fn at_path(daemon: &Daemon) -> Result<(Ear, String)> {
        let path = daemon.path("notify");
        Ok((Ear::of(UnixDatagram::bind(&path)?)?, path.display().to_string()))
    }

    /// Listens on an abstract name, which belongs to the router's network namespace.
    fn abstract_in(topology: &Topology) -> Result<(Ear, String)> {
        let address = SocketAddr::from_abstract_name("anywan-notify")?;
        let socket = topology.router().inside(|| UnixDatagram::bind_addr(&address))??;
        Ok((Ear::of(socket)?, "@anywan-notify".to_owned()))
    }

    fn of(socket: UnixDatagram) -> Result<Ear> {
        socket.set_nonblocking(true)?;
        Ok(Ear { socket, lines: Vec::new() })
    }

    /// Takes what has come; returns how many lines there were before.
    fn listen(&mut self) -> usize {
        let before = self.lines.len();
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            self.lines.extend(text.lines().map(str::to_owned));
        }
        before
    }

    /// Waits for a line of those after the first `from`; returns its place.
    fn wait(&mut self, from: usize, line: &str) -> Result<usize> {
        until(DEADLINE, line, || {
            self.listen();
            let place = self.lines.iter().skip(from).position(|other| other == line);
            place.map(|place| from + place).with_context(|| format!("{:?}", self.lines))
        })
    }

    /// Waits for `count` signs of life from now on.
    fn wait_alive(&mut self, count: usize) -> Result<()> {
        self.listen();
        let mut from = self.lines.len();
        for _ in 0..count {
            from = self.wait(from, "WATCHDOG=1")? + 1;
        }
        Ok(())
    }
}

/// Starts the daemon as a service manager does, with more variables in its environment.
fn launch(daemon: &mut Daemon, socket: &str, more: &[&str]) -> Result<()> {
    let socket = format!("NOTIFY_SOCKET={socket}");
    let wrapper: Vec<&str> = ["env", &socket].into_iter().chain(more.iter().copied()).collect();
    daemon.launch_unready(&wrapper)
}

fn monotonic_usec() -> i128 {
    let now = clock_gettime(ClockId::Monotonic);
    i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000
}

#[test]
fn it_is_ready_once_it_steers_and_says_what_it_does_until_it_ends() -> Result<()> {
    let topology = Spec::routed(3).build()?;
    let config = Config::of(&topology);
    let mut daemon = Daemon::prepare(&topology, &config)?;
    let (mut ear, socket) = Ear::at_path(&daemon)?;
    launch(&mut daemon, &socket, &[WATCHDOG_USEC])?;
    let ready = ear.wait(0, "READY=1")?;
    // At once, without waiting for anything.
    let placed = topology.client(1).place(30, Proto::Tcp, Family::V4)?;
    ensure!(placed.failed() == 0, "{placed}");
    ensure!(daemon.path("anywan.sock").exists(), "the socket is there");
    ensure!(ear.lines[..ready].iter().any(|l| l.starts_with("STATUS=")), "{:?}", ear.lines);
    ear.wait(0, "STATUS=3 of 3 WANs up")?;
    ear.wait_alive(3)?;

    topology.break_wan(2, &Fault::CarrierLost)?;
    ear.wait(0, "STATUS=2 of 3 WANs up")?;
    topology.mend_wan(2, &Fault::CarrierLost)?;
    daemon.wait_all_up()?;

    ear.listen();
    let (from, begun) = (ear.lines.len(), monotonic_usec());
    daemon.reload(&config.clone().weights(&[3, 2, 1]))?;
    let reloading = ear.wait(from, "RELOADING=1")?;
    let again = ear.wait(reloading, "READY=1")?;
    let usec = ear.lines[reloading + 1].strip_prefix("MONOTONIC_USEC=").context("its time")?;
    ensure!((begun..=monotonic_usec()).contains(&usec.parse()?), "{usec} after {begun}");
    let now = daemon.status()?;
    ensure!(now.share_percent("wan1") == 50.0, "{}", now.summary());

    // A bad file is refused, and that ends the reload too.
    daemon.write_config("[[wan")?;
    daemon.signal(Signal::HUP)?;
    let reloading = ear.wait(again, "RELOADING=1")?;
    ear.wait(reloading, "READY=1")?;

    let status = daemon.terminate()?;
    ensure!(status == 0, "it ended with {status}");
    ear.listen();
    ensure!(ear.lines.last().is_some_and(|last| last == "STOPPING=1"), "{:?}", ear.lines);
    Ok(())
}

#[test]
fn with_nothing_to_steer_it_is_ready_and_without_a_watchdog_silent() -> Result<()> {
    let topology = Spec::routed(2).build()?;
    let mut config = Config::of(&topology);
    config.lans[0].0 = "later0".to_owned();
    config.wans.iter_mut().for_each(|wan| wan.interface = format!("later-{}", wan.name));
    let mut daemon = Daemon::prepare(&topology, &config)?;
    let (mut ear, socket) = Ear::abstract_in(&topology)?;
    // A watchdog of somebody else is none.
    launch(&mut daemon, &socket, &[WATCHDOG_USEC, "WATCHDOG_PID=1"])?;
    ear.wait(0, "READY=1")?;
    ensure!(ear.lines.contains(&"STATUS=0 of 2 WANs up".to_owned()), "{:?}", ear.lines);
    std::thread::sleep(SILENCE);
    let outcome = daemon.cli(&["down"])?;
    ensure!(outcome.status == 0, "{outcome:?}");
    ensure!(daemon.wait_end()? == 0, "it ended well");
    ear.listen();
    ensure!(!ear.lines.iter().any(|line| line.starts_with("WATCHDOG")), "{:?}", ear.lines);
    ensure!(ear.lines.last().is_some_and(|last| last == "STOPPING=1"), "{:?}", ear.lines);
    Ok(())
}

#[test]
fn a_loop_that_hangs_falls_silent() -> Result<()> {
    let topology = Spec::routed(2).build()?;
    let mut daemon = Daemon::prepare(&topology, &Config::of(&topology))?;
    // An nft that waits while it is told to, and says that it does.
    let (hang, hung) = (daemon.path("hang"), daemon.path("hung"));
    let nft = daemon.path("nft");
    let script = format!(
        "#!/bin/sh\nwhile [ -e {0} ]; do : >{1}; sleep 0.1; done\nexec /usr/sbin/nft \"$@\"\n",
        hang.display(),
        hung.display()
    );
    fs::write(&nft, script)?;
    fs::set_permissions(&nft, fs::Permissions::from_mode(0o755))?;
    let (mut ear, socket) = Ear::at_path(&daemon)?;
    let folder = nft.parent().context("a folder")?.display();
    let path = format!("PATH={folder}:{}", std::env::var("PATH")?);
    launch(&mut daemon, &socket, &[WATCHDOG_USEC, &path])?;
    ear.wait(0, "READY=1")?;
    ear.wait_alive(2)?;

    fs::write(&hang, "")?;
    topology.router().run("nft delete table inet anywan")?;
    until(DEADLINE, "nft to hang", || hung.exists().then_some(()).context("not yet"))?;
    ear.listen();
    let (from, begun) = (ear.lines.len(), Instant::now());
    std::thread::sleep(SILENCE);
    ear.listen();
    // After 10 s the daemon gives nft up; what was said by then proves nothing.
    ensure!(begun.elapsed() < Duration::from_secs(8), "this machine is too slow to tell");
    ensure!(ear.lines.len() == from, "{:?}", &ear.lines[from..]);
    fs::remove_file(&hang)?;
    ear.wait_alive(2)?;
    daemon.wait_all_up().map(drop)
}
