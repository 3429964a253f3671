//! The kernel adapter: reads the facts that core wants to know, and carries out its steps. In:
//! [`Step`]s. Out: the parts of `anywan_core::observed`. It decides nothing, remembers nothing
//! about routes and rules, and touches nothing that is not tagged as ours.
//!
//! Calls block, for microseconds: the kernel does the work inside the call. One thread owns it.
//! Two sockets are kept open for ever: requests to rtnetlink, and to netfilter (closing one that
//! has committed an nftables transaction costs 16 ms). A third, for reading routes, may be
//! replaced at any time, as stopping early in a dump means closing its socket. Raw sockets that
//! wake clients are opened when first needed. [`Monitor`] and [`Destroyed`] have sockets of their
//! own.

mod addresses;
mod announced;
mod conntrack;
#[doc(hidden)]
pub mod cpu;
mod drivers;
mod error;
mod links;
mod monitor;
mod nft;
pub(crate) mod packet;
#[doc(hidden)]
pub mod parsers;
pub(crate) mod programs;
mod remember;
mod routes;
mod rules;
mod socket;
mod sysctl;
mod timekeeping;
mod wake;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use anywan_core::names::{Family, IfIndex, Mac, Mark, RulePriority, WanId};
use anywan_core::observed::{
    Address, Cpus, Dialling, Link, Neighbour, Nft, Observed, Route, Rule, TcpFlow, Traffic,
};
use anywan_core::steps::Step;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};

use crate::clock::Clock;

pub use announced::Announced;
pub use conntrack::{Destroyed, Gone};
pub use error::{KernelError, Refused};
pub use monitor::{Hints, Monitor};
use remember::Memory;
use socket::Conn;
pub use timekeeping::clock_kept;
pub use wake::Portion;

/// The kernel of one network namespace: that of the thread that opened it.
#[derive(Debug)]
pub struct Kernel {
    /// By which the kernel's lifetimes become moments.
    clock: Clock,
    route: Conn,
    route_dumps: Conn,
    netfilter: Conn,
    memory: Memory,
    cpu_files: cpu::Files,
    drivers: drivers::Drivers,
    table: nft::Table,
    waker: wake::Waker,
}

impl Kernel {
    /// Opens the sockets, and reads what an earlier daemon left in the state directory.
    pub fn open(state_dir: &Path) -> Result<Kernel, KernelError> {
        let open = |what, protocol| {
            Conn::open(protocol).map_err(|error| KernelError::Open {
                what,
                hint: "anywan needs Linux 6.1 or newer",
                source: Refused::Socket(error),
            })
        };
        let mut kernel = Kernel {
            route: open("rtnetlink", NETLINK_ROUTE)?,
            route_dumps: open("rtnetlink", NETLINK_ROUTE)?,
            netfilter: open("nfnetlink", NETLINK_NETFILTER)?,
            memory: Memory::open(state_dir),
            cpu_files: cpu::Files::new(Path::new("/")),
            clock: Clock::start(),
            drivers: drivers::Drivers::default(),
            table: nft::Table::default(),
            waker: wake::Waker::default(),
        };
        match nft::generation(&mut kernel.netfilter) {
            Ok(_) => Ok(kernel),
            Err(source) => {
                let hint = match source.errno() {
                    Some(libc::EPERM) => "run anywand as root, or with CAP_NET_ADMIN",
                    _ => {
                        "the kernel has no nf_tables: load the module nf_tables, or use a kernel \
                          with CONFIG_NF_TABLES"
                    }
                };
                Err(KernelError::Open { what: "nf_tables", hint, source })
            }
        }
    }

    /// The clock by which lifetimes are told.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Everything at once, with the kernel parameters of these paths, and nothing from memory; of
    /// the CPUs only what goes back to what it was, and no programs.
    pub fn observe<P: AsRef<str>>(
        &mut self,
        sysctls: impl IntoIterator<Item = P>,
    ) -> Result<Observed, KernelError> {
        self.table.forget();
        Ok(Observed {
            links: self.links()?,
            addresses: self.addresses()?,
            routes: self.routes()?,
            rules: self.rules()?,
            foreign_rules: self.foreign_rules()?,
            neighbours: self.neighbours()?,
            sysctls: self.sysctls(sysctls)?,
            sysctls_before: self.sysctls_before().clone(),
            cpus: self.cpus(&BTreeSet::new())?,
            nft: self.nft()?,
            children: BTreeMap::new(),
            leases: BTreeMap::new(),
            undecided: BTreeSet::new(),
            resolvers: anywan_core::observed::Resolvers::default(),
            resolv_conf: anywan_core::observed::ResolvConf::default(),
            dialling: Dialling::default(),
            lent: BTreeSet::new(),
            followed: conntrack::followed(),
        })
    }

