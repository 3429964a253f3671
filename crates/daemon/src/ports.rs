//! Who has a port that a program of ours wants. In: `/proc`. Out: texts for people. Looked at only
//! when something could not be started, because it reads what every process has open.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Holders that are named; more would not help.
const HOLDERS_MAX: usize = 4;

/// The programs in this network namespace that have one of these local ports open: `unbound (712) has
/// 127.0.0.1:53`.
pub fn holders(ports: &[u16]) -> Vec<String> {
    let mut sockets: BTreeMap<u64, (IpAddr, u16)> = BTreeMap::new();
    for table in ["udp", "udp6", "tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/self/net/{table}")).unwrap_or_default();
        // Of TCP only who listens (state 0A); whoever merely talks to such a port is not in the way.
        let listens = |state: &str| table.starts_with("udp") || state == "0A";
        let ours = text
            .lines()
            .filter_map(entry)
            .filter(|(_, port, state, _)| ports.contains(port) && listens(state));
        sockets.extend(ours.map(|(address, port, _, inode)| (inode, (address, port))));
    }
    if sockets.is_empty() {
        return Vec::new();
    }
    let mut found: Vec<String> = processes().flat_map(|pid| of_process(pid, &sockets)).collect();
    found.sort();
    found.dedup();
    found.truncate(HOLDERS_MAX);
    found
}

/// Local address, local port, state and inode of a line of `/proc/net/udp` and its kin (proc(5)).
fn entry(line: &str) -> Option<(IpAddr, u16, &str, u64)> {
    let mut fields = line.split_whitespace().skip(1);
    let (address, port) = fields.next()?.split_once(':')?;
    let (state, inode) = (fields.nth(1)?, fields.nth(5)?);
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((hexadecimal(address)?, port, state, inode.parse().ok()?))
}

/// The kernel prints an address as words of 32 bits in the machine's own order.
fn hexadecimal(text: &str) -> Option<IpAddr> {
    let word =
        |at: usize| u32::from_str_radix(text.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            Some(Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?).into())
        }
        _ => None,
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn of_process(pid: u32, sockets: &BTreeMap<u64, (IpAddr, u16)>) -> Vec<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let inodes = open.filter_map(|fd| {
        let target = fs::read_link(fd.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
    });
    inodes
        .filter_map(|inode| sockets.get(&inode))
        .map(|(address, port)| {
            format!("{} ({pid}) has {}", name.trim(), std::net::SocketAddr::new(*address, *port))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_a_port_is_named() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let address = socket.local_addr().expect("bound");
        let found = holders(&[address.port()]);
        let expected = format!("({}) has {address}", std::process::id());
        assert!(found.iter().any(|text| text.ends_with(&expected)), "{found:?}");
    }

    #[test]
    fn an_ipv6_address_is_read_as_it_is_printed() {
        let one = if cfg!(target_endian = "little") { "01000000" } else { "00000001" };
        let text = format!("{}{one}", "0".repeat(24));
        assert_eq!(hexadecimal(&text), Some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
        assert_eq!(hexadecimal("0100"), None);
    }
}
