//! What a WAN must have for itself: an interface, if it asks a DHCP server, its gateway's alias, and
//! a gateway that is somebody else.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::super::build::defaulted;
use super::super::fault::{Fault, Faults, Wrong};
use super::super::value::Value;
use super::super::walk::{Draft, Fields};

/// Checks a draft.
pub(super) fn check(draft: &Draft, faults: &mut Faults) {
    dhcp_shared(draft, faults);
    for wan in &draft.wans {
        gateways(wan, faults);
    }
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
            let hint = super::one_driver(interface).unwrap_or(
                "write the addresses, e.g. address = \"192.168.1.2/24\", or \"observe\"",
            );
            let wrong = Wrong::new("config.dhcp-shared", what, hint);
            let also = Some((other.span_of("interface"), "shared".to_owned()));
            let at = format!("{}.address", wan.at);
            faults.push(Fault { also, ..wrong.at(at, wan.span_of("address")) });
        }
    }
}

/// The address that was written for a key.
fn address(wan: &Fields, key: &str) -> Option<IpAddr> {
    match wan.given(key) {
        Some(Some(Value::Address(address))) => Some(*address),
        Some(_) | None => None,
    }
}

/// The addresses that were written for a WAN itself.
fn own(wan: &Fields) -> &[IpNet] {
    match wan.given("address") {
        Some(Some(Value::Addresses(own))) => own,
        Some(_) | None => &[],
    }
}

/// A gateway is somebody else, and one host.
fn gateways(wan: &Fields, faults: &mut Faults) {
    for key in ["gateway", "gateway6"] {
        let Some(gateway) = address(wan, key) else { continue };
        let wrong = own(wan).iter().find_map(|net| {
            // On a line of two addresses or one, each is a host's (RFC 3021); IPv6 has no broadcast.
            let whole = gateway.is_ipv4() && net.prefix_len() < 31;
            if net.addr() == gateway {
                Some(format!("{gateway} is the WAN's own address"))
            } else if whole && net.network() == gateway {
                Some(format!("{gateway} is the network {}, not a host in it", net.trunc()))
            } else if whole && net.broadcast() == gateway {
                Some(format!("{gateway} is the broadcast address of {}", net.trunc()))
            } else {
                None
            }
        });
        if let Some(what) = wrong {
            let hint = "write the address of the next router, the provider's or the modem's";
            let wrong = Wrong::new("config.unusable-address", what, hint);
            let also = Some((wan.span_of("address"), "its own".to_owned()));
            faults.push(Fault { also, ..wrong.at(format!("{}.{key}", wan.at), wan.span_of(key)) });
        }
    }
}

fn aliases(wans: &[Fields], faults: &mut Faults) {
    let mut known: BTreeMap<IpAddr, (&Fields, &str)> = BTreeMap::new();
    for wan in wans {
        known.extend(own(wan).iter().map(|net| (net.addr(), (wan, "address"))));
    }
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
