//! All WANs down: refused at once, not swallowed; nothing is killed; recovery works from there.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use anywan_lab::{Config, Daemon, Failure, Family, Fault, Proto, Topology, until};

use crate::common::{DEADLINE, flows_of_every_kind, icmp_received, in_both_layouts, layouts};

const LONG: Duration = Duration::from_secs(30);

fn break_all(topology: &Topology, daemon: &Daemon) -> Result<()> {
    for number in 1..=topology.wans().len() {
        topology.break_wan(number, &Fault::Blackhole)?;
    }
    daemon.wait_status("all WANs to be down", |status| {
        let down = |name: &str| Family::BOTH.iter().all(|f| status.state(name, *f) == "down");
        topology.wans().iter().all(|wan| down(&wan.name))
    })?;
    Ok(())
}

fn mend_all(topology: &Topology) -> Result<()> {
    (1..=topology.wans().len()).try_for_each(|n| topology.mend_wan(n, &Fault::Blackhole))
}

#[test]
fn new_flows_are_refused_at_once_and_established_ones_survive() -> Result<()> {
    in_both_layouts(2, |spec| {
        let topology = spec.build()?;
        let daemon = Daemon::start_up(&topology, &Config::of(&topology))?;
        let client = topology.client(1);
        let mut flows = flows_of_every_kind(&client, 10)?;
        break_all(&topology, &daemon)?;
        for (at, family) in Family::BOTH.into_iter().enumerate() {
            let placed = client.clone().timeout(LONG).place(60, Proto::Tcp, family)?;
            let refused = placed.failures.get(&Failure::Refused).copied().unwrap_or(0);
            ensure!(refused == 60, "{family:?}: {placed}");
            // The kernel holds back most of them, never all; a UDP socket does not hear of all.
            let told = || icmp_received(topology.client_space(1), "DestUnreachs");
            let before = told()?[at];
            let placed = client.clone().place(10, Proto::Udp, family)?;
            ensure!(placed.worked() == 0 && told()?[at] > before, "{family:?}: {placed}");
        }
        let exchange = flows.exchange(Duration::from_millis(500));
        let silent = exchange.failures().get(&Failure::TimedOut).copied().unwrap_or(0);
        ensure!(silent == flows.len(), "none is killed: {exchange}");
        mend_all(&topology)?;
        daemon.wait_all_up()?;
        let placed = client.place(40, Proto::Tcp, Family::V6)?;
        ensure!(placed.failed() == 0 && placed.by_wan.len() == 2, "{placed}");
        // Retransmissions bring the waiting words through.
        let (one, two) = (flows.take_from(1), flows.take_from(2));
        for flows in [one, two] {
            let exchange = flows.exchange(LONG);
            // One WAN is found dead before the other: its UDP may have moved there meanwhile.
            ensure!(exchange.failures().is_empty(), "{exchange}");
        }
        Ok(())
    })
}

#[test]
fn tcp_flows_outlive_an_outage_of_everything() -> Result<()> {
    in_both_layouts(2, |spec| {
        let topology = spec.build()?;
        let daemon = Daemon::start_up(&topology, &Config::of(&topology))?;
        let client = topology.client(1);
        let open = |family| client.flows(20, Proto::Tcp, family);
        let flows = open(Family::V4)?.and(open(Family::V6)?);
        break_all(&topology, &daemon)?;
        let exchange = flows.exchange(Duration::from_millis(500));
        let silent = exchange.failures().get(&Failure::TimedOut).copied().unwrap_or(0);
        ensure!(silent == flows.len(), "none is killed: {exchange}");
        mend_all(&topology)?;
        daemon.wait_all_up()?;
        let exchange = flows.exchange(LONG);
        ensure!(exchange.all_kept(), "{exchange}");
        Ok(())
    })
}

#[test]
fn all_down_try_sends_new_flows_to_the_best_known_wan() -> Result<()> {
    for spec in layouts(2) {
        let topology = spec.build()?;
        let config = Config::of(&topology).priorities(&[1, 2]).router("all_down", r#""try""#);
        let daemon = Daemon::start_up(&topology, &config)?;
        break_all(&topology, &daemon)?;
        let before = topology.all_counts()?;
        let client = topology.client(1).timeout(Duration::from_millis(300));
        for family in Family::BOTH {
            let placed = client.place(5, Proto::Tcp, family)?;
            let timed_out = placed.failures.get(&Failure::TimedOut).copied().unwrap_or(0);
            ensure!(timed_out == 5, "tried, not refused: {placed}");
        }
        let tried: u64 = (topology.all_counts()?.iter().zip(before))
            .map(|(now, before)| now.since(before).new_tcp)
            .sum();
        ensure!(tried >= 10, "{tried} were tried; {}", daemon.log_tail());
    }
    Ok(())
}

#[test]
fn the_first_wan_that_comes_back_carries_everything() -> Result<()> {
    in_both_layouts(3, |spec| {
        let topology = spec.build()?;
        let config = Config::of(&topology).priorities(&[1, 2, 3]);
        let daemon = Daemon::start_up(&topology, &config)?;
        for first in [3, 2] {
            break_all(&topology, &daemon)?;
            topology.mend_wan(first, &Fault::Blackhole)?;
            crate::common::wait_all_by(&topology.client(1), first)
                .with_context(|| daemon.log_tail())?;
            mend_all(&topology)?;
            daemon.wait_all_up()?;
        }
        Ok(())
    })
}

#[test]
fn a_router_that_starts_with_all_wans_down_recovers() -> Result<()> {
    let topology = anywan_lab::Spec::routed(2).build()?;
    for number in [1, 2] {
        topology.break_wan(number, &Fault::Blackhole)?;
    }
    let daemon = Daemon::start(&topology, &Config::of(&topology))?;
    daemon.wait_status("all WANs to be down", |status| {
        ["wan1", "wan2"].iter().all(|name| status.state(name, Family::V4) == "down")
    })?;
    mend_all(&topology)?;
    until(DEADLINE, "connections", || {
        topology.client(1).connect(Proto::Tcp, Family::V4)?;
        topology.client(1).connect(Proto::Udp, Family::V6)
    })?;
    Ok(())
}

/// The reverse-path filter looks up where an answer would go: with no way at all it would drop
/// every answer to a probe, and no WAN could ever return.
#[test]
fn recovery_works_with_the_reverse_path_filter_on() -> Result<()> {
    for filter in ["1", "2"] {
        in_both_layouts(2, |spec| {
            let topology = spec.build()?;
            let mut pairs = vec![("net.ipv4.conf.all.rp_filter".to_owned(), filter)];
            for wan in topology.wans() {
                pairs.push((format!("net/ipv4/conf/{}/rp_filter", wan.interface), filter));
            }
            let pairs: Vec<_> = pairs.iter().map(|(key, value)| (key.as_str(), *value)).collect();
            topology.router().set_sysctls(&pairs)?;
            let daemon = Daemon::start_up(&topology, &Config::of(&topology))?;
            break_all(&topology, &daemon)?;
            mend_all(&topology)?;
            daemon.wait_all_up()?;
            let placed = topology.client(1).place(20, Proto::Tcp, Family::V4)?;
            ensure!(placed.failed() == 0 && placed.by_wan.len() == 2, "{placed}");
            Ok(())
        })?;
    }
    Ok(())
}
