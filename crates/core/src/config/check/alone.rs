//! What a WAN must have for itself: an interface, if it asks a DHCP server, and its gateway's alias.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::super::build::defaulted;
use super::super::fault::{Fault, Faults, Wrong};
use super::super::value::Value;
use super::super::walk::{Draft, Fields};

/// Checks a draft.
pub(super) fn check(draft: &Draft, faults: &mut Faults) {
    dhcp_shared(draft, faults);
    aliases(&draft.wans, faults);
}

fn dhcp_shared(draft: &Draft, faults: &mut Faults) {
    for wan in &draft.wans {
        let dhcp = defaulted(&[wan], "wan", "address") == Some(Value::Word("dhcp"));
        let Some(interface) = wan.text("interface").filter(|_| dhcp) else { continue };
        let others = draft.wans.iter().filter(|other| other.at != wan.at).chain(&draft.lans);
        let mut sharing = others.filter(|other| other.text("interface") == Some(interface));
        if let Some(other) = sharing.next() {
            let what =
                format!("{interface} is also that of {}, so nobody can ask for it", other.at);
            let hint = "write the addresses, e.g. address = \"192.168.1.2/24\", or \"observe\"";
            let wrong = Wrong::new("config.dhcp-shared", what, hint);
            let also = Some((other.span_of("interface"), "shared".to_owned()));
            let at = format!("{}.address", wan.at);
            faults.push(Fault { also, ..wrong.at(at, wan.span_of("address")) });
        }
    }
}

fn aliases(wans: &[Fields], faults: &mut Faults) {
    let address = |wan: &Fields, key: &str| match wan.given(key) {
        Some(Some(Value::Address(address))) => Some(*address),
        Some(_) | None => None,
    };
    let mut known: BTreeMap<IpAddr, (&Fields, &str)> = BTreeMap::new();
    for wan in wans {
        if let Some(gateway) = address(wan, "gateway") {
            known.insert(gateway, (wan, "gateway"));
        }
    }
    for wan in wans {
        let Some(alias) = address(wan, "gateway_alias") else { continue };
        if let Some((other, key)) = known.insert(alias, (wan, "gateway_alias")) {
            let what = format!("{alias} is also the {key} of {}", other.at);
            let hint = "write an address that is not in use anywhere, e.g. \"192.168.108.1\"";
            let wrong = Wrong::new("config.duplicate-alias", what, hint);
            let also = Some((other.span_of(key), "first here".to_owned()));
            let at = format!("{}.gateway_alias", wan.at);
            faults.push(Fault { also, ..wrong.at(at, wan.span_of("gateway_alias")) });
        }
    }
}
