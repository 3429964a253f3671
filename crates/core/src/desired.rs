//! The kernel state that follows: routes, rules, parameters, our nftables table, and which CPUs
//! do the work. In: configuration, facts, choice, and what was observed. Out: [`Desired`],
//! compared with [`Observed`] by `steps`. Nothing is remembered here.

mod addresses;
mod children;
mod cpu;
mod maps;
mod routing;
mod slots;
mod sysctl;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::choose::Choice;
use crate::config::{Config, Nat, Sticky, Wan};
use crate::facts::{Numbers, WanFacts, numbered_all};
use crate::names::{Family, IfIndex, MarkField, PROTOCOL, TableId, WanId};
use crate::observed::{CpuFile, Elements, Observed, OwnAddress, Route, Rule};
use crate::resolvers::Asked;

pub use children::{Program, Text};
pub use cpu::{
    interfaces as worked_interfaces, spread as spread_over_cpus, values as cpu_values,
    watched as watched_interfaces, yields,
};
pub use slots::SLOTS;
pub use sysctl::watched as watched_sysctls;

/// What hosts on a LAN may be taken to send, whatever our own interface says.
const ETHERNET_MTU: u32 = 1500;
/// The kernel's `RTPROT_STATIC`: put there by an administrator.
const STATIC: u8 = 4;

/// What the kernel should look like, as far as it is ours.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Desired {
    /// Links that are up.
    pub up: BTreeSet<IfIndex>,
    /// Our addresses.
    pub addresses: BTreeSet<OwnAddress>,
    /// Default routes in our tables, and what leases bring.
    pub routes: BTreeSet<Route>,
    /// Our ip rules.
    pub rules: BTreeSet<Rule>,
    /// Kernel parameters that must have these values.
    pub sysctls: BTreeMap<String, String>,
    /// Kernel parameters that go back to what they were.
    pub restore: BTreeMap<String, String>,
    /// Files that must say these CPUs.
    pub cpus: BTreeMap<CpuFile, String>,
    /// Files that go back to what they said.
    pub restore_cpus: BTreeMap<CpuFile, String>,
    /// Routes that are left behind in main when we leave, not tagged as ours.
    pub parting: BTreeSet<Route>,
    /// Our nftables table; `None`: there must be none.
    pub table: Option<Table>,
    /// The programs that should run, by our name for each.
    pub children: BTreeMap<String, Program>,
    /// Programs of which it is not known how they should run: those that do are left as they are.
    #[serde(default)]
    pub unknown_children: BTreeSet<String>,
    /// What tells this machine's own programs to ask our dnsmasq; `None`: what was there before.
    #[serde(default)]
    pub resolv_conf: Option<String>,
}

/// Our nftables table as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// What its chains follow from; `render` makes them text.
    pub shape: Shape,
    /// The elements of its maps.
    pub maps: BTreeMap<String, Elements>,
    /// The routing table by which each chain that places flows has them sent.
    #[serde(default)]
    pub ways: BTreeMap<String, TableId>,
}

/// What the chains of our table depend on: the configuration, and little else, so that they are
/// seldom loaded anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// The bits of marks that are ours.
    pub field: MarkField,
    /// What keeps its WAN.
    pub sticky: Sticky,
    /// Some WAN shares its interface with a LAN or another WAN.
    pub shared: bool,
    /// Some WAN's gateway has another address beside its own.
    pub aliased: bool,
    /// Names are looked up for LANs, so which resolvers are asked is decided here.
    pub dns: bool,
    /// Some WAN's packets must be smaller than a LAN's, so segment sizes are clamped.
    pub clamps: bool,
    /// Every WAN that has flows.
    pub wans: BTreeMap<WanId, WanShape>,
}

/// What the chains of one WAN depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WanShape {
    /// How IPv4 sources are translated.
    pub nat: Nat<Ipv4Addr>,
    /// How IPv6 sources are translated.
    pub nat6: Nat<Ipv6Addr>,
    /// The interface's MTU in bytes.
    pub mtu: u32,
    /// It shares its interface with a LAN or another WAN.
    pub shared: bool,
    /// It shares its interface with another WAN.
    #[serde(default)]
    pub twin: bool,
}

