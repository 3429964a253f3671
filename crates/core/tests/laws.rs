//! Laws of the planner, for arbitrary networks: whatever the configuration, the kernel's state
//! and the health of the WANs, these hold.

#[path = "sides/proven.rs"]
mod proven;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anywan_core::choose::{Choice, Sides, choose};
use anywan_core::config::{
    Addressing, AllDown, Config, Cpu, Gateway, Health, Inbound, Lan, Nat, Router, Sticky, Wan,
};
use anywan_core::desired::{Basis, Desired, desire, nothing};
use anywan_core::facts::{self, Numbers, WanFacts, assign_numbers};
use anywan_core::health::Side;
use anywan_core::names::{
    Family, IfIndex, Mac, MarkField, PROTOCOL, PerFamily, RulePriority, TableId, WanId, Weight,
};
use anywan_core::observed::{Address, Elements, Hop, Key, Link, Neighbour, Observed, Route};
use anywan_core::resolvers::Asked;
use anywan_core::steps::{Step, diff, expect};
use anywan_core::time::Moment;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;

/// What varies about one WAN.
#[derive(Debug, Clone)]
struct Draw {
    priority: u8,
    weight: u16,
    /// On eth0, the LAN's interface.
    one_armed: bool,
    present: bool,
    carrier: bool,
    address: bool,
    /// Its addresses are in the file, and from us; the gateway too.
    fixed: bool,
    gateway: bool,
    /// The health of each family: in order or known to be lost.
    lost: [bool; 2],
}

fn draw() -> impl Strategy<Value = Draw> {
    let often = || prop::bool::weighted(0.85);
    (
        1_u8..4,
        1_u16..9,
        prop::bool::weighted(0.2),
        often(),
        often(),
        often(),
        prop::bool::weighted(0.2),
        often(),
        any::<[bool; 2]>(),
    )
        .prop_map(
            |(priority, weight, one_armed, present, carrier, address, fixed, gateway, lost)| {
                let fixed = fixed && !one_armed;
                Draw {
                    priority,
                    weight,
                    one_armed,
                    present,
                    carrier,
                    address,
                    fixed,
                    gateway,
                    lost,
                }
            },
        )
}

fn draws() -> impl Strategy<Value = Vec<Draw>> {
    prop::collection::vec(draw(), 1..9)
}

fn interface(number: u8, draw: &Draw) -> String {
    if draw.one_armed { "eth0".to_owned() } else { format!("wan{number}") }
}

/// The address of a WAN with its prefix, and its gateway, IPv4 first.
fn v4(n: u8) -> (Ipv4Net, Ipv4Addr) {
    let own = Ipv4Net::new(Ipv4Addr::new(10, n, 0, 2), 24).expect("a prefix of IPv4");
    (own, Ipv4Addr::new(10, n, 0, 1))
}

fn v6(n: u8) -> (Ipv6Net, Ipv6Addr) {
    let own = Ipv6Addr::new(0x2001, 0xdb8, n.into(), 0, 0, 0, 0, 2);
    let own = Ipv6Net::new(own, 64).expect("a prefix of IPv6");
    (own, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1))
}

fn numbered(draws: &[Draw]) -> impl Iterator<Item = (u8, &Draw)> {
    (1..).zip(draws)
}

fn config(draws: &[Draw]) -> Config {
    let health = Health {
        targets: Vec::new(),
        interval: Duration::from_secs(1),
        timeout: None,
        hold: Duration::from_secs(10),
        max_loss_percent: Some(20),
        max_latency: None,
        max_jitter: None,
    };
    let wans = numbered(draws).map(|(n, draw)| Wan {
        name: format!("wan{n}"),
        interface: interface(n, draw),
        gateway: match (draw.one_armed, draw.fixed) {
            (true, _) => Gateway::Address(Ipv4Addr::new(192, 168, 0, n)),
            (false, true) => Gateway::Address(v4(n).1),
            (false, false) => Gateway::Auto,
        },
        gateway6: if draw.fixed { Gateway::Address(v6(n).1) } else { Gateway::Auto },
        gateway_alias: None,
        address: if draw.fixed {
            Addressing::Static(vec![v4(n).0.into(), v6(n).0.into()])
        } else {
            Addressing::Observe
        },
        priority: draw.priority,
        weight: Weight(draw.weight),
        metered: false,
        budget: None,
        linger: None,
        nat: Nat::Masquerade,
        nat6: Nat::Masquerade,
        dns: Vec::new(),
        health: health.clone(),
        ppp: None,
    });
    Config {
        lans: vec![Lan { interface: "eth0".to_owned(), inbound: Inbound::Drop, dhcp: None }],
        wans: wans.collect(),
        retiring: Vec::new(),
        cpu: Cpu::Auto,
        router: Router {
            all_down: AllDown::Refuse,
            sticky: Sticky::Flow,
            mark_field: MarkField::default(),
            table_base: TableId(17000),
            rule_priority_base: RulePriority(1000),
        },
        dns: None,
    }
}

