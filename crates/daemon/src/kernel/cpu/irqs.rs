//! Which interrupts an interface has. In: its device in `/sys`, and `/proc/interrupts`. Out: their
//! numbers, the queues that they tell of, and whether they can be moved.
//!
//! 1. A PCI device lists its message-signalled ones in `msi_irqs`, or has one in `irq`.
//! 2. Behind a USB host the host's controller is interrupted, for all its devices.
//! 3. Others (the Raspberry Pi's Ethernet) are known only by the name that their driver gave them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anywan_core::observed::{CpuSet, Irq};

use super::super::programs::running;
use super::{entries, writable};

/// One interrupt of an interface.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) irq: Irq,
    /// It is the interface's alone, and its controller can.
    pub(super) movable: bool,
}

/// All interrupts of the machine, read when first asked for.
pub(super) struct Interrupts<'a> {
    root: &'a Path,
    refused: &'a BTreeSet<u32>,
    /// Who waits for each.
    actions: Option<BTreeMap<u32, Vec<String>>>,
    balanced: Option<bool>,
}

impl<'a> Interrupts<'a> {
    pub(super) fn new(root: &'a Path, refused: &'a BTreeSet<u32>) -> Interrupts<'a> {
        Interrupts { root, refused, actions: None, balanced: None }
    }

    /// Whether `irqbalance` runs; only asked for where there are interrupts.
    pub(super) fn balanced(&self) -> bool {
        self.balanced.unwrap_or(false)
    }

    /// The interrupts of one interface that has a device.
    pub(super) fn of(&mut self, interface: &str) -> BTreeMap<u32, Found> {
        let balanced =
            *self.balanced.get_or_insert_with(|| running(self.root).any(|n| n == "irqbalance"));
        let actions = self.actions.get_or_insert_with(|| {
            let text = fs::read_to_string(self.root.join("proc/interrupts"));
            parse(&text.unwrap_or_default())
        });
        let link = self.root.join("sys/class/net").join(interface).join("device");
        let Ok(device) = fs::canonicalize(link) else { return BTreeMap::new() };
        let (numbers, host) = numbers(&device, interface, actions);
        let names = [interface, base(&device)];
        // What nobody waits for belongs to an interface that is down.
        let used = numbers.into_iter().filter_map(|irq| Some((irq, actions.get(&irq)?)));
        let mut found = BTreeMap::new();
        for (irq, waiting) in used {
            let folder = self.root.join(format!("proc/irq/{irq}"));
            let can = !self.refused.contains(&irq) && writable(&folder.join("smp_affinity"));
            let movable = can && !host && waiting.len() == 1;
            let queue = waiting.first().filter(|_| !host).and_then(|name| queue(name, names));
            // What irqbalance may move next is not known to be anywhere.
            let at = if can && balanced { CpuSet::default() } else { taken(&folder) };
            let irq_of = Irq { queue, fixed: (!movable).then_some(at) };
            found.insert(irq, Found { irq: irq_of, movable });
        }
        found
    }
}

/// The numbers of an interface's interrupts, and whether they are those of its USB host.
fn numbers(
    device: &Path,
    interface: &str,
    actions: &BTreeMap<u32, Vec<String>>,
) -> (BTreeSet<u32>, bool) {
    let named = |fits: &dyn Fn(&str) -> bool| -> BTreeSet<u32> {
        let waits = |waiting: &Vec<String>| waiting.iter().any(|name| fits(name));
        actions.iter().filter(|(_, waiting)| waits(waiting)).map(|(irq, _)| *irq).collect()
    };
    if let Some((controller, bus)) = usb_host(device) {
        let listed = listed(&controller);
        let ends = format!(":{bus}");
        let of_host = if listed.is_empty() { named(&|name| name.ends_with(&ends)) } else { listed };
        return (of_host, true);
    }
    let own = base(device);
    let mut found = listed(device);
    if let (true, true, Some(parent)) =
        (found.is_empty(), own.starts_with("virtio"), device.parent())
    {
        found = listed(parent);
        // On a bus without interrupts of its own they are named after the device.
    }
    if found.is_empty() {
        let whole = |name: &str, of: &str| {
            let rest = name.strip_prefix(of);
            rest.is_some_and(|r| r.is_empty() || r.starts_with(['-', ':', '_', '.', '@']))
        };
        found = named(&|name| whole(name, interface) || whole(name, own));
    }
    (found, false)
}

