//! Forgets the flows that began while our table was gone. The kernel chooses a flow's translation
//! when it first sees it, so these keep their LAN's source address, which nobody outside can
//! answer. In: a family, the LANs, and a way to look routes up. Out: how many entries were
//! deleted; their next packets start anew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anywan_core::names::{Family, IfIndex};

use super::{
    CHUNK, Entry, GET, MARK, NFGENMSG, ROUND, SOURCE_TRANSLATED, STATUS, TUPLE_ORIG, delete,
    header, message_type, named,
};
use crate::kernel::error::KernelError;
use crate::kernel::socket::Conn;
use crate::kernel::wire::{Attribute, Attributes, Writer};

const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
/// The source in a tuple: `CTA_IP_V4_SRC`, `CTA_IP_V6_SRC`.
const SOURCE: [u16; 2] = [1, 3];

/// Deletes the untranslated flows of `family` that come from one of `lans`, and whose destination
/// `way` does not know, unless their mark under the mask is one of those that are right.
pub(crate) fn forget(
    conn: &mut Conn,
    family: Family,
    lans: &BTreeSet<IfIndex>,
    (mask, right): (u32, &BTreeSet<u32>),
    mut way: impl FnMut(IpAddr) -> Result<Option<IfIndex>, KernelError>,
) -> Result<u64, KernelError> {
    let mut request =
        Writer::message(message_type(GET), libc::NLM_F_REQUEST as u16, &header(family));
    // Many flows have few ends; a look-up that fails leaves its flows alone and is told.
    let mut ways = BTreeMap::new();
    let mut failure = None;
    let mut device = |end: IpAddr| {
        *ways.entry(end).or_insert_with(|| match way(end) {
            Ok(device) => Some(device),
            Err(error) => {
                failure = Some(error);
                None
            }
        })
    };
    let mut room = ROUND;
    let doomed = conn.dump(&mut request, |payload| {
        let flow = Flow::untranslated(payload).filter(|f| !right.contains(&(f.mark & mask)))?;
        let from_lan = device(flow.from)?.is_some_and(|device| lans.contains(&device));
        // Those beyond the round are found when it is asked again.
        let doomed = room > 0 && from_lan && device(flow.to)?.is_none();
        room -= usize::from(doomed);
        doomed.then_some(flow.entry)
    });
    let doomed = doomed.map_err(|e| e.doing(format!("read the {family} flows")))?;
    let mut deleted = 0;
    for chunk in doomed.chunks(CHUNK) {
        deleted += delete(conn, family, chunk)
            .map_err(|e| e.doing(format!("delete untranslated {family} flows")))?;
    }
    failure.map_or(Ok(deleted), Err)
}

/// A flow whose source is not translated.
struct Flow {
    entry: Entry,
    mark: u32,
    /// Who began it.
    from: IpAddr,
    /// Who answers: the destination after somebody's DNAT.
    to: IpAddr,
}

impl Flow {
    fn untranslated(payload: &[u8]) -> Option<Flow> {
        let attributes = Attributes::after(payload, NFGENMSG);
        let number = |kind| attributes.clone().find(kind).and_then(Attribute::be32);
        if number(STATUS)? & SOURCE_TRANSLATED != 0 {
            return None;
        }
        let source = |tuple| {
            let ends = attributes.clone().find(tuple)?.nested().find(TUPLE_IP)?.nested();
            SOURCE.into_iter().find_map(|kind| ends.clone().find(kind))?.ip()
        };
        Some(Flow {
            entry: named(&attributes)?,
            mark: number(MARK).unwrap_or(0),
            from: source(TUPLE_ORIG)?,
            to: source(TUPLE_REPLY)?,
        })
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
            let _ = Flow::untranslated(&bytes);
        }
    }
}
