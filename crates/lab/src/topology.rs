//! A router between a LAN and N internet connections, each behind an ISP of its own.
//!
//! ```text
//!  client1 ─┐                     ┌─ w1 ─ isp1 (NAT) ─┐
//!  client2 ─┴─ switch ─ router ───┼─ w2 ─ isp2 (NAT) ─┼─ net: 198.51.100.10, 2001:db8:ff::10, …
//!                                 └─ w3 ─ isp3 (NAT) ─┘
//! ```
//!
//! Each box is a network namespace. Servers see the address of the ISP that a connection came
//! through, and tell it, so everybody knows which WAN was taken. One-armed, isp1 is plugged into
//! the switch and the router has LAN and first WAN on the one interface `eth0`.
//! WANs are numbered from 1. The router starts as a fresh Debian does: it does not even forward.

mod build;
mod plan;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::Result;

use crate::client::Client;
use crate::counters::IspCounts;
use crate::netns::{Namespaces, Netns};
use crate::servers::Servers;

pub(crate) use build::{isp_lan, router_addresses};
pub use plan::{SERVERS, TARGETS, client_address};

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// The key of this family in `status --json`.
    pub fn key(self) -> &'static str {
        match self {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        }
    }
}

/// Which families a WAN has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both.
    Dual,
}

impl Families {
    /// Whether `family` is among them.
    pub fn has(self, family: Family) -> bool {
        match self {
            Families::V4 => family == Family::V4,
            Families::V6 => family == Family::V6,
            Families::Dual => true,
        }
    }
}

/// What one WAN shall be like.
#[derive(Debug, Clone)]
pub struct WanSpec {
    /// Its families.
    pub families: Families,
    /// Number of its subnet, 1..=150. Two WANs with the same number have the same subnet and the
    /// same gateway address.
    pub subnet: u8,
    /// The router's own host number in it. The same subnet and host: the same own address.
    pub host: u8,
    /// Whether main has a default route over it (metric 100 + number), as a DHCP client makes.
    pub main_route: bool,
    /// Whether the router has its addresses from the start (otherwise: DHCP or the test).
    pub addressed: bool,
}

/// What a topology shall be like.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The WANs; number 1 first.
    pub wans: Vec<WanSpec>,
    /// Number of LAN clients.
    pub clients: u8,
    /// Addresses of each client, per family.
    pub client_addresses: u8,
    /// Whether LAN and first WAN share the interface `eth0`.
    pub one_armed: bool,
    /// Whether the router is the namespace that this program runs in: as it is, and it stays.
    pub router_here: bool,
}

impl Spec {
    /// `n` dual-stack WANs (1..=60), routed, one client with four addresses.
    pub fn routed(n: u8) -> Spec {
        let wan = |number| WanSpec {
            families: Families::Dual,
            subnet: number,
            host: 2,
            main_route: true,
            addressed: true,
        };
        let wans = (1..=n).map(wan).collect();
        Spec { wans, clients: 1, client_addresses: 4, one_armed: false, router_here: false }
    }

    /// The same with the first WAN on the LAN's own interface.
    pub fn one_armed(n: u8) -> Spec {
        Spec { one_armed: true, ..Spec::routed(n) }
    }

    /// Makes the namespace that this program runs in the router. For a machine of one's own only:
    /// what the router is told stays behind, but for its interfaces.
    #[must_use]
    pub fn with_router_here(self) -> Spec {
        Spec { router_here: true, ..self }
    }

    /// Changes WAN `number`.
    #[must_use]
    pub fn wan(mut self, number: usize, change: impl FnOnce(&mut WanSpec)) -> Spec {
        change(&mut self.wans[number - 1]);
        self
    }

    /// Gives WAN `number` the subnet and gateway address of WAN `other`, but an own address.
    #[must_use]
    pub fn same_subnet(self, number: usize, other: usize) -> Spec {
        let (subnet, host) = (self.wans[other - 1].subnet, self.wans[other - 1].host + 1);
        self.wan(number, |wan| (wan.subnet, wan.host) = (subnet, host))
    }

