//! Tells our table about flows that the kernel has deleted: the next packet of each is answered
//! with a reset. In: flows and seconds. The sets empty by themselves and are no part of what is
//! observed, so nobody repairs them.

use anywan_core::names::Family;
use anywan_core::observed::TcpFlow;

use super::super::error::Refused;
use super::super::socket::Conn;
use super::super::wire::Writer;
use super::OBJECT;
use super::elements::{
    Batch, DATA_VALUE, ELEMENT, ELEMENT_KEY, LIST_ELEMENTS, LIST_SET, LIST_TABLE, MESSAGE,
    retry_races,
};

const ELEMENT_TIMEOUT: u16 = 4;
/// How many flows one transaction takes: as many as the sets of our table have room for.
const FLOWS_MAX: usize = 65_536;

/// Adds flows in one transaction, each for so many seconds. One that is there already stays as it
/// is (a newer kernel begins its time again); those beyond the first 65,536 are left out. When a
/// set is full the kernel refuses all of them (ENFILE).
pub(crate) fn mark(conn: &mut Conn, flows: &[TcpFlow], seconds: u32) -> Result<(), Refused> {
    let flows = &flows[..flows.len().min(FLOWS_MAX)];
    retry_races(|| {
        let mut batch = Batch::begin(conn);
        for family in Family::BOTH {
            let mut keys = flows.iter().filter_map(|flow| key(flow, family)).peekable();
            while keys.peek().is_some() {
                let writer = batch.message(conn, libc::NFT_MSG_NEWSETELEM, libc::NLM_F_CREATE);
                writer.put_str(LIST_TABLE, OBJECT);
                writer.put_str(LIST_SET, &format!("gone{}", family.digit()));
                writer.nest(LIST_ELEMENTS, |w| {
                    let start = w.len();
                    while w.len() - start < MESSAGE {
                        let Some(key) = keys.next() else { break };
                        put_element(w, &key, seconds);
                    }
                });
            }
        }
        batch.commit(conn)
    })
}

fn put_element(writer: &mut Writer, key: &[u8], seconds: u32) {
    writer.nest(ELEMENT, |element| {
        element.nest(ELEMENT_KEY, |data| data.put(DATA_VALUE, key));
        // Milliseconds; 0 would mean for ever.
        let timeout = u64::from(seconds.max(1)) * 1000;
        element.put(ELEMENT_TIMEOUT, &timeout.to_be_bytes());
    });
}

/// `ip saddr . tcp sport . ip daddr . tcp dport` as the client sends it, each field padded to 4;
/// `None` when the flow is of the other family.
fn key(flow: &TcpFlow, family: Family) -> Option<Vec<u8>> {
    let mut key = Vec::with_capacity(40);
    for end in [flow.client, flow.server] {
        if Family::of(end.ip()) != family {
            return None;
        }
        match end.ip() {
            std::net::IpAddr::V4(ip) => key.extend(ip.octets()),
            std::net::IpAddr::V6(ip) => key.extend(ip.octets()),
        }
        key.extend(end.port().to_be_bytes());
        key.extend([0, 0]);
    }
    Some(key)
}
