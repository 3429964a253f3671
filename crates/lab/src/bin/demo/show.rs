//! The running show: clients that never stop trying, and a line per WAN every second.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use anywan_lab::client::{DialReport, Dialer};
use anywan_lab::daemon::Status;
use anywan_lab::{Daemon, Family, Proto, Topology};

use crate::screen::Screen;

/// Names of the WANs, number 1 first.
pub(crate) const NAMES: [&str; 3] = ["adsl", "fibre", "lte"];
/// Number of the WAN that is broken.
pub(crate) const FIBRE: usize = 2;
/// Number of the backup.
pub(crate) const LTE: usize = 3;

/// Safety net for anything that is waited for.
const DEADLINE: Duration = Duration::from_secs(30);
const BEAT: Duration = Duration::from_millis(20);
/// How long a connection may take; also how late a failure is known.
const PATIENCE: Duration = Duration::from_millis(1000);
const TICK: Duration = Duration::from_secs(1);

/// The states of all WANs at one moment.
pub(crate) struct States(Status);

impl States {
    /// Whether a WAN is in a state, in both families.
    pub(crate) fn is(&self, wan: usize, state: &str) -> bool {
        Family::BOTH.iter().all(|family| self.0.state(NAMES[wan - 1], *family) == state)
    }
}

pub(crate) struct Show<'a> {
    daemon: &'a Daemon,
    screen: &'a mut Screen,
    dialers: Vec<Dialer>,
    begun: Instant,
    acts: usize,
}

impl<'a> Show<'a> {
    pub(crate) fn new(topology: &Topology, daemon: &'a Daemon, screen: &'a mut Screen) -> Show<'a> {
        let client = topology.client(1).to_all().timeout(PATIENCE);
        let dialers = Family::BOTH.map(|family| client.dial(Proto::Tcp, family, BEAT)).into();
        Show { daemon, screen, dialers, begun: Instant::now(), acts: 0 }
    }

    pub(crate) fn act(&mut self, title: &str) {
        self.acts += 1;
        self.screen.title(&format!("{}. {title}", self.acts));
    }

    pub(crate) fn note(&self, text: &str) {
        self.screen.text(&format!("  {text}"));
    }

    pub(crate) fn check(&mut self, good: bool, what: &str) {
        self.screen.check(good, what);
    }

    /// Every attempt of both families that began after `from` and has ended.
    pub(crate) fn connections_since(&self, from: Instant) -> DialReport {
        let reports = self.dialers.iter().map(|dialer| dialer.so_far());
        let mut attempts: Vec<_> = reports.flat_map(|report| report.attempts).collect();
        attempts.retain(|attempt| attempt.at >= from);
        attempts.sort_by_key(|attempt| attempt.at);
        DialReport { attempts }
    }

    /// Whether the connections of the last `span` all worked, on these WANs and each of them.
    pub(crate) fn only_used(&self, span: Duration, wans: &[usize]) -> bool {
        let seen = self.connections_since(Instant::now() - span);
        let used: Vec<usize> = seen.by_wan().into_keys().collect();
        seen.failed() == 0 && used == wans
    }

    /// Prints a line per WAN each second, for `span`.
    pub(crate) fn watch(&self, span: Duration) -> Result<()> {
        let end = Instant::now() + span;
        while Instant::now() < end {
            sleep(TICK);
            self.print(&self.daemon.status()?);
        }
        Ok(())
    }

    /// Prints a line per WAN each second, until the states are as wished.
    pub(crate) fn watch_until(&self, what: &str, wished: impl Fn(&States) -> bool) -> Result<()> {
        let end = Instant::now() + DEADLINE;
        let mut tick = Instant::now() + TICK;
        while Instant::now() < end {
            let states = States(self.daemon.status()?);
            let good = wished(&states);
            if good || Instant::now() >= tick {
                self.print(&states.0);
                tick += TICK;
            }
            if good {
                return Ok(());
            }
            sleep(Duration::from_millis(50));
        }
        bail!("waited {DEADLINE:?} in vain for {what}\n{}", self.daemon.log_tail())
    }

    fn print(&self, status: &Status) {
        let seen = self.connections_since(Instant::now() - TICK);
        let by_wan = seen.by_wan();
        let seconds = self.begun.elapsed().as_secs_f64();
        for (number, name) in (1..).zip(NAMES) {
            let count = by_wan.get(&number).copied().unwrap_or(0);
            let [v4, v6] = Family::BOTH.map(|family| self.screen.state(status.state(name, family)));
            let rtt = status.wan(name)["ipv4"]["rtt_ms"].as_f64();
            let rtt = rtt.map_or("     -".to_owned(), |rtt| format!("{rtt:6.2}"));
            let time = if number == 1 { format!("{seconds:5.1} s") } else { " ".repeat(7) };
            self.screen.text(&format!(
                "{time}  {name:6} IPv4 {v4} IPv6 {v6} share {:3.0} %  rtt {rtt} ms  {count:3} new {}",
                status.share_percent(name),
                "#".repeat(count / 3),
            ));
        }
        if seen.failed() > 0 {
            self.screen.bad(&format!(
                "{}{} failed {:?}",
                " ".repeat(9),
                seen.failed(),
                seen.failures()
            ));
        }
    }
}
