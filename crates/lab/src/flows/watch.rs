//! Connections that are watched for their end: when did each break, and how? Some speak from time
//! to time, others only listen, as those who wait for news do. One thread, owned by [`Watched`].

use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::time::Timespec;

use super::{Flow, Flows};
use crate::dial::{Failure, WORD};
use crate::wait;

/// The end of one flow.
#[derive(Debug, Clone, Copy)]
pub struct Break {
    /// The WAN that it began on.
    pub wan: usize,
    /// When it was seen.
    pub at: Instant,
    /// What the program was told.
    pub how: Failure,
}

/// Flows under watch.
#[derive(Debug)]
pub struct Watched {
    count: usize,
    breaks: Arc<Mutex<Vec<Break>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Flows>>>,
}

impl Flows {
    /// Watches all from now on; each says a word every `speak`, or only listens.
    pub fn watch(self, speak: Option<Duration>) -> Watched {
        let breaks = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (log, stopped, count) = (breaks.clone(), stop.clone(), self.len());
        let speak = speak.map(wait::slower);
        let thread = thread::spawn(move || watch(self, speak, &stopped, &log));
        Watched { count, breaks, stop, thread: Some(thread) }
    }
}

impl Watched {
    /// The flows that have broken so far, in the order of their end.
    pub fn breaks(&self) -> Vec<Break> {
        self.breaks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until all have broken.
    pub fn wait_all_broken(&self, deadline: Duration) -> Result<Vec<Break>> {
        wait::until(deadline, "all flows to break", || {
            let breaks = self.breaks();
            ensure!(breaks.len() == self.count, "{} of {} have", breaks.len(), self.count);
            Ok(breaks)
        })
    }

    /// Stops watching; returns the flows that have not broken.
    pub fn stop(mut self) -> Result<Flows> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("only stop takes it, once");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn watch(
    flows: Flows,
    speak: Option<Duration>,
    stopped: &AtomicBool,
    log: &Mutex<Vec<Break>>,
) -> Result<Flows> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let mut alive: Vec<Option<Flow>> = flows.flows.into_iter().map(Some).collect();
    for (at, flow) in (0..).zip(alive.iter().flatten()) {
        epoll::add(&epoll, flow.socket.as_fd(), EventData::new_u64(at), EventFlags::IN)?;
    }
    let mut next = Instant::now();
    while !stopped.load(Ordering::Relaxed) {
        for at in ready(&epoll)? {
            look(&mut alive[at], log, |flow| match (&flow.socket).read(&mut [0; 4096])? {
                0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
                _ => Ok(()),
            });
        }
        if let Some(every) = speak.filter(|_| Instant::now() >= next) {
            next = Instant::now() + every;
            for slot in &mut alive {
                look(slot, log, |flow| flow.socket.send(WORD).map(drop));
            }
        }
    }
    Ok(Flows::new(alive.into_iter().flatten().collect(), flows.directory))
}

/// The places of those on which something has happened, waiting a little for it.
fn ready(epoll: &OwnedFd) -> Result<Vec<usize>> {
    let mut events = Vec::with_capacity(256);
    let pause = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
    match epoll::wait(epoll, rustix::buffer::spare_capacity(&mut events), Some(&pause)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    events.iter().map(|event| Ok(usize::try_from(event.data.u64())?)).collect()
}

/// Tries a flow; one that fails is noted down and closed.
fn look(
    slot: &mut Option<Flow>,
    log: &Mutex<Vec<Break>>,
    attempt: impl FnOnce(&Flow) -> std::io::Result<()>,
) {
    let Some(flow) = slot else { return };
    match attempt(flow) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
        Err(error) => {
            let how = Failure::of(&error);
            let broken = Break { wan: flow.wan, at: Instant::now(), how };
            log.lock().unwrap_or_else(PoisonError::into_inner).push(broken);
            *slot = None;
        }
    }
}
