//! Finds and deletes the flows of a WAN that works, but is to be left. In: a mark, and the router's
//! own addresses. Out: entries, and the TCP flows among them. Left alone: what is not translated (a
//! program on the router that is bound to the WAN's address), what came from outside (its
//! destination is the router's own), and TCP that is just beginning or ending.

use std::net::IpAddr;

use anywan_core::names::Family;
use anywan_core::observed::TcpFlow;

use super::super::error::{KernelError, Refused};
use super::super::socket::Conn;
use super::super::wire::{Attribute, Attributes, Writer};
use super::{
    CHUNK, Entry, GET, MARK, MARK_MASK, NFGENMSG, PROTO_NUM, ROUND, SOURCE_TRANSLATED, STATUS,
    TUPLE_ORIG, TUPLE_PROTO, delete, header, message_type, named, waiting,
};

const TUPLE_IP: u16 = 1;
/// Destinations in `TUPLE_IP`, IPv4 and IPv6.
const IP_DESTINATION: [u16; 2] = [2, 4];

/// A flow that is to go; with its ends where these must be told.
pub(crate) type Lingering = (Entry, Option<TcpFlow>);

/// The flows of one family that have lingered, at most [`ROUND`].
pub(crate) fn lingering(
    conn: &mut Conn,
    family: Family,
    (mark, mask): (u32, u32),
    own: &[IpAddr],
) -> Result<Vec<Lingering>, KernelError> {
    let mut request =
        Writer::message(message_type(GET), libc::NLM_F_REQUEST as u16, &header(family));
    request.put_be32(MARK, mark);
    request.put_be32(MARK_MASK, mask);
    let mut room = ROUND;
    conn.dump(&mut request, |payload| {
        let flow = if room > 0 { settled(payload, own)? } else { return None };
        room -= 1;
        Some(flow)
    })
    .map_err(|e| e.doing(format!("read the {family} flows of mark {mark:#x}")))
}

/// The flow of a message, when it was begun behind us, is translated, and not just beginning.
pub(crate) fn settled(payload: &[u8], own: &[IpAddr]) -> Option<Lingering> {
    let attributes = Attributes::after(payload, NFGENMSG);
    if attributes.clone().find(STATUS)?.be32()? & SOURCE_TRANSLATED == 0 {
        return None;
    }
    let tuple = attributes.clone().find(TUPLE_ORIG)?;
    let ip = tuple.nested().find(TUPLE_IP)?;
    let to =
        IP_DESTINATION.into_iter().find_map(|kind| ip.nested().find(kind).and_then(Attribute::ip));
    if own.contains(&to?) {
        return None;
    }
    let protocol = tuple.nested().find(TUPLE_PROTO)?.nested().find(PROTO_NUM)?;
    let tcp = i32::from(*protocol.value.first()?) == libc::IPPROTO_TCP;
    let flow = waiting(payload);
    if tcp && flow.is_none() {
        return None;
    }
    Some((named(&attributes)?, flow))
}

/// Deletes them, and counts those that were still there.
pub(crate) fn delete_released(
    conn: &mut Conn,
    family: Family,
    flows: Vec<Lingering>,
) -> Result<u64, KernelError> {
    let entries: Vec<Entry> = flows.into_iter().map(|(entry, _)| entry).collect();
    let mut deleted = 0;
    for chunk in entries.chunks(CHUNK) {
        let done: Result<u64, Refused> = delete(conn, family, chunk);
        deleted += done.map_err(|e| e.doing(format!("delete lingering {family} flows")))?;
    }
    Ok(deleted)
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
            let _ = settled(&bytes, &[]);
        }
    }
}
