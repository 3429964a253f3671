//! Strangers' DHCP servers on a WAN's line: garbage and absurd offers beside a real server.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use anywan_lab::dhcp::Dhcp;
use anywan_lab::stranger::{Granted, Lie, Stranger};
use anywan_lab::{Daemon, Family, Proto, Topology, until};

use crate::common::{DEADLINE, ensure_all_kept, flows_of_every_kind, talk};
use crate::leases::{asking, ensure_used, shown, subnet, unaddressed, wait_address, wait_problem};

/// What would be a good offer, were it not a stranger's.
fn plausible() -> Granted {
    Granted {
        address: Ipv4Addr::new(10, 66, 66, 7),
        mask: Ipv4Addr::new(255, 255, 255, 0),
        router: Ipv4Addr::new(10, 66, 66, 66),
        seconds: 3600,
        more: Vec::new(),
    }
}

fn lan_host(topology: &Topology, host: u8) -> Result<Ipv4Addr> {
    match topology.lan_address(Family::V4) {
        std::net::IpAddr::V4(lan) => {
            let [a, b, c, _] = lan.octets();
            Ok(Ipv4Addr::new(a, b, c, host))
        }
        std::net::IpAddr::V6(_) => anyhow::bail!("IPv4"),
    }
}

/// Everything that must not be believed; the last is what people are told of.
fn lies(topology: &Topology) -> Result<Vec<Lie>> {
    let [never, always] = [0, u32::MAX];
    let gives = |address: [u8; 4]| Granted { address: address.into(), ..plausible() };
    let masked = |mask: [u8; 4]| Granted { mask: mask.into(), ..plausible() };
    let led = |router: Ipv4Addr| Granted { router, seconds: always, ..plausible() };
    let mut lies = vec![Lie::Noise(0), Lie::Noise(1), Lie::Noise(241), Lie::Noise(1400)];
    lies.extend([100, 239, 240, 245, 260].map(|length| Lie::CutOff(plausible(), length)));
    lies.extend([
        Lie::OtherNumber(plausible()),
        Lie::OtherHardware(plausible()),
        Lie::Overlong(plausible()),
        Lie::Refuses,
    ]);
    let loopback = Ipv4Addr::LOCALHOST;
    let absurd = [
        gives([0, 0, 0, 0]),
        gives([127, 0, 0, 2]),
        gives([224, 0, 0, 7]),
        gives([255, 255, 255, 255]),
        gives([10, 66, 66, 0]),
        gives([10, 66, 66, 255]),
        masked([0, 0, 0, 0]),
        masked([128, 0, 0, 0]),
        masked([254, 0, 0, 0]),
        masked([255, 0, 255, 0]),
        Granted { seconds: never, ..plausible() },
        Granted { seconds: 1, ..plausible() },
        led(Ipv4Addr::UNSPECIFIED),
        led(loopback),
        led(Ipv4Addr::new(224, 0, 0, 1)),
        led(Ipv4Addr::BROADCAST),
        led(plausible().address),
        led(lan_host(topology, 9)?),
        // Lengths that no such option has, and routes to everywhere by way of nowhere.
        Granted {
            router: loopback,
            more: vec![121, 3, 99, 1, 2, 6, 1, 9, 26, 1, 0, 1, 0, 52, 2, 3, 3],
            ..plausible()
        },
        Granted { address: lan_host(topology, 200)?, ..plausible() },
    ];
    lies.extend(absurd.map(Lie::Grants));
    Ok(lies)
}

#[test]
fn garbage_and_absurd_offers_are_passed_over_for_the_lease_of_a_sound_server() -> Result<()> {
    let topology = unaddressed()?;
    let stranger = Stranger::start(topology.isp(2), "lan", lies(&topology)?)?;
    let daemon = Daemon::start(&topology, &asking(&topology))?;
    wait_problem(&daemon, "dhcp.lan-subnet")?;
    until(DEADLINE, "more questions", || {
        ensure!(stranger.heard() >= 3, "{} so far", stranger.heard());
        Ok(())
    })?;
    ensure!(shown(&topology)?.is_empty(), "{}", shown(&topology)?);
    for family in Family::BOTH {
        let placed = topology.client(1).place(30, Proto::Tcp, family)?;
        ensure!(placed.failed() == 0, "the others go on: {placed}");
    }
    // A sound server comes, while the stranger goes on and is always faster.
    let mut server = Dhcp::server(&topology, 2, subnet(2), subnet(1))?;
    server.renew_after(3, 60)?;
    wait_address(&daemon, subnet(2), subnet(1)).with_context(|| server.log())?;
    ensure_used(&topology)?;
    until(DEADLINE, "no problem", || {
        let problems = daemon.status()?.problems();
        ensure!(problems.is_empty(), "{problems:?}");
        Ok(())
    })?;
    let mut flows = flows_of_every_kind(&topology.client(1), 12)?;
    flows.take_from(2);
    let talking = talk(flows);
    let asked = stranger.heard();
    until(DEADLINE, "renewals that the stranger refuses", || {
        ensure!(stranger.heard() >= asked + 2, "{}", stranger.heard());
        Ok(())
    })?;
    let addresses = shown(&topology)?;
    let only = addresses.lines().count() == 1 && addresses.contains(" 192.168.102.2/24 ");
    ensure!(only, "{addresses}");
    ensure!(server.log().matches("DHCPDISCOVER").count() == 1, "{}", server.log());
    let routes = topology.router().run("ip route show dev w2 table all")?;
    ensure!(!routes.contains("10.66.66") && !routes.contains("127.0.0."), "{routes}");
    ensure_all_kept(talking).map(drop)
}
