//! What sections mean together: names and interfaces given twice, WANs that share an interface,
//! more WANs than numbers. In: a [`Draft`]; adds to the faults. What is wrong by itself was
//! reported before, and is left out here.

mod alone;
mod ppp;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use super::build::{self, defaulted};
use super::fault::{Fault, Faults, Wrong, quoted};
use super::model::Selector;
use super::value::Value;
use super::walk::{Draft, Fields};
use crate::names::{Family, WanId};

/// How many tables from `table_base` are ours: `balance` and one for each WAN number.
const TABLES: u32 = 63;

/// The tables that the kernel has by itself: default, main and local.
const RESERVED_TABLES: std::ops::RangeInclusive<u32> = 253..=255;

/// Checks a draft.
pub(super) fn check(draft: &Draft, faults: &mut Faults) {
    twice(&draft.wans, "name", "config.duplicate-name", "give each WAN its own name", faults);
    let hint = "remove one of the two [[lan]]";
    twice(&draft.lans, "interface", "config.duplicate-interface", hint, faults);
    for wan in &draft.wans {
        no_family(wan, faults);
    }
    // One that is dialled shares its interface with nobody: that is told in its own words.
    let both = draft.wans.iter().zip(&draft.wan_ppp);
    let plain: Vec<&Fields> = both.filter(|(_, p)| !p.is_there()).map(|(w, _)| w).collect();
    for family in Family::BOTH {
        shared_with_wan(&plain, family, faults);
    }
    shared_with_lan(&draft.lans, &plain, faults);
    alone::check(draft, faults);
    overlapping(&draft.lan_dhcp, faults);
    ppp::check(draft, faults);
    too_many(draft, faults);
    reserved_table(&draft.router, faults);
}

/// The same text in two sections.
fn twice(sections: &[Fields], key: &str, code: &'static str, hint: &str, faults: &mut Faults) {
    let mut first: BTreeMap<&str, &Fields> = BTreeMap::new();
    for section in sections {
        let Some(text) = section.text(key) else { continue };
        match first.get(text) {
            None => {
                first.insert(text, section);
            }
            Some(other) => {
                let what = format!("{} is also the {key} of {}", quoted(text), other.at);
                let also = Some((other.span_of(key), "first here".to_owned()));
                let wrong = Wrong::new(code, what, one_driver(text).unwrap_or(hint));
                let at = format!("{}.{key}", section.at);
                faults.push(Fault { also, ..wrong.at(at, section.span_of(key)) });
            }
        }
    }
}

/// What to do where two sections name one driver, which most often are meant to have an interface
/// each: other hints would mend a sharing that nobody wants.
fn one_driver(interface: &str) -> Option<&'static str> {
    matches!(Selector::of(interface), Selector::Driver(_)).then_some(
        "the same text means one interface: tell the two apart by their place, \"usb:1-1.3\", or \
         by \"mac:…\"",
    )
}

/// The gateway of a WAN, as it is written or by default.
fn gateway(wan: &Fields, family: Family) -> Option<Value> {
    defaulted(&[wan], "wan", gateway_key(family))
}

fn gateway_key(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "gateway",
        Family::Ipv6 => "gateway6",
    }
}

fn no_family(wan: &Fields, faults: &mut Faults) {
    let off = |family| gateway(wan, family) == Some(Value::Word("off"));
    if off(Family::Ipv4) && off(Family::Ipv6) {
        let hint = "let one of `gateway` and `gateway6` be \"auto\" or an address, or remove this \
                    [[wan]]";
        let wrong = Wrong::new("config.no-family", "neither IPv4 nor IPv6 is used here", hint);
        let also = Some((wan.span_of("gateway6"), "and here".to_owned()));
        let at = format!("{}.gateway", wan.at);
        faults.push(Fault { also, ..wrong.at(at, wan.span_of("gateway")) });
    }
}

/// WANs on one interface are told apart by their gateways.
fn shared_with_wan(wans: &[&Fields], family: Family, faults: &mut Faults) {
    let key = gateway_key(family);
    let mut by_interface: BTreeMap<&str, Vec<(&Fields, Value)>> = BTreeMap::new();
    for wan in wans {
        if let (Some(interface), Some(gateway)) = (wan.text("interface"), gateway(wan, family)) {
            if gateway != Value::Word("off") {
                by_interface.entry(interface).or_default().push((wan, gateway));
            }
        }
    }
    for (interface, sharing) in by_interface.iter().filter(|(_, sharing)| sharing.len() > 1) {
        let mut first: BTreeMap<IpAddr, &Fields> = BTreeMap::new();
        for (n, (wan, gateway)) in sharing.iter().enumerate() {
            if let Value::Address(address) = gateway {
                match first.get(address) {
                    Some(other) => same_gateway(wan, other, key, *address, faults),
                    None => {
                        first.insert(*address, wan);
                    }
                }
                continue;
            }
            let other = &sharing[usize::from(n == 0)].0;
            let what = format!(
                "{interface} also leads to {}, so the {family} gateway must be written",
                other.at
            );
            needed(wan, key, what, Some((other.span_of("interface"), "shared".to_owned())), faults);
        }
    }
}

