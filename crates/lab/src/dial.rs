//! Many connection attempts at once, on one thread, each ending in an answer or a failure.
//!
//! An attempt connects to an echo server, says one word and waits for the line that tells which
//! address it came from. Sockets are made in the namespace of the calling thread.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::time::Timespec;
use socket2::{Domain, Socket, Type};

/// What to say to an echo server.
pub(crate) const WORD: &[u8] = b"x\n";

/// A transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Proto {
    /// Both.
    pub const BOTH: [Proto; 2] = [Proto::Tcp, Proto::Udp];
}

/// How an attempt or an exchange failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// ECONNREFUSED.
    Refused,
    /// ECONNRESET, EPIPE or an unexpected end.
    Reset,
    /// No answer in time, or ETIMEDOUT.
    TimedOut,
    /// ENETUNREACH, EHOSTUNREACH, EACCES (an ICMP refusal of some kind).
    Unreachable,
    /// Any other errno.
    Other(i32),
    /// An answer that is no known ISP's address: the connection went some other way.
    Stranger(IpAddr),
}

impl Failure {
    /// The kind of an I/O error.
    pub fn of(error: &io::Error) -> Failure {
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => Failure::Refused,
            Some(libc::ECONNRESET | libc::EPIPE) | None => Failure::Reset,
            Some(libc::ETIMEDOUT) => Failure::TimedOut,
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EPERM) => {
                Failure::Unreachable
            }
            Some(other) => Failure::Other(other),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Whom to ask, and from where.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Transport.
    pub proto: Proto,
    /// The echo server.
    pub server: SocketAddr,
    /// Own address, if bound to one.
    pub source: Option<IpAddr>,
}

/// An attempt that has ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) target: Target,
    pub(crate) started: Instant,
    pub(crate) took: Duration,
    /// The connected, nonblocking socket and what the server sees as our address.
    pub(crate) result: Result<(Socket, IpAddr), Failure>,
}

struct Pending {
    target: Target,
    socket: Socket,
    started: Instant,
    asked: bool,
}

/// Attempts under way.
pub(crate) struct Attempts {
    epoll: OwnedFd,
    timeout: Duration,
    pending: BTreeMap<u64, Pending>,
    done: Vec<Done>,
    next: u64,
}

impl Attempts {
    pub(crate) fn new(timeout: Duration) -> io::Result<Attempts> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Attempts { epoll, timeout, pending: BTreeMap::new(), done: Vec::new(), next: 0 })
    }

    /// Number of attempts that have not ended.
    pub(crate) fn under_way(&self) -> usize {
        self.pending.len()
    }

    /// Starts one; a failure at once is reported by the next [`Attempts::poll`].
    pub(crate) fn start(&mut self, target: Target) {
        let started = Instant::now();
        if let Err(error) = self.try_start(target, started) {
            let result = Err(Failure::of(&error));
            self.done.push(Done { target, started, took: started.elapsed(), result });
        }
    }

    fn try_start(&mut self, target: Target, started: Instant) -> io::Result<()> {
        let kind = match target.proto {
            Proto::Tcp => Type::STREAM,
            Proto::Udp => Type::DGRAM,
        };
        let any = match target.server {
            SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = Socket::new(Domain::for_address(target.server), kind, None)?;
        socket.set_nonblocking(true)?;
        bind_to_a_fresh_port(&socket, target.source.unwrap_or(any))?;
        match socket.connect(&target.server.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let asked = target.proto == Proto::Udp;
        if asked {
            socket.send(WORD)?;
        }
        let flags = if asked { EventFlags::IN } else { EventFlags::OUT };
        epoll::add(&self.epoll, socket.as_fd(), EventData::new_u64(self.next), flags)?;
        self.pending.insert(self.next, Pending { target, socket, started, asked });
        self.next += 1;
        Ok(())
    }

    /// Waits for at most `wait` for something to happen; returns what has ended.
    pub(crate) fn poll(&mut self, wait: Duration) -> io::Result<Vec<Done>> {
        let wait = if self.done.is_empty() { wait } else { Duration::ZERO };
        let timeout = Timespec::try_from(wait).map_err(io::Error::other)?;
        let mut events = Vec::with_capacity(256);
        let buffer = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&self.epoll, buffer, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events {
            self.step(event.data.u64());
        }
        self.expire();
        Ok(std::mem::take(&mut self.done))
    }

    fn step(&mut self, key: u64) {
        let Some(pending) = self.pending.get_mut(&key) else { return };
        let outcome = if pending.asked { listen(&pending.socket) } else { self.ask(key) };
        match outcome {
            Ok(None) => {}
            Ok(Some(answer)) => self.end(key, Ok(answer)),
            Err(error) => self.end(key, Err(Failure::of(&error))),
        }
    }

    fn ask(&mut self, key: u64) -> io::Result<Option<IpAddr>> {
        let Some(pending) = self.pending.get_mut(&key) else { return Ok(None) };
        if let Some(error) = pending.socket.take_error()? {
            return Err(error);
        }
        pending.socket.send(WORD)?;
        pending.asked = true;
        let data = EventData::new_u64(key);
        epoll::modify(&self.epoll, pending.socket.as_fd(), data, EventFlags::IN)?;
        Ok(None)
    }

    fn end(&mut self, key: u64, result: Result<IpAddr, Failure>) {
        if let Some(Pending { target, socket, started, .. }) = self.pending.remove(&key) {
            let _ = epoll::delete(&self.epoll, socket.as_fd());
            let took = started.elapsed();
            let result = result.map(|answer| (socket, answer));
            self.done.push(Done { target, started, took, result });
        }
    }

    fn expire(&mut self) {
        let late =
            |(key, p): (&u64, &Pending)| (p.started.elapsed() > self.timeout).then_some(*key);
        let late: Vec<u64> = self.pending.iter().filter_map(late).collect();
        for key in late {
            self.end(key, Err(Failure::TimedOut));
        }
    }
}

/// Reads an echo server's answer; `None` while there is none.
pub(crate) fn listen(mut socket: &Socket) -> io::Result<Option<IpAddr>> {
    let mut buffer = [0; 256];
    let count = match socket.read(&mut buffer) {
        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(count) => count,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        Err(error) => return Err(error),
    };
    let text = String::from_utf8_lossy(&buffer[..count]);
    let last = text.lines().last().and_then(|line| line.parse().ok());
    last.map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Binds to a port that no socket of this program has had before, as far as there are any. Left to
/// the kernel, two among a few dozen UDP flows soon have the same, and so has a TCP attempt now and
/// then with one that was given up a while ago. To the router the second would be the first one,
/// which sticks to its WAN.
fn bind_to_a_fresh_port(socket: &Socket, source: IpAddr) -> io::Result<()> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 50_000;
    loop {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        match socket.bind(&SocketAddr::new(source, port).into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            bound => return bound,
        }
    }
}
