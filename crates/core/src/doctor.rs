//! What on this machine works against a router, or is good to know. In: what was read of the
//! machine, and the configuration where there is one. Out: findings, the worst first. Finds
//! nothing out by itself; [`Machine`] is filled by whoever may read the machine.

mod networkd;
mod placement;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use crate::api::{Finding, Grade, Problem};
use crate::choose::Choice;
use crate::config::{Addressing, Config, Wan};
use crate::desired::{self, Basis};
use crate::facts::{self, Kept, Obstacle, WanFacts};
use crate::names::{Family, IfIndex};
use crate::observed::{Address, Observed, Structure};
use crate::render;
use crate::resolvers::Asked;

pub use placement::{interfaces as placed_interfaces, placement};

/// Older kernels lack what our rules need.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// A clock that stands before this (2026-01-01) was never set, as on a Raspberry Pi without one.
const CLOCK_MIN: u64 = 1_767_225_600;
/// Programs that steer traffic over several WANs too, by the name that the kernel knows them by
/// (15 bytes at most).
const RIVALS: [(&str, &str); 5] = [
    ("mwan3track", "mwan3"),
    ("mwan3rtmon", "mwan3"),
    ("lsm", "lsm (Link Status Monitor)"),
    ("polywan", "PolyWAN"),
    ("dpinger", "dpinger"),
];
/// `systemd-networkd`, as far as the kernel keeps it.
const NETWORKD: &str = "systemd-network";
/// Carriers' own translation (RFC 6598).
const CARRIER_NAT: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(100, 64, 0, 0), 10);

/// What was read of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Machine {
    /// The kernel's state, with the parameters of [`watched`].
    pub observed: Observed,
    /// The WANs' numbers and what else an earlier run of the daemon has left.
    pub kept: Kept,
    /// The kernel's release, as `uname -r` says it.
    pub release: String,
    /// What nft said against our rules; `None` when it would take them, or was not asked.
    pub rules_refused: Option<String>,
    /// Chains of others that drop what they do not know, e.g. `ip filter FORWARD`.
    pub dropping: BTreeSet<String>,
    /// The old iptables has a filter table of its own, which nobody sees from here.
    pub legacy_iptables: bool,
    /// The names of all running programs, 15 bytes at most.
    pub programs: BTreeSet<String>,
    /// The texts of systemd-networkd's own configuration, later ones override.
    pub networkd: Vec<String>,
    /// Tracked flows now, and how many there may be.
    pub flows: Option<(u64, u64)>,
    /// The clock: seconds since 1970 (UTC).
    pub clock: u64,
    /// Some time service keeps the clock right; `None`: not known.
    pub clock_kept: Option<bool>,
    /// Who has port 53 for DNS, and on which address; our own program left out.
    pub dns_holders: BTreeSet<(IpAddr, String)>,
    /// Files with secrets that others may read.
    pub exposed: Vec<Problem>,
}

/// The text of our nftables table as this configuration would have it here, for the kernel to check.
pub fn rules(config: &Config, kept: &Kept, observed: &Observed) -> String {
    let config = &facts::resolved(config, &observed.links);
    let numbers = facts::assign_numbers(config, &kept.numbers);
    let facts = facts::read(config, &numbers, observed);
    let (numbers, facts) = (&numbers, &facts);
    let choice = &Choice::default();
    let asked = &Asked::new();
    let basis = Basis { config, numbers, facts, choice, cut: None, asked, observed };
    let desired = desired::desire(basis);
    desired.table.map(|table| render::nft::replacement(&table)).unwrap_or_default()
}

/// The kernel parameters that [`examine`] wants to know.
pub fn watched(config: Option<&Config>, observed: &Observed) -> BTreeSet<String> {
    let mut paths = BTreeSet::from(["net/ipv4/conf/all/rp_filter".to_owned()]);
    let config = config.map(|config| facts::resolved(config, &observed.links));
    paths.extend(config.iter().flat_map(|c| desired::watched_sysctls(c, observed)));
    paths
}

