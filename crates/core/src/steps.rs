//! What the daemon is told to do. A [`Step`] is one change of the kernel that follows from a
//! difference; it is idempotent, and [`expect`] says what it does to [`Observed`]. An [`Ask`] is
//! a question to the world that an event answers. Nothing else leaves the core.

mod diff;
mod model;
mod show;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Target;
use crate::desired::Program;
use crate::dhcp::Order;
use crate::names::{Family, IfIndex, Mac, Mark, WanId};
use crate::observed::{
    CpuFile, Elements, Key, Observed, OwnAddress, Route, Rule, Structure, TcpFlow,
};

pub use diff::diff;

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
    /// Says which CPUs serve a queue or an interrupt; what the file said before ours is remembered
    /// in the state directory.
    SetCpus {
        /// The file.
        file: CpuFile,
        /// What it is to say.
        value: String,
    },
    /// Writes back what such a file said, and forgets it.
    RestoreCpus {
        /// The file.
        file: CpuFile,
        /// What it said before us.
        value: String,
    },
    /// Replaces our whole nftables table in one transaction.
    ReplaceTable {
        /// The fingerprint of the chains in it.
        fingerprint: u64,
        /// The text for `nft -f -`: creates, deletes and creates the table.
        text: String,
        /// Chains in it that are deleted as soon as it is loaded.
        interim: Vec<String>,
        /// The elements that it brings, by map.
        maps: BTreeMap<String, Elements>,
    },
    /// Changes elements of our maps, all in one transaction.
    ChangeElements(Vec<ElementChange>),
    /// Deletes our nftables table.
    DeleteTable,
    /// Sets an interface up.
    SetUp(IfIndex),
    /// Adds an address of ours, or says anew how long it lives.
    PutAddress(OwnAddress),
    /// Deletes an address of ours.
    DeleteAddress(OwnAddress),
    /// Adds a route, or replaces the one with the same destination, table and metric.
    PutRoute(Route),
    /// Deletes a route.
    DeleteRoute(Route),
    /// Adds a rule.
    AddRule(Rule),
    /// Deletes a rule.
    DeleteRule(Rule),
    /// Starts a program of ours.
    StartChild {
        /// Our name for it.
        name: String,
        /// The program.
        program: Program,
    },
    /// Has a program of ours read its files again, which are written anew.
    ReloadChild {
        /// Our name for it.
        name: String,
        /// The program.
        program: Program,
    },
    /// Asks a program of ours to end; one that does not is killed. Nobody waits for it.
    StopChild {
        /// Our name for it.
        name: String,
    },
    /// Has this machine's own programs ask our dnsmasq; the file that was there is kept in the state
    /// directory, unless it is ours.
    TakeResolvConf {
        /// Its text.
        text: String,
    },
    /// Puts back the file that was there before ours, and forgets it. One that is not ours stays.
    GiveBackResolvConf,
}

impl Step {
    /// Whether packets may take another way for want of it.
    pub fn steers(&self) -> bool {
        let table = matches!(self, Step::ReplaceTable { .. } | Step::ChangeElements(_));
        let routes = matches!(self, Step::PutRoute(_) | Step::DeleteRoute(_));
        table || routes || matches!(self, Step::AddRule(_) | Step::DeleteRule(_))
    }

    /// Whether it is about programs of ours, not about the kernel.
    pub fn is_of_children(&self) -> bool {
        matches!(self, Step::StartChild { .. } | Step::ReloadChild { .. } | Step::StopChild { .. })
    }

