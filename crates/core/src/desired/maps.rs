//! The elements of our maps: everything in the nftables table that changes while the
//! configuration stays the same. A failover is a change of elements.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Basis;
use super::routing::table_of;
use super::slots::deal;
use crate::config::{Inbound, Wan};
use crate::facts::WanFacts;
use crate::names::{Family, IfIndex, TableId, WanId};
use crate::observed::{Elements, Key, empty_maps};

/// The elements of every map; maps without any are present and empty.
pub(super) fn maps(basis: Basis<'_>) -> BTreeMap<String, Elements> {
    let mut maps = empty_maps();
    let mut put = |map: &str, key: Key, chain: String| {
        maps.entry(map.to_owned()).or_default().insert(key, chain);
    };
    for family in Family::BOTH {
        slots(basis, family, &mut put);
        restore(basis, family, &mut put);
    }
    // What retires comes first: a WAN that has taken over its interface overrides it.
    let (retiring, others): (Vec<_>, Vec<_>) = basis.facts.iter().partition(|(_, f)| f.retiring);
    for (id, facts) in retiring.into_iter().chain(others) {
        if let Some(device) = facts.device {
            devices(basis, *id, facts, device, &mut put);
        }
    }
    for wan in basis.config.wans.iter() {
        aliases(basis, wan, &mut put);
    }
    resolvers(basis, &mut put);
    for lan in &basis.config.lans {
        if let Some((index, _)) = basis.observed.link_named(&lan.interface) {
            put("lans", Key::Number(index.0), String::new());
            if lan.inbound == Inbound::Drop {
                put("guarded", Key::Number(index.0), String::new());
            }
        }
    }
    maps
}

/// The gateway under another address: what is sent there is placed on the WAN, and translated to the
/// gateway's own address.
fn aliases(basis: Basis<'_>, wan: &Wan, put: &mut impl FnMut(&str, Key, String)) {
    let (Some(alias), Some(id)) = (wan.gateway_alias, basis.numbers.get(&wan.name)) else { return };
    let hop = basis.facts.get(id).and_then(|f| f.sides.get(Family::Ipv4).hop.as_ref());
    if let Some(Some(IpAddr::V4(via))) = hop.map(|hop| hop.via) {
        put("aliases", Key::Ipv4(alias), format!("only{id}"));
        put("behind", Key::Ipv4(alias), via.to_string());
    }
}

/// A resolver that is not asked is refused; what goes to one that is asked says nothing about the WAN
/// beyond it, so it is not counted. Where an interface leads to several WANs, it is sent through its
/// own. The same one behind two such WANs: whoever is asked.
fn resolvers(basis: Basis<'_>, put: &mut impl FnMut(&str, Key, String)) {
    let shape = |id: WanId| basis.facts.get(&id).map(|f| (f.device, f.shared));
    for wanted in [false, true] {
        for ((id, address), _) in basis.asked.iter().filter(|(_, asked)| **asked == wanted) {
            let Some((Some(device), shared)) = shape(*id) else { continue };
            let chain = match (wanted, shared) {
                (false, _) => "unasked".to_owned(),
                (true, true) => format!("only{id}"),
                (true, false) => "asked".to_owned(),
            };
            let (map, key) = match address {
                IpAddr::V4(ip) => ("resolvers4", Key::DeviceIpv4(device.0, *ip)),
                IpAddr::V6(ip) => ("resolvers6", Key::DeviceIpv6(device.0, *ip)),
            };
            put(map, key, chain);
        }
    }
}

fn slots(basis: Basis<'_>, family: Family, put: &mut impl FnMut(&str, Key, String)) {
    let name = format!("slots{}", family.digit());
    if !basis.choice.get(family).is_present() {
        return;
    }
    for (slot, wan) in (0_u32..).zip(deal(basis.choice.get(family))) {
        let chain = wan.map_or_else(|| "refuse".to_owned(), placing);
        put(&name, Key::Number(slot), chain);
    }
}

/// The chain that places a flow on a WAN.
fn placing(id: WanId) -> String {
    format!("place{id}")
}

