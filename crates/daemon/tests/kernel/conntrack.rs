//! Evacuation, and flows that nobody translates.

use std::collections::BTreeSet;

use anywan_core::names::Family;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::net::{fresh_network, open, pair, run};

/// Makes a flow with a port, a mark and, for TCP, a state.
fn flow(family: Family, state: &str, port: u16, mark: u32) {
    let protocol =
        if state.is_empty() { "-p udp".to_owned() } else { format!("-p tcp --state {state}") };
    of_protocol(family, &protocol, port, mark);
}

fn of_protocol(family: Family, protocol: &str, port: u16, mark: u32) {
    let ends = match family {
        Family::Ipv4 => "-s 192.168.1.5 -d 203.0.113.9",
        Family::Ipv6 => "-s 2001:db8::5 -d 2001:db8:f::9",
    };
    run(&format!("conntrack -I {ends} {protocol} --sport {port} --dport 443 -t 600 -m {mark}"));
}

/// The source ports of the flows that are left.
fn left(family: &str) -> Vec<u16> {
    let list = run(&format!("conntrack -L -f {family}"));
    let mut ports: Vec<u16> = list
        .lines()
        .filter_map(|line| line.split("sport=").nth(1)?.split(' ').next()?.parse().ok())
        .collect();
    ports.sort();
    ports
}

#[test]
fn all_but_established_tcp_of_the_mark_goes() {
    fresh_network(|state| {
        // Conntrack comes to life in a namespace with the first rule that asks for it.
        run("nft add table inet t");
        run("nft add chain inet t c { type filter hook input priority 0 ; }");
        run("nft add rule inet t c ct state new accept");
        let mut kernel = open(state);
        for family in Family::BOTH {
            flow(family, "", 1, 0x200_0000);
            flow(family, "", 2, 0x200_00ff);
            flow(family, "", 3, 0x300_0000);
            flow(family, "", 4, 0);
            flow(family, "SYN_SENT", 5, 0x200_0000);
            flow(family, "SYN_RECV", 6, 0x200_0000);
            flow(family, "ESTABLISHED", 7, 0x200_0000);
            flow(family, "CLOSE_WAIT", 8, 0x200_0000);
        }
        let deleted = kernel.evacuate(Family::Ipv4, 0x200_0000, 0x7f00_0000);
        assert_eq!(deleted.expect("allowed"), 4);
        assert_eq!(left("ipv4"), [3, 4, 7, 8]);
        assert_eq!(left("ipv6"), [1, 2, 3, 4, 5, 6, 7, 8]);
        let deleted = kernel.evacuate(Family::Ipv6, 0x200_0000, 0x7f00_0000);
        assert_eq!(deleted.expect("allowed"), 4);
        assert_eq!(left("ipv6"), [3, 4, 7, 8]);
        let again = kernel.evacuate(Family::Ipv6, 0x200_0000, 0x7f00_0000);
        assert_eq!(again.expect("allowed"), 0);
    });
}

#[test]
fn of_the_mark_what_nobody_has_answered_is_forgotten() {
    fresh_network(|state| {
        run("nft add table inet t");
        run("nft add chain inet t c { type filter hook input priority 0 ; }");
        run("nft add rule inet t c ct state new accept");
        let mut kernel = open(state);
        for (family, nat) in [(Family::Ipv4, "192.0.2.1"), (Family::Ipv6, "2001:db8:2::1")] {
            let translated = |protocol: &str, port, mark| {
                of_protocol(family, &format!("{protocol} --src-nat {nat}"), port, mark);
            };
            translated("-p udp", 1, 0x200_0000);
            translated("-p tcp --state SYN_SENT", 2, 0x200_00ff);
            translated("-p tcp --state SYN_SENT", 3, 0x300_0000);
            translated("-p tcp --state ESTABLISHED -u SEEN_REPLY", 4, 0x200_0000);
            translated("-p tcp --state SYN_RECV -u SEEN_REPLY", 5, 0x200_0000);
            // From outside, or of a program that bound itself to the WAN's address.
            flow(family, "SYN_SENT", 6, 0x200_0000);
        }
        for (family, name) in [(Family::Ipv4, "ipv4"), (Family::Ipv6, "ipv6")] {
            let deleted = kernel.forget_unanswered(family, 0x200_0000, 0x7f00_0000);
            assert_eq!(deleted.expect("allowed"), 2);
            assert_eq!(left(name), [3, 4, 5, 6]);
        }
    });
}

