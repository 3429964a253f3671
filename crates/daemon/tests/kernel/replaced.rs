//! Our table is replaced while traffic flows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anywan_core::names::Family;

use crate::hosts::{our_table, routed, server};
use crate::net::run;

/// How often the table is replaced. Without the interim chains a packet or two slips through each
/// time. More would only take from other tests what they need of the processors.
const TIMES: u32 = 10;

/// Begins flow after flow, each with one datagram, until told to stop.
fn begin_flows(family: Family, stop: &AtomicBool) {
    let any: IpAddr = match family {
        Family::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    while !stop.load(Ordering::Relaxed) {
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).expect("a free port");
        // Its queue may be full.
        let _ = socket.send_to(b"?", server(family));
    }
}

/// Packets that rules have counted so far, by the rules' comments.
fn counted(comment: &str) -> u64 {
    let listing = run("nft list chain inet watch out");
    let line = listing.lines().find(|line| line.contains(comment)).expect("such a rule");
    let count = line.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
    count.and_then(|count| count.parse().ok()).expect("a counter")
}

#[test]
fn no_packet_slips_through_unmarked_or_untranslated() {
    routed(|kernel, hosts, _| {
        hosts.internet.run(
            "nft add table inet fw
            nft add chain inet fw in { type filter hook prerouting priority raw ; }
            nft add rule inet fw in meta l4proto udp drop",
        );
        run("sysctl -qw net.netfilter.nf_conntrack_udp_timeout=1");
        run("nft add table inet watch");
        run("nft add chain inet watch out { type filter hook postrouting priority 300 ; }");
        for (rule, comment) in [
            ("meta mark & 0x7f000000 == 0 counter", "unmarked"),
            ("ip saddr 192.168.1.0/24 counter", "untranslated4"),
            ("ip6 saddr 2001:db8:1::/64 counter", "untranslated6"),
            ("meta nfproto ipv4 counter", "all4"),
            ("meta nfproto ipv6 counter", "all6"),
        ] {
            let which = "iif lan0 oif wan0";
            run(&format!("nft add rule inet watch out {which} {rule} comment {comment}"));
        }
        let stop = Arc::new(AtomicBool::new(false));
        thread::scope(|scope| {
            let load = Arc::clone(&stop);
            scope.spawn(move || {
                hosts.client.inside(move || {
                    thread::scope(|scope| {
                        for family in Family::BOTH {
                            let stop = &load;
                            scope.spawn(move || begin_flows(family, stop));
                        }
                    });
                });
            });
            for _ in 0..TIMES {
                kernel.apply(&our_table()).expect("it loads");
            }
            stop.store(true, Ordering::Relaxed);
        });
        for all in ["all4", "all6"] {
            assert!(counted(all) > 100, "too few packets: {}", counted(all));
        }
        let slipped = ["unmarked", "untranslated4", "untranslated6"].map(counted);
        assert_eq!(slipped, [0, 0, 0]);
    });
}
