//! Listens for TCP flows whose conntrack entry went before its time while a client may be waiting:
//! the kernel deletes a masqueraded flow with its interface or address, thousands at once. In:
//! DESTROY messages on a netlink socket. Out: [`Gone`].
//!
//! A filter in the kernel (classic BPF) lets only such messages through, so that the thousands of
//! flows a second that end by themselves do not wake the daemon. It asks for the TCP state and
//! the time left, which DESTROY messages carry since Linux 5.10; an older kernel would let nothing
//! through. Owned and awaited by the daemon's one loop; stops when dropped.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use anywan_core::observed::TcpFlow;

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_NETFILTER;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use socket2::{SockFilter, SockRef};
use tokio::io::unix::AsyncFd;
use tracing::warn;

use super::super::error::{KernelError, Refused};
use super::super::monitor::{listener, watched};
use super::super::wire::{Attributes, Messages};
use super::flows::{WAITING, waiting};
use super::{DELETE, MARK, NFGENMSG, PROTOINFO, PROTOINFO_TCP, TCP_STATE, TIMEOUT, message_type};

/// The kernel's queue: some 16,000 messages, which come all at once when an address goes. The
/// memory is used only then.
const QUEUE: usize = 8 * 1024 * 1024;
/// The largest datagram: one message, below 1 KB.
const DATAGRAM: usize = 16 * 1024;
/// How many messages are taken at a time, so that a storm cannot hold the loop.
const BATCH: u32 = 4096;

/// A batch of flows that are gone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gone {
    /// The flows, at most 4,096, in the order in which they went.
    pub flows: Vec<TcpFlow>,
    /// How often the queue overflowed since the last batch: then some flows are missing, and
    /// nobody can say which. Their clients wait for their own timeouts.
    pub overruns: u32,
}

/// The ear on conntrack. Entries that were made before the first listener tell nothing unless
/// `net.netfilter.nf_conntrack_events` is 1.
#[derive(Debug)]
pub struct Destroyed {
    socket: AsyncFd<Socket>,
    mask: u32,
    buffer: Vec<u8>,
}

impl Destroyed {
    /// Subscribes in the network namespace of the calling thread, to flows whose mark under `mask`
    /// is not 0 (the bits of the WAN number); needs a running tokio reactor.
    pub fn open(mask: u32) -> Result<Destroyed, KernelError> {
        Destroyed::with_queue(mask, QUEUE)
    }

    /// Like [`Destroyed::open`] with a queue of another size in bytes, for tests of overruns.
    pub fn with_queue(mask: u32, queue: usize) -> Result<Destroyed, KernelError> {
        let open = || -> io::Result<AsyncFd<Socket>> {
            let socket = listener(NETLINK_NETFILTER, queue)?;
            // First the filter: nothing may come in past it.
            SockRef::from(&socket).attach_filter(&filter(mask))?;
            socket.add_membership(libc::NFNLGRP_CONNTRACK_DESTROY as u32)?;
            watched(socket)
        };
        let socket = open().map_err(|error| KernelError::Open {
            what: "the netlink socket that announces the end of flows",
            hint: "run anywand as root, on a kernel with nf_conntrack_netlink",
            source: Refused::Socket(error),
        })?;
        Ok(Destroyed { socket, mask, buffer: vec![0; DATAGRAM] })
    }

    /// Waits until some flow is gone or some news was lost, and takes all that is known by then.
    /// Losing the future loses nothing.
    pub async fn next(&mut self) -> Gone {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Gone> {
        let Destroyed { socket, mask, buffer } = self;
        let mut gone = Gone::default();
        for taken in 0.. {
            let Poll::Ready(Ok(mut ready)) = socket.poll_read_ready(context) else { break };
            if taken == BATCH {
                // The rest has its turn after the loop's other work.
                context.waker().wake_by_ref();
                break;
            }
            match rustix::net::recv(socket.get_ref(), &mut buffer[..], RecvFlags::TRUNC) {
                Ok((_, full)) if full > buffer.len() => gone.overruns += 1,
                Ok((length, _)) => {
                    let messages = Messages(&buffer[..length]);
                    let ends = messages.filter(|message| message.kind == message_type(DELETE));
                    gone.flows.extend(ends.filter_map(|end| destroyed(end.payload, *mask)));
                }
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(Errno::NOBUFS) => gone.overruns += 1,
                Err(error) => {
                    warn!(%error, "listening for the end of flows failed");
                    gone.overruns += 1;
                    ready.clear_ready();
                }
            }
        }
        if gone == Gone::default() { Poll::Pending } else { Poll::Ready(gone) }
    }
}

/// The flow of a DESTROY message that passes the filter, asked again.
pub(crate) fn destroyed(payload: &[u8], mask: u32) -> Option<TcpFlow> {
    // An entry that has waited its time out has none left.
    Attributes::after(payload, NFGENMSG).find(TIMEOUT)?;
    waiting(payload).filter(|flow| flow.mark & mask != 0)
}

/// Where attributes begin in a message: behind `struct nlmsghdr` and `struct nfgenmsg`.
const ATTRIBUTES: u32 = 20;
const IMMEDIATE: u32 = libc::BPF_LD | libc::BPF_IMM;
const WANTED: u32 = libc::BPF_LDX | libc::BPF_IMM;
const CALL: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_IND;
const BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_IND;
const TO_INDEX: u32 = libc::BPF_MISC | libc::BPF_TAX;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_ANY: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
/// The offset of the attribute numbered X, from A on; and the same inside the attribute at A.
const FIND: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_NLATTR) as u32;
const FIND_INSIDE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_NLATTR_NEST) as u32;
/// What an attribute's value begins behind.
const VALUE: u32 = 4;

/// Where a jump of the filter leads.
#[derive(Clone, Copy)]
enum To {
    Next,
    Drop,
    Keep,
}

/// The filter: time left, a mark of ours, and a state in which a client may be waiting
/// (`Documentation/networking/filter.rst`).
fn filter(mask: u32) -> Vec<SockFilter> {
    let step = |operation, k| (operation, To::Next, To::Next, k);
    // An attribute that is not there is found at 0.
    let find = |kind: u16| {
        [
            step(IMMEDIATE, ATTRIBUTES),
            step(WANTED, kind.into()),
            step(CALL, FIND),
            (IF_EQUAL, To::Drop, To::Next, 0),
        ]
    };
    let find_inside = |kind: u16| {
        [step(WANTED, kind.into()), step(CALL, FIND_INSIDE), (IF_EQUAL, To::Drop, To::Next, 0)]
    };
    let mut program = Vec::new();
    program.extend(find(TIMEOUT));
    program.extend(find(MARK));
    program.extend([step(TO_INDEX, 0), step(WORD, VALUE), (IF_ANY, To::Next, To::Drop, mask)]);
    program.extend(find(PROTOINFO));
    program.extend(find_inside(PROTOINFO_TCP));
    program.extend(find_inside(TCP_STATE));
    program.extend([step(TO_INDEX, 0), step(BYTE, VALUE)]);
    program.extend(WAITING.map(|state| (IF_EQUAL, To::Keep, To::Next, state.into())));
    let end = program.len();
    program.extend([step(RETURN, 0), step(RETURN, u32::MAX)]);
    (1..)
        .zip(program)
        .map(|(next, (operation, jump_true, jump_false, k))| {
            let jump = |to| match to {
                To::Next => 0,
                To::Drop => (end - next) as u8,
                To::Keep => (end + 1 - next) as u8,
            };
            SockFilter::new(operation as u16, jump(jump_true), jump(jump_false), k)
        })
        .collect()
}
