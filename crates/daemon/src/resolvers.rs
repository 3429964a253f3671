//! Which resolvers other programs were told of when an interface got its address. In: the files in
//! which systemd-networkd, systemd-resolved (as NetworkManager tells it), resolvconf (also as dhcpcd and
//! pppd feed it), dhcpcd and dhclient (also NetworkManager's) note it. Out: addresses by interface.
//! Texts come from strangers: what is not an address is left out.
//!
//! NetworkManager with its own DHCP client and without systemd-resolved writes the servers of all
//! interfaces into one file, and what each was given nowhere: there is nothing to be read. Neither is
//! `/etc/resolv.conf` read, which may be ours.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

/// A file larger than this is none of those.
const BYTES_MAX: u64 = 256 * 1024;

/// The resolvers of these interfaces (by index), as their managers noted them below `root`.
pub fn read(root: &Path, interfaces: &BTreeMap<u32, String>) -> BTreeMap<String, Vec<IpAddr>> {
    let mut found = BTreeMap::new();
    for (index, name) in interfaces {
        let sources = [
            networkd(root, *index),
            resolved(root, *index),
            resolvconf(root, name),
            dhclient(root, name),
        ];
        if let Some(list) = sources.into_iter().find(|list| !list.is_empty()) {
            found.insert(name.clone(), list);
        }
    }
    found
}

fn text(path: &Path) -> String {
    let fits = fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= BYTES_MAX);
    if fits { fs::read_to_string(path).unwrap_or_default() } else { String::new() }
}

/// Addresses between spaces and commas, each once. Behind one systemd may have written the interface
/// (`%`) and the name of a server (`#`); one with a port of its own is none for us.
fn addresses<'a>(words: impl Iterator<Item = &'a str>) -> Vec<IpAddr> {
    let mut list = Vec::new();
    for word in words.flat_map(|words| words.split([' ', ',', '\t'])) {
        let address = word.trim().split(['%', '#']).next().unwrap_or_default();
        if let Ok(address) = address.parse() {
            if !list.contains(&address) {
                list.push(address);
            }
        }
    }
    list
}

/// `/run/systemd/netif/links/INDEX`: `DNS=192.0.2.1 2001:db8::1#dns.example`, of leases of both families,
/// of routers, and of the administrator; else `leases/INDEX`, which has only the IPv4 lease's.
fn networkd(root: &Path, index: u32) -> Vec<IpAddr> {
    let of = |kind: &str| {
        let text = text(&root.join(format!("run/systemd/netif/{kind}/{index}")));
        addresses(text.lines().filter_map(|line| line.strip_prefix("DNS=")))
    };
    let all = of("links");
    if all.is_empty() { of("leases") } else { all }
}

/// `/run/systemd/resolve/netif/INDEX`: `SERVERS=192.0.2.1 192.0.2.2`, as somebody told systemd-resolved.
fn resolved(root: &Path, index: u32) -> Vec<IpAddr> {
    let text = text(&root.join(format!("run/systemd/resolve/netif/{index}")));
    addresses(text.lines().filter_map(|line| line.strip_prefix("SERVERS=")))
}

/// Where pieces of a resolv.conf are, each for one interface.
const PIECES: [&str; 4] = [
    "run/resolvconf/interfaces",
    "run/resolvconf/interface",
    "run/resolvconf/keys",
    "run/dhcpcd/hook-state/resolv.conf",
];

/// `/run/resolvconf/interfaces/NAME` and `NAME.PROGRAM`, each a piece of a resolv.conf; the newer
/// openresolv calls the folder `keys`. dhcpcd keeps such pieces itself where there is no resolvconf.
fn resolvconf(root: &Path, name: &str) -> Vec<IpAddr> {
    let mut pieces = Vec::new();
    for folder in PIECES {
        let entries = fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        let own = paths.into_iter().filter(|path| {
            let file = path.file_name().and_then(|f| f.to_str()).unwrap_or_default();
            let rest = file.strip_prefix(name);
            // A dot also stands in the names of VLANs: the rest must be a program's.
            rest.is_some_and(|rest| {
                let program = rest.strip_prefix('.').unwrap_or(rest);
                rest.is_empty()
                    || (program != rest && program.starts_with(|c: char| c.is_ascii_alphabetic()))
            })
        });
        pieces.extend(own.map(|path| text(&path)));
    }
    addresses(pieces.iter().flat_map(|t| t.lines()).filter_map(|l| l.strip_prefix("nameserver ")))
}

