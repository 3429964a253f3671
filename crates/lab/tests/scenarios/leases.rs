//! anywan's own DHCP client against real servers, silent ones, strangers and garbage.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use anywan_lab::dhcp::Dhcp;
use anywan_lab::{Config, Daemon, Families, Family, Fault, Proto, Spec, Topology, until};

use crate::common::{DEADLINE, ensure_all_kept, flows_of_every_kind, talk};

/// Three WANs; the second has IPv4 only, and nobody gives it an address.
pub(crate) fn unaddressed() -> Result<Topology> {
    let spec = Spec::routed(3).wan(2, |wan| (wan.families, wan.addressed) = (Families::V4, false));
    spec.build()
}

pub(crate) fn asking(topology: &Topology) -> Config {
    Config::of(topology).wan(2, |wan| {
        wan.gateway = Some("auto".to_owned());
        wan.more.push(("address".to_owned(), "\"dhcp\"".to_owned()));
    })
}

pub(crate) fn subnet(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 102, host)
}

pub(crate) fn ensure_used(topology: &Topology) -> Result<()> {
    let placed = topology.client(1).place(60, Proto::Tcp, Family::V4)?;
    ensure!(placed.failed() == 0 && placed.by_wan.contains_key(&2), "{placed}");
    Ok(())
}

pub(crate) fn wait_address(daemon: &Daemon, address: Ipv4Addr, gateway: Ipv4Addr) -> Result<()> {
    let fits = |status: &anywan_lab::daemon::Status| {
        let ipv4 = &status.wan("wan2")["ipv4"];
        ipv4["address"] == address.to_string()
            && ipv4["gateway"] == gateway.to_string()
            && ipv4["state"] == "up"
    };
    // A client that nobody has answered pauses for longer each time.
    until(3 * DEADLINE, &format!("{address} via {gateway}"), || {
        let status = daemon.status()?;
        ensure!(fits(&status), "{}", status.summary());
        Ok(())
    })
    .with_context(|| format!("the daemon's log:\n{}", daemon.log_tail()))
}

pub(crate) fn wait_problem(daemon: &Daemon, code: &str) -> Result<()> {
    until(DEADLINE, code, || {
        let problems = daemon.status()?.problems();
        ensure!(problems.iter().any(|p| p.starts_with(code)), "{problems:?}");
        Ok(())
    })
}

/// The lease's address with what the kernel says of its life.
pub(crate) fn shown(topology: &Topology) -> Result<String> {
    topology.router().run("ip -4 -o address show dev w2")
}

#[test]
fn a_lease_is_got_and_follows_its_server_while_other_wans_notice_nothing() -> Result<()> {
    let topology = unaddressed()?;
    topology.router().run("ip link set w2 down")?;
    let mut server = Dhcp::server(&topology, 2, subnet(2), subnet(1))?;
    let daemon = Daemon::start(&topology, &asking(&topology))?;
    wait_address(&daemon, subnet(2), subnet(1)).with_context(|| server.log())?;
    ensure!(!shown(&topology)?.contains("forever"), "its life is that of the lease");
    ensure_used(&topology)?;
    let mut flows = flows_of_every_kind(&topology.client(1), 12)?;
    flows.take_from(2);
    let talking = talk(flows);
    // The server changes its mind; the line is pulled and put back, so that it is asked.
    server.offer(subnet(77), subnet(9))?;
    topology.break_wan(2, &Fault::CarrierLost)?;
    daemon.wait_state("wan2", Family::V4, &["down"])?;
    topology.isp(2).run("ip link set lan up")?;
    wait_address(&daemon, subnet(77), subnet(9)).with_context(|| server.log())?;
    ensure!(!shown(&topology)?.contains("102.2/"), "{}", shown(&topology)?);
    ensure_used(&topology)?;
    ensure_all_kept(talking)?;
    // Leaving for good gives it back.
    let ended = daemon.cli(&["down"])?;
    ensure!(ended.status == 0, "{ended:?}");
    until(DEADLINE, "the release", || {
        ensure!(server.log().contains("DHCPRELEASE"), "{}", server.log());
        Ok(())
    })?;
    ensure!(shown(&topology)?.is_empty(), "{}", shown(&topology)?);
    Ok(())
}

