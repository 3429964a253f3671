//! What the world says, as sorted sets of plain values: read by the daemon, compared here, never
//! remembered from what we once did. In: dumps of the kernel. Out: facts for every room above.

mod children;
mod cpu;
mod dial;
mod flows;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::names::{Family, IfIndex, Mac, RulePriority, TableId};

pub use children::{ChildEnd, Running};
pub use cpu::{Core, CpuFile, CpuSet, Cpus, Irq, Nic};
pub use dial::Dialling;
pub use flows::{TcpFlow, Traffic};

/// All facts about the kernel, as last read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Observed {
    /// Every network interface.
    pub links: BTreeMap<IfIndex, Link>,
    /// Every address of every interface.
    pub addresses: BTreeSet<Address>,
    /// The default routes (0.0.0.0/0, ::/0): ours in any table, other programs' in main.
    pub routes: BTreeSet<Route>,
    /// Our ip rules: those that carry our protocol number.
    pub rules: BTreeSet<Rule>,
    /// Where other programs' ip rules stand.
    pub foreign_rules: BTreeSet<(Family, RulePriority)>,
    /// Hardware addresses of neighbours that the kernel knows (any state but FAILED).
    pub neighbours: BTreeMap<Neighbour, Mac>,
    /// The kernel parameters that were asked for, by path below `/proc/sys`, e.g.
    /// `net/ipv4/ip_forward`. One that does not exist is absent.
    pub sysctls: BTreeMap<String, String>,
    /// What the parameters that we changed were before (kept in the state directory).
    pub sysctls_before: BTreeMap<String, String>,
    /// The CPUs, and the queues and interrupts of interfaces.
    pub cpus: Cpus,
    /// Our nftables table.
    pub nft: Nft,
    /// What dialling depends on.
    #[serde(default)]
    pub dialling: Dialling,
    /// Who resolves names behind a WAN, best first, as its far end has said; by the WAN's name.
    #[serde(default)]
    pub line_resolvers: BTreeMap<String, Vec<IpAddr>>,
    /// The programs that we run for ourselves, by our name for each.
    #[serde(default)]
    pub children: BTreeMap<String, Running>,
}

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Link {
    /// Its present name, up to 15 bytes.
    pub name: String,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Has carrier (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// Point to point (`IFF_POINTOPOINT`): a default route needs no gateway.
    pub point_to_point: bool,
    /// MTU in bytes.
    pub mtu: u32,
}

/// One address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// The interface.
    pub device: IfIndex,
    /// Our own address (`IFA_LOCAL`).
    pub address: IpAddr,
    /// Its prefix length in bits.
    pub prefix: u8,
    /// The far end of a point-to-point address (`IFA_ADDRESS` where it differs).
    pub peer: Option<IpAddr>,
    /// Usable for the world: scope global, neither tentative nor failed, temporary ones included.
    pub global: bool,
    /// Deprecated: no new flow should use it.
    pub deprecated: bool,
}

/// A default route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// IPv4 or IPv6.
    pub family: Family,
    /// The table that holds it.
    pub table: TableId,
    /// Its metric: lower is preferred (`RTA_PRIORITY`).
    pub metric: u32,
    /// Who put it there (`rtm_protocol`).
    pub protocol: u8,
    /// The ways out; several make a multipath route. Sorted; empty for an unreachable route.
    pub hops: Vec<Hop>,
}

/// One way out of a route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hop {
    /// The interface.
    pub device: IfIndex,
    /// The gateway; `None` on a point-to-point interface. May be of the other family (RFC 5549).
    pub via: Option<IpAddr>,
    /// Its share in a multipath route, 1 to 256; 1 in a single-path route.
    pub weight: u16,
}

/// One ip rule of ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rule {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Its place in the order.
    pub priority: RulePriority,
    /// The mark and mask that a packet must (or, with `invert`, must not) carry.
    pub mark: Option<(u32, u32)>,
    /// `not`: the whole selector is inverted.
    pub invert: bool,
    /// The source address (a host) that a packet must have.
    pub source: Option<IpAddr>,
    /// What it does.
    pub action: RuleAction,
}

