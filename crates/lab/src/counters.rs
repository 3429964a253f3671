//! What an ISP sees: every packet by direction, new flows, wrong sources, strays.
//!
//! Counted in the ISP's forward chain, in front of any fault and of its NAT, so also what is then
//! swallowed counts. "Up" is from the router to the internet.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::netns::Netns;
use crate::topology::{Family, Wan};

/// Counters of one ISP, in packets, since the topology was built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IspCounts {
    /// Packets from the router to the internet.
    pub up: u64,
    /// Packets from the internet to the router.
    pub down: u64,
    /// Packets from the router to the addresses kept for probes; not counted as new or stray.
    pub probes: u64,
    /// First packets of TCP connections (retransmitted ones count again).
    pub new_tcp: u64,
    /// First packets of UDP flows. A UDP packet that strayed here also looks like one.
    pub new_udp: u64,
    /// Packets whose source is not in this WAN's subnet: sent out of the wrong WAN, un-NATed.
    pub foreign_source: u64,
    /// The same of packets to the addresses kept for probes, which are not counted there.
    pub foreign_probes: u64,
    /// Packets whose source is in the subnet but is not the router's: one-armed, a LAN host's
    /// that bypassed the router or was forwarded without NAT.
    pub other_host: u64,
    /// TCP packets, resets apart, in the middle of a flow that did not begin at this ISP.
    pub stray: u64,
    /// TCP resets of flows that did not begin at this ISP.
    pub stray_reset: u64,
}

const NAMES: [&str; 10] = [
    "up",
    "down",
    "probes",
    "new_tcp",
    "new_udp",
    "foreign_source",
    "foreign_probes",
    "other_host",
    "stray",
    "stray_reset",
];

impl IspCounts {
    pub(crate) fn read(isp: &Netns) -> Result<IspCounts> {
        let outcome = isp.try_run(&["nft", "-j", "list", "counters"])?;
        let listing: Value = serde_json::from_str(&outcome.stdout)
            .with_context(|| format!("nft's list of counters: {}", outcome.stderr))?;
        let items = listing["nftables"].as_array().context("a list of counters")?;
        let packets = |name: &str| {
            let named = |item: &&Value| item["counter"]["name"] == name;
            let item = items.iter().find(named).with_context(|| format!("a counter {name}"))?;
            item["counter"]["packets"].as_u64().context("a packet count")
        };
        Ok(IspCounts {
            up: packets("up")?,
            down: packets("down")?,
            probes: packets("probes")?,
            new_tcp: packets("new_tcp")?,
            new_udp: packets("new_udp")?,
            foreign_source: packets("foreign_source")?,
            foreign_probes: packets("foreign_probes")?,
            other_host: packets("other_host")?,
            stray: packets("stray")?,
            stray_reset: packets("stray_reset")?,
        })
    }

    /// What was counted after `earlier`.
    #[must_use]
    pub fn since(self, earlier: IspCounts) -> IspCounts {
        IspCounts {
            up: self.up - earlier.up,
            down: self.down - earlier.down,
            probes: self.probes - earlier.probes,
            new_tcp: self.new_tcp - earlier.new_tcp,
            new_udp: self.new_udp - earlier.new_udp,
            foreign_source: self.foreign_source - earlier.foreign_source,
            foreign_probes: self.foreign_probes - earlier.foreign_probes,
            other_host: self.other_host - earlier.other_host,
            stray: self.stray - earlier.stray,
            stray_reset: self.stray_reset - earlier.stray_reset,
        }
    }

    /// Packets that should never have come this way, resets included.
    pub fn wrong(self) -> u64 {
        self.foreign() + self.other_host + self.stray + self.stray_reset
    }

    /// Packets whose source is not in this WAN's subnet, probes included.
    pub fn foreign(self) -> u64 {
        self.foreign_source + self.foreign_probes
    }
}

/// An ISP's whole rule set. Faults go into the chain `faults`; see [`crate::fault`].
pub(crate) fn ruleset(wan: &Wan) -> String {
    let mut text = "table inet isp {\n".to_owned();
    for name in NAMES {
        let _ = writeln!(text, " counter {name} {{ }}");
    }
    text.push_str(
        " set probed4 {
  type ipv4_addr
  elements = { 198.51.100.20, 198.51.100.21 }
 }
 set probed6 {
  type ipv6_addr
  elements = { 2001:db8:ff::20, 2001:db8:ff::21 }
 }
 chain sources {
",
    );
    for family in Family::BOTH {
        let (Some(own), Some(gateway)) = (wan.own(family), wan.gateway(family)) else { continue };
        let (word, prefix) = match family {
            Family::V4 => ("ip", 24),
            Family::V6 => ("ip6", 64),
        };
        let _ = writeln!(text, "  {word} saddr {own} return");
        let _ = writeln!(text, "  {word} saddr {gateway}/{prefix} counter name other_host return");
    }
    text.push_str(
        "  ip daddr @probed4 counter name foreign_probes return
  ip6 daddr @probed6 counter name foreign_probes return
  counter name foreign_source
 }
 chain from_router {
  counter name up
  jump sources
  ip daddr @probed4 counter name probes return
  ip6 daddr @probed6 counter name probes return
  ct state invalid tcp flags & rst == rst counter name stray_reset return
  ct state invalid meta l4proto tcp counter name stray return
  ct state new tcp flags syn / fin,syn,rst,ack counter name new_tcp return
  ct state new meta l4proto udp counter name new_udp return
 }
 chain count {
  type filter hook forward priority -20
  iifname lan oifname net0 goto from_router
  iifname net0 oifname lan counter name down
 }
 chain faults {
  type filter hook forward priority -10
 }
 chain inbound {
  type nat hook prerouting priority dstnat
 }
 chain nat {
  type nat hook postrouting priority srcnat
  iifname lan oifname net0 masquerade
 }
}
",
    );
    text
}
