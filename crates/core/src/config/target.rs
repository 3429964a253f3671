//! Probe targets as they are written: `"1.1.1.1"`, `"icmp://…"`, `"tcp://[2620:fe::9]:443"`,
//! `"dns://9.9.9.9/example.com"`, `"http://…"` and the table form of the latter.

mod authority;
mod page;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

use super::address;
use super::fault::{Fault, Wrong, quoted};
use super::keys::MAX_TARGETS;
use super::model::{Host, Target};
use super::types::wrong_type;
use crate::names::Family;

/// Reads a list of targets; `None` when anything is wrong with it.
pub(super) fn list(
    at: &str,
    value: &Spanned<DeValue<'_>>,
    faults: &mut impl FnMut(Fault),
) -> Option<Vec<Target>> {
    let Some(entries) = value.get_ref().as_array() else {
        let hint = match value.get_ref().as_str() {
            Some(text) => format!("put it in brackets: [\"{}\"]", quoted(text).trim_matches('`')),
            None => "write e.g. [\"1.1.1.1\", \"tcp://9.9.9.9:443\"]".to_owned(),
        };
        faults(wrong_type("a list of targets", value.get_ref(), hint).at(at, value.span()));
        return None;
    };
    if entries.len() > MAX_TARGETS {
        let what = format!("{} targets are more than {MAX_TARGETS}", entries.len());
        let hint = "each burst asks all of them: three to six of different operators are plenty";
        faults(Wrong::new("config.out-of-range", what, hint).at(at, value.span()));
        return None;
    }
    let mut seen: BTreeMap<Target, Range<usize>> = BTreeMap::new();
    let mut targets = Vec::new();
    for (n, entry) in entries.iter().enumerate() {
        let at = format!("{at}[{n}]");
        let target = match entry.get_ref().as_table() {
            Some(table) => page::table(&at, table, entry.span(), faults),
            None => one(entry.get_ref()).map_err(|wrong| faults(wrong.at(&at, entry.span()))).ok(),
        };
        match target {
            None => {}
            Some(target) => {
                if let Some(first) = seen.get(&target) {
                    let what = format!("{target} is in the list twice");
                    let wrong = Wrong::new("config.duplicate-target", what, "remove one of them");
                    let also = Some((first.clone(), "first here".to_owned()));
                    faults(Fault { also, ..wrong.at(at, entry.span()) });
                    continue;
                }
                seen.insert(target.clone(), entry.span());
                targets.push(target);
            }
        }
    }
    (targets.len() == entries.len()).then_some(targets)
}

fn one(value: &DeValue<'_>) -> Result<Target, Wrong> {
    let Some(text) = value.as_str() else {
        return Err(wrong_type("a string", value, "write it in quotes, e.g. \"1.1.1.1\""));
    };
    match text.split_once("://") {
        None => echo(text),
        Some(("icmp", rest)) => echo(rest),
        Some(("tcp", rest)) => handshake(rest),
        Some(("dns", rest)) => question(rest),
        Some(("http", rest)) => page::plain(rest).map(Target::Http),
        Some(("https", rest)) => Err(page::no_tls(rest)),
        Some((scheme, _)) => {
            let what = format!("{} is not a way to probe", quoted(scheme));
            let hint = "use an address like \"1.1.1.1\", or \"tcp://9.9.9.9:443\", \
                        \"dns://9.9.9.9/example.com\" or \"http://example.com/204\"";
            Err(Wrong::new("config.bad-target", what, hint))
        }
    }
}

fn echo(text: &str) -> Result<Target, Wrong> {
    let inside = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match inside.unwrap_or(text).parse::<IpAddr>() {
        Ok(ip) => address::usable(ip).map(|()| Target::Icmp(ip)),
        Err(_) => Err(not_an_address(text)),
    }
}

fn handshake(text: &str) -> Result<Target, Wrong> {
    if let Ok(socket) = text.parse::<SocketAddr>() {
        if socket.port() == 0 {
            let hint = "write a port from 1 to 65535, e.g. 443";
            return Err(Wrong::new("config.bad-target", "there is no port 0", hint));
        }
        return address::usable(socket.ip()).map(|()| Target::Tcp(socket.ip(), socket.port()));
    }
    let inside = text.trim_start_matches('[').trim_end_matches(']');
    let hint = match inside.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => format!("add the port, e.g. \"tcp://{ip}:443\""),
        Ok(IpAddr::V6(ip)) => format!("add the port, e.g. \"tcp://[{ip}]:443\""),
        Err(_) => match text.rsplit_once(':') {
            Some((host, port)) if host.parse::<IpAddr>().is_ok() || host.ends_with(']') => {
                format!("{} is not a port: write 1 to 65535", quoted(port))
            }
            Some((host, _)) => return Err(not_an_address(host)),
            None => return Err(not_an_address(text)),
        },
    };
    let what = format!("{} is not an address and a port", quoted(text));
    Err(Wrong::new("config.bad-target", what, hint))
}

fn question(text: &str) -> Result<Target, Wrong> {
    let Some((server, name)) = text.split_once('/') else {
        let what = "there is no name to ask for";
        let hint = match server_in(text) {
            Ok((server, _)) => {
                format!("add one, e.g. \"dns://{}/example.com\"", Host::Address(server))
            }
            Err(wrong) => return Err(wrong),
        };
        return Err(Wrong::new("config.bad-target", what, hint));
    };
    let (server, port) = server_in(server)?;
    let name = authority::name(name).ok_or_else(|| {
        let what = format!("{} is not a name to ask for", quoted(name));
        Wrong::new("config.bad-target", what, "write a name like \"example.com\"")
    })?;
    Ok(Target::Dns { server, port, name })
}

