//! Which resolvers somebody was told of together with an address: our own pppd knows the WAN, whoever
//! else manages an interface knows only that, as do router advertisements. What our DHCP client was told
//! is in the lease.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::names::IfIndex;
use crate::time::Moment;

/// Resolvers, in the order in which they were given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resolvers {
    /// Told to a pppd of ours, by the WAN's name.
    pub by_wan: BTreeMap<String, Vec<IpAddr>>,
    /// Told to whoever else manages an interface (a lease, a router advertisement), by its name.
    pub by_interface: BTreeMap<String, Vec<IpAddr>>,
    /// Announced by routers on a link, and until when each holds; `None`: for ever.
    #[serde(default)]
    pub announced: BTreeMap<IfIndex, BTreeMap<Ipv6Addr, Option<Moment>>>,
}
