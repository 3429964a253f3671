//! Sockets for datagrams that leave through one interface under one mark, and what is received
//! from there, each with the time it has waited in the queue: a raw one that receives nothing
//! but echo replies, and a UDP one that is connected to its server.
//!
//! Raw for echoes, because ping sockets are refused even to root where `ping_group_range` is "1 0".
#![expect(unsafe_code, reason = "filters and receive timestamps have no safe wrapper")]

use std::io;
use std::mem::{MaybeUninit, size_of, size_of_val};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, SystemTime};

use anywan_core::names::{Family, Mark};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::packet::ROOM;

/// `ICMP_FILTER` of linux/icmp.h: a mask of types that are *not* delivered.
const ICMP_FILTER: libc::c_int = 1;

/// `ICMPV6_FILTER` of linux/icmpv6.h: eight words of the same.
const ICMPV6_FILTER: libc::c_int = 1;

/// `SO_TIMESTAMPNS_NEW`, Linux 5.1: 64 bits of seconds on every platform.
const TIMESTAMP: libc::c_int = 64;

/// An open socket and what it is bound to.
#[derive(Debug)]
pub(super) struct EchoSocket {
    inner: AsyncFd<Socket>,
    device: String,
    index: u32,
    mark: Mark,
}

/// What was received.
#[derive(Debug)]
pub(super) struct Received {
    /// Bytes in the buffer.
    pub(super) length: usize,
    /// Who sent it.
    pub(super) source: IpAddr,
    /// How long it lay in the socket's queue, unknown when the kernel gave no time.
    pub(super) waited: Option<Duration>,
}

impl EchoSocket {
    /// Opens a socket bound to the interface that has the name `device` now.
    pub(super) fn open(family: Family, device: &str, mark: Mark) -> io::Result<EchoSocket> {
        let (domain, protocol) = match family {
            Family::Ipv4 => (Domain::IPV4, Protocol::ICMPV4),
            Family::Ipv6 => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, Type::RAW.nonblocking().cloexec(), Some(protocol))?;
        // First of all, so that nothing else gets into its queue.
        only_echo_replies(&socket, family)?;
        socket.bind_device(Some(device.as_bytes()))?;
        socket.set_mark(mark.0)?;
        set_option(&socket, libc::SOL_SOCKET, TIMESTAMP, &1_i32)?;
        let index = rustix::net::netdevice::name_to_index(socket.as_fd(), device)?;
        // SAFETY: the socket moves into the AsyncFd, which has it for itself until it is dropped.
        let inner = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(EchoSocket { inner, device: device.to_owned(), index, mark })
    }

    /// Whether it still is the socket for probes through `device` under `mark`: a stick that was
    /// pulled and plugged in again is another interface of the same name.
    pub(super) fn serves(&self, device: &str, mark: Mark) -> bool {
        // Asked by the index: asked for the index of a name that does not exist, the kernel looks
        // for a module of that name first (`dev_load`), and its caller waits for modprobe.
        let name = || rustix::net::netdevice::index_to_name(self.inner.get_ref(), self.index);
        self.device == device && self.mark == mark && name().is_ok_and(|name| name == device)
    }

    /// Sends one packet, without waiting.
    pub(super) fn send(&self, packet: &[u8], to: IpAddr) -> io::Result<()> {
        let to = SockAddr::from(SocketAddr::new(to, 0));
        self.inner.get_ref().send_to(packet, &to).map(|_| ())
    }

    /// Waits until there is something to receive. Can be dropped at any time.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.inner.readable().await.map(|_| ())
    }

    /// Takes one packet from the queue; `WouldBlock` when it is empty.
    pub(super) fn receive(&self, buffer: &mut [u8; ROOM]) -> io::Result<Received> {
        self.inner.try_io(Interest::READABLE, |socket| receive(socket, buffer))
    }
}

/// A UDP socket connected to one server: what others send does not get in.
#[derive(Debug)]
pub(super) struct ServerSocket(AsyncFd<Socket>);

