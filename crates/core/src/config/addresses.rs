//! The own addresses of a WAN as they are written: one with its prefix length, a list of such, or a
//! word instead. Looks at nothing but that one value.

use std::net::IpAddr;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::DeValue;

use super::address;
use super::fault::{Fault, Wrong, quoted};
use super::keys::{Key, MAX_ADDRESSES, Word, either};
use super::near::nearest;
use super::types::wrong_type;
use super::value::{Value, word};
use crate::names::Family;

/// Reads the value of `key`, which stands at `at`; all that is wrong with it goes to `faults`.
pub(super) fn read(
    key: &Key,
    words: &[Word],
    at: &str,
    value: &Spanned<DeValue<'_>>,
    faults: &mut impl FnMut(Fault),
) -> Option<Value> {
    let mut fault = |wrong: Wrong, at: &str, value: &Spanned<DeValue<'_>>| {
        faults(wrong.at(at, value.span()));
        None
    };
    let list = match value.get_ref() {
        DeValue::String(text) => {
            if let Some(word) = word(text, words) {
                return Some(Value::Word(word));
            }
            return match one(text, words) {
                Ok(address) => Some(Value::Addresses(vec![address])),
                Err(wrong) => fault(wrong, at, value),
            };
        }
        DeValue::Array(list) => list,
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Table(_) => {
            let hint = format!("write {} = \"192.0.2.10/24\", or {}", key.name, either(words));
            return fault(wrong_type("a string or a list", value.get_ref(), hint), at, value);
        }
    };
    if list.is_empty() || list.len() > MAX_ADDRESSES {
        let what = format!("a list of {} addresses", list.len());
        let hint = format!("write 1 to {MAX_ADDRESSES} addresses, or {}", either(words));
        return fault(Wrong::new("config.out-of-range", what, hint), at, value);
    }
    let mut all: Vec<IpNet> = Vec::new();
    for (n, entry) in list.iter().enumerate() {
        let at = format!("{at}[{n}]");
        let read = match entry.get_ref().as_str() {
            Some(text) => one(text, &[]),
            None => Err(wrong_type("a string", entry.get_ref(), "write e.g. \"192.0.2.10/24\"")),
        };
        match read {
            Ok(address) if all.iter().any(|other| other.addr() == address.addr()) => {
                let what = format!("{} is in this list already", address.addr());
                fault(Wrong::new("config.duplicate-address", what, "remove it"), &at, entry);
            }
            Ok(address) => all.push(address),
            Err(wrong) => {
                fault(wrong, &at, entry);
            }
        }
    }
    (all.len() == list.len()).then_some(Value::Addresses(all))
}

fn one(text: &str, words: &[Word]) -> Result<IpNet, Wrong> {
    if let Some(word) = nearest(text, words.iter().map(|word| word.0)) {
        let what = format!("{} is not an address", quoted(text));
        return Err(Wrong::new("config.bad-word", what, format!("did you mean \"{word}\"?")));
    }
    let bad = |hint: String| {
        let what = format!("{} is not an address with its prefix length", quoted(text));
        Err(Wrong::new("config.bad-address", what, hint))
    };
    if let Ok(address) = text.parse::<IpAddr>() {
        let length = if address.is_ipv4() { 24 } else { 64 };
        return bad(format!("write its prefix length behind it, e.g. \"{text}/{length}\""));
    }
    let Ok(net) = text.parse::<IpNet>() else {
        let or = if words.is_empty() { String::new() } else { format!(", or {}", either(words)) };
        return bad(format!("write e.g. \"192.0.2.10/24\" or \"2001:db8::10/64\"{or}"));
    };
    address::usable(net.addr())?;
    let unusable = |what: String| {
        let hint = "write the router's own address in this network, and the prefix length";
        Err(Wrong::new("config.unusable-address", what, hint))
    };
    let (min, room) = match Family::of(net.addr()) {
        Family::Ipv4 => (1, 31),
        Family::Ipv6 => (1, 127),
    };
    if net.prefix_len() < min {
        return unusable(format!("{net} would be the whole internet"));
    }
    if net.prefix_len() < room && net.addr() == net.network() {
        return unusable(format!("{net} is a whole network, not an address in it"));
    }
    if net.prefix_len() < room && net.addr().is_ipv4() && net.addr() == net.broadcast() {
        return unusable(format!("{} is the broadcast address of its network", net.addr()));
    }
    Ok(net)
}
