//! One kept netlink socket for requests: sends, waits for the answer, gathers dumps. Blocking, as
//! the kernel works inside the very call and answers take microseconds; a receive timeout guards
//! against the impossible. In: messages. Out: payloads, or why not.

use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use netlink_sys::Socket;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, sockopt};

use super::error::Refused;
use super::wire::{Attribute, Attributes, Messages, Received, Writer, u32_at};

/// How long an answer may take. Answers take microseconds; a kernel that is out of memory or
/// holds the RTNL for a device reset has been seen to take most of a second.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The largest datagram: the kernel fills at most 32 KiB for one read of a dump.
const DATAGRAM: usize = 64 * 1024;
/// How often an interrupted dump is begun again: each takes microseconds, and a change every few
/// microseconds for that long is a storm that the next event will end.
const ATTEMPTS: u32 = 10;
/// Room for the acknowledgements of a large batch, and for the batch itself (some 64 bytes an
/// element and change).
const BUFFER: usize = 8 * 1024 * 1024;

const ACK: u16 = libc::NLM_F_ACK as u16;
const DUMP: u16 = libc::NLM_F_DUMP as u16;
const INTERRUPTED: u16 = libc::NLM_F_DUMP_INTR as u16;
const CAPPED: u16 = libc::NLM_F_CAPPED as u16;
const HAS_TLVS: u16 = libc::NLM_F_ACK_TLVS as u16;
const ERROR: u16 = libc::NLMSG_ERROR as u16;
const DONE: u16 = libc::NLMSG_DONE as u16;
const EXT_ACK_MESSAGE: u16 = 1;

/// How a dump ended.
enum End {
    Complete,
    Interrupted,
    Stopped,
}

