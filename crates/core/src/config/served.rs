//! Values of the sections about LAN services, as they are written: lists of addresses, ranges
//! `"192.168.1.100-192.168.1.199"`, leases `"b8:27:eb:00:00:01 192.168.1.10 printer"`, and names
//! `"192.168.1.5 nas"` as in a hosts file. Each looks at its own value only.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

use super::address;
use super::fault::{Fault, Wrong, quoted};
use super::model::{Lease, StaticName};
use super::types::wrong_type;
use crate::names::{Family, Mac};

/// The most leases and names in one list: more is a database, and a typo in it is not found.
pub(super) const ENTRIES_MAX: usize = 1_000;
/// The most addresses in a range: a /16.
const RANGE_MAX: u32 = 65_536;

/// Reads a list of strings, each by `one`; `None` when anything is wrong with it.
pub(super) fn list<T>(
    at: &str,
    value: &Spanned<DeValue<'_>>,
    (max, example): (usize, &str),
    faults: &mut impl FnMut(Fault),
    one: impl Fn(&str) -> Result<T, Wrong>,
) -> Option<Vec<(T, Range<usize>)>> {
    let Some(entries) = value.get_ref().as_array() else {
        let hint = match value.get_ref().as_str() {
            Some(text) => format!("put it in brackets: [\"{}\"]", quoted(text).trim_matches('`')),
            None => format!("write e.g. [\"{example}\"]"),
        };
        faults(wrong_type("a list", value.get_ref(), hint).at(at, value.span()));
        return None;
    };
    if entries.len() > max {
        let what = format!("{} entries are more than {max}", entries.len());
        faults(Wrong::new("config.out-of-range", what, "remove some").at(at, value.span()));
        return None;
    }
    let mut read = Vec::new();
    for (n, entry) in entries.iter().enumerate() {
        let result = match entry.get_ref().as_str() {
            Some(text) => one(text),
            None => {
                let hint = format!("write it in quotes, e.g. \"{example}\"");
                Err(wrong_type("a string", entry.get_ref(), hint))
            }
        };
        match result {
            Ok(value) => read.push((value, entry.span())),
            Err(wrong) => faults(wrong.at(format!("{at}[{n}]"), entry.span())),
        }
    }
    (read.len() == entries.len()).then_some(read)
}

/// Reports what is in a list twice, by one of its properties.
pub(super) fn twice<T, K: Ord + std::fmt::Display>(
    at: &str,
    entries: &[(T, Range<usize>)],
    faults: &mut impl FnMut(Fault),
    property: impl Fn(&T) -> Option<K>,
) {
    let mut first: BTreeMap<K, &Range<usize>> = BTreeMap::new();
    for (n, (entry, span)) in entries.iter().enumerate() {
        let Some(key) = property(entry) else { continue };
        if let Some(other) = first.get(&key) {
            let what = format!("{key} is in the list twice");
            let wrong = Wrong::new("config.duplicate-entry", what, "remove or change one of them");
            let also = Some(((*other).clone(), "first here".to_owned()));
            faults(Fault { also, ..wrong.at(format!("{at}[{n}]"), span.clone()) });
            continue;
        }
        first.insert(key, span);
    }
}

/// The address of a DNS server, of either family.
pub(super) fn server(text: &str) -> Result<IpAddr, Wrong> {
    let family = if text.contains(':') { Family::Ipv6 } else { Family::Ipv4 };
    let read = text.parse::<IpAddr>().map_err(|_| {
        let what = format!("{} is not an address", quoted(text));
        Wrong::new("config.bad-address", what, address::better(text, family))
    })?;
    address::usable(read)?;
    if address::is_link_local_v6(read) {
        let what = format!("{read} is link-local: it does not say on which interface");
        return Err(Wrong::new("config.unusable-address", what, "give a global address"));
    }
    Ok(read)
}

/// A range of addresses to lend.
pub(super) fn range(text: &str) -> Result<(Ipv4Addr, Ipv4Addr), Wrong> {
    let example = "write the first and the last address, e.g. \"192.168.1.100-192.168.1.199\"";
    let Some((first, last)) = text.split_once('-') else {
        let what = format!("{} is not a range of addresses", quoted(text));
        return Err(Wrong::new("config.bad-range", what, example));
    };
    let (first, last) = (host(first.trim())?, host(last.trim())?);
    let count = u32::from(last).abs_diff(u32::from(first));
    if first > last {
        let what = format!("{first} comes after {last}");
        let turned = format!("write \"{last}-{first}\"");
        let hint = if count < RANGE_MAX { turned } else { example.to_owned() };
        return Err(Wrong::new("config.bad-range", what, hint));
    }
    if count >= RANGE_MAX {
        let what = format!("more than {RANGE_MAX} addresses are in this range");
        return Err(Wrong::new("config.bad-range", what, example));
    }
    Ok((first, last))
}

