//! Links, addresses and neighbours.

use anywan_core::names::Mac;
use anywan_core::observed::{Address, Link, Neighbour};

use crate::net::{fresh_network, index, open, pair, run};

#[test]
fn links_tell_their_state_carrier_kind_and_mtu() {
    fresh_network(|state| {
        let a = pair("a0");
        run("ip link set a0 mtu 1400");
        run("ip tuntap add name ppp7 mode tun");
        let mut kernel = open(state);
        let link = |kernel: &mut anywan_daemon::kernel::Kernel, index| {
            kernel.links().expect("readable")[&index].clone()
        };
        let mut expected =
            Link { name: "a0".into(), up: true, carrier: true, point_to_point: false, mtu: 1400 };
        assert_eq!(link(&mut kernel, a), expected);
        run("ip link set a0p down");
        expected.carrier = false;
        assert_eq!(link(&mut kernel, a), expected);
        let ppp = link(&mut kernel, index("ppp7"));
        assert!(ppp.point_to_point && !ppp.up && !ppp.carrier, "{ppp:?}");
        assert_eq!(kernel.links().expect("readable").len(), 4, "with lo and the peer");
    });
}

#[test]
fn addresses_tell_peers_and_whether_they_are_usable() {
    fresh_network(|state| {
        let a = pair("a0");
        run("ip address add 192.0.2.2/24 dev a0");
        run("ip address add 10.0.0.1 peer 10.0.0.9/32 dev a0");
        run("ip address add 169.254.1.1/16 dev a0 scope link");
        run("ip address add 2001:db8::2/64 dev a0 nodad");
        run("ip address add 2001:db8::3/64 dev a0 nodad preferred_lft 0");
        run("ip address add 2001:db8::4 peer 2001:db8::5/128 dev a0 nodad");
        // Long enough that the address is still being checked when it is read.
        run("sysctl -qw net.ipv6.conf.a0.dad_transmits=100");
        run("ip address add 2001:db8::6/64 dev a0");
        let found = open(state).addresses().expect("readable");
        let tell = |text: &str, prefix, peer: &str, global, deprecated| Address {
            device: a,
            address: text.parse().expect("an address"),
            prefix,
            peer: peer.parse().ok(),
            global,
            deprecated,
        };
        for expected in [
            tell("192.0.2.2", 24, "", true, false),
            tell("10.0.0.1", 32, "10.0.0.9", true, false),
            tell("169.254.1.1", 16, "", false, false),
            tell("2001:db8::2", 64, "", true, false),
            tell("2001:db8::3", 64, "", true, true),
            tell("2001:db8::4", 128, "2001:db8::5", true, false),
            tell("2001:db8::6", 64, "", false, false),
        ] {
            assert!(found.contains(&expected), "{expected:?} in {found:#?}");
        }
    });
}

#[test]
fn neighbours_are_those_with_a_hardware_address() {
    fresh_network(|state| {
        let a = pair("a0");
        run("ip address add 192.0.2.2/24 dev a0");
        run("ip neighbour add 192.0.2.1 lladdr 02:00:00:00:00:aa dev a0 nud stale");
        run("ip neighbour add fe80::1 lladdr 02:00:00:00:00:bb dev a0 nud permanent");
        run("ip neighbour add 192.0.2.7 dev a0 nud failed");
        let found = open(state).neighbours().expect("readable");
        let found: Vec<_> =
            found.into_iter().filter(|(n, _)| n.device == a && !n.address.is_multicast()).collect();
        let tell = |text: &str, last| {
            let address = text.parse().expect("an address");
            (Neighbour { device: a, address }, Mac([2, 0, 0, 0, 0, last]))
        };
        assert_eq!(found, [tell("192.0.2.1", 0xaa), tell("fe80::1", 0xbb)]);
    });
}

#[test]
fn without_privilege_opening_fails_with_a_hint() {
    fresh_network(|state| {
        let nobody = rustix::process::Uid::from_raw(65534);
        rustix::thread::set_thread_uid(nobody).expect("root may");
        let error = anywan_daemon::kernel::Kernel::open(&state.0).expect_err("not root");
        assert_eq!(error.to_string(), "open nf_tables");
        assert_eq!(error.hint(), Some("run anywand as root, or with CAP_NET_ADMIN"));
    });
}