/// What a rule does with the packets that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RuleAction {
    /// Looks the destination up in a table.
    Lookup(TableId),
    /// Looks it up in a table, but takes no default route there (`suppress_prefixlength 0`).
    LookupNoDefault(TableId),
    /// Goes on at a later priority.
    Goto(RulePriority),
    /// Refuses: "network is unreachable".
    Unreachable,
}

/// The key of a neighbour entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Neighbour {
    /// The interface.
    pub device: IfIndex,
    /// The neighbour's address.
    pub address: IpAddr,
}

/// Our nftables table as the kernel holds it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Nft {
    /// Its chains and rules.
    pub structure: Structure,
    /// The elements of its maps, by the map's name. Empty maps are present with no elements.
    pub maps: BTreeMap<String, Elements>,
}

/// The elements of one map: from key to the chain that it goes to. In a plain set the chain is "".
pub type Elements = BTreeMap<Key, String>;

/// The state of the chains and rules of our table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Structure {
    /// There is no such table.
    #[default]
    Absent,
    /// Exactly as loaded from the text with this fingerprint.
    Intact(u64),
    /// Something else than what we loaded.
    Altered,
}

/// The key of a map element. Numbers are in host byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Key {
    /// A slot, mark or interface index (32 bits).
    Number(u32),
    /// An interface and an IPv4 address.
    DeviceIpv4(u32, Ipv4Addr),
    /// An interface and an IPv6 address.
    DeviceIpv6(u32, Ipv6Addr),
    /// An interface and a hardware address.
    DeviceMac(u32, Mac),
}

impl Observed {
    /// The interface with this name.
    pub fn link_named(&self, name: &str) -> Option<(IfIndex, &Link)> {
        self.links.iter().find(|(_, link)| link.name == name).map(|(index, link)| (*index, link))
    }

    /// The addresses of `family` on `device` that new flows may use, best first.
    pub fn own_addresses(&self, device: IfIndex, family: Family) -> Vec<&Address> {
        let mut found: Vec<&Address> = self
            .addresses
            .iter()
            .filter(|a| a.device == device && a.global && Family::of(a.address) == family)
            .collect();
        found.sort_by_key(|a| a.deprecated);
        found
    }
}

/// What the key of a map of ours is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// 32 bits in host byte order.
    Number,
    /// An interface index and an IPv4 address.
    DeviceIpv4,
    /// An interface index and an IPv6 address.
    DeviceIpv6,
    /// An interface index and a hardware address.
    DeviceMac,
}

/// One map or set of our nftables table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapSpec {
    /// Its name.
    pub name: &'static str,
    /// Its key.
    pub key: KeyKind,
    /// The element's value is a `goto` to a chain; otherwise it is a plain set.
    pub verdict: bool,
}

const fn map(name: &'static str, key: KeyKind) -> MapSpec {
    MapSpec { name, key, verdict: true }
}

const fn set(name: &'static str) -> MapSpec {
    MapSpec { name, key: KeyKind::Number, verdict: false }
}

/// All maps and sets of our table; everything that changes while the configuration stays the same
/// is an element of one of them.
pub const MAPS: [MapSpec; 15] = [
    map("slots4", KeyKind::Number),
    map("slots6", KeyKind::Number),
    map("restore4", KeyKind::Number),
    map("restore6", KeyKind::Number),
    map("from_wan", KeyKind::Number),
    map("from_shared", KeyKind::DeviceMac),
    map("out_via4", KeyKind::DeviceIpv4),
    map("out_via6", KeyKind::DeviceIpv6),
    map("out_by4", KeyKind::Number),
    map("out_by6", KeyKind::Number),
    map("clamp", KeyKind::Number),
    map("stray", KeyKind::Number),
    set("lans"),
    set("guarded"),
    set("outside"),
];

/// The elements of every map that a table without any has.
pub fn empty_maps() -> BTreeMap<String, Elements> {
    MAPS.iter().map(|spec| (spec.name.to_owned(), Elements::new())).collect()
}
