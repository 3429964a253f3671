//! Kernel parameters. Each is asked for only where it must differ, so what somebody set on
//! purpose stays.

use std::collections::{BTreeMap, BTreeSet};

use super::{Basis, cpu};
use crate::config::{Addressing, Config, Cpu};
use crate::names::Family;
use crate::observed::{CpuFile, Observed};

/// Parameters that have one value wherever anywan runs.
const EVERYWHERE: [(&str, &str); 6] = [
    // A WAN without carrier is left by the kernel itself. For IPv6 this is set on each WAN: there
    // `all` would overwrite every interface's own value.
    ("net/ipv4/conf/all/ignore_routes_with_linkdown", "1"),
    // The router's own connections spread by port, not only by address.
    ("net/ipv4/fib_multipath_hash_policy", "1"),
    ("net/ipv6/fib_multipath_hash_policy", "1"),
    // So that entries report their end even when they are older than the listener.
    ("net/netfilter/nf_conntrack_events", "1"),
    ("net/ipv4/ip_forward", "1"),
    (FORWARDING6, "1"),
];

const FORWARDING6: &str = "net/ipv6/conf/all/forwarding";

/// The parameters that decisions here depend on, to be read by the daemon.
pub fn watched(config: &Config, observed: &Observed) -> BTreeSet<String> {
    let mut paths: BTreeSet<String> = EVERYWHERE.iter().map(|(p, _)| (*p).to_owned()).collect();
    paths.insert("net/ipv4/conf/all/rp_filter".to_owned());
    paths.insert("net/ipv4/conf/all/send_redirects".to_owned());
    for device in devices(config, observed) {
        for name in ["ipv4/conf/*/rp_filter", "ipv4/conf/*/send_redirects"] {
            paths.insert(format!("net/{}", name.replace('*', device)));
        }
        for name in ["ipv6/conf/*/accept_ra", "ipv6/conf/*/ignore_routes_with_linkdown"] {
            paths.insert(format!("net/{}", name.replace('*', device)));
        }
    }
    paths.extend(promotions(config, observed));
    if config.cpu == Cpu::Auto {
        paths.insert(cpu::FLOW_ENTRIES.to_owned());
    }
    paths.extend(observed.sysctls_before.keys().cloned());
    paths
}

/// What the parameters must be.
pub(super) fn values(basis: Basis<'_>) -> BTreeMap<String, String> {
    let seen = |path: &str| basis.observed.sysctls.get(path).map(String::as_str);
    let mut values = BTreeMap::new();
    let mut want = |path: String, value: &str| {
        // What this kernel does not have cannot be set.
        if basis.observed.sysctls.contains_key(&path) {
            values.insert(path, value.to_owned());
        }
    };
    // Forwarding makes the kernel deaf to router advertisements elsewhere: only where it serves.
    let ipv6 = basis.choice.get(Family::Ipv6).is_present();
    for (path, value) in EVERYWHERE {
        if path != FORWARDING6 || ipv6 {
            want(path.to_owned(), value);
        }
    }
    let strict = seen("net/ipv4/conf/all/rp_filter") == Some("1");
    for device in devices(basis.config, basis.observed) {
        let rp_filter = format!("net/ipv4/conf/{device}/rp_filter");
        // The kernel uses the larger of `all` and the interface's own: 2 is loose.
        if strict || seen(&rp_filter) == Some("1") {
            want(rp_filter, "2");
        }
        want(format!("net/ipv6/conf/{device}/ignore_routes_with_linkdown"), "1");
        let accept_ra = format!("net/ipv6/conf/{device}/accept_ra");
        // 1 means "not while forwarding"; 0 is somebody's purpose (NetworkManager's).
        if ipv6 && seen(&accept_ra) == Some("1") {
            want(accept_ra, "2");
        }
    }
    for path in promotions(basis.config, basis.observed) {
        want(path, "1");
    }
    let shared = |name: &str| basis.config.lans.iter().any(|l| l.interface == name);
    if basis.config.wans.iter().any(|w| shared(&w.interface)) {
        // The kernel takes the OR of `all` and the interface's own.
        want("net/ipv4/conf/all/send_redirects".to_owned(), "0");
        for device in devices(basis.config, basis.observed).filter(|d| shared(d)) {
            want(format!("net/ipv4/conf/{device}/send_redirects"), "0");
        }
    }
    let flows = |file: &CpuFile| matches!(file, CpuFile::Flows { .. });
    if let Some(entries) = cpu::flow_entries(basis.observed) {
        if cpu::values(basis.config, basis.observed).keys().any(flows) {
            want(cpu::FLOW_ENTRIES.to_owned(), &entries.to_string());
        }
    }
    values
}

/// Where addresses are ours: when the first of a subnet goes, the kernel takes all others of that
/// subnet with it, unless this says that the next is promoted.
fn promotions(config: &Config, observed: &Observed) -> BTreeSet<String> {
    let wans = config.wans.iter().filter(|wan| wan.address != Addressing::Observe);
    let there = wans.filter(|wan| observed.link_named(&wan.interface).is_some());
    there.map(|wan| format!("net/ipv4/conf/{}/promote_secondaries", wan.interface)).collect()
}

/// What we changed once and no longer need, with the value that it had.
pub(super) fn obsolete(basis: Basis<'_>) -> BTreeMap<String, String> {
    let wanted = values(basis);
    let devices: BTreeSet<&str> = devices(basis.config, basis.observed).collect();
    basis
        .observed
        .sysctls_before
        .iter()
        .filter(|(path, _)| !wanted.contains_key(*path) && !still_ours(path, &devices))
        .filter(|(path, _)| *path != cpu::FLOW_ENTRIES || !unread(basis))
        .filter(|(path, _)| basis.observed.sysctls.contains_key(*path))
        .map(|(path, value)| (path.clone(), value.clone()))
        .collect()
}

/// `rp_filter` and `accept_ra` are wanted only where they were strict; once raised they stay so
/// for as long as the interface is a WAN's.
fn still_ours(path: &str, devices: &BTreeSet<&str>) -> bool {
    let mut parts = path.rsplit('/');
    let (leaf, device) = (parts.next(), parts.next());
    matches!(leaf, Some("rp_filter" | "accept_ra")) && device.is_some_and(|d| devices.contains(d))
}

/// Which CPUs there are is read last: until then nobody knows whether they are needed.
fn unread(basis: Basis<'_>) -> bool {
    basis.config.cpu == Cpu::Auto && basis.observed.cpus.usable.is_empty()
}

/// The interfaces of WANs that exist now, each once.
fn devices<'a>(config: &'a Config, observed: &Observed) -> impl Iterator<Item = &'a str> {
    let names: BTreeSet<&str> = config
        .wans
        .iter()
        .map(|w| w.interface.as_str())
        .filter(|name| observed.link_named(name).is_some())
        .collect();
    names.into_iter()
}
