//! A line whose queues are full is slow, not dead: nobody is to be sent elsewhere.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use anywan_lab::servers::{DISCARD, STREAM};
use anywan_lab::topology::SERVERS;
use anywan_lab::{Config, Daemon, Family, Fault, Spec, Topology};

use crate::common::{dialers, wait_all_by, wait_dialled};
use crate::partial::wait_probes;

/// Transfers each way: enough to fill the queues, as a backup and a download do.
const TRANSFERS: usize = 4;
/// A round trip that only a queue explains.
const QUEUED_MS: f64 = 300.0;
/// How long the line is full at least, in seconds; an hour is a good test, and long.
const SPAN: &str = "ANYWAN_LAB_FULL_LINE";
/// Of WAN 1: some ten seconds of them while its losses are in doubt, and then a few in a second.
const PROBES: u64 = 2_000;

/// Transfers that go on until they are told to stop.
struct Transfers {
    sockets: Vec<TcpStream>,
    threads: Vec<JoinHandle<Result<u64>>>,
}

impl Transfers {
    fn start(topology: &Topology) -> Result<Transfers> {
        let space = topology.client_space(1);
        let server: Ipv4Addr = SERVERS[0].0;
        let (mut sockets, mut threads) = (Vec::new(), Vec::new());
        for port in [DISCARD, STREAM] {
            for _ in 0..TRANSFERS {
                let mut socket = space.inside(|| TcpStream::connect((server, port)))??;
                sockets.push(socket.try_clone()?);
                threads.push(std::thread::spawn(move || {
                    let mut block = [0; 16 * 1024];
                    let mut moved = 0;
                    loop {
                        let went = match port {
                            DISCARD => socket.write(&block),
                            _ => socket.read(&mut block),
                        };
                        match went {
                            Ok(0) | Err(_) => return Ok(moved),
                            Ok(count) => moved += count as u64,
                        }
                    }
                }));
            }
        }
        Ok(Transfers { sockets, threads })
    }

    /// The bytes that each has moved.
    fn stop(self) -> Result<Vec<u64>> {
        for socket in &self.sockets {
            // One that was reset meanwhile is over already.
            let _ = socket.shutdown(Shutdown::Both);
        }
        let over = |thread: JoinHandle<Result<u64>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        self.threads.into_iter().map(over).collect()
    }
}

#[test]
fn a_saturated_mobile_line_is_not_left() -> Result<()> {
    let topology = Spec::routed(3).build()?;
    let config = Config::of(&topology).as_by_default().priorities(&[1, 2, 3]);
    let daemon = Daemon::start_up(&topology, &config)?;
    wait_all_by(&topology.client(1), 1)?;
    let dialling = dialers(&topology.client(1));
    wait_dialled(&dialling, |wan| wan == 1)?;
    topology.break_wan(1, &Fault::Thin)?;
    let transfers = Transfers::start(&topology)?;
    for family in Family::BOTH {
        daemon.wait_status("full queues", |status| {
            status.wan("wan1")[family.key()]["rtt_ms"].as_f64().is_some_and(|ms| ms > QUEUED_MS)
        })?;
    }
    let full = Instant::now();
    wait_probes(&topology, PROBES)?;
    let span: u64 = std::env::var(SPAN).map_or(Ok(0), |text| text.parse())?;
    sleep(Duration::from_secs(span).saturating_sub(full.elapsed()));
    let moved = transfers.stop()?;
    ensure!(moved.iter().all(|bytes| *bytes > 0), "{moved:?}");
    for dialler in dialling {
        // Where a queue is full some handshakes take longer than their client waits.
        let report = dialler.stop()?;
        let by = report.sequence();
        ensure!(by == [1], "{report}, by {by:?}: {}", daemon.log_tail());
    }
    Ok(())
}