/// `/var/lib/dhcp/dhclient.NAME.leases`, or one file for all with the name in each lease; what was
/// added last holds. NetworkManager's dhclient has a file for each connection.
fn dhclient(root: &Path, name: &str) -> Vec<IpAddr> {
    let mut files = ["dhclient.leases".to_owned(), format!("dhclient.{name}.leases")]
        .map(|file| root.join("var/lib/dhcp").join(file))
        .to_vec();
    let (first, last) = ("dhclient-", format!("-{name}.lease"));
    let entries = fs::read_dir(root.join("var/lib/NetworkManager")).into_iter().flatten().flatten();
    files.extend(entries.map(|entry| entry.path()).filter(|path| {
        let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
        file.starts_with(first) && file.ends_with(&last)
    }));
    // Of several connections the one that was used last.
    files.sort_by_key(|file| fs::metadata(file).and_then(|m| m.modified()).ok());
    let mut found = Vec::new();
    for file in files {
        let text = text(&file);
        for lease in text.split("lease {").skip(1) {
            let mut fields = lease.lines().map(str::trim);
            let own = format!("interface \"{name}\";");
            if fields.clone().any(|field| field == own) {
                let dns = fields.find_map(|f| f.strip_prefix("option domain-name-servers "));
                found = addresses(dns.map(|list| list.trim_end_matches(';')).into_iter());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempdir::Folder {
        let folder = tempdir::Folder::new();
        for (path, text) in files {
            let path = folder.0.join(path);
            fs::create_dir_all(path.parent().expect("below the root")).expect("writable");
            fs::write(path, text).expect("writable");
        }
        folder
    }

    mod tempdir {
        use std::sync::atomic::{AtomicU32, Ordering};

        pub(super) struct Folder(pub(super) std::path::PathBuf);

        impl Folder {
            pub(super) fn new() -> Folder {
                static COUNT: AtomicU32 = AtomicU32::new(0);
                let n = COUNT.fetch_add(1, Ordering::Relaxed);
                let name = format!("anywan-resolvers-{}-{n}", std::process::id());
                let path = std::env::temp_dir().join(name);
                std::fs::create_dir_all(&path).expect("writable");
                Folder(path)
            }
        }

        impl Drop for Folder {
            fn drop(&mut self) {
                let _ = std::fs::remove_dir_all(&self.0);
            }
        }
    }

    fn of(files: &[(&str, &str)]) -> Vec<String> {
        let folder = root(files);
        let interfaces = BTreeMap::from([(7, "eth0".to_owned())]);
        let found = read(&folder.0, &interfaces).remove("eth0").unwrap_or_default();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_manager_notes_what_it_was_told() {
        let networkd = "# private\nADDRESS=10.0.0.5\nDNS=10.0.0.1 10.0.0.2\nNTP=10.0.0.3\n";
        assert_eq!(of(&[("run/systemd/netif/leases/7", networkd)]), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(of(&[("run/systemd/netif/leases/8", networkd)]), [""; 0]);
        let piece = "search x\nnameserver 10.0.0.1\nnameserver fd00::1\n";
        for path in ["run/resolvconf/interfaces/eth0", "run/resolvconf/interface/eth0.dhclient"] {
            assert_eq!(of(&[(path, piece)]), ["10.0.0.1", "fd00::1"], "{path}");
        }
        for path in ["run/resolvconf/interfaces/eth0.20", "run/resolvconf/interfaces/eth01"] {
            assert_eq!(of(&[(path, piece)]), [""; 0], "{path}");
        }
        let link = "# This is private data. Do not parse.\nADMIN_STATE=configured\n\
                    OPER_STATE=routable\nNETWORK_FILE=/etc/systemd/network/wan.network\n\
                    DNS=10.0.0.1 10.0.0.2:5353 fd00::1#dns.example fe80::1%eth0\nNTP=10.0.0.3\n\
                    DOMAINS=\nLLMNR=yes\n";
        let linked = ["10.0.0.1", "fd00::1", "fe80::1"];
        assert_eq!(of(&[("run/systemd/netif/links/7", link)]), linked);
        let both = [("run/systemd/netif/leases/7", networkd), ("run/systemd/netif/links/7", link)];
        assert_eq!(of(&both), linked);
        let resolved = "# This is private data. Do not parse.\nLLMNR=yes\nMDNS=no\n\
                        SERVERS=10.0.0.1 fd00::1\nDOMAINS=home.arpa\n";
        assert_eq!(of(&[("run/systemd/resolve/netif/7", resolved)]), ["10.0.0.1", "fd00::1"]);
        let dhcpcd = "# Generated by dhcpcd from eth0.dhcp\nnameserver 10.0.0.1\n";
        let announced = "# Generated by dhcpcd from eth0.ra\nnameserver fd00::1\n";
        let pieces = [
            ("run/dhcpcd/hook-state/resolv.conf/eth0.dhcp", dhcpcd),
            ("run/dhcpcd/hook-state/resolv.conf/eth0.ra", announced),
        ];
        assert_eq!(of(&pieces), ["10.0.0.1", "fd00::1"]);
        let lease = |interface: &str, server: &str| {
            format!(
                "lease {{\n  interface \"{interface}\";\n  fixed-address 10.0.0.5;\n  \
                 option domain-name-servers {server},10.0.0.9;\n}}\n"
            )
        };
        let leases =
            [lease("eth0", "10.0.0.1"), lease("eth0", "10.0.0.2"), lease("eth1", "10.0.0.3")];
        let one = ("var/lib/dhcp/dhclient.leases", leases.concat());
        assert_eq!(of(&[(one.0, one.1.as_str())]), ["10.0.0.2", "10.0.0.9"]);
        let name = "5b4e2a6c-0f3d-4c2b-9d0e-7a1f2b3c4d5e";
        for (interface, found) in [("eth0", &["10.0.0.2", "10.0.0.9"][..]), ("eth1", &[])] {
            let path = format!("var/lib/NetworkManager/dhclient-{name}-{interface}.lease");
            assert_eq!(of(&[(path.as_str(), one.1.as_str())]), found, "{interface}");
        }
    }

    #[test]
    fn what_is_no_address_is_left_out() {
        let text = "DNS=10.0.0.1 x 10.0.0.1 300.1.1.1\n";
        assert_eq!(of(&[("run/systemd/netif/leases/7", text)]), ["10.0.0.1"]);
    }
}