/// The kernel as others have set it up, with nothing of ours in it.
fn kernel(draws: &[Draw]) -> Observed {
    let mut kernel = Observed::default();
    let link = |name: &str, carrier| Link {
        name: name.to_owned(),
        up: true,
        carrier,
        point_to_point: false,
        mtu: 1500,
        ..Link::default()
    };
    kernel.links.insert(IfIndex(2), link("eth0", true));
    let own = |device, address, prefix| Address {
        device,
        address,
        prefix,
        peer: None,
        global: true,
        deprecated: false,
        ours: false,
        until: None,
    };
    kernel.addresses.insert(own(IfIndex(2), Ipv4Addr::new(192, 168, 0, 254).into(), 24));
    for (n, draw) in numbered(draws) {
        let device = if draw.one_armed { IfIndex(2) } else { IfIndex(10 + u32::from(n)) };
        if draw.one_armed {
            let address = Ipv4Addr::new(192, 168, 0, n).into();
            kernel.neighbours.insert(Neighbour { device, address }, Mac([2, 0, 0, 0, 0, n]));
            continue;
        }
        if !draw.present {
            continue;
        }
        kernel.links.insert(device, link(&interface(n, draw), draw.carrier));
        let pairs: [(IpNet, IpAddr); 2] =
            [(v4(n).0.into(), v4(n).1.into()), (v6(n).0.into(), v6(n).1.into())];
        for (net, via) in pairs {
            if draw.address {
                let address = own(device, net.addr(), net.prefix_len());
                kernel.addresses.insert(Address { ours: draw.fixed, ..address });
            }
            if draw.gateway && !draw.fixed {
                kernel.routes.insert(Route {
                    family: Family::of(net.addr()),
                    table: TableId::MAIN,
                    to: None,
                    metric: u32::from(n),
                    protocol: 16,
                    hops: vec![Hop { device, via: Some(via), weight: 1 }],
                });
            }
        }
    }
    kernel
}

/// Everything that is worked out from one network.
struct Worked {
    numbers: Numbers,
    facts: BTreeMap<WanId, WanFacts>,
    choice: Choice,
    desired: Desired,
}

fn work(config: &Config, numbers: &Numbers, kernel: &Observed, draws: &[Draw]) -> Worked {
    let numbers = assign_numbers(config, numbers);
    let facts = facts::read(config, &numbers, kernel);
    let now = Moment::default();
    let sides: Sides = facts
        .keys()
        .map(|id| {
            let lost = draws.get(usize::from(id.0) - 1).map_or([false; 2], |d| d.lost);
            let side = |lost, family| {
                let speaks_against = facts[id].sides.get(family).obstacle.is_some();
                match lost {
                    true => Side::known_lost(now),
                    false if speaks_against => Side::new(true, now),
                    false => proven::side(now),
                }
            };
            let (ipv4, ipv6) = (side(lost[0], Family::Ipv4), side(lost[1], Family::Ipv6));
            (*id, PerFamily { ipv4, ipv6 })
        })
        .collect();
    let choice = choose(config, &numbers, &facts, &sides, &BTreeSet::new());
    let desired = desire(Basis {
        config,
        numbers: &numbers,
        facts: &facts,
        choice: &choice,
        cut: None,
        asked: &Asked::new(),
        observed: kernel,
    });
    Worked { numbers, facts, choice, desired }
}

/// The kernel after everything was carried out for a network.
fn settled(draws: &[Draw]) -> (Config, Observed, Worked) {
    let config = config(draws);
    let mut kernel = kernel(draws);
    let mut carry_out = |numbers: &Numbers| {
        let worked = work(&config, numbers, &kernel, draws);
        for step in diff(&kernel, &worked.desired) {
            expect(&mut kernel, &step);
        }
        worked
    };
    let first = carry_out(&Numbers::new());
    // What an address of ours leads to is known once it is there.
    let worked = carry_out(&first.numbers);
    (config, kernel, worked)
}