/// What is needed to work out the desired state.
#[derive(Debug, Clone, Copy)]
pub struct Basis<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The WANs' numbers.
    pub numbers: &'a Numbers,
    /// What the facts say about each WAN.
    pub facts: &'a BTreeMap<WanId, WanFacts>,
    /// Which WANs serve.
    pub choice: &'a Choice,
    /// The WAN that a drill cuts off.
    pub cut: Option<WanId>,
    /// Which resolvers are asked.
    pub asked: &'a Asked,
    /// The kernel.
    pub observed: &'a Observed,
}

/// Works out what the kernel should look like. The programs that should run, and who is told to ask
/// them, are the engine's to add: their texts are rendered, and one that just ended has to wait.
pub fn desire(basis: Basis<'_>) -> Desired {
    let mut routes = routing::routes(basis);
    routes.extend(addresses::lease_routes(basis));
    Desired {
        up: addresses::links_up(basis),
        addresses: addresses::addresses(basis),
        routes,
        rules: routing::rules(basis),
        sysctls: sysctl::values(basis),
        restore: sysctl::obsolete(basis),
        cpus: cpu::values(basis.config, basis.observed),
        restore_cpus: cpu::obsolete(basis),
        parting: BTreeSet::new(),
        table: Some(Table {
            shape: shape(basis),
            maps: maps::maps(basis),
            ways: maps::ways(basis),
        }),
        children: BTreeMap::new(),
        unknown_children: BTreeSet::new(),
        resolv_conf: None,
    }
}

fn shape(basis: Basis<'_>) -> Shape {
    let wan = |(id, wan): (WanId, &Wan)| {
        let (mtu, shared) = basis.facts.get(&id).map_or((1500, false), |f| (f.mtu, f.shared));
        let mut wans = basis.config.wans.iter();
        let twin = wans.any(|w| w.name != wan.name && w.interface == wan.interface);
        (id, WanShape { nat: wan.nat, nat6: wan.nat6, mtu, shared, twin })
    };
    Shape {
        field: basis.config.router.mark_field,
        sticky: basis.config.router.sticky,
        aliased: basis.config.wans.iter().any(|w| w.gateway_alias.is_some()),
        dns: basis.config.dns.is_some(),
        clamps: clamps(basis),
        shared: basis.facts.values().any(|f| f.shared && !f.retiring),
        wans: numbered_all(basis.config, basis.numbers).into_iter().map(wan).collect(),
    }
}

/// Whether a packet of a LAN may be too large for a WAN.
fn clamps(basis: Basis<'_>) -> bool {
    let lans = basis.config.lans.iter().filter_map(|l| basis.observed.link_named(&l.interface));
    let largest = lans.map(|(_, link)| link.mtu).max().unwrap_or(0).max(ETHERNET_MTU);
    basis.facts.values().any(|f| f.mtu < largest)
}

/// What the kernel should look like once we have left: nothing of ours, every parameter as it
/// was before us. Where nobody else has a default route in main, one stays behind.
pub fn nothing(observed: &Observed) -> Desired {
    let parting = Family::BOTH.into_iter().filter_map(|family| parting_route(observed, family));
    Desired {
        restore: observed.sysctls_before.clone(),
        restore_cpus: cpu::former(observed),
        parting: parting.collect(),
        ..Desired::default()
    }
}

/// The first reserve route of `balance`, the way out that was best, as a plain static route. Our own
/// addresses go with us, and nothing can be sent where none is left.
fn parting_route(observed: &Observed, family: Family) -> Option<Route> {
    let of_family = || observed.routes.iter().filter(|r| r.family == family);
    if observed.foreign_defaults().any(|r| r.family == family) {
        return None;
    }
    let reserve = of_family()
        .filter(|r| r.protocol == PROTOCOL && r.metric >= routing::METRIC_RESERVE)
        .filter(|r| {
            !r.hops.is_empty()
                && r.hops.iter().all(|hop| others_address(observed, family, hop.device))
        })
        .min_by_key(|r| r.metric)?;
    Some(Route { table: TableId::MAIN, metric: 0, protocol: STATIC, ..reserve.clone() })
}

fn others_address(observed: &Observed, family: Family, device: IfIndex) -> bool {
    observed.own_addresses(device, family).iter().any(|address| !address.ours)
}
