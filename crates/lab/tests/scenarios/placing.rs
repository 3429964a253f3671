//! New flows follow priority, then weight; the router's own too; sources stick when asked to.

use anyhow::{Result, ensure};
use anywan_lab::{Config, Daemon, Family, Placement, Proto, Spec};

use crate::common::{ensure_all_by, ensure_nothing_wrong, every_kind, in_both_layouts};

const WEIGHTS: [u32; 3] = [8, 6, 3];

/// Each WAN's share is within `points` of its weight's.
fn ensure_shares(placed: &Placement, points: f64) -> Result<()> {
    ensure!(placed.failed() == 0, "{placed}");
    let total: u32 = WEIGHTS.iter().sum();
    for (number, weight) in (1..).zip(WEIGHTS) {
        let (is, should) = (placed.percent(number), 100.0 * f64::from(weight) / f64::from(total));
        ensure!((is - should).abs() <= points, "wan{number}: {is} %, not {should} %: {placed}");
    }
    Ok(())
}

#[test]
fn two_thousand_new_flows_of_each_kind_follow_the_weights() -> Result<()> {
    in_both_layouts(3, |spec| {
        let topology = spec.build()?;
        let _daemon = Daemon::start_up(&topology, &Config::of(&topology).weights(&WEIGHTS))?;
        for (proto, family) in every_kind() {
            ensure_shares(&topology.client(1).place(2000, proto, family)?, 3.0)?;
        }
        ensure_nothing_wrong(&topology)
    })
}

#[test]
fn the_lowest_priority_number_takes_all_whatever_its_weight() -> Result<()> {
    in_both_layouts(3, |spec| {
        let topology = spec.build()?;
        let config = Config::of(&topology).priorities(&[2, 1, 3]).weights(&[250, 1, 250]);
        let _daemon = Daemon::start_up(&topology, &config)?;
        ensure_all_by(&topology.client(1), 2)?;
        ensure_all_by(&topology.router_client(), 2)
    })
}

#[test]
fn weights_are_shared_among_the_best_priority_only() -> Result<()> {
    let topology = Spec::routed(3).build()?;
    let config = Config::of(&topology).priorities(&[1, 2, 1]).weights(&[1, 1, 3]);
    let daemon = Daemon::start_up(&topology, &config)?;
    for (proto, family) in every_kind() {
        let placed = topology.client(1).place(400, proto, family)?;
        ensure!(placed.failed() == 0 && !placed.by_wan.contains_key(&2), "{placed}");
        ensure!((placed.percent(1) - 25.0).abs() <= 3.0, "{placed}");
    }
    let status = daemon.status()?;
    ensure!((status.share_percent("wan1") - 25.0).abs() <= 1.0, "{}", status.summary());
    ensure!(status.share_percent("wan2") == 0.0, "{}", status.summary());
    Ok(())
}

#[test]
fn gateways_are_found_in_mains_default_routes() -> Result<()> {
    in_both_layouts(3, |spec| {
        let topology = spec.build()?;
        let config = Config::of(&topology).auto_gateways();
        let daemon = Daemon::start_up(&topology, &config)?;
        for (proto, family) in every_kind() {
            let placed = topology.client(1).place(60, proto, family)?;
            ensure!(placed.by_wan.len() == 3 && placed.failed() == 0, "{placed}");
        }
        let status = daemon.status()?;
        for wan in topology.wans() {
            for family in Family::BOTH {
                let gateway = wan.gateway(family).map(|gateway| gateway.to_string());
                let said = &status.wan(&wan.name)[family.key()]["gateway"];
                ensure!(said.as_str() == gateway.as_deref(), "{said} is not {gateway:?}");
            }
        }
        Ok(())
    })
}

#[test]
fn a_source_sticks_to_its_wan_when_asked_to() -> Result<()> {
    let topology = Spec::routed(3).clients(1, 120).build()?;
    let config = Config::of(&topology).router("sticky", r#""source""#);
    let _daemon = Daemon::start_up(&topology, &config)?;
    for (proto, family) in every_kind() {
        let client = topology.client(1).from(topology.client_addresses(1, family)).to_all();
        let placed = client.place(1200, proto, family)?;
        ensure!(placed.failed() == 0 && placed.by_wan.len() == 3, "{placed}");
        ensure!(placed.by_source.len() == 120);
        for (source, wans) in placed.by_source {
            ensure!(wans.len() == 1, "{source:?} was seen on {wans:?}");
        }
    }
    Ok(())
}

#[test]
fn a_source_and_destination_stick_together_when_asked_to() -> Result<()> {
    let topology = Spec::routed(3).clients(1, 60).build()?;
    let config = Config::of(&topology).router("sticky", r#""source-destination""#);
    let _daemon = Daemon::start_up(&topology, &config)?;
    for family in Family::BOTH {
        // To one server at a time: then all of a source's flows must agree.
        let client = topology.client(1).from(topology.client_addresses(1, family));
        let placed = client.place(600, Proto::Tcp, family)?;
        ensure!(placed.failed() == 0 && placed.by_wan.len() == 3, "{placed}");
        for (source, wans) in placed.by_source {
            ensure!(wans.len() == 1, "{source:?} was seen on {wans:?}");
        }
    }
    Ok(())
}

#[test]
fn the_routers_own_flows_follow_the_weights_with_the_right_source() -> Result<()> {
    in_both_layouts(3, |spec| {
        let topology = spec.build()?;
        let _daemon = Daemon::start_up(&topology, &Config::of(&topology).weights(&WEIGHTS))?;
        for (proto, family) in every_kind() {
            // The kernel spreads these by a hash of the ports: a coarser measure.
            ensure_shares(&topology.router_client().place(1000, proto, family)?, 8.0)?;
        }
        ensure_nothing_wrong(&topology)
    })
}

#[test]
fn a_wan_without_a_family_gets_none_of_its_flows() -> Result<()> {
    use anywan_lab::Families;
    let spec = Spec::routed(3).wan(1, |wan| wan.families = Families::V4);
    let topology = spec.wan(2, |wan| wan.families = Families::V6).build()?;
    let _daemon = Daemon::start_up(&topology, &Config::of(&topology))?;
    for (proto, family) in every_kind() {
        let placed = topology.client(1).place(100, proto, family)?;
        let wanted = if family == Family::V4 { [1, 3] } else { [2, 3] };
        ensure!(placed.failed() == 0, "{placed}");
        ensure!(placed.by_wan.keys().copied().eq(wanted), "{family:?}: {placed}");
    }
    ensure_nothing_wrong(&topology)
}