    /// Every network interface.
    pub fn links(&mut self) -> Result<BTreeMap<IfIndex, Link>, KernelError> {
        let mut links = links::read_links(&mut self.route)?;
        self.drivers.name(&mut links);
        Ok(links)
    }

    /// Every address of every interface.
    pub fn addresses(&mut self) -> Result<BTreeSet<Address>, KernelError> {
        addresses::read(&mut self.route, self.clock.now())
    }

    /// Ours in any table, and everybody's default routes in main.
    pub fn routes(&mut self) -> Result<BTreeSet<Route>, KernelError> {
        routes::read(&mut self.route_dumps)
    }

    /// Our ip rules.
    pub fn rules(&mut self) -> Result<BTreeSet<Rule>, KernelError> {
        rules::read(&mut self.route)
    }

    /// Where the ip rules of others stand.
    pub fn foreign_rules(&mut self) -> Result<BTreeSet<(Family, RulePriority)>, KernelError> {
        rules::read_foreign(&mut self.route)
    }

    /// Chains of others that drop forwarded packets which they do not know, e.g. `ip filter FORWARD`.
    pub fn dropping_chains(&mut self) -> Result<BTreeSet<String>, KernelError> {
        nft::foreign::dropping(&mut self.netfilter)
            .map_err(|e| e.doing("read the chains of others"))
    }

    /// Has nft and the kernel check the text of a table; nothing is loaded.
    pub fn check_table(&self, text: &str) -> Result<(), KernelError> {
        nft::load::check(text)
    }

    /// The neighbours with a known hardware address.
    pub fn neighbours(&mut self) -> Result<BTreeMap<Neighbour, Mac>, KernelError> {
        links::read_neighbours(&mut self.route)
    }

    /// Kernel parameters, by path below `/proc/sys`; those that do not exist are absent.
    pub fn sysctls<P: AsRef<str>>(
        &self,
        paths: impl IntoIterator<Item = P>,
    ) -> Result<BTreeMap<String, String>, KernelError> {
        sysctl::read(paths)
    }

    /// What the parameters that we changed were before.
    pub fn sysctls_before(&self) -> &BTreeMap<String, String> {
        self.memory.sysctls()
    }

    /// The CPUs, and the queues and interrupts of these interfaces. Takes milliseconds: to be read
    /// when nothing else is to be done. Nothing, where `/sys` is not of our network namespace.
    pub fn cpus(&mut self, interfaces: &BTreeSet<String>) -> Result<Cpus, KernelError> {
        let before = self.memory.cpus();
        let asked = !interfaces.is_empty() || !before.is_empty();
        if asked && !cpu::shows(&links::read_links(&mut self.route)?) {
            return Ok(Cpus { before: before.clone(), ..Cpus::default() });
        }
        Ok(self.cpu_files.read(interfaces, before))
    }

    /// Has the routers on a link announce themselves now.
    pub fn solicit(&self, device: IfIndex) -> Result<(), KernelError> {
        announced::solicit(device).map_err(|error| {
            Refused::Socket(error).doing(format!("ask the routers of interface {}", device.0))
        })
    }

    /// Our nftables table. Cheap when nobody committed anything since it was last read.
    pub fn nft(&mut self) -> Result<Nft, KernelError> {
        self.table.read(&mut self.netfilter, &self.memory)
    }

    /// Carries out one step.
    pub fn apply(&mut self, step: &Step) -> Result<(), KernelError> {
        match step {
            Step::SetSysctl { path, value } => sysctl::set(&mut self.memory, path, value),
            Step::RestoreSysctl { path, value } => sysctl::restore(&mut self.memory, path, value),
            Step::SetCpus { file, value } => self.cpu_files.set(&mut self.memory, file, value),
            Step::RestoreCpus { file, value } => {
                self.cpu_files.restore(&mut self.memory, file, value)
            }
            Step::ReplaceTable { fingerprint, text, interim, .. } => {
                let (conn, memory) = (&mut self.netfilter, &mut self.memory);
                self.table.replace(conn, memory, *fingerprint, (text, interim))
            }
            Step::ChangeElements(changes) => self.table.change(&mut self.netfilter, changes),
            Step::DeleteTable => self.table.delete(&mut self.netfilter, &mut self.memory),
            Step::SetUp(device) => links::set_up(&mut self.route, *device),
            Step::PutAddress(own) => addresses::put(&mut self.route, own, self.clock.now()),
            Step::DeleteAddress(own) => addresses::delete(&mut self.route, own),
            Step::PutRoute(route) => routes::put(&mut self.route, route),
            Step::DeleteRoute(route) => routes::delete(&mut self.route, route),
            Step::AddRule(rule) => rules::add(&mut self.route, rule),
            Step::DeleteRule(rule) => rules::delete(&mut self.route, rule),
            // Programs and files are no part of the kernel.
            Step::StartChild { .. } | Step::ReloadChild { .. } | Step::StopChild { .. } => Ok(()),
            Step::TakeResolvConf { .. } | Step::GiveBackResolvConf => Ok(()),
        }
    }

