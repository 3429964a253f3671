//! Listens to what changes in the kernel, and says what to read again. In: multicast messages on
//! three netlink sockets. Out: [`Hints`]. It never says what the change was: the dump is the truth. But
//! what routers announce is in no dump, so that is kept until it is fetched.
//!
//! The sockets are separate so that a storm of routes cannot hide that a link went down: (1) links
//! and addresses, (2) routes, rules, neighbours, interface settings and announcements of routers, (3) nftables. Each has a
//! bounded queue in the kernel; when one overflows, everything is to be read again. Owned and
//! awaited by the daemon's one loop; stops when dropped.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::ops::BitOrAssign;
use std::task::{Context, Poll};

use anywan_core::names::{Mac, PROTOCOL};
use anywan_core::observed::Neighbour;
use netlink_sys::Socket;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rustix::io::Errno;
use rustix::net::{RecvFlags, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::warn;

use super::announced::{self, Announced};
use super::error::{KernelError, Refused};
use super::links::neighbour;
use super::nft::message_type;
use super::wire::{Messages, Received, u32_at};

/// The kernel's queue for links and addresses: some 600 messages of 1.5 KB.
const LINK_QUEUE: usize = 1024 * 1024;
/// The queues for routes and nftables; others may load tens of thousands of either at once.
const STORM_QUEUE: usize = 4 * 1024 * 1024;
/// The largest datagram of events; the kernel uses pages of at most 8 KiB for them, and a large
/// link message is below 16.
const DATAGRAM: usize = 64 * 1024;
/// How many datagrams are taken from one socket at a time, so that a storm cannot hold the loop.
const DRAIN: usize = 4096;
/// How many announcements wait to be fetched: each link's router sends one in seconds, and what is lost
/// comes again.
const ANNOUNCED: usize = 256;
/// How many neighbours are remembered to tell a changed hardware address from mere chatter.
const NEIGHBOURS: usize = 4096;

/// What should be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hints {
    /// The links.
    pub links: bool,
    /// The addresses.
    pub addresses: bool,
    /// The default routes.
    pub routes: bool,
    /// The ip rules.
    pub rules: bool,
    /// The neighbours: some hardware address came, changed or went.
    pub neighbours: bool,
    /// The kernel parameters of interfaces (forwarding, rp_filter, ...; not all announce changes).
    pub sysctls: bool,
    /// The CPUs, and the queues and interrupts of interfaces: no message tells of them.
    pub cpus: bool,
    /// The nftables rule set: somebody committed a transaction.
    pub nft: bool,
    /// The programs that run for us.
    pub children: bool,
    /// Whom this machine's programs ask for names: no message tells of it.
    pub resolv_conf: bool,
    /// Routers have announced resolvers, which [`Monitor::announced`] has.
    pub announced: bool,
    /// Events were lost: everything.
    pub overrun: bool,
}

impl Hints {
    /// Whether there is nothing to read.
    pub fn is_empty(self) -> bool {
        self == Hints::default()
    }
}

impl BitOrAssign for Hints {
    fn bitor_assign(&mut self, other: Hints) {
        self.links |= other.links;
        self.addresses |= other.addresses;
        self.routes |= other.routes;
        self.rules |= other.rules;
        self.neighbours |= other.neighbours;
        self.sysctls |= other.sysctls;
        self.cpus |= other.cpus;
        self.nft |= other.nft;
        self.children |= other.children;
        self.resolv_conf |= other.resolv_conf;
        self.announced |= other.announced;
        self.overrun |= other.overrun;
    }
}

/// The ear on the kernel. Open it before the first reading, so that no change falls between.
#[derive(Debug)]
pub struct Monitor {
    links: AsyncFd<Socket>,
    routes: AsyncFd<Socket>,
    nft: AsyncFd<Socket>,
    neighbours: BTreeMap<Neighbour, Mac>,
    announced: Vec<Announced>,
    buffer: Vec<u8>,
}

impl Monitor {
    /// Subscribes in the network namespace of the calling thread; needs a running tokio reactor.
    pub fn open() -> Result<Monitor, KernelError> {
        Monitor::with_queues(LINK_QUEUE, STORM_QUEUE)
    }

