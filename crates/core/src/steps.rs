//! What the daemon is told to do. A [`Step`] is one change of the kernel that follows from a
//! difference; it is idempotent. (`diff` and `expect` join it here.)

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Target;
use crate::names::{Family, Mark, WanId};
use crate::observed::{Key, Route, Rule};

/// One change of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Writes a kernel parameter (path below `/proc/sys`), whose first value before ours is
    /// remembered in the state directory.
    SetSysctl {
        /// The path, e.g. `net/ipv4/ip_forward`.
        path: String,
        /// The value.
        value: String,
    },
    /// Writes a remembered parameter back and forgets it.
    RestoreSysctl {
        /// The path.
        path: String,
        /// The value that it had before us.
        value: String,
    },
    /// Replaces our whole nftables table in one transaction.
    ReplaceTable {
        /// The fingerprint of the chains in it.
        fingerprint: u64,
        /// The text for `nft -f -`: creates, deletes and creates the table.
        text: String,
    },
    /// Changes elements of our maps, all in one transaction.
    ChangeElements(Vec<ElementChange>),
    /// Deletes our nftables table.
    DeleteTable,
    /// Adds a route, or replaces the one with the same table and metric.
    PutRoute(Route),
    /// Deletes a route.
    DeleteRoute(Route),
    /// Adds a rule.
    AddRule(Rule),
    /// Deletes a rule.
    DeleteRule(Rule),
}

/// One change of one map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElementChange {
    /// The map's name.
    pub map: String,
    /// The element.
    pub key: Key,
    /// The chain that it went to; `None` when it was not there.
    pub old: Option<String>,
    /// The chain that it goes to from now on; `None` takes it out. "" in a plain set.
    pub new: Option<String>,
}

/// A question to the world that an event answers. Not a change of the kernel's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Send one probe through one WAN only; answered by one [`ProbeResult`].
    Probe(Probe),
    /// Delete from conntrack the flows of a WAN that cannot be told to start anew: everything
    /// but established TCP. Answered by how many were deleted.
    Evacuate {
        /// The WAN whose flows they are.
        wan: WanId,
        /// IPv4 or IPv6.
        family: Family,
        /// The connection mark of its flows, and the mask under which it is compared.
        mark: (u32, u32),
    },
}

/// One question asked through one WAN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The WAN.
    pub wan: WanId,
    /// Who is asked; tells the family.
    pub target: Target,
    /// Counts up per WAN and family, so that an answer can be told from an older one.
    pub sequence: u64,
    /// The interface to bind to.
    pub device: String,
    /// The mark that the socket carries.
    pub mark: Mark,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// What became of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeResult {
    /// The WAN.
    pub wan: WanId,
    /// Who was asked.
    pub target: Target,
    /// The probe's number.
    pub sequence: u64,
    /// The round trip, or why there was none.
    pub outcome: Result<Duration, String>,
}