    /// How many flows of both families have the mark `mark` under `mask`.
    pub fn count_flows(&mut self, mark: u32, mask: u32) -> Result<u64, KernelError> {
        conntrack::count(&mut self.netfilter, mark, mask)
    }

    /// Deletes from conntrack the untranslated flows of one family from one of `lans` to where
    /// nobody else's routes lead (as a look-up under the mark `question` tells), unless their mark
    /// under the mask is one of those that are right; says how many there were.
    pub fn forget_untranslated(
        &mut self,
        family: Family,
        lans: &BTreeSet<IfIndex>,
        question: u32,
        right: (u32, &BTreeSet<u32>),
    ) -> Result<u64, KernelError> {
        let route = &mut self.route;
        let way = |to| routes::way(route, to, question);
        conntrack::forget_untranslated(&mut self.netfilter, family, lans, right, way)
    }

    /// Deletes from conntrack the flows of one family whose mark is `mark` under `mask`, but for
    /// established TCP, and says how many there were.
    pub fn evacuate(&mut self, family: Family, mark: u32, mask: u32) -> Result<u64, KernelError> {
        conntrack::evacuate(&mut self.netfilter, family, mark, mask)
    }

    /// Deletes from conntrack the translated flows of one family whose mark is `mark` under `mask` and
    /// that nobody has answered, and says how many there were.
    pub fn forget_unanswered(
        &mut self,
        family: Family,
        mark: u32,
        mask: u32,
    ) -> Result<u64, KernelError> {
        conntrack::forget_unanswered(&mut self.netfilter, family, mark, mask)
    }

    /// Has the flows of one family whose mark is `mark` under `mask` begin anew though their WAN
    /// works: see [`Ask::Release`](anywan_core::steps::Ask::Release). Established TCP is refused
    /// for so many seconds; returned are how many flows there were, and those whose clients may
    /// have to be woken.
    pub fn release(
        &mut self,
        family: Family,
        mark: (u32, u32),
        own: &[IpAddr],
        seconds: u32,
    ) -> Result<(u64, Vec<TcpFlow>), KernelError> {
        let found = conntrack::lingering(&mut self.netfilter, family, mark, own)?;
        let flows: Vec<TcpFlow> = found.iter().filter_map(|(_, flow)| *flow).collect();
        // First the refusal: a deleted flow's next packet would be taken for a new flow.
        self.mark_gone(&flows, seconds)?;
        let count = conntrack::delete_released(&mut self.netfilter, family, found)?;
        Ok((count, flows))
    }

    /// The TCP flows of one family whose mark is `mark` under `mask` and that a client may be
    /// waiting on: established, or closed by one end only. At most 65,536 of them; the rest comes
    /// into view when these have been told.
    ///
    /// A flow that our table has reset leaves this list by itself: the kernel closes its entry
    /// (seen on Debian's 6.1 and on 6.18).
    pub fn established(
        &mut self,
        family: Family,
        mark: u32,
        mask: u32,
    ) -> Result<Vec<TcpFlow>, KernelError> {
        conntrack::established(&mut self.netfilter, family, mark, mask)
    }

    /// Makes the clients of lost or gone flows send something, so that our table can answer it
    /// with a reset. `ask` is the mark under which the routing leads to LANs only.
    ///
    /// Deals with the first flows, at most 64 and for about 3 ms, so that neither the caller nor a
    /// queue on the way suffers. The caller goes on with the rest after the pause it is told: 1 ms
    /// where the machine keeps up, else 12 ms.
    pub fn wake(&mut self, flows: &[TcpFlow], ask: Mark) -> Result<Portion, KernelError> {
        self.waker.wake(flows, ask)
    }

    /// Has every packet of these flows but one that begins a flow anew answered with a reset, for
    /// so many seconds (at least 1). For flows whose conntrack entry is gone. All in one
    /// transaction, of at most 65,536 flows.
    pub fn mark_gone(&mut self, flows: &[TcpFlow], seconds: u32) -> Result<(), KernelError> {
        self.table.mark_gone(&mut self.netfilter, flows, seconds)
    }

    /// The same for flows that somebody else has deleted, of which conntrack may have picked up some
    /// again meanwhile: these entries go too, or their packets would never be looked at.
    pub fn refuse(&mut self, flows: &[TcpFlow], seconds: u32) -> Result<(), KernelError> {
        self.mark_gone(flows, seconds)?;
        conntrack::forget_resumed(&mut self.netfilter, flows).map(drop)
    }

    /// How many packets the flows of each WAN and family have sent and received.
    pub fn traffic(&mut self) -> Result<BTreeMap<(WanId, Family), Traffic>, KernelError> {
        nft::counters::read(&mut self.netfilter).map_err(|e| e.doing("read our counters"))
    }
}
