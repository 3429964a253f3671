//! What a DHCP server has given to a WAN: a fact like an address or a route. Made by `dhcp`, kept in
//! the state directory by the daemon, read by whoever needs a gateway or a name server.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::names::Mac;
use crate::time::Moment;

/// Static routes that are taken from one lease; a message has room for more, but no provider needs
/// them.
pub const STATIC_ROUTES_MAX: usize = 32;

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Its prefix length in bits.
    pub prefix: u8,
    /// The next router; some networks name none.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers, best first.
    pub dns: Vec<Ipv4Addr>,
    /// The domain of the network.
    pub domain: Option<String>,
    /// The largest packet that the network takes, 576 to 9000 bytes.
    pub mtu: Option<u16>,
    /// Other destinations and their routers (RFC 3442); no router: on the link.
    pub routes: Vec<(Ipv4Net, Option<Ipv4Addr>)>,
    /// Who gave it.
    pub server: Ipv4Addr,
    /// The hardware address that handed it over, the server's or its relay's.
    pub via: Mac,
    /// When it is over; `None`: never.
    pub until: Option<Moment>,
}
