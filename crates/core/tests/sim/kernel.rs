//! The fake kernel: what `steps::expect` says a step does, what Linux does by itself when a line
//! changes, and how it would route a packet. In: steps, lines with their faults. Out: an
//! [`Observed`], and which parts of it have changed. It believes nobody.

use std::collections::{BTreeMap, BTreeSet};

use anywan_core::config::Config;
use anywan_core::names::{Family, IfIndex, Mac, Mark, MarkField, PROTOCOL, TableId, WanId};
use anywan_core::observed::{
    Address, CpuFile, Hop, Key, Link, Neighbour, Nic, Observed, Route, Rule, RuleAction,
};
use anywan_core::steps::{Step, expect};

use crate::line::{Ail, Fault, Line};

/// The LAN's interface.
const LAN: IfIndex = IfIndex(2);
/// Who keeps the foreign default routes: `RTPROT_DHCP`.
const DHCP: u8 = 16;

/// A part of the kernel's state that is read as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Links,
    Addresses,
    Routes,
    Rules,
    Neighbours,
    Sysctls,
    Nft,
    Cpus,
    Children,
}

impl Part {
    pub(crate) const ALL: [Part; 9] = [
        Part::Links,
        Part::Addresses,
        Part::Routes,
        Part::Rules,
        Part::Neighbours,
        Part::Sysctls,
        Part::Nft,
        Part::Cpus,
        Part::Children,
    ];
}

/// The kernel.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    pub(crate) is: Observed,
}

impl Kernel {
    /// A kernel as other programs have set it up for these lines; nothing of ours.
    pub(crate) fn new(lines: &[Line], faults: &[Fault]) -> Kernel {
        let mut kernel = Kernel { is: Observed::default() };
        kernel.has_four_cpus();
        for path in [
            "net/ipv4/ip_forward",
            "net/ipv4/fib_multipath_hash_policy",
            "net/ipv6/fib_multipath_hash_policy",
            "net/ipv6/conf/all/forwarding",
            "net/ipv4/conf/all/ignore_routes_with_linkdown",
            "net/ipv4/conf/all/rp_filter",
            "net/ipv4/conf/all/send_redirects",
            "net/netfilter/nf_conntrack_events",
        ] {
            kernel.is.sysctls.insert(path.to_owned(), "0".to_owned());
        }
        kernel.follow(lines, faults);
        kernel
    }

    /// Takes over how the lines are now, as the kernel and the usual daemons would; says what has
    /// changed.
    pub(crate) fn follow(&mut self, lines: &[Line], faults: &[Fault]) -> BTreeSet<Part> {
        let before = self.is.clone();
        let ours: Vec<Route> =
            self.is.routes.iter().filter(|r| r.protocol == PROTOCOL).cloned().collect();
        self.is.links.clear();
        self.is.addresses.clear();
        self.is.routes.clear();
        self.is.neighbours.clear();
        self.is.links.insert(LAN, link("eth0", true));
        for line in lines {
            self.follow_line(line, faults, &before);
        }
        let kept: Vec<Route> = ours.into_iter().filter_map(|r| self.remains(r)).collect();
        self.is.routes.extend(kept);
        self.follow_parameters(&before);
        self.changed_since(&before)
    }

    fn follow_line(&mut self, line: &Line, faults: &[Fault], before: &Observed) {
        if line.has(faults, &Ail::Gone) {
            return;
        }
        let device = line.index;
        let carrier = !line.has(faults, &Ail::NoCarrier);
        self.is.links.insert(device, link(&line.name(), carrier));
        // What we put there stays as long as the interface.
        let of_line = |a: &&Address| a.ours && a.device == device;
        self.is.addresses.extend(before.addresses.iter().filter(of_line).cloned());
        for family in Family::BOTH.into_iter().filter(|f| *line.families.get(*f)) {
            let mac = Mac([2, 0, 0, 0, line.gateway, line.number]);
            if line.fixed {
                let via = line.gateway(family);
                self.is.neighbours.insert(Neighbour { device, address: via }, mac);
                continue;
            }
            if line.ails(family, faults).any(|ail| *ail == Ail::NoAddress) {
                continue;
            }
            let (address, via) = (line.address(family), line.gateway(family));
            let prefix = if family == Family::Ipv4 { 24 } else { 64 };
            let (global, deprecated, peer) = (true, false, None);
            self.is.addresses.insert(Address {
                device,
                address,
                prefix,
                peer,
                global,
                deprecated,
                ours: false,
                until: None,
            });
            self.is.routes.insert(Route {
                family,
                table: TableId::MAIN,
                to: None,
                metric: 100 * u32::from(line.number),
                protocol: DHCP,
                hops: vec![Hop { device, via: Some(via), weight: 1 }],
            });
            self.is.neighbours.insert(Neighbour { device, address: via }, mac);
        }
    }

