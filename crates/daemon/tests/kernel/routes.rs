//! Routes, in both families.

use std::net::IpAddr;

use anywan_core::names::{Family, IfIndex, PROTOCOL, TableId};
use anywan_core::observed::{Hop, Route};
use anywan_core::steps::Step;
use anywan_daemon::kernel::Kernel;

use crate::net::{contract, fresh_network, observe, open, pair, run};

const TABLE: u32 = 4_000_000_001;

fn hop(device: IfIndex, via: &str, weight: u16) -> Hop {
    let via = (!via.is_empty()).then(|| via.parse::<IpAddr>().expect("an address"));
    Hop { device, via, weight }
}

fn route(family: Family, metric: u32, mut hops: Vec<Hop>) -> Route {
    hops.sort();
    Route { family, table: TableId(TABLE), to: None, metric, protocol: PROTOCOL, hops }
}

fn walk(kernel: &mut Kernel, routes: &[Route]) {
    for from in routes {
        for to in routes {
            contract(kernel, Step::PutRoute(from.clone()));
            contract(kernel, Step::PutRoute(to.clone()));
            contract(kernel, Step::PutRoute(to.clone()));
        }
    }
    for one in routes {
        contract(kernel, Step::PutRoute(one.clone()));
        contract(kernel, Step::DeleteRoute(one.clone()));
        contract(kernel, Step::DeleteRoute(one.clone()));
    }
}

#[test]
fn ipv4_routes_of_every_shape_replace_each_other() {
    fresh_network(|state| {
        let (a, b, c) = (pair("a0"), pair("b0"), pair("c0"));
        run("ip address add 192.168.1.2/24 dev a0");
        let mut kernel = open(state);
        let of = |hops| route(Family::Ipv4, 10, hops);
        walk(
            &mut kernel,
            &[
                of(vec![hop(a, "192.168.1.1", 1)]),
                of(vec![hop(b, "10.64.64.64", 1)]),
                of(vec![hop(c, "", 1)]),
                of(vec![hop(a, "fe80::1", 1)]),
                of(vec![]),
                of(vec![hop(a, "192.168.1.1", 8), hop(b, "10.64.64.64", 256)]),
                of(vec![hop(a, "192.168.1.1", 8), hop(b, "192.168.1.1", 6), hop(c, "", 3)]),
                of(vec![hop(a, "192.168.1.1", 1), hop(b, "fe80::1", 2)]),
                of(vec![hop(b, "", 1), hop(c, "", 2)]),
            ],
        );
    });
}

#[test]
fn a_multipath_route_is_read_whole_while_a_hop_has_no_carrier() {
    fresh_network(|state| {
        let (a, b) = (pair("a0"), pair("b0"));
        let mut kernel = open(state);
        run("sysctl -qw net.ipv4.conf.all.ignore_routes_with_linkdown=1");
        run("sysctl -qw net.ipv6.conf.all.ignore_routes_with_linkdown=1");
        for (family, via) in [(Family::Ipv4, "192.0.2.1"), (Family::Ipv6, "fe80::1")] {
            let both = route(family, 10, vec![hop(a, via, 8), hop(b, via, 6)]);
            contract(&mut kernel, Step::PutRoute(both));
        }
        let before = observe(&mut kernel).routes;
        run("ip link set a0p down");
        assert_eq!(observe(&mut kernel).routes, before);
        // Gone altogether, IPv4 loses the whole route and IPv6 only the hop.
        run("ip link del a0");
        let left = route(Family::Ipv6, 10, vec![hop(b, "fe80::1", 1)]);
        let found: Vec<_> = observe(&mut kernel).routes.into_iter().collect();
        assert_eq!(found, [left]);
    });
}

#[test]
fn ipv6_routes_of_every_shape_replace_each_other() {
    fresh_network(|state| {
        let (a, b, c) = (pair("a0"), pair("b0"), pair("c0"));
        run("ip address add 2001:db8:1::2/64 dev a0 nodad");
        let mut kernel = open(state);
        let of = |hops| route(Family::Ipv6, 10, hops);
        walk(
            &mut kernel,
            &[
                of(vec![hop(a, "2001:db8:1::1", 1)]),
                of(vec![hop(b, "2001:db8:99::1", 1)]),
                of(vec![hop(b, "fe80::1", 1)]),
                of(vec![hop(c, "", 1)]),
                of(vec![hop(b, "", 1)]),
                of(vec![]),
                of(vec![hop(a, "2001:db8:1::1", 8), hop(b, "fe80::1", 256)]),
                of(vec![hop(a, "fe80::1", 8), hop(b, "fe80::1", 6), hop(c, "2001:db8:99::1", 3)]),
                of(vec![hop(a, "2001:db8:1::1", 2), hop(b, "fe80::1", 3)]),
                of(vec![hop(b, "", 2), hop(c, "", 3)]),
                of(vec![hop(b, "fe80::1", 2), hop(c, "", 3)]),
            ],
        );
    });
}

