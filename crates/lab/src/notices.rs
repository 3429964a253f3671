//! What the kernel of a namespace announces of nftables' transactions, to act in their middle.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use rustix::time::Timespec;

use crate::netns::Netns;

/// `NFNLGRP_NFTABLES` (7) as a bit.
const NFTABLES: u32 = 1 << 6;
/// `NFNL_SUBSYS_NFTABLES` (10) and `NFT_MSG_NEWGEN` (15): each transaction ends with one.
const NEW_GENERATION: u16 = 10 << 8 | 15;

/// A socket that hears of every transaction from its opening on.
#[derive(Debug)]
pub struct Notices(OwnedFd);

impl Notices {
    /// Listens in `space` from now on.
    pub fn listen(space: &Netns) -> Result<Notices> {
        space.inside(|| {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let protocol = Some(netlink::NETFILTER);
            let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
            bind(&socket, &SocketAddrNetlink::new(0, NFTABLES))?;
            Ok(Notices(socket))
        })?
    }

    /// Waits for the end of the next transaction.
    pub fn next_transaction(&self, deadline: Duration) -> Result<()> {
        let end = Instant::now() + deadline;
        let mut buffer = vec![0_u8; 1 << 16];
        loop {
            match recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
                Ok((count, _)) if ends_transaction(&buffer[..count]) => return Ok(()),
                Ok(_) => {}
                // So many were announced at once that some were lost.
                Err(rustix::io::Errno::NOBUFS) => return Ok(()),
                Err(rustix::io::Errno::AGAIN) => {
                    let left = end.saturating_duration_since(Instant::now());
                    ensure!(!left.is_zero(), "no transaction of nftables within {deadline:?}");
                    let left = Timespec::try_from(left)?;
                    poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&left))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether one of the messages says that a transaction is over.
fn ends_transaction(mut messages: &[u8]) -> bool {
    // Each begins with its length and its type, in the machine's order, and is padded to four.
    while let [a, b, c, d, e, f, ..] = *messages {
        if u16::from_ne_bytes([e, f]) == NEW_GENERATION {
            return true;
        }
        let length = u32::from_ne_bytes([a, b, c, d]);
        let length = usize::try_from(length).unwrap_or(usize::MAX).max(16).next_multiple_of(4);
        messages = messages.get(length..).unwrap_or_default();
    }
    false
}
