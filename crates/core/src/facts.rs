//! What the facts say about each WAN, before any probe: is its interface there, has it carrier,
//! an address, a next hop? In: configuration and [`Observed`]. Out: a [`WanFacts`] per WAN. Judges
//! nothing: whether the internet is behind the next hop is the business of `health`.

mod interfaces;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::{Config, Gateway, Line, Wan};
use crate::names::{Family, IfIndex, Mac, PROTOCOL, PerFamily, TableId, WanId};
use crate::observed::{Address, Hop, Lease, Link, Neighbour, Observed, Route};

pub use interfaces::{Doubts, resolve, resolved};

/// WAN numbers by name; kept across restarts and config changes.
pub type Numbers = BTreeMap<String, WanId>;

/// What outlives a run of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Kept {
    /// The WANs' numbers.
    pub numbers: Numbers,
    /// WANs that are no longer configured but still have flows.
    pub retiring: Vec<Wan>,
    /// The WANs that were configured, without their secrets: those that are not when the daemon
    /// starts again retire.
    #[serde(default)]
    pub wans: Vec<Wan>,
    /// The names of WANs that were taken out of service by hand.
    #[serde(default)]
    pub drained: BTreeSet<String>,
    /// The fingerprints of PINs that a SIM was told and did not take, by WAN.
    #[serde(default)]
    pub tried_pins: BTreeMap<String, u64>,
}

/// What the facts say about one WAN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WanFacts {
    /// The interface's index, when it exists.
    pub device: Option<IfIndex>,
    /// Its MTU in bytes, or what its lease says if that is less; what
    /// it usually has while it is missing.
    pub mtu: u32,
    /// Shares its interface with a LAN or another WAN, so that its packets are known by the
    /// gateway's hardware address and next hop only.
    pub shared: bool,
    /// No longer configured; only its flows are left.
    pub retiring: bool,
    /// Each family by itself.
    pub sides: PerFamily<SideFacts>,
}

/// What the facts say about one family of one WAN.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SideFacts {
    /// The way out, known and (administratively) passable; there may be no carrier.
    pub hop: Option<Hop>,
    /// Our own addresses on the interface, best first.
    pub addresses: Vec<IpAddr>,
    /// The gateway's hardware address, where it is known.
    pub gateway_mac: Option<Mac>,
    /// `None` when nothing speaks against the WAN; otherwise what does.
    pub obstacle: Option<Obstacle>,
}

/// Why a WAN cannot work, by facts alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Obstacle {
    /// The configuration turns the family off here.
    Off,
    /// There is no such interface.
    NoInterface,
    /// It is administratively down.
    LinkDown,
    /// It has no carrier.
    NoCarrier,
    /// It has no usable address of the family.
    NoAddress,
    /// No next hop is known.
    NoGateway,
}

impl Obstacle {
    /// Whether the family is not there at all, rather than out of order.
    pub fn is_absence(self) -> bool {
        matches!(self, Obstacle::Off | Obstacle::NoAddress | Obstacle::NoGateway)
    }
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Obstacle::Off => "turned off in the configuration",
            Obstacle::NoInterface => "the interface does not exist",
            Obstacle::LinkDown => "the interface is set down",
            Obstacle::NoCarrier => "no carrier",
            Obstacle::NoAddress => "no address",
            Obstacle::NoGateway => "no gateway known",
        })
    }
}

/// Gives every WAN of `config` its number: a name keeps the number it had, a new name gets the
/// lowest one that no name has had, or, when all have been used, the lowest that none has now, or that of
/// one that retires.
pub fn assign_numbers(config: &Config, before: &Numbers) -> Numbers {
    let mut numbers = before.clone();
    let max = config.router.mark_field.max_number();
    numbers.retain(|_, id| id.0 != 0 && id.0 <= max);
    for wan in &config.wans {
        if numbers.contains_key(&wan.name) {
            continue;
        }
        let free = |taken: &Numbers| (1..=max).map(WanId).find(|n| !taken.values().any(|t| t == n));
        let number = free(&numbers).or_else(|| {
            let known =
                |name: &str| config.wans.iter().chain(&config.retiring).any(|w| w.name == name);
            numbers.retain(|name, _| known(name));
            free(&numbers)
        });
        // One that is configured needs it more than one that retires.
        let number = number.or_else(|| {
            numbers.retain(|name, _| config.wans.iter().any(|wan| wan.name == *name));
            free(&numbers)
        });
        if let Some(number) = number {
            numbers.insert(wan.name.clone(), number);
        }
    }
    numbers
}

/// The WANs of `config` with their numbers, in number order.
pub fn numbered<'a>(config: &'a Config, numbers: &Numbers) -> BTreeMap<WanId, &'a Wan> {
    config.wans.iter().filter_map(|w| numbers.get(&w.name).map(|n| (*n, w))).collect()
}

/// The same, and the WANs that are only left with flows.
pub fn numbered_all<'a>(config: &'a Config, numbers: &Numbers) -> BTreeMap<WanId, &'a Wan> {
    let wans = config.wans.iter().chain(&config.retiring);
    wans.filter_map(|w| numbers.get(&w.name).map(|n| (*n, w))).collect()
}

/// Reads off what is known about every WAN, those that retire included.
pub fn read(config: &Config, numbers: &Numbers, observed: &Observed) -> BTreeMap<WanId, WanFacts> {
    numbered_all(config, numbers)
        .into_iter()
        .map(|(id, wan)| (id, wan_facts(config, id, wan, observed)))
        .collect()
}