/// The same network with other luck: what `b` says about presence and health happens to `a`.
fn changed(kernel_before: &Observed, draws: &[Draw]) -> Observed {
    let ours = |r: &&Route| r.protocol == PROTOCOL;
    let mut after = kernel(draws);
    after.routes.extend(kernel_before.routes.iter().filter(ours).cloned());
    after.rules = kernel_before.rules.clone();
    after.nft = kernel_before.nft.clone();
    after
}

/// The devices by which an unmarked packet may leave: the first route of `balance`.
fn ways_out(kernel: &Observed, family: Family) -> BTreeSet<IfIndex> {
    kernel
        .routes
        .iter()
        .filter(|r| r.family == family && r.table == TableId(17000))
        .min_by_key(|r| r.metric)
        .map(|r| r.hops.iter().map(|h| h.device).collect())
        .unwrap_or_default()
}

fn four_hundred() -> ProptestConfig {
    ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(four_hundred())]

    #[test]
    fn applying_the_steps_leaves_no_difference(draws in draws()) {
        let (_, kernel, worked) = settled(&draws);
        prop_assert_eq!(diff(&kernel, &worked.desired), vec![]);
    }

    #[test]
    fn a_step_carried_out_twice_changes_nothing_more(draws in draws()) {
        let (before, (_, _, worked)) = (kernel(&draws), settled(&draws));
        let (mut once, mut twice) = (before.clone(), before.clone());
        for step in diff(&before, &worked.desired) {
            expect(&mut once, &step);
            expect(&mut twice, &step);
            expect(&mut twice, &step);
        }
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn what_is_not_ours_is_never_touched(before in draws(), after in draws()) {
        let (_, kernel, _) = settled(&before);
        let mut kernel = changed(&kernel, &after);
        let foreign = |k: &Observed| -> BTreeSet<Route> {
            k.routes.iter().filter(|r| r.protocol != PROTOCOL).cloned().collect()
        };
        let theirs = |k: &Observed| -> BTreeSet<Address> {
            k.addresses.iter().filter(|a| !a.ours).cloned().collect()
        };
        let (routes, links, addresses) =
            (foreign(&kernel), kernel.links.clone(), theirs(&kernel));
        let worked = work(&config(&after), &Numbers::new(), &kernel, &after);
        for step in diff(&kernel, &worked.desired) {
            if let Step::PutRoute(route) | Step::DeleteRoute(route) = &step {
                prop_assert!((17000..=17062).contains(&route.table.0), "{}", step);
                prop_assert_eq!(route.protocol, PROTOCOL);
            }
            expect(&mut kernel, &step);
            prop_assert_eq!(&foreign(&kernel), &routes);
        }
        prop_assert_eq!(&kernel.links, &links);
        prop_assert_eq!(theirs(&kernel), addresses);
    }

    #[test]
    fn at_every_step_of_a_switch_there_is_a_way_out(
        (before, lost) in draws().prop_flat_map(|d| {
            let n = d.len();
            (Just(d), prop::collection::vec(any::<[bool; 2]>(), n))
        })
    ) {
        let (config, mut kernel, old) = settled(&before);
        let after: Vec<Draw> =
            before.iter().zip(lost).map(|(d, lost)| Draw { lost, ..d.clone() }).collect();
        let new = work(&config, &old.numbers, &kernel, &after);
        let exists: BTreeSet<IfIndex> = kernel.links.keys().copied().collect();
        for step in diff(&kernel.clone(), &new.desired) {
            expect(&mut kernel, &step);
            for family in Family::BOTH {
                let needed = !old.choice.get(family).serving.is_empty()
                    && !new.choice.get(family).serving.is_empty();
                let ways = ways_out(&kernel, family);
                prop_assert!(!needed || !ways.is_empty(), "no way out over {} after {}", family, step);
                prop_assert!(ways.is_subset(&exists));
            }
        }
    }

    #[test]
    fn new_flows_are_only_sent_where_a_route_leads(before in draws(), after in draws()) {
        // Slots may name a WAN only while its own table has its route.
        let (_, kernel, _) = settled(&before);
        let mut kernel = changed(&kernel, &after);
        let worked = work(&config(&after), &Numbers::new(), &kernel, &after);
        for step in diff(&kernel.clone(), &worked.desired) {
            expect(&mut kernel, &step);
        }
        for (family, map) in [(Family::Ipv4, "slots4"), (Family::Ipv6, "slots6")] {
            for chain in kernel.nft.maps[map].values() {
                let Some(number) = chain.strip_prefix("place") else {
                    prop_assert_eq!(chain, "refuse");
                    continue;
                };
                let table = TableId(17000 + number.parse::<u32>().expect("a WAN number"));
                let routed = kernel.routes.iter().any(|r| r.family == family && r.table == table);
                prop_assert!(routed, "{} without a route over {}", chain, family);
            }
        }
    }

    #[test]
    fn the_order_in_the_file_does_not_matter(draws in draws(), seed in any::<u64>()) {
        let (config, kernel, old) = settled(&draws);
        let mut shuffled = config.clone();
        let count = shuffled.wans.len();
        shuffled.wans.rotate_left(usize::try_from(seed % 8).unwrap_or(0) % count);
        shuffled.wans.reverse();
        let new = work(&shuffled, &old.numbers, &kernel, &draws);
        prop_assert_eq!(new.desired, old.desired);
    }

    #[test]
    fn the_same_input_gives_the_same_bytes(draws in draws()) {
        let (_, _, one) = settled(&draws);
        let (_, _, two) = settled(&draws);
        let bytes = |w: &Worked| serde_json::to_vec(&w.desired.routes).expect("plain values");
        prop_assert_eq!(bytes(&one), bytes(&two));
        prop_assert_eq!(one.desired, two.desired);
    }

    #[test]
    fn marks_tables_and_priorities_are_unique_and_in_range(draws in draws()) {
        let (config, _, worked) = settled(&draws);
        let field = config.router.mark_field;
        let marks: BTreeSet<u32> = worked.facts.keys().map(|id| field.keep(*id).0).collect();
        prop_assert_eq!(marks.len(), worked.facts.len());
        prop_assert!(marks.iter().all(|m| m & !field.number_mask() == 0 && *m != 0));
        for rule in &worked.desired.rules {
            let p = rule.priority.0;
            prop_assert!((1000..2000).contains(&p) || p == 32765, "{}", rule);
        }
        let places: BTreeSet<_> =
            worked.desired.routes.iter().map(|r| (r.family, r.table, r.metric)).collect();
        prop_assert_eq!(places.len(), worked.desired.routes.len());
    }

    #[test]
    fn both_families_are_treated_alike(draws in draws()) {
        let same: Vec<Draw> = draws
            .into_iter()
            .map(|d| Draw { one_armed: false, lost: [d.lost[0]; 2], ..d })
            .collect();
        let (_, _, worked) = settled(&same);
        prop_assert_eq!(&worked.choice.ipv4, &worked.choice.ipv6);
        let shape = |family| -> BTreeSet<(u32, u32, usize)> {
            let routes = worked.desired.routes.iter().filter(|r| r.family == family);
            routes.map(|r| (r.table.0, r.metric, r.hops.len())).collect()
        };
        prop_assert_eq!(shape(Family::Ipv4), shape(Family::Ipv6));
        let table = worked.desired.table.expect("there is one");
        prop_assert_eq!(&table.maps["slots4"], &table.maps["slots6"]);
        let alike = |(key, chain): (&Key, &String)| (*key, chain.replace("keep4_", "keep6_"));
        let restored: Elements = table.maps["restore4"].iter().map(alike).collect();
        prop_assert_eq!(&restored, &table.maps["restore6"]);
    }

    #[test]
    fn leaving_takes_out_all_of_ours_and_nothing_else(draws in draws()) {
        let (_, mut kernel, _) = settled(&draws);
        let foreign: BTreeSet<Route> =
            kernel.routes.iter().filter(|r| r.protocol != PROTOCOL).cloned().collect();
        for _ in 0..2 {
            for step in diff(&kernel.clone(), &nothing(&kernel)) {
                expect(&mut kernel, &step);
            }
        }
        prop_assert!(kernel.rules.is_empty() && kernel.sysctls_before.is_empty());
        prop_assert!(kernel.routes.iter().all(|r| r.protocol != PROTOCOL));
        prop_assert!(foreign.is_subset(&kernel.routes));
    }
}
