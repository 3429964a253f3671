//! Addresses as they are written, and which of them can serve as a next hop, a source or a target.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::fault::{Wrong, quoted};
use crate::names::Family;

/// Reads the address of a key that takes one family.
pub(super) fn of_family(key: &str, text: &str, family: Family) -> Result<IpAddr, Wrong> {
    match text.parse::<IpAddr>() {
        Ok(address) if Family::of(address) == family => usable(address).map(|()| address),
        Ok(address) => {
            let what = format!("{address} is not an {family} address");
            let hint = match family {
                // Other keys have no twin for the other family.
                Family::Ipv4 if !matches!(key, "gateway" | "nat") => {
                    "write an IPv4 address".to_owned()
                }
                Family::Ipv4 => format!("write it as `{key}6`, and here an IPv4 address"),
                Family::Ipv6 => {
                    let other = key.trim_end_matches('6');
                    format!("write it as `{other}`, and here an IPv6 address")
                }
            };
            Err(Wrong::new("config.bad-address", what, hint))
        }
        Err(_) => {
            let what = format!("{} is not an {family} address", quoted(text));
            Err(Wrong::new("config.bad-address", what, better(text, family)))
        }
    }
}

/// What to write instead of something that is not an address of the family.
pub(super) fn better(text: &str, family: Family) -> String {
    let example = match family {
        Family::Ipv4 => "192.168.1.1",
        Family::Ipv6 => "fe80::1",
    };
    let whole = |part: &str| part.parse::<IpAddr>().is_ok_and(|ip| Family::of(ip) == family);
    if let Some((before, after)) = text.split_once('/') {
        if whole(before) && after.parse::<u8>().is_ok() {
            return format!("write the address without the /{after}: \"{before}\"");
        }
    }
    if let Some((before, _)) = text.split_once('%') {
        if whole(before) {
            return format!("leave the interface away: \"{before}\"");
        }
    }
    let inside = text.trim().trim_start_matches('[').trim_end_matches(']');
    if whole(inside) {
        return format!("write \"{inside}\"");
    }
    let parts: Vec<&str> = text.split('.').collect();
    if family == Family::Ipv4 && parts.len() == 4 {
        let large = parts.iter().find(|part| part.parse::<u64>().is_ok_and(|n| n > 255));
        if let Some(large) = large {
            return format!("{} is more than 255, the largest number in an address", quoted(large));
        }
        let zeros = parts.iter().all(|part| part.parse::<u8>().is_ok());
        if zeros {
            let plain: Vec<String> = parts
                .iter()
                .filter_map(|part| part.parse::<u8>().ok())
                .map(|n| n.to_string())
                .collect();
            return format!("write \"{}\", without leading zeros", plain.join("."));
        }
    }
    format!("write an {family} address, e.g. \"{example}\"")
}

/// Refuses what no router can be reached at, and no host.
pub(super) fn usable(address: IpAddr) -> Result<(), Wrong> {
    let why = match address {
        IpAddr::V4(ip) => unusable_v4(ip),
        IpAddr::V6(ip) => unusable_v6(ip),
    };
    match why {
        None => Ok(()),
        Some(why) => {
            let what = format!("{address} {why}");
            let hint = "give the address of one host that can be reached through this WAN";
            Err(Wrong::new("config.unusable-address", what, hint))
        }
    }
}

/// An address that means nothing beyond its link.
pub(super) fn is_link_local_v6(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn unusable_v4(ip: Ipv4Addr) -> Option<&'static str> {
    if ip.octets()[0] == 0 {
        Some("is no host's address")
    } else if ip.is_loopback() {
        Some("is a loopback address, this router itself")
    } else if ip.is_multicast() {
        Some("is a multicast address, not one host")
    } else if ip.is_broadcast() {
        Some("is the broadcast address, not one host")
    } else {
        None
    }
}

fn unusable_v6(ip: Ipv6Addr) -> Option<&'static str> {
    if ip.is_unspecified() {
        Some("is no host's address")
    } else if ip.is_loopback() {
        Some("is the loopback address, this router itself")
    } else if ip.is_multicast() {
        Some("is a multicast address, not one host")
    } else if ip.to_ipv4_mapped().is_some() {
        Some("is an IPv4 address in IPv6 dress, never seen on a network")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(text: &str, family: Family) -> String {
        of_family("gateway", text, family).map_or_else(|wrong| wrong.hint, |ip| ip.to_string())
    }

    #[test]
    fn what_was_meant_is_in_the_hint() {
        let pairs = [
            ("192.168.1.1", "192.168.1.1"),
            ("192.168.1.1/24", "write the address without the /24: \"192.168.1.1\""),
            ("192.168.1.300", "`300` is more than 255, the largest number in an address"),
            ("192.168.001.1", "write \"192.168.1.1\", without leading zeros"),
            (" 10.0.0.1 ", "write \"10.0.0.1\""),
            ("fritz.box", "write an IPv4 address, e.g. \"192.168.1.1\""),
            ("fe80::1", "write it as `gateway6`, and here an IPv4 address"),
        ];
        for (text, expected) in pairs {
            assert_eq!(hint(text, Family::Ipv4), expected, "{text}");
        }
        assert_eq!(hint("fe80::1%eth0", Family::Ipv6), "leave the interface away: \"fe80::1\"");
        assert_eq!(hint("[fe80::1]", Family::Ipv6), "write \"fe80::1\"");
    }

    #[test]
    fn addresses_of_no_single_host_are_refused() {
        for text in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
            assert!(of_family("gateway", text, Family::Ipv4).is_err(), "{text}");
        }
        for text in ["::", "::1", "ff02::1", "::ffff:10.0.0.1"] {
            assert!(of_family("gateway6", text, Family::Ipv6).is_err(), "{text}");
        }
        assert!(of_family("gateway6", "fe80::1", Family::Ipv6).is_ok());
    }
}
