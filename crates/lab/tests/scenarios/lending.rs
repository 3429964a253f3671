//! Addresses for LANs, with real clients: a range that is used up, and IPv6 by announcements alone.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use anywan_lab::announced::{Announced, solicit};
use anywan_lab::names::udhcpc;
use anywan_lab::{Config, Daemon, Family, Proto, Spec, Topology, until};

use crate::common::{DEADLINE, wait_all_by};
use crate::names::config;

/// Who has which address is read again each half minute at least.
const PATIENCE: Duration = Duration::from_secs(75);

/// A LAN that lends these hosts' addresses.
fn lending(topology: &Topology, hosts: (u8, u8), more: &str) -> Config {
    let mut config = config(topology);
    let router = topology.lan_address(Family::V4).to_string();
    let net = router.trim_end_matches(|c: char| c != '.');
    let range = format!("{{ range = \"{net}{}-{net}{}\"{more} }}", hosts.0, hosts.1);
    config.lans[0].1.push(("dhcp".to_owned(), range));
    config
}

#[test]
fn a_range_that_is_used_up_is_told_and_those_who_have_an_address_keep_it() -> Result<()> {
    let topology = Spec::routed(1).clients(3, 1).build()?;
    let daemon = Daemon::start_up(&topology, &lending(&topology, (150, 151), ""))?;
    let full = |daemon: &Daemon| -> Result<bool> {
        Ok(daemon.status()?.problems().iter().any(|p| p.contains("lan.range-full")))
    };
    let lent = |number: usize| udhcpc(topology.client_space(number));
    let first = until(DEADLINE, "a lease", || lent(1))?;
    ensure!(!full(&daemon)?, "one address is left");
    let second = until(DEADLINE, "a lease", || lent(2))?;
    ensure!(lent(3).is_err(), "there was none left");
    until(PATIENCE, "the full range to be told", || {
        let problems = daemon.status()?.problems();
        let told = |p: &String| p.contains("lan.range-full") && p.contains("all 2 addresses");
        ensure!(problems.iter().any(told), "{problems:?}");
        Ok(())
    })?;
    ensure!(lent(1)? == first && lent(2)? == second, "they keep theirs");
    wait_all_by(&topology.client(1), 1)?;
    daemon.reload(&lending(&topology, (150, 152), ""))?;
    until(DEADLINE, "room", || {
        ensure!(!full(&daemon)?);
        Ok(())
    })?;
    let third = until(DEADLINE, "a lease", || lent(3))?;
    ensure!(third != first && third != second, "{third}");
    Ok(())
}

#[test]
fn lan_clients_get_ipv6_from_announcements_alone_and_reach_the_internet_by_it() -> Result<()> {
    let topology = Spec::routed(2).build()?;
    let client = topology.client_space(1);
    // A client as it comes: it has no address, no route, and believes what routers announce.
    client.run("ip -6 address flush dev eth0 scope global")?;
    client.run("ip -6 route flush default")?;
    client.set_sysctls(&[
        ("net.ipv6.conf.eth0.accept_ra", "2"),
        ("net.ipv6.conf.eth0.autoconf", "1"),
        ("net.ipv6.conf.eth0.use_tempaddr", "0"),
    ])?;
    let daemon = Daemon::start_up(&topology, &lending(&topology, (150, 160), ", ra = true"))?;
    let announced = until(DEADLINE, "an announcement", || solicit(client, "eth0"))?;
    let Announced { lifetime, prefixes, resolvers } = &announced;
    ensure!(*lifetime > Duration::ZERO, "it is no router for all: {announced:?}");
    ensure!(prefixes.iter().any(|prefix| prefix == "fd00:1::/64"), "{announced:?}");
    let router = topology.lan_address(Family::V6);
    let on_lan = topology.router().run("ip -6 -o address show dev lan0")?;
    let is_ours = |address: &std::net::Ipv6Addr| on_lan.contains(&format!(" {address}/"));
    ensure!(!resolvers.is_empty() && resolvers.iter().all(is_ours), "{router}: {announced:?}");
    let own = until(DEADLINE, "an address and a route", || {
        let addresses = client.run("ip -6 -o address show dev eth0 scope global dynamic")?;
        let own = addresses.split_whitespace().find(|word| word.starts_with("fd00:1:"));
        let own = own.with_context(|| addresses.clone())?.split('/').next().context("a prefix")?;
        let route = client.run("ip -6 route show default")?;
        ensure!(route.contains("via fe80::") && route.contains("proto ra"), "{route}");
        Ok(own.parse::<std::net::IpAddr>()?)
    })?;
    let placed = topology.client(1).from(vec![own]).place(40, Proto::Tcp, Family::V6)?;
    ensure!(placed.failed() == 0, "{placed}");
    ensure!(placed.only() == Some(1), "the better WAN: {placed}");
    drop(daemon);
    Ok(())
}
