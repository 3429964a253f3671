//! Which CPUs do the work of the interfaces. In: the CPUs, the queues and interrupts of each
//! interface. Out: what the kernel's files should say. Follows the kernel's
//! Documentation/networking/scaling.rst; files that are not wanted here are left as they are.
//!
//! 1. *Interrupts.* Those of an interface's own that can be moved are given to the CPUs with the
//!    fewest so far, one queue to each. One that cannot leave its CPU (the USB controllers of the
//!    Raspberry Pi) binds that CPU: it is the last to be given more.
//! 2. *RPS* where there are fewer queues than CPUs. An interface with a single queue hands on to
//!    every CPU but the one that is interrupted, as "that CPU already performs much work"; a queue
//!    among several keeps its own and gets its part of the spare ones. With a queue for each CPU
//!    it is "redundant and unnecessary". Only CPUs that share the interface's memory are used.
//! 3. *RFS* only beside RPS, for the router's own sockets: forwarded packets are read nowhere.
//! 4. *XPS* where queues to send by come in pairs with queues to receive by. More of the former
//!    than of the latter are classes of priority (Raspberry Pi 4, Wi-Fi), which CPUs must not
//!    choose between; with a single one it "has no effect".

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::Basis;
use crate::config::{Config, Cpu};
use crate::observed::{CpuFile, CpuSet, Cpus, Irq, Nic, Observed};

/// How many flows of local sockets are followed, all interfaces together (`/proc/sys`).
pub(super) const FLOW_ENTRIES: &str = "net/core/rps_sock_flow_entries";
/// As many, where they were none: 16 KiB. The kernel's document has 32,768 for a busy server; a
/// router reads few of its packets itself.
const FLOWS: u32 = 4096;

/// The interfaces whose queues and interrupts the daemon should read.
pub fn watched(config: &Config) -> BTreeSet<String> {
    match config.cpu {
        Cpu::Auto => interfaces(config),
        Cpu::Off => BTreeSet::new(),
    }
}

/// The interfaces whose work there is to do.
pub fn interfaces(config: &Config) -> BTreeSet<String> {
    let lans = config.lans.iter().map(|lan| &lan.interface);
    config.wans.iter().map(|wan| &wan.interface).chain(lans).cloned().collect()
}

/// What the files must say.
pub fn values(config: &Config, observed: &Observed) -> BTreeMap<CpuFile, String> {
    match config.cpu {
        Cpu::Auto => spread(&observed.cpus, flow_entries(observed)),
        Cpu::Off => BTreeMap::new(),
    }
}

/// What we changed once and no longer need, with what it said.
pub(super) fn obsolete(basis: Basis<'_>) -> BTreeMap<CpuFile, String> {
    let (wanted, cpus) = (values(basis.config, basis.observed), &basis.observed.cpus);
    let unneeded = cpus.before.iter().filter(|(file, _)| !wanted.contains_key(*file));
    let there = unneeded.filter(|(file, _)| cpus.files.contains_key(*file));
    there.map(|(file, value)| (file.clone(), value.clone())).collect()
}

/// Everything that we changed, as it was. Nothing where nothing can be read: then nothing could be
/// written either, and it is better kept for later.
pub(super) fn former(observed: &Observed) -> BTreeMap<CpuFile, String> {
    let readable = !observed.cpus.usable.is_empty();
    observed.cpus.before.clone().into_iter().filter(|_| readable).collect()
}

/// How many flows of local sockets are to be followed; `None` where the kernel cannot, as in
/// network namespaces. Somebody's own number is kept.
pub(super) fn flow_entries(observed: &Observed) -> Option<u32> {
    let now: u32 = observed.sysctls.get(FLOW_ENTRIES)?.parse().ok()?;
    let theirs = now != 0 && !observed.sysctls_before.contains_key(FLOW_ENTRIES);
    Some(if theirs { now } else { FLOWS })
}

