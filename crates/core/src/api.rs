//! The only types that cross a socket: what people and programs see of a running daemon.
//! Versioned; a change that breaks readers raises [`API_VERSION`].

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The version of everything in this file.
pub const API_VERSION: u32 = 1;

/// Anything a person should know, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// Stable and documented, e.g. `config.unknown-key`, `wan.interface-missing`.
    pub code: String,
    /// What it is about, e.g. `wan[1].gateway` or `wan lte`.
    pub at: String,
    /// What is wrong, one sentence without a full stop.
    pub what: String,
    /// What to do, empty when nothing can be advised.
    pub hint: String,
}

/// What `anywan doctor` prints with `--json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// [`API_VERSION`].
    pub version: u32,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
    /// Who does the work of the interfaces; nothing without a configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
}

/// Which CPUs do the work of the interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The CPUs that may be given work: `0-3`.
    pub cpus: String,
    /// `irqbalance` runs, and interrupts are left to it.
    pub balanced: bool,
    /// Interface by interface, its interrupts before its queues.
    pub lines: Vec<Placed>,
}

/// Which CPUs do one thing for an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// The interface.
    pub interface: String,
    /// What is done: `interrupt 41`, `receive queue 0, handed on (RPS)`.
    pub what: String,
    /// By whom now: `CPU 1-3`; how many flows are followed (RFS).
    pub now: String,
    /// By whom anywan would have it done, where that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<String>,
    /// It cannot be moved.
    pub fixed: bool,
}

/// One thing that `anywan doctor` has found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub grade: Grade,
    /// What it is, and what to do about it.
    #[serde(flatten)]
    pub problem: Problem,
}

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// Something does not work, or not for long.
    Wrong,
    /// Good to know; whether it matters, only a person can tell.
    Note,
}

/// The state of one WAN and family, as people see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not judged yet.
    Unknown,
    /// Works.
    Up,
    /// A probe went unanswered; being asked about at once.
    Suspect,
    /// Works, but loses too much, is too slow, or does not carry a service.
    Impaired,
    /// Somebody else answers in the place of the internet (a captive portal).
    Portal,
    /// Does not work.
    Down,
    /// Works again, but not for long enough to be trusted.
    Recovering,
}

impl State {
    /// Whether connections work: one that is being asked about still does.
    pub fn works(self) -> bool {
        matches!(self, State::Up | State::Suspect)
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            State::Unknown => "unknown",
            State::Up => "up",
            State::Suspect => "suspect",
            State::Impaired => "impaired",
            State::Portal => "portal",
            State::Down => "down",
            State::Recovering => "recovering",
        })
    }
}

/// What `anywan status --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`API_VERSION`].
    pub version: u32,
    /// Every WAN, in file order.
    pub wans: Vec<WanStatus>,
    /// Everything a person should know now.
    pub problems: Vec<Problem>,
}

/// One WAN in [`Status`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WanStatus {
    /// Its name.
    pub name: String,
    /// Its stable number.
    pub number: u8,
    /// Its interface.
    pub interface: String,
    /// Lower is preferred.
    pub priority: u8,
    /// The share among equals.
    pub weight: u16,
    /// Taken out of service by hand.
    pub drained: bool,
    /// The share of new IPv4 connections (of IPv6 ones where IPv4 is off), 0 to 100.
    pub share_percent: f64,
    /// Its IPv4 side.
    pub ipv4: FamilyStatus,
    /// Its IPv6 side.
    pub ipv6: FamilyStatus,
}

/// One WAN's one family in [`Status`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FamilyStatus {
    /// What we conclude.
    pub state: State,
    /// The share of new connections of this family, 0 to 100.
    pub share_percent: f64,
    /// The next hop; `null` where there is none or the line is point to point.
    pub gateway: Option<String>,
    /// Our own address.
    pub address: Option<String>,
    /// Where that comes from.
    #[serde(default)]
    pub address_from: Option<AddressFrom>,
    /// When its lease is over unless it is renewed: RFC 3339, UTC; `null` where that is not ours to
    /// know, or never.
    #[serde(default)]
    pub address_until: Option<String>,
    /// The smoothed round trip, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Probes lost of the last hundred, 0 to 100.
    pub loss_percent: Option<f64>,
    /// The smoothed deviation of round trips, in milliseconds.
    pub jitter_ms: Option<f64>,
    /// When the state began: RFC 3339, UTC.
    pub since: String,
    /// Why it is so.
    pub reason: String,
}

/// Where an address comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressFrom {
    /// Somebody else has put it there.
    Observed,
    /// The configuration.
    Static,
    /// A lease of our own DHCP client.
    Dhcp,
    /// The far end of a line that we dial.
    Ppp,
}

impl std::fmt::Display for AddressFrom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            AddressFrom::Observed => "observed",
            AddressFrom::Static => "static",
            AddressFrom::Dhcp => "dhcp",
            AddressFrom::Ppp => "ppp",
        })
    }
}

/// What a drill would do; `GET /v1/drill`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillPlan {
    /// [`API_VERSION`].
    pub version: u32,
    /// The WAN that would be cut off.
    pub wan: String,
    /// Its share of new connections now, 0 to 100.
    pub share_percent: f64,
    /// The other WANs that work.
    pub others: Vec<String>,
    /// The families (`ipv4`, `ipv6`) that no other WAN has: nothing can take over.
    pub alone: Vec<String>,
    /// Its own addresses, by which a connection through it can be bound.
    pub addresses: Vec<IpAddr>,
    /// Who of its targets may take TCP connections.
    pub targets: Vec<SocketAddr>,
}

/// One line of a running drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillLine {
    /// Milliseconds since the cut.
    pub ms: u64,
    /// What happened: `cut`, `mended`, `back`, or as in [`Notice::kind`].
    pub kind: String,
    /// `ipv4`, `ipv6` or empty.
    pub family: String,
    /// What was.
    pub old: String,
    /// What is.
    pub new: String,
    /// Why.
    pub reason: String,
}

/// One line of `anywan events --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// When: RFC 3339, UTC.
    pub time: String,
    /// What happened: `state`, `choice`, `told`, `drain`, `linger`, `drill`, `dial`, `repair`,
    /// `foreign`, `problem`, `solved`, `config`; `lost` where notices were not read in time.
    pub kind: String,
    /// The WAN concerned, empty when none is.
    pub wan: String,
    /// `ipv4`, `ipv6` or empty.
    pub family: String,
    /// What was.
    pub old: String,
    /// What is.
    pub new: String,
    /// Why.
    pub reason: String,
}

/// What `anywan plan` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// [`API_VERSION`].
    pub version: u32,
    /// The steps that would be taken, in order; none when the kernel is as it should be.
    pub steps: Vec<String>,
}
