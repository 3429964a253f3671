//! What the world says, as sorted sets of plain values: read by the daemon, compared here, never
//! remembered from what we once did. In: dumps of the kernel. Out: facts for every room above.

mod children;
mod cpu;
mod dial;
mod flows;
mod lease;
mod resolv_conf;
mod resolvers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::names::{Family, IfIndex, Mac, PROTOCOL, RulePriority, TableId, WanId};
use crate::time::Moment;

pub use children::{ChildEnd, Running};
pub use cpu::{Core, CpuFile, CpuSet, Cpus, Irq, Nic};
pub use dial::Dialling;
pub use flows::{TcpFlow, Traffic};
pub use lease::{Lease, STATIC_ROUTES_MAX};
pub use resolv_conf::{RESOLV_CONF_TAG, ResolvConf, ResolvFile, Writer};
pub use resolvers::Resolvers;

/// All facts about the kernel, as last read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Observed {
    /// Every network interface.
    pub links: BTreeMap<IfIndex, Link>,
    /// Every address of every interface.
    pub addresses: BTreeSet<Address>,
    /// Ours in any table, and of other programs' the default routes (0.0.0.0/0, ::/0) of main.
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
    /// Somebody else is told how flows begin and change (conntrackd, `conntrack -E`).
    #[serde(default)]
    pub followed: bool,
    /// What dialling depends on.
    #[serde(default)]
    pub dialling: Dialling,
    /// The programs that we run for ourselves, by our name for each.
    #[serde(default)]
    pub children: BTreeMap<String, Running>,
    /// What DHCP servers have given to WANs, as long as it is in force.
    #[serde(default)]
    pub leases: BTreeMap<WanId, Lease>,
    /// WANs of which nothing has come yet of what DHCP servers say.
    #[serde(default)]
    pub undecided: BTreeSet<WanId>,
    /// The resolvers that somebody was told of.
    #[serde(default)]
    pub resolvers: Resolvers,
    /// The addresses that hosts on LANs have been lent, by us.
    #[serde(default)]
    pub lent: BTreeSet<Ipv4Addr>,
    /// The file that tells this machine's own programs whom to ask.
    #[serde(default)]
    pub resolv_conf: ResolvConf,
}

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
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
    /// Its hardware address, where it has one of Ethernet's kind.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// The device that it belongs to, as the kernel's bus calls it: `1-1.3:1.0` on USB.
    #[serde(default)]
    pub parent: Option<String>,
    /// Its driver, e.g. `cdc_ether`; of an interface without hardware its kind, e.g. `veth`.
    #[serde(default)]
    pub driver: Option<String>,
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
    /// Put there by us (`IFA_PROTO`).
    #[serde(default)]
    pub ours: bool,
    /// When the kernel takes it away by itself, as closely as it tells (to a second or two).
    #[serde(default)]
    pub until: Option<Moment>,
}

/// An address of ours as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OwnAddress {
    /// The interface.
    pub device: IfIndex,
    /// The address.
    pub address: IpAddr,
    /// Its prefix length in bits.
    pub prefix: u8,
    /// When the kernel is to take it away by itself; `None`: never.
    pub until: Option<Moment>,
}

impl OwnAddress {
    /// An address that is there.
    pub fn of(address: &Address) -> OwnAddress {
        let Address { device, address, prefix, until, .. } = *address;
        OwnAddress { device, address, prefix, until }
    }

    /// Whether this is that address, lifetimes aside.
    pub fn is(&self, address: &Address) -> bool {
        (self.device, self.address, self.prefix)
            == (address.device, address.address, address.prefix)
    }
}

/// A route; where others put it, a default route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// IPv4 or IPv6.
    pub family: Family,
    /// The table that holds it.
    pub table: TableId,
    /// Where it leads; `None` for a default route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpNet>,
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
    /// The network that a packet's source address must be in.
    pub source: Option<IpNet>,
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
    /// An IPv4 address.
    Ipv4(Ipv4Addr),
}

impl Observed {
    /// The interface with this name.
    pub fn link_named(&self, name: &str) -> Option<(IfIndex, &Link)> {
        self.links.iter().find(|(_, link)| link.name == name).map(|(index, link)| (*index, link))
    }

    /// The default routes in main that other programs have put there.
    pub fn foreign_defaults(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(|r| r.table == TableId::MAIN && r.protocol != PROTOCOL)
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
    /// An IPv4 address.
    Ipv4,
}

/// What the elements of a map lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leads {
    /// Nothing: it is a plain set, and the value is "".
    Nowhere,
    /// `goto` to a chain; the value is its name.
    Chain,
    /// An IPv4 address, the value in its usual text.
    Ipv4,
}

/// One map or set of our nftables table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapSpec {
    /// Its name.
    pub name: &'static str,
    /// Its key.
    pub key: KeyKind,
    /// What its elements lead to.
    pub leads: Leads,
}

const fn map(name: &'static str, key: KeyKind) -> MapSpec {
    MapSpec { name, key, leads: Leads::Chain }
}

const fn set(name: &'static str) -> MapSpec {
    MapSpec { name, key: KeyKind::Number, leads: Leads::Nowhere }
}

/// All maps and sets of our table; everything that changes while the configuration stays the same
/// is an element of one of them.
pub const MAPS: [MapSpec; 20] = [
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
    map("resolvers4", KeyKind::DeviceIpv4),
    map("resolvers6", KeyKind::DeviceIpv6),
    map("stray", KeyKind::Number),
    map("aliases", KeyKind::Ipv4),
    MapSpec { name: "behind", key: KeyKind::Ipv4, leads: Leads::Ipv4 },
    set("lans"),
    set("guarded"),
    set("outside"),
    set("unfollowed"),
];

/// The elements of every map that a table without any has.
pub fn empty_maps() -> BTreeMap<String, Elements> {
    MAPS.iter().map(|spec| (spec.name.to_owned(), Elements::new())).collect()
}
