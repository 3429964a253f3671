//! Evacuates the flows of a lost WAN from conntrack. In: a family, and the mark by which they are
//! known. Out: how many entries were deleted. Established TCP stays: it is reset by its own next
//! packet, and a deleted entry would only be made anew by it, on the wrong WAN.

use anywan_core::names::Family;

use super::error::{KernelError, Refused};
use super::socket::Conn;
use super::wire::{Attribute, Attributes, Writer};

const NFGENMSG: usize = 4;
const GET: i32 = 1;
const DELETE: i32 = 2;
const TUPLE_ORIG: u16 = 1;
const PROTOINFO: u16 = 4;
const MARK: u16 = 8;
const ID: u16 = 12;
const ZONE: u16 = 18;
const MARK_MASK: u16 = 21;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUM: u16 = 1;
const PROTOINFO_TCP: u16 = 1;
const TCP_STATE: u16 = 1;
/// The states of a TCP flow that is not established yet: none, SYN_SENT, SYN_RECV and SYN_SENT2.
const HALF_OPEN: [u8; 4] = [0, 1, 2, 9];
/// How many entries are gathered in one round (some 120 bytes each), so that memory is bounded.
const ROUND: usize = 65_536;
/// How many rounds one call takes at most: 4 million flows. The step is repeated until it is zero.
const ROUNDS: u32 = 64;
/// How many deletions go into one call: their refusals must fit the receive buffer.
const CHUNK: usize = 256;

fn message_type(kind: i32) -> u16 {
    (libc::NFNL_SUBSYS_CTNETLINK << 8 | kind) as u16
}

fn header(family: Family) -> [u8; NFGENMSG] {
    match family {
        Family::Ipv4 => [libc::AF_INET as u8, 0, 0, 0],
        Family::Ipv6 => [libc::AF_INET6 as u8, 0, 0, 0],
    }
}

/// Deletes the flows of one family whose mark is `mark` under `mask`, but for established TCP.
pub(crate) fn evacuate(
    conn: &mut Conn,
    family: Family,
    mark: u32,
    mask: u32,
) -> Result<u64, KernelError> {
    let what = |e: Refused| e.doing(format!("evacuate the {family} flows of mark {mark:#x}"));
    let mut deleted = 0;
    for _ in 0..ROUNDS {
        let doomed = gather(conn, family, mark, mask).map_err(what)?;
        for chunk in doomed.chunks(CHUNK) {
            deleted += delete(conn, family, chunk).map_err(what)?;
        }
        if doomed.len() < ROUND {
            break;
        }
    }
    Ok(deleted)
}

/// The entries to delete, each as the attributes that name it and no other.
fn gather(
    conn: &mut Conn,
    family: Family,
    mark: u32,
    mask: u32,
) -> Result<Vec<Writer>, Refused> {
    let mut request =
        Writer::message(message_type(GET), libc::NLM_F_REQUEST as u16, &header(family));
    request.put_be32(MARK, mark);
    request.put_be32(MARK_MASK, mask);
    let mut count = 0;
    conn.dump(&mut request, |payload| {
        if count >= ROUND || !is_restartable(payload) {
            return None;
        }
        let naming = deletion(family, payload)?;
        count += 1;
        Some(naming)
    })
}

/// Whether a flow can start anew without its ends being told: all but established TCP.
fn is_restartable(payload: &[u8]) -> bool {
    let attributes = Attributes::after(payload, NFGENMSG);
    let nested = |from: Option<Attribute<'_>>, kind| {
        from.and_then(|a| a.nested().find(kind)).map(|a| a.value.to_vec())
    };
    let tuple = attributes.clone().find(TUPLE_ORIG);
    let protocol = tuple.and_then(|t| t.nested().find(TUPLE_PROTO));
    let Some([protocol]) = nested(protocol, PROTO_NUM).as_deref().map(<[u8]>::to_vec).as_deref()
        .and_then(|v| <[u8; 1]>::try_from(v).ok())
    else {
        return false;
    };
    if i32::from(protocol) != libc::IPPROTO_TCP {
        return true;
    }
    let tcp = attributes.find(PROTOINFO).and_then(|p| p.nested().find(PROTOINFO_TCP));
    nested(tcp, TCP_STATE).and_then(|s| s.first().copied()).is_some_and(|s| HALF_OPEN.contains(&s))
}

/// The request that deletes the entry of a message: by its original tuple, its zone and its id, so
/// that an entry made anew meanwhile is not hit.
fn deletion(family: Family, payload: &[u8]) -> Option<Writer> {
    let attributes = Attributes::after(payload, NFGENMSG);
    let mut request =
        Writer::message(message_type(DELETE), libc::NLM_F_REQUEST as u16, &header(family));
    let tuple = attributes.clone().find(TUPLE_ORIG)?;
    request.nest(TUPLE_ORIG, |w| {
        w.raw(tuple.value);
    });
    request.put(ID, attributes.clone().find(ID)?.value);
    if let Some(zone) = attributes.find(ZONE) {
        request.put(ZONE, zone.value);
    }
    Some(request)
}

/// Sends deletions, and counts those that hit.
fn delete(conn: &mut Conn, requests: &[Writer]) -> Result<u64, Refused> {
    let count = u32::try_from(requests.len()).unwrap_or(u32::MAX);
    let first = conn.reserve(count);
    Ok(u64::from(first))
}
