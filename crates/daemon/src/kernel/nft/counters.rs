//! Reads the counters of our table in one dump. In: the kept socket. Out: core's [`Traffic`] for
//! each WAN and family, also of WANs that retire. Other programs' counters are not looked at.

use std::collections::BTreeMap;

use anywan_core::names::{Family, WanId};
use anywan_core::observed::Traffic;

use super::super::error::Refused;
use super::super::socket::Conn;
use super::super::wire::Attributes;
use super::{NFGENMSG, OBJECT, ask};

const OBJECT_TABLE: u16 = 1;
const OBJECT_NAME: u16 = 2;
const OBJECT_TYPE: u16 = 3;
const OBJECT_DATA: u16 = 4;
const COUNTER: u32 = 1;
const COUNTER_PACKETS: u16 = 2;

/// What a counter of ours counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Out,
    Back,
}

/// The traffic of every WAN; none when there is no table of ours.
pub(crate) fn read(conn: &mut Conn) -> Result<BTreeMap<(WanId, Family), Traffic>, Refused> {
    let mut request = ask(libc::NFT_MSG_GETOBJ, 0);
    request.put_str(OBJECT_TABLE, OBJECT);
    request.put_be32(OBJECT_TYPE, COUNTER);
    let mut traffic: BTreeMap<(WanId, Family), Traffic> = BTreeMap::new();
    for (way, wan, family, packets) in conn.dump(&mut request, counter)? {
        let entry = traffic.entry((wan, family)).or_default();
        match way {
            Way::Out => entry.out = packets,
            Way::Back => entry.back = packets,
        }
    }
    Ok(traffic)
}

/// One counter of ours.
pub(crate) fn counter(payload: &[u8]) -> Option<(Way, WanId, Family, u64)> {
    let attributes = Attributes::after(payload, NFGENMSG);
    if attributes.clone().find(OBJECT_TABLE)?.text() != OBJECT {
        return None;
    }
    let (way, wan, family) = named(&attributes.clone().find(OBJECT_NAME)?.text())?;
    let packets = attributes.find(OBJECT_DATA)?.nested().find(COUNTER_PACKETS)?;
    Some((way, wan, family, u64::from_be_bytes(*packets.value.first_chunk()?)))
}

/// `out4_N`, `back4_N`, `out6_N` and `back6_N` for WAN N.
fn named(name: &str) -> Option<(Way, WanId, Family)> {
    let (way, rest) = match name.strip_prefix("out") {
        Some(rest) => (Way::Out, rest),
        None => (Way::Back, name.strip_prefix("back")?),
    };
    let (digit, number) = rest.split_once('_')?;
    let family = Family::BOTH.into_iter().find(|f| digit == f.digit().to_string())?;
    Some((way, WanId(number.parse().ok()?), family))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_our_counters_are_understood() {
        assert_eq!(named("out4_1"), Some((Way::Out, WanId(1), Family::Ipv4)));
        assert_eq!(named("back6_62"), Some((Way::Back, WanId(62), Family::Ipv6)));
        for other in ["out4", "out5_1", "out4_", "out4_x", "back4_999", "in4_1", ""] {
            assert_eq!(named(other), None, "{other}");
        }
    }
}
