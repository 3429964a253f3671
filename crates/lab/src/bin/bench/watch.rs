//! Listens to what the kernel of a namespace announces: interfaces, and transactions of nftables.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use anywan_lab::netns::Netns;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

/// `RTMGRP_LINK`.
const LINKS: u32 = 1;
/// `NFNLGRP_NFTABLES` (7) as a bit.
const NFTABLES: u32 = 1 << 6;

/// A thread that listens.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Result<Option<Duration>>>>,
}

impl Watch {
    /// Listens in `space` from now on.
    pub(crate) fn start(space: &Netns) -> Result<Watch> {
        // Without a protocol a netlink socket speaks rtnetlink (0).
        let listen = |protocol, groups| -> Result<OwnedFd> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let kind = SocketType::RAW;
            let socket = socket_with(AddressFamily::NETLINK, kind, flags, protocol)?;
            bind(&socket, &SocketAddrNetlink::new(0, groups))?;
            Ok(socket)
        };
        let (links, tables) = space.inside(|| -> Result<_> {
            Ok((listen(None, LINKS)?, listen(Some(netlink::NETFILTER), NFTABLES)?))
        })??;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = space.thread(move || listen_until(&links, &tables, &stopped));
        Ok(Watch { stop, thread })
    }

    /// The time from the first notice of an interface to the last one of nftables.
    pub(crate) fn stop(self) -> Result<Option<Duration>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?
    }
}

fn listen_until(links: &OwnedFd, tables: &OwnedFd, stop: &AtomicBool) -> Result<Option<Duration>> {
    let (mut link, mut table) = (None, None);
    let mut buffer = vec![0_u8; 1 << 16];
    while !stop.load(Ordering::Relaxed) {
        let mut both = [PollFd::new(links, PollFlags::IN), PollFd::new(tables, PollFlags::IN)];
        poll(&mut both, Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 }))?;
        let now = Instant::now();
        while recv(links, &mut buffer[..], RecvFlags::empty()).is_ok() {
            link.get_or_insert(now);
        }
        while recv(tables, &mut buffer[..], RecvFlags::empty()).is_ok() {
            table = link.map(|_| now);
        }
    }
    Ok(link.zip(table).map(|(link, table)| table.duration_since(link)))
}