    /// Like [`Monitor::open`] with queues of other sizes in bytes, for tests of overruns.
    pub fn with_queues(links: usize, storms: usize) -> Result<Monitor, KernelError> {
        let open = || -> io::Result<Monitor> {
            let link_groups =
                [libc::RTNLGRP_LINK, libc::RTNLGRP_IPV4_IFADDR, libc::RTNLGRP_IPV6_IFADDR];
            let route_groups = [
                libc::RTNLGRP_IPV4_ROUTE,
                libc::RTNLGRP_IPV6_ROUTE,
                libc::RTNLGRP_IPV4_RULE,
                libc::RTNLGRP_IPV6_RULE,
                libc::RTNLGRP_NEIGH,
                libc::RTNLGRP_IPV4_NETCONF,
                libc::RTNLGRP_IPV6_NETCONF,
                libc::RTNLGRP_ND_USEROPT,
            ];
            Ok(Monitor {
                links: subscribe(NETLINK_ROUTE, &link_groups, links)?,
                routes: subscribe(NETLINK_ROUTE, &route_groups, storms)?,
                nft: subscribe(NETLINK_NETFILTER, &[libc::NFNLGRP_NFTABLES as u32], storms)?,
                neighbours: BTreeMap::new(),
                announced: Vec::new(),
                buffer: vec![0; DATAGRAM],
            })
        };
        open().map_err(|error| KernelError::Open {
            what: "the netlink sockets that announce changes",
            hint: "run anywand as root, on a kernel with nf_tables (CONFIG_NF_TABLES)",
            source: Refused::Socket(error),
        })
    }

    /// Waits until something changed, takes all that is known by then, and says what to read.
    /// Losing the future loses no hint.
    pub async fn next(&mut self) -> Hints {
        poll_fn(|context| self.poll(context)).await
    }

    /// What routers have announced since this was asked last.
    pub fn announced(&mut self) -> Vec<Announced> {
        std::mem::take(&mut self.announced)
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Hints> {
        let Monitor { links, routes, nft, neighbours, announced, buffer } = self;
        let mut hints = Hints::default();
        let mut hear = |message: &Received<'_>| {
            if message.kind == libc::RTM_NEWNDUSEROPT && announced.len() < ANNOUNCED {
                announced.extend(announced::announced(message.payload));
            }
            hint(message, neighbours)
        };
        for socket in [&*links, routes, nft] {
            hints |= drain(socket, context, buffer, &mut hear);
        }
        if hints.is_empty() { Poll::Pending } else { Poll::Ready(hints) }
    }
}

fn subscribe(protocol: isize, groups: &[u32], queue: usize) -> io::Result<AsyncFd<Socket>> {
    let socket = listener(protocol, queue)?;
    for group in groups {
        socket.add_membership(*group)?;
    }
    watched(socket)
}

/// A bound socket with a receive queue of so many bytes that listens to nothing yet.
pub(crate) fn listener(protocol: isize, queue: usize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    if sockopt::set_socket_recv_buffer_size_force(&socket, queue).is_err() {
        sockopt::set_socket_recv_buffer_size(&socket, queue)?;
    }
    socket.set_non_blocking(true)?;
    socket.bind_auto()?;
    Ok(socket)
}

/// Has the reactor watch a socket.
pub(crate) fn watched(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the socket owns its descriptor, always returns the same one, and closes it only when
    // it is dropped, which `AsyncFd` does after it has let go of it.
    #[expect(unsafe_code, reason = "tokio asks for a promise that it cannot check")]
    let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    registered.map_err(Into::into)
}