#[test]
fn routes_of_different_metrics_stand_side_by_side() {
    fresh_network(|state| {
        let (a, b) = (pair("a0"), pair("b0"));
        let mut kernel = open(state);
        for (family, via) in [(Family::Ipv4, "192.0.2.1"), (Family::Ipv6, "fe80::1")] {
            contract(&mut kernel, Step::PutRoute(route(family, 1, vec![hop(a, via, 1)])));
            contract(&mut kernel, Step::PutRoute(route(family, 2, vec![hop(b, via, 1)])));
            contract(&mut kernel, Step::PutRoute(route(family, u32::MAX, vec![])));
            contract(&mut kernel, Step::DeleteRoute(route(family, 1, vec![hop(a, via, 1)])));
            contract(&mut kernel, Step::DeleteRoute(route(family, u32::MAX, vec![])));
            // A device without a gateway is not the one with a gateway.
            contract(&mut kernel, Step::DeleteRoute(route(family, 2, vec![hop(b, via, 1)])));
        }
    });
}

#[test]
fn an_unreachable_route_is_deleted_beside_another_of_its_metric() {
    fresh_network(|state| {
        let a = pair("a0");
        let mut kernel = open(state);
        run(&format!("ip -6 route add default via fe80::1 dev a0 table {TABLE} metric 7"));
        contract(&mut kernel, Step::PutRoute(route(Family::Ipv6, 8, vec![])));
        contract(&mut kernel, Step::PutRoute(route(Family::Ipv6, 8, vec![hop(a, "fe80::1", 1)])));
        run(&format!("ip -6 route append unreachable default table {TABLE} metric 8 proto 87"));
        contract(&mut kernel, Step::DeleteRoute(route(Family::Ipv6, 8, vec![])));
        assert!(run(&format!("ip -6 route show table {TABLE}")).contains("metric 7"));
    });
}

#[test]
fn twins_that_someone_else_added_give_way() {
    fresh_network(|state| {
        let (a, b) = (pair("a0"), pair("b0"));
        run("ip address add 192.0.2.2/24 dev a0");
        run("ip address add 198.51.100.2/24 dev b0");
        let mut kernel = open(state);
        let wanted = route(Family::Ipv4, 10, vec![hop(b, "198.51.100.1", 1)]);
        contract(&mut kernel, Step::PutRoute(wanted.clone()));
        let twin = format!("default via 192.0.2.1 dev a0 table {TABLE} metric 10 proto 87 onlink");
        run(&format!("ip route prepend {twin}"));
        let first = route(Family::Ipv4, 10, vec![hop(a, "192.0.2.1", 1)]);
        assert!(observe(&mut kernel).routes.contains(&first), "the first is the one that counts");
        contract(&mut kernel, Step::PutRoute(wanted));
        let wanted = route(Family::Ipv6, 10, vec![hop(b, "fe80::1", 1)]);
        contract(&mut kernel, Step::PutRoute(wanted.clone()));
        run(&format!(
            "ip -6 route append default via fe80::2 dev a0 table {TABLE} metric 10 proto 87"
        ));
        contract(&mut kernel, Step::PutRoute(wanted));
    });
}

#[test]
fn of_main_the_default_routes_are_read_and_no_others() {
    fresh_network(|state| {
        let a = pair("a0");
        run("ip address add 192.0.2.2/24 dev a0");
        let mut kernel = open(state);
        assert!(observe(&mut kernel).routes.is_empty());
        let batch: String = (0..2000)
            .map(|n| format!("route add 10.{}.{}.0/24 via 192.0.2.1\n", n / 250, n % 250))
            .collect();
        let file = state.0.join("routes");
        std::fs::write(&file, batch).expect("a file");
        run(&format!("ip -batch {}", file.display()));
        run("ip route add default via 192.0.2.1 metric 100 proto dhcp");
        run("ip route add default via 192.0.2.9 metric 200 proto 12");
        run("ip route add 0.0.0.0/8 via 192.0.2.1");
        run("ip route add unreachable default metric 300");
        run("ip -6 route add default via fe80::1 dev a0 metric 1024 proto ra");
        run("ip -6 route add 2001:db8::/32 via fe80::1 dev a0");
        run("ip route add default via 192.0.2.1 table 7 proto 12");
        let main = |family, metric, protocol, hops| Route {
            table: TableId::MAIN,
            protocol,
            ..route(family, metric, hops)
        };
        for _ in 0..3 {
            let expected = [
                main(Family::Ipv4, 100, 16, vec![hop(a, "192.0.2.1", 1)]),
                main(Family::Ipv4, 200, 12, vec![hop(a, "192.0.2.9", 1)]),
                main(Family::Ipv4, 300, 3, vec![]),
                main(Family::Ipv6, 1024, 9, vec![hop(a, "fe80::1", 1)]),
            ];
            assert_eq!(observe(&mut kernel).routes, expected.into());
        }
    });
}

#[test]
fn a_refusal_names_the_route_and_carries_the_kernels_words() {
    fresh_network(|state| {
        let mut kernel = open(state);
        let bad = route(Family::Ipv4, 10, vec![hop(IfIndex(9999), "192.0.2.1", 1)]);
        let error = kernel.apply(&Step::PutRoute(bad)).expect_err("there is no such interface");
        let text = format!("{error}: {}", std::error::Error::source(&error).expect("a source"));
        assert!(text.contains("192.0.2.1") && text.contains("os error"), "{text}");
        let a = pair("a0");
        let bad = route(Family::Ipv6, 10, vec![hop(a, "192.0.2.1", 1)]);
        let error = kernel.apply(&Step::PutRoute(bad)).expect_err("IPv6 by way of IPv4");
        let text = format!("{error}: {}", std::error::Error::source(&error).expect("a source"));
        assert!(text.contains("the kernel says"), "{text}");
    });
}