/// `MAC ADDRESS [NAME]`.
pub(super) fn lease(text: &str) -> Result<Lease, Wrong> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (mac, address, name) = match words[..] {
        [mac, address] => (mac, address, None),
        [mac, address, name] => (mac, address, Some(name)),
        _ => {
            let what = format!("{} is not a lease", quoted(text));
            let hint = "write hardware address, address and, if wanted, a name: \
                        \"b8:27:eb:00:00:01 192.168.1.10 printer\"";
            return Err(Wrong::new("config.bad-lease", what, hint));
        }
    };
    let name = name.map(label).transpose()?;
    Ok(Lease { mac: hardware(mac)?, address: host(address)?, name })
}

fn hardware(text: &str) -> Result<Mac, Wrong> {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let byte = |part: &&str| match part.len() {
        1 | 2 if part.chars().all(|c| c.is_ascii_hexdigit()) => u8::from_str_radix(part, 16).ok(),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = parts.iter().map(byte).collect();
    let mac = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
    let what = format!("{} is not a hardware address", quoted(text));
    let hint = "write six pairs of hexadecimal digits, e.g. b8:27:eb:00:00:01";
    mac.map(Mac).ok_or_else(|| Wrong::new("config.bad-lease", what, hint))
}

fn host(text: &str) -> Result<Ipv4Addr, Wrong> {
    match address::of_family("range", text, Family::Ipv4) {
        Ok(IpAddr::V4(address)) => Ok(address),
        Ok(IpAddr::V6(_)) => {
            let what = format!("{} is not an IPv4 address", quoted(text));
            Err(Wrong::new("config.bad-address", what, address::better(text, Family::Ipv4)))
        }
        Err(wrong) if wrong.code == "config.bad-address" => {
            let what = wrong.what;
            Err(Wrong::new("config.bad-address", what, address::better(text, Family::Ipv4)))
        }
        Err(wrong) => Err(wrong),
    }
}

/// `ADDRESS NAME`, as a line of a hosts file.
pub(super) fn name(text: &str) -> Result<StaticName, Wrong> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [address, name] = words[..] else {
        let what = format!("{} is not an address and a name", quoted(text));
        let hint = "write both in one string, e.g. \"192.168.1.5 nas\"";
        return Err(Wrong::new("config.bad-host", what, hint));
    };
    let address = server(address)?;
    Ok(StaticName { address, name: domain(name)? })
}

/// One or more labels with dots between them, in lower case, no dot at the end.
pub(super) fn domain(text: &str) -> Result<String, Wrong> {
    let trimmed = text.trim_end_matches('.');
    if trimmed.is_empty() || trimmed.len() > 200 {
        let what = format!("{} is not a name", quoted(text));
        return Err(Wrong::new("config.bad-host", what, "write e.g. \"lan\" or \"home.arpa\""));
    }
    let labels: Result<Vec<String>, Wrong> = trimmed.split('.').map(label).collect();
    Ok(labels?.join("."))
}

/// What a host can be called (RFC 1123 2.1): nothing in it means anything to dnsmasq.
fn label(text: &str) -> Result<String, Wrong> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let fits = (1..=63).contains(&text.len()) && text.chars().all(plain);
    if fits && !text.starts_with('-') && !text.ends_with('-') {
        return Ok(text.to_ascii_lowercase());
    }
    let what = format!("{} cannot be the name of a host", quoted(text));
    let hint = "write letters, digits and `-`, at most 63";
    Err(Wrong::new("config.bad-host", what, hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code<T>(result: Result<T, Wrong>) -> &'static str {
        result.err().map_or("fine", |wrong| wrong.code)
    }

    #[test]
    fn a_range_has_a_first_and_a_last_address() {
        assert!(range("192.168.1.100-192.168.1.199").is_ok());
        assert!(range("10.0.0.5 - 10.0.0.5").is_ok());
        for text in ["192.168.1.9-192.168.1.1", "192.168.1.1", "10.0.0.0-10.9.0.0"] {
            assert_eq!(code(range(text)), "config.bad-range", "{text}");
        }
        assert_eq!(code(range("192.168.1.1-200")), "config.bad-address");
        assert_eq!(code(range("fd00::1-fd00::9")), "config.bad-address");
    }

    #[test]
    fn a_lease_has_a_hardware_address_an_address_and_perhaps_a_name() {
        let read = lease("B8-27-eb-0:00 192.168.1.10 Printer");
        assert_eq!(code(read), "config.bad-lease");
        let read = lease("B8:27:eb:0:00:01 192.168.1.10 Printer").ok();
        assert_eq!(read.and_then(|lease| lease.name).as_deref(), Some("printer"));
        for text in ["", "b8:27:eb:00:00:01", "b8:27:eb:00:00 10.0.0.1", "a b c d"] {
            assert_eq!(code(lease(text)), "config.bad-lease", "{text}");
        }
        assert_eq!(code(lease("b8:27:eb:00:00:01 10.0.0.1 a,b")), "config.bad-host");
    }

    #[test]
    fn names_cannot_smuggle_anything_into_another_programs_file() {
        for text in ["a b", "a/b", "a\nserver=1.2.3.4", "a,b", "#a", "", ".", "-a", "ä"] {
            assert_eq!(code(domain(text)), "config.bad-host", "{text:?}");
        }
        assert_eq!(domain("Home.Arpa.").ok().as_deref(), Some("home.arpa"));
    }
}
