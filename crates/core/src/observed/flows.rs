//! What the world says about flows: those whose clients may be waiting, and how much each WAN
//! carries. Read when asked for, never part of [`Observed`](super::Observed).

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::names::Family;

/// A TCP flow in its original direction, with both ends as the client sees them: before any
/// translation of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TcpFlow {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Who began it.
    pub client: SocketAddr,
    /// Whom the client believes to talk to.
    pub server: SocketAddr,
    /// The client's address as the server sees it: after translation.
    pub outside: IpAddr,
    /// Its whole connection mark, other programs' bits included.
    pub mark: u32,
}

/// How many packets the flows of one WAN and family have sent and received since our table was
/// loaded. Only pinned flows are counted: no broadcasts, scans or probes. Loading the table anew
/// begins again at zero, so a number that shrank says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets sent out through it, in packets.
    pub out: u64,
    /// Packets that came back through it, in packets.
    pub back: u64,
}
