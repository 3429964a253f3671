//! A WAN that comes and goes: left at once, come back to slowly.

use std::ops::Range;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use anywan_lab::client::DialReport;
use anywan_lab::{Config, Daemon, Family, Fault, Proto, Spec, Topology, until};

use crate::common::{BEAT, wait_all_by};

/// How long the line is in each of its moods.
const MOOD: Duration = Duration::from_secs(2);
/// A minute of them.
const TURNS: usize = 15;
/// The kernel announces a change of carrier at once when none was before for so long.
const QUIET: Duration = Duration::from_secs(3);
/// A safety net for what takes some ten seconds at default settings.
const LONG: Duration = Duration::from_secs(90);

fn config(topology: &Topology) -> Config {
    Config::of(topology).as_by_default().priorities(&[1, 2, 3])
}

/// Breaks and mends WAN 1 for a minute; what a client saw of it until it was back on WAN 1, and
/// when the line broke: between which moments.
fn a_minute_of(fault: &Fault) -> Result<(DialReport, Vec<Range<Instant>>)> {
    let topology = Spec::routed(3).build()?;
    let daemon = Daemon::start_up(&topology, &config(&topology))?;
    wait_all_by(&topology.client(1), 1)?;
    let client = topology.client(1).timeout(Duration::from_secs(5));
    let dialer = client.dial(Proto::Tcp, Family::V4, BEAT);
    // What the client does meanwhile is what is looked at, not how long this takes.
    sleep(QUIET);
    let mut broken = Vec::new();
    for _ in 0..TURNS {
        let from = Instant::now();
        topology.break_wan(1, fault)?;
        broken.push(from..Instant::now());
        sleep(MOOD);
        topology.mend_wan(1, fault)?;
        sleep(MOOD);
    }
    dialer.wait_for(30, LONG, |wan| wan == 1).with_context(|| daemon.log_tail())?;
    Ok((dialer.stop()?, broken))
}

fn switches(report: &DialReport) -> usize {
    report.sequence().len() - 1
}

#[test]
fn a_carrier_that_flaps_costs_no_connection_and_at_most_two_switches() -> Result<()> {
    let (report, broken) = a_minute_of(&Fault::CarrierLost)?;
    ensure!(switches(&report) <= 2, "{report}, by {:?}", report.sequence());
    // One that was half open at that moment is no new one.
    let failed = report.attempts.iter().filter(|attempt| attempt.result.is_err());
    let half_open = Duration::from_millis(100);
    let was_open =
        |at: &Instant| broken.iter().any(|range| (range.start - half_open..range.end).contains(at));
    let new: Vec<_> = failed.filter(|attempt| !was_open(&attempt.at)).collect();
    ensure!(new.is_empty(), "{report}: {new:?}, broken at {broken:?}");
    Ok(())
}

#[test]
fn a_blackhole_that_comes_and_goes_costs_at_most_four_switches() -> Result<()> {
    let (report, _) = a_minute_of(&Fault::Blackhole)?;
    ensure!(switches(&report) <= 4, "{report}, by {:?}", report.sequence());
    Ok(())
}

/// How soon is measured by the benchmark; here, that one clean outage costs two switches and no
/// flow that moved has to move again.
#[test]
fn after_one_clean_outage_new_connections_come_back_and_others_stay() -> Result<()> {
    let topology = Spec::routed(3).build()?;
    let _daemon = Daemon::start_up(&topology, &config(&topology))?;
    wait_all_by(&topology.client(1), 1)?;
    let dialer = topology.client(1).dial(Proto::Tcp, Family::V4, BEAT);
    dialer.wait_for(30, LONG, |wan| wan == 1)?;
    topology.break_wan(1, &Fault::Blackhole)?;
    dialer.wait_for(30, LONG, |wan| wan == 2)?;
    let moved = topology.client(1).flows(30, Proto::Tcp, Family::V4)?;
    ensure!(moved.on(2) == 30, "they begin on the next WAN");
    topology.mend_wan(1, &Fault::Blackhole)?;
    dialer.wait_for(30, LONG, |wan| wan == 1)?;
    let report = dialer.stop()?;
    ensure!(report.sequence() == [1, 2, 1], "{report}, by {:?}", report.sequence());
    until(LONG, "the flows that moved to answer where they are", || {
        let exchange = moved.exchange(Duration::from_secs(5));
        ensure!(exchange.all_kept(), "{exchange}");
        Ok(())
    })
}
