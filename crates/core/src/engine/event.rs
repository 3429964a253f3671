//! What the world tells the engine, and what the engine tells people. Facts come complete: a dump,
//! never a difference, so that an event that is lost or comes twice changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::DhcpNews;
use crate::api::Problem;
use crate::config::Config;
use crate::names::{Family, IfIndex, Mac, RulePriority, WanId};
use crate::observed::{
    Address, ChildEnd, Cpus, Dialling, Link, Neighbour, Nft, ResolvConf, Route, Rule, Running,
    TcpFlow, Traffic,
};
use crate::resolvers::Said;
use crate::steps::{ProbeResult, Step};
use crate::time::Moment;

#[cfg(doc)]
use super::Engine;

/// Something that happened. Facts come complete: a dump, never a difference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// All interfaces.
    Links(BTreeMap<IfIndex, Link>),
    /// All addresses.
    Addresses(BTreeSet<Address>),
    /// All default routes of main and of ours.
    Routes(BTreeSet<Route>),
    /// All ip rules.
    Rules {
        /// Ours.
        ours: BTreeSet<Rule>,
        /// Where those of others stand.
        foreign: BTreeSet<(Family, RulePriority)>,
    },
    /// All neighbours with a hardware address.
    Neighbours(BTreeMap<Neighbour, Mac>),
    /// The parameters of [`Engine::watched_sysctls`], and what we changed them from.
    Sysctls {
        /// Their present values.
        now: BTreeMap<String, String>,
        /// The values before ours, of those that we changed.
        before: BTreeMap<String, String>,
    },
    /// The CPUs, and the queues and interrupts of [`Engine::watched_interfaces`]. Not waited for:
    /// traffic is steered before it is spread.
    Cpus(Cpus),
    /// Our nftables table.
    Nft(Nft),
    /// Whether somebody else is told how flows begin and change.
    Followed(bool),
    /// The fate of a probe.
    Probe(ProbeResult),
    /// What a resolver said to [`Ask::Consult`](crate::steps::Ask::Consult), or nothing.
    Consulted {
        /// The WAN.
        wan: WanId,
        /// The resolver.
        server: IpAddr,
        /// The question's number.
        sequence: u64,
        /// The answer.
        said: Option<Said>,
    },
    /// The resolvers that others were told of, by interface.
    Resolvers(BTreeMap<String, Vec<IpAddr>>),
    /// The addresses that hosts on LANs have been lent.
    Lent(BTreeSet<Ipv4Addr>),
    /// A router has announced resolvers on a link. It comes once: the kernel does not keep it.
    Announced {
        /// The link.
        device: IfIndex,
        /// The resolvers.
        resolvers: Vec<Ipv6Addr>,
        /// For how long they hold; `None`: for ever.
        lives: Option<Duration>,
    },
    /// The file that tells this machine's own programs whom to ask. Not waited for.
    ResolvConf(ResolvConf),
    /// What the WANs' flows have sent and got so far.
    Traffic(BTreeMap<(WanId, Family), Traffic>),
    /// The programs that we run and that run now.
    Children(BTreeMap<String, Running>),
    /// One of them has ended, and not because we wanted it to.
    ChildEnded(ChildEnd),
    /// The ends of the logs of [`Engine::watched_logs`], of those programs that run or have just
    /// ended.
    Logs(BTreeMap<String, String>),
    /// The answer to [`Ask::Look`](crate::steps::Ask::Look).
    Dialling(Dialling),
    /// A modem was given a new start, or not.
    Reset {
        /// The WAN's name.
        wan: String,
        /// Why not.
        error: Option<String>,
    },
    /// A step could not be carried out.
    StepFailed {
        /// The step.
        step: Step,
        /// Why.
        error: String,
    },
    /// An evacuation was carried out.
    Evacuated {
        /// The WAN.
        wan: WanId,
        /// The family.
        family: Family,
        /// How many flows were deleted.
        deleted: u64,
    },
    /// The flows of a WAN that nobody had answered were looked for.
    Unanswered {
        /// The WAN.
        wan: WanId,
        /// The family.
        family: Family,
        /// How many were deleted.
        deleted: u64,
    },
    /// The clients of a lost WAN's TCP flows were woken.
    Woken {
        /// The WAN.
        wan: WanId,
        /// The family.
        family: Family,
        /// How many flows it still had.
        flows: u64,
    },
    /// The kernel has deleted the entries of TCP flows that were not over.
    Gone(Vec<TcpFlow>),
    /// These could not be refused: our table may have gone while it was asked.
    NotRefused(Vec<TcpFlow>),
    /// Flows that began while our table was gone were looked for.
    Untranslated {
        /// The family.
        family: Family,
        /// How many flows were deleted.
        deleted: u64,
    },
    /// The flows of a retiring WAN were counted.
    Flows {
        /// The WAN.
        wan: WanId,
        /// How many it has, of both families.
        count: u64,
    },
    /// Flows that had lingered were told to start anew.
    Released {
        /// The WAN.
        wan: WanId,
        /// The family.
        family: Family,
        /// How many there were.
        flows: u64,
    },
    /// What a DHCP server, or somebody who has an address already, said on a WAN's link.
    Dhcp {
        /// The WAN.
        wan: WanId,
        /// What was heard.
        news: DhcpNews,
    },
    /// Somebody takes a WAN out of service, or puts it back.
    Drain {
        /// The WAN.
        wan: WanId,
        /// Whether it is out of service.
        drained: bool,
    },
    /// Somebody begins a drill that [`Engine::plan_drill`] allows.
    Drill {
        /// The WAN to cut off.
        wan: WanId,
        /// For how long, unless [`Event::DrillOver`] comes before.
        span: Duration,
    },
    /// The drill is to end at once; the text says why.
    DrillOver(String),
    /// A new configuration.
    Config(Box<Config>),
    /// The daemon itself has a problem (or, by the same code and place, has it no longer).
    Problem(Problem),
    /// That problem is over.
    Solved {
        /// Its code.
        code: String,
        /// What it was about.
        at: String,
    },
    /// Take everything of ours out.
    Leave,
}

/// Something that a person may want to follow, stamped by the daemon's clock outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happening {
    /// When.
    pub at: Moment,
    /// `state`, `choice`, `told`, `drain`, `linger`, `drill`, `dial`, `repair`, `foreign`, `problem`,
    /// `solved`, `config`.
    pub kind: &'static str,
    /// The WAN concerned, or empty.
    pub wan: String,
    /// The family concerned.
    pub family: Option<Family>,
    /// What was.
    pub old: String,
    /// What is.
    pub new: String,
    /// Why.
    pub reason: String,
}
