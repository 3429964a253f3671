//! Hosts, ports and names inside targets.

use std::net::Ipv6Addr;

use super::super::fault::{Wrong, quoted};

/// Splits `host`, `host:port`, `[v6]` and `[v6]:port`; the host comes without brackets, the port
/// is `usual` where none is written.
pub(super) fn split<'a>(text: &'a str, scheme: &str, usual: u16) -> Result<(&'a str, u16), Wrong> {
    let bad = |what: String, hint: String| Err(Wrong::new("config.bad-target", what, hint));
    if text.parse::<Ipv6Addr>().is_ok() {
        let hint = format!("put the address in brackets: \"{scheme}://[{text}]\"");
        return bad(format!("{} could be an address or a port", quoted(text)), hint);
    }
    let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((host, rest))) if host.parse::<Ipv6Addr>().is_ok() => match rest {
            "" => (host, None),
            rest => match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None => (text, None),
            },
        },
        Some(_) => (text, None),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let Some(port) = port else { return Ok((host, usual)) };
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    match port.parse().ok().filter(|_| digits) {
        Some(0) => bad(
            "there is no port 0".to_owned(),
            format!("write a port from 1 to 65535, e.g. {usual}"),
        ),
        Some(port) => Ok((host, port)),
        None => bad(
            format!("{} is not a host and a port", quoted(text)),
            format!("{} is not a port: write 1 to 65535", quoted(port)),
        ),
    }
}

/// A DNS name in lower case without the dot at its end (RFC 1035 2.3.4): labels of 1 to 63
/// letters, digits, `-` and `_`, 253 bytes in all; `None` for anything else.
pub(super) fn name(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain);
    (text.len() <= 253 && text.split('.').all(label)).then(|| text.to_ascii_lowercase())
}
