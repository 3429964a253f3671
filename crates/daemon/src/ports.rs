//! Who has a port that a program of ours wants. In: `/proc`. Out: texts for people. Looked at only
//! when something could not be started, because it reads what every process has open.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Holders that are named; more would not help.
const HOLDERS_MAX: usize = 8;

/// A program that has a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// Its name, 15 bytes at most.
    pub program: String,
    /// The number of its process.
    pub pid: u32,
    /// The address and port.
    pub at: SocketAddr,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) has {}", self.program, self.pid, self.at)
    }
}

/// The programs that have one of these local ports open in this network namespace.
pub fn holders(ports: &[u16]) -> Vec<Holder> {
    let mut sockets: BTreeMap<u64, SocketAddr> = BTreeMap::new();
    for table in ["udp", "udp6", "tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/self/net/{table}")).unwrap_or_default();
        // Of TCP only who listens (state 0A); whoever merely talks to such a port is not in the way.
        let listens = |state: &str| table.starts_with("udp") || state == "0A";
        let entries = text.lines().filter_map(entry);
        let ours = entries.filter(|(at, state, _)| ports.contains(&at.port()) && listens(state));
        sockets.extend(ours.map(|(at, _, inode)| (inode, at)));
    }
    if sockets.is_empty() {
        return Vec::new();
    }
    let mut found: Vec<Holder> = processes().flat_map(|pid| of_process(pid, &sockets)).collect();
    found.sort();
    found.dedup();
    found.truncate(HOLDERS_MAX);
    found
}

/// Local address with port, state and inode of a line of `/proc/net/udp` and its kin (proc(5)).
fn entry(line: &str) -> Option<(SocketAddr, &str, u64)> {
    let mut fields = line.split_whitespace().skip(1);
    let (address, port) = fields.next()?.split_once(':')?;
    let (state, inode) = (fields.nth(1)?, fields.nth(5)?);
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((SocketAddr::new(hexadecimal(address)?, port), state, inode.parse().ok()?))
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

fn of_process(pid: u32, sockets: &BTreeMap<u64, SocketAddr>) -> Vec<Holder> {
    let program = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let program = program.trim().to_owned();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let inodes = open.filter_map(|fd| {
        let target = fs::read_link(fd.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
    });
    inodes
        .filter_map(|inode| sockets.get(&inode))
        .map(|at| Holder { program: program.clone(), pid, at: *at })
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
        assert!(found.iter().any(|h| h.to_string().ends_with(&expected)), "{found:?}");
    }

    #[test]
    fn an_ipv6_address_is_read_as_it_is_printed() {
        let one = if cfg!(target_endian = "little") { "01000000" } else { "00000001" };
        let text = format!("{}{one}", "0".repeat(24));
        assert_eq!(hexadecimal(&text), Some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
        assert_eq!(hexadecimal("0100"), None);
    }
}
