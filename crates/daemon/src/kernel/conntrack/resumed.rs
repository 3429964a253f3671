//! Deletes what conntrack has picked up in the middle of flows whose entry was deleted under them: a
//! client that speaks can be faster than we are, and its flow would then go on over another WAN
//! with a source that its server does not know. In: flows by both ends. Out: how many there were.

use std::net::IpAddr;

use anywan_core::names::Family;
use anywan_core::observed::TcpFlow;

use super::super::error::{KernelError, Refused};
use super::super::socket::Conn;
use super::super::wire::Writer;
use super::{CHUNK, DELETE, PROTO_NUM, TUPLE_ORIG, TUPLE_PROTO, carry_out, header, message_type};

const TUPLE_IP: u16 = 1;
/// Sources and destinations in `TUPLE_IP`.
const IPV4_ENDS: (u16, u16) = (1, 2);
const IPV6_ENDS: (u16, u16) = (3, 4);
/// Ports in `TUPLE_PROTO`.
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;

/// Deletes the entries of these flows, whatever they are by now; those without one are left out.
pub(crate) fn forget(conn: &mut Conn, flows: &[TcpFlow]) -> Result<u64, KernelError> {
    let mut deleted = 0;
    for chunk in flows.chunks(CHUNK) {
        deleted += delete(conn, chunk)
            .map_err(|e| e.doing(format!("delete {} flows that have resumed", chunk.len())))?;
    }
    Ok(deleted)
}

fn delete(conn: &mut Conn, flows: &[TcpFlow]) -> Result<u64, Refused> {
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
    let mut requests = Writer::new();
    for flow in flows {
        let sequence = conn.reserve(1);
        requests.begin(message_type(DELETE), flags, &header(flow.family));
        requests.set_sequence(sequence);
        requests.nest(TUPLE_ORIG, |tuple| fill(tuple, flow));
    }
    carry_out(conn, &requests)
}

fn fill(tuple: &mut Writer, flow: &TcpFlow) {
    let (from, to): (IpAddr, IpAddr) = (flow.client.ip(), flow.server.ip());
    let (source, destination) = match flow.family {
        Family::Ipv4 => IPV4_ENDS,
        Family::Ipv6 => IPV6_ENDS,
    };
    tuple.nest(TUPLE_IP, |ip| {
        ip.put_ip(source, from);
        ip.put_ip(destination, to);
    });
    tuple.nest(TUPLE_PROTO, |protocol| {
        protocol.put(PROTO_NUM, &[libc::IPPROTO_TCP as u8]);
        protocol.put(SOURCE_PORT, &flow.client.port().to_be_bytes());
        protocol.put(DESTINATION_PORT, &flow.server.port().to_be_bytes());
    });
}
