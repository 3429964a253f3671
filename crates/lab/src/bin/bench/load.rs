//! Load through a router: how many new connections it passes in a second, and how many bytes.
//! Both ends are as cheap as they can be, so that the router is what is measured.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use anywan_lab::netns::Netns;
use anywan_lab::servers::STREAM;
use rustix::thread::CpuSet;
use socket2::{Domain, SockAddr, Socket, Type};

/// Ports that the sink listens on: one alone would run out of source ports within a second.
const PORTS: std::ops::Range<u16> = 8100..8132;

/// A server that accepts connections and forgets them.
pub(crate) struct Sink {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Sink {
    /// Listens on all of the ports in `space`.
    pub(crate) fn start(space: &Netns) -> Result<Sink> {
        let stop = Arc::new(AtomicBool::new(false));
        let doors: Vec<Socket> = space.inside(|| PORTS.map(open).collect::<Result<_>>())??;
        let (own, stopped) = (space.clone(), stop.clone());
        let thread = own.thread(move || {
            while !stopped.load(Ordering::Relaxed) {
                let mut idle = true;
                for door in &doors {
                    while door.accept().is_ok() {
                        idle = false;
                    }
                }
                if idle {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            Ok(())
        });
        let thread = std::thread::spawn(move || {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?
        });
        Ok(Sink { stop, threads: vec![thread] })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn open(port: u16) -> Result<Socket> {
    let door = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    door.set_reuse_address(true)?;
    door.bind(&SockAddr::from(SocketAddr::from(([0, 0, 0, 0], port))))?;
    door.listen(1024)?;
    door.set_nonblocking(true)?;
    Ok(door)
}

/// Where something is to run that must not be moved about.
pub(crate) fn only_the_first_cpu() -> CpuSet {
    let mut first = CpuSet::new();
    first.set(0);
    first
}

/// New connections a second from `space` to the sink at `server`, one after the other.
pub(crate) fn connections_per_second(space: &Netns, server: IpAddr, span: Duration) -> Result<f64> {
    space.inside(|| {
        let begin = Instant::now();
        let mut count = 0_u32;
        while begin.elapsed() < span {
            for port in PORTS {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                // Gone at once with a reset, so that the port is free again.
                socket.set_linger(Some(Duration::ZERO))?;
                socket
                    .connect_timeout(&SocketAddr::new(server, port).into(), Duration::from_secs(5))
                    .with_context(|| format!("connection {count} to {server}:{port}"))?;
                count += 1;
            }
        }
        Ok(f64::from(count) / begin.elapsed().as_secs_f64())
    })?
}

/// Megabits a second that `streams` TCP connections bring from the server to `space`.
pub(crate) fn megabits_per_second(
    space: &Netns,
    server: IpAddr,
    streams: usize,
    span: Duration,
) -> Result<f64> {
    let bytes = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..streams)
        .map(|_| {
            let (bytes, stop) = (bytes.clone(), stop.clone());
            space.thread(move || read_until(server, &bytes, &stop))
        })
        .collect();
    // The first moments are slow start.
    std::thread::sleep(Duration::from_millis(200));
    let (begin, before) = (Instant::now(), bytes.load(Ordering::Relaxed));
    std::thread::sleep(span);
    let got = bytes.load(Ordering::Relaxed) - before;
    let took = begin.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))??;
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    Ok(got as f64 * 8.0 / 1e6 / took)
}

fn read_until(server: IpAddr, bytes: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    use std::io::Read as _;
    let mut stream = std::net::TcpStream::connect((server, STREAM))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut buffer = vec![0; 1 << 17];
    while !stop.load(Ordering::Relaxed) {
        let got = stream.read(&mut buffer)?;
        bytes.fetch_add(got as u64, Ordering::Relaxed);
    }
    Ok(())
}
