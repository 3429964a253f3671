//! Which CPUs do the work of the interfaces, told for a person. In: what was read of the queues and
//! interrupts. Out: a [`Placement`], a line for each file of the kernel, and what anywan would have
//! there.

use std::collections::{BTreeMap, BTreeSet};

use super::Machine;
use crate::api::{Placed, Placement};
use crate::config::Config;
use crate::desired;
use crate::facts;
use crate::observed::{CpuFile, CpuSet, Observed};

/// The interfaces whose queues and interrupts are to be read.
pub fn interfaces(config: Option<&Config>, observed: &Observed) -> BTreeSet<String> {
    let config = config.map(|config| facts::resolved(config, &observed.links));
    config.as_ref().map(desired::worked_interfaces).unwrap_or_default()
}

/// Who does the work now, and who should.
pub fn placement(machine: &Machine, config: &Config) -> Placement {
    let cpus = &machine.observed.cpus;
    let wanted = desired::cpu_values(config, &machine.observed);
    let mut lines: Vec<Placed> = Vec::new();
    for (device, nic) in &cpus.nics {
        for (irq, fixed) in nic.irqs.iter().filter_map(|(n, irq)| Some((n, irq.fixed.as_ref()?))) {
            let now = if fixed.0.is_empty() { "unknown".to_owned() } else { cpus_text(fixed) };
            let what = format!("interrupt {irq}");
            lines.push(Placed { interface: device.clone(), what, now, wanted: None, fixed: true });
        }
        let of_device = cpus.files.iter().filter(|(file, _)| file.device() == device);
        lines.extend(of_device.map(|(file, value)| line(file, value, &wanted)));
    }
    let usable = CpuSet(cpus.usable.keys().copied().collect());
    Placement { cpus: usable.list(), balanced: cpus.balanced, lines }
}

fn line(file: &CpuFile, value: &str, wanted: &BTreeMap<CpuFile, String>) -> Placed {
    let what = match file {
        CpuFile::Interrupt { irq, .. } => format!("interrupt {irq}"),
        CpuFile::Receive { queue, .. } => format!("receive queue {queue}, handed on (RPS)"),
        CpuFile::Flows { queue, .. } => format!("receive queue {queue}, followed flows (RFS)"),
        CpuFile::Transmit { queue, .. } => format!("transmit queue {queue} (XPS)"),
    };
    let say = |value: &str| match file {
        CpuFile::Flows { .. } => value.to_owned(),
        CpuFile::Interrupt { .. } | CpuFile::Receive { .. } | CpuFile::Transmit { .. } => {
            CpuSet::from_mask(value).map_or_else(|| value.to_owned(), |set| cpus_text(&set))
        }
    };
    let wanted = wanted.get(file).filter(|wanted| *wanted != value).map(|wanted| say(wanted));
    Placed { interface: file.device().to_owned(), what, now: say(value), wanted, fixed: false }
}

fn cpus_text(set: &CpuSet) -> String {
    if set.0.is_empty() { "no CPU".to_owned() } else { format!("CPU {}", set.list()) }
}