/// Whether interrupts that could be moved are left to `irqbalance`.
pub fn yields(config: &Config, cpus: &Cpus) -> bool {
    let movable = |nic: &Nic| nic.irqs.values().any(|irq| irq.fixed.is_none());
    config.cpu == Cpu::Auto
        && cpus.balanced
        && cpus.usable.len() > 1
        && cpus.nics.values().any(movable)
}

/// What the files must say, so that the work of all interfaces is spread over all CPUs. Nothing
/// on a machine with one CPU.
pub fn spread(cpus: &Cpus, flow_entries: Option<u32>) -> BTreeMap<CpuFile, String> {
    let mut order: Vec<u16> = cpus.usable.keys().copied().collect();
    if order.len() < 2 {
        return BTreeMap::new();
    }
    order.sort_by_key(|cpu| {
        let core = cpus.usable[cpu];
        (core.sibling, Reverse(core.capacity), *cpu)
    });
    let usable: BTreeSet<u16> = cpus.usable.keys().copied().collect();
    let bound: BTreeSet<u16> = cpus.nics.values().flat_map(bound_to).collect();
    let load = bound.iter().map(|cpu| (*cpu, 1)).collect();
    let mut spread =
        Spread { cpus, order, usable, bound, load, flow_entries, wanted: BTreeMap::new() };
    for (device, nic) in &cpus.nics {
        let lanes = spread.interrupts(device, nic);
        spread.receive(device, nic, &lanes);
        spread.transmit(device, nic, &lanes);
    }
    spread.wanted
}

/// The CPUs that interrupts of an interface cannot leave.
fn bound_to(nic: &Nic) -> BTreeSet<u16> {
    let fixed = nic.irqs.values().filter_map(|irq| irq.fixed.as_ref());
    // One that may be taken by several CPUs binds none.
    fixed.filter(|at| at.0.len() == 1).flat_map(|at| at.0.iter().copied()).collect()
}

/// What has been given out so far.
struct Spread<'a> {
    cpus: &'a Cpus,
    /// First those that are best interrupted: whole cores before further threads, strong ones
    /// before weak ones.
    order: Vec<u16>,
    usable: BTreeSet<u16>,
    bound: BTreeSet<u16>,
    /// How many queues interrupt each CPU.
    load: BTreeMap<u16, usize>,
    flow_entries: Option<u32>,
    wanted: BTreeMap<CpuFile, String>,
}

