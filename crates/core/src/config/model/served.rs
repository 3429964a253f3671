//! What LANs are served with: names (DNS) and addresses (DHCP, router advertisements).

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::names::Mac;

/// DNS for LANs: there when the section is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Who is asked through a WAN that has no resolvers of its own, or only bad ones.
    pub upstreams: Vec<IpAddr>,
    /// How many names are remembered; 0: none.
    pub cache: u32,
    /// The domain of names on LANs, lower case, no dot at the end.
    pub domain: String,
    /// Names that are always known.
    pub hosts: Vec<StaticName>,
    /// Programs on this machine ask it too.
    pub resolv_conf: bool,
}

/// A name that is always known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StaticName {
    /// Its address.
    pub address: IpAddr,
    /// One or more labels, lower case, no dot at the end.
    pub name: String,
}

/// DHCP on one LAN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dhcp {
    /// The first and the last address to lend.
    pub range: (Ipv4Addr, Ipv4Addr),
    /// For how long, 2 min to 30 days.
    pub lease: Duration,
    /// Who always gets the same address.
    pub leases: Vec<Lease>,
    /// The router that clients are told; `None`: this one.
    pub router: Option<Ipv4Addr>,
    /// The DNS servers that clients are told; empty: this router.
    pub dns: Vec<IpAddr>,
    /// IPv6 routers and prefixes are announced too.
    pub ra: bool,
}

/// Who always gets the same address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lease {
    /// The hardware address.
    pub mac: Mac,
    /// What it gets.
    pub address: Ipv4Addr,
    /// What it is called.
    pub name: Option<String>,
}
