//! Deletes the flows that left without source translation while our table was away. In: the marks
//! whose flows must be translated. Out: how many entries were deleted. The next packet of such a
//! flow, and a new flow from the same port, is then treated as what it is: not known yet. Left
//! alone: what has been translated by anybody, the router's own flows, and all whose destination
//! the routing knows without us.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anywan_core::names::{Family, Mark};

use super::super::error::{KernelError, Refused};
use super::super::socket::Conn;
use super::super::wire::{Attribute, Attributes, Writer};
use super::{CHUNK, Entry, GET, NFGENMSG, ROUND, TUPLE_ORIG, delete, entry, header, message_type};

const STATUS: u16 = 3;
const MARK: u16 = 8;
const TUPLE_IP: u16 = 1;
/// `IPS_SRC_NAT | IPS_DST_NAT`.
const TRANSLATED: u32 = 0x30;
/// The length of `struct rtmsg`.
const RTMSG: usize = 12;

/// What the routing knows of an address without our own tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It is the router's own.
    Local,
    /// There is a way to it.
    Route,
    /// Nothing but a default route.
    Nothing,
}

/// Deletes the flows of one family that are not translated, and whose mark under `mask` is one of
/// `marks`. `ask` is the mark under which a look-up stops short of our own tables.
pub(crate) fn delete_untranslated(
    conntrack: &mut Conn,
    route: &mut Conn,
    family: Family,
    (marks, mask): (&[u32], u32),
    ask: Mark,
) -> Result<u64, KernelError> {
    let what = |e: Refused| e.doing(format!("look for untranslated {family} flows"));
    let suspects = gather(conntrack, family, marks, mask).map_err(what)?;
    let mut known = BTreeMap::new();
    let mut look_up = |address: IpAddr| {
        let found = known.entry(address).or_insert_with(|| question(route, family, address, ask));
        *found
    };
    let doomed: Vec<Entry> = suspects
        .into_iter()
        .filter(|(source, destination, _)| {
            look_up(*source) == Known::Route && look_up(*destination) == Known::Nothing
        })
        .map(|(_, _, entry)| entry)
        .collect();
    let mut deleted = 0;
    for chunk in doomed.chunks(CHUNK) {
        deleted += delete(conntrack, family, chunk).map_err(what)?;
    }
    Ok(deleted)
}

/// The untranslated flows of those marks, at most [`ROUND`]: source, destination, entry.
fn gather(
    conn: &mut Conn,
    family: Family,
    marks: &[u32],
    mask: u32,
) -> Result<Vec<(IpAddr, IpAddr, Entry)>, Refused> {
    let mut request =
        Writer::message(message_type(GET), libc::NLM_F_REQUEST as u16, &header(family));
    let mut room = ROUND;
    conn.dump(&mut request, |payload| {
        let suspect = if room > 0 { suspect(payload, marks, mask)? } else { return None };
        room -= 1;
        Some(suspect)
    })
}

fn suspect(payload: &[u8], marks: &[u32], mask: u32) -> Option<(IpAddr, IpAddr, Entry)> {
    let attributes = Attributes::after(payload, NFGENMSG);
    let status = attributes.clone().find(STATUS)?.be32()?;
    let mark = attributes.clone().find(MARK).and_then(Attribute::be32).unwrap_or_default();
    if status & TRANSLATED != 0 || !marks.contains(&(mark & mask)) {
        return None;
    }
    // Source and destination stand first, in either family: 1 and 2, or 3 and 4.
    let ends = attributes.clone().find(TUPLE_ORIG)?.nested().find(TUPLE_IP)?.nested();
    let end = |v4, v6| ends.clone().find(v4).or_else(|| ends.clone().find(v6))?.ip();
    Some((end(1, 3)?, end(2, 4)?, entry(&attributes)?))
}

/// Asks the kernel for the way to an address.
fn question(conn: &mut Conn, family: Family, address: IpAddr, ask: Mark) -> Known {
    let (number, bits) = match family {
        Family::Ipv4 => (libc::AF_INET as u8, 32),
        Family::Ipv6 => (libc::AF_INET6 as u8, 128),
    };
    let header = [number, bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    debug_assert_eq!(header.len(), RTMSG);
    let mut request = Writer::message(libc::RTM_GETROUTE, libc::NLM_F_REQUEST as u16, &header);
    request.put_ip(libc::RTA_DST, address);
    request.put_u32(libc::RTA_MARK, ask.0);
    match conn.ask(request) {
        Ok(answer) if answer.get(7) == Some(&libc::RTN_LOCAL) => Known::Local,
        Ok(answer) if answer.get(7) == Some(&libc::RTN_UNREACHABLE) => Known::Nothing,
        Ok(_) => Known::Route,
        Err(_) => Known::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn random_bytes_never_panic_the_parser(
            bytes in proptest::collection::vec(any::<u8>(), 0..300)
        ) {
            let _ = suspect(&bytes, &[0], 0x3f00_0000);
        }
    }
}