/// What is found, the worst first.
pub fn examine(machine: &Machine, config: Option<&Config>) -> Vec<Finding> {
    let mut found = Vec::new();
    kernel(machine, &mut found);
    others(machine, &mut found);
    if config.is_none() {
        let what = "there is none; only the machine was looked at".to_owned();
        let hint = "`anywan doctor FILE` looks at another file than /etc/anywan/anywan.toml";
        found.push(finding(Grade::Note, "config.missing", "configuration", what, hint));
    }
    let exposed = machine.exposed.iter().cloned();
    found.extend(exposed.map(|problem| Finding { grade: Grade::Wrong, problem }));
    if let Some(config) = config.map(|config| facts::resolved(config, &machine.observed.links)) {
        let config = &config;
        interfaces(machine, config, &mut found);
        names(machine, config, &mut found);
        let numbers = facts::assign_numbers(config, &machine.kept.numbers);
        let all = facts::read(config, &numbers, &machine.observed);
        for (id, wan) in facts::numbered(config, &numbers) {
            if let Some(facts) = all.get(&id) {
                wan_facts(wan, facts, &mut found);
                networks(machine, config, wan, facts, &mut found);
                path_filter(machine, wan, facts, &mut found);
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

fn finding(grade: Grade, code: &str, at: &str, what: String, hint: &str) -> Finding {
    let (code, at, hint) = (code.to_owned(), at.to_owned(), hint.to_owned());
    Finding { grade, problem: Problem { code, at, what, hint } }
}

fn kernel(machine: &Machine, found: &mut Vec<Finding>) {
    let release = &machine.release;
    if version(release).is_some_and(|version| version < KERNEL_MIN) {
        let what = format!("Linux {release} is too old");
        let hint = "anywan needs Linux 6.1 or newer: Debian 12's";
        found.push(finding(Grade::Wrong, "kernel.too-old", "kernel", what, hint));
    }
    if let Some(words) = &machine.rules_refused {
        let what = format!("anywan's rules cannot be loaded: {words}");
        let hint = "a module of nftables may be missing (nft_ct, nft_numgen, nft_hash, nft_nat, \
                    nft_fib), or nft is older than 1.0.6";
        found.push(finding(Grade::Wrong, "kernel.refuses-rules", "kernel", what, hint));
    }
    if let Some((now, most)) = machine.flows.filter(|(now, most)| *now >= most / 10 * 9) {
        let what = format!("{now} of at most {most} flows are tracked; new ones will be dropped");
        let hint = "raise net.netfilter.nf_conntrack_max in /etc/sysctl.d; some 320 bytes each";
        found.push(finding(Grade::Wrong, "flows.full", "kernel", what, hint));
    }
    if machine.clock < CLOCK_MIN {
        let what = "the clock is not set".to_owned();
        let hint = "times of events are wrong, and programs that check certificates fail; a time \
                    service (systemd-timesyncd, chrony) sets it once a WAN works";
        found.push(finding(Grade::Wrong, "clock.not-set", "clock", what, hint));
    } else if machine.clock_kept == Some(false) {
        let what = "no time service keeps the clock right".to_owned();
        let hint =
            "is one running, and does a WAN work? `timedatectl` tells, or `chronyc tracking`";
        found.push(finding(Grade::Note, "clock.not-kept", "clock", what, hint));
    }
}

/// Who has the port that LANs are to be answered on; one for this machine alone is not in the way.
fn names(machine: &Machine, config: &Config, found: &mut Vec<Finding>) {
    if config.dns.is_none() {
        return;
    }
    let observed = &machine.observed;
    let lans = config.lans.iter().filter_map(|lan| observed.link_named(&lan.interface));
    let lans: BTreeSet<IfIndex> = lans.map(|(index, _)| index).collect();
    let served = |ip: &IpAddr| {
        ip.is_unspecified()
            || observed.addresses.iter().any(|a| a.address == *ip && lans.contains(&a.device))
    };
    for (address, holder) in machine.dns_holders.iter().filter(|(ip, _)| served(ip)) {
        let what = format!("{holder} answers DNS on {address}, so dnsmasq cannot");
        let hint = "stop it, or remove [dns] from the file and let it serve the LANs";
        found.push(finding(Grade::Wrong, "dns.port-taken", holder, what, hint));
    }
}

/// Major and minor number of a release such as `6.1.0-26-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn others(machine: &Machine, found: &mut Vec<Finding>) {
    for (_, rival) in RIVALS.iter().filter(|(name, _)| machine.programs.contains(*name)) {
        let what = format!("{rival} is running and steers traffic over several WANs as well");
        let hint = "stop and disable one of the two";
        found.push(finding(Grade::Wrong, "rival.program", rival, what, hint));
    }
    if machine.programs.contains(NETWORKD) && !networkd::leaves_rules_alone(&machine.networkd) {
        let what = "it deletes the ip rules of others whenever it starts or reloads".to_owned();
        let hint = "put ManageForeignRoutingPolicyRules=no below [Network] into \
                    /etc/systemd/networkd.conf.d/anywan.conf, and restart it";
        let at = "systemd-networkd";
        found.push(finding(Grade::Wrong, "rival.networkd", at, what, hint));
    }
    for chain in &machine.dropping {
        let what = "drops forwarded packets that none of its rules accepts; anywan cannot \
                    overrule that"
            .to_owned();
        let hint = "it needs a rule that accepts what comes from the LANs (ufw: `ufw route \
                    allow in on LAN`; Docker: its chain DOCKER-USER)";
        let at = format!("chain {chain}");
        found.push(finding(Grade::Note, "firewall.drops-forwarded", &at, what, hint));
    }
    if machine.legacy_iptables {
        let what = "is in use beside nftables; what it drops, anywan cannot let through".to_owned();
        let hint = "`iptables-legacy -S` shows its rules; `update-alternatives --config iptables` \
                    chooses iptables-nft";
        let at = "iptables-legacy";
        found.push(finding(Grade::Note, "firewall.legacy", at, what, hint));
    }
}

fn interfaces(machine: &Machine, config: &Config, found: &mut Vec<Finding>) {
    let named = config.lans.iter().map(|lan| (format!("lan {}", lan.interface), &lan.interface));
    // One that is dialled comes with its line.
    let wans = config
        .wans
        .iter()
        .filter(|wan| wan.ppp.is_none())
        .map(|wan| (format!("wan {}", wan.name), &wan.interface));
    for (at, interface) in named.chain(wans) {
        if machine.observed.link_named(interface).is_some() {
            continue;
        }
        let all = machine.observed.links.values().map(|link| link.name.as_str());
        let others: Vec<&str> = all.filter(|name| *name != "lo").collect();
        let what = format!("the interface {interface} does not exist");
        let hint = match others.as_slice() {
            [] => "there are none at all; is the driver loaded?".to_owned(),
            names => format!("there are {}", names.join(", ")),
        };
        found.push(finding(Grade::Wrong, "interface.missing", &at, what, &hint));
    }
}

fn wan_facts(wan: &Wan, facts: &WanFacts, found: &mut Vec<Finding>) {
    let at = format!("wan {}", wan.name);
    let obstacles = Family::BOTH.map(|family| facts.sides.get(family).obstacle);
    // Where addresses are anywan's own to give, they may only not be there yet.
    let waits =
        wan.address != Addressing::Observe && !obstacles.contains(&Some(Obstacle::NoCarrier));
    if let ([Some(ipv4), Some(ipv6)], Some(_), false) = (obstacles, facts.device, waits) {
        let what = format!("cannot be used: over IPv4 {ipv4}, over IPv6 {ipv6}");
        let hint = "is the cable in, and its DHCP client or pppd running?";
        found.push(finding(Grade::Wrong, "wan.not-ready", &at, what, hint));
    }
    let own = &facts.sides.get(Family::Ipv4).addresses;
    if wan.translates(Family::Ipv4) && !own.is_empty() && own.iter().all(|a| is_private(*a)) {
        let (address, by) = (own[0], if is_carriers(own[0]) { "the carrier" } else { "a box" });
        let what = format!("its address {address} is translated once more, by {by} before it");
        let hint = "connections from the internet do not get here unless that one forwards them; \
                    a box may have a bridge mode";
        found.push(finding(Grade::Note, "wan.double-nat", &at, what, hint));
    }
}

fn is_private(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.is_private()) || is_carriers(address)
}

fn is_carriers(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if CARRIER_NAT.contains(&v4))
}

/// A LAN and a WAN with the same addresses on different interfaces: the kernel knows only one way
/// to them.
fn networks(
    machine: &Machine,
    config: &Config,
    wan: &Wan,
    facts: &WanFacts,
    found: &mut Vec<Finding>,
) {
    for lan in &config.lans {
        let Some((device, _)) = machine.observed.link_named(&lan.interface) else { continue };
        let (Some(outside), true) = (facts.device, Some(device) != facts.device) else { continue };
        for own in networks_of(&machine.observed, device) {
            for other in networks_of(&machine.observed, outside) {
                if !own.contains(&other) && !other.contains(&own) {
                    continue;
                }
                let what = format!(
                    "its network {other} on {} and the LAN's {own} on {} overlap",
                    wan.interface, lan.interface
                );
                let hint = "give the LAN another network; the box before the WAN may let you \
                            change its own as well";
                let at = format!("wan {}", wan.name);
                found.push(finding(Grade::Wrong, "wan.same-network", &at, what, hint));
            }
        }
    }
}

fn networks_of(observed: &Observed, device: IfIndex) -> BTreeSet<IpNet> {
    let host = |a: &Address| match a.address {
        IpAddr::V4(_) => a.prefix == 32,
        IpAddr::V6(_) => a.prefix == 128,
    };
    let own = observed.addresses.iter().filter(|a| a.device == device && a.global && !host(a));
    own.filter_map(|a| Some(IpNet::new(a.address, a.prefix).ok()?.trunc())).collect()
}

/// The strict filter drops answers that come in over any WAN but the one that main prefers.
fn path_filter(machine: &Machine, wan: &Wan, facts: &WanFacts, found: &mut Vec<Finding>) {
    let value = |device: &str| {
        let path = format!("net/ipv4/conf/{device}/rp_filter");
        machine.observed.sysctls.get(&path).and_then(|text| text.parse::<u8>().ok())
    };
    // The kernel uses the larger of the two; 1 is strict, 2 is loose.
    let strict = value("all").max(value(&wan.interface)) == Some(1);
    if !strict || facts.device.is_none() {
        return;
    }
    let at = format!("wan {}", wan.name);
    let what = format!("the reverse path filter of {} is strict", wan.interface);
    let steers = machine.observed.nft.structure != Structure::Absent;
    let (grade, hint) = if steers {
        (Grade::Wrong, "somebody sets it back after anywan: look for rp_filter in /etc/sysctl.d")
    } else {
        (Grade::Note, "anywan makes it loose for as long as it steers")
    };
    found.push(finding(grade, "wan.strict-path-filter", &at, what, hint));
}
