//! Evacuation.

use anywan_core::names::{Family, Mark};

use crate::net::{fresh_network, open, run};

/// Makes a flow with a port, a mark and, for TCP, a state.
fn flow(family: Family, state: &str, port: u16, mark: u32) {
    let ends = match family {
        Family::Ipv4 => "-s 192.168.1.5 -d 203.0.113.9",
        Family::Ipv6 => "-s 2001:db8::5 -d 2001:db8:f::9",
    };
    let protocol =
        if state.is_empty() { "-p udp".to_owned() } else { format!("-p tcp --state {state}") };
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
fn only_lan_flows_to_the_world_that_are_not_translated_are_deleted() {
    fresh_network(|state| {
        run("nft add table inet t");
        run("nft add chain inet t c { type filter hook input priority 0 ; }");
        run("nft add rule inet t c ct state new accept");
        run("ip link add lan type veth peer name host");
        run("ip address add 192.168.1.1/24 dev lan");
        run("ip address add 2001:db8::1/64 dev lan nodad");
        for link in ["lan", "host"] {
            run(&format!("ip link set {link} up"));
        }
        run("ip route add 198.18.0.0/15 via 192.168.1.2");
        let insert = |ends: &str, port: u16, mark: u32, more: &str| {
            let ports = format!("-p udp --sport {port} --dport 443 -t 600 -m {mark}");
            run(&format!("conntrack -I {ends} {ports} {more}"));
        };
        let outward = "-s 192.168.1.5 -d 203.0.113.9";
        insert(outward, 1, 0, "");
        insert(outward, 2, 0x100_0000, "");
        insert(outward, 3, 0x200_0000, "");
        insert(outward, 4, 0, "--src-nat 192.0.2.1");
        insert("-s 192.168.1.1 -d 203.0.113.9", 5, 0, "");
        insert("-s 192.168.1.5 -d 198.18.0.9", 6, 0, "");
        insert("-s 203.0.113.9 -d 192.168.1.5", 7, 0x100_0000, "");
        insert("-s 2001:db8::5 -d 2001:db8:f::9", 8, 0, "");
        let mut kernel = open(state);
        let marks = (&[0, 0x100_0000][..], 0x3f00_0000);
        let mut delete =
            |family| kernel.delete_untranslated(family, marks, Mark(0x4000_0000)).expect("allowed");
        assert_eq!(delete(Family::Ipv4), 2);
        assert_eq!(left("ipv4"), [3, 4, 5, 6, 7]);
        assert_eq!(delete(Family::Ipv6), 1);
        assert_eq!(left("ipv6"), [] as [u16; 0]);
        assert_eq!(delete(Family::Ipv4), 0);
    });
}
