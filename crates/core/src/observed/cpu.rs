//! What there is to spread over the CPUs: the CPUs themselves, the queues and interrupts of
//! interfaces, and the files of the kernel that say who serves them. Plain values; the arithmetic
//! is that of the kernel's two ways of writing sets of CPUs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// More CPUs than any kernel is built for (`CONFIG_NR_CPUS` ends at 8,192).
const CPUS_MAX: u32 = 8192;

/// A set of CPUs, by number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct CpuSet(pub BTreeSet<u16>);

impl CpuSet {
    /// Reads a mask as in `rps_cpus`: hexadecimal groups of 32 bits, the highest first.
    pub fn from_mask(text: &str) -> Option<CpuSet> {
        let mut cpus = BTreeSet::new();
        for (group, digits) in (0_u32..).zip(text.trim().rsplit(',')) {
            let bits = u32::from_str_radix(digits, 16).ok()?;
            for bit in (0..32).filter(|bit| bits >> bit & 1 == 1) {
                cpus.insert(number(group.checked_mul(32)?.checked_add(bit)?)?);
            }
        }
        Some(CpuSet(cpus))
    }

    /// Reads a list as in `/sys/devices/system/cpu/online`: `0-3,8`; may be empty.
    pub fn from_list(text: &str) -> Option<CpuSet> {
        let mut cpus = BTreeSet::new();
        for part in text.trim().split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first.parse().ok()?)?, number(last.parse().ok()?)?);
            cpus.extend(first..=last);
        }
        Some(CpuSet(cpus))
    }

    /// The list, as in `/sys/devices/system/cpu/online`: `0-3,8`; empty for none.
    pub fn list(&self) -> String {
        let mut runs: Vec<(u16, u16)> = Vec::new();
        for cpu in &self.0 {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == *cpu => *last = *cpu,
                Some(_) | None => runs.push((*cpu, *cpu)),
            }
        }
        let text = |(first, last): (u16, u16)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        runs.into_iter().map(text).collect::<Vec<_>>().join(",")
    }

    /// The mask as the kernel takes it, without leading zeros; no CPU is "0".
    pub fn mask(&self) -> String {
        let groups = self.0.last().map_or(1, |last| last / 32 + 1);
        let bits = |group: u16| {
            let of_group = self.0.iter().filter(|cpu| *cpu / 32 == group);
            of_group.fold(0_u32, |bits, cpu| bits | 1 << (cpu % 32))
        };
        let mut text = format!("{:x}", bits(groups - 1));
        for group in (0..groups - 1).rev() {
            text.push_str(&format!(",{:08x}", bits(group)));
        }
        text
    }
}

fn number(cpu: u32) -> Option<u16> {
    u16::try_from(cpu).ok().filter(|_| cpu < CPUS_MAX)
}

/// One file of the kernel that says which CPUs serve something of an interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum CpuFile {
    /// `/proc/irq/N/smp_affinity`: who may take an interrupt.
    Interrupt {
        /// The interface that it belongs to.
        device: String,
        /// Its number.
        irq: u32,
    },
    /// `queues/rx-N/rps_cpus`: who goes on with what a queue has received (RPS).
    Receive {
        /// The interface.
        device: String,
        /// The queue.
        queue: u16,
    },
    /// `queues/rx-N/rps_flow_cnt`: how many flows of a queue are led to where they are read (RFS).
    Flows {
        /// The interface.
        device: String,
        /// The queue.
        queue: u16,
    },
    /// `queues/tx-N/xps_cpus`: who sends by a queue (XPS).
    Transmit {
        /// The interface.
        device: String,
        /// The queue.
        queue: u16,
    },
}

impl CpuFile {
    /// The interface.
    pub fn device(&self) -> &str {
        match self {
            CpuFile::Interrupt { device, .. }
            | CpuFile::Receive { device, .. }
            | CpuFile::Flows { device, .. }
            | CpuFile::Transmit { device, .. } => device,
        }
    }
}

impl fmt::Display for CpuFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CpuFile::Interrupt { device, irq } => write!(f, "{device}/irq-{irq}/smp_affinity"),
            CpuFile::Receive { device, queue } => write!(f, "{device}/rx-{queue}/rps_cpus"),
            CpuFile::Flows { device, queue } => write!(f, "{device}/rx-{queue}/rps_flow_cnt"),
            CpuFile::Transmit { device, queue } => write!(f, "{device}/tx-{queue}/xps_cpus"),
        }
    }
}

impl FromStr for CpuFile {
    type Err = String;

