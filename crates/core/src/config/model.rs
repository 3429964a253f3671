//! The configuration as the rest of the core sees it: plain values, valid by construction. Made
//! only by the parser beside it; says nothing about text.

mod ppp;
mod selector;
mod served;
mod target;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::names::{Family, MarkField, RulePriority, TableId, Weight};

pub use ppp::{Line, Modem, Password, Ppp};
pub use selector::Selector;
pub use served::{Dhcp, Dns, Lease, StaticName};
pub use target::{Expect, Host, HttpTarget, Kind, Target};

/// A whole configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The networks served, in file order; at least one.
    pub lans: Vec<Lan>,
    /// The internet connections, in file order; at least one, at most what the mark mask holds.
    pub wans: Vec<Wan>,
    /// WANs of an earlier configuration whose flows are not over yet: those keep their way out,
    /// new ones are not placed there. Never in a file; the engine fills it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retiring: Vec<Wan>,
    /// Whether the work of the interfaces is spread over the CPUs.
    pub cpu: Cpu,
    /// Settings of the router as a whole.
    pub router: Router,
    /// DNS for LANs; `None`: somebody else's business.
    #[serde(default)]
    pub dns: Option<Dns>,
}

/// Who says which CPUs do the work of the interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cpu {
    /// It is spread over all of them.
    Auto,
    /// Somebody else, or nobody.
    Off,
}

/// A network served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lan {
    /// The interface, unique among LANs.
    pub interface: String,
    /// What happens to new flows that come from a WAN.
    pub inbound: Inbound,
    /// Addresses for its hosts; `None`: somebody else's business.
    #[serde(default)]
    pub dhcp: Option<Dhcp>,
}

/// What happens to new flows from a WAN to a LAN that nobody's DNAT brought there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Inbound {
    /// They are dropped (RFC 6092, simple security).
    Drop,
    /// They pass.
    Allow,
}

/// An internet connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wan {
    /// Unique, `[a-z0-9-]{1,15}`.
    pub name: String,
    /// The interface; may be a LAN's (one-armed) or another WAN's (then both need a gateway). In
    /// the file a name or another [`Selector`]; everywhere else a name.
    pub interface: String,
    /// Where its own addresses come from.
    #[serde(default)]
    pub address: Addressing,
    /// The IPv4 next hop.
    pub gateway: Gateway<Ipv4Addr>,
    /// The IPv6 next hop.
    pub gateway6: Gateway<Ipv6Addr>,
    /// Another address under which the IPv4 next hop is found, whoever else has its own one.
    #[serde(default)]
    pub gateway_alias: Option<Ipv4Addr>,
    /// 1 to 255; lower is preferred.
    pub priority: u8,
    /// 1 to 256; the share among WANs of equal priority.
    pub weight: Weight,
    /// Data costs money here: probes are rare on standby.
    pub metered: bool,
    /// Bytes a month that heartbeats on standby may cost; `None`: as many as they like.
    pub budget: Option<u64>,
    /// How long established flows may stay once a better WAN serves; `None`: until they end.
    pub linger: Option<Duration>,
    /// The source address of IPv4 flows.
    pub nat: Nat<Ipv4Addr>,
    /// The source address of IPv6 flows.
    pub nat6: Nat<Ipv6Addr>,
    /// Its resolvers; empty: those that it was given with its address.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// How its health is judged: `[wan.health]` over `[health]` over the defaults.
    pub health: Health,
    /// How it is dialled; `None`: somebody else sets its interface up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ppp: Option<Ppp>,
}

impl Wan {
    /// Whether it translates the source addresses of a family's flows.
    pub fn translates(&self, family: Family) -> bool {
        match family {
            Family::Ipv4 => self.nat != Nat::None,
            Family::Ipv6 => self.nat6 != Nat::None,
        }
    }
}

/// Where a WAN's own addresses come from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Addressing {
    /// From other programs; we only look.
    #[default]
    Observe,
    /// From a DHCP server, which we ask ourselves.
    Dhcp,
    /// From the file; the first is preferred. At least one.
    Static(Vec<IpNet>),
}

/// Where a WAN's next hop comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gateway<A> {
    /// Learnt: from the default routes of main, a point-to-point peer, a router advertisement.
    Auto,
    /// This address.
    Address(A),
    /// The family is not used on this WAN.
    Off,
}

/// How source addresses are translated on a WAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Nat<A> {
    /// To whatever address the interface has.
    Masquerade,
    /// Not at all.
    None,
    /// To this address.
    Address(A),
}

/// How the health of a WAN is judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Who is asked, in file order; a family without targets is judged by facts alone.
    pub targets: Vec<Target>,
    /// In this time each kind of target is asked once, 100 ms to 1 h.
    pub interval: Duration,
    /// How long an answer may take, 50 ms to 60 s; `None`: follows the measured round trips.
    pub timeout: Option<Duration>,
    /// How long probes must succeed before a WAN that was down is used again, 0 to 1 h; also how
    /// long one that was impaired must show no fault.
    pub hold: Duration,
    /// Lost probes that make it impaired, 1 to 90 %; `None`: no limit.
    pub max_loss_percent: Option<u8>,
    /// Round trips that make it impaired; `None`: no limit.
    pub max_latency: Option<Duration>,
    /// Deviation of round trips that makes it impaired; `None`: no limit.
    pub max_jitter: Option<Duration>,
}

/// Settings of the router as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router {
    /// What happens to new flows while no WAN is usable.
    pub all_down: AllDown,
    /// What keeps its WAN.
    pub sticky: Sticky,
    /// The bits of packet and connection marks that are ours.
    pub mark_field: MarkField,
    /// `table_base` is the `balance` table, `table_base + N` that of WAN N.
    pub table_base: TableId,
    /// The first of our rule priorities: this block is 1,000 long; the last two rules stand at
    /// 32765, right before main.
    pub rule_priority_base: RulePriority,
}

/// What happens to new flows while no WAN is usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AllDown {
    /// They are refused at once.
    Refuse,
    /// They try the WAN that was best last.
    Try,
}

/// What keeps its WAN: new flows of what are sent the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sticky {
    /// Each flow by itself.
    Flow,
    /// All flows of one source address.
    Source,
    /// All flows between one source and one destination address.
    SourceDestination,
}
