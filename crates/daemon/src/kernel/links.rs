//! Reads network interfaces and neighbours, and sets an interface up. In: a socket. Out: the plain values
//! of `anywan_core::observed`. Refuses nothing: what it does not understand it leaves out.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anywan_core::names::{IfIndex, Mac};
use anywan_core::observed::{Link, Neighbour};

use super::error::{KernelError, Refused};
use super::socket::Conn;
use super::wire::{Attribute, Attributes, Writer, u16_at, u32_at};

/// The length of `struct ifinfomsg`.
const IFINFO: usize = 16;
/// The device on its bus, since Linux 5.14.
const IFLA_PARENT_DEV_NAME: u16 = 56;
/// The length of `struct ndmsg`.
const NDMSG: usize = 12;

/// Dumps the links, without their statistics.
pub(crate) fn read_links(conn: &mut Conn) -> Result<BTreeMap<IfIndex, Link>, KernelError> {
    let mut request = Writer::message(libc::RTM_GETLINK, libc::NLM_F_REQUEST as u16, &[0; IFINFO]);
    request.put_u32(libc::IFLA_EXT_MASK, libc::RTEXT_FILTER_SKIP_STATS as u32);
    let links = conn.dump(&mut request, link).map_err(|e| e.doing("read the links"))?;
    Ok(links.into_iter().collect())
}

pub(crate) fn link(payload: &[u8]) -> Option<(IfIndex, Link)> {
    let index = IfIndex(u32_at(payload, 4)?);
    let flags = u32_at(payload, 8)?;
    let attributes = Attributes::after(payload, IFINFO);
    let has = |flag: i32| flags & flag as u32 != 0;
    let link = Link {
        name: attributes.clone().find(libc::IFLA_IFNAME)?.text(),
        up: has(libc::IFF_UP),
        carrier: has(libc::IFF_LOWER_UP),
        point_to_point: has(libc::IFF_POINTOPOINT),
        mtu: attributes.clone().find(libc::IFLA_MTU).and_then(Attribute::u32).unwrap_or(0),
        mac: attributes.clone().find(libc::IFLA_ADDRESS).and_then(|a| mac(a.value)),
        parent: attributes.find(IFLA_PARENT_DEV_NAME).map(Attribute::text),
        // Another question; see `drivers`.
        driver: None,
    };
    Some((index, link))
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    // An interface without hardware addresses (ppp, tun, lo) has none, or zeros.
    <[u8; 6]>::try_from(bytes).ok().filter(|bytes| *bytes != [0; 6]).map(Mac)
}

/// Sets an interface up; nothing else about it is changed.
pub(crate) fn set_up(conn: &mut Conn, device: IfIndex) -> Result<(), KernelError> {
    let mut header = [0; IFINFO];
    header[4..8].copy_from_slice(&device.0.to_ne_bytes());
    header[8..12].copy_from_slice(&(libc::IFF_UP as u32).to_ne_bytes());
    header[12..].copy_from_slice(&(libc::IFF_UP as u32).to_ne_bytes());
    let request = Writer::message(libc::RTM_NEWLINK, libc::NLM_F_REQUEST as u16, &header);
    conn.change(request).map_err(|e| e.doing(format!("set interface {} up", device.0)))
}

/// Dumps the neighbours of both families that have an Ethernet address, except FAILED ones and
/// those that need no resolution (multicast).
pub(crate) fn read_neighbours(conn: &mut Conn) -> Result<BTreeMap<Neighbour, Mac>, KernelError> {
    let mut request = Writer::message(libc::RTM_GETNEIGH, libc::NLM_F_REQUEST as u16, &[0; NDMSG]);
    let found: Result<Vec<_>, Refused> = conn.dump(&mut request, |payload| {
        let (neighbour, mac) = neighbour(payload)?;
        mac.map(|mac| (neighbour, mac))
    });
    Ok(found.map_err(|e| e.doing("read the neighbours"))?.into_iter().collect())
}

/// A neighbour message: whose it is, and the hardware address by which it can be reached, if any.
pub(crate) fn neighbour(payload: &[u8]) -> Option<(Neighbour, Option<Mac>)> {
    let device = IfIndex(u32_at(payload, 4)?);
    let state = u16_at(payload, 8)?;
    let attributes = Attributes::after(payload, NDMSG);
    let address: IpAddr = attributes.clone().find(libc::NDA_DST)?.ip()?;
    let usable = state & (libc::NUD_FAILED | libc::NUD_NOARP | libc::NUD_INCOMPLETE) == 0;
    let mac = attributes.find(libc::NDA_LLADDR).and_then(|a| <[u8; 6]>::try_from(a.value).ok());
    Some((Neighbour { device, address }, mac.map(Mac).filter(|_| usable)))
}
