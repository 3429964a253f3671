//! Addresses: from a [`Spec`] to who has which. Pure.
//!
//! WAN with subnet k: 192.168.(100+k).0/24 and 2001:db8:k::/64, gateway .1. The LAN is
//! 10.1.0.0/24 and fd00:1::/64 with the router at .1; one-armed it is the first WAN's subnet with
//! the router at that WAN's own address. The internet: 198.51.100.0/24 and 2001:db8:ff::/64.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Family, Leg, Spec, Wan};

/// The servers' addresses for clients: .10 to .13 and ::10 to ::13.
pub const SERVERS: [(Ipv4Addr, Ipv6Addr); 4] = [server(10), server(11), server(12), server(13)];

/// More of the same servers' addresses, kept for probes, so that ISPs can tell those apart: .20,
/// .21 and ::20, ::21.
pub const TARGETS: [(Ipv4Addr, Ipv6Addr); 2] = [server(20), server(21)];

const fn server(host: u8) -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::new(198, 51, 100, host), internet6(host as u16 / 10 * 0x10 + host as u16 % 10))
}

const fn internet6(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, host)
}

fn subnet4(subnet: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 100 + subnet, host)
}

fn subnet6(subnet: u8, host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, u16::from(subnet), 0, 0, 0, 0, u16::from(host))
}

/// The address of the ISP of WAN `number` on the internet.
fn outside(number: u8) -> (Ipv4Addr, Ipv6Addr) {
    let host = 100 + number;
    (Ipv4Addr::new(198, 51, 100, host), internet6(0x100 + u16::from(number)))
}

pub(super) fn wans(spec: &Spec) -> Vec<Wan> {
    let mut wans = Vec::new();
    for (number, asked) in (1u8..).zip(&spec.wans) {
        let shared = spec.one_armed && number == 1;
        let v4 = Leg {
            own: subnet4(asked.subnet, asked.host),
            gateway: subnet4(asked.subnet, 1),
            prefix: 24,
        };
        let v6 = Leg {
            own: subnet6(asked.subnet, asked.host),
            gateway: subnet6(asked.subnet, 1),
            prefix: 64,
        };
        wans.push(Wan {
            number: number.into(),
            name: format!("wan{number}"),
            interface: if shared { "eth0".to_owned() } else { format!("w{number}") },
            shared,
            spec: asked.clone(),
            v4: asked.families.has(Family::V4).then_some(v4),
            v6: asked.families.has(Family::V6).then_some(v6),
            outside: outside(number),
        });
    }
    wans
}

pub(super) fn directory(wans: &[Wan]) -> BTreeMap<IpAddr, usize> {
    let both = |wan: &Wan| Family::BOTH.map(|family| (wan.outside(family), wan.number));
    wans.iter().flat_map(both).collect()
}

fn lan_host(spec: &Spec, family: Family, host: u8) -> IpAddr {
    let first = spec.wans[0].subnet;
    match (spec.one_armed, family) {
        (true, Family::V4) => subnet4(first, host).into(),
        (true, Family::V6) => subnet6(first, host).into(),
        (false, Family::V4) => Ipv4Addr::new(10, 1, 0, host).into(),
        (false, Family::V6) => Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, u16::from(host)).into(),
    }
}

pub(super) fn lan_router(spec: &Spec, family: Family) -> IpAddr {
    lan_host(spec, family, if spec.one_armed { spec.wans[0].host } else { 1 })
}

/// Address `at` (from 0) of LAN client `number` (from 1).
///
/// # Panics
/// If the LAN's /24 has no room for it.
pub fn client_address(spec: &Spec, number: usize, at: u8, family: Family) -> IpAddr {
    let host = 10 + (number - 1) * usize::from(spec.client_addresses) + usize::from(at);
    let host = u8::try_from(host).ok().filter(|host| *host < 250);
    lan_host(spec, family, host.expect("fewer than 240 client addresses in all"))
}
