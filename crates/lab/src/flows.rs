//! Connections that stay open: who still answers, and through which WAN.

mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read as _, Result as IoResult};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use socket2::Socket;

use crate::client::wan_of;
use crate::dial::{Failure, WORD, listen};
use crate::wait::slower;

pub use watch::{Break, Watched};

/// One open connection.
#[derive(Debug)]
pub struct Flow {
    socket: Socket,
    /// The WAN that carried it at first.
    pub wan: usize,
}

impl Flow {
    pub(crate) fn new(socket: Socket, wan: usize) -> Flow {
        Flow { socket, wan }
    }

    /// Forgets late answers to earlier words.
    fn clear(&self) {
        let mut buffer = [0; 4096];
        while (&self.socket).read(&mut buffer).is_ok_and(|count| count > 0) {}
    }

    fn say(&self) -> IoResult<()> {
        self.clear();
        self.socket.send(WORD).map(drop)
    }
}

/// Open connections.
#[derive(Debug)]
pub struct Flows {
    flows: Vec<Flow>,
    directory: Arc<BTreeMap<IpAddr, usize>>,
}

impl Flows {
    pub(crate) fn new(flows: Vec<Flow>, directory: Arc<BTreeMap<IpAddr, usize>>) -> Flows {
        Flows { flows, directory }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// How many began on a WAN.
    pub fn on(&self, wan: usize) -> usize {
        self.flows.iter().filter(|flow| flow.wan == wan).count()
    }

    /// Splits off those that began on a WAN.
    pub fn take_from(&mut self, wan: usize) -> Flows {
        let flows = std::mem::take(&mut self.flows);
        let (taken, kept) = flows.into_iter().partition(|flow| flow.wan == wan);
        self.flows = kept;
        Flows::new(taken, self.directory.clone())
    }

    /// Splits off every other one.
    pub fn halve(&mut self) -> Flows {
        let all = std::mem::take(&mut self.flows).into_iter().enumerate();
        let (taken, kept): (Vec<_>, Vec<_>) = all.partition(|(at, _)| at % 2 == 1);
        let flows = |half: Vec<(usize, Flow)>| half.into_iter().map(|(_, flow)| flow).collect();
        self.flows = flows(kept);
        Flows::new(flows(taken), self.directory.clone())
    }

    /// Adds those of `other`.
    #[must_use]
    pub fn and(mut self, other: Flows) -> Flows {
        self.flows.extend(other.flows);
        Arc::make_mut(&mut self.directory).extend(other.directory.iter());
        self
    }

    /// Says a word on each and collects the answers, for at most `timeout` in all.
    pub fn exchange(&self, timeout: Duration) -> Exchange {
        let said: Vec<IoResult<()>> = self.flows.iter().map(Flow::say).collect();
        let mut results = self.listen(timeout);
        for ((_, result), said) in results.iter_mut().zip(said) {
            if let Err(error) = said {
                *result = Err(Failure::of(&error));
            }
        }
        Exchange { results }
    }

    /// Says nothing and waits, for at most `timeout` in all, for each to break.
    ///
    /// Those that do not, end as [`Failure::TimedOut`].
    pub fn wait_for_breaks(&self, timeout: Duration) -> Exchange {
        Exchange { results: self.listen(timeout) }
    }

    fn listen(&self, timeout: Duration) -> Vec<(usize, Result<usize, Failure>)> {
        let end = Instant::now() + timeout;
        let answer = |flow: &Flow| wan_of(&self.directory, listen_until(&flow.socket, end));
        self.flows.iter().map(|flow| (flow.wan, answer(flow))).collect()
    }

    /// Goes on exchanging words in the background, `every` so often; more rarely where a round
    /// takes long, for a slow machine has others to serve. An answer may take as long as `timeout`.
    pub fn keep_talking(self, every: Duration, timeout: Duration) -> Talking {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, every, timeout) = (stop.clone(), slower(every), slower(timeout));
        let thread = thread::spawn(move || {
            let mut rounds = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let begun = Instant::now();
                rounds.push(self.exchange(timeout));
                let took = begun.elapsed();
                thread::sleep(every.saturating_sub(took).max(took.min(every * 10)));
            }
            (self, rounds)
        });
        Talking { stop, thread: Some(thread) }
    }
}

/// Waits for the socket's answer until `end`.
fn listen_until(socket: &Socket, end: Instant) -> Result<IpAddr, Failure> {
    loop {
        match listen(socket) {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => {}
            Err(error) => return Err(Failure::of(&error)),
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::TimedOut);
        }
        let left = Timespec::try_from(left).map_err(|_| Failure::TimedOut)?;
        // An interrupted or failed poll only means to look again.
        let _ = poll(&mut [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)], Some(&left));
    }
}

/// What one round over all flows brought.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// For each flow the WAN it began on, and the WAN its answer came through.
    pub results: Vec<(usize, Result<usize, Failure>)>,
}

impl Exchange {
    /// Flows that answered through the WAN they began on.
    pub fn kept(&self) -> usize {
        self.results.iter().filter(|(wan, result)| *result == Ok(*wan)).count()
    }

    /// Flows that answered through another WAN.
    pub fn moved(&self) -> usize {
        self.results.iter().filter(|(wan, result)| result.is_ok_and(|now| now != *wan)).count()
    }

    /// How many failed, and how.
    pub fn failures(&self) -> BTreeMap<Failure, usize> {
        let mut failures = BTreeMap::new();
        for failure in self.results.iter().filter_map(|(_, result)| result.err()) {
            *failures.entry(failure).or_default() += 1;
        }
        failures
    }

    /// Whether every flow answered through the WAN it began on.
    pub fn all_kept(&self) -> bool {
        self.kept() == self.results.len()
    }
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kept, moved, failures) = (self.kept(), self.moved(), self.failures());
        write!(f, "of {} flows {kept} kept, {moved} moved, failed {failures:?}", self.results.len())
    }
}

/// Flows being talked on in the background.
#[derive(Debug)]
pub struct Talking {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<(Flows, Vec<Exchange>)>>,
}

impl Talking {
    /// Stops after the round under way; returns the flows and every round's result.
    pub fn stop(mut self) -> (Flows, Vec<Exchange>) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("only stop takes it, once");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Talking {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
