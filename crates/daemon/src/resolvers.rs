//! Which resolvers other programs were told of when an interface got its address. In: the files in
//! which systemd-networkd, resolvconf (also as dhcpcd and pppd feed it) and dhclient note it. Out:
//! addresses by interface. Texts come from strangers: what is not an address is left out.

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
        let sources = [networkd(root, *index), resolvconf(root, name), dhclient(root, name)];
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

/// Addresses between spaces and commas, each once.
fn addresses<'a>(words: impl Iterator<Item = &'a str>) -> Vec<IpAddr> {
    let mut list = Vec::new();
    for word in words.flat_map(|words| words.split([' ', ',', '\t'])) {
        if let Ok(address) = word.trim().parse() {
            if !list.contains(&address) {
                list.push(address);
            }
        }
    }
    list
}

/// `/run/systemd/netif/leases/INDEX`: `DNS=192.0.2.1 192.0.2.2`.
fn networkd(root: &Path, index: u32) -> Vec<IpAddr> {
    let text = text(&root.join(format!("run/systemd/netif/leases/{index}")));
    addresses(text.lines().filter_map(|line| line.strip_prefix("DNS=")))
}

/// `/run/resolvconf/interfaces/NAME` and `NAME.PROGRAM`, each a piece of a resolv.conf; the newer
/// openresolv calls the folder `keys`.
fn resolvconf(root: &Path, name: &str) -> Vec<IpAddr> {
    let mut pieces = Vec::new();
    for folder in ["run/resolvconf/interfaces", "run/resolvconf/interface", "run/resolvconf/keys"] {
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
/// added last holds.
fn dhclient(root: &Path, name: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for file in ["dhclient.leases".to_owned(), format!("dhclient.{name}.leases")] {
        let text = text(&root.join("var/lib/dhcp").join(file));
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
    }

    #[test]
    fn what_is_no_address_is_left_out() {
        let text = "DNS=10.0.0.1 x 10.0.0.1 300.1.1.1\n";
        assert_eq!(of(&[("run/systemd/netif/leases/7", text)]), ["10.0.0.1"]);
    }
}