    /// Whether it is about this machine's resolv.conf.
    pub fn is_of_resolv_conf(&self) -> bool {
        matches!(self, Step::TakeResolvConf { .. } | Step::GiveBackResolvConf)
    }
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
    /// Ask one resolver for a name, through its WAN only; answered by what it said. The probe's
    /// target says whom and for what.
    Consult(Probe),
    /// Read how many packets the flows of each WAN have sent and got so far.
    CountTraffic,
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
    /// Delete from conntrack the translated flows of a WAN that nobody has answered yet: their next
    /// packet begins anew. Answered by how many there were.
    Unanswered {
        /// The WAN whose flows they are.
        wan: WanId,
        /// IPv4 or IPv6.
        family: Family,
        /// The connection mark of its flows, and the mask under which it is compared.
        mark: (u32, u32),
    },
    /// Make the clients of a lost WAN's TCP flows send something, so that our table can tell them
    /// to start anew. Answered by how many there were. In the place of those that are still to be
    /// woken since the last time: who is told needs no second call.
    Wake {
        /// The WAN whose flows they are.
        wan: WanId,
        /// IPv4 or IPv6.
        family: Family,
        /// The connection mark of its flows, and the mask under which it is compared.
        mark: (u32, u32),
    },
    /// The WAN is not lost any more: its clients that are still to be woken need not be. One that
    /// has been told already would answer with a reset, which the WAN would carry to the server.
    LetSleep {
        /// IPv4 or IPv6.
        family: Family,
        /// The connection mark of its flows, and the mask under which it is compared.
        mark: (u32, u32),
    },
    /// The kernel has deleted the entries of these flows, and they cannot go on: have our table
    /// refuse their packets for a while, and make their clients send some.
    Refuse {
        /// The flows.
        flows: Vec<TcpFlow>,
    },
    /// Tell the flows of a WAN that works, but is to be left, to start anew: those that somebody
    /// behind it began and that are translated. Answered by how many there were.
    Release {
        /// The WAN whose flows they are.
        wan: WanId,
        /// IPv4 or IPv6.
        family: Family,
        /// The connection mark of its flows, and the mask under which it is compared.
        mark: (u32, u32),
        /// The router's own addresses: flows to them came from outside, and stay.
        own: Vec<IpAddr>,
    },
    /// Delete from conntrack the flows that began while our table was gone: from a LAN to a
    /// destination that nobody but us routes, and untranslated though they leave by a WAN that
    /// translates. The kernel never translates a flow that it knows; one that it has forgotten
    /// starts anew with its next packet. Answered by how many were deleted.
    Untranslated {
        /// IPv4 or IPv6.
        family: Family,
        /// The interfaces of the LANs.
        lans: BTreeSet<IfIndex>,
        /// The mark under which a look-up tells whether anyone but us knows a destination.
        question: Mark,
        /// The mask under which connection marks are compared.
        mask: u32,
        /// Connection marks, under the mask, of flows that are right as they are.
        right: BTreeSet<u32>,
    },
    /// Say something as a WAN's DHCP client. What is heard comes as events, whenever it comes.
    Dhcp {
        /// The WAN.
        wan: WanId,
        /// Its interface.
        device: IfIndex,
        /// The interface's hardware address.
        mac: Mac,
        /// What to say.
        order: Order,
    },
    /// Look whether serial ports are there, and what is in files with passwords. Answered by all.
    Look {
        /// The serial ports.
        devices: BTreeSet<String>,
        /// The files with passwords.
        secrets: BTreeSet<String>,
        /// The USB ports that are to be on the bus, in the first look only: a reset that an earlier
        /// daemon did not live to end has left them off it.
        ports: BTreeSet<String>,
    },
    /// Give a modem a new start. Answered when that is over, which may take a minute.
    Reset {
        /// The WAN's name.
        wan: String,
        /// How.
        how: Reset,
    },
    /// Ask the routers on a link to announce themselves now. What they announce comes as events.
    Solicit {
        /// The link.
        device: IfIndex,
    },
    /// Count the flows that a retiring WAN still has. Answered by the number.
    CountFlows {
        /// The WAN whose flows they are.
        wan: WanId,
        /// The connection mark of its flows, and the mask under which it is compared.
        mark: (u32, u32),
    },
}

/// How a modem is given a new start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reset {
    /// By an AT command.
    Command {
        /// Its serial port.
        device: String,
        /// The command.
        command: String,
    },
    /// By taking it off the USB bus and putting it back.
    Usb {
        /// Its place there.
        port: String,
    },
    /// By a command of the user's own, for a shell.
    Own {
        /// The command.
        command: String,
    },
}

