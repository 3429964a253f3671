//! Reads TCP flows out of conntrack's messages. In: a mark, or the bytes of one message. Out:
//! core's [`TcpFlow`]. Only flows that a client may be waiting on; it changes nothing.

use std::net::{IpAddr, SocketAddr};

use anywan_core::names::Family;
use anywan_core::observed::TcpFlow;

use super::super::error::KernelError;
use super::super::socket::Conn;
use super::super::wire::{Attribute, Attributes, Writer};
use super::{
    GET, MARK, MARK_MASK, NFGENMSG, PROTO_NUM, PROTOINFO, PROTOINFO_TCP, TCP_STATE, TUPLE_ORIG,
    TUPLE_PROTO, header, is_offloaded, message_type,
};

const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
/// Source and destination in `TUPLE_IP`, IPv4 and IPv6.
const IP_SOURCE: [u16; 2] = [1, 3];
const IP_DESTINATION: [u16; 2] = [2, 4];
const PROTO_SOURCE: u16 = 2;
const PROTO_DESTINATION: u16 = 3;
/// The states in which a client may be waiting for the server: ESTABLISHED, FIN_WAIT (one end has
/// said its last) and CLOSE_WAIT (and the other has heard it).
pub(super) const WAITING: [u8; 3] = [3, 4, 5];
/// How many flows one reading gives (some 80 bytes each), so that memory is bounded. The rest is
/// left out: it comes into view as those that were told leave these states.
pub(crate) const FLOWS_MAX: usize = 65_536;

/// The TCP flows of one family that clients may be waiting on and whose mark is `mark` under
/// `mask`, at most [`FLOWS_MAX`]. The kernel picks them by mark.
pub(crate) fn established(
    conn: &mut Conn,
    family: Family,
    mark: u32,
    mask: u32,
) -> Result<Vec<TcpFlow>, KernelError> {
    let mut request =
        Writer::message(message_type(GET), libc::NLM_F_REQUEST as u16, &header(family));
    request.put_be32(MARK, mark);
    request.put_be32(MARK_MASK, mask);
    let mut room = FLOWS_MAX;
    // What does not fit is read all the same: this socket cannot be closed in the middle.
    conn.dump(&mut request, |payload| {
        let flow = if room > 0 { waiting(payload)? } else { return None };
        room -= 1;
        Some(flow)
    })
    .map_err(|e| e.doing(format!("read the {family} TCP flows of mark {mark:#x}")))
}

/// The flow of a message, when it is TCP in a state in which a client may be waiting, or carried by a
/// flowtable.
pub(crate) fn waiting(payload: &[u8]) -> Option<TcpFlow> {
    let attributes = Attributes::after(payload, NFGENMSG);
    if !is_offloaded(&attributes) {
        let tcp = attributes.clone().find(PROTOINFO)?.nested().find(PROTOINFO_TCP)?;
        let state = tcp.nested().find(TCP_STATE)?.value.first()?;
        if !WAITING.contains(state) {
            return None;
        }
    }
    let tuple = attributes.clone().find(TUPLE_ORIG)?;
    let proto = tuple.nested().find(TUPLE_PROTO)?;
    if i32::from(*proto.nested().find(PROTO_NUM)?.value.first()?) != libc::IPPROTO_TCP {
        return None;
    }
    let ip = tuple.nested().find(TUPLE_IP)?;
    let client = end(ip, IP_SOURCE, proto, PROTO_SOURCE)?;
    let server = end(ip, IP_DESTINATION, proto, PROTO_DESTINATION)?;
    let answers = attributes.clone().find(TUPLE_REPLY)?.nested().find(TUPLE_IP)?;
    let outside = IP_DESTINATION.into_iter().find_map(|kind| answers.nested().find(kind)?.ip())?;
    let family = Family::of(client.ip());
    // The kernel leaves out a mark of 0.
    let mark = attributes.find(MARK).map_or(Some(0), Attribute::be32)?;
    let flow = TcpFlow { family, client, server, outside, mark };
    (Family::of(server.ip()) == family).then_some(flow)
}

fn end(ip: Attribute<'_>, ips: [u16; 2], proto: Attribute<'_>, port: u16) -> Option<SocketAddr> {
    let address: IpAddr = ips.into_iter().find_map(|kind| ip.nested().find(kind)?.ip())?;
    let port = proto.nested().find(port)?.value.first_chunk::<2>()?;
    Some(SocketAddr::new(address, u16::from_be_bytes(*port)))
}