    /// What Linux leaves of a route of ours: IPv4 loses a whole multipath route with one of its
    /// interfaces (or an interface's last address), IPv6 only the hop.
    fn remains(&self, mut route: Route) -> Option<Route> {
        let there = |hop: &Hop| {
            let has_address = || {
                let own = |a: &Address| a.device == hop.device && a.address.is_ipv4();
                route.family == Family::Ipv6 || self.is.addresses.iter().any(own)
            };
            self.is.links.contains_key(&hop.device) && has_address()
        };
        if route.hops.iter().all(there) {
            return Some(route);
        }
        if route.family == Family::Ipv4 {
            return None;
        }
        route.hops = route.hops.iter().filter(|hop| there(hop)).cloned().collect();
        if let [only] = &mut route.hops[..] {
            only.weight = 1;
        }
        (!route.hops.is_empty()).then_some(route)
    }

    /// Parameters of interfaces come and go with them.
    fn follow_parameters(&mut self, before: &Observed) {
        for (index, link) in &self.is.links {
            let is_new = !before.links.contains_key(index);
            for (path, value) in parameters(&link.name) {
                if is_new || !self.is.sysctls.contains_key(&path) {
                    self.is.sysctls.insert(path, value.to_owned());
                }
            }
        }
        let now = &self.is.links;
        for link in before.links.values().filter(|l| now.values().all(|n| n.name != l.name)) {
            for (path, _) in parameters(&link.name) {
                self.is.sysctls.remove(&path);
            }
        }
    }

    fn changed_since(&self, before: &Observed) -> BTreeSet<Part> {
        let now = &self.is;
        [
            (Part::Links, now.links != before.links),
            (Part::Addresses, now.addresses != before.addresses),
            (Part::Routes, now.routes != before.routes),
            (Part::Rules, now.rules != before.rules),
            (Part::Neighbours, now.neighbours != before.neighbours),
            (Part::Sysctls, now.sysctls != before.sysctls),
            (Part::Nft, now.nft != before.nft),
            (Part::Cpus, now.cpus != before.cpus),
            (Part::Children, now.children != before.children),
        ]
        .into_iter()
        .filter_map(|(part, changed)| changed.then_some(part))
        .collect()
    }

    /// Four CPUs, and a LAN with one queue that they may share.
    fn has_four_cpus(&mut self) {
        let cpus = &mut self.is.cpus;
        cpus.usable = (0..4).map(|cpu| (cpu, Default::default())).collect();
        let nic = Nic { receive: 1, transmit: 1, ..Nic::default() };
        cpus.nics.insert("eth0".to_owned(), nic);
        let file = CpuFile::Receive { device: "eth0".to_owned(), queue: 0 };
        cpus.files.insert(file, "0".to_owned());
    }

    /// Carries a step out; says what it touched, as the daemon does.
    pub(crate) fn apply(&mut self, step: &Step) {
        expect(&mut self.is, step);
    }

    /// What the daemon reads again after a step.
    pub(crate) fn touched_by(step: &Step) -> BTreeSet<Part> {
        match step {
            Step::SetSysctl { .. } | Step::RestoreSysctl { .. } => BTreeSet::from([Part::Sysctls]),
            Step::SetCpus { .. } | Step::RestoreCpus { .. } => BTreeSet::from([Part::Cpus]),
            Step::ReplaceTable { .. } => BTreeSet::from([Part::Nft, Part::Sysctls]),
            Step::ChangeElements(_) | Step::DeleteTable => BTreeSet::from([Part::Nft]),
            Step::SetUp(_) => BTreeSet::from([Part::Links]),
            Step::PutAddress(_) | Step::DeleteAddress(_) => BTreeSet::from([Part::Addresses]),
            Step::PutRoute(_) | Step::DeleteRoute(_) => BTreeSet::from([Part::Routes]),
            Step::AddRule(_) | Step::DeleteRule(_) => BTreeSet::from([Part::Rules]),
            Step::StartChild { .. } | Step::ReloadChild { .. } | Step::StopChild { .. } => {
                BTreeSet::from([Part::Children])
            }
            // The simulated machine is not its programs' machine.
            Step::TakeResolvConf { .. } | Step::GiveBackResolvConf => BTreeSet::new(),
        }
    }

    /// Which WANs get new flows of a family, with how many of the slots.
    pub(crate) fn slots(&self, family: Family) -> BTreeMap<WanId, u32> {
        let mut slots = BTreeMap::new();
        let map = format!("slots{}", family.digit());
        for chain in self.is.nft.maps.get(&map).into_iter().flat_map(|map| map.values()) {
            if let Some(id) = chain.strip_prefix("place").and_then(|n| n.parse().ok()) {
                *slots.entry(WanId(id)).or_default() += 1;
            }
        }
        slots
    }

    /// Whether the flows of a WAN are told to start anew.
    pub(crate) fn is_lost(&self, family: Family, wan: WanId, field: MarkField) -> bool {
        let map = self.is.nft.maps.get(&format!("restore{}", family.digit()));
        let key = Key::Number(field.keep(wan).0);
        map.and_then(|map| map.get(&key)).is_some_and(|chain| chain == "lost")
    }

