//! Which addresses dnsmasq has lent to hosts on LANs. In: the file in which it keeps leases, for
//! itself. Out: those that are in force. What makes no sense is left out.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

/// Its name in the state directory, as `render/dnsmasq.rs` in core tells dnsmasq.
const FILE: &str = "dhcp.leases";
/// A file larger than this is none of dnsmasq's: a full /16 takes some 6 MiB.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The addresses that are lent at a time in seconds since 1970.
pub fn read(state: &Path, now: u64) -> BTreeSet<Ipv4Addr> {
    let path = state.join(FILE);
    let fits = fs::metadata(&path).is_ok_and(|m| m.is_file() && m.len() <= BYTES_MAX);
    let text = if fits { fs::read_to_string(path).unwrap_or_default() } else { String::new() };
    text.lines().filter_map(|line| lease(line, now)).collect()
}

/// A line is the end of the lease (0: never), the hardware address, the address, name and
/// identifier; leases of IPv6 have other fields.
fn lease(line: &str, now: u64) -> Option<Ipv4Addr> {
    let mut fields = line.split(' ');
    let end: u64 = fields.next()?.parse().ok()?;
    let address = fields.nth(1)?.parse().ok()?;
    (end == 0 || end > now).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_in_force_are_read_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("anywan-lent-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("writable");
        let text = "1000 02:00:00:00:00:01 10.1.0.5 * 01:02:00:00:00:00:01\n\
                    999 02:00:00:00:00:02 10.1.0.6 pc *\n0 02:00:00:00:00:03 10.1.0.7 * *\n\
                    nonsense\n1000 x\n1000 02:00:00:00:00:04 10.1.0.300 * *\n\
                    duid 00:01:00:01\n1000 1 fd00::5 * 00:01\n";
        fs::write(folder.join(FILE), text).expect("writable");
        let found: Vec<String> = read(&folder, 999).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.1.0.5", "10.1.0.7"]);
        fs::remove_file(folder.join(FILE)).expect("it is there");
        assert!(read(&folder, 0).is_empty(), "none is kept yet");
        fs::create_dir(folder.join(FILE)).expect("writable");
        assert!(read(&folder, 0).is_empty(), "a folder is no file");
        fs::remove_dir_all(folder).expect("it is there");
    }
}
