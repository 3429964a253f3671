//! A new connection every so many milliseconds, however long each takes: how an outage is
//! measured. One thread, owned by the [`Dialer`], ended by [`Dialer::stop`] or its drop.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Client, wan_of};
use crate::dial::{Attempts, Done, Failure, Proto};
use crate::topology::Family;
use crate::wait::{self, slower};

/// After so long Linux may have sent a SYN again: after a second, counted in ticks, which come late
/// where the machine is emulated.
const SYN_AGAIN: Duration = Duration::from_millis(800);

/// One attempt that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// When it began.
    pub at: Instant,
    /// How long it took to be answered or to fail.
    pub took: Duration,
    /// The WAN that carried it.
    pub result: Result<usize, Failure>,
}

/// Attempts going on in the background.
#[derive(Debug)]
pub struct Dialer {
    stop: Arc<AtomicBool>,
    attempts: Arc<Mutex<Vec<Attempt>>>,
    thread: Option<JoinHandle<Result<Result<()>>>>,
}

impl Dialer {
    pub(super) fn start(client: Client, proto: Proto, family: Family, every: Duration) -> Dialer {
        let stop = Arc::new(AtomicBool::new(false));
        let attempts = Arc::new(Mutex::new(Vec::new()));
        let (stopped, log) = (stop.clone(), attempts.clone());
        let every = slower(every);
        let space = client.space.clone();
        let thread = space.thread(move || dial(&client, proto, family, every, &stopped, &log));
        Dialer { stop, attempts, thread: Some(thread) }
    }

    /// What has ended so far, in order of beginning.
    pub fn so_far(&self) -> DialReport {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        attempts.sort_by_key(|attempt| attempt.at);
        DialReport { attempts }
    }

    /// Waits until `count` attempts that began after now have worked, on WANs that `fits` likes.
    pub fn wait_for(
        &self,
        count: usize,
        deadline: Duration,
        fits: impl Fn(usize) -> bool,
    ) -> Result<()> {
        let now = Instant::now();
        wait::until(deadline, "new connections that work", || {
            let report = self.so_far();
            let fresh = report.attempts.iter().filter(|attempt| attempt.at > now);
            let worked = fresh.filter(|attempt| attempt.result.is_ok_and(&fits)).count();
            ensure!(worked >= count, "{worked} of {count}; {report}");
            Ok(())
        })
    }

    /// Stops; attempts under way are ended first (by an answer, a failure or their timeout).
    pub fn stop(mut self) -> Result<DialReport> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))??;
        }
        Ok(self.so_far())
    }
}

impl Drop for Dialer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn dial(
    client: &Client,
    proto: Proto,
    family: Family,
    every: Duration,
    stopped: &AtomicBool,
    log: &Mutex<Vec<Attempt>>,
) -> Result<()> {
    let mut attempts = Attempts::new(client.timeout)?;
    let mut next = Instant::now();
    let mut turn = 0;
    while !stopped.load(Ordering::Relaxed) || attempts.under_way() > 0 {
        let now = Instant::now();
        if now >= next && !stopped.load(Ordering::Relaxed) {
            client.target(turn, proto, family).into_iter().for_each(|to| attempts.start(to));
            turn += 1;
            // Never a backlog: a late thread skips beats instead of hurrying.
            next = (next + every).max(now);
        }
        let pause = next.saturating_duration_since(Instant::now()).min(Duration::from_millis(20));
        let ended = attempts.poll(pause)?;
        let ended = ended.into_iter().map(|Done { started, took, result, .. }| Attempt {
            at: started,
            took,
            result: wan_of(&client.directory, result.map(|(_, answer)| answer)),
        });
        log.lock().unwrap_or_else(PoisonError::into_inner).extend(ended);
    }
    Ok(())
}

/// Attempts in order of their beginning.
#[derive(Debug, Clone)]
pub struct DialReport {
    /// Each of them.
    pub attempts: Vec<Attempt>,
}

impl DialReport {
    /// Those that began in a span of time.
    #[must_use]
    pub fn between(&self, from: Instant, to: Instant) -> DialReport {
        let within = |attempt: &&Attempt| (from..to).contains(&attempt.at);
        DialReport { attempts: self.attempts.iter().filter(within).copied().collect() }
    }

    /// How many failed, and how.
    pub fn failures(&self) -> BTreeMap<Failure, usize> {
        let mut failures = BTreeMap::new();
        for failure in self.attempts.iter().filter_map(|attempt| attempt.result.err()) {
            *failures.entry(failure).or_default() += 1;
        }
        failures
    }

    /// How many failed.
    pub fn failed(&self) -> usize {
        self.failures().values().sum()
    }

    /// Longest time from the beginning of an attempt that worked to the next one that worked,
    /// with failures in between; to the last attempt, if none worked any more. Zero if none failed.
    pub fn longest_outage(&self) -> Duration {
        let mut longest = Duration::ZERO;
        let mut good = self.attempts.first().map(|attempt| attempt.at);
        let mut failed = false;
        for attempt in &self.attempts {
            failed |= attempt.result.is_err();
            if let (true, Some(good)) = (failed, good) {
                longest = longest.max(attempt.at - good);
            }
            if attempt.result.is_ok() {
                (good, failed) = (Some(attempt.at), false);
            }
        }
        longest
    }

    /// When the last attempt that failed began.
    pub fn last_failure(&self) -> Option<Instant> {
        let failed = |attempt: &&Attempt| attempt.result.is_err();
        self.attempts.iter().rev().find(failed).map(|attempt| attempt.at)
    }

    /// The WANs in the order they were taken, repetitions left out: `[1, 2, 1]`. Without attempts
    /// that took as long as a second SYN: if the first was lost before the router saw it, that one
    /// chose the WAN, later than the attempt began.
    pub fn sequence(&self) -> Vec<usize> {
        let at_once = self.attempts.iter().filter(|attempt| attempt.took < SYN_AGAIN);
        let mut wans: Vec<usize> = at_once.filter_map(|attempt| attempt.result.ok()).collect();
        wans.dedup();
        wans
    }

    /// How many each WAN carried.
    pub fn by_wan(&self) -> BTreeMap<usize, usize> {
        let mut wans = BTreeMap::new();
        for wan in self.attempts.iter().filter_map(|attempt| attempt.result.ok()) {
            *wans.entry(wan).or_default() += 1;
        }
        wans
    }
}

impl fmt::Display for DialReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} attempts, by WAN {:?}, failed {:?}, longest outage {} ms",
            self.attempts.len(),
            self.by_wan(),
            self.failures(),
            self.longest_outage().as_millis()
        )
    }
}
