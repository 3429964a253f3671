//! Evacuates the flows of a lost WAN from conntrack. In: a family, and the mark by which they are
//! known. Out: how many entries were deleted. Established TCP stays: it is reset by its own next
//! packet, and a deleted entry would only be made anew by it, on the wrong WAN. But not what
//! somebody's flowtable carries past all rules (nftables' `flow add`): that goes, too, and who hears
//! of its end has it refused. Of a WAN that is only left by new flows, those go that nobody has
//! answered. The part `untranslated` does the same for flows that began while our table was gone;
//! `followed` says who else listens.

mod destroyed;
mod flows;
mod followed;
mod release;
mod resumed;
mod untranslated;

use anywan_core::names::Family;

use super::error::{KernelError, Refused};
use super::socket::Conn;
use super::wire::{Attribute, Attributes, Writer};

pub(crate) use destroyed::destroyed;
pub use destroyed::{Destroyed, Gone};
pub(crate) use flows::{established, waiting};
pub(crate) use followed::followed;
pub(crate) use release::{delete_released, lingering};
pub(crate) use resumed::forget as forget_resumed;
pub(crate) use untranslated::forget as forget_untranslated;

const NFGENMSG: usize = 4;
const GET: i32 = 1;
const DELETE: i32 = 2;
const TUPLE_ORIG: u16 = 1;
const STATUS: u16 = 3;
const PROTOINFO: u16 = 4;
const TIMEOUT: u16 = 7;
const MARK: u16 = 8;
const ID: u16 = 12;
const ZONE: u16 = 18;
const MARK_MASK: u16 = 21;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUM: u16 = 1;
const PROTOINFO_TCP: u16 = 1;
const TCP_STATE: u16 = 1;
/// Bits of the status: `IPS_SEEN_REPLY`, `IPS_SRC_NAT`, and `IPS_OFFLOAD`.
const ANSWERED: u32 = 1 << 1;
const SOURCE_TRANSLATED: u32 = 1 << 4;
const OFFLOADED: u32 = 1 << 14;
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
    sweep(conn, family, (mark, mask), doomed)
        .map_err(|e| e.doing(format!("evacuate the {family} flows of mark {mark:#x}")))
}

/// Deletes the translated flows of one family whose mark is `mark` under `mask` and that nobody has
/// answered.
pub(crate) fn forget_unanswered(
    conn: &mut Conn,
    family: Family,
    mark: u32,
    mask: u32,
) -> Result<u64, KernelError> {
    sweep(conn, family, (mark, mask), unanswered).map_err(|e| {
        e.doing(format!("forget the {family} flows of mark {mark:#x} that nobody has answered"))
    })
}

/// Deletes the flows of a mark whose messages `goes` finds an entry in.
fn sweep(
    conn: &mut Conn,
    family: Family,
    mark: (u32, u32),
    goes: fn(&[u8]) -> Option<Entry>,
) -> Result<u64, Refused> {
    let mut deleted = 0;
    for _ in 0..ROUNDS {
        let found = gather(conn, family, mark, goes)?;
        for chunk in found.chunks(CHUNK) {
            deleted += delete(conn, family, chunk)?;
        }
        if found.len() < ROUND {
            break;
        }
    }
    Ok(deleted)
}

/// Counts the flows of both families whose mark is `mark` under `mask`.
pub(crate) fn count(conn: &mut Conn, mark: u32, mask: u32) -> Result<u64, KernelError> {
    let mut count = 0;
    for family in Family::BOTH {
        let mut request =
            Writer::message(message_type(GET), libc::NLM_F_REQUEST as u16, &header(family));
        request.put_be32(MARK, mark);
        request.put_be32(MARK_MASK, mask);
        conn.dump(&mut request, |_| {
            count += 1;
            None::<()>
        })
        .map_err(|e| e.doing(format!("count the flows of mark {mark:#x}")))?;
    }
    Ok(count)
}

/// What names one entry and no other, even if its tuple is used anew meanwhile.
pub(crate) struct Entry {
    tuple: Box<[u8]>,
    id: Box<[u8]>,
    zone: Option<Box<[u8]>>,
}

fn gather(
    conn: &mut Conn,
    family: Family,
    (mark, mask): (u32, u32),
    goes: fn(&[u8]) -> Option<Entry>,
) -> Result<Vec<Entry>, Refused> {
    let mut request =
        Writer::message(message_type(GET), libc::NLM_F_REQUEST as u16, &header(family));
    request.put_be32(MARK, mark);
    request.put_be32(MARK_MASK, mask);
    let mut room = ROUND;
    conn.dump(&mut request, |payload| {
        let entry = if room > 0 { goes(payload)? } else { return None };
        room -= 1;
        Some(entry)
    })
}

