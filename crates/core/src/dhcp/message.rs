//! What a client and a server say to each other, as plain values; the daemon makes bytes of them.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::names::Mac;

/// What a client wants done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// This message sent.
    Send(Message),
    /// Everybody on the link asked who has this address.
    Check(Ipv4Addr),
}

/// What a client says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Who gives addresses?
    Discover,
    /// May I have, or keep, this one?
    Request,
    /// Somebody else has it.
    Decline,
    /// I no longer need it.
    Release,
}

/// A client's message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// What it says.
    pub kind: Kind,
    /// By which the answer is known.
    pub xid: u32,
    /// How long it has been asking.
    pub seconds: u16,
    /// The answer is to go to everybody.
    pub broadcast: bool,
    /// The own address, where it has one.
    pub own: Option<Ipv4Addr>,
    /// The address asked for.
    pub wanted: Option<Ipv4Addr>,
    /// The server spoken to.
    pub server: Option<Ipv4Addr>,
    /// To whom it goes; `None`: to everybody.
    pub to: Option<(Ipv4Addr, Mac)>,
}

/// What a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// You might have this address.
    Offer,
    /// It is yours.
    Ack,
    /// It is not.
    Nak,
}

/// A server's message to us. As it came: nothing in it is believed yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// What it says.
    pub verdict: Verdict,
    /// The question that it answers.
    pub xid: u32,
    /// The address for us.
    pub address: Ipv4Addr,
    /// Who says it.
    pub server: Option<Ipv4Addr>,
    /// The hardware address that it came from.
    pub via: Mac,
    /// The network's mask.
    pub mask: Option<Ipv4Addr>,
    /// Routers, best first.
    pub routers: Vec<Ipv4Addr>,
    /// Name servers, best first.
    pub dns: Vec<Ipv4Addr>,
    /// The network's domain.
    pub domain: Option<String>,
    /// The largest packet.
    pub mtu: Option<u16>,
    /// Classless static routes (RFC 3442).
    pub routes: Vec<(Ipv4Net, Ipv4Addr)>,
    /// How long the lease is, in seconds.
    pub seconds: Option<u32>,
    /// T1 and T2, in seconds.
    pub renewal: Option<u32>,
    /// See above.
    pub rebinding: Option<u32>,
}
