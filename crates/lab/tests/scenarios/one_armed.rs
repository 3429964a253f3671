//! LAN and first WAN on one interface: answers come back through the router, nobody is told to
//! bypass it, and the hosts on the LAN still reach each other directly.

use anyhow::{Context as _, Result, ensure};
use anywan_lab::servers::{ECHO, Servers};
use anywan_lab::{Config, Daemon, Family, Proto, Spec};

use crate::common::{
    ensure_nothing_wrong, every_kind, flows_of_every_kind, icmp_received, wait_all_by,
};

const TALK: std::time::Duration = std::time::Duration::from_secs(5);

#[test]
fn answers_come_back_through_the_router_and_no_redirect_is_sent() -> Result<()> {
    let topology = Spec::one_armed(2).clients(2, 2).build()?;
    let config = Config::of(&topology).priorities(&[1, 2]);
    let _daemon = Daemon::start_up(&topology, &config)?;
    for number in [1, 2] {
        let client = topology.client(number);
        wait_all_by(&client, 1)?;
        let flows = flows_of_every_kind(&client, 20)?;
        for _ in 0..5 {
            let exchange = flows.exchange(TALK);
            ensure!(exchange.all_kept(), "{exchange}");
        }
        let redirects = icmp_received(topology.client_space(number), "Redirects")?;
        ensure!(redirects == [0, 0], "{redirects:?} redirects");
    }
    // A packet that went straight back to the client would have had the client's source.
    ensure_nothing_wrong(&topology)
}

#[test]
fn hosts_on_the_lan_reach_each_other_directly() -> Result<()> {
    let topology = Spec::one_armed(2).clients(2, 1).build()?;
    let _daemon = Daemon::start_up(&topology, &Config::of(&topology))?;
    let hosts = Family::BOTH.map(|family| topology.client_addresses(2, family)[0]);
    let _servers = Servers::start(topology.client_space(2), &hosts)?;
    let neighbour = topology.client(1).to(hosts.map(|host| (host, ECHO).into()).to_vec());
    for (proto, family) in every_kind() {
        let seen = neighbour.reach(proto, family)?;
        let own = topology.client_addresses(1, family)[0];
        ensure!(seen == own, "{proto:?}: the neighbour sees {seen}, not {own}");
    }
    Ok(())
}

#[test]
fn hosts_on_the_lan_reach_the_router_and_the_box() -> Result<()> {
    let topology = Spec::one_armed(2).build()?;
    let _daemon = Daemon::start_up(&topology, &Config::of(&topology))?;
    for family in Family::BOTH {
        let gateway = topology.wan(1).gateway(family).context("a gateway")?;
        for address in [gateway, topology.lan_address(family)] {
            let ping = ["ping", "-c3", "-i0.2", "-W2", &address.to_string()];
            let outcome = topology.client_space(1).try_run(&ping)?;
            ensure!(outcome.stdout.contains(" 0% packet loss"), "{}", outcome.stdout);
        }
    }
    Ok(())
}

/// A box that forwards a port straight to a LAN host goes past the router; the host's answers do
/// not, and must reach the box as they are, whichever WAN serves.
#[test]
fn a_port_that_the_box_forwards_past_the_router_works() -> Result<()> {
    const PORT: u16 = 7100;
    let topology = Spec::one_armed(2).build()?;
    for priorities in [[1, 1], [2, 1]] {
        let _daemon = Daemon::start_up(&topology, &Config::of(&topology).priorities(&priorities))?;
        let host = topology.client_addresses(1, Family::V4)[0];
        let _servers = Servers::start(topology.client_space(1), &[host])?;
        topology.isp(1).nft(&format!(
            "add rule inet isp inbound iifname net0 tcp dport {PORT} dnat ip to {host}:{ECHO}"
        ))?;
        let outside = topology.wan(1).outside(Family::V4);
        let visitor = topology.visitor().to(vec![(outside, PORT).into()]);
        for _ in 0..10 {
            let seen = visitor.reach(Proto::Tcp, Family::V4)?;
            ensure!(topology.wan_of(seen).is_none(), "the host sees {seen}, an ISP's address");
        }
    }
    Ok(())
}