#[test]
fn a_short_lease_is_renewed_in_time_by_the_same_server() -> Result<()> {
    let topology = unaddressed()?;
    let mut server = Dhcp::server(&topology, 2, subnet(2), subnet(1))?;
    // Half of the two minutes that dnsmasq gives at least is too long for a test: it says when.
    server.renew_after(3, 60)?;
    let daemon = Daemon::start(&topology, &asking(&topology))?;
    wait_address(&daemon, subnet(2), subnet(1)).with_context(|| server.log())?;
    let talking = talk(topology.client(1).flows(12, Proto::Tcp, Family::V4)?);
    until(DEADLINE, "three renewals", || {
        let log = server.log();
        ensure!(log.matches("DHCPREQUEST").count() >= 4, "{log}");
        ensure!(log.matches("DHCPDISCOVER").count() == 1, "{log}");
        Ok(())
    })?;
    ensure_all_kept(talking)?;
    // It refuses the address now and gives another: found out when it is asked to renew.
    let mut flows = flows_of_every_kind(&topology.client(1), 12)?;
    flows.take_from(2);
    let talking = talk(flows);
    server.offer(subnet(77), subnet(9))?;
    wait_address(&daemon, subnet(77), subnet(9)).with_context(|| server.log())?;
    ensure!(server.log().contains("DHCPNAK"), "{}", server.log());
    ensure_used(&topology)?;
    ensure_all_kept(talking)?;
    Ok(())
}

#[test]
fn killed_and_restarted_the_lease_stays_and_no_flow_is_lost() -> Result<()> {
    let topology = unaddressed()?;
    let server = Dhcp::server(&topology, 2, subnet(2), subnet(1))?;
    let mut daemon = Daemon::start(&topology, &asking(&topology))?;
    wait_address(&daemon, subnet(2), subnet(1)).with_context(|| server.log())?;
    let flows = flows_of_every_kind(&topology.client(1), 12)?;
    let talking = talk(flows);
    let asked = |log: &str| log.matches("DHCPDISCOVER").count();
    let before = asked(&server.log());
    for _ in 0..3 {
        daemon.kill();
        daemon.launch()?;
        wait_address(&daemon, subnet(2), subnet(1))?;
    }
    ensure!(asked(&server.log()) == before, "asked anew: {}", server.log());
    ensure!(daemon.terminate()? == 0, "it ends");
    ensure!(shown(&topology)?.contains("192.168.102.2/24"), "stopping keeps the lease");
    // Without its notes it keeps the address too, until a server has said something.
    let notes = daemon.path("state").join("leases.json");
    std::fs::remove_file(&notes)?;
    daemon.launch()?;
    until(DEADLINE, "a lease anew", || {
        std::fs::read(&notes).map(drop).with_context(|| server.log())
    })?;
    wait_address(&daemon, subnet(2), subnet(1))?;
    ensure_all_kept(talking).with_context(|| daemon.log_tail())?;
    let log = server.log();
    ensure!(!log.contains("DHCPRELEASE") && !log.contains("DHCPDECLINE"), "{log}");
    Ok(())
}