/// One probe: a question asked through one WAN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The WAN.
    pub wan: WanId,
    /// The family over which it is asked.
    pub family: Family,
    /// Who is asked; serves the family.
    pub target: Target,
    /// Who resolves the name of an HTTP target, in the order in which they are asked: the
    /// servers of the side's own DNS targets, else the WAN's known resolvers. Empty: those of the
    /// system's `/etc/resolv.conf`.
    pub resolvers: Vec<SocketAddr>,
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
    /// The family over which it was asked.
    pub family: Family,
    /// Who was asked.
    pub target: Target,
    /// The probe's number.
    pub sequence: u64,
    /// The round trip, or why there was none.
    pub outcome: Result<Duration, Failure>,
}

/// Why a probe has no good answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// No answer, or a refusal; the text says why.
    Silent(String),
    /// Somebody else answered, as captive portals do: a redirect or a foreign page; the text
    /// says what came.
    Portal(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Silent(why) | Failure::Portal(why) => f.write_str(why),
        }
    }
}

/// What `step` does to the kernel: the model that the simulation, the laws and the contract tests
/// share.
pub fn expect(observed: &mut Observed, step: &Step) {
    match step {
        Step::SetSysctl { path, value } => {
            let before = observed.sysctls.insert(path.clone(), value.clone()).unwrap_or_default();
            observed.sysctls_before.entry(path.clone()).or_insert(before);
        }
        Step::RestoreSysctl { path, value } => {
            observed.sysctls.insert(path.clone(), value.clone());
            observed.sysctls_before.remove(path);
        }
        Step::SetCpus { file, value } => {
            let cpus = &mut observed.cpus;
            let before = cpus.files.insert(file.clone(), value.clone()).unwrap_or_default();
            cpus.before.entry(file.clone()).or_insert(before);
        }
        Step::RestoreCpus { file, value } => {
            // One that went away with its interface is only forgotten.
            if let Some(now) = observed.cpus.files.get_mut(file) {
                now.clone_from(value);
            }
            observed.cpus.before.remove(file);
        }
        Step::ReplaceTable { fingerprint, maps, .. } => {
            observed.nft.structure = Structure::Intact(*fingerprint);
            observed.nft.maps.clone_from(maps);
        }
        Step::ChangeElements(changes) => {
            for change in changes {
                let elements = observed.nft.maps.entry(change.map.clone()).or_default();
                match &change.new {
                    Some(chain) => elements.insert(change.key, chain.clone()),
                    None => elements.remove(&change.key),
                };
            }
        }
        Step::DeleteTable => observed.nft = crate::observed::Nft::default(),
        Step::SetUp(device) => {
            if let Some(link) = observed.links.get_mut(device) {
                link.up = true;
            }
        }
        Step::PutAddress(own) => model::put_address(observed, own),
        Step::DeleteAddress(own) => model::delete_address(observed, own),
        Step::PutRoute(route) => {
            observed.routes.retain(|r| !same_place(r, route));
            observed.routes.insert(route.clone());
        }
        Step::DeleteRoute(route) => {
            observed.routes.remove(route);
        }
        Step::AddRule(rule) => {
            observed.rules.insert(rule.clone());
        }
        Step::DeleteRule(rule) => {
            observed.rules.remove(rule);
        }
        Step::StartChild { name, program } | Step::ReloadChild { name, program } => {
            observed.children.insert(name.clone(), program.running());
        }
        Step::StopChild { name } => drop(observed.children.remove(name)),
        Step::TakeResolvConf { text } => model::take_resolv_conf(&mut observed.resolv_conf, text),
        Step::GiveBackResolvConf => model::give_back_resolv_conf(&mut observed.resolv_conf),
    }
}

/// Whether one route replaces the other: same family, destination, table and metric, both
/// ours.
pub fn same_place(a: &Route, b: &Route) -> bool {
    (a.family, a.table, a.to, a.metric, a.protocol)
        == (b.family, b.table, b.to, b.metric, b.protocol)
}
