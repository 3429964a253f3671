//! Ethernet frames around DHCP messages and ARP questions. In: values and frames. Out: the same.
//! A frame that is cut off, spoilt or not for us is nothing.

use std::net::Ipv4Addr;

use anywan_core::names::Mac;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: usize = 8;
const ARP: usize = 28;
const EVERYBODY: Mac = Mac([0xff; 6]);
const CLIENT: u16 = 68;
const SERVER: u16 = 67;
/// Network control (RFC 2474), as other clients mark it.
const TOS: u8 = 0xc0;
/// ARP over Ethernet for IPv4.
const ARP_HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// Somebody who said by ARP what he has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The address.
    pub address: Ipv4Addr,
    /// Who.
    pub mac: Mac,
}

/// A frame with a client's message. `to` is `None` for everybody.
pub fn to_server(
    message: &[u8],
    mac: Mac,
    own: Option<Ipv4Addr>,
    to: Option<(Ipv4Addr, Mac)>,
) -> Vec<u8> {
    let (address, hardware) = to.unwrap_or((Ipv4Addr::BROADCAST, EVERYBODY));
    let own = own.unwrap_or(Ipv4Addr::UNSPECIFIED);
    // Messages are some 300 bytes.
    let length = |extra: usize| u16::try_from(message.len() + extra).unwrap_or(u16::MAX);
    let mut frame = [&hardware.0[..], &mac.0, &[8, 0]].concat();
    let mut ip = [0; IPV4];
    ip[..2].copy_from_slice(&[0x45, TOS]);
    ip[2..4].copy_from_slice(&length(IPV4 + UDP).to_be_bytes());
    ip[8..10].copy_from_slice(&[64, 17]);
    ip[12..16].copy_from_slice(&own.octets());
    ip[16..].copy_from_slice(&address.octets());
    let check = !folded(sum(&ip));
    ip[10..12].copy_from_slice(&check.to_be_bytes());
    let mut udp = Vec::with_capacity(UDP + message.len());
    udp.extend(CLIENT.to_be_bytes());
    udp.extend(SERVER.to_be_bytes());
    udp.extend(length(UDP).to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(message);
    let check = !folded(pseudo(&ip, udp.len()) + sum(&udp));
    // 0 would mean that there is none.
    let check = if check == 0 { u16::MAX } else { check };
    udp[6..8].copy_from_slice(&check.to_be_bytes());
    frame.extend(ip);
    frame.extend(udp);
    frame
}

/// What a server's frame carries, and the hardware address that it comes from.
pub fn from_server(frame: &[u8]) -> Option<(&[u8], Mac)> {
    let (head, packet) = frame.split_first_chunk::<ETHERNET>()?;
    let via = Mac(*head[6..].first_chunk()?);
    let header_length = usize::from(packet.first()? & 0xf) * 4;
    let header = packet.get(..header_length).filter(|h| h.len() >= IPV4 && h[0] >> 4 == 4)?;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
    let wrong = fragment != 0 || header[9] != 17 || folded(sum(header)) != u16::MAX;
    let udp = packet.get(header_length..total).filter(|_| !wrong)?;
    let (udp_head, _) = udp.split_first_chunk::<UDP>()?;
    let field = |at: usize| u16::from_be_bytes([udp_head[at], udp_head[at + 1]]);
    let udp = udp.get(..usize::from(field(4)))?;
    let message = udp.get(UDP..)?;
    let is_whole = match field(6) {
        0 => true,
        // What has come over no wire yet (a veth) has only the sum of the header that is none, for
        // hardware to go on with.
        given if given == folded(pseudo(header, udp.len())) => true,
        _ => folded(pseudo(header, udp.len()) + sum(udp)) == u16::MAX,
    };
    (field(2) == CLIENT && is_whole).then_some((message, via))
}

/// A frame that asks who has an address, and claims nothing (RFC 5227).
pub fn who_has(address: Ipv4Addr, mac: Mac) -> Vec<u8> {
    let mut frame = [&EVERYBODY.0[..], &mac.0, &[8, 6], &ARP_HEAD, &[0, 1], &mac.0].concat();
    frame.extend([0; 4]);
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}

/// Who, other than us, has an address, or is about to take it.
pub fn owner(frame: &[u8], own: Mac) -> Option<Owner> {
    let arp = frame.get(ETHERNET..ETHERNET + ARP).filter(|arp| arp[..6] == ARP_HEAD)?;
    let mac = Mac(*arp[8..].first_chunk()?);
    let [sender, target] = [14, 24].map(|at| Ipv4Addr::from([0, 1, 2, 3].map(|n| arp[at + n])));
    let address = if sender.is_unspecified() { target } else { sender };
    (mac != own && !address.is_unspecified()).then_some(Owner { address, mac })
}

/// The sum over IPv4's addresses, the protocol and the length that UDP's checksum begins with.
fn pseudo(header: &[u8], length: usize) -> u32 {
    sum(&header[12..20]) + 17 + u32::try_from(length).unwrap_or(0)
}

fn sum(bytes: &[u8]) -> u32 {
    let pair = |pair: &[u8]| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    };
    bytes.chunks(2).map(pair).sum()
}

fn folded(sum: u32) -> u16 {
    let once = (sum >> 16) + (sum & 0xffff);
    u16::try_from((once >> 16) + (once & 0xffff)).unwrap_or(u16::MAX)
}
