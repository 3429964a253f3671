//! Addresses of ours, links that are set up, and routes to other places than everywhere.

use std::net::IpAddr;
use std::time::Duration;

use anywan_core::names::{Family, IfIndex, PROTOCOL, TableId};
use anywan_core::observed::{Address, Hop, Observed, OwnAddress, Route};
use anywan_core::steps::{Step, expect};
use anywan_daemon::kernel::Kernel;

use crate::net::{contract, fresh_network, observe, observe_after, open, pair, run};

fn own(device: IfIndex, text: &str) -> OwnAddress {
    let net: ipnet::IpNet = text.parse().expect("an address");
    OwnAddress { device, address: net.addr(), prefix: net.prefix_len(), until: None }
}

/// No check for duplicates, and addresses move up when the first of their subnet goes.
fn prepare(device: &str) {
    run(&format!("sysctl -qw net.ipv6.conf.{device}.accept_dad=0"));
    run(&format!("sysctl -qw net.ipv4.conf.{device}.promote_secondaries=1"));
}

fn default_route(device: IfIndex) -> Step {
    let via = Some(IpAddr::from([192, 0, 2, 1]));
    Step::PutRoute(Route {
        family: Family::Ipv4,
        table: TableId(17_001),
        to: None,
        metric: 1,
        protocol: PROTOCOL,
        hops: vec![Hop { device, via, weight: 1 }],
    })
}

#[test]
fn addresses_come_and_go_as_expected_and_with_the_last_the_routes() {
    fresh_network(|state| {
        let (a, b) = (pair("a0"), pair("b0"));
        prepare("a0");
        let mut kernel = open(state);
        let all = ["192.0.2.10/24", "192.0.2.11/24", "198.51.100.7/32", "2001:db8::10/64"];
        for text in all {
            contract(&mut kernel, Step::PutAddress(own(a, text)));
            contract(&mut kernel, Step::PutAddress(own(a, text)));
        }
        // The same address twice on one machine, as twin modems give it.
        contract(&mut kernel, Step::PutAddress(own(b, "192.0.2.10/24")));
        contract(&mut kernel, default_route(a));
        for text in all {
            contract(&mut kernel, Step::DeleteAddress(own(a, text)));
            contract(&mut kernel, Step::DeleteAddress(own(a, text)));
        }
        let left = observe(&mut kernel);
        assert!(left.routes.is_empty(), "{:?}", left.routes);
        contract(&mut kernel, Step::DeleteAddress(own(b, "192.0.2.10/24")));
    });
}

/// With ends of lifetimes left out: they are told in whole seconds.
fn endless(observed: Observed) -> Observed {
    let endless = |address: Address| Address { until: None, ..address };
    let addresses = observed.addresses.iter().cloned().map(endless).collect();
    Observed { addresses, ..observed }
}

fn put_until(kernel: &mut Kernel, address: &OwnAddress, seconds: u64) {
    let until = kernel.clock().now() + Duration::from_secs(seconds);
    let step = Step::PutAddress(OwnAddress { until: Some(until), ..address.clone() });
    let mut expected = observe(kernel);
    expect(&mut expected, &step);
    kernel.apply(&step).expect("it can be put");
    let found = observe_after(kernel, &step);
    let told = found.addresses.iter().find(|a| address.is(a)).and_then(|a| a.until);
    let told = told.expect("it ends");
    assert!(told.since(until).max(until.since(told)) <= Duration::from_secs(3), "{told:?}");
    assert_eq!(endless(found), endless(expected));
}

#[test]
fn a_lifetime_is_told_and_can_be_told_anew() {
    fresh_network(|state| {
        let a = pair("a0");
        prepare("a0");
        let mut kernel = open(state);
        for text in ["192.0.2.10/24", "2001:db8::10/64"] {
            let own = own(a, text);
            put_until(&mut kernel, &own, 600);
            put_until(&mut kernel, &own, 7_200);
            contract(&mut kernel, Step::PutAddress(own));
        }
    });
}

#[test]
fn what_somebody_else_has_put_there_is_not_ours() {
    fresh_network(|state| {
        let a = pair("a0");
        prepare("a0");
        run("ip address add 192.0.2.9/24 dev a0");
        let mut kernel = open(state);
        contract(&mut kernel, Step::PutAddress(own(a, "192.0.2.10/24")));
        let found = observe(&mut kernel).addresses;
        let ours: Vec<_> = found.iter().filter(|address| address.ours).collect();
        assert!(ours.len() == 1 && own(a, "192.0.2.10/24").is(ours[0]), "{found:?}");
    });
}

#[test]
fn an_interface_that_is_down_is_set_up() {
    fresh_network(|state| {
        let a = pair("a0");
        run("ip link set a0 down");
        let mut kernel = open(state);
        let mut expected = observe(&mut kernel).links;
        kernel.apply(&Step::SetUp(a)).expect("it can be set up");
        kernel.apply(&Step::SetUp(a)).expect("twice, too");
        for link in expected.values_mut() {
            // Both ends of the pair have carrier then.
            link.carrier = true;
            link.up = true;
        }
        assert_eq!(observe(&mut kernel).links, expected);
    });
}

#[test]
fn routes_to_places_stand_beside_default_routes() {
    fresh_network(|state| {
        let a = pair("a0");
        run("ip address add 192.0.2.2/24 dev a0");
        run("ip route add 10.9.0.0/16 via 192.0.2.7");
        let mut kernel = open(state);
        let route = |to: &str, via: Option<[u8; 4]>| Route {
            family: Family::Ipv4,
            table: TableId::MAIN,
            to: to.parse().ok(),
            metric: 8_700,
            protocol: PROTOCOL,
            hops: vec![Hop { device: a, via: via.map(IpAddr::from), weight: 1 }],
        };
        let near = Some([192, 0, 2, 1]);
        let all =
            [route("10.0.0.0/8", near), route("10.9.0.0/16", near), route("10.7.0.0/24", None)];
        for one in &all {
            contract(&mut kernel, Step::PutRoute(one.clone()));
            contract(&mut kernel, Step::PutRoute(one.clone()));
        }
        contract(&mut kernel, Step::PutRoute(route("10.0.0.0/8", Some([192, 0, 2, 9]))));
        for one in &all[1..] {
            contract(&mut kernel, Step::DeleteRoute(one.clone()));
            contract(&mut kernel, Step::DeleteRoute(one.clone()));
        }
        let others = run("ip route show 10.9.0.0/16");
        assert!(others.contains("via 192.0.2.7"), "{others}");
    });
}
