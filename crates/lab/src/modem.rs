//! An emulated mobile modem on a pseudo terminal, and the provider behind it.
//!
//! It speaks AT commands as a USB stick does, has a SIM that may want a PIN, and, when dialled, puts
//! a real pppd in an ISP's namespace behind the line. How it answers is changed while it runs; what it
//! was told is counted. Its port is a link below `/dev`, so that it can be unplugged and plugged in
//! again under the same name. Owned: with it go its port and the provider's pppd.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::netns::Netns;

/// The provider's end of the line, the router's, and who resolves names behind it.
pub const ADDRESSES: [&str; 3] = ["10.64.0.1", "10.64.0.2", "10.64.0.53"];
/// Wrong PINs until a SIM wants its PUK.
const TRIES: u32 = 3;

/// Fails where the kernel has no PPP.
pub fn ensure_ppp() -> Result<()> {
    ensure!(
        Path::new("/dev/ppp").exists(),
        "PPP is not in this kernel\n\nhint: lines are dialled in the VM: crates/lab/vm/run"
    );
    Ok(())
}

/// What comes when the modem is told to dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A connection to the provider.
    Connect,
    /// These words, e.g. `BUSY`.
    Words(&'static str),
    /// Nothing, to no command at all.
    Silence,
    /// Bytes that mean nothing, to every command.
    Nonsense,
}

/// The SIM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sim {
    /// It works.
    Ready,
    /// It wants this PIN.
    Pin(&'static str),
    /// It wants its PUK: too many wrong PINs.
    Puk,
}

#[derive(Debug)]
struct Manner {
    answer: Answer,
    sim: Sim,
    wrong_pins: u32,
    /// All that it was told, in order.
    told: Vec<String>,
    /// The provider, while a connection lasts.
    provider: Option<u32>,
    /// What either end sends is lost.
    silent: bool,
    unplugged: bool,
}

/// The modem.
#[derive(Debug)]
pub struct Modem {
    port: PathBuf,
    isp: Netns,
    manner: Arc<Mutex<Manner>>,
    thread: Option<JoinHandle<()>>,
}

impl Modem {
    /// Plugs a modem in whose provider is in the namespace `isp`.
    pub fn new(isp: &Netns, sim: Sim) -> Result<Modem> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let port = PathBuf::from(format!("/dev/anywan-lab-{}-{number}", std::process::id()));
        let manner = Manner {
            answer: Answer::Connect,
            sim,
            wrong_pins: 0,
            told: Vec::new(),
            provider: None,
            silent: false,
            unplugged: true,
        };
        isp.nft(
            "table ip dialled { chain out { type nat hook postrouting priority srcnat
             oifname net0 masquerade
             }
             }",
        )?;
        let manner = Arc::new(Mutex::new(manner));
        let mut modem = Modem { port, isp: isp.clone(), manner, thread: None };
        modem.plug_in()?;
        Ok(modem)
    }

    /// Its serial port.
    pub fn port(&self) -> &Path {
        &self.port
    }

    fn manner(&self) -> MutexGuard<'_, Manner> {
        self.manner.lock().expect("nobody panics with it")
    }

    /// How it answers from now on.
    pub fn answer(&self, answer: Answer) {
        self.manner().answer = answer;
    }

    /// How often it was told something that begins so.
    pub fn told(&self, beginning: &str) -> usize {
        self.manner().told.iter().filter(|line| line.starts_with(beginning)).count()
    }

    /// Whether there is a connection to the provider.
    pub fn is_connected(&self) -> bool {
        self.manner().provider.is_some()
    }

    /// The far end hangs up, with the words of the protocol.
    pub fn hang_up(&self) -> Result<()> {
        let pid = self.manner().provider.context("nobody is connected")?;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process")?;
        kill_process(pid, Signal::TERM).context("signal the provider")
    }

    /// The line falls silent, until it is hung up.
    pub fn go_silent(&self) {
        self.manner().silent = true;
    }

    /// Takes it out of the router.
    pub fn unplug(&mut self) {
        self.manner().unplugged = true;
        let _ = fs::remove_file(&self.port);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    /// Puts it in again.
    pub fn plug_in(&mut self) -> Result<()> {
        let master = open_line(&self.port)?;
        self.manner().unplugged = false;
        let (manner, isp) = (Arc::clone(&self.manner), self.isp.clone());
        let works = Works { port: self.port.clone(), master, manner, isp, call: None };
        self.thread = Some(thread::spawn(move || works.run()));
        Ok(())
    }
}

impl Drop for Modem {
    fn drop(&mut self) {
        self.unplug();
    }
}

/// Makes a line whose far end is called `port`; returns the near one.
fn open_line(port: &Path) -> Result<OwnedFd> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).context("open a pty")?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?.into_string()?;
    let line = File::options().read(true).write(true).open(&name).context("open its line")?;
    let mut settings = tcgetattr(&line)?;
    settings.make_raw();
    tcsetattr(&line, OptionalActions::Now, &settings)?;
    let new = port.with_extension("new");
    std::os::unix::fs::symlink(&name, &new).context("name the port")?;
    fs::rename(new, port).context("name the port")?;
    Ok(master)
}

/// What is inside.
struct Works {
    port: PathBuf,
    master: OwnedFd,
    manner: Arc<Mutex<Manner>>,
    isp: Netns,
    call: Option<Child>,
}

