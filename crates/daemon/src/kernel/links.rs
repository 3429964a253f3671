//! Reads network interfaces, their addresses and neighbours. In: a socket. Out: the plain values
//! of `anywan_core::observed`. Refuses nothing: what it does not understand it leaves out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anywan_core::names::{IfIndex, Mac};
use anywan_core::observed::{Address, Link, Neighbour};

use super::error::{KernelError, Refused};
use super::socket::Conn;
use super::wire::{Attribute, Attributes, Writer, u16_at, u32_at};

/// The length of `struct ifinfomsg`.
const IFINFO: usize = 16;
/// The length of `struct ifaddrmsg`.
const IFADDR: usize = 8;
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
        mtu: attributes.find(libc::IFLA_MTU).and_then(Attribute::u32).unwrap_or(0),
    };
    Some((index, link))
}

/// Dumps the addresses of both families.
pub(crate) fn read_addresses(conn: &mut Conn) -> Result<BTreeSet<Address>, KernelError> {
    let mut request = Writer::message(libc::RTM_GETADDR, libc::NLM_F_REQUEST as u16, &[0; IFADDR]);
    let found = conn.dump(&mut request, address).map_err(|e| e.doing("read the addresses"))?;
    Ok(found.into_iter().collect())
}

pub(crate) fn address(payload: &[u8]) -> Option<Address> {
    let prefix = *payload.get(1)?;
    let scope = *payload.get(3)?;
    let device = IfIndex(u32_at(payload, 4)?);
    let attributes = Attributes::after(payload, IFADDR);
    let ip = |kind| attributes.clone().find(kind).and_then(Attribute::ip);
    let (local, far) = (ip(libc::IFA_LOCAL), ip(libc::IFA_ADDRESS));
    let address = local.or(far)?;
    let flags = match attributes.clone().find(libc::IFA_FLAGS).and_then(Attribute::u32) {
        Some(flags) => flags,
        None => u32::from(*payload.get(2)?),
    };
    // An optimistic address (RFC 4429) is tentative, and usable nevertheless.
    let tentative = flags & libc::IFA_F_TENTATIVE != 0 && flags & libc::IFA_F_OPTIMISTIC == 0;
    let failed = flags & libc::IFA_F_DADFAILED != 0;
    Some(Address {
        device,
        address,
        prefix,
        peer: far.filter(|far| *far != address),
        global: scope == libc::RT_SCOPE_UNIVERSE && !tentative && !failed,
        deprecated: flags & libc::IFA_F_DEPRECATED != 0,
    })
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
