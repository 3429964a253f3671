//! Resolvers that routers announce: reads them off the kernel's copies of options of router
//! advertisements (`RTM_NEWNDUSEROPT`), and asks routers to announce themselves now. The kernel hands
//! on only what it accepts (`accept_ra`), from link-local senders; it keeps nothing of it. Texts come
//! from strangers: reading never panics, and finds no more than the bytes hold.

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::Duration;

use anywan_core::names::IfIndex;
use socket2::{Domain, Protocol, Socket, Type};

use super::wire::{u16_at, u32_at};

/// The length of `struct nduseroptmsg`.
const HEADER: usize = 16;
/// ICMPv6 router advertisement and solicitation (RFC 4861).
const ADVERTISEMENT: u8 = 134;
const SOLICITATION: u8 = 133;
/// The option of recursive DNS servers (RFC 8106, 5.1).
const RDNSS: u8 = 25;
/// Seconds that mean for ever.
const FOREVER: u32 = u32::MAX;
/// The group of all routers on a link.
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// Resolvers announced on one link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// The link.
    pub device: IfIndex,
    /// The resolvers.
    pub resolvers: Vec<Ipv6Addr>,
    /// For how long they hold; `None`: for ever.
    pub lives: Option<Duration>,
}

/// The resolvers in one message; those of its options that are not about resolvers are none.
pub(crate) fn announced(payload: &[u8]) -> Vec<Announced> {
    let family = payload.first().copied().map(libc::c_int::from);
    let device = u32_at(payload, 4).map(IfIndex);
    let (Some(device), Some(length)) = (device, u16_at(payload, 2)) else { return Vec::new() };
    if family != Some(libc::AF_INET6) || payload.get(8) != Some(&ADVERTISEMENT) {
        return Vec::new();
    }
    let mut rest = payload.get(HEADER..).unwrap_or_default();
    rest = &rest[..rest.len().min(usize::from(length))];
    let mut found = Vec::new();
    // An option says its length in units of eight bytes, of which it has one at least.
    while let [kind, units, ..] = *rest {
        let Some((option, more)) = rest.split_at_checked(usize::from(units) * 8) else { break };
        if units == 0 {
            break;
        }
        if kind == RDNSS {
            found.extend(servers(device, option));
        }
        rest = more;
    }
    found
}

fn servers(device: IfIndex, option: &[u8]) -> Option<Announced> {
    let seconds = u32::from_be_bytes(option.get(4..8)?.try_into().ok()?);
    let addresses = option.get(8..)?.chunks_exact(16);
    if !addresses.remainder().is_empty() {
        return None;
    }
    let address = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).ok().map(Ipv6Addr::from);
    let resolvers: Vec<Ipv6Addr> = addresses.filter_map(address).collect();
    let lives = (seconds != FOREVER).then(|| Duration::from_secs(seconds.into()));
    (!resolvers.is_empty()).then_some(Announced { device, resolvers, lives })
}

/// Asks the routers on a link to announce themselves; the kernel hears what they say.
pub(crate) fn solicit(device: IfIndex) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.set_nonblocking(true)?;
    // Whoever gets it with less takes it for a stranger's.
    socket.set_multicast_hops_v6(255)?;
    socket.set_multicast_if_v6(device.0)?;
    // The kernel puts the checksum in.
    let message = [SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    socket.send_to(&message, &SocketAddrV6::new(ALL_ROUTERS, 0, 0, device.0).into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Linux 6.18 said of an advertisement of dnsmasq's: one option, then the sender.
    fn message(option: &[u8]) -> Vec<u8> {
        let length = u16::try_from(option.len()).expect("short").to_ne_bytes();
        let mut bytes = vec![10, 0, length[0], length[1], 7, 0, 0, 0, 134, 0, 0, 0, 0, 0, 0, 0];
        bytes[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        bytes.extend(option);
        bytes.extend([20, 0, 1, 0]);
        bytes.extend(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).octets());
        bytes
    }

    fn option(units: u8, seconds: u32, addresses: &[Ipv6Addr]) -> Vec<u8> {
        let mut bytes = vec![RDNSS, units, 0, 0];
        bytes.extend(seconds.to_be_bytes());
        bytes.extend(addresses.iter().flat_map(Ipv6Addr::octets));
        bytes
    }

    fn ip(last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)
    }

    #[test]
    fn resolvers_and_their_lifetimes_are_read() {
        for (seconds, lives) in
            [(600, Some(Duration::from_secs(600))), (0, Some(Duration::ZERO)), (FOREVER, None)]
        {
            let found = announced(&message(&option(5, seconds, &[ip(1), ip(2)])));
            let resolvers = vec![ip(1), ip(2)];
            assert_eq!(found, [Announced { device: IfIndex(7), resolvers, lives }]);
        }
        // Behind an option of another kind.
        let both = [&[31, 1, 0, 0, 0, 0, 0, 0][..], &option(3, 9, &[ip(3)])].concat();
        assert_eq!(announced(&message(&both))[0].resolvers, [ip(3)]);
    }

    #[test]
    fn what_is_cut_or_no_announcement_says_nothing() {
        let whole = message(&option(3, 600, &[ip(1)]));
        for length in 0..HEADER + 24 {
            assert_eq!(announced(&whole[..length]), [], "{length} bytes");
        }
        for (units, addresses) in [(0, 1), (1, 0), (2, 1), (4, 1), (255, 1)] {
            let addresses = vec![ip(1); addresses];
            assert_eq!(announced(&message(&option(units, 600, &addresses))), [], "{units}");
        }
        let mut other = whole.clone();
        other[8] = 135;
        assert_eq!(announced(&other), [], "another message of neighbour discovery");
        let mut other = whole;
        other[0] = 2;
        assert_eq!(announced(&other), [], "another family");
    }
}