    fn from_str(text: &str) -> Result<CpuFile, String> {
        let mut parts = text.split('/');
        let (device, place, leaf) = (parts.next(), parts.next(), parts.next());
        let (kind, number) = place.and_then(|place| place.split_once('-')).unwrap_or_default();
        let device = device.unwrap_or_default().to_owned();
        let queue = || number.parse::<u16>().map_err(|_| text.to_owned());
        let file = match (kind, leaf.unwrap_or_default()) {
            ("irq", "smp_affinity") => {
                let irq = number.parse().map_err(|_| text.to_owned())?;
                CpuFile::Interrupt { device, irq }
            }
            ("rx", "rps_cpus") => CpuFile::Receive { device, queue: queue()? },
            ("rx", "rps_flow_cnt") => CpuFile::Flows { device, queue: queue()? },
            ("tx", "xps_cpus") => CpuFile::Transmit { device, queue: queue()? },
            _ => return Err(text.to_owned()),
        };
        // What would lead elsewhere in the file system is no interface's name.
        let plain = !matches!(file.device(), "" | "." | "..") && parts.next().is_none();
        plain.then_some(file).ok_or_else(|| text.to_owned())
    }
}

impl From<CpuFile> for String {
    fn from(file: CpuFile) -> String {
        file.to_string()
    }
}

impl TryFrom<String> for CpuFile {
    type Error = String;

    fn try_from(text: String) -> Result<CpuFile, String> {
        text.parse()
    }
}

/// The CPUs, and what is to be spread over them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cpus {
    /// The CPUs that may be given work: online, not set apart (`isolcpus`, `nohz_full`). Empty
    /// until they have been read, and where they are not to be.
    pub usable: BTreeMap<u16, Core>,
    /// `irqbalance` runs: it moves interrupts as it sees fit.
    pub balanced: bool,
    /// The interfaces whose queues are to be spread, by name; below a bridge, a VLAN or a bond,
    /// those that packets really come by.
    pub nics: BTreeMap<String, Nic>,
    /// What the files that can be written say, in the form of [`CpuSet::mask`] or as a number.
    pub files: BTreeMap<CpuFile, String>,
    /// What those that we changed said before (kept in the state directory).
    pub before: BTreeMap<CpuFile, String>,
}

/// One CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Core {
    /// How much it can do, 1 to 1,024 of the strongest; `None` where all are alike.
    pub capacity: Option<u32>,
    /// A further thread of a core that a CPU with a lower number is the first of.
    pub sibling: bool,
}

/// The queues and interrupts of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Nic {
    /// There is a device behind it; otherwise it is the kernel's own (ppp, veth, tun).
    pub hardware: bool,
    /// The CPUs that share its memory; empty where that is unknown.
    pub near: CpuSet,
    /// How many queues it receives by.
    pub receive: u16,
    /// How many queues it sends by.
    pub transmit: u16,
    /// Its interrupts, by number.
    pub irqs: BTreeMap<u32, Irq>,
}

/// One interrupt.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Irq {
    /// The queue that it tells of, as far as its name says so.
    pub queue: Option<u16>,
    /// Where it is taken, of one that is not to be moved: the hardware cannot, or it is shared
    /// with other devices. Empty: not known.
    pub fixed: Option<CpuSet>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(cpus: &[u16]) -> CpuSet {
        CpuSet(cpus.iter().copied().collect())
    }

    #[test]
    fn masks_and_lists_are_those_of_the_kernel() {
        for (text, cpus, mask) in [
            ("0\n", &[][..], "0"),
            ("00000000,0000000e", &[1, 2, 3], "e"),
            ("80000001,00000000,00000010\n", &[4, 64, 95], "80000001,00000000,00000010"),
            ("ff", &[0, 1, 2, 3, 4, 5, 6, 7], "ff"),
        ] {
            let read = CpuSet::from_mask(text).expect(text);
            assert_eq!((&read, read.mask().as_str()), (&set(cpus), mask), "{text}");
        }
        for text in ["", "g", "1,,2", "1ffffffff", "-1", "0x3"] {
            assert_eq!(CpuSet::from_mask(text), None, "{text}");
        }
        let endless = vec!["ffffffff"; 300].join(",");
        assert_eq!(CpuSet::from_mask(&endless), None, "more CPUs than there can be");
        assert_eq!(CpuSet::from_list("0-2,8,10-11\n"), Some(set(&[0, 1, 2, 8, 10, 11])));
        assert_eq!(CpuSet::from_list("\n"), Some(set(&[])));
        for text in ["", "3", "0-2,8,10-11"] {
            assert_eq!(CpuSet::from_list(text).map(|read| read.list()), Some(text.to_owned()));
        }
        assert_eq!(CpuSet::from_list("0-9999999"), None);
    }

    #[test]
    fn a_file_is_found_again_by_its_name() {
        let device = || "eth0.7".to_owned();
        for file in [
            CpuFile::Interrupt { device: device(), irq: 4_000_000 },
            CpuFile::Receive { device: device(), queue: 0 },
            CpuFile::Flows { device: device(), queue: 15 },
            CpuFile::Transmit { device: device(), queue: 7 },
        ] {
            assert_eq!(file.to_string().parse(), Ok(file));
        }
        for text in ["", "eth0", "../rx-0/rps_cpus", "a/rx-0/rps_cpus/x", "a/rx-x/rps_cpus"] {
            assert!(text.parse::<CpuFile>().is_err(), "{text}");
        }
    }
}