/// A kept socket.
#[derive(Debug)]
pub(crate) struct Conn {
    protocol: isize,
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Conn {
    /// Opens a socket of a netlink protocol in the network namespace of the calling thread.
    pub(crate) fn open(protocol: isize) -> io::Result<Conn> {
        let socket = connect(protocol)?;
        Ok(Conn { protocol, socket, sequence: 0, buffer: vec![0; DATAGRAM] })
    }

    /// Sends a request for a change and waits until the kernel has carried it out.
    pub(crate) fn change(&mut self, mut request: Writer) -> Result<(), Refused> {
        request.add_flags(request.message_start(), ACK);
        let sequence = self.next_sequence();
        request.set_sequence(sequence);
        self.send(request.bytes())?;
        loop {
            let length = self.receive(RecvFlags::empty())?;
            for message in Messages(&self.buffer[..length]) {
                if message.sequence == sequence && message.kind == ERROR {
                    return outcome(&message);
                }
            }
        }
    }

    /// Sends a request that has exactly one answer, and returns its payload.
    pub(crate) fn ask(&mut self, mut request: Writer) -> Result<Vec<u8>, Refused> {
        let sequence = self.next_sequence();
        request.set_sequence(sequence);
        self.send(request.bytes())?;
        loop {
            let length = self.receive(RecvFlags::empty())?;
            for message in Messages(&self.buffer[..length]) {
                if message.sequence != sequence {
                    continue;
                }
                if message.kind == ERROR {
                    outcome(&message)?;
                    return Err(Refused::Malformed);
                }
                return Ok(message.payload.to_vec());
            }
        }
    }

    /// Reads a whole dump, again from the start when it was interrupted by a change.
    pub(crate) fn dump<T>(
        &mut self,
        request: &mut Writer,
        mut parse: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Refused> {
        self.dump_until(request, |payload| ControlFlow::Continue(parse(payload)))
    }

    /// Reads a dump until `parse` breaks, and then closes this socket and opens a new one: the
    /// kernel would insist on delivering the rest. So only for sockets that commit nothing.
    pub(crate) fn dump_until<T>(
        &mut self,
        request: &mut Writer,
        mut parse: impl FnMut(&[u8]) -> ControlFlow<(), Option<T>>,
    ) -> Result<Vec<T>, Refused> {
        request.add_flags(request.message_start(), DUMP);
        for _ in 0..ATTEMPTS {
            let mut found = Vec::new();
            let mut each = |payload: &[u8]| match parse(payload) {
                ControlFlow::Continue(item) => {
                    found.extend(item);
                    ControlFlow::Continue(())
                }
                ControlFlow::Break(()) => ControlFlow::Break(()),
            };
            match self.dump_once(request, &mut each) {
                Ok(End::Complete) => return Ok(found),
                Ok(End::Interrupted) => {}
                Ok(End::Stopped) => {
                    self.reopen()?;
                    return Ok(found);
                }
                Err(refused @ Refused::Kernel { .. }) => return Err(refused),
                Err(broken) => {
                    // The dump may still be going on, and the next would be refused (EBUSY).
                    self.reopen()?;
                    return Err(broken);
                }
            }
        }
        Err(Refused::Interrupted(ATTEMPTS))
    }

    fn dump_once(
        &mut self,
        request: &mut Writer,
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<End, Refused> {
        let sequence = self.next_sequence();
        request.set_sequence(sequence);
        self.send(request.bytes())?;
        let mut interrupted = false;
        loop {
            let length = self.receive(RecvFlags::empty())?;
            for message in Messages(&self.buffer[..length]) {
                if message.sequence != sequence {
                    continue;
                }
                interrupted |= message.flags & INTERRUPTED != 0;
                if message.kind == ERROR {
                    outcome(&message)?;
                    return Err(Refused::Malformed);
                }
                if message.kind == DONE {
                    outcome(&message)?;
                    return Ok(if interrupted { End::Interrupted } else { End::Complete });
                }
                if each(message.payload).is_break() {
                    return Ok(End::Stopped);
                }
            }
        }
    }

    /// Sends bytes that hold several messages in one call, and returns the kernel's answers to
    /// them: sequence number and refusal. The kernel answers inside the call.
    pub(crate) fn transact(
        &mut self,
        bytes: &[u8],
    ) -> Result<Vec<(u32, Option<Refused>)>, Refused> {
        self.discard_stale()?;
        self.send(bytes)?;
        let mut answers = Vec::new();
        loop {
            let length = match self.receive(RecvFlags::DONTWAIT) {
                Ok(length) => length,
                Err(Refused::Timeout(_)) => return Ok(answers),
                Err(other) => return Err(other),
            };
            for message in Messages(&self.buffer[..length]) {
                if message.kind == ERROR {
                    answers.push((message.sequence, outcome(&message).err()));
                }
            }
        }
    }

    /// Reserves `count` sequence numbers and returns the first.
    pub(crate) fn reserve(&mut self, count: u32) -> u32 {
        // Far from the end, so that a batch never wraps; 0 is the sequence number of events.
        if self.sequence > u32::MAX / 2 {
            self.sequence = 0;
        }
        let first = self.sequence + 1;
        self.sequence += count;
        first
    }

    fn next_sequence(&mut self) -> u32 {
        self.reserve(1)
    }

    fn discard_stale(&mut self) -> Result<(), Refused> {
        loop {
            match self.receive(RecvFlags::DONTWAIT) {
                Ok(_) => {}
                Err(Refused::Timeout(_)) => return Ok(()),
                Err(other) => return Err(other),
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Refused> {
        rustix::io::retry_on_intr(|| {
            rustix::net::send(&self.socket, bytes, SendFlags::empty()).map(drop)
        })
        .map_err(|errno| Refused::Socket(errno.into()))
    }

    fn receive(&mut self, flags: RecvFlags) -> Result<usize, Refused> {
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.socket, &mut self.buffer[..], flags | RecvFlags::TRUNC)
        });
        match received {
            Ok((_, full)) if full > self.buffer.len() => Err(Refused::Malformed),
            Ok((length, _)) => Ok(length),
            Err(Errno::AGAIN) => Err(Refused::Timeout(TIMEOUT.as_millis() as u64)),
            Err(errno) => Err(Refused::Socket(errno.into())),
        }
    }

    fn reopen(&mut self) -> Result<(), Refused> {
        self.socket = connect(self.protocol)?;
        Ok(())
    }
}

/// Opens, tunes and binds a socket.
fn connect(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    // Kernels before 4.20 know no strict checking; we need 6.1, and nfnetlink ignores it.
    socket.set_netlink_get_strict_chk(true)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(TIMEOUT))?;
    enlarge(&socket, BUFFER)?;
    socket.bind_auto()?;
    Ok(socket)
}

/// Enlarges both buffers; without privilege over the initial user namespace only as far as the
/// system allows.
fn enlarge(socket: &Socket, bytes: usize) -> io::Result<()> {
    if sockopt::set_socket_recv_buffer_size_force(socket, bytes).is_err() {
        sockopt::set_socket_recv_buffer_size(socket, bytes)?;
    }
    if sockopt::set_socket_send_buffer_size_force(socket, bytes).is_err() {
        sockopt::set_socket_send_buffer_size(socket, bytes)?;
    }
    Ok(())
}

/// What an error, acknowledgement or end-of-dump message says.
pub(crate) fn outcome(message: &Received<'_>) -> Result<(), Refused> {
    let Some(code) = message.payload.first_chunk().map(|code| i32::from_ne_bytes(*code)) else {
        // An end of a dump without a code, as old protocols send it.
        return if message.kind == DONE { Ok(()) } else { Err(Refused::Malformed) };
    };
    if code >= 0 {
        return Ok(());
    }
    let message = ext_ack(message).unwrap_or_default();
    Err(Refused::Kernel { errno: code.saturating_neg(), message })
}

/// The kernel's words behind an error: after the code, and after the header (or all) of the
/// request that it repeats; at the end of a dump right after the code.
fn ext_ack(message: &Received<'_>) -> Option<String> {
    if message.flags & HAS_TLVS == 0 {
        return None;
    }
    let repeated = match (message.kind, message.flags & CAPPED) {
        (DONE, _) => 0,
        (_, 0) => usize::try_from(u32_at(message.payload, 4)?).ok()?.checked_add(3)? & !3,
        _ => 16,
    };
    let skip = repeated.checked_add(4)?;
    Attributes::after(message.payload, skip).find(EXT_ACK_MESSAGE).map(Attribute::text)
}