    /// Where a forwarded packet with this mark would leave: the hops among which the kernel picks.
    pub(crate) fn route(&self, family: Family, mark: Mark) -> Vec<&Hop> {
        let mut rules: Vec<&Rule> = self.is.rules.iter().filter(|r| r.family == family).collect();
        rules.sort_by_key(|r| r.priority);
        let mut from = 0;
        for rule in rules {
            if rule.priority.0 < from || !matches(rule, mark) {
                continue;
            }
            match rule.action {
                RuleAction::Lookup(table) => {
                    let hops = self.look_up(family, table);
                    if !hops.is_empty() {
                        return hops;
                    }
                }
                // The packets asked about are for the internet, which only default routes reach.
                RuleAction::LookupNoDefault(_) => {}
                RuleAction::Goto(priority) => from = priority.0,
                RuleAction::Unreachable => return Vec::new(),
            }
        }
        self.look_up(family, TableId::MAIN)
    }

    /// The first route of a table with hops that have carrier (`ignore_routes_with_linkdown`).
    fn look_up(&self, family: Family, table: TableId) -> Vec<&Hop> {
        let mut routes: Vec<&Route> =
            self.is.routes.iter().filter(|r| r.family == family && r.table == table).collect();
        routes.sort_by_key(|r| r.metric);
        let live = |hop: &&Hop| self.is.links.get(&hop.device).is_some_and(|l| l.carrier);
        let hops = routes.into_iter().map(|route| route.hops.iter().filter(live).collect());
        hops.into_iter().find(|hops: &Vec<&Hop>| !hops.is_empty()).unwrap_or_default()
    }

    /// The parameters that the daemon watches, as they are.
    pub(crate) fn watched(&self, paths: &BTreeSet<String>) -> BTreeMap<String, String> {
        let there = |path: &String| Some((path.clone(), self.is.sysctls.get(path)?.clone()));
        paths.iter().filter_map(there).collect()
    }

    /// Whether nothing of ours names a WAN that `config` does not have, nor an interface that is
    /// not there. Gives what does.
    pub(crate) fn remnants(&self, config: &Config, known: &BTreeSet<WanId>) -> Vec<String> {
        let mut found = Vec::new();
        let ours = self.is.routes.iter().filter(|r| r.protocol == PROTOCOL);
        for route in ours {
            let number = route.table.0.wrapping_sub(config.router.table_base.0);
            let named = number == 0 || known.iter().any(|id| u32::from(id.0) == number);
            let led = route.hops.iter().all(|h| self.is.links.contains_key(&h.device));
            if !named || !led {
                found.push(route.to_string());
            }
        }
        for address in self.is.addresses.iter().filter(|address| address.ours) {
            let link = self.is.links.get(&address.device);
            let named = |link: &Link| config.wans.iter().any(|wan| wan.interface == link.name);
            if !link.is_some_and(named) {
                found.push(format!("{} on {}", address.address, address.device.0));
            }
        }
        for (name, map) in &self.is.nft.maps {
            for (key, chain) in map {
                // The chain of a WAN ends with its number; an address is no chain.
                let number = chain.rsplit(|c: char| !c.is_ascii_digit()).next();
                let number = number.filter(|_| !chain.contains('.')).and_then(|n| n.parse().ok());
                let named = number.is_none_or(|n| known.contains(&WanId(n)));
                let device = match key {
                    Key::DeviceIpv4(device, _) | Key::DeviceIpv6(device, _) => Some(*device),
                    Key::DeviceMac(device, _) => Some(*device),
                    Key::Number(n) if name.starts_with("out_by") || name == "from_wan" => Some(*n),
                    Key::Number(_) | Key::Ipv4(_) => None,
                };
                let led = device.is_none_or(|d| self.is.links.contains_key(&IfIndex(d)));
                if !named || !led {
                    found.push(format!("{name}[{key:?}] -> {chain}"));
                }
            }
        }
        found
    }
}

fn matches(rule: &Rule, mark: Mark) -> bool {
    // Forwarded packets come from the networks of LANs, not from our own addresses.
    let from = rule.source.is_none_or(|source| source.prefix_len() < source.max_prefix_len());
    let selected = from && rule.mark.is_none_or(|(value, mask)| mark.0 & mask == value);
    selected != rule.invert
}

fn link(name: &str, carrier: bool) -> Link {
    Link {
        name: name.to_owned(),
        up: true,
        carrier,
        point_to_point: false,
        mtu: 1500,
        ..Link::default()
    }
}

fn parameters(device: &str) -> [(String, &'static str); 4] {
    [
        (format!("net/ipv4/conf/{device}/rp_filter"), "1"),
        (format!("net/ipv4/conf/{device}/send_redirects"), "1"),
        (format!("net/ipv6/conf/{device}/accept_ra"), "1"),
        (format!("net/ipv6/conf/{device}/ignore_routes_with_linkdown"), "0"),
    ]
}
