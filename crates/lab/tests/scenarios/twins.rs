//! Two WANs that look the same: one subnet and gateway address, or even one own address.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use anywan_lab::servers::ECHO;
use anywan_lab::{Config, Daemon, Family, Fault, Proto, Servers, Spec};

use crate::common::{
    ensure_all_kept, ensure_nothing_wrong, every_kind, flows_of_every_kind, talk, wait_all_by,
};

fn twins_work(spec: Spec) -> Result<()> {
    let topology = spec.build()?;
    let config = Config::of(&topology);
    let daemon = Daemon::start_up(&topology, &config)?;
    for (proto, family) in every_kind() {
        let placed = topology.client(1).place(300, proto, family)?;
        ensure!(placed.failed() == 0 && placed.by_wan.len() == 3, "{proto:?} {family:?} {placed}");
    }
    // Both are probed: each one's death is seen, and only its own.
    for (dead, twin) in [(2, 3), (3, 2)] {
        let mut flows = flows_of_every_kind(&topology.client(1), 20)?;
        flows.take_from(dead);
        let talking = talk(flows);
        topology.break_wan(dead, &Fault::Blackhole)?;
        for family in Family::BOTH {
            let name = &topology.wan(dead).name;
            let status = daemon.wait_state(name, family, &["down"])?;
            let other = status.state(&topology.wan(twin).name, family);
            ensure!(other == "up", "the twin is {other}");
        }
        for (proto, family) in every_kind() {
            let placed = topology.client(1).place(60, proto, family)?;
            ensure!(placed.failed() == 0 && !placed.by_wan.contains_key(&dead), "{placed}");
        }
        topology.mend_wan(dead, &Fault::Blackhole)?;
        daemon.wait_all_up()?;
        ensure_all_kept(talking)?;
    }
    ensure_nothing_wrong(&topology)?;
    // As the only usable one, each carries everything.
    for alone in [2, 3] {
        let mut priorities = [9, 9, 9];
        priorities[alone - 1] = 1;
        daemon.reload(&config.clone().priorities(&priorities))?;
        wait_all_by(&topology.client(1), alone)?;
        wait_all_by(&topology.router_client(), alone)?;
    }
    Ok(())
}

#[test]
fn two_wans_with_the_same_subnet_and_gateway_address_both_work() -> Result<()> {
    twins_work(Spec::routed(3).same_subnet(3, 2))
}

#[test]
fn two_wans_with_the_same_own_address_both_work() -> Result<()> {
    twins_work(Spec::routed(3).same_address(3, 2))
}

#[test]
fn two_wans_with_the_same_own_address_work_beside_a_shared_interface() -> Result<()> {
    twins_work(Spec::one_armed(3).same_address(3, 2))
}

/// The gateways of two twins are told apart by aliases, from a LAN and from the router.
#[test]
fn the_pages_of_twins_are_both_reached_by_their_aliases() -> Result<()> {
    for spec in [Spec::routed(3).same_address(3, 2), Spec::one_armed(3).same_address(3, 2)] {
        let topology = spec.build()?;
        let alias = |number: usize| Ipv4Addr::from([192, 168, 108, number as u8]);
        let mut config = Config::of(&topology);
        for number in [2, 3] {
            let text = format!("{:?}", alias(number).to_string());
            config = config.wan(number, |w| w.more.push(("gateway_alias".to_owned(), text)));
        }
        let daemon = Daemon::start_up(&topology, &config)?;
        let gateway = topology.wan(2).gateway(Family::V4).context("it has one")?;
        ensure!(topology.wan(3).gateway(Family::V4) == Some(gateway), "twins");
        for there in [2, 3] {
            // Only this one of the two has a page now.
            let page = Servers::start(topology.isp(there), &[gateway])?;
            for client in [topology.client(1), topology.router_client()] {
                for proto in [Proto::Tcp, Proto::Udp] {
                    let at = |n| client.clone().to(vec![SocketAddr::new(alias(n).into(), ECHO)]);
                    let seen = at(there)
                        .reach(proto, Family::V4)
                        .with_context(|| format!("from {}, wan{there}", client.space().name()))?;
                    ensure!(Some(seen) == topology.wan(there).own(Family::V4), "{seen}");
                    let quick = at(5 - there).timeout(Duration::from_millis(300));
                    ensure!(quick.reach(proto, Family::V4).is_err(), "the other answers");
                }
            }
            drop(page);
        }
        // A connection to a page stays while both are otherwise busy, and while the WAN is left.
        let page = Servers::start(topology.isp(3), &[gateway])?;
        let to_page = topology.client(1).to(vec![SocketAddr::new(alias(3).into(), ECHO)]);
        let mut open = to_page.known_as(topology.wan(3).own(Family::V4).context("own")?, 3);
        open = open.timeout(Duration::from_secs(2));
        let flows = open.flows(5, Proto::Tcp, Family::V4)?;
        let talking = talk(flows);
        topology.break_wan(3, &Fault::Blackhole)?;
        daemon.wait_state("wan3", Family::V4, &["down"])?;
        ensure!(open.reach(Proto::Tcp, Family::V4).is_ok(), "a page of a WAN that is down");
        ensure_all_kept(talking)?;
        drop(page);
    }
    Ok(())
}
