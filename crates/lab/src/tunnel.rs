//! A conversation of datagrams that numbers them itself and lives on when one end's address
//! changes, as QUIC and WireGuard do: the far end answers to wherever the newest datagram came
//! from. Two threads, owned by [`Tunnel`].

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::topology::{Family, Topology};
use crate::wait;

/// Between two datagrams of one end.
const BEAT: Duration = Duration::from_millis(10);

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// The near end asks and the far end answers; the near socket is connected.
    Quic,
    /// Both ends speak when they want; the near socket has a port of its own and is not connected.
    WireGuard,
}

/// A conversation between a LAN client and the internet.
#[derive(Debug)]
pub struct Tunnel {
    stop: Arc<AtomicBool>,
    heard: Arc<AtomicU64>,
    near: Option<JoinHandle<Result<io::Result<Vec<Instant>>>>>,
    far: Option<JoinHandle<Result<io::Result<Vec<IpAddr>>>>>,
    directory: BTreeMap<IpAddr, usize>,
}

/// What became of it.
#[derive(Debug)]
pub struct TunnelReport {
    /// The WANs that the far end saw it come by, repetitions left out.
    pub wans: Vec<usize>,
    /// The longest time for which the near end heard nothing.
    pub longest_silence: Duration,
}

impl Tunnel {
    /// Begins one from LAN client `number` to `server`, on a port of its own.
    pub fn start(
        topology: &Topology,
        number: usize,
        server: SocketAddr,
        manner: Manner,
    ) -> Result<Tunnel> {
        let stop = Arc::new(AtomicBool::new(false));
        let heard = Arc::new(AtomicU64::new(0));
        let family = if server.is_ipv4() { Family::V4 } else { Family::V6 };
        let own = topology.client_addresses(number, family)[0];
        let far = topology.internet().inside(|| UdpSocket::bind(server))??;
        let own_port = if manner == Manner::WireGuard { 51_820 } else { 0 };
        let near = topology.client_space(number).inside(|| UdpSocket::bind((own, own_port)))??;
        if manner == Manner::Quic {
            topology.client_space(number).inside(|| near.connect(server))??;
        }
        for socket in [&far, &near] {
            socket.set_read_timeout(Some(BEAT / 2))?;
        }
        let (stopped, count) = (stop.clone(), heard.clone());
        let near = topology
            .client_space(number)
            .thread(move || near_end(&near, server, manner, &stopped, &count));
        let stopped = stop.clone();
        let far = topology.internet().thread(move || far_end(&far, manner, &stopped));
        let wans = topology.wans().iter();
        let directory =
            wans.flat_map(|wan| Family::BOTH.map(|family| (wan.outside(family), wan.number)));
        let directory = directory.collect();
        Ok(Tunnel { stop, heard, near: Some(near), far: Some(far), directory })
    }

    /// Waits until the near end has heard `count` more datagrams.
    pub fn wait_heard(&self, count: u64, deadline: Duration) -> Result<()> {
        let before = self.heard.load(Ordering::Relaxed);
        wait::until(deadline, "datagrams from the far end", || {
            let heard = self.heard.load(Ordering::Relaxed) - before;
            ensure!(heard >= count, "{heard} of {count}");
            Ok(())
        })
    }

    /// Ends it.
    pub fn stop(mut self) -> Result<TunnelReport> {
        self.stop.store(true, Ordering::Relaxed);
        let heard = join(self.near.take())??;
        let sources = join(self.far.take())??;
        let silence = heard.windows(2).map(|two| two[1] - two[0]).max();
        let wans: Result<Vec<usize>> = sources
            .iter()
            .map(|source| {
                self.directory.get(source).copied().with_context(|| format!("from {source}"))
            })
            .collect();
        Ok(TunnelReport { wans: wans?, longest_silence: silence.context("two datagrams")? })
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.near.take().map(JoinHandle::join);
        let _ = self.far.take().map(JoinHandle::join);
    }
}

fn join<T>(thread: Option<JoinHandle<Result<io::Result<T>>>>) -> Result<io::Result<T>> {
    let thread = thread.expect("only stop takes it, once");
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Speaks, and notes when it hears; an error of the socket is what an application would see.
fn near_end(
    socket: &UdpSocket,
    server: SocketAddr,
    manner: Manner,
    stopped: &AtomicBool,
    count: &AtomicU64,
) -> io::Result<Vec<Instant>> {
    let (mut heard, mut number, mut next) = (Vec::new(), 0_u64, Instant::now());
    while !stopped.load(Ordering::Relaxed) {
        if Instant::now() >= next {
            next = Instant::now() + BEAT;
            number += 1;
            match manner {
                Manner::Quic => socket.send(&number.to_be_bytes())?,
                Manner::WireGuard => socket.send_to(&number.to_be_bytes(), server)?,
            };
        }
        if receive(socket)?.is_some() {
            heard.push(Instant::now());
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(heard)
}

/// Answers, or speaks, to where the newest datagram came from; returns those places in turn.
fn far_end(socket: &UdpSocket, manner: Manner, stopped: &AtomicBool) -> io::Result<Vec<IpAddr>> {
    let (mut sources, mut newest, mut peer, mut next) = (Vec::new(), 0, None, Instant::now());
    while !stopped.load(Ordering::Relaxed) {
        if let Some((number, from)) = receive(socket)? {
            if number > newest {
                (newest, peer) = (number, Some(from));
                sources.push(from.ip());
                sources.dedup();
            }
            if manner == Manner::Quic {
                let _ = socket.send_to(&number.to_be_bytes(), from);
            }
        }
        if let Some(peer) = peer.filter(|_| manner == Manner::WireGuard && Instant::now() >= next) {
            next = Instant::now() + BEAT;
            // That nobody listens there any more is no concern of this end.
            let _ = socket.send_to(&newest.to_be_bytes(), peer);
        }
    }
    Ok(sources)
}

fn receive(socket: &UdpSocket) -> io::Result<Option<(u64, SocketAddr)>> {
    let mut buffer = [0; 8];
    match socket.recv_from(&mut buffer) {
        Ok((_, from)) => Ok(Some((u64::from_be_bytes(buffer), from))),
        Err(error) if nothing_there(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn nothing_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
