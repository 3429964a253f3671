//! New flows follow priority, then weight; the router's own too; sources stick when asked to.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use anywan_lab::servers::ECHO;
use anywan_lab::topology::SERVERS;
use anywan_lab::{Client, Config, Daemon, Family, Placement, Proto, Spec, Topology};

use crate::common::{ensure_all_by, ensure_nothing_wrong, every_kind, in_both_layouts};

const WEIGHTS: [u32; 3] = [8, 6, 3];

/// The shares that the weights ask for, in percent.
fn by_weight() -> [f64; 3] {
    let total: u32 = WEIGHTS.iter().sum();
    WEIGHTS.map(|weight| 100.0 * f64::from(weight) / f64::from(total))
}

/// Each WAN's share is within `points` of what it should be.
fn ensure_shares(placed: &Placement, shares: [f64; 3], points: f64) -> Result<()> {
    ensure!(placed.failed() == 0, "{placed}");
    for (number, should) in (1..).zip(shares) {
        let is = placed.percent(number);
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
            ensure_shares(&topology.client(1).place(2000, proto, family)?, by_weight(), 3.0)?;
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

/// Whether this Linux looks up a flow's way once for its source address, before it has a port,
/// and then once more, anew ("ip: load balance tcp connections to single dst addr and port").
fn before_6_16() -> Result<bool> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map(str::parse);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        anyhow::bail!("{release}");
    };
    Ok((major, minor) < (6_u32, 16_u32))
}

/// Then what has the source address of a WAN goes by it; but that of WAN 1, which is the LAN's too,
/// stands for any WAN.
fn wan1_looked_up_again() -> [f64; 3] {
    let [one, two, three] = by_weight();
    let again = one / 100.0;
    [one * again, two + two * again, three + three * again]
}

/// Has the internet serve at many ports, and the router ask at each of them: before 6.16 all of its
/// own TCP flows to one service leave by one WAN.
fn services(topology: &Topology) -> Result<Client> {
    let ports = 20_000..21_000;
    let (first, last) = (ports.start, ports.end - 1);
    topology.internet().nft(&format!(
        "table inet services {{
            chain in {{
                type nat hook prerouting priority dstnat;
                meta l4proto {{ tcp, udp }} th dport {first}-{last} redirect to :{ECHO}
            }}
        }}"
    ))?;
    let (v4, v6) = SERVERS[0];
    let at = |address: IpAddr| ports.clone().map(move |port| SocketAddr::new(address, port));
    Ok(topology.router_client().to(at(v4.into()).chain(at(v6.into())).collect()))
}

#[test]
fn the_routers_own_flows_follow_the_weights_with_the_right_source() -> Result<()> {
    let looks_up_twice = before_6_16()?;
    in_both_layouts(3, |spec| {
        let topology = spec.build()?;
        let _daemon = Daemon::start_up(&topology, &Config::of(&topology).weights(&WEIGHTS))?;
        let client = services(&topology)?;
        for (proto, family) in every_kind() {
            let again = looks_up_twice && topology.wan(1).shared;
            let shares = match family {
                Family::V4 if again => wan1_looked_up_again(),
                Family::V4 | Family::V6 => by_weight(),
            };
            // The kernel spreads these by a hash of the ports: a coarser measure.
            ensure_shares(&client.place(1000, proto, family)?, shares, 8.0)
                .with_context(|| format!("{proto:?} {family:?}"))?;
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