/// The USB host that a device hangs on, and the name of its bus.
fn usb_host(device: &Path) -> Option<(PathBuf, String)> {
    let is_bus =
        |name: &str| name.strip_prefix("usb").is_some_and(|number| number.parse::<u16>().is_ok());
    let bus = device.ancestors().find(|at| is_bus(base(at)))?;
    Some((bus.parent()?.to_owned(), base(bus).to_owned()))
}

/// The interrupts that a PCI device lists.
fn listed(device: &Path) -> BTreeSet<u32> {
    let messages: BTreeSet<u32> =
        entries(&device.join("msi_irqs")).filter_map(|name| name.parse().ok()).collect();
    if !messages.is_empty() {
        return messages;
    }
    let line = fs::read_to_string(device.join("irq")).unwrap_or_default();
    line.trim().parse().ok().filter(|irq| *irq != 0).into_iter().collect()
}

/// The queue that the name of an interrupt tells of: `eth0-TxRx-3`, `virtio2-input.0`,
/// `mlx5_comp3@pci:0000:81:00.0`.
fn queue(name: &str, of: [&str; 2]) -> Option<u16> {
    let name = name.split('@').next()?;
    let rest = of.iter().find_map(|of| Some(name.split_once(*of)?.1)).unwrap_or(name);
    let digits = rest.trim_start_matches(|c: char| !c.is_ascii_digit());
    let last = rest.rsplit(|c: char| !c.is_ascii_digit()).next()?;
    if digits.is_empty() { None } else { last.parse().ok() }
}

/// The CPUs where an interrupt is taken.
fn taken(folder: &Path) -> CpuSet {
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let text = read("effective_affinity").or_else(|| read("smp_affinity"));
    text.and_then(|text| CpuSet::from_mask(&text)).unwrap_or_default()
}

/// `/proc/interrupts`: who waits for each numbered interrupt.
fn parse(text: &str) -> BTreeMap<u32, Vec<String>> {
    let columns = text.lines().next().unwrap_or_default().split_whitespace().count();
    let mut actions = BTreeMap::new();
    for line in text.lines().skip(1) {
        let Some((number, rest)) = line.split_once(':') else { continue };
        let Ok(irq) = number.trim().parse() else { continue };
        // Counts, then the controller and the like, then the names, with commas between.
        let mut words = rest.split_whitespace().skip(columns).peekable();
        if words.peek().is_some() {
            let names = rest.split(", ").filter_map(|part| part.split_whitespace().last());
            actions.insert(irq, names.map(str::to_owned).collect());
        }
    }
    actions
}

fn base(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_interrupts_tell_queues() {
        for (name, told) in [
            ("eth0", None),
            ("eth0-TxRx-12", Some(12)),
            ("i40e-eth0-TxRx-3", Some(3)),
            ("eth0-rx-0", Some(0)),
            ("virtio2-input.1", Some(1)),
            ("virtio2-config", None),
            ("mlx5_comp7@pci:0000:81:00.0", Some(7)),
            ("ena-mgmnt@pci:0000:00:05.0", None),
            ("xhci_hcd", None),
        ] {
            assert_eq!(queue(name, ["eth0", "virtio2"]), told, "{name}");
        }
    }

    #[test]
    fn the_table_of_interrupts_tells_who_waits() {
        let text = "           CPU0       CPU1\n \
                    27:          5          7  GICv2  30 Level     arch_timer\n \
                    56:    1203944          0  ARMCTRL-level  17 Edge      \
                    dwc_otg, dwc_otg_pcd, dwc_otg_hcd:usb1\n \
                    57:          0          0\n\
                    IPI0:       1          2  Rescheduling interrupts\n\
                    Err:          0\n";
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let told = BTreeMap::from([
            (27, names(&["arch_timer"])),
            (56, names(&["dwc_otg", "dwc_otg_pcd", "dwc_otg_hcd:usb1"])),
        ]);
        assert_eq!(parse(text), told);
    }
}
