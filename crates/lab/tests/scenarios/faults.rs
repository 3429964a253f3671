//! Each way in which a WAN fails ends in new connections through the next one; its end brings
//! them back after the hold time; nothing is placed on a WAN that is down, nothing leaks.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use anywan_lab::{Config, Daemon, Family, Fault, Fault::*, Spec, Topology};
use rustix::process::Signal;

use crate::common::{
    dialers, ensure_all_kept, ensure_nothing_wrong_since, flows_of_every_kind, in_both_layouts,
    talk, wait_all_by, wait_dialled,
};

/// Priorities that make `first` the best WAN and some other the next.
fn best(first: usize) -> ([u32; 3], usize) {
    match first {
        1 => ([1, 2, 3], 2),
        _ => ([2, 1, 3], 1),
    }
}

/// The whole life of a fault of the best WAN.
fn failover_and_back(spec: Spec, first: usize, fault: &Fault) -> Result<()> {
    let topology = spec.build()?;
    let (priorities, next) = best(first);
    let config = Config::of(&topology).priorities(&priorities);
    let daemon = Daemon::start_up(&topology, &config)?;
    let client = topology.client(1);
    wait_all_by(&client, first)?;
    let flows = flows_of_every_kind(&client, 10)?;
    let dialling = dialers(&client);
    wait_dialled(&dialling, |wan| wan == first)?;

    topology.break_wan(first, fault)?;
    let name = topology.wan(first).name.clone();
    for family in Family::BOTH {
        daemon.wait_state(&name, family, &["down"]).with_context(|| format!("{fault:?}"))?;
    }
    // Until the daemon knew, the kernel alone decided: packets count from here on.
    let before = topology.all_counts()?;
    wait_all_by(&client, next)?;
    ensure_quiet(&topology, &client, first)?;
    // Established flows of the lost WAN may move or end; strays are counted.
    flows.exchange(Duration::from_millis(300));

    let mended = Instant::now();
    topology.mend_wan(first, fault)?;
    wait_dialled(&dialling, |wan| wan == first).context("back on the mended WAN")?;
    wait_all_by(&client, first)?;
    for dialler in dialling {
        let report = dialler.stop()?;
        let sequence = report.sequence();
        ensure!(sequence == [first, next, first], "{fault:?}: {report}, by {sequence:?}");
        let back = report.between(mended, Instant::now());
        let first_back = back.attempts.iter().find(|attempt| attempt.result == Ok(first));
        let held = first_back.context("an attempt after the mending")?.at - mended;
        // The config says 1 s; the first good probe may be late, never early.
        ensure!(held >= Duration::from_millis(900), "back after only {held:?}");
    }
    // Of flows that the kernel forgot with the address, a test of their own speaks. Beside a
    // shared interface their last words pass for answers to the box's port forwards, which must
    // go back to it as they are: not `other_host`.
    if matches!(fault, AddressGone | InterfaceGone) {
        for (number, (now, then)) in (1..).zip(topology.all_counts()?.into_iter().zip(before)) {
            let seen = now.since(then);
            ensure!(seen.foreign_source == 0, "ISP {number}: {seen:?}");
        }
        return Ok(());
    }
    ensure_nothing_wrong_since(&topology, &before)
}

/// Opens flows; the ISP of the WAN that is down must see none of them.
fn ensure_quiet(topology: &Topology, client: &anywan_lab::Client, down: usize) -> Result<()> {
    let before = topology.counts(down)?;
    for (proto, family) in crate::common::every_kind() {
        client.place(50, proto, family)?;
    }
    let seen = topology.counts(down)?.since(before);
    ensure!(seen.new_tcp + seen.new_udp == 0, "flows were placed on a WAN that is down: {seen:?}");
    Ok(())
}

#[test]
fn carrier_lost() -> Result<()> {
    failover_and_back(Spec::routed(3), 1, &CarrierLost)
}

#[test]
fn carrier_lost_beside_a_shared_interface() -> Result<()> {
    failover_and_back(Spec::one_armed(3), 2, &CarrierLost)
}

#[test]
fn the_box_on_the_shared_interface_unplugged() -> Result<()> {
    failover_and_back(Spec::one_armed(3), 1, &CarrierLost)
}

#[test]
fn interface_gone() -> Result<()> {
    failover_and_back(Spec::routed(3), 1, &InterfaceGone)
}

#[test]
fn interface_gone_beside_a_shared_interface() -> Result<()> {
    failover_and_back(Spec::one_armed(3), 2, &InterfaceGone)
}

