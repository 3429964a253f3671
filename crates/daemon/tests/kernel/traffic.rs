//! The counters count what flows carry, and nothing else.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::UdpSocket;

use anywan_core::names::{Family, WanId};
use anywan_core::observed::{Structure, Traffic};

use crate::hosts::{DEADLINE, Hosts, PINNED, connections, routed, server};
use crate::net::{fresh_network, open};

type Seen = BTreeMap<(WanId, Family), Traffic>;

fn udp(bind: std::net::SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(bind).expect("free");
    socket.set_read_timeout(Some(DEADLINE)).expect("not zero");
    socket
}

/// Sends a packet and waits until it is there, and the same back.
fn exchange(near: &UdpSocket, far: &UdpSocket, family: Family) {
    near.send_to(b"?", server(family)).expect("a way");
    let (_, from) = far.recv_from(&mut [0; 9]).expect("it arrives");
    far.send_to(b"!", from).expect("a way");
    near.recv_from(&mut [0; 9]).expect("it arrives");
}

/// Sockets of the client or, without, of the router, and of the server.
fn sockets(hosts: &Hosts, family: Family, of_client: bool) -> (UdpSocket, UdpSocket) {
    let far = hosts.internet.inside(move || udp(server(family)));
    let any = match family {
        Family::Ipv4 => "0.0.0.0:0",
        Family::Ipv6 => "[::]:0",
    };
    let any = any.parse().expect("an address");
    let near = if of_client { hosts.client.inside(move || udp(any)) } else { udp(any) };
    (near, far)
}

#[test]
fn every_packet_of_a_flow_is_counted_once_by_way_and_family() {
    routed(|kernel, hosts, _| {
        let start = kernel.traffic().expect("readable");
        let none: Seen =
            Family::BOTH.into_iter().map(|f| ((WanId(1), f), Traffic::default())).collect();
        assert_eq!(start, none);
        for (family, count) in [(Family::Ipv4, 3), (Family::Ipv6, 5)] {
            let (near, far) = sockets(hosts, family, true);
            for _ in 0..count {
                exchange(&near, &far, family);
            }
            let traffic = kernel.traffic().expect("readable")[&(WanId(1), family)];
            assert_eq!(traffic, Traffic { out: count, back: count }, "{family}");
        }
        let before = kernel.traffic().expect("readable");
        let mut pairs = connections(hosts, Family::Ipv4, 1);
        let (near, far) = &mut pairs[0];
        near.write_all(b"?").expect("open");
        far.read_exact(&mut [0]).expect("it arrives");
        let after = kernel.traffic().expect("readable");
        let key = (WanId(1), Family::Ipv4);
        // SYN, ACK and data; SYN with ACK and perhaps an ACK.
        assert!(after[&key].out >= before[&key].out + 3, "{after:?}");
        assert!(after[&key].back > before[&key].back, "{after:?}");
        assert!(matches!(kernel.nft().expect("readable").structure, Structure::Intact(_)));
        let whole = kernel.observe(["net/ipv4/ip_forward"]).expect("readable");
        assert!(matches!(whole.nft.structure, Structure::Intact(_)), "counting is no drift");
    });
}

#[test]
fn probes_and_scans_are_not_counted_and_probes_not_pinned() {
    routed(|kernel, hosts, _| {
        let before = kernel.traffic().expect("readable");
        for family in Family::BOTH {
            let (near, far) = sockets(hosts, family, false);
            socket2::SockRef::from(&near).set_mark(PINNED).expect("root");
            for _ in 0..3 {
                exchange(&near, &far, family);
            }
        }
        assert_eq!(kernel.traffic().expect("readable"), before);
        assert_eq!(kernel.count_flows(PINNED, 0x3f00_0000).expect("readable"), 0);
        // Nobody listens there, and the router says so.
        let scan = hosts.internet.inside(|| {
            let scan = udp("198.51.100.1:0".parse().expect("an address"));
            scan.connect("198.51.100.2:9").expect("a way");
            scan.send(b"x").expect("sent");
            scan.recv(&mut [0; 9]).map_err(|error| error.kind())
        });
        assert_eq!(scan, Err(std::io::ErrorKind::ConnectionRefused));
        assert_eq!(kernel.traffic().expect("readable"), before);
    });
}

#[test]
fn the_routers_own_flows_are_counted() {
    routed(|kernel, hosts, _| {
        for family in Family::BOTH {
            let (near, far) = sockets(hosts, family, false);
            for _ in 0..4 {
                exchange(&near, &far, family);
            }
            let traffic = kernel.traffic().expect("readable")[&(WanId(1), family)];
            assert_eq!(traffic, Traffic { out: 4, back: 4 }, "{family}");
        }
    });
}

#[test]
fn without_a_table_nothing_is_counted() {
    fresh_network(|state| assert_eq!(open(state).traffic().expect("readable"), Seen::new()));
}