fn server_in(text: &str) -> Result<(IpAddr, u16), Wrong> {
    let (host, port) = authority::split(text, "dns", 53)?;
    let server = host.parse().map_err(|_| not_an_address(host))?;
    address::usable(server)?;
    Ok((server, port))
}

fn not_an_address(text: &str) -> Wrong {
    let what = format!("{} is not an address", quoted(text));
    let host = text.split('/').next().unwrap_or(text);
    let named = host.contains('.') && host.chars().any(|c| c.is_ascii_alphabetic());
    let hint = if let Ok(socket) = text.parse::<SocketAddr>() {
        format!("to probe a port, write \"tcp://{socket}\"")
    } else if named && !host.contains(':') {
        let host = quoted(host);
        format!(
            "probes need an address, because a name cannot be resolved while a WAN is down: write \
             e.g. \"8.8.8.8\"; only a page may have a name: \"http://{}/\"",
            host.trim_matches('`')
        )
    } else if text.contains(':') {
        address::better(text, Family::Ipv6)
    } else {
        address::better(text, Family::Ipv4)
    };
    Wrong::new("config.bad-target", what, hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        one(&DeValue::String(text.into())).map(|t| t.to_string()).map_err(|wrong| wrong.hint)
    }

    #[test]
    fn a_target_is_an_address_or_a_scheme_with_one() {
        let pairs = [
            ("1.1.1.1", "1.1.1.1"),
            ("icmp://1.1.1.1", "1.1.1.1"),
            ("2606:4700::1111", "2606:4700::1111"),
            ("icmp://[2606:4700::1111]", "2606:4700::1111"),
            ("tcp://9.9.9.9:443", "tcp://9.9.9.9:443"),
            ("tcp://[2620:fe::9]:443", "tcp://[2620:fe::9]:443"),
            ("dns://8.8.8.8/Example.com.", "dns://8.8.8.8/example.com"),
            ("dns://8.8.8.8:53/example.com", "dns://8.8.8.8/example.com"),
            ("dns://[2620:fe::9]/example.com", "dns://[2620:fe::9]/example.com"),
            ("dns://[2620:fe::9]:5353/_a.example", "dns://[2620:fe::9]:5353/_a.example"),
            ("http://connectivity.example/204", "http://connectivity.example/204"),
            ("http://EXAMPLE.com", "http://example.com/"),
            ("http://example.com?x=1", "http://example.com/?x=1"),
            ("http://192.0.2.1:8080/a%20b", "http://192.0.2.1:8080/a%20b"),
            ("http://[2001:db8::1]:80/", "http://[2001:db8::1]/"),
        ];
        for (text, shown) in pairs {
            assert_eq!(read(text), Ok(shown.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_was_meant_is_in_the_hint() {
        let pairs = [
            ("tcp://9.9.9.9", "add the port, e.g. \"tcp://9.9.9.9:443\""),
            ("tcp://2620:fe::9", "add the port, e.g. \"tcp://[2620:fe::9]:443\""),
            ("tcp://9.9.9.9:0", "write a port from 1 to 65535, e.g. 443"),
            ("tcp://9.9.9.9:99999", "`99999` is not a port: write 1 to 65535"),
            ("9.9.9.9:443", "to probe a port, write \"tcp://9.9.9.9:443\""),
            ("1.1.1.1/32", "write the address without the /32: \"1.1.1.1\""),
            ("fe80::1%eth0", "leave the interface away: \"fe80::1\""),
            ("dns://8.8.8.8", "add one, e.g. \"dns://8.8.8.8/example.com\""),
            ("dns://2620:fe::9/x", "put the address in brackets: \"dns://[2620:fe::9]\""),
            ("dns://8.8.8.8:x/y", "`x` is not a port: write 1 to 65535"),
            ("dns://8.8.8.8:0/y", "write a port from 1 to 65535, e.g. 53"),
            ("dns://8.8.8.8/", "write a name like \"example.com\""),
            ("dns://8.8.8.8/a b", "write a name like \"example.com\""),
            (
                "https://example.com/",
                "use \"http://example.com/\", or for the handshake alone \
                \"tcp://ADDRESS:443\" with its address",
            ),
            ("https://192.0.2.1", "use \"tcp://192.0.2.1:443\": its handshake is enough"),
            ("http://user@example.com/", "leave away what is before the `@`"),
            ("http://example.com/#top", "leave away the `#` and what is behind it"),
            ("http://example.com/a b", "write a space as `%20`"),
            ("http://example.com/é", "write it as a browser copies it, e.g. `%C3%A9` for é"),
            (
                "http://exa_mple..com/",
                "write a host's name or address, e.g. \
                \"http://example.com/204\"",
            ),
            ("8.8.8.888", "`888` is more than 255, the largest number in an address"),
        ];
        for (text, hint) in pairs {
            assert_eq!(read(text), Err(hint.to_owned()), "{text}");
        }
        for text in ["dns.google", "tcp://dns.google:443", "icmp://dns.google"] {
            let hint = read(text).expect_err("a name is refused");
            assert!(hint.starts_with("probes need an address"), "{text}: {hint}");
            assert!(hint.ends_with(": \"http://dns.google/\""), "{text}: {hint}");
        }
        for text in
            ["", "[", "tcp://", "tcp://:", "tcp://[]:1", "://", "x://y", "dns:///", "http://"]
        {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