    /// Gives WAN `number` the subnet, gateway and own address of WAN `other`.
    #[must_use]
    pub fn same_address(self, number: usize, other: usize) -> Spec {
        let (subnet, host) = (self.wans[other - 1].subnet, self.wans[other - 1].host);
        self.wan(number, |wan| (wan.subnet, wan.host) = (subnet, host))
    }

    /// Sets the number of clients and of each one's addresses.
    #[must_use]
    pub fn clients(self, clients: u8, addresses: u8) -> Spec {
        Spec { clients, client_addresses: addresses, ..self }
    }

    /// Takes the default routes of all WANs out of main.
    #[must_use]
    pub fn without_main_routes(mut self) -> Spec {
        self.wans.iter_mut().for_each(|wan| wan.main_route = false);
        self
    }

    /// Builds it; well under a second for three WANs.
    ///
    /// # Errors
    /// Without the needed privilege, with a hint; or the first command that failed.
    pub fn build(self) -> Result<Topology> {
        build::build(self)
    }
}

/// One WAN as built.
#[derive(Debug, Clone)]
pub struct Wan {
    /// From 1.
    pub number: usize,
    /// Name in the config: `wan1`.
    pub name: String,
    /// Interface in the router: `w1`, or `eth0` when shared with the LAN.
    pub interface: String,
    /// Whether the interface is the LAN's too.
    pub shared: bool,
    /// What it was asked to be.
    pub spec: WanSpec,
    /// The router's addresses on it and the gateway's, where it has the family.
    pub v4: Option<Leg<Ipv4Addr>>,
    /// The same for IPv6.
    pub v6: Option<Leg<Ipv6Addr>>,
    /// The ISP's addresses on the internet: what servers see.
    pub outside: (Ipv4Addr, Ipv6Addr),
}

/// One family of a WAN.
#[derive(Debug, Clone, Copy)]
pub struct Leg<A> {
    /// The router's own address.
    pub own: A,
    /// The ISP's.
    pub gateway: A,
    /// Prefix length.
    pub prefix: u8,
}

impl Wan {
    /// The router's own address in a family.
    pub fn own(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4.map(|leg| leg.own.into()),
            Family::V6 => self.v6.map(|leg| leg.own.into()),
        }
    }

    /// The gateway in a family.
    pub fn gateway(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4.map(|leg| leg.gateway.into()),
            Family::V6 => self.v6.map(|leg| leg.gateway.into()),
        }
    }

    /// The ISP's address on the internet in a family.
    pub fn outside(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.outside.0.into(),
            Family::V6 => self.outside.1.into(),
        }
    }
}

/// A running topology; dropped, nothing of it is left.
#[derive(Debug)]
pub struct Topology {
    // Before the namespaces, so that the threads have ended when those go.
    servers: Option<Servers>,
    spaces: Namespaces,
    spec: Spec,
    wans: Vec<Wan>,
    directory: Arc<BTreeMap<IpAddr, usize>>,
}

impl Topology {
    /// What was asked for.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The WANs, number 1 first.
    pub fn wans(&self) -> &[Wan] {
        &self.wans
    }

    /// WAN `number`, from 1.
    pub fn wan(&self, number: usize) -> &Wan {
        &self.wans[number - 1]
    }

    /// The router.
    pub fn router(&self) -> &Netns {
        self.spaces.get("router")
    }

    /// The internet, where the servers are.
    pub fn internet(&self) -> &Netns {
        self.spaces.get("net")
    }

    /// The namespace of ISP `number`; its interfaces are `lan` (to the router) and `net0`.
    pub fn isp(&self, number: usize) -> &Netns {
        self.spaces.get(&format!("isp{number}"))
    }