impl Works {
    fn manner(&self) -> MutexGuard<'_, Manner> {
        self.manner.lock().expect("nobody panics with it")
    }

    fn run(mut self) {
        let mut line = Vec::new();
        while !self.manner().unplugged {
            let Some(bytes) = self.heard() else {
                // The router has closed the port: that hangs up. A pty that pppd left in a hurry
                // goes on speaking PPP, as no serial port would: a fresh one takes its place.
                if self.call.is_some() {
                    self.end_call();
                    match open_line(&self.port) {
                        Ok(master) => self.master = master,
                        Err(_) => return,
                    }
                }
                line.clear();
                thread::sleep(Duration::from_millis(5));
                continue;
            };
            let silent = self.manner().silent;
            if let Some(stdin) = self.call.as_mut().and_then(|call| call.stdin.as_mut()) {
                if !silent {
                    let _ = stdin.write_all(&bytes);
                }
                continue;
            }
            for byte in bytes {
                if byte == b'\r' {
                    let told =
                        String::from_utf8_lossy(&std::mem::take(&mut line)).trim().to_owned();
                    self.obey(&told);
                } else {
                    line.push(byte);
                }
            }
        }
        self.end_call();
    }

    /// What the router has sent, and hands on what the provider has; `None` while nobody has the
    /// port open.
    fn heard(&mut self) -> Option<Vec<u8>> {
        let soon = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        let provider = self.call.as_ref().and_then(|call| call.stdout.as_ref());
        let mut fds = vec![PollFd::new(&self.master, PollFlags::IN)];
        fds.extend(provider.map(|stdout| PollFd::new(stdout, PollFlags::IN)));
        poll(&mut fds, Some(&soon)).ok()?;
        let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        let mut buffer = [0; 4096];
        if ready.get(1).is_some_and(|flags| !flags.is_empty()) {
            let stdout = self.call.as_mut().and_then(|call| call.stdout.as_mut())?;
            match stdout.read(&mut buffer) {
                Ok(_) if self.manner().silent => {}
                Ok(length) if length > 0 => self.say(&buffer[..length]),
                Ok(_) | Err(_) => {
                    self.end_call();
                    self.say(b"\r\nNO CARRIER\r\n");
                }
            }
        }
        if ready[0].contains(PollFlags::IN) {
            let length = rustix::io::read(&self.master, &mut buffer).ok()?;
            return Some(buffer[..length].to_vec());
        }
        if ready[0].contains(PollFlags::HUP) { None } else { Some(Vec::new()) }
    }

    fn say(&self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Ok(length @ 1..) = rustix::io::write(self.master.as_fd(), rest) {
            rest = &rest[length..];
            if rest.is_empty() {
                return;
            }
        }
    }

    fn obey(&mut self, told: &str) {
        if told.is_empty() {
            return;
        }
        let mut manner = self.manner();
        manner.told.push(told.to_owned());
        let answer = match manner.answer {
            Answer::Silence => return,
            Answer::Nonsense => "\u{7f}}#!~ x".to_owned(),
            Answer::Connect | Answer::Words(_) => reply(&mut manner, told),
        };
        let connects = answer == "CONNECT";
        drop(manner);
        self.say(format!("\r\n{answer}\r\n").as_bytes());
        if connects && self.call().is_err() {
            self.say(b"\r\nNO CARRIER\r\n");
        }
    }

    /// Connects to the provider.
    fn call(&mut self) -> Result<()> {
        let [far, near, resolver] = ADDRESSES;
        let addresses = format!("{far}:{near}");
        let child = self.isp.inside(|| {
            Command::new("pppd")
                .args(["notty", "nodetach", "noauth", "local", "nolock", "noccp", "novj"])
                .args([addresses.as_str(), "ms-dns", resolver, "ip-up-script", "/bin/true"])
                .args(["ip-down-script", "/bin/true", "lcp-echo-interval", "0", "+ipv6"])
                .args(["logfd", "2"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
        })??;
        self.manner().provider = Some(child.id());
        self.call = Some(child);
        Ok(())
    }

    fn end_call(&mut self) {
        if let Some(mut call) = self.call.take() {
            let mut manner = self.manner();
            (manner.provider, manner.silent) = (None, false);
            drop(manner);
            let _ = call.kill();
            let _ = call.wait();
        }
    }
}

fn reply(manner: &mut Manner, told: &str) -> String {
    let locked = manner.wrong_pins >= TRIES || manner.sim == Sim::Puk;
    let wants = match &manner.sim {
        Sim::Ready => None,
        Sim::Pin(pin) => Some(*pin),
        Sim::Puk => Some(""),
    };
    if told == "AT+CPIN?" {
        let state = match wants {
            _ if locked => "SIM PUK",
            Some(_) => "SIM PIN",
            None => "READY",
        };
        return format!("+CPIN: {state}\r\n\r\nOK");
    }
    if let Some(given) = told.strip_prefix("AT+CPIN=") {
        if !locked && wants == Some(given.trim_matches('"')) {
            manner.sim = Sim::Ready;
            return "OK".to_owned();
        }
        manner.wrong_pins += 1;
        return "+CME ERROR: 16".to_owned();
    }
    match manner.answer {
        Answer::Words(words) if told.starts_with("ATD") => words.to_owned(),
        _ if told.starts_with("ATD") && wants.is_some() => "ERROR".to_owned(),
        _ if told.starts_with("ATD") => "CONNECT".to_owned(),
        _ if told.starts_with("AT") => "OK".to_owned(),
        Answer::Connect | Answer::Words(_) | Answer::Silence | Answer::Nonsense => {
            "ERROR".to_owned()
        }
    }
}
