//! A real DHCP server (dnsmasq) in an ISP, and a real client (udhcpc) in the router where the daemon
//! is not to be the client itself.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use crate::command::Running;
use crate::netns::Netns;
use crate::tempdir::TempDir;
use crate::topology::Topology;

/// A DHCP server and a client on one WAN; both end with the value.
#[derive(Debug)]
pub struct Dhcp {
    client: Option<Running>,
    server: Option<Running>,
    isp: Netns,
    dir: TempDir,
    /// What else the server is told to say: options in dnsmasq's own words.
    more: Vec<String>,
    offered: (Ipv4Addr, Ipv4Addr),
}

/// What udhcpc runs at each change, as distributions' own scripts do.
const SCRIPT: &str = r#"#!/bin/sh
case "$1" in
deconfig) ip -4 addr flush dev "$interface" ;;
bound|renew)
  if ! ip -4 addr show dev "$interface" | grep -q "inet $ip/$mask "; then
    ip -4 addr flush dev "$interface"
    ip addr add "$ip/$mask" dev "$interface"
  fi
  ip route replace default via "${router%% *}" dev "$interface" metric METRIC ;;
esac
"#;

impl Dhcp {
    /// Gives WAN `number` its address by DHCP: `address`, with the gateway `gateway`.
    pub fn start(
        topology: &Topology,
        number: usize,
        address: Ipv4Addr,
        gateway: Ipv4Addr,
    ) -> Result<Dhcp> {
        let mut dhcp = Dhcp::server(topology, number, address, gateway)?;
        let script = dhcp.dir.join("script");
        fs::write(&script, SCRIPT.replace("METRIC", &(100 + number).to_string()))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        let (script, interface) = (text(&script), &topology.wan(number).interface);
        let line = ["udhcpc", "-f", "-i", interface, "-s", &script, "-t", "20", "-T", "1"];
        let log = dhcp.dir.join("log");
        dhcp.client = Some(topology.router().spawn(&line, Some(&log)).context("hint: udhcpc")?);
        Ok(dhcp)
    }

    /// Only a server at the ISP of WAN `number`.
    pub fn server(
        topology: &Topology,
        number: usize,
        address: Ipv4Addr,
        gateway: Ipv4Addr,
    ) -> Result<Dhcp> {
        Dhcp::with(topology, number, Vec::new(), (address, gateway))
    }

    /// A server whose only address is kept for the client with this hardware address.
    pub fn server_for(
        topology: &Topology,
        number: usize,
        mac: &str,
        address: Ipv4Addr,
        gateway: Ipv4Addr,
    ) -> Result<Dhcp> {
        let more = vec![format!("--dhcp-host={mac},{address}")];
        Dhcp::with(topology, number, more, (address, gateway))
    }

    fn with(
        topology: &Topology,
        number: usize,
        more: Vec<String>,
        offered: (Ipv4Addr, Ipv4Addr),
    ) -> Result<Dhcp> {
        let isp = topology.isp(number).clone();
        let dir = TempDir::new()?;
        let mut dhcp = Dhcp { client: None, server: None, isp, dir, more, offered };
        dhcp.offer(offered.0, offered.1)?;
        Ok(dhcp)
    }

    /// Has clients renew after so many seconds, and ask any server after so many.
    pub fn renew_after(&mut self, renew: u32, rebind: u32) -> Result<()> {
        self.say([("T1", renew.to_string()), ("T2", rebind.to_string())])
    }

    /// Gives static routes: destinations and routers, between commas.
    pub fn static_routes(&mut self, list: &str) -> Result<()> {
        self.say([("classless-static-route", list.to_owned())])
    }

    /// Names the servers that resolve names, between commas.
    pub fn resolvers(&mut self, list: &str) -> Result<()> {
        self.say([("dns-server", list.to_owned())])
    }

    /// Says these options too, from now on.
    fn say<const N: usize>(&mut self, options: [(&str, String); N]) -> Result<()> {
        let options = options.map(|(name, value)| format!("--dhcp-option=option:{name},{value}"));
        self.more.extend(options);
        let (address, gateway) = self.offered;
        self.offer(address, gateway)
    }

    /// Offers another address and gateway from now on. The client learns it when it renews.
    pub fn offer(&mut self, address: Ipv4Addr, gateway: Ipv4Addr) -> Result<()> {
        self.server = None;
        self.offered = (address, gateway);
        self.isp.ip_batch(&format!("addr replace {gateway}/24 dev lan"))?;
        let (leases, pid) = (text(&self.dir.join("leases")), text(&self.dir.join("pid")));
        let args = [
            "dnsmasq".to_owned(),
            "--keep-in-foreground".to_owned(),
            "--conf-file=/dev/null".to_owned(),
            "--user=root".to_owned(),
            "--port=0".to_owned(),
            "--log-facility=-".to_owned(),
            "--interface=lan".to_owned(),
            "--bind-dynamic".to_owned(),
            "--dhcp-authoritative".to_owned(),
            "--no-ping".to_owned(),
            format!("--dhcp-range={address},{address},255.255.255.0,120"),
            format!("--dhcp-option=option:router,{gateway}"),
            format!("--dhcp-leasefile={leases}"),
            format!("--pid-file={pid}"),
        ];
        let args: Vec<&str> = args.iter().chain(&self.more).map(String::as_str).collect();
        let server = self.isp.spawn(&args, Some(&self.dir.join("log")));
        self.server = Some(server.context("hint: apt-get install dnsmasq-base")?);
        Ok(())
    }

    /// Makes the client renew now; it must have had a lease, or the signal would end it.
    pub fn renew(&self) -> Result<()> {
        self.client.as_ref().context("the client was started")?.signal(Signal::USR1)
    }

    /// What server and client have written.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