/// The routing tables by which flows go that are placed.
pub(super) fn ways(basis: Basis<'_>) -> BTreeMap<String, TableId> {
    basis.facts.keys().map(|id| (placing(*id), table_of(basis, *id))).collect()
}

fn restore(basis: Basis<'_>, family: Family, put: &mut impl FnMut(&str, Key, String)) {
    let digit = family.digit();
    let name = format!("restore{digit}");
    let field = basis.config.router.mark_field;
    for id in basis.facts.keys() {
        let lost = basis.choice.get(family).lost.contains(id);
        let chain = match (lost, basis.cut == Some(*id)) {
            (true, _) => "lost".to_owned(),
            (false, true) => format!("cut_keep{digit}_{id}"),
            (false, false) => format!("keep{digit}_{id}"),
        };
        put(&name, Key::Number(field.keep(*id).0), chain);
    }
}

fn devices(
    basis: Basis<'_>,
    id: WanId,
    facts: &WanFacts,
    device: IfIndex,
    put: &mut impl FnMut(&str, Key, String),
) {
    let key = Key::Number(device.0);
    if facts.shared {
        known_by_mac(basis, id, facts, device, put);
    } else {
        put("from_wan", key, from_chain(basis, id));
    }
    if facts.retiring {
        return;
    }
    put("outside", key, String::new());
    if !basis.observed.followed {
        put("unfollowed", key, String::new());
    }
    for family in Family::BOTH {
        ways_out(id, family, facts, device, put);
    }
    if facts.shared {
        put("stray", key, format!("uncounted{id}"));
    } else {
        put("clamp", key, format!("clamp{id}"));
    }
}

/// What becomes of what a WAN brings.
fn from_chain(basis: Basis<'_>, id: WanId) -> String {
    let cut = if basis.cut == Some(id) { "cut_" } else { "" };
    format!("{cut}from{id}")
}

/// A flow is the WAN's when it leaves for the WAN's gateway, or, where there is none, by its
/// interface. Whoever else is on a WAN's own subnet - a modem's page, the admin's PC - is a
/// neighbour: its flows are translated, but follow main's routes.
fn ways_out(
    id: WanId,
    family: Family,
    facts: &WanFacts,
    device: IfIndex,
    put: &mut impl FnMut(&str, Key, String),
) {
    let digit = family.digit();
    let hop = facts.sides.get(family).hop.as_ref();
    let to_gateway = match (family, hop.map(|hop| hop.via)) {
        (Family::Ipv4, Some(Some(IpAddr::V4(via)))) => Some(Key::DeviceIpv4(device.0, via)),
        (Family::Ipv6, Some(Some(IpAddr::V6(via)))) => Some(Key::DeviceIpv6(device.0, via)),
        _ => None,
    };
    if let Some(key) = to_gateway {
        put(&format!("out_via{digit}"), key, format!("leave{digit}_{id}"));
    }
    if facts.shared {
        return;
    }
    let alone = hop.is_some() && to_gateway.is_none();
    let chain = if alone { format!("leave{digit}_{id}") } else { format!("near{digit}_{id}") };
    put(&format!("out_by{digit}"), Key::Number(device.0), chain);
}

/// On a shared interface a WAN's packets are known by the gateway's hardware address. While the
/// kernel does not know it, the one known last still counts: without it answers from the WAN
/// would be taken for a LAN's packets.
fn known_by_mac(
    basis: Basis<'_>,
    id: WanId,
    facts: &WanFacts,
    device: IfIndex,
    put: &mut impl FnMut(&str, Key, String),
) {
    let chain = from_chain(basis, id);
    let macs = Family::BOTH.into_iter().filter_map(|f| facts.sides.get(f).gateway_mac);
    let mut keys: Vec<Key> = macs.map(|mac| Key::DeviceMac(device.0, mac)).collect();
    if keys.is_empty() {
        let there = basis.observed.nft.maps.get("from_shared").into_iter().flatten();
        let either = [format!("from{id}"), format!("cut_from{id}")];
        let ours = there.filter(|(key, to)| {
            either.contains(to) && matches!(key, Key::DeviceMac(index, _) if *index == device.0)
        });
        keys = ours.map(|(key, _)| *key).collect();
    }
    for key in keys {
        put("from_shared", key, chain.clone());
    }
}