/// Takes what waits on one socket. Returns with the waker registered when it found nothing to say.
fn drain(
    socket: &AsyncFd<Socket>,
    context: &mut Context<'_>,
    buffer: &mut [u8],
    hint: &mut dyn FnMut(&Received<'_>) -> Hints,
) -> Hints {
    let mut hints = Hints::default();
    let mut taken = 0;
    while let Poll::Ready(ready) = socket.poll_read_ready(context) {
        let Ok(mut ready) = ready else {
            // The runtime is shutting down.
            return hints;
        };
        if taken == DRAIN {
            // The rest has its turn after the loop's other work.
            context.waker().wake_by_ref();
            return hints;
        }
        taken += 1;
        match rustix::net::recv(socket.get_ref(), &mut *buffer, RecvFlags::TRUNC) {
            Ok((_, full)) if full > buffer.len() => hints.overrun = true,
            Ok((length, _)) => {
                Messages(&buffer[..length]).for_each(|message| hints |= hint(&message));
            }
            Err(Errno::AGAIN) => ready.clear_ready(),
            Err(Errno::INTR) => {}
            Err(Errno::NOBUFS) => hints.overrun = true,
            Err(error) => {
                warn!(%error, "a netlink monitor failed; reading everything again");
                hints.overrun = true;
                ready.clear_ready();
            }
        }
    }
    hints
}

/// What one message suggests to read again.
pub(crate) fn hint(message: &Received<'_>, neighbours: &mut BTreeMap<Neighbour, Mac>) -> Hints {
    let mut hints = Hints::default();
    match message.kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => hints.links = true,
        libc::RTM_NEWADDR | libc::RTM_DELADDR => hints.addresses = true,
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => hints.routes = matters(message.payload),
        libc::RTM_NEWRULE | libc::RTM_DELRULE => hints.rules = true,
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => {
            hints.neighbours = neighbour_changed(message, neighbours);
        }
        RTM_NEWNETCONF | RTM_DELNETCONF => hints.sysctls = true,
        libc::RTM_NEWNDUSEROPT => hints.announced = true,
        kind if kind == message_type(libc::NFT_MSG_NEWGEN) => hints.nft = true,
        // The details of a transaction; its NEWGEN follows.
        _ => {}
    }
    hints
}

const RTM_NEWNETCONF: u16 = 80;
const RTM_DELNETCONF: u16 = 81;

/// Whether a route message is about a default route or one of ours, or might be.
fn matters(payload: &[u8]) -> bool {
    let destination_bits = payload.get(1).copied().unwrap_or(0);
    let cloned = u32_at(payload, 8).unwrap_or(0) & libc::RTM_F_CLONED != 0;
    let ours = payload.get(5) == Some(&PROTOCOL);
    (destination_bits == 0 || ours) && !cloned
}

/// Whether a neighbour message tells a hardware address that differs from the last one told.
/// Reachability comes and goes every few seconds for every neighbour and means nothing here.
fn neighbour_changed(message: &Received<'_>, known: &mut BTreeMap<Neighbour, Mac>) -> bool {
    let Some((key, mac)) = neighbour(message.payload) else {
        // Of a bridge, or without an address.
        return false;
    };
    let mac = mac.filter(|_| message.kind == libc::RTM_NEWNEIGH);
    if known.len() >= NEIGHBOURS && !known.contains_key(&key) {
        // Costs only a reading for each that is met again.
        known.clear();
    }
    let before = match mac {
        Some(mac) => known.insert(key, mac),
        None => known.remove(&key),
    };
    before != mac
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn neighbour_message(state: u8, mac: u8) -> Vec<u8> {
        let mut payload = vec![2, 0, 0, 0, 3, 0, 0, 0, state, 0, 0, 0];
        payload.extend_from_slice(&[8, 0, 1, 0, 192, 168, 1, 1]);
        payload.extend_from_slice(&[10, 0, 2, 0, 2, 0, 0, 0, 0, mac, 0, 0]);
        payload
    }

    #[test]
    fn only_a_changed_hardware_address_is_worth_a_hint() {
        let mut known = BTreeMap::new();
        let mut tell = |kind, state, mac| {
            let payload = neighbour_message(state, mac);
            let message = Received { kind, flags: 0, sequence: 0, payload: &payload };
            hint(&message, &mut known).neighbours
        };
        assert!(tell(libc::RTM_NEWNEIGH, 2, 1), "a new one");
        assert!(!tell(libc::RTM_NEWNEIGH, 4, 1), "stale");
        assert!(!tell(libc::RTM_NEWNEIGH, 16, 1), "probed");
        assert!(tell(libc::RTM_NEWNEIGH, 2, 9), "another address");
        assert!(tell(libc::RTM_NEWNEIGH, 32, 9), "failed");
        assert!(!tell(libc::RTM_DELNEIGH, 32, 9), "deleted after it failed");
    }

    proptest! {
        #[test]
        fn random_messages_never_panic(
            kind in 16_u16..90,
            payload in proptest::collection::vec(any::<u8>(), 0..100)
        ) {
            let message = Received { kind, flags: 0, sequence: 0, payload: &payload };
            let _ = hint(&message, &mut BTreeMap::new());
        }
    }
}