/// The entry of a message, when its flow can start anew without its ends being told.
pub(crate) fn doomed(payload: &[u8]) -> Option<Entry> {
    let attributes = Attributes::after(payload, NFGENMSG);
    let tuple = attributes.clone().find(TUPLE_ORIG)?;
    let protocol = tuple.nested().find(TUPLE_PROTO)?.nested().find(PROTO_NUM)?;
    if i32::from(*protocol.value.first()?) == libc::IPPROTO_TCP && !is_offloaded(&attributes) {
        let tcp = attributes.clone().find(PROTOINFO)?.nested().find(PROTOINFO_TCP)?;
        let state = tcp.nested().find(TCP_STATE)?.value.first()?;
        if !HALF_OPEN.contains(state) {
            return None;
        }
    }
    named(&attributes)
}

/// The entry of a message, when nobody has answered its flow and another WAN may try. What is not
/// translated came from outside, whose answer would then leave by any WAN, or bound itself to this one.
pub(crate) fn unanswered(payload: &[u8]) -> Option<Entry> {
    let attributes = Attributes::after(payload, NFGENMSG);
    let status = attributes.clone().find(STATUS).and_then(Attribute::be32)?;
    let movable = status & (ANSWERED | SOURCE_TRANSLATED) == SOURCE_TRANSLATED;
    if movable { named(&attributes) } else { None }
}

/// Whether a flowtable carries the flow of these attributes. Then it is established, and the kernel
/// does not say its state (`ctnetlink_fill_info`), for it does not see it.
fn is_offloaded(attributes: &Attributes<'_>) -> bool {
    let status = attributes.clone().find(STATUS).and_then(Attribute::be32);
    status.is_some_and(|status| status & OFFLOADED != 0)
}

fn named(attributes: &Attributes<'_>) -> Option<Entry> {
    Some(Entry {
        tuple: attributes.clone().find(TUPLE_ORIG)?.value.into(),
        id: attributes.clone().find(ID)?.value.into(),
        zone: attributes.clone().find(ZONE).map(|zone| zone.value.into()),
    })
}

/// Deletes entries in one call, and counts those that were still there.
fn delete(conn: &mut Conn, family: Family, entries: &[Entry]) -> Result<u64, Refused> {
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
    let mut requests = Writer::new();
    for entry in entries {
        let sequence = conn.reserve(1);
        requests.begin(message_type(DELETE), flags, &header(family));
        requests.set_sequence(sequence);
        requests.nest(TUPLE_ORIG, |w| {
            w.raw(&entry.tuple);
        });
        requests.put(ID, &entry.id);
        if let Some(zone) = &entry.zone {
            requests.put(ZONE, zone);
        }
    }
    carry_out(conn, &requests)
}

/// Carries deletions out, and counts the entries that were still there.
fn carry_out(conn: &mut Conn, requests: &Writer) -> Result<u64, Refused> {
    let mut deleted = 0;
    for (_, answer) in conn.transact(requests.bytes())? {
        match answer {
            None => deleted += 1,
            Some(refused) if refused.errno() == Some(libc::ENOENT) => {}
            Some(refused) => return Err(refused),
        }
    }
    Ok(deleted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A TCP flow as the kernel tells of it, behind the header of its message.
    fn told(status: u32, state: Option<u8>) -> Vec<u8> {
        let mut message = Writer::message(message_type(GET), 0, &header(Family::Ipv4));
        message.nest(TUPLE_ORIG, |w| w.nest(TUPLE_PROTO, |w| w.put(PROTO_NUM, &[6])));
        message.put_be32(STATUS, status);
        if let Some(state) = state {
            message.nest(PROTOINFO, |w| w.nest(PROTOINFO_TCP, |w| w.put(TCP_STATE, &[state])));
        }
        message.put_be32(ID, 7);
        message.bytes()[size_of::<libc::nlmsghdr>()..].to_vec()
    }

    #[test]
    fn of_tcp_what_is_half_open_goes_and_what_a_flowtable_carries() {
        let goes = |status, state| doomed(&told(status, state)).is_some();
        assert!(goes(0, Some(1)) && !goes(0, Some(3)));
        assert!(goes(OFFLOADED, None) && !goes(0, None));
    }

    #[test]
    fn what_has_been_answered_is_not_forgotten_nor_what_came_from_outside() {
        let goes = |status, state| unanswered(&told(status, state)).is_some();
        assert!(goes(SOURCE_TRANSLATED, Some(1)));
        assert!(!goes(SOURCE_TRANSLATED | ANSWERED, Some(2)) && !goes(0, Some(1)));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic_the_parser(
            bytes in proptest::collection::vec(any::<u8>(), 0..300)
        ) {
            let _ = (doomed(&bytes), unanswered(&bytes));
        }
    }
}
