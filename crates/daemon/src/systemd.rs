//! What systemd hears of us: ready, reloading, stopping, alive, and a line for people; sd_notify(3).
//! In: what the loop says. Out: datagrams to `$NOTIFY_SOCKET`. Without that variable it is silent.
//! It never blocks: what the socket does not take now is kept and offered again, the newest word on
//! each matter. It has no thread and no timer of its own, so that a loop that hangs falls silent.

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use anywan_core::time::Moment;
use rustix::time::{ClockId, clock_gettime};

/// Signs of life in the time after which we would be taken for dead. Half of it is what
/// sd_watchdog_enabled(3) advises; a third lets one be late.
const BEATS: u32 = 3;
/// How soon what the socket did not take is offered again.
const AGAIN: Duration = Duration::from_millis(100);

/// The environment that a service manager gives, as text.
#[derive(Debug, Default)]
struct Given {
    socket: Option<std::ffi::OsString>,
    watchdog_usec: Option<String>,
    watchdog_pid: Option<String>,
}

/// Our side of the talk with systemd. One loop owns it.
#[derive(Debug)]
pub struct Systemd {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// Between two signs of life; `None` when nobody listens for them.
    beat: Option<Duration>,
    /// When the next is due: from the first moment that it is asked.
    next_beat: Moment,
    /// The line for people, as told last.
    status: String,
    /// What the socket has not taken yet: one line for each matter, so six at most.
    unsent: Vec<String>,
    unsent_again: Moment,
}

impl Systemd {
    /// As the environment says.
    pub fn from_environment() -> Systemd {
        let text = |name: &str| std::env::var(name).ok();
        Systemd::new(Given {
            socket: std::env::var_os("NOTIFY_SOCKET"),
            watchdog_usec: text("WATCHDOG_USEC"),
            watchdog_pid: text("WATCHDOG_PID"),
        })
    }

    fn new(given: Given) -> Systemd {
        let socket = given.socket.as_ref().filter(|name| !name.is_empty()).and_then(|name| {
            let opened = open(name.as_bytes());
            opened
                .inspect_err(|error| {
                    tracing::warn!(socket = ?name, %error, "NOTIFY_SOCKET cannot be used");
                })
                .ok()
        });
        let beat = watchdog(&given).filter(|_| socket.is_some()).map(|span| span / BEATS);
        Systemd {
            socket,
            beat,
            next_beat: Moment::default(),
            status: String::new(),
            unsent: Vec::new(),
            unsent_again: Moment::default(),
        }
    }

    /// The start, or a reload, is over.
    pub fn ready(&mut self, now: Moment) {
        self.say(&["READY=1".to_owned()], now);
    }

    /// A reload begins; [`Systemd::ready`] ends it.
    pub fn reloading(&mut self, now: Moment) {
        let time = clock_gettime(ClockId::Monotonic);
        let usec = i128::from(time.tv_sec) * 1_000_000 + i128::from(time.tv_nsec) / 1_000;
        self.say(&["RELOADING=1".to_owned(), format!("MONOTONIC_USEC={usec}")], now);
    }

    /// The end begins.
    pub fn stopping(&mut self, now: Moment) {
        self.say(&["STOPPING=1".to_owned()], now);
    }

    /// The line for people; told when it changes.
    pub fn status(&mut self, status: String, now: Moment) {
        if self.status != status {
            self.say(&[format!("STATUS={status}")], now);
            self.status = status;
        }
    }

    /// When [`Systemd::mind`] has something to do.
    pub fn next(&self) -> Option<Moment> {
        let unsent = (!self.unsent.is_empty()).then_some(self.unsent_again);
        let beat = self.beat.map(|_| self.next_beat);
        [unsent, beat].into_iter().flatten().min()
    }

    /// Gives the sign of life that is due. To be called by the loop, in each of its
    /// turns, and by nobody else.
    pub fn mind(&mut self, now: Moment) {
        if let Some(beat) = self.beat.filter(|_| self.next_beat <= now) {
            self.next_beat = now + beat;
            self.say(&["WATCHDOG=1".to_owned()], now);
        } else if !self.unsent.is_empty() && self.unsent_again <= now {
            self.say(&[], now);
        }
    }

    fn say(&mut self, lines: &[String], now: Moment) {
        let Some((socket, address)) = &self.socket else { return };
        for line in lines {
            self.unsent.retain(|old| matter(old) != matter(line));
            self.unsent.push(line.clone());
        }
        match socket.send_to_addr(self.unsent.join("\n").as_bytes(), address) {
            Ok(_) => self.unsent.clear(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock) => {
                self.unsent_again = now + AGAIN;
            }
            Err(error) => {
                // Whoever listened has gone, or comes back and asks for nothing that is past.
                tracing::debug!(%error, unsent = ?self.unsent, "systemd could not be told");
                self.unsent.clear();
            }
        }
    }
}

/// What a line is about.
fn matter(line: &str) -> &str {
    line.split_once('=').map_or(line, |(matter, _)| matter)
}

/// A path, or `@` and an abstract name.
fn open(name: &[u8]) -> std::io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// After how long a silence we would be taken for dead, if anybody listens, and to us.
fn watchdog(given: &Given) -> Option<Duration> {
    let own = std::process::id().to_string();
    let usec: u64 = given.watchdog_usec.as_deref()?.parse().ok()?;
    let ours = given.watchdog_pid.as_ref().is_none_or(|pid| *pid == own);
    (ours && usec > 0).then(|| Duration::from_micros(usec))
}

#[cfg(test)]
mod tests;