/// What an interface that is not there will have, most likely: PPPoE takes 8 bytes (RFC 2516). That it
/// comes and goes then changes nothing but elements of the table.
fn usual_mtu(wan: &Wan) -> u32 {
    wan.ppp.as_ref().map_or(1500, |ppp| match (ppp.mtu, &ppp.line) {
        (Some(mtu), _) => mtu.into(),
        (None, Line::Ethernet { .. }) => 1492,
        (None, Line::Modem(_)) => 1500,
    })
}

fn wan_facts(config: &Config, id: WanId, wan: &Wan, observed: &Observed) -> WanFacts {
    let found = observed.link_named(&wan.interface);
    let shared = config.lans.iter().any(|lan| lan.interface == wan.interface)
        || config.wans.iter().any(|w| w.name != wan.name && w.interface == wan.interface);
    let lease = observed.leases.get(&id).filter(|_| found.is_some());
    let table = TableId(config.router.table_base.0 + u32::from(id.0));
    WanFacts {
        device: found.map(|(index, _)| index),
        mtu: found.map_or_else(|| usual_mtu(wan), |(_, link)| mtu(link, lease)),
        shared,
        retiring: !config.wans.iter().any(|w| w.name == wan.name),
        sides: PerFamily::from_fn(|family| match found {
            None => SideFacts { obstacle: Some(no_interface(wan, family)), ..SideFacts::default() },
            Some((index, link)) => side_facts(wan, (table, lease), family, index, link, observed),
        }),
    }
}

/// A network may take smaller packets than its first link.
fn mtu(link: &Link, lease: Option<&Lease>) -> u32 {
    lease.and_then(|lease| lease.mtu).map_or(link.mtu, |mtu| link.mtu.min(mtu.into()))
}

fn leased_gateway(family: Family, lease: Option<&Lease>) -> Option<Option<IpAddr>> {
    let gateway = lease.filter(|_| family == Family::Ipv4)?.gateway?;
    Some(Some(gateway.into()))
}

fn no_interface(wan: &Wan, family: Family) -> Obstacle {
    if wish(wan, family) == Gateway::Off { Obstacle::Off } else { Obstacle::NoInterface }
}

fn side_facts(
    wan: &Wan,
    (table, lease): (TableId, Option<&Lease>),
    family: Family,
    device: IfIndex,
    link: &Link,
    observed: &Observed,
) -> SideFacts {
    let wish = wish(wan, family);
    if wish == Gateway::Off {
        return SideFacts { obstacle: Some(Obstacle::Off), ..SideFacts::default() };
    }
    let own = observed.own_addresses(device, family);
    let via = match wish {
        Gateway::Address(address) => Some(Some(address)),
        Gateway::Auto => leased_gateway(family, lease)
            .or_else(|| learnt_gateway(family, table, device, link, &own, observed)),
        Gateway::Off => None,
    };
    let addresses: Vec<IpAddr> = own.iter().map(|a| a.address).collect();
    let obstacle = if !link.up {
        Some(Obstacle::LinkDown)
    } else if !link.carrier {
        Some(Obstacle::NoCarrier)
    } else if addresses.is_empty() {
        Some(Obstacle::NoAddress)
    } else if via.is_none() {
        Some(Obstacle::NoGateway)
    } else {
        None
    };
    // The kernel refuses routes over an interface that is set down, and a route without an own
    // address would only send packets with another WAN's.
    let hop =
        via.filter(|_| link.up && !addresses.is_empty()).map(|via| Hop { device, via, weight: 1 });
    let gateway_mac = via
        .flatten()
        .and_then(|address| observed.neighbours.get(&Neighbour { device, address }).copied());
    SideFacts { hop, addresses, gateway_mac, obstacle }
}

fn wish(wan: &Wan, family: Family) -> Gateway<IpAddr> {
    fn widen<A: Into<IpAddr> + Copy>(gateway: Gateway<A>) -> Gateway<IpAddr> {
        match gateway {
            Gateway::Auto => Gateway::Auto,
            Gateway::Address(a) => Gateway::Address(a.into()),
            Gateway::Off => Gateway::Off,
        }
    }
    match family {
        Family::Ipv4 => widen(wan.gateway),
        Family::Ipv6 => widen(wan.gateway6),
    }
}

/// The next hop that the system knows for a device; `Some(None)` when none is needed. Asked in
/// this order:
/// 1. the default route of the device in main with the best metric, whoever put it there;
/// 2. a point-to-point line, which needs no gateway;
/// 3. the route that we ourselves keep in the WAN's table, as long as the gateway lies within a
///    subnet of the device: its manager may be between two leases, and probes tell the truth.
fn learnt_gateway(
    family: Family,
    table: TableId,
    device: IfIndex,
    link: &Link,
    own: &[&Address],
    observed: &Observed,
) -> Option<Option<IpAddr>> {
    let hop_of = |route: &Route| route.hops.iter().find(|h| h.device == device).map(|h| h.via);
    let in_main = observed
        .foreign_defaults()
        .filter(|r| r.family == family)
        .filter_map(|r| hop_of(r).map(|via| (r.metric, via)))
        .min();
    if let Some((_, via)) = in_main {
        return Some(via);
    }
    if link.point_to_point || own.iter().any(|a| a.peer.is_some()) {
        return Some(None);
    }
    let kept = observed
        .routes
        .iter()
        .filter(|r| r.family == family && r.table == table && r.protocol == PROTOCOL)
        .find_map(hop_of)
        .flatten()?;
    own.iter().any(|a| within(a, kept)).then_some(Some(kept))
}

fn within(address: &Address, other: IpAddr) -> bool {
    ipnet::IpNet::new(address.address, address.prefix).is_ok_and(|net| net.contains(&other))
}