impl ServerSocket {
    /// Opens a socket for `server`, bound to the interface that has the name `device` now.
    pub(super) fn open(server: SocketAddr, device: &str, mark: Mark) -> io::Result<ServerSocket> {
        let kind = Type::DGRAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(server), kind, Some(Protocol::UDP))?;
        socket.bind_device(Some(device.as_bytes()))?;
        socket.set_mark(mark.0)?;
        set_option(&socket, libc::SOL_SOCKET, TIMESTAMP, &1_i32)?;
        socket.connect(&server.into())?;
        // SAFETY: the socket moves into the AsyncFd, which has it for itself until it is dropped.
        let inner = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(ServerSocket(inner))
    }

    /// Sends one message, without waiting.
    pub(super) fn send(&self, message: &[u8]) -> io::Result<()> {
        self.0.get_ref().send(message).map(|_| ())
    }

    /// Waits until there is something to receive, and takes one message. Can be dropped at any
    /// time.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        loop {
            let mut guard = self.0.readable().await?;
            if let Ok(result) = guard.try_io(|socket| receive(socket.get_ref(), buffer)) {
                return result;
            }
        }
    }

    /// Takes one message from the queue; `WouldBlock` when it is empty. Asks the kernel itself,
    /// not what the runtime knows of it: that may be late.
    pub(super) fn receive_now(&self, buffer: &mut [u8]) -> io::Result<Received> {
        receive(self.0.get_ref(), buffer)
    }
}

/// How long the answer took that was sent for at `sent` and has waited in the queue until now.
/// What counts is when the kernel received it, however late it is read.
pub(super) fn round_trip(sent: Instant, waited: Option<Duration>) -> Duration {
    let elapsed = sent.elapsed();
    // The stamp is of the wall clock: when that was set meanwhile, it says nothing.
    let waited = waited.filter(|waited| *waited <= elapsed).unwrap_or_default();
    elapsed.saturating_sub(waited)
}

fn only_echo_replies(socket: &Socket, family: Family) -> io::Result<()> {
    match family {
        Family::Ipv4 => set_option(socket, libc::SOL_RAW, ICMP_FILTER, &!1_u32),
        Family::Ipv6 => {
            let mut blocked = [u32::MAX; 8];
            blocked[129 / 32] &= !(1 << (129 % 32));
            set_option(socket, libc::SOL_ICMPV6, ICMPV6_FILTER, &blocked)
        }
    }
}

fn set_option<T>(
    socket: &Socket,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: `value` is alive during the call and has `length` bytes, which the kernel copies.
    let status = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length)
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<Received> {
    // Room for one control message of two 64-bit numbers, aligned as its header wants it.
    let mut control = [0_u64; 8];
    let mut storage = SockAddrStorage::zeroed();
    let mut piece =
        libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: size_of_val(buffer) };
    // SAFETY: msghdr is made of integers and pointers, for which all zeroes is a valid value.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_name = std::ptr::from_mut(&mut storage).cast();
    message.msg_namelen = storage.size_of();
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: all buffers in `message` are alive during the call and have the lengths given.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written an address of `msg_namelen` bytes there.
    let source = unsafe { SockAddr::new(storage, message.msg_namelen) };
    let source = source.as_socket().ok_or(io::ErrorKind::InvalidData)?.ip();
    let waited = stamp(&message).and_then(|at| SystemTime::now().duration_since(at).ok());
    Ok(Received { length, source, waited })
}

/// When the kernel received the packet.
fn stamp(message: &libc::msghdr) -> Option<SystemTime> {
    // SAFETY: `recvmsg` has filled the header in, and its control buffer is still alive.
    let first = unsafe { libc::CMSG_FIRSTHDR(message).as_ref()? };
    // SAFETY: only arithmetic on the size of the header.
    let needed = unsafe { libc::CMSG_LEN(16) };
    if first.cmsg_level != libc::SOL_SOCKET
        || first.cmsg_type != TIMESTAMP
        || (first.cmsg_len as u64) < u64::from(needed)
    {
        return None;
    }
    // SAFETY: the message is long enough for two 64-bit numbers (checked above).
    let [seconds, nanos] = unsafe { libc::CMSG_DATA(first).cast::<[i64; 2]>().read_unaligned() };
    let since_epoch = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(since_epoch)
}
