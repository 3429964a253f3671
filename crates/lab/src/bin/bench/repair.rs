//! Somebody takes away what is ours while a LAN is at work: what its hosts notice of it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use anywan_lab::client::DialReport;
use anywan_lab::daemon::{Config, Daemon};
use anywan_lab::dial::{Failure, Proto};
use anywan_lab::snapshot::Snapshot;
use anywan_lab::topology::{Family, Spec};
use anywan_lab::until;

use crate::report::{Page, median, ms, worst};

/// Runs of each damage.
const RUNS: usize = 10;
/// Between two attempts.
const BEAT: Duration = Duration::from_millis(10);
/// An attempt is given up after less than any retransmission.
const PATIENCE: Duration = Duration::from_millis(500);
/// Connections of each kind that are established when it happens.
const FLOWS: usize = 50;
/// Between two words of those that talk: each moment without our rules meets some.
const WORD: Duration = Duration::from_millis(1);
/// For an answer on one of those: some retransmissions.
const ANSWER: Duration = Duration::from_secs(5);
/// The wait after the daemon has come up, and once more in each run, so that not all of them meet the
/// same moment of its rounds.
const WARM: Duration = Duration::from_secs(2);
const LATER: Duration = Duration::from_millis(37);
/// For whatever is waited for.
const DEADLINE: Duration = Duration::from_secs(60);

/// What is done, in words and as a command.
const DAMAGES: [(&str, &str); 3] = [
    ("all of nftables flushed", "nft flush ruleset"),
    ("all our ip rules deleted", "ip rule flush protocol 87"),
    ("all our routes deleted", "ip route flush table all protocol 87"),
];

/// What hosts noticed.
struct Noticed {
    dialled: DialReport,
    /// Established connections that answered no more, and that were reset.
    silent: usize,
    reset: usize,
    /// Packets that came to an ISP with somebody else's source, or in the middle of a connection that
    /// is not its own.
    astray: u64,
}

/// All of it.
pub(crate) fn all(page: &mut Page) -> Result<()> {
    let note = format!(
        "Three WANs of one priority, default settings; a client tries a new connection every \
         10 ms, {FLOWS} more are established and say nothing, {FLOWS} say a word each \
         millisecond. Somebody destroys what is ours. Outage: the longest span without a \
         success; an attempt fails after {:.0} ms. Silent, reset: of the established ones, asked \
         for a word afterwards. Astray: packets that came to an ISP with a source that is not \
         its customer's, or of a connection of another one. {RUNS} runs each.",
        ms(PATIENCE)
    );
    let columns = [
        "what is destroyed",
        "outage, median",
        "worst",
        "failed, median",
        "worst",
        "silent, worst",
        "reset, median",
        "worst",
        "packets astray, worst",
    ];
    page.table("Repair", &note, &columns);
    for (what, command) in DAMAGES {
        let runs = (0..RUNS).map(|run| destroy(command, run)).collect::<Result<Vec<_>>>()?;
        let all = |of: &dyn Fn(&Noticed) -> f64| runs.iter().map(of).collect::<Vec<f64>>();
        let outages = all(&|run| ms(run.dialled.longest_outage()));
        let failed = all(&|run| run.dialled.failed() as f64);
        page.row(&[
            what.to_owned(),
            format!("{:.0} ms", median(&outages)),
            format!("{:.0} ms", worst(&outages)),
            format!("{:.0}", median(&failed)),
            format!("{:.0}", worst(&failed)),
            format!("{:.0}", worst(&all(&|run| run.silent as f64))),
            format!("{:.0}", median(&all(&|run| run.reset as f64))),
            format!("{:.0}", worst(&all(&|run| run.reset as f64))),
            format!("{:.0}", worst(&all(&|run| run.astray as f64))),
        ]);
    }
    page.end();
    Ok(())
}

fn destroy(command: &str, run: usize) -> Result<Noticed> {
    let topology = Spec::routed(3).build()?;
    let _daemon = Daemon::start_up(&topology, &Config::of(&topology).as_by_default())?;
    sleep(WARM + LATER * u32::try_from(run)?);
    let whole = Snapshot::take(topology.router())?;
    let client = topology.client(1).timeout(PATIENCE);
    let idle = client.flows(FLOWS, Proto::Tcp, Family::V4)?;
    let talking = client.flows(FLOWS, Proto::Tcp, Family::V4)?;
    let talking = talking.keep_talking(WORD, ANSWER);
    let dialer = client.dial(Proto::Tcp, Family::V4, BEAT);
    dialer.wait_for(30, DEADLINE, |_| true)?;
    let before = topology.all_counts()?;
    let at = Instant::now();
    topology.router().run(command)?;
    dialer.wait_for(30, DEADLINE, |_| true)?;
    let dialled = dialer.stop()?;
    until(DEADLINE, "the repair", || {
        let diff = whole.diff(&Snapshot::take(topology.router())?);
        ensure!(diff.is_empty(), "{diff}");
        Ok(())
    })?;
    let (talking, _) = talking.stop();
    let failures = idle.and(talking).exchange(ANSWER).failures();
    let of = |kind| failures.get(&kind).copied().unwrap_or(0);
    let counts = topology.all_counts()?.into_iter().zip(before);
    Ok(Noticed {
        // From the attempt before on.
        dialled: dialled.between(at - BEAT * 2, Instant::now()),
        silent: failures.values().sum::<usize>() - of(Failure::Reset),
        reset: of(Failure::Reset),
        astray: counts.map(|(after, before)| after.since(before).wrong()).sum(),
    })
}