#[test]
fn address_gone() -> Result<()> {
    failover_and_back(Spec::routed(3), 1, &AddressGone)
}

#[test]
fn address_gone_beside_a_shared_interface() -> Result<()> {
    failover_and_back(Spec::one_armed(3), 2, &AddressGone)
}

#[test]
fn gateway_silent_with_carrier() -> Result<()> {
    failover_and_back(Spec::routed(3), 1, &GatewaySilent)
}

#[test]
fn gateway_silent_on_the_shared_interface() -> Result<()> {
    failover_and_back(Spec::one_armed(3), 1, &GatewaySilent)
}

#[test]
fn a_blackhole_behind_a_gateway_that_answers() -> Result<()> {
    failover_and_back(Spec::routed(3), 1, &Blackhole)
}

#[test]
fn a_blackhole_behind_the_gateway_on_the_shared_interface() -> Result<()> {
    failover_and_back(Spec::one_armed(3), 1, &Blackhole)
}

/// Not one new connection fails when a WAN loses its carrier: the kernel itself leaves it.
fn carrier_lost_without_a_failure(spec: Spec, frozen: bool) -> Result<()> {
    let topology = spec.build()?;
    // The shared interface cannot lose its carrier without the LAN losing it.
    let first = if topology.spec().one_armed { 2 } else { 1 };
    let (priorities, next) = best(first);
    let config = Config::of(&topology).priorities(&priorities);
    let daemon = Daemon::start_up(&topology, &config)?;
    wait_all_by(&topology.client(1), first)?;
    let dialling = dialers(&topology.client(1));
    wait_dialled(&dialling, |wan| wan == first)?;
    if frozen {
        daemon.signal(Signal::STOP)?;
    }
    topology.break_wan(first, &CarrierLost)?;
    let broken = Instant::now();
    wait_dialled(&dialling, |wan| wan == next)?;
    if frozen {
        daemon.signal(Signal::CONT)?;
    }
    // One that was half open when it happened is no new one.
    for dialler in dialling {
        let report = dialler.stop()?.between(broken, Instant::now());
        ensure!(report.attempts.len() >= 20 && report.failed() == 0, "{report}");
    }
    Ok(())
}

#[test]
fn no_new_connection_fails_when_the_carrier_is_lost() -> Result<()> {
    in_both_layouts(3, |spec| carrier_lost_without_a_failure(spec, false))
}

#[test]
fn no_new_connection_fails_when_the_carrier_is_lost_and_the_daemon_is_stopped() -> Result<()> {
    in_both_layouts(3, |spec| carrier_lost_without_a_failure(spec, true))
}

#[test]
fn a_fault_of_one_family_moves_only_that_family() -> Result<()> {
    for broken in Family::BOTH {
        let topology = Spec::routed(2).build()?;
        let config = Config::of(&topology).priorities(&[1, 2]);
        let daemon = Daemon::start_up(&topology, &config)?;
        let client = topology.client(1);
        wait_all_by(&client, 1)?;
        topology.break_wan(1, &BlackholeOf(broken))?;
        daemon.wait_state("wan1", broken, &["down"])?;
        for (proto, family) in crate::common::every_kind() {
            let wanted = if family == broken { 2 } else { 1 };
            let placed = client.place(20, proto, family)?;
            ensure!(placed.only() == Some(wanted), "{broken:?} broken: {family:?} {placed}");
        }
    }
    Ok(())
}

#[test]
fn one_dead_target_is_not_a_dead_wan() -> Result<()> {
    let topology = Spec::routed(2).build()?;
    let config = Config::of(&topology).priorities(&[1, 2]);
    let daemon = Daemon::start_up(&topology, &config)?;
    let talking = talk(flows_of_every_kind(&topology.client(1), 5)?);
    topology.break_wan(1, &Swallow("ip daddr 198.51.100.20".to_owned()))?;
    topology.break_wan(1, &Swallow("ip6 daddr 2001:db8:ff::20".to_owned()))?;
    // Long enough for many rounds of probes, counted at the ISP.
    let enough = topology.counts(1)?.probes + 100;
    anywan_lab::until(Duration::from_secs(60), "many probes", || {
        let probes = topology.counts(1)?.probes;
        ensure!(probes >= enough, "{probes} of {enough}");
        Ok(())
    })?;
    for family in Family::BOTH {
        let status = daemon.status()?;
        ensure!(status.state("wan1", family) != "down", "{}", status.summary());
    }
    ensure_all_kept(talking)?;
    wait_all_by(&topology.client(1), 1)
}