    /// The namespace of LAN client `number`, from 1; its interface is `eth0`.
    pub fn client_space(&self, number: usize) -> &Netns {
        self.spaces.get(&format!("client{number}"))
    }

    /// Every namespace.
    pub fn namespaces(&self) -> impl Iterator<Item = &Netns> {
        self.spaces.all()
    }

    /// The router's LAN interface.
    pub fn lan_interface(&self) -> &'static str {
        if self.spec.one_armed { "eth0" } else { "lan0" }
    }

    /// The router's address on the LAN.
    pub fn lan_address(&self, family: Family) -> IpAddr {
        plan::lan_router(&self.spec, family)
    }

    /// All addresses of LAN client `number`.
    pub fn client_addresses(&self, number: usize, family: Family) -> Vec<IpAddr> {
        (0..self.spec.client_addresses)
            .map(|at| client_address(&self.spec, number, at, family))
            .collect()
    }

    /// LAN client `number`, ready to measure, from its first address.
    pub fn client(&self, number: usize) -> Client {
        let sources =
            Family::BOTH.map(|family| client_address(&self.spec, number, 0, family)).to_vec();
        Client::new(self.client_space(number).clone(), sources, self.directory.clone())
    }

    /// The router's own connections.
    pub fn router_client(&self) -> Client {
        Client::new(self.router().clone(), Vec::new(), self.directory.clone())
    }

    /// Somebody on the internet, who connects to us.
    pub fn visitor(&self) -> Client {
        Client::new(self.internet().clone(), Vec::new(), self.directory.clone())
    }

    /// Lets the box of ISP `number` forward a port of its outside addresses to the router's.
    pub fn forward_port(&self, number: usize, port: u16) -> Result<()> {
        let wan = self.wan(number);
        let mut rules = String::new();
        for (word, own) in [("ip", wan.own(Family::V4)), ("ip6", wan.own(Family::V6))] {
            if let Some(own) = own {
                rules += &format!(
                    "add rule inet isp inbound iifname net0 meta l4proto {{ tcp, udp }} \
                     th dport {port} dnat {word} to {own}\n"
                );
            }
        }
        self.isp(number).nft(&rules).map(drop)
    }

    /// The WAN number that servers see as `address`.
    pub fn wan_of(&self, address: IpAddr) -> Option<usize> {
        self.directory.get(&address).copied()
    }

    /// What ISP `number` has counted so far.
    pub fn counts(&self, number: usize) -> Result<IspCounts> {
        IspCounts::read(self.isp(number))
    }

    /// What every ISP has counted so far, WAN 1 first.
    pub fn all_counts(&self) -> Result<Vec<IspCounts>> {
        (1..=self.wans.len()).map(|number| self.counts(number)).collect()
    }
}

impl Topology {
    /// Makes the router forward without any daemon: one default route over WAN `number` in each
    /// family that it has, and masquerade. The plain router that benchmarks compare with.
    pub fn forward_plainly(&self, number: usize) -> Result<()> {
        let router = self.router();
        router.set_sysctls(&[
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
            ("net.ipv4.conf.all.send_redirects", "0"),
            (&format!("net/ipv4/conf/{}/send_redirects", self.lan_interface()), "0"),
        ])?;
        let wan = self.wan(number);
        for gateway in Family::BOTH.iter().filter_map(|family| wan.gateway(*family)) {
            router.run(&format!(
                "ip route replace default via {gateway} dev {} metric 1",
                wan.interface
            ))?;
        }
        // Destinations on a shared interface's own subnets are neighbours, not the internet.
        router.nft(
            "table inet plain
             delete table inet plain
             table inet plain {
               chain nat {
                 type nat hook postrouting priority srcnat
                 ip daddr 198.51.100.0/24 masquerade
                 ip6 daddr 2001:db8:ff::/64 masquerade
               }
             }",
        )?;
        Ok(())
    }
}