#[test]
fn thousands_of_flows_go_in_one_call() {
    fresh_network(|state| {
        run("ip address add 192.0.2.1/32 dev lo");
        run("nft add table inet t");
        run("nft add chain inet t c { type filter hook output priority 0 ; }");
        run("nft add rule inet t c meta l4proto udp ct mark set 0x5000001");
        let socket = std::net::UdpSocket::bind("192.0.2.1:0").expect("a socket");
        for port in 1000..6000 {
            // Some ports refuse, which is fine.
            let _ = socket.send_to(b"x", ("192.0.2.1", port));
        }
        let deleted = open(state).evacuate(Family::Ipv4, 0x500_0000, 0x7f00_0000);
        assert_eq!(deleted.expect("allowed"), 5000);
    });
}

#[test]
fn whoever_is_told_of_new_or_changed_flows_is_noticed() {
    fresh_network(|state| {
        let mut kernel = open(state);
        let mut followed = || kernel.observe::<&str>([]).expect("readable").followed;
        assert!(!followed());
        for (group, counts) in [
            (libc::NFNLGRP_CONNTRACK_NEW, true),
            (libc::NFNLGRP_CONNTRACK_UPDATE, true),
            (libc::NFNLGRP_CONNTRACK_DESTROY, false),
        ] {
            let mut socket = Socket::new(NETLINK_NETFILTER).expect("a socket");
            socket.bind_auto().expect("an address");
            socket.add_membership(group.unsigned_abs()).expect("a group");
            assert_eq!(followed(), counts, "group {group}");
            drop(socket);
            assert!(!followed());
        }
    });
}

/// A router of 192.168.1.0/24 whose flows to anywhere else are decided by us alone.
fn router() {
    run("nft add table inet t");
    run("nft add chain inet t c { type filter hook input priority 0 ; }");
    run("nft add rule inet t c ct state new accept");
    for (ip, own, gateway, wan) in [
        ("ip", "192.168.1.1/24", "198.51.100.1", "198.51.100.2/24"),
        ("ip -6", "2001:db8::1/64", "2001:db8:e::1", "2001:db8:e::2/64"),
    ] {
        let nodad = if ip == "ip" { "" } else { "nodad" };
        run(&format!("{ip} address add {own} dev lan {nodad}"));
        run(&format!("{ip} address add {wan} dev wan {nodad}"));
        run(&format!("{ip} route add default via {gateway} dev wan"));
        let mark = "fwmark 0x40000000/0x7f000000";
        run(&format!("{ip} rule add pref 1 {mark} lookup main suppress_prefixlength 0"));
        run(&format!("{ip} rule add pref 2 {mark} unreachable"));
    }
}

#[test]
fn of_untranslated_flows_those_from_a_lan_to_the_internet_are_forgotten() {
    fresh_network(|state| {
        let lan = pair("lan");
        pair("wan");
        router();
        for (client, far, near, nat) in [
            ("192.168.1.5", "203.0.113.9", "198.51.100.7", "198.51.100.2"),
            ("2001:db8::5", "2001:db8:f::9", "2001:db8:e::7", "2001:db8:e::2"),
        ] {
            let flow = |port: u16, from: &str, to: &str, more: &str| {
                let ends = format!("-s {from} -d {to} --sport {port} --dport 443 -t 600");
                run(&format!("conntrack -I {more} {ends}"));
            };
            flow(1, client, far, "-p udp -m 0");
            flow(2, client, far, "-p tcp --state SYN_SENT -m 0x3000001");
            flow(3, client, far, &format!("-p udp --src-nat {nat} -m 0x3000000"));
            flow(4, client, far, "-p udp -m 0x2000000");
            flow(5, client, near, "-p udp -m 0");
            flow(6, nat, far, "-p udp -m 0");
            flow(7, far, client, "-p udp -m 0");
            flow(8, client, far, &format!("-p udp --dst-nat {near} -m 0"));
        }
        let mut kernel = open(state);
        let lans = BTreeSet::from([lan]);
        let right = BTreeSet::from([0x200_0000]);
        for (family, name) in [(Family::Ipv4, "ipv4"), (Family::Ipv6, "ipv6")] {
            let mut forget = || {
                kernel
                    .forget_untranslated(family, &lans, 0x4000_0000, (0x3f00_0000, &right))
                    .expect("allowed")
            };
            assert_eq!(forget(), 2);
            assert_eq!(left(name), [3, 4, 5, 6, 7, 8]);
            assert_eq!(forget(), 0);
        }
    });
}
