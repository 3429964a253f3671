//! A client that connects and looks names up all the time: what it notices of a fault.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use anywan_lab::client::Dialer;
use anywan_lab::daemon::Daemon;
use anywan_lab::dial::Proto;
use anywan_lab::names::{Lookups, lookups};
use anywan_lab::topology::{Family, Topology};
use anywan_lab::until;

use crate::report::{Page, median, ms, worst};

/// Between two attempts, and two questions.
pub(crate) const BEAT: Duration = Duration::from_millis(20);
/// For whatever is waited for: a dialled line in an emulated machine takes its time.
pub(crate) const DEADLINE: Duration = Duration::from_secs(180);

/// Goes on until it is ended.
pub(crate) struct Client {
    dialer: Dialer,
    lookups: Lookups,
    since: Instant,
}

/// Of one fault.
pub(crate) struct Noticed {
    /// From the fault to the daemon's choice of the next WAN, as its log tells.
    detected: Duration,
    /// From there to the first connection by the next WAN.
    connection: Duration,
    /// From there to the first name that the next WAN's resolver answered.
    name: Duration,
    /// The longest that anybody waited for a name, counted from the switch or from the question,
    /// whichever came later.
    slowest: Duration,
    unanswered: usize,
}

impl Client {
    /// Begins, once connections and names are served by a WAN.
    pub(crate) fn begin(topology: &Topology, served_by: usize) -> Result<Client> {
        // Longer than any retransmission that could make a failure look like a slow success.
        let client = topology.client(1).timeout(Duration::from_millis(500));
        let dialer = client.dial(Proto::Tcp, Family::V4, BEAT);
        let router = topology.lan_address(Family::V4);
        let lookups = lookups(topology.client_space(1), router, BEAT);
        let client = Client { dialer, lookups, since: Instant::now() };
        client.wait_served(served_by)?;
        Ok(client)
    }

    fn wait_served(&self, by: usize) -> Result<()> {
        self.dialer.wait_for(20, DEADLINE, |taken| taken == by)?;
        let address = resolved_by(by);
        until(DEADLINE, "names by the WAN that serves", || {
            self.lookups.ensure_answers_since(self.since, &address, 20)
        })
    }

    /// Waits after a fault that has just happened until the next WAN serves; ends.
    pub(crate) fn switched(
        mut self,
        daemon: &Daemon,
        fault: Instant,
        next: usize,
    ) -> Result<Noticed> {
        self.since = fault;
        self.wait_served(next)?;
        let switch = daemon.chose_after(fault, Family::V4)?;
        let dialled = self.dialer.stop()?;
        let looked = self.lookups.stop()?;
        let address = resolved_by(next);
        let connection = dialled.attempts.iter().filter(|a| a.at > fault && a.result == Ok(next));
        let connection = connection.map(|a| a.at + a.took).min().context("a connection")?;
        let of_next = looked.iter().filter(|l| l.address.as_ref() == Some(&address));
        let name = of_next.map(|l| l.at + l.took).min().context("a name")?;
        let after = looked.iter().filter(|l| l.at + l.took > fault);
        let waited = |from: Instant| (after.clone()).map(move |l| l.at + l.took - l.at.max(from));
        Ok(Noticed {
            detected: switch - fault,
            connection: connection.saturating_duration_since(switch),
            name: name.saturating_duration_since(switch),
            slowest: waited(switch).max().context("a name")?,
            unanswered: after.filter(|l| l.address.is_none()).count(),
        })
    }
}

/// What names below `.test` are to an ISP's resolver.
fn resolved_by(number: usize) -> String {
    format!("198.18.{number}.80")
}

/// Begins a table of these.
pub(crate) fn table(page: &mut Page, title: &str, note: &str, what: &str) {
    let columns = [
        what,
        "switch after the fault, median",
        "first connection after the switch, median",
        "worst",
        "first name after the switch, median",
        "worst",
        "slowest answer after the switch, worst",
        "names not answered",
    ];
    page.table(title, note, &columns);
}

/// Adds a row of some runs.
pub(crate) fn row(page: &mut Page, what: &str, runs: &[Noticed]) {
    let all = |of: fn(&Noticed) -> Duration| runs.iter().map(|n| ms(of(n))).collect::<Vec<_>>();
    let time = |value: f64| format!("{value:.0} ms");
    let (connection, name) = (all(|n| n.connection), all(|n| n.name));
    page.row(&[
        what.to_owned(),
        time(median(&all(|n| n.detected))),
        time(median(&connection)),
        time(worst(&connection)),
        time(median(&name)),
        time(worst(&name)),
        time(worst(&all(|n| n.slowest))),
        runs.iter().map(|n| n.unanswered).sum::<usize>().to_string(),
    ]);
}
