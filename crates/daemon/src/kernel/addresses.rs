//! Reads, puts and deletes addresses. In: a socket, core's [`OwnAddress`], the present moment. Out:
//! core's [`Address`].
//!
//! Ours carry our protocol number (`IFA_PROTO`, Linux 5.18). The kernel tells lifetimes as seconds
//! that are left; they become moments here, right to a second or two. It counts them by a clock that
//! stands still while the machine is suspended.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anywan_core::names::{IfIndex, PROTOCOL};
use anywan_core::observed::{Address, OwnAddress};
use anywan_core::time::Moment;

use super::error::{KernelError, Refused};
use super::socket::Conn;
use super::wire::{Attribute, Attributes, Writer, u32_at};

/// The length of `struct ifaddrmsg`.
const IFADDR: usize = 8;
/// Who put an address there.
const IFA_PROTO: u16 = 11;
/// Seconds that mean for ever.
const FOREVER: u32 = u32::MAX;

/// Dumps the addresses of both families.
pub(crate) fn read(conn: &mut Conn, now: Moment) -> Result<BTreeSet<Address>, KernelError> {
    let mut request = Writer::message(libc::RTM_GETADDR, libc::NLM_F_REQUEST as u16, &[0; IFADDR]);
    let found = conn.dump(&mut request, |payload| address(payload, now));
    Ok(found.map_err(|e| e.doing("read the addresses"))?.into_iter().collect())
}

pub(crate) fn address(payload: &[u8], now: Moment) -> Option<Address> {
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
    let proto = attributes.clone().find(IFA_PROTO).and_then(|a| a.value.first().copied());
    // `struct ifa_cacheinfo`: preferred, then valid.
    let valid = attributes.find(libc::IFA_CACHEINFO).and_then(|a| u32_at(a.value, 4));
    let seconds = valid.filter(|seconds| *seconds != FOREVER);
    Some(Address {
        device,
        address,
        prefix,
        peer: far.filter(|far| *far != address),
        global: scope == libc::RT_SCOPE_UNIVERSE && !tentative && !failed,
        deprecated: flags & libc::IFA_F_DEPRECATED != 0,
        ours: proto == Some(PROTOCOL),
        until: seconds.map(|seconds| now + Duration::from_secs(seconds.into())),
    })
}

/// Adds an address of ours, or gives it other lifetimes.
pub(crate) fn put(conn: &mut Conn, own: &OwnAddress, now: Moment) -> Result<(), KernelError> {
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let mut request = message(libc::RTM_NEWADDR, flags as u16, own);
    let seconds = own.until.map_or(FOREVER, |until| {
        // Never 0, which the kernel refuses: then it goes by itself in a second.
        u32::try_from(until.since(now).as_secs()).unwrap_or(FOREVER).max(1)
    });
    let mut lifetimes = [0; 16];
    lifetimes[..4].copy_from_slice(&seconds.to_ne_bytes());
    lifetimes[4..8].copy_from_slice(&seconds.to_ne_bytes());
    request.put(libc::IFA_CACHEINFO, &lifetimes);
    request.put(IFA_PROTO, &[PROTOCOL]);
    if let IpAddr::V4(address) = own.address {
        let broadcast = ipnet::Ipv4Net::new(address, own.prefix).ok().filter(|_| own.prefix < 31);
        if let Some(net) = broadcast {
            request.put_ip(libc::IFA_BROADCAST, net.broadcast().into());
        }
    }
    conn.change(request).map_err(|e| e.doing(format!("put {own}")))
}

/// Deletes an address of ours; it is fine when it is not there.
pub(crate) fn delete(conn: &mut Conn, own: &OwnAddress) -> Result<(), KernelError> {
    let request = message(libc::RTM_DELADDR, libc::NLM_F_REQUEST as u16, own);
    match conn.change(request) {
        Err(e) if is_gone(&e) => Ok(()),
        done => done.map_err(|e| e.doing(format!("delete {own}"))),
    }
}

fn is_gone(refused: &Refused) -> bool {
    [libc::EADDRNOTAVAIL, libc::ENODEV].contains(&refused.errno().unwrap_or(0))
}

fn message(kind: u16, flags: u16, own: &OwnAddress) -> Writer {
    let (family, scope) = match own.address {
        IpAddr::V4(_) => (libc::AF_INET, libc::RT_SCOPE_UNIVERSE),
        IpAddr::V6(_) => (libc::AF_INET6, libc::RT_SCOPE_UNIVERSE),
    };
    let mut header = [family as u8, own.prefix, 0, scope, 0, 0, 0, 0];
    header[4..].copy_from_slice(&own.device.0.to_ne_bytes());
    let mut message = Writer::message(kind, flags, &header);
    message.put_ip(libc::IFA_LOCAL, own.address);
    message.put_ip(libc::IFA_ADDRESS, own.address);
    message
}