fn same_gateway(wan: &Fields, other: &Fields, key: &str, gateway: IpAddr, faults: &mut Faults) {
    let what = format!("{} has the same interface and the same gateway, {gateway}", other.at);
    let hint = wan.text("interface").and_then(one_driver);
    let hint = hint.unwrap_or("give each WAN its own gateway, or remove one of the two [[wan]]");
    let also = Some((other.span_of(key), "first here".to_owned()));
    let wrong = Wrong::new("config.same-gateway", what, hint);
    faults.push(Fault { also, ..wrong.at(format!("{}.{key}", wan.at), wan.span_of(key)) });
}

/// A gateway that must be written, and is not.
fn needed(
    wan: &Fields,
    key: &str,
    what: String,
    also: Option<(Range<usize>, String)>,
    faults: &mut Faults,
) {
    let example = if key == "gateway" { "192.168.1.1" } else { "fe80::1" };
    let hint = match wan.text("interface").and_then(one_driver) {
        Some(hint) => hint.to_owned(),
        None => format!("write {key} = \"{example}\" with the right address, or {key} = \"off\""),
    };
    let place = if wan.given(key).is_some() { key } else { "interface" };
    let wrong = Wrong::new("config.gateway-needed", what, hint);
    faults.push(Fault { also, ..wrong.at(format!("{}.{key}", wan.at), wan.span_of(place)) });
}

/// One-armed: the box is one of the hosts of the LAN, and nothing says which.
fn shared_with_lan(lans: &[Fields], wans: &[&Fields], faults: &mut Faults) {
    let lans: BTreeMap<&str, &Fields> =
        lans.iter().filter_map(|lan| lan.text("interface").map(|name| (name, lan))).collect();
    let mut wans_on: BTreeMap<&str, usize> = BTreeMap::new();
    for wan in wans.iter().filter(|wan| gateway(wan, Family::Ipv4) != Some(Value::Word("off"))) {
        *wans_on.entry(wan.text("interface").unwrap_or_default()).or_default() += 1;
    }
    for wan in wans {
        let Some(interface) = wan.text("interface") else { continue };
        let told_before = wans_on.get(interface).is_some_and(|wans| *wans > 1);
        let learnt = gateway(wan, Family::Ipv4) == Some(Value::Word("auto"));
        if let (Some(lan), true, false) = (lans.get(interface), learnt, told_before) {
            let what =
                format!("{interface} is also that of {}, so the gateway must be written", lan.at);
            let also = Some((lan.span_of("interface"), "the LAN".to_owned()));
            needed(wan, "gateway", what, also, faults);
        }
    }
}

/// An address that two LANs lend would lead to one of them only.
fn overlapping(dhcp: &[Fields], faults: &mut Faults) {
    let mut known: Vec<(&Fields, Ipv4Addr, Ipv4Addr)> = Vec::new();
    for fields in dhcp {
        let Some(Some(Value::Range(first, last))) = fields.given("range") else { continue };
        if let Some((other, ..)) = known.iter().find(|(_, a, b)| first <= b && a <= last) {
            let what = format!("{} lends some of these addresses too", other.at);
            let hint = "give each LAN a range of its own network";
            let also = Some((other.span_of("range"), "first here".to_owned()));
            let wrong = Wrong::new("config.overlapping-range", what, hint);
            let at = format!("{}.range", fields.at);
            faults.push(Fault { also, ..wrong.at(at, fields.span_of("range")) });
        }
        known.push((fields, *first, *last));
    }
}

fn too_many(draft: &Draft, faults: &mut Faults) {
    let Some(field) = build::mark_field(&draft.router) else { return };
    let room = usize::from(field.max_number());
    if let Some(wan) = draft.wans.get(room) {
        let count = draft.wans.len();
        let what =
            format!("{count} WANs, but mark_mask {:#x} has numbers for {room}", field.mask());
        let hint = match field.max_number() {
            WanId::MAX => "remove some: more than 62 WANs cannot be told apart",
            _ => "remove some, or let router.mark_mask have more bits: at most 7, for 62 WANs",
        };
        let wrong = Wrong::new("config.too-many-wans", what, hint);
        let also = draft
            .router
            .given("mark_mask")
            .map(|_| (draft.router.span_of("mark_mask"), "the mask".to_owned()));
        faults.push(Fault { also, ..wrong.at(wan.at.as_str(), wan.span.clone()) });
    }
}

fn reserved_table(router: &Fields, faults: &mut Faults) {
    let Some(Some(Value::Number(base))) = router.given("table_base") else { return };
    let last = base.saturating_add(TABLES - 1);
    if *base <= *RESERVED_TABLES.end() && last >= *RESERVED_TABLES.start() {
        let what = format!("tables {base} to {last} would include the system's 253, 254 or 255");
        let hint = "write a number below 191 or above 255, or leave the default";
        let wrong = Wrong::new("config.reserved-table", what, hint);
        faults.push(wrong.at("router.table_base", router.span_of("table_base")));
    }
}
