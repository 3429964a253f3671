//! DHCP changes a WAN's address and gateway under us: followed, and nobody else's flows notice.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use anywan_lab::dhcp::Dhcp;
use anywan_lab::{Config, Daemon, Families, Family};

use crate::common::{ensure_all_kept, flows_of_every_kind, in_both_layouts, talk, wait_all_by};

#[test]
fn a_new_address_and_gateway_from_dhcp_are_followed() -> Result<()> {
    in_both_layouts(3, |spec| {
        let spec = spec.wan(2, |wan| (wan.families, wan.addressed) = (Families::V4, false));
        let topology = spec.build()?;
        let subnet = |host| Ipv4Addr::new(192, 168, 102, host);
        let mut dhcp = Dhcp::start(&topology, 2, subnet(2), subnet(1))?;
        let config = Config::of(&topology).wan(2, |wan| wan.gateway = Some("auto".to_owned()));
        let daemon = Daemon::start_up(&topology, &config).with_context(|| dhcp.log())?;
        let mut flows = flows_of_every_kind(&topology.client(1), 12)?;
        flows.take_from(2);
        let talking = talk(flows);

        dhcp.offer(subnet(77), subnet(9))?;
        dhcp.renew()?;
        daemon
            .wait_status("the new lease", |status| {
                let ipv4 = &status.wan("wan2")["ipv4"];
                let address = ipv4["address"].as_str().unwrap_or("");
                address.starts_with("192.168.102.77")
                    && ipv4["gateway"] == "192.168.102.9"
                    && ipv4["state"] == "up"
            })
            .with_context(|| dhcp.log())?;
        let before = topology.counts(2)?;
        let placed = topology.client(1).place(300, anywan_lab::Proto::Tcp, Family::V4)?;
        ensure!(placed.failed() == 0 && placed.by_wan.len() == 3, "{placed}");
        let seen = topology.counts(2)?.since(before);
        ensure!(seen.new_tcp > 0 && seen.foreign() == 0, "{seen:?}");
        ensure_all_kept(talking)?;
        daemon.reload(&config.clone().priorities(&[2, 1, 2]))?;
        let v4 = topology.client(1);
        anywan_lab::until(crate::common::DEADLINE, "all IPv4 by wan2", || {
            let placed = v4.place(20, anywan_lab::Proto::Udp, Family::V4)?;
            ensure!(placed.only() == Some(2), "{placed}");
            Ok(())
        })?;
        daemon.reload(&config.clone().priorities(&[1, 2, 2]))?;
        wait_all_by(&topology.client(1), 1)
    })
}