impl Spread<'_> {
    /// Moves what can be moved; returns the CPUs that are interrupted, queue by queue. None: not
    /// known.
    fn interrupts(&mut self, device: &str, nic: &Nic) -> Vec<u16> {
        let movable: Vec<(&u32, &Irq)> =
            nic.irqs.iter().filter(|(_, irq)| irq.fixed.is_none()).collect();
        if movable.is_empty() || self.cpus.balanced {
            let bound = bound_to(nic).into_iter();
            return bound.filter(|cpu| self.usable.contains(cpu)).collect();
        }
        // Where some are named after queues, the others tell of the link and the like.
        let named: BTreeSet<u16> = movable.iter().filter_map(|(_, irq)| irq.queue).collect();
        let count = if named.is_empty() { movable.len() } else { named.len() };
        let lanes = self.pick(nic, count.min(usize::from(nic.receive)).max(1));
        for (place, (irq, about)) in movable.into_iter().enumerate() {
            let lane = match about.queue {
                Some(queue) => usize::from(queue) % lanes.len(),
                None if named.is_empty() => place % lanes.len(),
                None => continue,
            };
            let file = CpuFile::Interrupt { device: device.to_owned(), irq: *irq };
            self.want(file, [lanes[lane]]);
        }
        lanes
    }

    /// So many of the CPUs near to an interface, those with the fewest interrupts first.
    fn pick(&mut self, nic: &Nic, count: usize) -> Vec<u16> {
        let near = self.near(nic);
        let mut lanes: Vec<u16> =
            self.order.iter().copied().filter(|cpu| near.contains(cpu)).collect();
        lanes.sort_by_key(|cpu| self.load.get(cpu).copied().unwrap_or(0));
        lanes.truncate(count);
        for cpu in &lanes {
            *self.load.entry(*cpu).or_default() += 1;
        }
        lanes
    }

    /// The usable CPUs that share an interface's memory.
    fn near(&self, nic: &Nic) -> BTreeSet<u16> {
        let near: BTreeSet<u16> = nic.near.0.intersection(&self.usable).copied().collect();
        if near.is_empty() { self.usable.clone() } else { near }
    }

    fn receive(&mut self, device: &str, nic: &Nic, lanes: &[u16]) {
        let near = self.near(nic);
        if lanes.len() >= 2 {
            let spare: Vec<u16> = self
                .order
                .iter()
                .copied()
                .filter(|cpu| {
                    // "For interrupt handling, HT has shown no benefit."
                    let whole = !self.cpus.usable[cpu].sibling;
                    whole && near.contains(cpu) && !lanes.contains(cpu) && !self.bound.contains(cpu)
                })
                .collect();
            for queue in 0..nic.receive {
                let lane = usize::from(queue) % lanes.len();
                let part = spare.iter().skip(lane).step_by(lanes.len());
                let set: BTreeSet<u16> = part.copied().chain([lanes[lane]]).collect();
                if set.len() > 1 {
                    self.want_receive(device, nic, queue, set);
                }
            }
            return;
        }
        // Several queues whose interrupts others spread, or for which senders are spread already.
        if nic.receive > 1 && lanes.is_empty() {
            return;
        }
        // What nobody has moved interrupts the first CPU; what irqbalance moves, any.
        let first = || self.usable.first().copied().filter(|_| !self.cpus.balanced);
        let busy: BTreeSet<u16> = lanes.first().copied().or_else(first).into_iter().collect();
        let idle: BTreeSet<u16> = near.difference(&busy).copied().collect();
        let free: BTreeSet<u16> = idle.difference(&self.bound).copied().collect();
        let set = if free.is_empty() { idle } else { free };
        if !set.is_empty() {
            for queue in 0..nic.receive {
                self.want_receive(device, nic, queue, set.clone());
            }
        }
    }

    fn want_receive(&mut self, device: &str, nic: &Nic, queue: u16, set: BTreeSet<u16>) {
        self.want(CpuFile::Receive { device: device.to_owned(), queue }, set);
        let file = CpuFile::Flows { device: device.to_owned(), queue };
        let share = self.flow_entries.map_or(0, |entries| entries / u32::from(nic.receive.max(1)));
        if share > 0 && self.cpus.files.contains_key(&file) {
            // The kernel rounds up to a power of two; what is read back must be what was written.
            self.wanted.insert(file, (1_u32 << share.ilog2()).to_string());
        }
    }

    fn transmit(&mut self, device: &str, nic: &Nic, lanes: &[u16]) {
        if !nic.hardware || nic.transmit < 2 || nic.transmit > nic.receive {
            return;
        }
        let others = self.order.iter().filter(|cpu| !lanes.contains(cpu));
        let cpus: Vec<u16> = lanes.iter().chain(others).copied().collect();
        let queues = usize::from(nic.transmit);
        for queue in 0..nic.transmit {
            let first = usize::from(queue) % cpus.len();
            let set: BTreeSet<u16> = cpus.iter().skip(first).step_by(queues).copied().collect();
            self.want(CpuFile::Transmit { device: device.to_owned(), queue }, set);
        }
    }

    /// Notes what a file must say, if there is such a file.
    fn want(&mut self, file: CpuFile, set: impl IntoIterator<Item = u16>) {
        if self.cpus.files.contains_key(&file) {
            self.wanted.insert(file, CpuSet(set.into_iter().collect()).mask());
        }
    }
}

#[cfg(test)]
mod tests;