#[test]
fn silence_and_an_exhausted_pool_are_told_and_end_when_a_server_answers() -> Result<()> {
    let topology = unaddressed()?;
    let daemon = Daemon::start(&topology, &asking(&topology))?;
    wait_problem(&daemon, "dhcp.no-answer")?;
    // Somebody else has the only address that there is.
    let server = Dhcp::server_for(&topology, 2, "02:00:00:00:00:77", subnet(2), subnet(1))?;
    until(DEADLINE, "an exhausted pool", || {
        let log = server.log();
        ensure!(log.contains("no address available"), "{log}");
        Ok(())
    })?;
    wait_problem(&daemon, "dhcp.no-answer")?;
    for family in Family::BOTH {
        let placed = topology.client(1).place(30, Proto::Tcp, family)?;
        ensure!(placed.failed() == 0, "the others go on: {placed}");
    }
    drop(server);
    let server = Dhcp::server(&topology, 2, subnet(2), subnet(1))?;
    topology.break_wan(2, &Fault::CarrierLost)?;
    until(DEADLINE, "nobody is asked without carrier", || {
        let problems = daemon.status()?.problems();
        ensure!(!problems.iter().any(|p| p.starts_with("dhcp.")), "{problems:?}");
        Ok(())
    })?;
    topology.isp(2).run("ip link set lan up")?;
    wait_address(&daemon, subnet(2), subnet(1)).with_context(|| server.log())?;
    until(DEADLINE, "no problem", || {
        let problems = daemon.status()?.problems();
        ensure!(problems.is_empty(), "{problems:?}");
        Ok(())
    })
}

#[test]
fn a_lease_of_the_lans_own_network_is_refused_and_told() -> Result<()> {
    let topology = unaddressed()?;
    let lan = topology.lan_address(Family::V4);
    let std::net::IpAddr::V4(lan) = lan else { anyhow::bail!("IPv4") };
    let [a, b, c, _] = lan.octets();
    let inside = |host| Ipv4Addr::new(a, b, c, host);
    let server = Dhcp::server(&topology, 2, inside(200), inside(201))?;
    let daemon = Daemon::start(&topology, &asking(&topology))?;
    wait_problem(&daemon, "dhcp.lan-subnet").with_context(|| server.log())?;
    ensure!(shown(&topology)?.is_empty(), "{}", shown(&topology)?);
    for family in Family::BOTH {
        let placed = topology.client(1).place(30, Proto::Tcp, family)?;
        ensure!(placed.failed() == 0, "the LAN is served: {placed}");
    }
    Ok(())
}

#[test]
fn an_address_that_somebody_on_the_line_has_is_declined() -> Result<()> {
    let topology = unaddressed()?;
    topology.isp(2).run("ip address add 192.168.102.2/32 dev lan")?;
    let server = Dhcp::server(&topology, 2, subnet(2), subnet(1))?;
    let daemon = Daemon::start(&topology, &asking(&topology))?;
    wait_problem(&daemon, "dhcp.address-taken").with_context(|| server.log())?;
    ensure!(server.log().contains("DHCPDECLINE"), "{}", server.log());
    ensure!(!shown(&topology)?.contains("102.2"), "{}", shown(&topology)?);
    Ok(())
}

#[test]
fn static_routes_of_a_lease_lead_there_and_go_with_it() -> Result<()> {
    let topology = unaddressed()?;
    let mut server = Dhcp::server(&topology, 2, subnet(2), subnet(1))?;
    server.static_routes("203.0.113.0/24,192.168.102.8,0.0.0.0/0,192.168.102.1")?;
    let daemon = Daemon::start(&topology, &asking(&topology))?;
    wait_address(&daemon, subnet(2), subnet(1)).with_context(|| server.log())?;
    let router = topology.router();
    let there = || router.run("ip route show 203.0.113.0/24");
    until(DEADLINE, "the route", || {
        let text = there()?;
        ensure!(text.contains("via 192.168.102.8 dev w2") && text.contains("proto 87"), "{text}");
        Ok(())
    })?;
    router.run("ip route del 203.0.113.0/24")?;
    until(DEADLINE, "the route is back", || {
        ensure!(there()?.contains("192.168.102.8"), "{}", there()?);
        Ok(())
    })?;
    let ended = daemon.cli(&["down"])?;
    ensure!(ended.status == 0, "{ended:?}");
    ensure!(there()?.is_empty(), "{}", there()?);
    Ok(())
}
